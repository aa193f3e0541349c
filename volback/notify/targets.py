"""Targets: who is notified of a job's runs. URLs contain passwords, so no target shows its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from volback.notify.report import Status

UNLESS_SUCCESS: frozenset[Status] = frozenset({"warning", "failure"})


@dataclass(frozen=True, slots=True)
class MessageTarget:
    """Where messages go: apprise URLs, mail and chat services alike."""

    name: str
    urls: tuple[str, ...] = field(repr=False)
    on: frozenset[Status] = UNLESS_SUCCESS
    title: str | None = None
    """A template (see notify.text); None is the default."""
    body: str | None = None
    timeout_s: float = 30.0
    """For each URL; after that its delivery is abandoned."""


@dataclass(frozen=True, slots=True)
class PingTarget:
    """A monitoring service that expects a signal from each run, such as healthchecks.io."""

    name: str
    url: str = field(repr=False)
    timeout_s: float = 10.0
    """For each try."""
    tries: int = 3
    pause_s: float = 1.0
    """Before the second try; it doubles."""

    @property
    def whole_s(self) -> float:
        """How long all tries may take."""
        return self.tries * self.timeout_s + self.pause_s * ((1 << (self.tries - 1)) - 1)


@dataclass(frozen=True, slots=True)
class Targets:
    """All that are notified of a job."""

    messages: tuple[MessageTarget, ...] = ()
    pings: tuple[PingTarget, ...] = ()
    metrics: Path | None = None
    """The Prometheus textfile."""
