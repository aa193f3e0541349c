"""Copier: one helper that has both volumes of an engine mounted, so that what it copies never leaves the kernel's side.

tar reads the source as it does for a backup, and writes into another tar, which extracts in the target. The client
gives the list of files, and gets a report: a dot every 4 MiB, then how the writing tar ended, and the stream's digest.
What is copied is brought to the disk while more is copied.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from volback.archive import tar
from volback.engine.mounts import TARGET_POINT
from volback.engine.streams import VolumeCopier
from volback.errors import HelperLost
from volback.moving.sides import Side
from volback.operations.volumes import open_reader
from volback.state.runs import Run

_DOT_RECORDS = 8
_DOT_BYTES = _DOT_RECORDS * 512 * 1024
_PASSED_DOTS, _SYNCED_PASSES = 8, 4
_EXTRACT = [
    *tar.EXTRACT, "--file=-", f"--directory={TARGET_POINT}",
    "--totals", f"--checkpoint={_DOT_RECORDS}", "--checkpoint-action=dot",
]  # fmt: skip

# The reading tar's compress program: so that tar is process 1, and writes the stream that any other reading gives.
# What the writing tar leaves of its input is read all the same: the reading one must not die of a closed pipe.
# The filesystem is synced for each 128 MiB while the next are copied, and in the end. What a sync says is kept each
# time: an error that one has seen is not given to a later one (syncfs(2)). The first dot is passed on at once.
_SYNC = f'{{ failed=$(sync -f {TARGET_POINT} 2>&1) || echo "${{failed:-sync was killed}}"; }}'
_PASS_ON = f"""{{ head -c 1; passes=0; while dots=$(head -c {_PASSED_DOTS}); [ "$dots" ]; do printf %s "$dots"
passes=$((passes + 1)); [ $((passes % {_SYNCED_PASSES})) != 0 ] || {_SYNC} >&5; done; }}"""
_WRITE = f"""{{ said=$({{ {{ {shlex.join(_EXTRACT)} 2>&5; printf %s "$?"; cat >/dev/null; }} | {_PASS_ON} >&3
{_SYNC}; }} 5>&1); printf '\\0%s\\0' "$said" >&3; }}"""
_PLAIN = f"exec 3>&1; {_WRITE}; printf '\\0'"
_DIGESTED = f"exec 3>&1; sum=$({{ tee /proc/self/fd/4 | {_WRITE}; }} 4>&1 | sha256sum); printf '%s\\0' \"$sum\""
_FIELDS = 4
"""Dots and status; messages; digest; nothing behind the last NUL."""
_SIGNALLED = 125
"""A status above it is the shell's own: the program was killed, or could not run."""
_HINT = "see `volback doctor`; then run the command again"
_TOTAL = re.compile(rb"(?:^|\n)Total bytes read: (\d+) \([^\n]*\)(?=\n|$)")


@dataclass(frozen=True, slots=True)
class Report:
    """How copying has ended."""

    status: int
    messages: bytes
    """Of the tar that wrote."""
    raw_bytes: int
    """Of the stream, as that tar read it."""
    digest: bytes
    """SHA-256 of the stream; empty where it was not wanted."""
    sent_bytes: int
    """What was given to that tar."""


def can_copy(source: Side, target: Side, *, digested: bool) -> bool:
    """Whether one helper can have both: they are volumes of one engine, and its image has what that needs."""
    engine = source.engine
    if engine.info.id != target.engine.info.id or not source.volume.kind == target.volume.kind == "volume":
        return False
    return engine.has_program("tee") and (engine.has_program("sha256sum") or not digested)


def open_copier(
    source: Side, target: Side, run: Run, look: Sequence[str] = (), *, digested: bool, drop: Collection[str] = ()
) -> AbstractContextManager[VolumeCopier]:
    """Start a helper that looks into the target by the command `look`, scans the source, and instead of giving what it
    reads, copies it into the target.

    What it writes then is on disk at its end.
    """
    program = _DIGESTED if digested else _PLAIN
    read = [*tar.without(drop), f"--use-compress-program={program}"]
    return open_reader(source.engine, run, source.volume, read=read, into=target.volume, look=look)


def read_report(pieces: Iterable[bytes | bytearray], count: Callable[[int], None]) -> Report:
    """Read what a copier gives in place of the stream; count bytes as they are copied. Raises HelperLost."""
    said = bytearray()
    for piece in pieces:
        if b"\0" not in said:
            count(_DOT_BYTES * piece.partition(b"\0")[0].count(b"."))
        said += piece
    fields = bytes(said).split(b"\0")
    status = fields[0].lstrip(b".\n")
    if len(fields) != _FIELDS or not status.isdigit():
        raise HelperLost("the helper that copies did not say how it ended", _HINT)
    _, messages, digest, _ = fields
    if int(status) > _SIGNALLED:
        raise HelperLost(
            f"the helper that copies: its writing tar was killed or could not run (status {int(status)})", _HINT
        )
    *_, total = [None, *_TOTAL.finditer(messages)]
    size = int(total[1]) if total else 0
    return Report(
        int(status),
        messages[: total.start()] + messages[total.end() :] if total else messages,
        size,
        bytes.fromhex(digest.split(b" ")[0].decode()) if digest else b"",
        size,
    )
