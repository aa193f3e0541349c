"""Upload: one data object is put in a thread, so that its bytes can be made in several turns."""

from __future__ import annotations

from volback.archive.record import Recorder
from volback.feed import Feed
from volback.store.base import Store


def data_upload(store: Store, key: str, recorder: Recorder) -> Feed[bytes]:
    """Of a data object, which is hashed in the thread that stores it. Left without `end`, nothing of it is stored."""
    return Feed(lambda chunks: store.put(key, recorder.hashed(chunks)), "upload")
