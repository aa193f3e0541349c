"""Transport: named pipes or the attach connection, chosen by what works and remembered for one engine.

Pipes are tried first where the two kernels may be one; the helper's opening of its first pipe is the handshake, for
which a run through pipes waits anyway.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

from volback.engine.attach import AttachReader, AttachWriter
from volback.engine.pipe import PipeReader, PipeUnusableError, PipeWriter
from volback.engine.streams import Place, ReadCommands, VolumeCopier, VolumeWriter, WriteCommands
from volback.settings import Transport

log = logging.getLogger(__name__)

Stream = TypeVar("Stream")


class Transports:
    """Opens readers and writers on one engine, each through the transport that reaches its helpers."""

    def __init__(self, *, engine_kernel: str, forced: Transport | None = None) -> None:
        self._forced = forced
        self._known: Transport | None = forced or (None if _may_share_kernel(engine_kernel) else "attach")

    @property
    def known(self) -> Transport | None:
        """The transport in use; None until the first stream has shown it."""
        return self._known

    def reader(self, place: Place, commands: ReadCommands) -> AbstractContextManager[VolumeCopier]:
        """Read; raises what VolumeReader raises."""
        return self._open(lambda: PipeReader(place, commands), lambda: AttachReader(place, commands))

    def writer(self, place: Place, commands: WriteCommands) -> AbstractContextManager[VolumeWriter]:
        """Write; raises what VolumeWriter raises."""
        return self._open(lambda: PipeWriter(place, commands), lambda: AttachWriter(place, commands))

    @contextmanager
    def _open(
        self,
        pipe: Callable[[], AbstractContextManager[Stream]],
        attach: Callable[[], AbstractContextManager[Stream]],
    ) -> Iterator[Stream]:
        with ExitStack() as stack:
            stream = self._enter_pipe(stack, pipe) if self._known != "attach" else None
            yield stream or stack.enter_context(attach())

    def _enter_pipe(self, stack: ExitStack, pipe: Callable[[], AbstractContextManager[Stream]]) -> Stream | None:
        try:
            stream = stack.enter_context(pipe())
        except PipeUnusableError as exc:
            if self._forced:
                raise
            log.debug("transport attach: %s", exc.message)
            self._known = "attach"
            return None
        self._known = "pipe"
        return stream


def _may_share_kernel(engine_kernel: str) -> bool:
    """False is sure (a virtual machine, another host); True is a guess that the handshake decides."""
    return platform.system() == "Linux" and os.uname().release == engine_kernel
