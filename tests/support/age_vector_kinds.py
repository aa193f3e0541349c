"""The kinds of vectors that tests/support/age_vectors.py makes; each is named as in the collection."""

from __future__ import annotations

import base64
from collections.abc import Callable

from tests.support.age_vectors import (
    LONG_FILE_KEY,
    PIECE,
    Expected,
    Vector,
    b64,
    not_canonical,
)

Make = Callable[[Vector], None]
KINDS: dict[str, tuple[Expected, Make]] = {}


def _kind(name: str, expected: Expected, make: Make) -> None:
    KINDS[name] = (expected, make)


def vectors() -> list[Vector]:
    """Every vector, made anew."""
    made = []
    for name, (expected, make) in KINDS.items():
        vector = Vector(name, expected=expected)
        make(vector)
        made.append(vector)
    return made


def _flipped(body: str) -> str:
    data = bytearray(base64.b64decode(body + "=" * (-len(body) % 4)))
    data[-1] ^= 0xFF
    return b64(bytes(data))


# scrypt


def _scrypt(
    words: Callable[[list[str]], list[str]] = list, body: Callable[[str], str] = str, *, salt_bytes: int = 16,
    work_factor: int = 10, comment: str = "",
) -> Make:  # fmt: skip
    def make(vector: Vector) -> None:
        vector.version()
        vector.scrypt(work_factor=work_factor, salt_bytes=salt_bytes)
        stored = vector.unread_line()
        given = vector.unread_line().split(" ")[1:]
        vector.arguments(*words(given))
        vector.line(body(stored))
        vector.mac()
        vector.end()
        vector.comment = comment

    return make


def _factor(text: str) -> Make:
    return _scrypt(lambda words: [*words[:2], text])


def _scrypt_no_match(vector: Vector) -> None:
    vector.version()
    vector.passphrases.append("wrong")
    vector.scrypt("password", is_known=False)
    vector.mac()
    vector.end()


def _scrypt_double(vector: Vector) -> None:
    vector.comment = "scrypt stanzas must be alone in the header"
    vector.version()
    vector.scrypt("password")
    vector.scrypt("hunter2")
    vector.mac()
    vector.end()


def _scrypt_and_x25519(vector: Vector) -> None:
    vector.comment = "scrypt stanzas must be alone in the header"
    vector.version()
    vector.identities.append(vector.random(32))
    vector.x25519(is_known=False)
    vector.scrypt("password")
    vector.mac()
    vector.end()


def _scrypt_long_file_key(vector: Vector) -> None:
    vector.comment = "the file key must be checked to be 16 bytes before decrypting it"
    vector.file_key = LONG_FILE_KEY
    _scrypt()(vector)


def _scrypt_work_factor_23(vector: Vector) -> None:
    """Its stanza is a constant: to make it takes 8 GiB."""
    vector.comment = "work factor is very high, would take a long time to compute"
    vector.passphrases.append("password")
    vector.version()
    vector.arguments("scrypt", "rF0/NwblUHHTpgQgRpe5CQ", "23")
    vector.line("qW9eVsT0NVb/Vswtw8kPIxUnaYmm9Px1dYmq2+4+qZA")
    vector.mac()
    vector.end()


