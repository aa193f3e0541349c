"""Catalog: manifest, index, references and the commit rule. It knows the format; it does not know engines or
compressors."""
