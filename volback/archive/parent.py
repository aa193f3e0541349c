"""Parent: what an earlier backup has already, so that it need not be stored, or even read, again.

Pure lookups over the units of that backup's index; the cutter asks by unit, the sealer by digest. The defaults find
nothing: that is a full backup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from volback.archive.plan import PlannedUnit
from volback.catalog.model import Frame, Unit

KnownFrame = Callable[[str], Frame | None]
"""The stored frame whose raw bytes have this SHA-256 (hex), if there is one; called from several threads at once."""

KnownUnit = Callable[[PlannedUnit], Unit | None]
"""The unit of the parent that is used unchanged instead of a planned one, which is then not read."""


def no_frame(_sha256: str) -> Frame | None:
    """No frame is known."""
    return None


def no_unit(_unit: PlannedUnit) -> Unit | None:
    """Every unit is read."""
    return None


def known_frames(units: Iterable[Unit]) -> KnownFrame:
    """Return the lookup of all frames of `units`; of several with one digest the first one is used.

    Takes about 480 bytes of memory per frame.
    """
    frames: dict[bytes, Frame] = {}
    for unit in units:
        for frame in unit.frames:
            frames.setdefault(bytes.fromhex(frame.sha256), frame)
    return lambda sha256: frames.get(bytes.fromhex(sha256))
