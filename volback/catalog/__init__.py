"""Catalog: manifest, index, references and the commit rule. Knows formats, no engine and no compressor."""
