"""Locks of jobs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from volback.state.locks import lock


def job_lock(state: Path, job: str) -> AbstractContextManager[None]:
    """Hold a job: two runs of it never overlap. Raises LockedError."""
    return lock(state, f"job-{job}", f"job {job!r}")
