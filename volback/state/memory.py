"""Memory: what this machine remembers of the repository at one address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from volback.catalog.objects import Kept, KeptNothing
from volback.settings import CACHE_BYTES
from volback.state.cache import Cache
from volback.state.known import known_ids, remember_id


@dataclass(frozen=True, slots=True)
class Memory:
    """What this machine remembers of the repository at an address: the ids that it had, and for whom it encrypts."""

    state: Path
    address: str
    accept: bool
    """Whether an id that is not among them is added to them."""
    cache: Path | None = None
    """Where copies of the repository's objects are kept; None: nowhere."""
    cache_bytes: int = CACHE_BYTES
    recipient: str | None = None
    """That the configuration pins."""

    @property
    def ids(self) -> list[str]:
        return sorted(known_ids(self.state, self.address))

    def admits(self, id: str) -> bool:
        """Whether the repository with that id may be used; if so, it is remembered."""
        known = self.ids
        if id in known:
            return True
        if known and not self.accept:
            return False
        remember_id(self.state, self.address, id)
        return True

    def kept(self, id: str) -> Kept:
        """The local copies of what is in the repository with that id. Another one at this address has others."""
        if self.cache is None or not self.cache_bytes:
            return KeptNothing()
        return Cache(self.cache, f"{id} {self.address}", limit_bytes=self.cache_bytes)
