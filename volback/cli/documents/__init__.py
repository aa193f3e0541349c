"""Documents: the types of what `--json` writes. mypy holds each command to them; the published schema is made of them.

When volback runs nothing needs them: commands import them for mypy alone.
"""
