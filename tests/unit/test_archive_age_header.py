"""Headers of age files that the specification refuses, by the cases that its test vectors (C2SP, CCTV) name."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

import pytest

from volback.archive.age import decrypt, encrypt
from volback.archive.age_keys import Identity
from volback.errors import FormatError, IdentityNeeded, IntegrityError

pytestmark = pytest.mark.unit

MINE = Identity(bytes(range(32)))
FILE_KEY = bytes(range(16))
PASSPHRASE = "winter"


def _random(size: int) -> bytes:
    return FILE_KEY if size == len(FILE_KEY) else os.urandom(size)


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _file(passphrase: str | None = None) -> bytes:
    recipients = [] if passphrase else [MINE.recipient]
    return b"".join(encrypt([b"text"], recipients, passphrase=passphrase, random=_random, work_factor=2))


def _stanza(passphrase: str | None = None) -> bytes:
    """The one stanza of a new file, with the newline at its end."""
    return _file(passphrase).partition(b"\n")[2].partition(b"---")[0]


def _with(stanzas: bytes, *, mac: bytes | None = None) -> bytes:
    """A file with those stanzas, whose MAC is right where none is given."""
    covered = b"age-encryption.org/v1\n" + stanzas + b"---"
    extracted = hmac.digest(bytes(32), FILE_KEY, hashlib.sha256)
    key = hmac.digest(extracted, b"header\1", hashlib.sha256)
    right = _b64(hmac.digest(key, covered, hashlib.sha256))
    payload = _file().partition(b"\n--- ")[2].partition(b"\n")[2]
    return covered + b" " + (right if mac is None else mac) + b"\n" + payload


def _opened(stored: bytes) -> bytes:
    return b"".join(decrypt([stored], [MINE]))


def _by_passphrase(stored: bytes) -> bytes:
    return b"".join(decrypt([stored], passphrase=PASSPHRASE))


GREASE = b"-> grease-1 ! ~\n" + _b64(bytes(48)) + b"\n\n"


def test_stanzas_of_unknown_kinds_are_passed_over() -> None:
    for stanzas in (_stanza(), GREASE + _stanza(), _stanza() + GREASE, b"-> empty\n\n" + _stanza()):
        assert _opened(_with(stanzas)) == b"text"
    with pytest.raises(IdentityNeeded):
        _opened(_with(GREASE))


@pytest.mark.parametrize(
    "stanzas",
    {
        "no_stanza": b"",
        "no_arguments": b"-> \n\n",
        "empty_argument": b"-> stanza  argument\n\n",
        "bad_start": b"->X\n\n",
        "invalid_character": "-> stanza è\n\n".encode(),
        "missing_body": b"-> stanza\n",
        "missing_final_line": b"-> stanza\n" + _b64(bytes(48)) + b"\n",
        "long_line": b"-> stanza\n" + _b64(bytes(51)) + b"\n",
        "long_line_and_a_short_one": b"-> stanza\n" + _b64(bytes(51)) + b"\nAAAA\n",
        "short_line": b"-> stanza\nAAAA\nAAAA\n",
        "padding": b"-> stanza\nAA==\n",
        "not_canonical": b"-> stanza\nAB\n",
        "spurious_cr": b"-> stanza\r\n\n",
        "multiple_short_lines": b"-> stanza\n" + _b64(bytes(48)) + b"\nAAAA\nAAAA\n",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_stanza_that_is_not_as_specified_is_refused(stanzas: tuple[str, bytes]) -> None:
    with pytest.raises(FormatError):
        _opened(_with(stanzas[1] + _stanza() if stanzas[1] else b""))


def test_a_header_whose_mac_is_not_as_specified_is_refused() -> None:
    right = _with(_stanza()).partition(b"\n--- ")[2].partition(b"\n")[0]
    for mac in (b"", right[:-1], right + b"=", right + b" ", b" " + right, right + b"\r", b"AAAA"):
        with pytest.raises(FormatError):
            _opened(_with(_stanza(), mac=mac))
    with pytest.raises(IntegrityError):
        _opened(_with(_stanza(), mac=_b64(bytes(32))))
    with pytest.raises(FormatError):
        _opened(_with(_stanza()).replace(b"--- ", b"---"))
    with pytest.raises(FormatError):
        _opened(_with(_stanza()).replace(b"\n", b"\r\n"))
    with pytest.raises(FormatError):
        _opened(_with(_stanza()).replace(b"age-encryption.org/v1", b"age-encryption.org/v2"))


def _x25519(share: bytes, body: bytes, *more: bytes) -> bytes:
    return b" ".join([b"-> X25519", _b64(share), *more]) + b"\n" + _b64(body) + b"\n"


@pytest.mark.parametrize(
    "stanza",
    [
        _x25519(bytes(32), bytes(32)),  # of low order: the shared secret would be all zero
        _x25519(bytes([1]) + bytes(31), bytes(32)),
        _x25519(bytes(range(31)), bytes(32)),
        _x25519(bytes(range(33)), bytes(32)),
        _x25519(bytes(range(32)), bytes(31)),
        _x25519(bytes(range(32)), bytes(40)),
        _x25519(bytes(range(32)), bytes(32), b"argument"),
        b"-> X25519\n\n",
    ],
)
def test_an_x25519_stanza_that_is_not_as_specified_is_refused(stanza: bytes) -> None:
    with pytest.raises(FormatError):
        _opened(_with(stanza))
    with pytest.raises(FormatError):
        _opened(_with(stanza + _stanza()))


def test_kinds_are_distinguished_by_case() -> None:
    with pytest.raises(IdentityNeeded):
        _opened(_with(_stanza().replace(b"X25519", b"x25519")))
    with pytest.raises(IdentityNeeded):
        _by_passphrase(_with(_stanza(PASSPHRASE).replace(b"scrypt", b"SCRYPT")))


@pytest.mark.parametrize(
    "factor", ["0", "01", "02", "+2", "-1", "0x2", "aaaa2", "", " 2", "21", "22", "23", "99", "18446744073709551616"]
)
def test_a_work_factor_that_is_not_as_specified_is_refused(factor: str) -> None:
    stanza = _stanza(PASSPHRASE).replace(b" 2\n", f" {factor}\n".encode())
    with pytest.raises(FormatError):
        _by_passphrase(_with(stanza))


def test_a_passphrase_stands_alone() -> None:
    assert _by_passphrase(_with(_stanza(PASSPHRASE))) == b"text"
    for stanzas in (
        _stanza(PASSPHRASE) + _stanza(),
        _stanza() + _stanza(PASSPHRASE),
        _stanza(PASSPHRASE) * 2,
        GREASE + _stanza(PASSPHRASE),
    ):
        with pytest.raises(FormatError):
            _by_passphrase(_with(stanzas))
        with pytest.raises(FormatError):
            _opened(_with(stanzas))


def test_a_salt_that_is_not_as_specified_is_refused() -> None:
    first, rest = _stanza(PASSPHRASE).split(b"\n", 1)
    for salt in (b"", _b64(bytes(15)), _b64(bytes(17)), _b64(bytes(16))[:-1] + b"B"):
        with pytest.raises(FormatError):
            _by_passphrase(_with(b" ".join([b"-> scrypt", salt, b"2"]) + b"\n" + rest))
    with pytest.raises(FormatError):
        _by_passphrase(_with(first + b" 2\n" + rest))
