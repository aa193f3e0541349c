"""Attributes: a small archive whose extraction shows which kinds of them a filesystem takes.

What is probed is what a restore sets: an extended attribute of users, and an ACL by its attribute (`tar.EXTRACT`).
"""

from __future__ import annotations

import struct
from tarfile import PAX_FORMAT, TarInfo
from typing import Literal

from volback.archive.tar import END_OF_ARCHIVE, read_extract_messages

Kind = Literal["acl", "xattr"]
KINDS: tuple[Kind, ...] = ("acl", "xattr")

_XATTR = "user.volback"
_ACL = "system.posix_acl_access"
_NOBODY = 0xFFFFFFFF
_ENTRIES = ((1, 6, _NOBODY), (2, 4, 0), (4, 4, _NOBODY), (16, 4, _NOBODY), (32, 4, _NOBODY))
"""Tag, permissions and id; one more user may read (linux/posix_acl_xattr.h)."""
_ACL_VALUE = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _ENTRIES)


def probe_archive(name: str) -> bytes:
    """A tar of one empty file of that name, with one attribute of each kind."""
    entry = TarInfo(name)
    entry.mode = 0o600
    values = {_XATTR: b"1", _ACL: _ACL_VALUE}
    entry.pax_headers = {
        f"SCHILY.xattr.{attribute}": value.decode(errors="surrogateescape") for attribute, value in values.items()
    }
    return entry.tobuf(PAX_FORMAT, "utf-8", "surrogateescape") + END_OF_ARCHIVE


def refused_kinds(messages: bytes) -> frozenset[Kind]:
    """Read from the messages of the tar that has extracted the probe which kinds could not be set."""
    names = {name for name, _ in read_extract_messages(messages, 0).unset}
    refused: set[Kind] = set()
    if _ACL in names:
        refused.add("acl")
    if _XATTR in names:
        refused.add("xattr")
    return frozenset(refused)