_kind("scrypt", "success", _scrypt())
_kind("scrypt_and_x25519", "header failure", _scrypt_and_x25519)
_kind(
    "scrypt_bad_tag",
    "no match",
    _scrypt(body=_flipped, comment="the ChaCha20Poly1305 authentication tag on the body of the scrypt stanza is wrong"),
)
_kind("scrypt_double", "header failure", _scrypt_double)
_kind(
    "scrypt_extra_argument",
    "header failure",
    _scrypt(lambda words: [*words, "10"], comment="the base64 encoding of the share is not canonical"),
)
_kind("scrypt_long_file_key", "header failure", _scrypt_long_file_key)
_kind("scrypt_no_match", "no match", _scrypt_no_match)
_kind(
    "scrypt_not_canonical_body",
    "header failure",
    _scrypt(body=not_canonical, comment="the base64 encoding of the share is not canonical"),
)
_kind("scrypt_not_canonical_salt", "header failure", _scrypt(lambda w: [w[0], not_canonical(w[1]), w[2]]))
_kind("scrypt_salt_long", "header failure", _scrypt(salt_bytes=20))
_kind("scrypt_salt_missing", "header failure", _scrypt(salt_bytes=0))
_kind("scrypt_salt_short", "header failure", _scrypt(salt_bytes=12))
_kind("scrypt_uppercase", "no match", _scrypt(lambda words: ["Scrypt", *words[1:]]))
_kind("scrypt_work_factor_23", "header failure", _scrypt_work_factor_23)
_kind("scrypt_work_factor_hex", "header failure", _factor("0xa"))
_kind("scrypt_work_factor_leading_garbage", "header failure", _factor("aaaa10"))
_kind("scrypt_work_factor_leading_plus", "header failure", _factor("+10"))
_kind("scrypt_work_factor_leading_zero_decimal", "header failure", _factor("010"))
_kind("scrypt_work_factor_leading_zero_octal", "header failure", _factor("012"))
_kind("scrypt_work_factor_missing", "header failure", _scrypt(lambda words: words[:2], work_factor=18))
_kind("scrypt_work_factor_negative", "header failure", _factor("-10"))
_kind("scrypt_work_factor_overflow", "header failure", _factor("9223372036854775818"))
_kind("scrypt_work_factor_trailing_garbage", "header failure", _factor("aaaa10"))
_kind("scrypt_work_factor_wrong", "no match", _scrypt(lambda w: [*w[:2], "10"], work_factor=18))
_kind("scrypt_work_factor_zero", "header failure", _factor("0"))

# the header: its MAC and its lines


def _x25519(
    after: Callable[[Vector], None] = lambda _: None, mac: Callable[[Vector], str] = Vector.mac_line,
    *, before: Callable[[Vector], None] = lambda _: None,
) -> Make:  # fmt: skip
    """A stanza for the identity of the tests, and what stands before and after it."""

    def make(vector: Vector) -> None:
        vector.version()
        before(vector)
        vector.x25519()
        after(vector)
        vector.line(mac(vector))
        vector.end()

    return make


def _lines(*lines: str) -> Callable[[Vector], None]:
    def write(vector: Vector) -> None:
        for line in lines:
            vector.line(line)

    return write


def _header_crlf(vector: Vector) -> None:
    vector.version()
    vector.x25519()
    vector.data[:] = vector.data.replace(b"\n", b"\r\n")
    vector.line(vector.mac_line() + "\r")
    vector.end()


def _version_unsupported(vector: Vector) -> None:
    vector.version("v1234")
    vector.x25519()
    vector.mac()
    vector.end()


def _hmac_bad(vector: Vector) -> str:
    return f"--- {_flipped(vector.mac_line()[4:])}"


_kind("header_crlf", "header failure", _header_crlf)
_kind("version_unsupported", "header failure", _version_unsupported)
_kind("hmac_bad", "HMAC failure", _x25519(mac=_hmac_bad))
_kind("hmac_extra_space", "header failure", _x25519(mac=lambda v: v.mac_line().replace("--- ", "---  ")))
_kind("hmac_garbage", "header failure", _x25519(mac=lambda v: v.mac_line() + "AAA"))
_kind("hmac_missing", "header failure", _x25519(mac=lambda _: "---"))
_kind("hmac_no_space", "header failure", _x25519(mac=lambda v: v.mac_line().replace("--- ", "---")))
_kind("hmac_not_canonical", "header failure", _x25519(mac=lambda v: not_canonical(v.mac_line())))
_kind("hmac_trailing_space", "header failure", _x25519(mac=lambda v: v.mac_line() + " "))
_kind("hmac_truncated", "header failure", _x25519(mac=lambda v: v.mac_line()[:-1]))

