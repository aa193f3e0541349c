"""The age format: what is written is read again, what is not whole is refused, files of the program age open."""

from __future__ import annotations

import base64
import resource
from collections.abc import Iterator

import pytest

from volback.archive import bech32
from volback.archive.age import (
    HEADER_BYTES,
    PIECE_BYTES,
    SEALED_BYTES,
    Pieces,
    decrypt,
    encrypt,
    plain_size,
    stored_size,
)
from volback.archive.age_header import TAG_BYTES, WORK_FACTOR_MAX, file_key_of, read_header
from volback.archive.age_keys import Identity, Recipient, parse_identities, parse_recipients
from volback.errors import FormatError, IdentityNeeded, IntegrityError, UsageError

pytestmark = pytest.mark.unit

SIZES = (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 3 * PIECE_BYTES + 5)
MINE = Identity(bytes(range(32)))

# Made by age-keygen and age 1.1.1 of Debian 12: 'hello\n', for an identity and with the passphrase "winter".
THEIR_IDENTITY = "AGE-SECRET-KEY-18DAZGQGLCX28L8RC00HR0S3S5R58KDW6APRZ3TRLS2DSATPHTU8SDHVCD8"
THEIR_RECIPIENT = "age1xwsl9anskuq45ykpt8eea7zc5zk8nzd2qyp5us8sn34742zr79zq074f87"
THEIR_FILE = (
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBBRE50RXBObTNLR2lMeG11bWZNNHVsTFdkcWxkOTFsQmg0djk3ekhLUzMw"
    "CmVuSUpaWFNQd3hsTmxJR2lsaVlxUitYS0w5emM0VXJmY1hOc1ZZSE9EUHcKLS0tIHlnYjdidzlDVWovOHdBaHdwVktMWWhUYld1"
    "ancvdi9vTnpYa24wUXVyUE0KfVEqLLFGBYEwLX8CtmFrVPM7h/pMEs1vzzysM/4l9WKLeVcEuJM="
)  # fmt: skip
THEIR_PASSPHRASE_FILE = (
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCB4cmRRQmtENHpJMXNWSkhCRTZiZXJBIDE4CjNhYUJ4Yk80UXQ1OTBWRzNn"
    "cWFocVNSSUcxOXBodGt5cmRFandoYWFmS3MKLS0tIHppNmpSUksrdlMyZmlWOWYzNTFwcXU3ekN1d1YxZkh2czBJdEpZY3V4NmcK"
    "AQ8kvBQNE8b+3AImeuFuwbFr3wWhJMSZ5FNp/l0BLsheaqYgqyE="
)  # fmt: skip


def _sealed(size: int, *, chunk: int = 100_000) -> bytes:
    plain = _plain(size)
    chunks = (plain[start : start + chunk] for start in range(0, size, chunk))
    return b"".join(encrypt(chunks, [MINE.recipient]))


