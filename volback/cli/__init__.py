"""Cli: Typer commands; the only floor that prints, exits or draws progress."""