_VALID = (
    "-> !\"#$%&' ()*+,-./ 01234567 89:;<=>? @ABCDEFG HIJKLMNO", "",
    "-> PQRSTUVW XYZ[\\]^_ `abcdefg hijklmno pqrstuvw xyz{|}~", "",
)  # fmt: skip
_kind("stanza_bad_start", "header failure", _x25519(_lines("-- stanza", "")))
_kind("stanza_base64_padding", "header failure", _x25519(_lines("-> stanza", "QQ==")))
_kind("stanza_empty_argument", "header failure", _x25519(_lines("-> stanza  argument", "")))
_kind("stanza_empty_body", "success", _x25519(_lines("-> empty", "")))
_kind("stanza_empty_last_line", "success", _x25519(_lines("-> stanza", b64(b"A" * 48), b64(b"A" * 48), "")))
_kind("stanza_invalid_character", "header failure", _x25519(_lines("-> stanza \xe8\xe9", "")))
_kind("stanza_long_line", "header failure", _x25519(_lines("-> stanza", "A" * 68, "")))
_kind("stanza_missing_body", "header failure", _x25519(_lines("-> empty")))
_kind("stanza_missing_final_line", "header failure", _x25519(_lines("-> stanza", "A" * 64)))
_kind("stanza_multiple_short_lines", "header failure", _x25519(_lines("-> stanza", "A" * 32, "A" * 32)))
_kind("stanza_no_arguments", "header failure", _x25519(_lines("->", "")))
_kind("stanza_not_canonical", "header failure", _x25519(_lines("-> stanza", not_canonical(b64(b"A")))))
_kind("stanza_spurious_cr", "header failure", _x25519(_lines("-> stanza", "QQ\r")))
_kind("stanza_valid_characters", "success", _x25519(before=_lines(*_VALID)))


# X25519


def _changed(
    words: Callable[[list[str]], list[str]] = list, body: Callable[[str], str] = str, *, share: bytes | None = None
) -> Make:
    def make(vector: Vector) -> None:
        vector.version()
        vector.x25519(share=share)
        stored = vector.unread_line()
        vector.arguments(*words(vector.unread_line().split(" ")[1:]))
        vector.line(body(stored))
        vector.mac()
        vector.end()

    return make


def _x25519_no_match(vector: Vector) -> None:
    vector.version()
    vector.identities.append(vector.random(32))
    vector.x25519(is_known=False)
    vector.mac()
    vector.end()


def _x25519_multiple_recipients(vector: Vector) -> None:
    vector.version()
    vector.x25519(vector.random(32), is_known=False)
    vector.x25519()
    vector.mac()
    vector.end()


def _x25519_long_file_key(vector: Vector) -> None:
    vector.file_key = LONG_FILE_KEY
    _x25519()(vector)


_LOW_ORDER = bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")
_kind("x25519", "success", _x25519())
_kind("x25519_bad_tag", "no match", _changed(body=_flipped))
_kind("x25519_extra_argument", "header failure", _changed(lambda words: [*words, "1234"]))
_kind("x25519_grease", "success", _x25519(_lines("-> grease", ""), before=_lines("-> grease", "")))
_kind("x25519_identity", "header failure", _changed(share=bytes(32)))
_kind("x25519_long_file_key", "header failure", _x25519_long_file_key)
_kind("x25519_long_share", "header failure", _changed(share=bytes([9]) + bytes(32)))
_kind("x25519_low_order", "header failure", _changed(share=_LOW_ORDER))
_kind("x25519_lowercase", "no match", _changed(lambda words: ["x25519", *words[1:]]))
_kind("x25519_multiple_recipients", "success", _x25519_multiple_recipients)
_kind("x25519_no_match", "no match", _x25519_no_match)
_kind("x25519_not_canonical_body", "header failure", _changed(body=not_canonical))
_kind("x25519_not_canonical_share", "header failure", _changed(lambda words: [words[0], not_canonical(words[1])]))
_kind("x25519_short_share", "header failure", _changed(share=bytes([9]) + bytes(30)))


