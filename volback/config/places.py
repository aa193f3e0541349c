"""Places: where in the configuration something stands, and what is wrong there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A key of a file."""

    file: str
    line: int | None
    key: str
    """Dotted: `jobs.nightly.level`; empty where it is about the file."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.key) if part)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in the configuration. Holds no secret value."""

    place: Place
    message: str
    """What was expected, and what stands there."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"
