"""Headers read as Python's tarfile reads them, and written so that it reads them back."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.archive import TREES, Made, made, plan_of, read
from volback.archive import tar
from volback.archive.walk import Signature, walk
from volback.errors import IntegrityError

GIB = 1024**3
_ANY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry) for entry in ((1, 6, _ANY), (2, 4, 1234), (4, 4, _ANY), (16, 4, _ANY), (32, 4, _ANY))
)
"""One more user may read (linux/posix_acl_xattr.h)."""
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=130)
PATHS = st.lists(TEXT.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)
TYPES = {"f": tarfile.REGTYPE, "h": tarfile.LNKTYPE, "l": tarfile.SYMTYPE, "d": tarfile.DIRTYPE, "p": tarfile.FIFOTYPE}


@st.composite
def infos(draw: st.DrawFn) -> tuple[str, tarfile.TarInfo]:
    kind = draw(st.sampled_from(sorted(TYPES)))
    info = tarfile.TarInfo("./" + draw(PATHS))
    info.type = TYPES[kind]
    info.size = draw(st.integers(0, 2**40)) if kind == "f" else 0
    info.linkname = "./" + draw(PATHS) if kind in "hl" else ""
    info.uid, info.gid = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**32 - 1))
    info.mode, info.mtime = draw(st.integers(0, 0o7777)), draw(st.integers(0, 2**34))
    info.pax_headers = {
        f"SCHILY.xattr.user.{key}": draw(st.text(max_size=40)) for key in draw(st.sets(st.sampled_from("abc")))
    }
    return kind, info


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@settings(suppress_health_check=[HealthCheck.too_slow])  # the table of characters is made at the first draw
@given(infos())
def test_header_of_tarfile_is_read_as_it_was_meant(case: tuple[str, tarfile.TarInfo]) -> None:
    kind, info = case
    block = info.tobuf(tarfile.PAX_FORMAT)
    header = tar.read_header(block)
    assert header.header_bytes == len(block)
    assert (header.type, header.size_bytes) == (kind, info.size)
    assert header.path == _utf8(info.name)[2:].rstrip(b"/")
    assert header.link == (_utf8(info.linkname)[2:].rstrip(b"/") if kind == "h" else _utf8(info.linkname))
    assert header.data_bytes == -(-info.size // 512) * 512
    for key, value in info.pax_headers.items():
        assert header.records[key.encode()] == value.encode()


@given(infos(), PATHS, st.none() | PATHS)
def test_renamed_header_is_the_same_but_for_its_names(
    case: tuple[str, tarfile.TarInfo], path: str, link: str | None
) -> None:
    kind, info = case
    link = link if kind == "h" else None
    built = tar.build_header(
        info.tobuf(tarfile.PAX_FORMAT), path=_utf8(path), link=None if link is None else _utf8(link)
    )
    assert len(built) % 512 == 0
    assert tar.read_header(built).header_bytes == len(built)
    again = tarfile.TarFile.open(fileobj=io.BytesIO(built + bytes(1024)), errorlevel=2).next()
    assert again is not None
    assert again.name == ("./" + path).rstrip("/")
    assert again.linkname == ("./" + link if link is not None else info.linkname)
    for field in ("type", "size", "uid", "gid", "mode", "mtime"):
        assert getattr(again, field) == getattr(info, field), field
    assert {key: again.pax_headers[key] for key in info.pax_headers} == info.pax_headers


@settings(deadline=None, max_examples=40)
@given(TREES)
def test_walk_sees_the_members_that_tarfile_sees(tree: list[Made]) -> None:
    with made(tree) as root:
        stream = read(root, plan_of(root))
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8", errors="surrogateescape") as archive:
        expected = [(info.size if info.isreg() or info.issparse() else 0, info.linkname) for info in archive]
    found = [
        (header.size_bytes, b"./" + header.link if header.type == "h" else header.link) for header, _ in walk([stream])
    ]
    assert found == [(size, link.encode("utf-8", "surrogateescape")) for size, link in expected]


@pytest.mark.root
def test_renamed_member_of_the_real_tar_is_extracted_with_all_it_has(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with (source / "sparse").open("wb") as file:
        file.seek(GIB)
        file.write(b"content at the end")
    os.setxattr(source / "sparse", "user.kept", b"\0binary\n")
    os.chown(source / "sparse", 3_000_000, 70_000)
    os.utime(source / "sparse", ns=(0, -1_500_000_001))
    stream = read(source, plan_of(source))
    at = next(walk([stream]))[0].header_bytes
    header = tar.read_header(stream[at:])
    name = b"new/\xff " + b"n" * 200
    renamed = tar.build_header(stream[at : at + header.header_bytes], path=name)
    subprocess.run(
        [*tar.EXTRACT, "--file=-"], cwd=target, input=renamed + stream[at + header.header_bytes :], check=True
    )
    before, after = (source / "sparse").stat(), os.stat(os.fsencode(target) + b"/" + name)
    assert [
        getattr(after, field) for field in ("st_size", "st_blocks", "st_mtime_ns", "st_uid", "st_gid", "st_mode")
    ] == [getattr(before, field) for field in ("st_size", "st_blocks", "st_mtime_ns", "st_uid", "st_gid", "st_mode")]
    assert os.getxattr(os.fsencode(target) + b"/" + name, "user.kept") == b"\0binary\n"


@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 8 * GIB + 1, 2**40])
def test_sizes_beyond_the_octal_field_are_read(tmp_path: Path, size: int) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", size)
    stream = read(tmp_path, plan_of(tmp_path))
    members = [header for header, _ in walk([stream])]
    assert (members[1].path, members[1].size_bytes) == (b"sparse", size)
    assert len(stream.rstrip(b"\0")) <= 20_480  # the hole is not in it
    info = tarfile.TarInfo("./plain")
    info.size = size
    header = tar.read_header(info.tobuf(tarfile.PAX_FORMAT))
    assert (header.size_bytes, header.data_bytes) == (size, (size + 511) // 512 * 512)


@pytest.mark.root
def test_acls_are_restored_by_number_whatever_names_the_stream_has(tmp_path: Path) -> None:
    """tar writes an ACL's users by the names that its machine has; this machine need not know them."""
    entries = ("01000600ffffffff", "02000600e8030000", "04000400ffffffff", "10000600ffffffff", "20000000ffffffff")
    acl = bytes.fromhex("02000000" + "".join(entries))
    info = tarfile.TarInfo("./file")
    info.mode = 0o660
    names = b"user::rw-\nuser:somebody-elsewhere:rw-\ngroup::r--\nmask::rw-\nother::---\n"
    stream = _with_records(info, {b"SCHILY.acl.access": names, b"SCHILY.xattr.system.posix_acl_access": acl})
    done = subprocess.run([*tar.EXTRACT, "--file=-"], cwd=tmp_path, input=stream, capture_output=True, check=True)
    assert done.stderr == b""
    assert os.getxattr(tmp_path / "file", "system.posix_acl_access") == acl