# the payload


def _stream(*plain: bytes, is_ended: bool = True, change: Callable[[bytearray, int], None] | None = None) -> Make:
    """These pieces, the last one marked as such; `change` gets the file, and where the payload begins."""

    def make(vector: Vector) -> None:
        vector.version()
        vector.x25519()
        vector.mac()
        begin = len(vector.data) + 16
        vector.nonce()
        for number, piece in enumerate(plain, 1):
            vector.piece(piece, is_last=is_ended and number == len(plain))
        if change is not None:
            change(vector.data, begin)

    return make


def _cut_to(size: int) -> Callable[[bytearray, int], None]:
    def cut(data: bytearray, begin: int) -> None:
        del data[begin + size :]

    return cut


def _flip(at: int) -> Callable[[bytearray, int], None]:
    def flip(data: bytearray, begin: int) -> None:
        data[at if at < 0 else begin + at] ^= 0xFF

    return flip


def _add(size: int) -> Callable[[bytearray, int], None]:
    def add(data: bytearray, _: int) -> None:
        data += bytes(size)

    return add


def _two_final(vector: Vector) -> None:
    _stream(b"one")(vector)
    vector.piece(b"two", is_last=True)


_FULL, _SOME = bytes(PIECE), b"age"
_kind("stream_bad_tag", "payload failure", _stream(_SOME, change=_flip(-1)))
_kind("stream_bad_tag_second_chunk", "payload failure", _stream(_FULL, _SOME, change=_flip(-1)))
_kind("stream_bad_tag_second_chunk_full", "payload failure", _stream(_FULL, _FULL, change=_flip(-1)))
_kind("stream_empty_payload", "success", _stream(b""))
_kind("stream_last_chunk_empty", "payload failure", _stream(_FULL, b""))
_kind("stream_last_chunk_full", "success", _stream(_FULL))
_kind("stream_last_chunk_full_second", "success", _stream(_FULL, _FULL))
_kind("stream_missing_tag", "payload failure", _stream(_SOME, change=_cut_to(3)))
_kind("stream_no_chunks", "payload failure", _stream())
_kind("stream_no_final", "payload failure", _stream(_SOME, is_ended=False))
_kind("stream_no_final_full", "payload failure", _stream(_FULL, is_ended=False))
_kind("stream_no_final_two_chunks", "payload failure", _stream(_FULL, _SOME, is_ended=False))
_kind("stream_no_final_two_chunks_full", "payload failure", _stream(_FULL, _FULL, is_ended=False))
_kind("stream_no_nonce", "header failure", _stream(change=_cut_to(-16)))
_kind("stream_short_chunk", "payload failure", _stream(_SOME, _SOME))
_kind("stream_short_nonce", "header failure", _stream(change=_cut_to(-4)))
_kind("stream_short_second_chunk", "payload failure", _stream(_FULL, _SOME, _SOME))
_kind("stream_three_chunks", "success", _stream(_FULL, _FULL, _SOME))
_kind("stream_trailing_garbage_long", "payload failure", _stream(_SOME, change=_add(PIECE + 16)))
_kind("stream_trailing_garbage_short", "payload failure", _stream(_SOME, change=_add(2)))
_kind("stream_two_chunks", "success", _stream(_FULL, _SOME))
_kind("stream_two_final_chunks", "payload failure", _two_final)


def _swap(data: bytearray, begin: int) -> None:
    size = PIECE + 16
    one, two = data[begin : begin + size], data[begin + size : begin + 2 * size]
    data[begin : begin + 2 * size] = two + one


# not in the collection
_kind("stream_long_chunk", "payload failure", _stream(bytes(PIECE + 1)))
_kind("stream_reordered", "payload failure", _stream(_FULL, b"\1" * PIECE, _SOME, change=_swap))
