"""The test vectors of the age specification: each is read, or refused for the reason that the vector names."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest

from tests.support.age_vector_kinds import KINDS, vectors
from tests.support.age_vectors import Vector
from volback.archive.age import decrypt
from volback.archive.age_header import read_header
from volback.archive.age_keys import Identity, Recipient, parse_identities
from volback.errors import FormatError, IdentityNeeded, IntegrityError, UsageError, VolbackError

pytestmark = pytest.mark.unit

SHA256 = {
    "scrypt": "4eedf64d8e648634bfe3345bc45ee71b1cee5dab32b90211fb1c3a61a1eda15e",
    "scrypt_and_x25519": "b7d9a55b3d9a990fdbc6589ff56be66c83274235e6ffc4bc9b16a5d722ec896c",
    "scrypt_bad_tag": "45f0fb65f887dec449f12c65bb532ccf12e5dc9a7d4c39085dfb6636f3f0ba7f",
    "scrypt_double": "4e077d31f798a2b2be806f745ee2fa0896a3876b1154dac49ffa9ed3f78a6a08",
    "scrypt_extra_argument": "08e55082ccc699783624a4c22ba3870bd811be8db9936ae9b65b213974c39742",
    "scrypt_no_match": "d250b7a8bd09804576e211223d7ca982148dd5ad9792c7b5299b7529ca84a7b9",
    "scrypt_not_canonical_body": "7fe6d2ddf6ec83fcb7e66e9cc1c5e98269c1843db7e3ba89b19f8a47b09cc8de",
    "scrypt_not_canonical_salt": "6cd09483286de4be9c881e079c87db684aace4538218c0fbe3092d751339a76e",
    "scrypt_salt_long": "03a02da288669bfdbe89d448a8d168bfdaf2735ca20069def0858bc7a9df6628",
    "scrypt_salt_missing": "8e934a32e7b435f494f018f4a3c4c9b612cc478aad5e79d9e0305364ed360dbb",
    "scrypt_salt_short": "cba4cb2c682bc1c1ce2b7a1a8c4d024b352b9e0c2a03d80590e8e0be958cd5fb",
    "scrypt_uppercase": "ae3055bc7568594c7dcf506d9c1599d8df7f9e699152358be35fcb20cf8a8087",
    "scrypt_work_factor_23": "d2cc2863cd0fedb99265871b8cea654d41997de37f660699fbc4d8d3c5391770",
    "scrypt_work_factor_hex": "701f161e64f6a43c9c34b22890d84911eb9b4135296c197ecf1fa625d6d9cd1f",
    "scrypt_work_factor_leading_garbage": "3d3e86bc8c40a3b4341d4f7a674e7bacccb6d480088cce066c4869403ec5e8ce",
    "scrypt_work_factor_leading_plus": "fc8699a2263765b5e38f0435941f3a8578c3acb81091137bf2068f0f34bc7046",
    "scrypt_work_factor_leading_zero_decimal": "4d76c4758cfaf4a89d41902e2d0dfe5be6137bf7ea17f549f15b31ef23115f3f",
    "scrypt_work_factor_leading_zero_octal": "c1a94feeab19a89f7d4c2f72ec5039b2ea88f4854da32d1e82f3da75d55fcb25",
    "scrypt_work_factor_missing": "e60129370690a5c33f9831535608133da7be1ed17071511340fababd76abb21a",
    "scrypt_work_factor_negative": "a89a9d5f038666b226ec188f815f043a6517794fa1d01c1ddca385f0fbe69bf1",
    "scrypt_work_factor_overflow": "532fdb8afca25916c724da9b991569340752068cc8d47fa26c643331e133ec7e",
    "scrypt_work_factor_trailing_garbage": "3d3e86bc8c40a3b4341d4f7a674e7bacccb6d480088cce066c4869403ec5e8ce",
    "scrypt_work_factor_wrong": "565290c68accd2b94dbcf434927049d4fcfc8ab8fe169a6c33e546606e5cf65c",
    "scrypt_work_factor_zero": "bdac47d76667aa0f14270df58573b873c806ea838b2e026d62789287f0413239",
}
"""Of the files of the collection, at its commit 50a8ecf2a220."""

ERRORS: dict[str, type[VolbackError]] = {
    "header failure": FormatError,
    "HMAC failure": IntegrityError,
    "no match": IdentityNeeded,
    "payload failure": IntegrityError,
}
CUT = ("stream_no_nonce", "stream_short_nonce")
"""Their headers are good: what is missing follows them."""


@cache
def every() -> dict[str, Vector]:
    return {vector.name: vector for vector in vectors()}


def read(vector: Vector) -> bytes:
    """What it holds, by the first of its passphrases or with its identities."""
    passphrase = vector.passphrases[0] if vector.passphrases else None
    identities = [Identity(secret) for secret in vector.identities]
    return b"".join(decrypt([bytes(vector.data)], identities, passphrase=passphrase, what=vector.name))


@pytest.mark.parametrize("name", SHA256)
def test_a_vector_is_that_of_the_collection(name: str) -> None:
    assert hashlib.sha256(every()[name].whole).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", KINDS)
def test_a_vector_is_read_or_refused_as_the_specification_says(name: str) -> None:
    vector = every()[name]
    if vector.expected == "success":
        assert read(vector) == vector.payload
        return
    expected = IntegrityError if name in CUT else ERRORS[vector.expected]
    with pytest.raises(expected) as caught:
        read(vector)
    assert name in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "is armoured, which is not supported"),
        (b"\r\n-----BEGIN AGE ENCRYPTED FILE-----\n", "is not an age file of version 1"),
    ],
)
def test_armour_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_header(text, "it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AGE-PLUGIN-YUBIKEY-1QYQSQQGZ", "is of a plugin of age, which is not supported"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "is not an identity of age"),
        ("-----BEGIN AGE ENCRYPTED FILE-----", "is encrypted itself"),
    ],
)
def test_identities_of_other_kinds_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_identities(text, "it")


@pytest.mark.parametrize("text", ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4"])
def test_recipients_of_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Recipient.parse(text)
