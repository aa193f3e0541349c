"""Age files, both ways between volback and other implementations: the program age, and PyPI's pyrage."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyrage
import pytest

from volback.archive.age import PIECE_BYTES, decrypt, encrypt, stored_size
from volback.archive.age_keys import Identity, parse_identities

pytestmark = pytest.mark.programs

SIZES = (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 5 * PIECE_BYTES + 77)


def _plain(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def _age(*arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(["age", *arguments], input=given, stdout=subprocess.PIPE, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("age") / "key.txt"
    subprocess.run(["age-keygen", "-o", path], stderr=subprocess.DEVNULL, check=True, timeout=60)
    return path


@pytest.fixture(scope="module")
def identity(key_file: Path) -> Identity:
    [identity] = parse_identities(key_file.read_text())
    return identity


@pytest.mark.parametrize("size", SIZES)
def test_the_program_age_opens_ours_and_we_open_its(size: int, key_file: Path, identity: Identity) -> None:
    ours = b"".join(encrypt([_plain(size)], [identity.recipient]))
    assert len(ours) == stored_size(size)
    assert _age("-d", "-i", str(key_file), given=ours) == _plain(size)
    theirs = _age("-r", str(identity.recipient), given=_plain(size))
    assert len(theirs) == stored_size(size)
    assert b"".join(decrypt([theirs], [identity])) == _plain(size)


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_opens_ours_and_we_open_its(size: int, identity: Identity) -> None:
    theirs = pyrage.x25519.Identity.from_str(str(identity))
    recipient = pyrage.x25519.Recipient.from_str(str(identity.recipient))
    ours = b"".join(encrypt([_plain(size)], [identity.recipient]))
    assert pyrage.decrypt(ours, [theirs]) == _plain(size)
    assert b"".join(decrypt([pyrage.encrypt(_plain(size), [recipient])], [identity])) == _plain(size)


def test_passphrases_are_those_of_pyrage_both_ways() -> None:
    ours = b"".join(encrypt([b"text"], passphrase="wintér", work_factor=12))
    assert pyrage.passphrase.decrypt(ours, "wintér") == b"text"
    assert b"".join(decrypt([pyrage.passphrase.encrypt(b"text", "wintér")], passphrase="wintér")) == b"text"


def test_each_of_several_recipients_opens_it_with_the_program(key_file: Path, identity: Identity) -> None:
    ours = b"".join(encrypt([b"text"], [Identity.new().recipient, identity.recipient]))
    assert _age("-d", "-i", str(key_file), given=ours) == b"text"
