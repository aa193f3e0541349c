"""The environment's part of the sources of identities and passphrases."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from volback.config.places import Place
from volback.config.secrets import Secret
from volback.encryption.sources import Sources, identity_file, passphrase_file, secret_text
from volback.errors import UsageError

_ENVIRONMENT = "the environment"


def sources_of(environment: Mapping[str, str], identity_files: Sequence[Path] = ()) -> Sources:
    """The given files, then what the environment names. Raises UsageError for a command that is not one."""
    files = [*identity_files, *_path(environment, "VOLBACK_IDENTITY_FILE")]
    passphrases = [passphrase_file(path) for path in _path(environment, "VOLBACK_PASSPHRASE_FILE")]
    if line := environment.get("VOLBACK_PASSPHRASE_COMMAND"):
        place = Place(_ENVIRONMENT, None, "VOLBACK_PASSPHRASE_COMMAND")
        passphrases.append(secret_text(Secret(place, command=_words(line, place))))
    return Sources(tuple(identity_file(path) for path in files), tuple(passphrases))


def _path(environment: Mapping[str, str], name: str) -> list[Path]:
    value = environment.get(name)
    return [Path(value).expanduser()] if value else []


def _words(line: str, place: Place) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(line))
    except ValueError as exc:
        raise UsageError(f"{place.key} is not a command: {str(exc).lower()}") from None
    if not words:
        raise UsageError(f"{place.key} is not a command")
    return words
