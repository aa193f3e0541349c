"""Probe: how fast bytes come from a helper. Called by `doctor`, through the transport that a backup would use."""

from __future__ import annotations

import time
from dataclasses import dataclass

from volback.engine.streams import ReadCommands, VolumeReader
from volback.settings import Transport

SIZE_BYTES = 256 * 1024 * 1024
_MARK = "end"
_LONG_ENOUGH_S = 3.0


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured."""

    transport: Transport
    size_bytes: int
    duration_s: float

    @property
    def bytes_per_s(self) -> float:
        """Bytes a second."""
        return self.size_bytes / self.duration_s


def commands(size_bytes: int) -> ReadCommands:
    """A reading of nothing that yields `size_bytes` zeros; the names file must be read, or its pipe would block."""
    zeros = f'cat "${{1#--files-from=}}" >/dev/null; exec head -c {size_bytes} /dev/zero'
    return ReadCommands(scan=["head", "-c", "0"], read=["sh", "-c", zeros, "sh"], scan_end=_MARK)


def measure(reader: VolumeReader, transport: Transport) -> Speed:
    """Read to the end, or for a few seconds where that is too far. Raises EngineError."""
    for _ in reader.scan():
        continue
    started, size = time.monotonic(), 0
    for buffer in reader.read([b"."]):
        size += len(buffer)
        if time.monotonic() - started > _LONG_ENOUGH_S:
            break
    return Speed(transport, size, time.monotonic() - started)
