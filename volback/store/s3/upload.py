"""One multipart upload: parts sent in parallel while later ones are still being made; whole, or aborted.

Every request runs in a thread of its own pool, so that an interrupt finds the main thread waiting, never in the
middle of a request whose outcome nobody would know.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Protocol

from volback.errors import StoreError
from volback.store.retry import Stopped
from volback.store.s3.parts import parallel_parts

_BLOCK_BYTES = 256 * 1024


class Body(io.RawIOBase):
    """A part as a file, which ends early once `stop` is set: a slow line must not hold an interrupt up.

    It gives blocks of 256 KiB also where fewer bytes are asked for: urllib3 asks for 16 KiB, and that is slow.
    """

    def __init__(self, data: memoryview, stop: threading.Event) -> None:
        super().__init__()
        self._data = data
        self._stop = stop
        self._at = 0

    def __len__(self) -> int:
        return self._data.nbytes

    def md5(self) -> str:
        """As the header Content-MD5 has it."""
        return base64.b64encode(hashlib.md5(self._data, usedforsecurity=False).digest()).decode()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Raises Stopped."""
        if self._stop.is_set():
            raise Stopped
        count = self._data.nbytes if size < 0 else max(size, _BLOCK_BYTES)
        block = bytes(self._data[self._at : self._at + count])
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._data.nbytes)[whence]
        return self._at

    def tell(self) -> int:
        return self._at


class MultipartCalls(Protocol):
    """The requests of one upload, each tried again inside; `stop` ends that."""

    def begin(self, stop: threading.Event) -> str: ...
    def send(self, upload_id: str, number: int, body: Body, stop: threading.Event) -> str: ...
    def finish(self, upload_id: str, etags: list[str], size_bytes: int, stop: threading.Event) -> None: ...
    def abort(self, upload_id: str) -> None: ...


class Upload:
    """Use `run` once."""

    def __init__(self, calls: MultipartCalls, *, parallel: int, max_parts: int) -> None:
        self._calls = calls
        self._parallel = parallel
        self._max_parts = max_parts
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="volback-s3")
        self._sending: dict[Future[str], int] = {}
        self._etags: dict[int, str] = {}
        self._size_bytes = 0
        self._began: Future[str] | None = None

    def run(self, parts: Iterator[memoryview]) -> int:
        """Send all parts and complete; return the size. Whatever is raised, nothing stays and it passes through."""
        try:
            self._began = self._pool.submit(self._calls.begin, self._stop)
            upload_id = self._began.result()
            for number, part in enumerate(parts, 1):
                if part.nbytes or number == 1:
                    self._send(upload_id, number, part)
            self._collect(until=lambda: not self._sending)
            etags = [self._etags[number] for number in sorted(self._etags)]
            self._pool.submit(self._calls.finish, upload_id, etags, self._size_bytes, self._stop).result()
        except BaseException:
            self._abort()
            raise
        finally:
            self._pool.shutdown()
        return self._size_bytes

    def _send(self, upload_id: str, number: int, part: memoryview) -> None:
        if number > self._max_parts:
            raise StoreError(f"the object needs more than {self._max_parts} parts", "raise VOLBACK_S3_PART_SIZE")
        room = parallel_parts(part.nbytes or 1, self._parallel)
        self._collect(until=lambda: len(self._sending) < room)
        future = self._pool.submit(self._calls.send, upload_id, number, Body(part, self._stop), self._stop)
        self._sending[future] = number
        self._size_bytes += part.nbytes

    def _collect(self, *, until: Callable[[], bool]) -> None:
        """Take finished parts in; an error of any part is raised here. Waits `until` that holds."""
        while True:
            for future in [future for future in self._sending if future.done()]:
                self._etags[self._sending.pop(future)] = future.result()
            if until():
                return
            wait(self._sending, return_when=FIRST_COMPLETED)

    def _abort(self) -> None:
        """Once no request is under way any more: a part that came in after the abort would stay, and cost."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        if self._began is not None and not self._began.cancelled():
            with suppress(Exception):  # it is what is being raised already, or Stopped
                self._calls.abort(self._began.result())
