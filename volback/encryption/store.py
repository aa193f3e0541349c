"""The layer that encrypts: a wrapper around the store of an encrypted repository.

An object whose key ends in `.zst` is stored as an age file under that key with `.age`; all above here see what it
holds: its plain size, its plain bytes, any range of them. Other objects (documents, keys) pass unchanged. Writing takes
the repository's recipient alone; reading asks for its identities, when the first byte is read.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain

from volback.archive.age import (
    HEADER_BYTES,
    NONCE_BYTES,
    PIECE_BYTES,
    SEALED_BYTES,
    Pieces,
    decrypt,
    encrypt,
    plain_size,
)
from volback.archive.age_header import Header, file_key_of, read_header
from volback.archive.age_keys import Identity, Recipient
from volback.errors import ConflictError, FormatError, IdentityNeeded, IntegrityError, NotFoundError
from volback.store.base import (
    Buffer,
    ObjectInfo,
    Store,
    Wrapper,
    check_key,
    check_prefix,
    check_range,
)

SUFFIX = ".age"
_HEADERS_KEPT = 1024
_MARK = re.compile(r"[%.-]")
"""Characters of a key that sort before the end of `.age`."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """How one repository is encrypted."""

    recipient: Recipient | None
    """None where it is not known, so that nothing can be written."""
    identities: Callable[[], Sequence[Identity]] = field(repr=False)
    """Its own, asked for when something is read. Raises IdentityNeeded."""
    count: int = 1
    """How many identities it has had."""

    def seal(self, data: bytes) -> bytes:
        """Return an age file that holds `data`."""
        return b"".join(self.encrypted([data]))

    def encrypted(self, chunks: Iterable[Buffer]) -> Generator[bytes, None, None]:
        """Yield an age file that holds the chunks. Raises IntegrityError where the recipient is not known."""
        if self.recipient is None:
            raise IntegrityError("for whom to encrypt is not known: the repository's volback.json cannot be read")
        return encrypt(chunks, [self.recipient])

    def unseal(self, data: bytes, what: str) -> bytes:
        """Return what an age file holds. Raises IdentityNeeded, FormatError, IntegrityError, which name `what`."""
        with self._damaged_if_closed(what):
            return b"".join(decrypt([data], self.identities(), what=what))

    def file_key(self, header: Header, what: str) -> bytes:
        """The key in a header. Raises as `unseal`."""
        with self._damaged_if_closed(what):
            return file_key_of(header, self.identities(), what=what)

    @contextmanager
    def _damaged_if_closed(self, what: str) -> Iterator[None]:
        """What none of its identities opens is not the repository's, where all of them are there."""
        is_complete = len(self.identities()) >= self.count
        try:
            yield
        except IdentityNeeded as exc:
            if is_complete:
                message = f"{what} is damaged, or of another repository: the repository's identity does not open it"
                raise IntegrityError(message) from exc
            raise


def is_data(key: str) -> bool:
    """Whether an object is encrypted as a whole."""
    return key.endswith(".zst")


def holds_encrypted(store: Store) -> bool:
    """Whether a repository's objects, as they are stored, are encrypted."""
    return any(info.key.endswith(SUFFIX) and is_data(info.key[: -len(SUFFIX)]) for info in store.list())


