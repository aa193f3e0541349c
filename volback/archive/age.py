"""The age format, version 1 (C2SP specification): a header that wraps a file key, then pieces of 64 KiB.

Each piece is sealed by itself with its number and whether it is the last, so any of them is opened without the others,
and none is moved, dropped or added unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import count
from typing import Final

from volback.archive.age_header import (
    FILE_KEY_BYTES,
    TAG_BYTES,
    WORK_FACTOR,
    WORK_FACTOR_MAX,
    Random,
    file_key_of,
    make_header,
    read_header,
)
from volback.archive.age_keys import Identity, Recipient
from volback.archive.primitives import cipher, derived, unsealed, unsealed_all
from volback.errors import DamagedPiece, IntegrityError

PIECE_BYTES: Final = 64 * 1024
SEALED_BYTES: Final = PIECE_BYTES + TAG_BYTES
"""Of a piece as it is stored; the last one may have less."""
NONCE_BYTES: Final = 16
HEADER_BYTES: Final = 184
"""From the first byte to the first piece, nonce included, where there is one X25519 recipient."""
HEADER_MAX_BYTES: Final = 64 * 1024

Buffer = bytes | bytearray | memoryview


def stored_size(plain_bytes: int) -> int:
    """The size of an age file for one X25519 recipient that holds so many bytes."""
    return HEADER_BYTES + plain_bytes + TAG_BYTES * max(1, -(-plain_bytes // PIECE_BYTES))


def plain_size(stored_bytes: int) -> int:
    """The inverse of `stored_size`. Raises IntegrityError for a size that no such file has."""
    payload = stored_bytes - HEADER_BYTES
    plain = payload - TAG_BYTES * max(1, -(-payload // SEALED_BYTES))
    if plain < 0 or stored_size(plain) != stored_bytes:
        raise IntegrityError(f"an age file of {stored_bytes} bytes is cut")
    return plain


def encrypt(
    chunks: Iterable[Buffer],
    recipients: Sequence[Recipient] = (),
    *,
    passphrase: str | None = None,
    random: Random = os.urandom,
    work_factor: int = WORK_FACTOR,
) -> Generator[bytes, None, None]:
    """Yield an age file of what `chunks` hold, for the recipients, or for a passphrase where there is one."""
    file_key, nonce = random(FILE_KEY_BYTES), random(NONCE_BYTES)
    yield make_header(file_key, recipients, passphrase, random, work_factor) + nonce
    pieces = Pieces(file_key, nonce)
    number, kept = 0, bytearray()
    for chunk in chunks:
        kept += chunk
        whole = (len(kept) - 1) // PIECE_BYTES  # the last piece is full rather than empty
        if whole > 0:
            with memoryview(kept) as view:
                cuts = [view[start : start + PIECE_BYTES] for start in range(0, whole * PIECE_BYTES, PIECE_BYTES)]
                yield b"".join(pieces.seal(number + at, cut, is_last=False) for at, cut in enumerate(cuts))
                del cuts
            number += whole
            del kept[: whole * PIECE_BYTES]
    yield pieces.seal(number, bytes(kept), is_last=True)


def decrypt(
    chunks: Iterable[bytes],
    identities: Sequence[Identity] = (),
    *,
    passphrase: str | None = None,
    what: str = "it",
    work_factor_max: int = WORK_FACTOR_MAX,
) -> Generator[bytes, None, None]:
    """Yield what an age file holds, each piece once it is checked. `what` names it in errors.

    Raises FormatError, IntegrityError, and IdentityNeeded where neither an identity nor the passphrase opens it.
    """
    source, kept = iter(chunks), bytearray()
    while len(kept) < HEADER_MAX_BYTES + NONCE_BYTES and (chunk := next(source, None)) is not None:
        kept += chunk
    header = read_header(bytes(kept[:HEADER_MAX_BYTES]), what)
    file_key = file_key_of(header, identities, passphrase=passphrase, what=what, work_factor_max=work_factor_max)
    pieces = Pieces(file_key, bytes(kept[header.size_bytes : header.size_bytes + NONCE_BYTES]), what)
    yield from pieces.open_all(_followed(bytes(kept[header.size_bytes + NONCE_BYTES :]), source))


def _followed(first: bytes, rest: Iterable[bytes]) -> Iterable[bytes]:
    yield first
    yield from rest


class Pieces:
    """Seals and opens the pieces of one file, in any order."""

    def __init__(self, file_key: bytes, nonce: bytes, what: str = "it") -> None:
        if len(nonce) != NONCE_BYTES:
            raise IntegrityError(f"{what} is cut within its header")
        self._cipher = cipher(derived(file_key, nonce, b"payload"))
        self._what = what

    def seal(self, number: int, data: Buffer, *, is_last: bool) -> bytes:
        """One piece as it is stored."""
        return self._cipher.encrypt(_piece_nonce(number, is_last), data, None)

    def open(self, number: int, data: Buffer, *, is_last: bool) -> bytes:
        """What a stored piece holds. Raises DamagedPiece for anything but that piece of that file."""
        plain = unsealed(self._cipher, _piece_nonce(number, is_last), data)
        if plain is None:
            raise self._damaged(number)
        if is_last and not plain and number:
            raise DamagedPiece(f"{self._what} is damaged: its last piece is empty", number)
        return plain

    def open_all(
        self, chunks: Iterable[bytes], *, first: int = 0, stop: int | None = None
    ) -> Generator[bytes, None, None]:
        """Yield what the pieces from `first` on hold, one by one: to the last one, or to before `stop`.

        The chunks begin with a piece. Raises DamagedPiece once what comes before it is yielded, also where they end
        before `stop`, and not with the last piece: to know that one is not the last takes a byte more than it has.
        """
        number, kept = first, b""
        for chunk in chunks:
            with memoryview(chunk) as view:
                cuts, kept = _cut(kept, view, most=None if stop is None else stop - number)
                wanted = len(cuts)
                plain = unsealed_all(self._cipher, zip(_piece_nonces(number), cuts, strict=False))
                del cuts
            yield from plain
            if len(plain) < wanted:
                raise self._damaged(number + len(plain))
            number += wanted
            if number == stop:
                return
        yield self.open(number, kept, is_last=True)

    def _damaged(self, number: int) -> DamagedPiece:
        return DamagedPiece(f"{self._what} is damaged or cut: piece {number} cannot be decrypted", number)


def _cut(kept: bytes, chunk: memoryview, *, most: int | None) -> tuple[list[Buffer], bytes]:
    """Cut `kept` and what follows it into sealed pieces, at most so many; return them, and what is left.

    A piece that ends where the chunk does is left: it may be the last one. Only what is in two chunks is copied.
    """
    whole = (len(kept) + len(chunk) - 1) // SEALED_BYTES
    whole = whole if most is None else min(whole, most)
    if whole < 1:
        return [], kept + chunk
    first = SEALED_BYTES - len(kept)
    cuts: list[Buffer] = [kept + chunk[:first] if kept else chunk[:first]]
    ends = range(first + SEALED_BYTES, first + whole * SEALED_BYTES, SEALED_BYTES)
    cuts += [chunk[end - SEALED_BYTES : end] for end in ends]
    return cuts, bytes(chunk[first + (whole - 1) * SEALED_BYTES :])


def _piece_nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _piece_nonces(first: int) -> Iterator[bytes]:
    """Those of the pieces from `first` on, none of which is the last."""
    return (_piece_nonce(number, is_last=False) for number in count(first))
