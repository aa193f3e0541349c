"""Holder: for whom a key is to be, as options or a person at a terminal say. Used by `init` and `key`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from volback.errors import UsageError

if TYPE_CHECKING:
    from volback.archive.age_keys import Recipient
    from volback.encryption.sources import Ask
    from volback.operations.keys import Holder


def read_recipients(texts: Sequence[str], files: Sequence[Path]) -> list[Recipient]:
    """The given recipients, then those of the files; each once. Raises UsageError."""
    from volback.archive.age_keys import Recipient, parse_recipients
    from volback.encryption.sources import read_recipients_file

    found = [Recipient.parse(text) for text in texts]
    for file in files:
        found += parse_recipients(read_recipients_file(file), str(file))
    return list(dict.fromkeys(found))


def read_holder(
    ask: Ask | None, texts: Sequence[str], files: Sequence[Path], passphrase_file: Path | None, *, key: str
) -> Holder:
    """For whom a key is to be: recipients, or without any who knows a new passphrase. Raises UsageError."""
    from volback.operations.keys import Holder

    found = read_recipients(texts, files)
    if found and passphrase_file is not None:
        raise UsageError(
            "a key is for recipients or for a passphrase, and not for both", "add two keys, or leave one option out"
        )
    return Holder(tuple(found)) if found else Holder(passphrase=read_new_passphrase(ask, passphrase_file, key=key))


def read_new_passphrase(ask: Ask | None, file: Path | None, *, key: str) -> str:
    """What a key is to be opened with: from a file, or as a person says twice. Raises UsageError."""
    from volback.encryption.sources import passphrase_file, passphrase_in

    if file is not None:
        return passphrase_in(passphrase_file(file))
    if ask is None:
        raise UsageError(f"nobody can be asked for the passphrase of key {key}", "name a file: --new-passphrase-file")
    first = ask(f"New passphrase of key {key}: ")
    if not first:
        raise UsageError("an empty passphrase protects nothing", "run the command again")
    if ask("The same again: ") != first:
        raise UsageError("the passphrases differ", "run the command again")
    return first