class EncryptedStore(Wrapper):
    """`inner`, with the objects that `covers` names encrypted; where there is no encryption, all passes unchanged."""

    def __init__(
        self, inner: Store, encryption: Callable[[], Encryption | None], *, covers: Callable[[str], bool] = is_data
    ) -> None:
        """`encryption` is asked when the first object is touched that would be encrypted."""
        super().__init__(inner)
        self._encryption = encryption
        self._covers = covers
        self._pieces = OrderedDict[str, Pieces]()
        self._lock = threading.Lock()

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        encryption = self._for(key)
        if encryption is None:
            return self._inner.put(key, chunks, if_absent=if_absent)
        counted = _Counted(chunks)
        try:
            with _named(key), closing(encryption.encrypted(counted)) as stored:
                self._inner.put(key + SUFFIX, stored, if_absent=if_absent)
        finally:
            self._forget(key)
        return counted.size_bytes

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        encryption = self._for(key)
        if encryption is None:
            return self._inner.open(key, start=start, length=length)
        check_range(start, length)
        return self._opened(key, encryption, start, length)

    def stat(self, key: str) -> ObjectInfo:
        if self._for(key) is None:
            return self._inner.stat(key)
        with _named(key):
            return _plain(self._inner.stat(key + SUFFIX))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._listed(prefix)

    def delete(self, key: str) -> None:
        if self._for(key) is None:
            self._inner.delete(key)
        else:
            self._forget(key)
            self._inner.delete(key + SUFFIX)

    def holds(self) -> str | None:
        found = self._inner.holds()
        return None if found is None else self._plain_key(found)

    def finish(self, key: str) -> int | None:
        """None: a part of an age file would have to be opened, for which a host that backs up has no identity.

        An object that is there is whole.
        """
        if self._for(key) is None:
            return self._inner.finish(key)
        try:
            return self.stat(key).size_bytes
        except NotFoundError:
            return None

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        """Opened and encrypted anew: with a key of its own, no piece of an object is ever written twice."""
        if self._for(left) is None and self._for(key) is None:
            return self._inner.extend(left, key, chunks, keep_bytes=keep_bytes)
        return self.put(key, chain(self.open(left, length=keep_bytes), chunks))

    def stored_key(self, key: str) -> str:
        """The key under which the inner store has that object."""
        return key if self._for(key) is None else key + SUFFIX

    def _for(self, key: str) -> Encryption | None:
        """How the object of a key is encrypted; None where it is not. Raises UsageError for a key that is not valid."""
        return self._encryption() if self._covers(check_key(key)) else None

    def _opened(self, key: str, encryption: Encryption, start: int, length: int | None) -> Generator[bytes, None, None]:
        """Read the pieces that hold the range, and no others; the header is read once for each object."""
        first = start // PIECE_BYTES
        stop = None if length is None else max(first + 1, -(-(start + length) // PIECE_BYTES))
        try:
            with _named(key), closing(self._stored(key, encryption, first, stop)) as opened:
                yield from _cut(opened, start - first * PIECE_BYTES, length)
        except IntegrityError:
            self._forget(key)
            raise

    def _stored(self, key: str, encryption: Encryption, first: int, stop: int | None) -> Generator[bytes, None, None]:
        """What the pieces from `first` to before `stop` hold."""
        pieces = self._known(key)
        if pieces is None and first:
            with closing(self._inner.open(key + SUFFIX, length=HEADER_BYTES)) as head:
                pieces, _ = self._read_header(key, encryption, head)
        offset = HEADER_BYTES + first * SEALED_BYTES if pieces else 0
        # One byte more than the pieces have shows that the last of them is not the last one of the object.
        length = None if stop is None else HEADER_BYTES + stop * SEALED_BYTES + 1 - offset
        with closing(self._inner.open(key + SUFFIX, start=offset, length=length)) as stored:
            rest: Iterator[bytes] = stored
            if pieces is None:
                pieces, rest = self._read_header(key, encryption, stored)
            begin = next(rest, b"")
            if begin or not first:  # else the range lies beyond the end
                yield from pieces.open_all(chain([begin], rest), first=first, stop=stop)

    def _known(self, key: str) -> Pieces | None:
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
            return self._pieces.get(key)

    def _forget(self, key: str) -> None:
        with self._lock:
            self._pieces.pop(key, None)

    def _read_header(self, key: str, encryption: Encryption, stored: Iterator[bytes]) -> tuple[Pieces, Iterator[bytes]]:
        """What opens the pieces, and what follows the header. Raises IdentityNeeded, FormatError, IntegrityError."""
        head = bytearray()
        while len(head) < HEADER_BYTES and (chunk := next(stored, None)) is not None:
            head += chunk
        header = read_header(bytes(head[:HEADER_BYTES]), key + SUFFIX)
        if header.size_bytes + NONCE_BYTES != HEADER_BYTES:
            raise FormatError(f"{key}{SUFFIX} is an age file that volback did not make: its header has another size")
        file_key = encryption.file_key(header, key + SUFFIX)
        pieces = Pieces(file_key, bytes(head[header.size_bytes : HEADER_BYTES]), key + SUFFIX)
        with self._lock:
            self._pieces[key] = pieces
            while len(self._pieces) > _HEADERS_KEPT:
                self._pieces.popitem(last=False)
        return pieces, chain([bytes(head[HEADER_BYTES:])], stored)

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        """In the order of the keys: `a.age` is listed after `a-b`, and `a` comes before it."""
        waiting: list[ObjectInfo] = []
        for info in self._inner.list(prefix):
            waiting += self._shown(info)
            if not self._may_follow(info.key):
                yield from sorted(waiting, key=_key)
                waiting.clear()
        yield from sorted(waiting, key=_key)

    def _shown(self, info: ObjectInfo) -> Iterator[ObjectInfo]:
        """The object as it is seen above; none for one in clear that would have to be encrypted."""
        if self._plain_key(info.key) != info.key:
            yield _plain(info)
        elif not (self._covers(info.key) and self._encryption()):
            yield info

    def _plain_key(self, key: str) -> str:
        """The key of a stored object as all above know it."""
        plain = key.removesuffix(SUFFIX)
        return plain if plain != key and self._covers(plain) and self._encryption() else key

    def _may_follow(self, key: str) -> bool:
        """Whether an object may be listed after this one whose key, without `.age`, sorts before it."""
        marks = (match.start() for match in _MARK.finditer(key, 1))
        return any(self._covers(key[:at]) and key[at:] < SUFFIX for at in marks)


class _Counted:
    """Chunks, and how many bytes they had."""

    def __init__(self, chunks: Iterable[Buffer]) -> None:
        self._chunks = chunks
        self.size_bytes = 0

    def __iter__(self) -> Iterator[Buffer]:
        for chunk in self._chunks:
            self.size_bytes += memoryview(chunk).nbytes
            yield chunk


def _plain(info: ObjectInfo) -> ObjectInfo:
    """An object without `.age`, with the size of what it holds; 0 where it has a size that no such object has."""
    try:
        size_bytes = plain_size(info.size_bytes)
    except IntegrityError:
        size_bytes = 0
    return ObjectInfo(info.key.removesuffix(SUFFIX), size_bytes, info.modified_at, info.etag)


def _cut(chunks: Iterable[bytes], skip: int, length: int | None) -> Iterator[bytes]:
    """`length` bytes of the chunks, after the first `skip`."""
    left = length
    for chunk in chunks:
        wanted = chunk[skip : None if left is None else skip + left]
        skip = max(0, skip - len(chunk))
        if wanted:
            yield wanted
        if left is not None:
            left -= len(wanted)


def _key(info: ObjectInfo) -> str:
    return info.key


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Errors name the object as all above know it."""
    try:
        yield
    except (NotFoundError, ConflictError) as exc:
        raise type(exc)(exc.message.replace(f"{key}{SUFFIX}", key), exc.hint) from exc
