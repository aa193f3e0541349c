"""Streams: what a transport offers to the operations - to read or to write a volume - and how its helper is created.
The caller says what the helper runs (`find`, `tar`); this package knows containers and streams, not archives.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from volback.engine.helper import READ_CAPABILITIES, WRITE_CAPABILITIES, XATTR_CAPABILITY, Helper, HelperSpec, Limits
from volback.engine.mounts import MOUNT_POINT, TARGET_POINT


def no_action() -> None:
    """What a reader does at its end unless its caller says otherwise."""


class Looker(Protocol):
    """A helper that was opened with a look command, and has done nothing else yet."""

    def look(self) -> tuple[int, bytes]:
        """Return how the look command has ended, and what it has said. Raises EngineError."""


class VolumeReader(Protocol):
    """One reading of a volume: `scan` to its end (twice, if it was opened so), then `read` to its end, then
    `messages`."""

    def scan(self) -> Iterator[bytes | bytearray]:
        """Yield what the scan command writes, then the end mark. Raises EngineError."""

    def read(self, names: Iterable[bytes], at_end: Callable[[], None] = no_action) -> Iterator[bytes | bytearray]:
        """Give the read command its names, and yield what it writes. Raises EngineError if it failed.

        `at_end` is called as soon as the command writes no more: before the last buffer is yielded, and before it is
        known how the helper ends.
        """

    def messages(self) -> bytes:
        """What the commands wrote to standard error; nothing of a first scan once the second one writes."""

    def check(self) -> None:
        """Raises EngineError if the helper has ended already."""


class VolumeCopier(VolumeReader, Looker, Protocol):
    """A reader that gives what it reads to another volume of the engine: `look` if it was opened so, then the rest."""


class VolumeWriter(Looker, Protocol):
    """One writing into a volume: `look` if it was opened so, `write`, then `messages`."""

    is_wire: bool
    """Whether its input crosses a connection, and not a pipe of this host: it runs the command for that."""

    def write(self, buffers: Iterable[bytes | memoryview]) -> int:
        """Give the command all buffers and return its exit status once it has ended. Raises EngineError."""

    def messages(self) -> bytes:
        """What the command wrote to standard error."""


class HelperStreams(ABC):
    """A helper and the way to its streams: a context manager that opens both or neither, and removes them."""

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._close(failed=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(failed=error is not None)

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _close(self, *, failed: bool) -> None:
        """Remove what was opened so far; `failed`: an error is being raised already."""


@dataclass(frozen=True, slots=True)
class ReadCommands:
    """What a reading helper runs. `read` gets two more arguments: `--files-from=PATH` and `--file=-`."""

    scan: list[str]
    read: list[str]
    scan_end: str
    rescan: bool = False
    """Whether the scan is run twice, the second time when it is asked for."""
    is_report: bool = False
    """Whether what `read` writes is little, and is given to the caller as it arrives."""
    on_wire: list[str] = field(default_factory=list)
    """More arguments of `read` where its output crosses a connection, and not a pipe of this host: to compress it."""
    look: list[str] | None = None
    """Run before all else, in the second mount: what is there."""

    @property
    def look_script(self) -> str | None:
        """The part of the helper's script that looks, if it is to."""
        return None if self.look is None else _look_script(self.look, TARGET_POINT)


@dataclass(frozen=True, slots=True)
class WriteCommands:
    """What a writing helper runs."""

    write: list[str]
    on_wire: list[str] | None = None
    """In its place where its input crosses a connection, and not a pipe of this host."""
    look: list[str] | None = None
    """Run before all else: what is there."""

    @property
    def look_script(self) -> str | None:
        """As that of ReadCommands."""
        return None if self.look is None else _look_script(self.look, MOUNT_POINT)


def _look_script(command: list[str], at: str) -> str:
    """Looks into the directory `at`: what the command says, NUL, and its status."""
    return f"(cd {at} && exec {shlex.join(command)}) </dev/null 2>&1; printf '\\0%s' $?"


def read_look(helper: Helper, said: bytes) -> tuple[int, bytes]:
    """Return the status of a helper's look command, and what it said. Raises EngineError where it was cut off or
    killed."""
    words, nul, status = said.rpartition(b"\0")
    if not (nul and status.isdigit()):
        raise helper.ended_early("ended before it had looked")
    helper.raise_if_killed(int(status))
    return int(status), words


@dataclass(frozen=True, slots=True)
class Place:
    """Where a helper runs: what it mounts as its volume (None: nothing), its image, labels and limits."""

    client: Any
    image: str
    mount: Any | None
    labels: dict[str, str]
    limits: Limits
    directory: Path
    """For its named pipes, on the client's side; does not exist yet."""
    host_directory: str | None
    """The same directory by its path on the engine's host; None where helpers cannot mount it."""
    target: Any | None = None
    """A second mount, into which a reading helper copies what it reads."""
    privileged_xattrs: bool = False
    """Whether a writer may set the attributes that need CAP_SYS_ADMIN."""

    def spec(self, *, script: str, write: bool = False, mounts: Iterable[Any] = (), stdin: bool = False) -> HelperSpec:
        """The helper that runs `script` here with the least that it needs."""
        capabilities: tuple[str, ...] = WRITE_CAPABILITIES if write else READ_CAPABILITIES
        if self.target is not None:
            capabilities = (*READ_CAPABILITIES, *WRITE_CAPABILITIES)
        if write and self.privileged_xattrs:
            capabilities = (*capabilities, XATTR_CAPABILITY)
        return HelperSpec(
            role="write" if write else "copy" if self.target is not None else "read",
            image=self.image,
            script=script,
            mounts=[mount for mount in (self.mount, self.target, *mounts) if mount is not None],
            capabilities=capabilities,
            labels=self.labels,
            limits=self.limits,
            stdin=stdin,
        )