def _with_records(info: tarfile.TarInfo, records: dict[bytes, bytes]) -> bytes:
    """An archive of one member with these pax records, which tarfile would have to be text."""
    body = b""
    for key, value in records.items():
        body += b"%03d %s=%s\n" % (len(key) + len(value) + 6, key, value)
    extended = tarfile.TarInfo("./PaxHeaders/x")
    extended.type, extended.size = tarfile.XHDTYPE, len(body)
    return (
        extended.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
        + info.tobuf(tarfile.USTAR_FORMAT) + bytes(10_240)
    )  # fmt: skip


@pytest.mark.parametrize(
    "digits",
    [
        b"-0000000001\0",
        b"+0000000001\0",
        b"0000_000001\0",
        b"0o000000001\0",
        b"00000000008\0",
        b"\x80" + b"\0" * 10 + b"\x01",
    ],
)
def test_number_that_is_not_octal_is_refused(digits: bytes) -> None:
    with pytest.raises(IntegrityError, match="not octal"):
        tar.number(digits)


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=\n",
        b"6 a=b\nx",
        b"0 a=b\n",
        b"6 a b\n",
        b"6 a=bc\n",
        b"99 a=b\n",
        b"x a=b\n",
        b"-6 a=b\n",
        b"6 a=b",
        b"\n",
        b"2 ",
    ],
)
def test_malformed_pax_records_are_refused(records: bytes) -> None:
    if records == b"5 a=\n":
        assert tar.pax_records(records) == {b"a": b""}
        return
    with pytest.raises(IntegrityError, match="malformed"):
        tar.pax_records(records)


