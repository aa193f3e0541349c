"""Encryption of a repository: the layer above its store, and where its identities come from."""
