"""Documents with their own digest: indented JSON whose last field is the SHA-256 of all bytes before it.

`sha256sum` checks one without volback: the digest covers what comes before `,\\n  "sha256": "`.
A signature, where there is one, stands before the digest, and covers what comes before `,\\n  "signature": "`.
Read and written only by the catalog; every byte read here may come from a damaged or hostile store.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from volback.catalog.model import FORMAT
from volback.catalog.objects import Objects
from volback.errors import FormatError

DOCUMENT_MAX_BYTES = 16 * 1024 * 1024
STRINGS_MAX = 400_000
"""In a document: decoded, each takes 50 to 150 bytes more than its text."""

_HEAD_OF_SEAL = b',\n  "sha256": "'
_END = b'"\n}\n'
_SEAL_BYTES = len(_HEAD_OF_SEAL) + 64 + len(_END)

_HEAD_OF_SIGNER = b',\n  "signed_by": "'
_HEAD_OF_SIGNATURE = b',\n  "signature": "'
_SIGNED = re.compile(
    re.escape(_HEAD_OF_SIGNER) + b'([0-9a-f]{64})"' + re.escape(_HEAD_OF_SIGNATURE) + b'([A-Za-z0-9+/]{86}==)"'
)
_SIGNATURE_BYTES = len(_HEAD_OF_SIGNATURE) + 88 + 1
_SIGNED_BYTES = len(_HEAD_OF_SIGNER) + 64 + 1 + _SIGNATURE_BYTES

_making_decoder = threading.Lock()
"""msgspec crashes where two threads make the first decoder of a type at once; later ones are made in microseconds."""

T = TypeVar("T")

IsSigned = Callable[[bytes, bytes, bytes], bool]
"""Whether the owner of a public key has made a signature of some data: public key, signature, data."""


class _Header(msgspec.Struct):
    format: int


class Signer(Protocol):
    """A key that signs documents: the Ed25519 key of a host, or of who holds a repository's identity."""

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a document says of who signed it; nothing of it is proven."""

    public: bytes
    signature: bytes
    covered: bytes
    """What is signed."""


def seal_document(document: msgspec.Struct | dict[str, object], signer: Signer | None = None) -> bytes:
    """Return `document` as bytes that `open_document` accepts; the same document gives the same bytes."""
    text = msgspec.json.format(_encode(document), indent=2)
    body = text.removesuffix(b"\n}")
    if signer is not None:
        body += _HEAD_OF_SIGNER + signer.public.hex().encode() + b'"'
        body += _HEAD_OF_SIGNATURE + base64.b64encode(signer.sign(body)) + b'"'
    return body + _HEAD_OF_SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def open_document(data: bytes, document_type: type[T], what: str) -> T:
    """Return the document that `data` holds; `what` names it in errors.

    Raises FormatError, and nothing else: too large, damaged, of another format number, or not of this type.
    """
    body = _sealed_body(data, what)
    _check_format(_decode(body, _Header, what).format, what)
    return _decode(body, document_type, what)


def is_whole(data: bytes) -> bool:
    """Whether these bytes are what somebody has written, whatever that says: they end in their own digest."""
    body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    return seal == _HEAD_OF_SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def read_document(objects: Objects, key: str, limit_bytes: int = DOCUMENT_MAX_BYTES) -> bytes:
    """The bytes of a document: one more than it may have, so that one too large is seen without reading all of it."""
    return b"".join(objects.open(key, length=limit_bytes + 1))


def signature_of(data: bytes) -> Signature | None:
    """The signature of a document that `open_document` has accepted; None where it has none."""
    body = data[:-_SEAL_BYTES]
    found = _SIGNED.fullmatch(body[-_SIGNED_BYTES:])
    if found is None:
        return None
    return Signature(bytes.fromhex(found[1].decode()), base64.b64decode(found[2]), body[:-_SIGNATURE_BYTES])


def proven_signer(data: bytes, is_signed: IsSigned | None, what: str) -> str | msgspec.UnsetType:
    """The public key (hex) that has signed a document that `open_document` has accepted; UNSET where nobody has, or
    nothing can prove it. Raises FormatError for a signature that is not that of its key."""
    found = signature_of(data)
    if found is None or is_signed is None:
        return msgspec.UNSET
    if not is_signed(found.public, found.signature, found.covered):
        raise FormatError(f"{what} is not what its signer has signed")
    return found.public.hex()


def _encode(document: msgspec.Struct | dict[str, object]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        # A file name that is not UTF-8 got into a warning: a backup must not fail at its last step for that.
        return msgspec.json.encode(_printable(msgspec.to_builtins(document)))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def _sealed_body(data: bytes, what: str) -> bytes:
    if len(data) > DOCUMENT_MAX_BYTES:
        raise FormatError(f"{what} is larger than {DOCUMENT_MAX_BYTES} bytes, so it is not such a document")
    body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if not (body and seal.startswith(_HEAD_OF_SEAL) and seal.endswith(_END)):
        raise FormatError(f"{what} is cut short or is not a document of volback: it does not end in its digest")
    if seal[len(_HEAD_OF_SEAL) : -len(_END)] != hashlib.sha256(body).hexdigest().encode():
        raise FormatError(f"{what} is damaged: its bytes do not match its digest")
    if body.count(b'"') > 2 * STRINGS_MAX:
        raise FormatError(f"{what} holds more than {STRINGS_MAX:,} texts, so it is not such a document")
    return body + b"\n}"


def _decode(body: bytes, document_type: type[T], what: str) -> T:
    with _making_decoder:
        decoder = msgspec.json.Decoder(document_type)
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise FormatError(f"{what} cannot be read: {exc}") from exc


def _check_format(number: int, what: str) -> None:
    if number > FORMAT:
        raise FormatError(
            f"{what} is of format {number}; this volback reads formats 1 to {FORMAT}", "install a newer volback"
        )
    if number < 1:
        raise FormatError(f"{what} is of format {number}, which never existed; this volback reads 1 to {FORMAT}")