def test_walk_refuses_a_stream_that_ends_early_or_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2000)
    stream = read(tmp_path, plan_of(tmp_path))
    for at in range(0, len(stream.rstrip(b"\0")) + 511, 512):
        with pytest.raises(IntegrityError):
            list(walk([stream[:at]]))
    with pytest.raises(IntegrityError, match="after its end"):
        list(walk([stream, b"more"]))


def _signatures(root: Path) -> dict[bytes, Signature]:
    return {header.path: signature for header, signature in walk([read(root, plan_of(root))])}


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(0, 7))


def _as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o644)
    os.utime(path, ns=(0, 7))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: _write(path, b"CONTENT"),
    "size": lambda path: _write(path, b"content."),
    "mode": lambda path: path.chmod(0o601),
    "owner": lambda path: os.chown(path, 1, 0),
    "group": lambda path: os.chown(path, 0, 1),
    "time": lambda path: os.utime(path, ns=(0, 8)),
    "attribute": lambda path: os.setxattr(path, "user.new", b""),
    "type": _as_fifo,
}


@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=pytest.mark.root if name in ("owner", "group") else ()) for name in CHANGES]
)
def test_signature_tells_every_change_and_not_the_name(tmp_path: Path, change: str) -> None:
    for name in ("file", "other-name"):
        (tmp_path / name).write_bytes(b"content")
        (tmp_path / name).chmod(0o644)
        os.utime(tmp_path / name, ns=(0, 7))
    before = _signatures(tmp_path)
    assert before[b"file"] == before[b"other-name"]
    CHANGES[change](tmp_path / "file")
    after = _signatures(tmp_path)
    assert after[b"file"] != before[b"file"]
    assert after[b"other-name"] == before[b"other-name"]


def test_signature_says_which_attributes_are_missing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    os.utime(file, ns=(0, 7))
    for name in ("user.one", "user.two"):
        os.setxattr(file, name, b"1")
    whole = _signatures(tmp_path)[b"file"]
    os.removexattr(file, "user.one")
    partial = _signatures(tmp_path)[b"file"]
    assert (partial.lacks(whole), whole.lacks(partial), whole.lacks(whole)) == (["user.one"], [], [])
    os.setxattr(file, "user.two", b"2")
    assert _signatures(tmp_path)[b"file"].lacks(whole) == [], "the other one differs"
    _write(file, b"CONTENT")
    os.setxattr(file, "user.two", b"1")
    assert _signatures(tmp_path)[b"file"].lacks(whole) == [], "the content differs"


def test_messages_of_a_live_volume_are_not_failures() -> None:
    said = (
        b"tar: ./a: file changed as we read it\n"
        b"tar: ./b: File removed before we read it\n"
        b"tar: ./c: File shrank by 4096 bytes; padding with zeros\n"
        b"tar: ./d: Cannot stat: No such file or directory\n"
        b"tar: ./e: Cannot open: Permission denied\n"
        b"tar: Exiting with failure status due to previous errors\n"
    )
    warnings, failures = tar.read_warnings(said)
    assert [line[5:8] for line in warnings] == ["./a", "./b", "./c", "./d"]
    assert failures == ["tar: ./e: Cannot open: Permission denied"]


