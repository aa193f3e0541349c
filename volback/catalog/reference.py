"""How people name a backup: VOLUME, VOLUME@ID-PREFIX, HOST/VOLUME, HOST/VOLUME@ID-PREFIX.

VOLUME is a volume's name, or the absolute path of a host directory (`/srv/data`, on another host `web//srv/data`).
A character with another meaning here or in a shell, or one that controls a terminal, is written as `%` and two hex
digits.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from volback.catalog.keys import is_id_prefix
from volback.errors import UsageError
from volback.printable import has_control

FORMS = (
    "write VOLUME, VOLUME@ID-PREFIX, HOST/VOLUME or HOST/VOLUME@ID-PREFIX, e.g. db, db@20261123, web1/db@2026,"
    " db@latest~1, db@yesterday"
)
_ESCAPES = "write % as %25, @ as %40 and / as %2F inside a name"

_SHELL = "\"'$&;<>|\\`()"
"""A name stands in commands that people copy from a hint: in a shell it must not begin another one."""
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Reference:
    """One volume's backups, or those of them whose id begins with `id_prefix`; `str` gives the text back."""

    host: str | None
    volume: str
    id_prefix: str | None = None

    def __str__(self) -> str:
        host = "" if self.host is None else _escape(self.host, "%@/") + "/"
        path = self.volume.startswith("/") and self.volume == _normal_path(self.volume)
        volume = _escape(self.volume, "%@" if path else "%@/")
        return f"{host}{volume}" if self.id_prefix is None else f"{host}{volume}@{self.id_prefix}"


def parse_reference(text: str) -> Reference:
    """Read a reference. Raises UsageError with the forms as its hint."""
    name, at, id_prefix = text.partition("@")
    if at and not is_id_prefix(id_prefix):
        hint = _ESCAPES if "/" in id_prefix or "@" in id_prefix else FORMS
        raise UsageError(f"reference {text!r}: {id_prefix!r} is not the beginning of a backup id", hint)
    host, volume = _split_host(name, text)
    if volume == "" or host == "":
        raise UsageError(f"reference {text!r} names no {'volume' if volume == '' else 'host'}", FORMS)
    plain_host = None if host is None else _unescape(host, text)
    return Reference(plain_host, _unescape(volume, text), id_prefix if at else None)


def _split_host(name: str, text: str) -> tuple[str | None, str]:
    if name.startswith("/"):
        return None, _normal_path(name)
    if "/" not in name:
        return None, name
    host, _, volume = name.partition("/")
    if volume.startswith("/"):
        return host, _normal_path(volume)
    if "/" in volume:
        raise UsageError(
            f"reference {text!r}: a volume's name does not contain '/'", f"{FORMS}; a directory is HOST//ITS/PATH"
        )
    return host, volume


def _normal_path(path: str) -> str:
    # A completed path ends in '/', and POSIX lets normpath keep two leading slashes; one directory has one name here.
    return "/" + posixpath.normpath(path).lstrip("/")


def _escape(name: str, special: str) -> str:
    return "".join(_escaped(char) if char in special + _SHELL or has_control(char) else char for char in name)


def _escaped(char: str) -> str:
    """The bytes of a character; a surrogate is not one, and stays."""
    return "".join(f"%{byte:02X}" for byte in char.encode(errors="ignore")) or char


def _unescape(name: str, text: str) -> str:
    if _BAD_ESCAPE.search(name):
        raise UsageError(f"reference {text!r} has a '%' without two hex digits", _ESCAPES)
    try:
        plain = unquote_to_bytes(name.encode()).decode()
    except UnicodeError as exc:
        raise UsageError(f"reference {text!r} is not valid UTF-8", FORMS) from exc
    if "\0" in plain:
        raise UsageError(f"reference {text!r} contains a NUL", FORMS)
    return plain
