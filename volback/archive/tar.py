"""What this project knows of GNU tar and find: their arguments, their messages, and the pax headers of a stream.

The operations pass the arguments to a helper container; `cut` and `compose` read the headers.
Source of the format: pax interchange format in POSIX.1-2008 (pax), GNU tar manual, "Sparse Formats" (1.0).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field

from volback.errors import IntegrityError

BLOCK = 512
RECORD = 20 * BLOCK
"""A stored stream is padded to this size, as GNU tar does by default. `CREATE` writes larger records."""
END_OF_ARCHIVE = bytes(RECORD)
"""Ends any stream that is read once and not kept: two zero blocks, and more zeros than required."""

SCAN_END = "end of scan"
"""Written after find has ended by itself: a scan without it was cut off."""

# Twice two fields that NUL ends, as no part of a path contains it. In the first one `/` separates what NUL may not: no
# name is empty, so `//` ends the path. Numbers behind the link's target are of one width, to be found from the end. In
# the second one is what may change while the file does not: the device, and of a large file its blocks.
_SCAN_RECORD = (
    r"-printf '%P//%m %U %G %T@/%l/%i %2n %y %10s %21C@\0%D'"
    r" \( ! -type f -o ! -size +1048575c -o -printf ' %b' \) -printf '\0'"
)
# /proc/self/ is made when find looks at it: its time is the kernel's present one, from the clock that stamps files.
_SCAN_FACTS = (
    r"cat /proc/self/mountinfo; printf '\0'; pwd -P; printf '\0'; find /proc/self/ . -maxdepth 0 -printf '%C@ %D\0'"
)
# A store through a mapping (mmap) sets a file's times only if its page was clean (page_mkwrite). So every page is
# written out once the time has been taken: what changes afterwards has a later ctime. An error of it is not about what
# is read.
_SYNC = "sync -f . 2>/dev/null"
# What is mounted below, too: the fifth field is where, with some characters as octal numbers (proc(5)).
_SYNC_BELOW = (
    r"root=$(pwd -P); while read -r _ _ _ _ at _; do"
    r' case $at in *\\*) at=$(printf %b "$at");; esac;'
    r' case $at in "${root%/}"/*) sync -f -- "$at" 2>/dev/null;; esac;'
    r" done </proc/self/mountinfo"
)
FIND = ["sh", "-c", f"{_SCAN_FACTS}; exec find . {_SCAN_RECORD}"]
SYNC_AND_FIND = ["sh", "-c", f"{_SCAN_FACTS}; {_SYNC}; {_SYNC_BELOW}; exec find . {_SCAN_RECORD}"]
SYNC_AND_FIND_ONE_FILE_SYSTEM = ["sh", "-c", f"{_SCAN_FACTS}; {_SYNC}; exec find . -xdev {_SCAN_RECORD}"]
"""Mount points are named, what is mounted on them is not."""
_GLOB = re.compile(r"[*?\[\]\\]")


def find_file(name: str) -> list[str]:
    """Return what scans one file of a directory, and the directory itself, as `SYNC_AND_FIND` scans all."""
    pattern = shlex.quote(_GLOB.sub(r"\\\g<0>", name))
    root_or_name = rf"\( -path . -o -name {pattern} \)"
    return ["sh", "-c", f"{_SCAN_FACTS}; {_SYNC}; exec find . -maxdepth 1 {root_or_name} {_SCAN_RECORD}"]


# exthdr.name: the default holds tar's PID. --xattrs-include: without it security.capability is lost, silently.
# --no-unquote: names come as they are, also those with a backslash.
# Records of 512 KiB: GNU tar reads files, and writes its pipe, by the record. With its own 10 KiB, 19,000 files of
# 435 MB took it 0.47 s of processor time, and the reader of the pipe 0.20 s, against 0.32 and 0.08 s (medians of 3).
CREATE = [
    "tar", "--create", "--blocking-factor=1024", "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse",
    "--no-recursion", "--null", "--no-unquote", "--verbatim-files-from", "--warning=no-file-ignored",
]  # fmt: skip

AS_FILE = ["--transform=s,.*,./file,", "--pax-option=exthdr.name=./PaxHeaders/file"]
"""After `CREATE`: one file, whatever its name is, gives the same stream."""

# --delay-directory-restore: a stream may return to a directory, which would change its mtime.
# No --acls: an ACL's text names users by the names that the writing tar knew (GNU tar 1.34, --numeric-owner or not),
# which may be missing or different here. The attribute itself, which --xattrs-include=* keeps, has the numbers.
# Records of 512 KiB: GNU tar reads its pipe, and writes files, by the record. With its own 10 KiB, 55,000 small files
# took 1.26 times the system time (1.43 against 1.13 s, medians of 3).
EXTRACT = [
    "tar", "--extract", "--blocking-factor=1024", "--read-full-records",
    "--preserve-permissions", "--same-owner", "--numeric-owner",
    "--xattrs", "--xattrs-include=*", "--sparse", "--delay-directory-restore", "--warning=no-timestamp",
]  # fmt: skip

IMPORT = [*EXTRACT, "--acls"]
"""For foreign archives: most of those that contain ACLs contain only their text."""

MEMBER_TYPES = {0: "f", 48: "f", 49: "h", 50: "l", 51: "c", 52: "b", 53: "d", 54: "p", 55: "f"}
"""The header's type flag (a byte) to find's letter; h is a hard link."""

# A message ends with what tar says, after a name that may hold any text: so only the ends are looked at.
_CHANGED = re.compile(
    rb": (file changed as we read it|File removed before we read it|File shrank by \d+ bytes?; padding with zeros)$"
)
_GONE = (b": No such file or directory", b": Not a directory")
"""The second where a file has replaced a directory above."""

_CONTAINED = re.compile(
    rb"tar: Removing leading .* from (member names|hard link targets)|tar: .*: Member name contains '\.\.'|"
    rb"tar: Ignoring unknown extended header keyword '.*'|tar: A lone zero block at \d+|"
    rb"tar: .*: Warning: Cannot acl_from_text: [^:]*|tar: .*: implausibly old time stamp [-0-9: .]+"
)
_XATTR_RECORD = b"SCHILY.xattr."
SECURITY_RECORD = _XATTR_RECORD + b"security."
_ACL_RECORDS = {
    b"SCHILY.acl.access": "system.posix_acl_access",
    b"SCHILY.acl.default": "system.posix_acl_default",
}
"""An ACL's text; the attribute beside it holds the same."""
_SETTABLE = {"security.capability", "security.selinux"}
_SUMMARY = b"tar: Exiting with failure status due to previous errors"
# Of several lines where the file's name is: tar does not quote it here (xattrs.c, GNU tar 1.34).
_UNSET = re.compile(
    rb"^tar: \w+: Cannot set '(?P<name>[^\n]+?)' extended attribute for file '(?P<path>.*?)': (?P<why>[\w ]+)$\n?",
    re.MULTILINE | re.DOTALL,
)
_FULL = re.compile(rb": (No space left on device|Disk quota exceeded|Wrote only \d+ of \d+ bytes?)$")
_CUT_SHORT = b"tar: Unexpected EOF in archive"


