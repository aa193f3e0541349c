"""One multipart upload: parts are sent in parallel while later ones are produced; it is completed or aborted.

Every request runs in a thread of its own pool, so that an interrupt finds the main thread waiting, never in a request
whose outcome would be unknown.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from volback.errors import StoreError
from volback.retry import Stopped
from volback.store.s3.parts import parallel_parts

_BLOCK_BYTES = 256 * 1024


class Body(io.RawIOBase):
    """A part as a file. Reading raises Stopped once `stop` is set: a slow connection must not delay an interrupt.

    A read returns 256 KiB also if fewer bytes are asked for: urllib3 asks for 16 KiB, which is slow.
    """

    def __init__(self, data: memoryview, stop: threading.Event) -> None:
        super().__init__()
        self._data = data
        self._stop = stop
        self._at = 0

    def __len__(self) -> int:
        return self._data.nbytes

    def md5(self) -> str:
        """The value of the header Content-MD5."""
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


@dataclass(frozen=True, slots=True)
class Copied:
    """A part that the server copies: bytes of an object that it has."""

    start: int
    nbytes: int


class MultipartCalls(Protocol):
    """The requests of one upload. Each tries again by itself, until `stop` is set; it then raises Stopped."""

    def begin(self, stop: threading.Event) -> str:
        """Begin the upload and return its id."""

    def send(self, upload_id: str, number: int, body: Body | Copied, stop: threading.Event) -> str:
        """Send part `number` (from 1), or let it be copied, and return its ETag."""

    def finish(self, upload_id: str, etags: list[str], size_bytes: int, stop: threading.Event) -> None:
        """Make the object of the parts, in the order of their numbers."""

    def abort(self, upload_id: str) -> None:
        """Remove the upload and its parts. Raises nothing."""


class Upload:
    """One upload, run in a pool of threads. Use `run` once."""

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

    def run(self, parts: Iterable[memoryview | Copied]) -> int:
        """Send all parts, make the object and return its size. An error aborts the upload and passes through."""
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

    def _send(self, upload_id: str, number: int, part: memoryview | Copied) -> None:
        if number > self._max_parts:
            raise StoreError(f"the object needs more than {self._max_parts} parts", "raise VOLBACK_S3_PART_SIZE")
        room = parallel_parts(part.nbytes or 1, self._parallel)
        self._collect(until=lambda: len(self._sending) < room)
        body = part if isinstance(part, Copied) else Body(part, self._stop)
        future = self._pool.submit(self._calls.send, upload_id, number, body, self._stop)
        self._sending[future] = number
        self._size_bytes += part.nbytes

    def _collect(self, *, until: Callable[[], bool]) -> None:
        """Collect the ETags of parts that have been sent, until `until` is true. Raises the error of any part."""
        while True:
            for future in [future for future in self._sending if future.done()]:
                self._etags[self._sending.pop(future)] = future.result()
            if until():
                return
            wait(self._sending, return_when=FIRST_COMPLETED)

    def _abort(self) -> None:
        """Abort when no request is in progress any more: a part that arrives after the abort would stay, and cost."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        if self._began is not None and not self._began.cancelled():
            with suppress(Exception):  # `begin` failed: with what is being raised, or with Stopped
                self._calls.abort(self._began.result())
