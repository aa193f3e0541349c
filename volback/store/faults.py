"""A wrapper that makes a store fail as planned and counts that each planned fault was hit.

For tests of everything above a store: a fault that was never hit proves nothing, so assert_all_hit() names it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from volback.store.base import Buffer, Names, ObjectInfo, Store, Wrapper, check_prefix

Method = Literal["put", "open", "stat", "list", "delete", "free_bytes", "sweep"]


@dataclass(frozen=True, slots=True)
class FailCall:
    """The `nth` call (from 1; None: each) of `method` on keys like `key` (or a prefix like it) raises `error`."""

    method: Method
    error: BaseException
    nth: int | None = 1
    key: str = "*"


@dataclass(frozen=True, slots=True)
class FailPut:
    """A put's chunks raise `error` once `after_bytes` of them have reached the store."""

    after_bytes: int
    error: BaseException
    nth: int | None = 1
    key: str = "*"


@dataclass(frozen=True, slots=True)
class CutOpen:
    """An open yields `after_bytes` and then ends, or raises `error`; counted only where there was more to yield."""

    after_bytes: int
    error: BaseException | None = None
    nth: int | None = 1
    key: str = "*"


@dataclass(frozen=True, slots=True)
class FlipByte:
    """Each open that covers byte `offset` of the object yields it xor `mask`, as a bad disk would."""

    offset: int
    mask: int = 0xFF
    nth: int | None = None
    key: str = "*"


@dataclass(frozen=True, slots=True)
class SlowCall:
    """A call of `method` takes `delay_s` longer before it begins."""

    method: Method
    delay_s: float
    nth: int | None = None
    key: str = "*"


Fault = FailCall | FailPut | CutOpen | FlipByte | SlowCall


class FaultStore(Wrapper):
    """`inner` with the faults of `plan`; with an empty plan it is `inner`. Counting is safe between threads."""

    def __init__(
        self, inner: Store, plan: Sequence[Fault] = (), *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(inner)
        self._plan = tuple(plan)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._calls: Counter[int] = Counter()
        self._hits: Counter[int] = Counter()

    @property
    def hits(self) -> tuple[int, ...]:
        """How often each fault was hit, in the order of the plan."""
        with self._lock:
            return tuple(self._hits[number] for number in range(len(self._plan)))

    def assert_all_hit(self) -> None:
        """Raises AssertionError naming the planned faults that were never hit."""
        missed = [repr(fault) for fault, hits in zip(self._plan, self.hits, strict=True) if not hits]
        if missed:
            raise AssertionError(f"planned faults never hit: {'; '.join(missed)}")

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        return self._inner.put(key, self._faulty_put(key, chunks), if_absent=if_absent)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        return self._faulty_open(self._inner.open(key, start=start, length=length), key, start)

    def stat(self, key: str) -> ObjectInfo:
        self._begin(self._due("stat", key))
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._faulty_list(check_prefix(prefix))

    def delete(self, key: str) -> None:
        self._begin(self._due("delete", key))
        self._inner.delete(key)

    def free_bytes(self) -> int | None:
        self._begin(self._due("free_bytes", ""))
        return self._inner.free_bytes()

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        """It meets the faults of a put; the bytes that are kept do not count."""
        return self._inner.extend(left, key, self._faulty_put(key, chunks), keep_bytes=keep_bytes)

    def sweep(self, prefix: str = "", *, older_than_s: float | None = None) -> Names:
        self._begin(self._due("sweep", prefix))
        return self._inner.sweep(prefix, older_than_s=older_than_s)

    def _faulty_put(self, key: str, chunks: Iterable[Buffer]) -> Iterable[Buffer]:
        faults = self._due("put", key)
        self._begin(faults)
        for number, fault in faults:
            if isinstance(fault, FailPut):
                chunks = self._fail_after(chunks, number, fault)
        return chunks

    def _faulty_open(self, buffers: Generator[bytes, None, None], key: str, start: int) -> Generator[bytes, None, None]:
        """Faults strike at the first buffer, where a real open fails too; the inner iterator is always closed."""
        try:
            faults = self._due("open", key)
            self._begin(faults)
            faulty = buffers
            for number, fault in faults:
                if isinstance(fault, FlipByte):
                    faulty = self._flip(faulty, number, fault, start)
                elif isinstance(fault, CutOpen):
                    faulty = self._cut(faulty, number, fault)
            yield from faulty
        finally:
            buffers.close()

    def _faulty_list(self, prefix: str) -> Generator[ObjectInfo, None, None]:
        self._begin(self._due("list", prefix))
        yield from self._inner.list(prefix)

    def _due(self, method: Method, key: str) -> Sequence[tuple[int, Fault]]:
        """Faults, with their number in the plan, that this call of `method` meets; counts the call."""
        due = []
        with self._lock:
            for number, fault in enumerate(self._plan):
                if _method(fault) == method and fnmatchcase(key, fault.key):
                    self._calls[number] += 1
                    if fault.nth in (None, self._calls[number]):
                        due.append((number, fault))
        return due

    def _begin(self, faults: Sequence[tuple[int, Fault]]) -> None:
        """Faults that strike before the inner call begins, in the order of the plan."""
        for number, fault in faults:
            if isinstance(fault, SlowCall):
                self._hit(number)
                self._sleep(fault.delay_s)
            elif isinstance(fault, FailCall):
                self._hit(number)
                raise fault.error

    def _fail_after(self, chunks: Iterable[Buffer], number: int, fault: FailPut) -> Generator[Buffer, None, None]:
        left = fault.after_bytes
        for chunk in chunks:
            view = memoryview(chunk).cast("B") if len(chunk) else memoryview(b"")
            yield view[:left]
            left -= min(left, view.nbytes)
            if not left:
                self._hit(number)
                raise fault.error

    def _cut(self, buffers: Iterator[bytes], number: int, fault: CutOpen) -> Generator[bytes, None, None]:
        left = fault.after_bytes
        for buffer in buffers:
            if len(buffer) <= left:
                yield buffer
                left -= len(buffer)
                continue
            if left:
                yield buffer[:left]
            self._hit(number)
            if fault.error:
                raise fault.error
            return

    def _flip(
        self, buffers: Iterator[bytes], number: int, fault: FlipByte, position: int
    ) -> Generator[bytes, None, None]:
        for buffer in buffers:
            at = fault.offset - position
            position += len(buffer)
            if 0 <= at < len(buffer):
                self._hit(number)
                yield buffer[:at] + bytes([buffer[at] ^ fault.mask]) + buffer[at + 1 :]
            else:
                yield buffer

    def _hit(self, number: int) -> None:
        with self._lock:
            self._hits[number] += 1


def _method(fault: Fault) -> Method:
    if isinstance(fault, FailCall | SlowCall):
        return fault.method
    return "put" if isinstance(fault, FailPut) else "open"
