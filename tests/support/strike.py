"""Runs volback's command line in this process and strikes it with a signal at one step of its way.

    python -m tests.support.strike SIGNAL STEP ARGUMENT...

A step is a call across a room's wall (engine, store, catalog, state) or a buffer that comes through one. STEP is its
number or its name (`NAME#2`: the second time that it is reached); 0 strikes nowhere; with STRIKE_LOG set, each step's
name is written there, a line each. With STRIKE_WAIT set, the thread that reaches the step is not struck: it connects to
that abstract socket and waits there until its other end is closed, while all other threads go on. With STRIKE_SHARED
set, other machines may use the repository, whatever filesystem it lies on. Nothing in volback knows of this.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

_WALLS = {
    "volback.engine.engine.Engine": [
        "ensure_image", "volume", "has_volume", "users", "create_volume", "remove_volume", "leftover_helpers",
        "remove_helper", "containers", "container", "stop_container", "pause_container", "resume_container",
        "wait_healthy", "scale_service",
    ],
    "volback.catalog.repository.Catalog": ["ensure_repository", "commit", "find", "backups"],
    "volback.state.runs.Run": ["write_journal"],
    "volback.state.unfinished.UnfinishedFile": ["begin", "append"],
}  # fmt: skip
_BUFFERS = 3
"""Of each stream, this many first buffers are steps of their own, and its end."""


def _send(number: int) -> None:
    """To this process. A stop goes to this thread: one for the process may reach another thread first, and this one
    goes on for a moment, past the step."""
    if number == signal.SIGSTOP:
        signal.pthread_kill(threading.get_ident(), number)
    else:
        os.kill(os.getpid(), number)


def _wait(name: str) -> None:
    """In this thread alone: a signal that stops one thread stops the process."""
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(f"\0{name}")
        there.recv(1)


class Striker:
    """Counts the steps and strikes at one of them."""

    def __init__(self, strike: Callable[[], None], step: str, log: str | None) -> None:
        self._strike = strike
        name, _, nth = step.partition("#")
        self._left = int(step) if step.isdecimal() else int(nth or 1)
        self._name = None if step.isdecimal() else name
        self._lock = threading.Lock()
        self._log = open(log, "a", buffering=1) if log else None  # noqa: SIM115 - as long as the process

    def step(self, name: str) -> None:
        """One step is reached."""
        with self._lock:
            if self._log is not None:
                print(name, file=self._log)
            if self._name in (None, name):
                self._left -= 1
            due = self._left == 0 and self._name in (None, name)
        if due:
            self._strike()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that is a step before and a step after."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.step(f"before {name}")
            result = function(*args, **kwargs)
            self.step(f"after {name}")
            return result

        return call

    def stream(self, name: str, buffers: Iterable[Any]) -> Iterator[Any]:
        """The same buffers, the first few of them and the end as steps."""
        for number, buffer in enumerate(buffers):
            if number < _BUFFERS:
                self.step(f"buffer {number} of {name}")
            yield buffer
        self.step(f"end of {name}")


class _Reader:
    def __init__(self, striker: Striker, inner: Any) -> None:
        self._striker, self._inner, self._opened = striker, inner, inner

    def __enter__(self) -> _Reader:
        self._striker.step("before a helper")
        self._opened = self._inner.__enter__()
        return self  # a step here would strike between __enter__ and its block, where Python itself does not look

    def __exit__(self, *exc: object) -> Any:
        try:
            self._striker.step("before a helper's end")
        finally:  # the strike is in this wrapper, which must not keep the helper from its end
            result = self._inner.__exit__(*exc)
        self._striker.step("after a helper's end")
        return result

    def scan(self) -> Iterator[Any]:
        return self._striker.stream("scan", self._opened.scan())

    def read(self, names: Iterable[bytes], at_end: Callable[[], None] = lambda: None) -> Iterator[Any]:
        """The last buffer comes after the end is known: its step is before what the end sets off."""
        passed, is_ended = 0, False

        def buffer_step() -> None:
            if passed < _BUFFERS and not is_ended:
                self._striker.step(f"buffer {passed} of read")

        def ended() -> None:
            nonlocal is_ended
            buffer_step()
            is_ended = True
            self._striker.step("end of read")
            at_end()

        for buffer in self._opened.read(names, ended):
            buffer_step()
            passed += 1
            yield buffer

    @property
    def is_wire(self) -> bool:
        return bool(self._opened.is_wire)

    def check(self) -> None:
        self._opened.check()

    def look(self) -> tuple[int, bytes]:
        found: tuple[int, bytes] = self._striker.around("a look", self._opened.look)()
        return found

    def write(self, buffers: Iterable[Any]) -> int:
        status: int = self._opened.write(self._striker.stream("write", buffers))
        self._striker.step("after write")
        return status

    def messages(self) -> bytes:
        messages: bytes = self._opened.messages()
        return messages


def arm(striker: Striker) -> None:
    """Put the steps into the walls."""
    import importlib

    store = _store_class()
    walls = {**_WALLS, f"{store.__module__}.{store.__name__}": ["put", "stat", "delete", "sweep", "finish", "extend"]}
    for path, methods in walls.items():
        module, _, name = path.rpartition(".")
        owner = getattr(importlib.import_module(module), name)
        for method in methods:
            setattr(owner, method, striker.around(f"{name}.{method}", getattr(owner, method)))
    _arm_streams(striker)
    if os.environ.get("STRIKE_SHARED"):
        importlib.import_module("volback.store.local").is_local_filesystem = lambda _: False  # type: ignore[attr-defined]


def _store_class() -> Any:
    """That of the repository; the S3 store takes 0.3 s to import."""
    if os.environ.get("VOLBACK_REPO", "").startswith("s3://"):
        from volback.store.s3.store import S3Store

        return S3Store
    from volback.store.local import LocalStore

    return LocalStore


def _arm_streams(striker: Striker) -> None:
    from volback.engine.engine import Engine

    store = _store_class()
    put = store.put

    def counted_put(self: Any, key: str, chunks: Iterable[Any], *, if_absent: bool = False) -> int:
        size: int = put(self, key, striker.stream(f"put {key.rpartition('/')[2]}", chunks), if_absent=if_absent)
        return size

    extend = store.extend

    def counted_extend(self: Any, left: str, key: str, chunks: Iterable[Any], *, keep_bytes: int) -> int:
        size: int = extend(self, left, key, striker.stream("extend", chunks), keep_bytes=keep_bytes)
        return size

    store.put, store.extend = counted_put, counted_extend
    for name in ("reader", "writer"):
        make = getattr(Engine, name)

        def made(self: Engine, *args: Any, _make: Any = make, **kwargs: Any) -> _Reader:
            return _Reader(striker, _make(self, *args, **kwargs))

        setattr(Engine, name, made)


def main() -> None:
    """Strike one run."""
    number, step, *arguments = sys.argv[1:]
    name = os.environ.get("STRIKE_WAIT")
    strike = partial(_wait, name) if name else partial(_send, int(number))
    striker = Striker(strike, step, os.environ.get("STRIKE_LOG"))
    arm(striker)
    sys.argv = ["volback", *arguments]
    from volback.cli.main import main as volback

    volback()


if __name__ == "__main__":
    main()
