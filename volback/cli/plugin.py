"""`plugin install` and `plugin remove`: volback as a command of docker, `docker volback ...`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import volback
from volback.cli.call import Outcome, call_of
from volback.errors import ConflictError, NotFoundError, StoreError

if TYPE_CHECKING:
    from volback.cli.documents.machine import PluginFile

_EPILOG = """\b
Examples:
  volback plugin install    docker volback list, from now on
  volback plugin remove
"""
_INSTALL_EPILOG = """\b
Examples:
  volback plugin install         of the user who calls
  docker volback backup db
"""
_REMOVE_EPILOG = """\b
Examples:
  volback plugin remove
"""
_MARK = "# written by volback plugin install"


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    family = typer.Typer(help="Make volback a command of docker.", epilog=_EPILOG, rich_markup_mode=None)
    family.command(epilog=_INSTALL_EPILOG)(install)
    family.command(epilog=_REMOVE_EPILOG)(remove)
    app.add_typer(family, name="plugin")


def install(context: typer.Context) -> Outcome:
    """Make it a command of docker, for the calling user."""
    call_of(context).command = "plugin install"
    path = _place()
    if path.exists() and _MARK not in _text(path):
        raise ConflictError(f"{path} is there, and is not by volback", "remove it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(_command()), encoding="utf-8")
        path.chmod(0o755)
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}") from exc
    written: PluginFile = {"file": str(path)}
    return Outcome(written, [f"wrote {path}: docker volback --help"])


def remove(context: typer.Context) -> Outcome:
    """Remove what `plugin install` wrote."""
    call_of(context).command = "plugin remove"
    path = _place()
    if not path.exists():
        raise NotFoundError(f"{path} does not exist", "volback plugin install writes it")
    if _MARK not in _text(path):
        raise ConflictError(f"{path} is not by volback", "it stays as it is")
    path.unlink()
    removed: PluginFile = {"file": str(path)}
    return Outcome(removed, [f"removed {path}"])


def script(command: str) -> str:
    """What docker runs: with the question for its metadata, or with all words of the command line after `docker`."""
    metadata = {
        "SchemaVersion": "0.1.0",
        "Vendor": "volback",
        "Version": volback.__version__,
        "ShortDescription": "Back up, restore and prove volumes",
    }
    return f"""#!/bin/sh
{_MARK}
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo {shlex.quote(json.dumps(metadata))}
    exit
fi
seen=
for word; do  # the first `volback` is the name of the plugin
    shift
    if [ -z "$seen" ] && [ "$word" = volback ]; then seen=yes; else set -- "$@" "$word"; fi
done
exec {command} "$@"
"""


def _place() -> Path:
    home = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    return Path(home) / "cli-plugins" / "docker-volback"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _command() -> str:
    """What runs this volback again."""
    called = shutil.which(sys.argv[0])
    if called and Path(called).name == "volback":
        return shlex.quote(str(Path(called).absolute()))
    return f"{shlex.quote(sys.executable)} -m volback"
