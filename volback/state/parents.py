"""Parents: what the next backup of a volume compares with, where the repository is encrypted and this machine has no
identity. For each volume the newest backup that this machine made: its manifest, and the indexes of which its own is
made, in clear. They are not a cache: nothing removes them but a newer backup; without them everything is stored again.

STATE/parents/HASH/manifest.json   the newest backup's manifest, with its private part
STATE/parents/HASH/ID.index        the index object of that backup, or one that its index uses; ID.N.index of revision N
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from volback.catalog.keys import is_id, object_id
from volback.catalog.model import Manifest
from volback.catalog.private import is_same_in_clear
from volback.catalog.sealed import DOCUMENT_MAX_BYTES, open_document, seal_document
from volback.durable import write_whole
from volback.errors import FormatError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_INDEX = ".index"


class KnownParent:
    """What this machine keeps of one volume's newest backup. It fits the catalog's `Kept`: local copies of indexes."""

    def __init__(self, state: Path, repository_id: str, host: str, volume: str) -> None:
        digest = hashlib.sha256(repr((repository_id, host, volume)).encode(errors="backslashreplace")).hexdigest()
        self._directory = state / "parents" / digest

    def opened(self, stored: Manifest) -> Manifest | None:
        """The manifest with its private part; None where it is not the one that this machine keeps."""
        path = self._directory / _MANIFEST
        try:
            with path.open("rb") as file:
                known = open_document(file.read(DOCUMENT_MAX_BYTES + 1), Manifest, str(path))
        except OSError as exc:
            log.debug("no parent is known: %s", exc)
            return None
        except FormatError as exc:
            log.warning("%s", exc.message)
            return None
        return known if is_same_in_clear(known, stored) else None

    @property
    def id(self) -> str | None:
        """The id of the backup that this machine keeps; None where it keeps none that can be read."""
        try:
            data = (self._directory / _MANIFEST).read_bytes()
            return open_document(data, Manifest, _MANIFEST).id
        except (OSError, FormatError) as exc:
            log.debug("no parent is known: %s", exc)
            return None

    def keep(self, manifest: Manifest, index: Iterable[bytes]) -> None:
        """Keep this backup in place of the one before. Raises StoreError."""
        self._write(f"{manifest.index_id}{_INDEX}", b"".join(index))
        self._write(_MANIFEST, seal_document(manifest))
        needed = {manifest.index_id, *(used.object_id for used in manifest.uses if used.is_index)}
        for path in list(self._directory.glob(f"*{_INDEX}")):
            if path.name.removesuffix(_INDEX) not in needed:
                with suppress(OSError):
                    path.unlink()

    def has_index(self, id: str) -> bool:
        """Whether the index object of that object id is kept."""
        return (self._directory / f"{id}{_INDEX}").is_file()

    def get(self, name: str, sha256: str | None = None, size_bytes: int | None = None) -> bytes | None:
        """An index object by its key, or `size_bytes` of it from `KEY OFFSET` on, if it has that SHA-256 (hex)."""
        key, _, offset = name.partition(" ")
        try:
            with (self._directory / f"{_id_in(key)}{_INDEX}").open("rb") as file:
                file.seek(int(offset or 0))
                data = file.read(-1 if size_bytes is None else size_bytes)
        except OSError as exc:
            log.debug("no index is kept of %s: %s", key, exc)
            return None
        return data if sha256 in {None, hashlib.sha256(data).hexdigest()} else None

    def put(self, name: str, data: bytes) -> None:
        """Keep an index object under its key; a part of one is not kept."""
        if " " not in name and _id_in(name):
            self._write(f"{_id_in(name)}{_INDEX}", data)

    def _write(self, name: str, data: bytes) -> None:
        private_directory(self._directory.parent)
        private_directory(self._directory)
        path = self._directory / name
        with usable(path):
            write_whole(path, data)


def _id_in(key: str) -> str:
    """The object id of the index object that has this key."""
    parts = key.split("/")
    return object_id(*parts[-2:]) if len(parts) > 1 and is_id(parts[-2]) else ""