@dataclass(frozen=True, slots=True)
class Header:
    """One member's header, pax records included. `path` and `link` are without `./` and trailing `/`."""

    path: bytes
    type: str
    link: bytes
    size_bytes: int
    """The file's own size (for a sparse file, with its holes)."""
    header_bytes: int
    data_bytes: int
    """What follows the header in the stream, padding included."""
    records: dict[bytes, bytes] = field(default_factory=dict)
    mode: int = 0
    uid: int = 0
    gid: int = 0


def without(kinds: Collection[str]) -> list[str]:
    """Return what leaves kinds of attributes (`acl`, `xattr`) out, to follow `CREATE`.

    An ACL is an attribute, too: it goes with the first, and stays with the second.
    """
    words = []
    if "acl" in kinds:
        words += ["--no-acls", "--xattrs-exclude=system.posix_acl_*"]
    if "xattr" in kinds:
        words += [f"--xattrs-exclude={mask}" for mask in ("user.*", "security.*", "trusted.*", "system.[!p]*")]
    return words


def padded(size: int) -> int:
    """Return `size` rounded up to tar blocks."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def end_of_archive(stream_bytes: int) -> bytes:
    """Return what GNU tar ends a stream of `stream_bytes` bytes with: two zero blocks, then zeros to a whole record.

    So the stored stream of a full backup is what tar wrote, and that of an increment what tar would have written.
    """
    end = 2 * BLOCK
    return bytes(end + -(stream_bytes + end) % RECORD)


def number(digits: bytes | bytearray) -> int:
    """Return a header's octal number. Raises IntegrityError."""
    stripped = digits.strip(b" \0") or b"0"
    try:
        if stripped.isdigit():  # int() alone would take `-1`, `1_0` and `0o1`
            return int(stripped, 8)
    except ValueError:
        pass
    raise IntegrityError("tar stream is damaged: a header's number is not octal")


