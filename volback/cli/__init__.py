"""Cli: Typer commands; the only package that prints, exits or draws progress."""
