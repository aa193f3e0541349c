"""Memory of an upload: however slow the server and however much there is to send, few parts are held at a time."""

from __future__ import annotations

import threading

import pytest

from volback.errors import StoreError
from volback.store.s3.parts import PartSizes, cut_parts
from volback.store.s3.upload import Body, Copied, Upload

KIB = 1024


class SlowServer:
    """A send ends only when as many are waiting as can be, or the last one is; counts how many wait, and all bytes."""

    def __init__(self, parallel: int, parts: int = 1) -> None:
        self.received = 0
        self.waiting_most = 0
        self._parallel = parallel
        self._parts = parts
        self._begun = 0
        self._waiting = 0
        self._turn = threading.Condition()

    def begin(self, stop: threading.Event) -> str:
        return "upload"

    def send(self, upload_id: str, number: int, body: Body | Copied, stop: threading.Event) -> str:
        with self._turn:
            self._begun += 1
            self._waiting += 1
            self.waiting_most = max(self.waiting_most, self._waiting)
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._waiting >= self._parallel or self._begun == self._parts, timeout=60)
            self._waiting -= 1
            assert isinstance(body, Body)
            self.received += len(body)
        return f"etag-{number}"

    def finish(self, upload_id: str, etags: list[str], size_bytes: int, stop: threading.Event) -> None:
        assert size_bytes == self.received
        assert etags == [f"etag-{number}" for number in range(1, len(etags) + 1)]

    def abort(self, upload_id: str) -> None:
        raise AssertionError("nothing went wrong")


class Buffer(bytearray):
    """A part's buffer; counts those that live, and the most that ever did."""

    alive = most = 0

    def __init__(self, size: int) -> None:
        super().__init__(size)
        Buffer.alive += 1
        Buffer.most = max(Buffer.most, Buffer.alive)

    def __del__(self) -> None:
        Buffer.alive -= 1


@pytest.mark.parametrize("parallel", [1, 2, 4, 8])
def test_parts_in_memory_are_those_being_sent_and_the_one_being_filled(
    parallel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volback.store.s3.parts.bytearray", Buffer, raising=False)
    before = Buffer.most = Buffer.alive
    server = SlowServer(parallel, parts=200)
    sizes = PartSizes(64 * KIB, max_parts=1000, per_step=1000, steps=1)
    chunks = (bytes(10 * KIB) for _ in range(64 * 20))
    size_bytes = Upload(server, parallel=parallel, max_parts=1000).run(cut_parts(chunks, sizes))
    assert size_bytes == server.received == 64 * 20 * 10 * KIB
    assert server.waiting_most == parallel
    # Those being sent, the one that waits for its turn, the one being filled.
    assert parallel < Buffer.most - before <= parallel + 2
    assert Buffer.alive == before


def test_a_stream_of_more_parts_than_the_server_takes_is_refused_by_name() -> None:
    class Aborted(SlowServer):
        aborted = 0

        def abort(self, upload_id: str) -> None:
            self.aborted += 1

    server = Aborted(1)
    sizes = PartSizes(KIB, max_parts=3, per_step=3, steps=1)
    with pytest.raises(StoreError, match="more than 3 parts") as caught:
        Upload(server, parallel=1, max_parts=3).run(cut_parts([bytes(5 * KIB)], sizes))
    assert caught.value.hint == "raise VOLBACK_S3_PART_SIZE"
    assert server.aborted == 1