def relative(name: bytes) -> bytes:
    """Return a member's name as the index has it: without `./` in front and `/` behind."""
    return name.removeprefix(b"./").rstrip(b"/") if name != b"." else b""


def is_end(block: bytes | bytearray) -> bool:
    """Whether the block is the archive's end and not a header."""
    return not any(block[:BLOCK])


def is_header(block: bytes) -> bool:
    """Whether the block is a member header of any tar, old ones too: its checksum is right.

    Some old tars summed signed bytes (GNU tar manual, "Basic Tar Format").
    """
    if len(block) < BLOCK or is_end(block):
        return False
    digits = block[148:156].strip(b" \0")
    if not digits or digits.translate(None, b"01234567"):
        return False
    rest = block[:148] + b" " * 8 + block[156:BLOCK]
    return int(digits, 8) in (sum(rest), sum(byte - 256 if byte > 127 else byte for byte in rest))


def extended_size(block: bytes | bytearray, at: int) -> int:
    """Return how many bytes the pax header at `at` and its records take; 0 where a plain header begins."""
    if block[at + 156] != 0x78:
        return 0
    return BLOCK + padded(number(block[at + 124 : at + 136]))


def read_header(block: bytes | bytearray | memoryview) -> Header:
    """Read the member header that `block` begins with: pax records (if any), then the ustar header.

    Raises IntegrityError where it is not a header.
    """
    block = bytes(block)
    if len(block) < BLOCK:
        raise IntegrityError("tar stream is damaged: it ends inside a member header")
    extended = extended_size(block, 0)
    head = block[extended : extended + BLOCK]
    if len(head) < BLOCK or head[257:262] != b"ustar" or head[156] not in MEMBER_TYPES:
        raise IntegrityError("tar stream is damaged: no member header where one must be")
    records = pax_records(block[BLOCK : BLOCK + number(block[124:136])]) if extended else {}
    member_type = MEMBER_TYPES[head[156]]
    stored = _integer(records.get(b"size")) if b"size" in records else number(head[124:136])
    real = records.get(b"GNU.sparse.realsize")
    name = records.get(b"GNU.sparse.name") or records.get(b"path") or _ustar_name(head)
    link = records.get(b"linkpath") or head[157:257].rstrip(b"\0")
    return Header(
        path=relative(name),
        type=member_type,
        link=relative(link) if member_type == "h" else link,
        size_bytes=_integer(real) if real is not None else stored if member_type == "f" else 0,
        header_bytes=extended + BLOCK,
        data_bytes=padded(stored) if member_type == "f" else 0,
        records=records,
        mode=number(head[100:108]),
        uid=_owner(records.get(b"uid"), head[108:116]),
        gid=_owner(records.get(b"gid"), head[116:124]),
    )


def privileged_xattrs(header: Header) -> list[str]:
    """Names of the member's attributes that only CAP_SYS_ADMIN or CAP_MAC_ADMIN may set: security.* (xattr(7)), but not
    capability, which has a capability of its own, nor selinux, which that module lets owners set."""
    names = filter(None, map(attribute_of, header.records))
    return [name for name in names if is_privileged(name)]


def is_privileged(attribute: str) -> bool:
    """Whether only CAP_SYS_ADMIN or CAP_MAC_ADMIN may set the attribute."""
    return attribute.startswith("security.") and attribute not in _SETTABLE