def _plain(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def _opened(stored: bytes, *, chunk: int = 50_000) -> bytes:
    chunks: Iterator[bytes] = (stored[start : start + chunk] for start in range(0, len(stored), chunk))
    return b"".join(decrypt(chunks, [MINE]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk", [7_001, PIECE_BYTES, 1_000_000])
def test_what_is_encrypted_is_decrypted_in_any_chunks(size: int, chunk: int) -> None:
    stored = _sealed(size, chunk=chunk)
    assert _opened(stored, chunk=chunk) == _plain(size)
    assert len(stored) == stored_size(size)
    assert plain_size(len(stored)) == size


def test_a_size_that_no_file_has_is_refused() -> None:
    for wrong in (
        0,
        HEADER_BYTES,
        HEADER_BYTES + TAG_BYTES - 1,
        stored_size(PIECE_BYTES) + 1,
        stored_size(PIECE_BYTES) + 16,
    ):
        with pytest.raises(IntegrityError, match="cut"):
            plain_size(wrong)


def test_a_piece_is_opened_without_the_others() -> None:
    stored = _sealed(3 * PIECE_BYTES + 5)
    header = read_header(stored)
    assert header.size_bytes + 16 == HEADER_BYTES
    pieces = Pieces(file_key_of(header, [MINE]), stored[header.size_bytes : HEADER_BYTES])
    start = HEADER_BYTES + 2 * (PIECE_BYTES + TAG_BYTES)
    piece = pieces.open(2, stored[start : start + PIECE_BYTES + TAG_BYTES], is_last=False)
    assert piece == _plain(3 * PIECE_BYTES)[2 * PIECE_BYTES :]


def test_pieces_that_are_cut_moved_or_changed_are_refused() -> None:
    stored, full = _sealed(2 * PIECE_BYTES + 5), PIECE_BYTES + TAG_BYTES
    head, first, second, last = stored[:HEADER_BYTES], *(stored[HEADER_BYTES + i * full :][:full] for i in range(3))
    other = _sealed(2 * PIECE_BYTES + 5)
    forged = [
        head + first + second,  # the last one is missing
        head + first,
        head,
        head + second + first + last,
        head + first + second + last[:-1],
        head + first + second + last + b"x",
        other[:HEADER_BYTES] + first + second + last,
    ]
    for data in forged:
        with pytest.raises(IntegrityError):
            _opened(data)


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    stored = _sealed(300)
    for position in range(len(stored)):
        changed = bytearray(stored)
        changed[position] ^= 1
        with pytest.raises((IntegrityError, IdentityNeeded)):
            _opened(bytes(changed))


def test_a_cut_header_is_refused() -> None:
    stored = _sealed(300)
    for size in range(HEADER_BYTES + 300 + TAG_BYTES):
        with pytest.raises(IntegrityError):
            _opened(stored[:size])


def test_another_identity_and_a_wrong_passphrase_are_refused_by_name() -> None:
    with pytest.raises(IdentityNeeded, match="index is encrypted: no available identity") as caught:
        b"".join(decrypt([_sealed(5)], [Identity.new()], what="index"))
    assert (caught.value.exit_code, caught.value.kind) == (2, "identity")
    locked = b"".join(encrypt([b"text"], passphrase="winter", work_factor=4))
    with pytest.raises(IdentityNeeded, match="this passphrase is wrong"):
        b"".join(decrypt([locked], passphrase="summer"))
    assert b"".join(decrypt([locked], passphrase="winter")) == b"text"


@pytest.mark.parametrize("factor", [WORK_FACTOR_MAX + 1, WORK_FACTOR_MAX + 2, 30, 99])
def test_a_hostile_work_factor_is_refused_before_it_takes_memory(factor: int) -> None:
    locked = b"".join(encrypt([b"text"], passphrase="winter", work_factor=4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match=f"work factor is {factor}"):
        b"".join(decrypt([locked.replace(b" 4\n", f" {factor}\n".encode(), 1)], passphrase="winter"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_each_of_several_recipients_can_decrypt() -> None:
    others = [Identity.new(), Identity.new()]
    stored = b"".join(encrypt([b"text"], [one.recipient for one in [*others, MINE]]))
    for identity in [*others, MINE]:
        assert b"".join(decrypt([stored], [identity])) == b"text"


def test_files_of_the_program_age_are_decrypted() -> None:
    [identity] = parse_identities(f"# created: today\n\n{THEIR_IDENTITY}\n")
    assert str(identity.recipient) == THEIR_RECIPIENT
    assert str(identity) == THEIR_IDENTITY
    assert b"".join(decrypt([base64.b64decode(THEIR_FILE)], [identity])) == b"hello\n"
    assert b"".join(decrypt([base64.b64decode(THEIR_PASSPHRASE_FILE)], passphrase="winter")) == b"hello\n"


def test_recipients_and_identities_survive_their_text() -> None:
    identity = Identity.new()
    assert Identity.parse(str(identity)) == identity
    assert Recipient.parse(str(identity.recipient)) == identity.recipient
    both = f"# two\n{identity.recipient}\n{THEIR_RECIPIENT}\n"
    assert parse_recipients(both) == [identity.recipient, Recipient.parse(THEIR_RECIPIENT)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no identity"),
        ("# only a comment\n", "holds no identity"),
        ("AGE-PLUGIN-YUBIKEY-1QQQQ", "plugin"),
        ("age-encryption.org/v1\n", "encrypted itself"),
        (THEIR_IDENTITY[:-1] + "Q", "checksum"),
        (THEIR_IDENTITY[:-1], "checksum"),
        ("hunter2-my-password", "line 1 is not an identity"),
    ],
)
def test_what_is_not_an_identity_is_refused_and_not_repeated(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse_identities(text)
    assert not text or text.strip() not in f"{caught.value.message} {caught.value.hint}"


def test_no_secret_is_in_the_repr_of_an_identity() -> None:
    assert "secret" not in repr(MINE)


def test_what_is_not_a_recipient_is_refused() -> None:
    for text in ("ssh-ed25519 AAAA", THEIR_RECIPIENT[:-1] + "q", THEIR_IDENTITY.lower(), "age1"):
        with pytest.raises(UsageError):
            parse_recipients(text)


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        bytes([1]) + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ],
)
def test_a_recipient_of_low_order_is_refused(point: bytes) -> None:
    with pytest.raises(UsageError, match="everybody could decrypt"):
        Recipient.parse(bech32.encode("age", point))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("first", range(5))
def test_pieces_from_any_one_on_are_opened(size: int, first: int) -> None:
    stored = _sealed(size)
    pieces, count = _pieces(stored), max(1, -(-size // PIECE_BYTES))
    for stop in (None, *range(first + 1, count + 1)):
        end = len(stored) if stop is None else HEADER_BYTES + stop * SEALED_BYTES + 1
        part = stored[HEADER_BYTES + first * SEALED_BYTES : end]
        chunks = [part[start : start + 50_000] for start in range(0, len(part), 50_000)]
        opened = pieces.open_all(chunks, first=first, stop=stop)
        if first >= count:
            with pytest.raises(IntegrityError):
                list(opened)
        else:
            plain = _plain(size)[first * PIECE_BYTES : size if stop is None else stop * PIECE_BYTES]
            assert b"".join(opened) == plain


def test_pieces_that_end_too_early_are_refused() -> None:
    stored = _sealed(3 * PIECE_BYTES + 5)
    for end in (HEADER_BYTES + SEALED_BYTES, HEADER_BYTES + 2 * SEALED_BYTES, HEADER_BYTES + 2 * SEALED_BYTES - 1):
        with pytest.raises(IntegrityError, match="cut"):
            list(_pieces(stored).open_all([stored[HEADER_BYTES:end]], stop=3))


def _pieces(stored: bytes) -> Pieces:
    header = read_header(stored)
    return Pieces(file_key_of(header, [MINE]), stored[header.size_bytes : HEADER_BYTES])


def test_armour_is_refused_by_name() -> None:
    with pytest.raises(FormatError, match="armoured"):
        _opened(b"-----BEGIN AGE ENCRYPTED FILE-----\n")
