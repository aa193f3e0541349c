"""Traffic: the requests that a store has sent, by what they do, and the bytes that went with them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Verb = Literal["get", "head", "list", "put", "delete"]
VERBS: tuple[Verb, ...] = get_args(Verb)


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests were sent, each try of one that was repeated too."""

    by_verb: Mapping[Verb, int]
    """`put` is all that writes: also parts of an object, and what begins or ends one."""
    sent_bytes: int
    received_bytes: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_verb.values())


@dataclass(slots=True)
class Traffic:
    """Counts while a store works; safe to use from several threads."""

    _requests: Counter[Verb] = field(default_factory=Counter)
    _sent_bytes: int = 0
    _received_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, verb: Verb, *, sent_bytes: int = 0) -> None:
        """Count one request."""
        with self._lock:
            self._requests[verb] += 1
            self._sent_bytes += sent_bytes

    def received(self, count_bytes: int) -> None:
        """Count bytes of objects that came."""
        with self._lock:
            self._received_bytes += count_bytes

    def so_far(self) -> Requests:
        """What was counted."""
        with self._lock:
            by_verb = {verb: self._requests[verb] for verb in VERBS}
            return Requests(by_verb, self._sent_bytes, self._received_bytes)


def verb_of(operation: str) -> Verb:
    """What an operation of S3, by the SDK's name, does and costs as."""
    first = operation.partition("_")[0]
    kinds: dict[str, Verb] = {"get": "get", "head": "head", "list": "list", "delete": "delete", "abort": "delete"}
    return kinds.get(first, "put")
