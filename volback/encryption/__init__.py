"""Encryption of a repository: where its identities come from."""