def attribute_of(record: bytes) -> str | None:
    """Return the name of the extended attribute that a pax record is of; None where it is of none."""
    if record.startswith(_XATTR_RECORD):
        return record.removeprefix(_XATTR_RECORD).decode(errors="backslashreplace")
    return _ACL_RECORDS.get(record)


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """Return the records (`LENGTH KEY=VALUE newline`) of a pax header. Raises IntegrityError."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        digits, _, _ = data[at : at + 20].partition(b" ")
        length = _integer(digits)
        record = data[at + len(digits) + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if not len(digits) + 1 < length <= len(data) - at or not equals or not value.endswith(b"\n"):
            raise IntegrityError("tar stream is damaged: a pax record is malformed")
        records[key] = value[:-1]
        at += length
    return records


def build_header(header: bytes, *, path: bytes, link: bytes | None = None) -> bytes:
    """Return the member header `header` under another name, and with another hard-link target.

    Everything else (owner, mode, times, xattrs, place of the sparse map) stays. Used where a part of a backup contains
    a hard link without the name that carries the data.
    """
    old = read_header(header)
    head = bytearray(header[old.header_bytes - BLOCK : old.header_bytes])
    name = b"GNU.sparse.name" if b"GNU.sparse.name" in old.records else b"path"
    records = {**old.records, name: b"./" + path}
    if link is not None:
        records[b"linkpath"] = b"./" + link
    _set_field(head, 0, 100, (b"./" + path)[:100])
    _set_field(head, 345, 155, b"")
    _set_checksum(head)
    body = b"".join(_record(key, value) for key, value in records.items())
    extended = bytearray(head)
    extended[156] = 0x78
    _set_field(extended, 0, 100, b"./PaxHeaders/renamed")
    _set_field(extended, 124, 12, b"%011o" % len(body))
    _set_field(extended, 157, 100, b"")
    _set_checksum(extended)
    return bytes(extended) + body + bytes(padded(len(body)) - len(body)) + bytes(head)


def read_warnings(messages: bytes) -> tuple[list[str], list[str]]:
    """Split tar's and find's messages into those of a live volume (changed, vanished, shrank) and real failures."""
    warnings: list[str] = []
    failures: list[str] = []
    for line in messages.splitlines():
        text = line.decode(errors="backslashreplace").strip()
        if _CHANGED.search(line) or line.endswith(_GONE):
            warnings.append(text)
        elif text and line != _SUMMARY:
            failures.append(text)
    return warnings, failures


@dataclass(frozen=True, slots=True)
class ExtractMessages:
    """What an extracting tar has said, each message once, in order."""

    warnings: list[str]
    """With which tar succeeds, or which keep a member inside the volume."""
    failures: list[str]
    unset: dict[tuple[str, str], list[str]]
    """Attributes that could not be set, each with the reason, and the files."""
    is_full: bool
    """Whether a failure is that no space is left."""
    is_cut_short: bool


def read_extract_messages(messages: bytes, status: int) -> ExtractMessages:
    """Sort the messages of an extracting tar that ended with `status`."""
    warnings: dict[str, None] = {}
    failures: dict[bytes, None] = {}
    unset: dict[tuple[str, str], list[str]] = {}
    for found in _UNSET.finditer(messages):
        name, path, why = (part.decode(errors="backslashreplace") for part in found.group("name", "path", "why"))
        unset.setdefault((name, why), []).append(path.removeprefix("./"))
    for line in _UNSET.sub(b"", messages).splitlines():
        if line == _SUMMARY or not line.strip():
            continue
        if status == 0 or _CONTAINED.fullmatch(line):
            warnings[line.decode(errors="backslashreplace").strip()] = None
        else:
            failures[line] = None
    return ExtractMessages(
        warnings=list(warnings),
        failures=[line.decode(errors="backslashreplace").strip() for line in failures],
        unset=unset,
        is_full=any(_FULL.search(line) for line in failures),
        is_cut_short=_CUT_SHORT in failures,
    )


def _record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    if len(str(length)) != len(str(size)):
        length = size + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _set_field(head: bytearray, at: int, width: int, value: bytes) -> None:
    head[at : at + width] = value.ljust(width, b"\0")


def _set_checksum(head: bytearray) -> None:
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)


def _ustar_name(head: bytes) -> bytes:
    prefix = head[345:500].rstrip(b"\0")
    name = head[:100].rstrip(b"\0")
    return prefix + b"/" + name if prefix else name


def _owner(record: bytes | None, digits: bytes) -> int:
    return number(digits) if record is None else _integer(record)


def _integer(digits: bytes | None) -> int:
    if not digits or not digits.isdigit() or len(digits) > 19:  # 2**63 has 19; int() raises for over 4,300
        raise IntegrityError("tar stream is damaged: a pax record's number is malformed")
    return int(digits)
