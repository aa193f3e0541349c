"""Whoever may rename in a repository swaps a directory for a link, between any two steps of a call: nothing outside the
repository is read, written, listed or removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from volback.errors import StoreError
from volback.store.local import LocalStore

STEPS = ["open", "stat", "mkdir", "rmdir", "unlink", "rename", "link", "scandir"]
"""The calls of the system that take a name; `FileIO` opens by os.open, too."""
PRECIOUS = b"precious" * 1111
TEMP = ".tmp-0123456789abcdef~"
CALLS: dict[str, Callable[[LocalStore], object]] = {
    "put": lambda store: store.put("a/b/x", [b"new"]),
    "put if absent": lambda store: store.put("a/b/new", [b"new"], if_absent=True),
    "put below": lambda store: store.put("a/b/c/new", [b"new"]),
    "open": lambda store: b"".join(store.open("a/b/x")),
    "stat": lambda store: store.stat("a/b/x").size_bytes,
    "list": lambda store: [(info.key, info.size_bytes) for info in store.list()],
    "delete": lambda store: store.delete("a/b/x"),
    "unfinished": lambda store: store.unfinished(),
    "sweep": lambda store: store.sweep(),
}


@contextmanager
def before_step(number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """`act` runs before that call of the system (from 0) of the block; yields those that were made."""
    made: list[str] = []
    acting = False

    def strike(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def struck(*arguments: object, **where: object) -> object:
            nonlocal acting
            if not acting:
                made.append(name)
                acting = len(made) == number + 1
                if acting:
                    act()
                acting = False
            return call(*arguments, **where)

        return struck

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, strike(name, getattr(os, name)))
        yield made


class Ground:
    """A repository with objects in `a/b`, and a directory outside of it that looks like `a`, and one like `a/b`."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "repository"
        self.outside = directory / "outside"
        for top in (self.root / "a", self.outside):
            (top / "b").mkdir(parents=True)
            (top / "b" / TEMP).write_bytes(b"")
        (self.root / "a/b/x").write_bytes(b"old")
        (self.outside / "b/x").write_bytes(PRECIOUS)
        (self.outside / "x").write_bytes(PRECIOUS)
        (self.outside / TEMP).write_bytes(b"")
        (self.outside / "b/empty").mkdir()
        self.before = self.seen()

    def seen(self) -> list[tuple[str, bytes]]:
        """What is outside."""
        return sorted(
            (str(path.relative_to(self.outside)), b"" if path.is_dir() else path.read_bytes())
            for path in self.outside.rglob("*")
        )

    def swap(self, name: str) -> None:
        """Put a link to the outside in the place of a directory."""
        with suppress(FileNotFoundError):
            os.rename(self.root / name, self.root / f"{name}-was")
        with suppress(FileNotFoundError):
            os.symlink(self.outside, self.root / name)


@pytest.mark.parametrize("swapped", ["a", "a/b"])
@pytest.mark.parametrize("call", CALLS)
def test_a_directory_swapped_for_a_link_leads_nowhere(
    call: str, swapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(200):
        ground = Ground(tmp_path / str(step))
        store = LocalStore(ground.root)
        with before_step(step, lambda: ground.swap(swapped), monkeypatch) as made, suppress(StoreError):  # noqa: B023
            result = str(CALLS[call](store))
            assert "precious" not in result
            assert str(len(PRECIOUS)) not in result
        assert ground.seen() == ground.before, f"step {step}: {made[: step + 1]}"
        if step >= len(made):
            break
    assert 4 <= step < 200