FULL = b"tar: ./implausibly old: Wrote only 512 of 10240 bytes\n"


@pytest.mark.parametrize(
    "line",
    [
        FULL,
        b"tar: ./Removing leading / from member names: Cannot open: No space left on device\n",
        b"tar: Removing leading `/' from member names: Wrote only 1 of 2 bytes\n",
        b"tar: ./Cannot set 'a' extended attribute for file 'b': Cannot write: Disk quota exceeded\n",
        b"tar: ./A lone zero block at 5: Cannot write: No space left on device\n",
        b"tar: ./x: Warning: Cannot acl_from_text: Cannot write: No space left on device\n",
    ],
)
def test_a_failure_is_one_whatever_the_members_name_says(line: bytes) -> None:
    said = tar.read_extract_messages(line + b"tar: Exiting with failure status due to previous errors\n", 2)
    assert said.failures == [line.decode().strip()]
    assert (said.is_full, said.warnings, said.unset) == (True, [], {})


def test_what_keeps_a_member_inside_is_a_warning() -> None:
    lines = [
        b"tar: Removing leading `/' from member names",
        b"tar: Removing leading `../../' from hard link targets",
        b"tar: ../x: Member name contains '..'",
        b"tar: Ignoring unknown extended header keyword 'LIBARCHIVE.creationtime'",
        b"tar: A lone zero block at 20",
        b"tar: ./x: implausibly old time stamp 1970-01-01 00:00:00",
    ]
    said = tar.read_extract_messages(b"\n".join(lines), 2)
    assert (said.warnings, said.failures) == ([line.decode() for line in lines], [])


def test_attributes_that_could_not_be_set_are_named() -> None:
    said = tar.read_extract_messages(
        b"tar: setxattrat: Cannot set 'security.NTACL' extended attribute for file './a': Operation not permitted\n"
        b"tar: setxattrat: Cannot set 'security.NTACL' extended attribute for file './b\nb': Operation not permitted\n"
        b"tar: setxattrat: Cannot set 'user.x' extended attribute for file 'c': No space left on device\n"
        b"tar: ./d: Cannot open: Permission denied\n",
        2,
    )
    assert said.unset == {
        ("security.NTACL", "Operation not permitted"): ["a", "b\nb"],
        ("user.x", "No space left on device"): ["c"],
    }
    assert said.failures == ["tar: ./d: Cannot open: Permission denied"]
    assert not said.is_full


def test_a_name_cannot_pass_a_failure_off_as_a_change() -> None:
    line = b"tar: ./x: file changed as we read it: Cannot open: Permission denied"
    assert tar.read_warnings(line) == ([], [line.decode()])
    line = b"tar: ./Exiting with failure status due to previous errors: Cannot open: Permission denied"
    assert tar.read_warnings(line) == ([], [line.decode()])


@pytest.mark.parametrize(
    ("drop", "kept"),
    [
        ([], {"user.mark", "system.posix_acl_access"}),
        (["acl"], {"user.mark"}),
        (["xattr"], {"system.posix_acl_access"}),
        (["acl", "xattr"], set()),
    ],
)
def test_attributes_are_left_out_by_kind(tmp_path: Path, drop: list[str], kept: set[str]) -> None:
    (tmp_path / "file").write_text("x")
    os.setxattr(tmp_path / "file", "user.mark", b"1")
    os.setxattr(tmp_path / "file", "system.posix_acl_access", ACL)
    command = [*tar.CREATE, *tar.without(drop), "--file=-", "--files-from=-"]
    found = subprocess.run(command, cwd=tmp_path, input=b"./file\0", capture_output=True, check=True)
    assert found.stderr == b""
    assert {tar.attribute_of(record) for record in tar.read_header(found.stdout).records} - {None} == kept
