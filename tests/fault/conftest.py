"""Fixtures of the bad days."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.steps import Step, spread


class StepsOf(Protocol):
    """Chooses the steps that a test strikes."""

    def __call__(self, steps: Sequence[Step], /) -> list[Step]:
        """A spread of them; with --every-step all."""


@pytest.fixture
def some_of(request: pytest.FixtureRequest) -> StepsOf:
    """Which steps this test strikes; the same ones in each run."""

    def choose(steps: Sequence[Step], /) -> list[Step]:
        return list(steps) if request.config.getoption("--every-step") else spread(steps, request.node.name)

    return choose


@pytest.fixture
def mount_small(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts filesystems of so many bytes, each in a directory of its own."""
    mounted: list[Path] = []

    def mount(size_bytes: int) -> Path:
        path = tmp_path / f"small-{len(mounted)}"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", path], check=True)
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)
