"""Import takes what other tools wrote, keeps what is hostile inside the volume, and leaves none behind that failed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support.engine import EngineSession
from tests.support.fingerprint import differences, fingerprint
from tests.support.library import Library
from tests.support.tree import make_odd_tree
from volback.errors import ConflictError, EngineError, FormatError, IntegrityError, NotFoundError
from volback.operations.backup import BackupOptions, backup
from volback.operations.import_ import import_tar
from volback.operations.prove import prove
from volback.operations.sources import volume_source

SYMLINK, HARD_LINK, DIRECTORY = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(level=1).compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": bz2.compress,
}


@pytest.fixture
def read_back(
    library: Library, volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> Callable[..., tuple[dict[str, bytes | None], list[str]]]:
    """Imports archive bytes; returns what the volume holds then (None where it is not a file), and the warnings."""

    def read(archive: bytes) -> tuple[dict[str, bytes | None], list[str]]:
        name = volume_name("imported")
        result = import_tar(*library, io.BytesIO(archive), name)
        root = volume_path(name)
        found = {
            str(path.relative_to(root)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
            for path in sorted(root.rglob("*"))
        }
        assert result.files == len(found) + 1
        return found, result.warnings

    return read


def _tar(*members: tuple[str, bytes, str | bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of (name, type, link or content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, kind, what in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mtime, entry.mode = kind, 1_700_000_000, 0o755 if kind == DIRECTORY else 0o644
            content = what if isinstance(what, bytes) else b""
            entry.size, entry.linkname = len(content), "" if isinstance(what, bytes) else what
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _file(name: str, content: bytes = b"content") -> tuple[str, bytes, bytes]:
    return name, tarfile.REGTYPE, content


PLAIN = _tar(_file("one", b"1"), ("sub", DIRECTORY, b""), _file("sub/two", b"22" * 5000))
PLAIN_TREE = {"one": b"1", "sub": None, "sub/two": b"22" * 5000}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_is_recognized_by_its_first_bytes(
    library: Library,
    volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
    tmp_path: Path,
    compression: str,
) -> None:
    path, name = tmp_path / "archive", volume_name("imported")
    path.write_bytes(COMPRESSIONS[compression](PLAIN))
    result = import_tar(*library, path, name, labels={"for": "test"})
    assert (result.compression, result.files, result.raw_bytes, result.warnings) == (compression, 4, len(PLAIN), [])
    assert (volume_path(name) / "sub" / "two").read_bytes() == PLAIN_TREE["sub/two"]
    assert library.engine.volume(name).labels["for"] == "test"


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_form_of_gnu_tar_comes_in(read_back: Any, tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    (source / "directory").mkdir(parents=True)
    (source / "directory" / "file").write_bytes(b"x" * 70_000)
    (source / "link").symlink_to("directory/file")
    archive = subprocess.run(
        ["tar", "-C", source, f"--format={form}", "-c", "directory", "link"], check=True, capture_output=True
    ).stdout
    assert read_back(archive) == ({"directory": None, "directory/file": b"x" * 70_000, "link": None}, [])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_pythons_tarfile_comes_in(read_back: Any, form: int) -> None:
    # Parts of 90 bytes: ustar holds 255 in all, the others any.
    long = "/".join(["d" * 90] * 2)
    members = [("d" * 90, DIRECTORY, b""), (long, DIRECTORY, b""), _file(long + "/caf\u00e9", b"caf\xe9")]
    assert read_back(_tar(*members, format=form)) == ({"d" * 90: None, long: None, long + "/caf\u00e9": b"caf\xe9"}, [])


def test_odd_tree_comes_in_with_all_its_metadata(
    library: Library, volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path
) -> None:
    source, name = tmp_path / "source", volume_name("imported")
    source.mkdir()
    make_odd_tree(source, deep=False)
    archive = tmp_path / "archive.tar.zst"
    script = f"tar -C {source} -c --format=posix --numeric-owner --xattrs --xattrs-include='*' --acls --sparse ."
    subprocess.run(["bash", "-c", f"{script} 2>/dev/null | zstd -q >{archive}"], check=True)
    result = import_tar(*library, archive, name)
    assert differences(fingerprint(source), fingerprint(volume_path(name))) == []
    *others, last = result.warnings
    assert last == "the volume now contains 3 device nodes from the archive"
    # tar writes an ACL's users by name where this machine has one; the attribute has their numbers too.
    assert all("acl_from_text" in warning for warning in others)


def test_what_docker_cp_and_docker_export_give_comes_in(
    library: Library, container_factory: Callable[..., Any], volume_name: Callable[..., str], read_back: Any
) -> None:
    container = container_factory("mkdir -p /tmp/a/b; echo text >/tmp/a/b/file; ln -s b/file /tmp/a/link")
    assert container.wait(timeout=60)["StatusCode"] == 0
    copied = b"".join(container.get_archive("/tmp/a")[0])
    assert read_back(copied) == ({"a": None, "a/b": None, "a/b/file": b"text\n", "a/link": None}, [])
    exported = io.BytesIO(b"".join(container.export()))
    result = import_tar(*library, exported, volume_name("exported"))
    assert result.files > 20
    assert result.warnings == []


HOSTILE: dict[str, tuple[bytes, set[str] | None, str]] = {
    # name: archive, names in the volume then (None: there is no volume), words of the warning or error
    "dot-dot names": (_tar(_file("../evil"), _file("a/../../evil"), _file("ok")), {"ok"}, r"evil.*'\.\.'"),
    "absolute names": (_tar(_file("/etc/evil"), _file("ok")), {"etc", "etc/evil", "ok"}, "Removing leading `/'"),
    "through an absolute symlink": (_tar(("s", SYMLINK, "/io"), _file("s/evil")), None, "s/evil"),
    "through a symlink with dot-dot": (_tar(("s", SYMLINK, "../io"), _file("s/evil")), None, "s/evil"),
    "through two symlinks": (
        _tar(("a", DIRECTORY, b""), ("a/up", SYMLINK, ".."), ("b", SYMLINK, "a/up/../io"), _file("b/evil")),
        None,
        "b/evil",
    ),
    # Such a symlink is made last, in the place of a file of its name: tar's order, but nothing goes through it.
    "a symlink, then a file of its name": (_tar(("s", SYMLINK, "/io/evil"), _file("s")), {"s"}, ""),
    "a hard link to a symlink, then a file": (
        _tar(("s", SYMLINK, "/io/evil"), ("h", HARD_LINK, "s"), _file("h")),
        {"h", "s"},
        "",
    ),
    "hard link to an absolute file": (_tar(("h", HARD_LINK, "/etc/passwd")), None, "etc/passwd"),
    "hard link with dot-dot": (_tar(("h", HARD_LINK, "../io/messages")), None, "io/messages"),
    "root as a symlink": (_tar(("./", SYMLINK, "/io"), _file("./evil")), None, "Cannot open"),
    "devices": (
        _tar(*((f"d{number}", tarfile.BLKTYPE, b"") for number in range(300))),
        {f"d{number}" for number in range(300)},
        "300 device nodes",
    ),
    "names that look like options": (_tar(_file("--checkpoint=1"), _file("-C")), {"-C", "--checkpoint=1"}, ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members_stay_inside_the_volume(
    library: Library, engine: EngineSession, read_back: Any, case: str
) -> None:
    archive, expected, words = HOSTILE[case]
    if expected is None:
        with pytest.raises(EngineError, match=words):
            read_back(archive)
        assert _volumes(engine) == []
        return
    found, warnings = read_back(archive)
    assert found.keys() == expected
    assert bool(warnings) == bool(words)
    assert not words or any(re.search(words, warning) for warning in warnings)


def _volumes(engine: EngineSession) -> list[str]:
    return [volume.name for volume in engine.volumes()]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this is not a tar archive"),
        (b"just a text\n" * 100, "this is not a tar archive"),
        (bytes(range(256)) * 40, "this is not a tar archive"),
        (bytes(100), "this is not a tar archive"),
        (gzip.compress(b"just a text\n" * 100, mtime=0), "what its gzip holds is not a tar archive"),
        (b"PK\x03\x04" + bytes(600), "this is not a tar archive"),
    ],
)
def test_what_is_no_archive_is_refused_before_a_volume_is_made(
    library: Library, engine: EngineSession, volume_name: Callable[..., str], content: bytes, words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        import_tar(*library, io.BytesIO(content), volume_name())
    assert _volumes(engine) == []


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "bzip2"])
def test_compressed_archive_that_is_cut_short_leaves_no_volume(
    library: Library, engine: EngineSession, volume_name: Callable[..., str], compression: str
) -> None:
    archive = COMPRESSIONS[compression](PLAIN)
    with pytest.raises(IntegrityError, match="damaged or cut short"):
        import_tar(*library, io.BytesIO(archive[:-9]), volume_name())
    assert _volumes(engine) == []


TWO_FILES = _tar(_file("one", b"1" * 1000), _file("two", b"2" * 1000))
_long = pytest.mark.long


@pytest.mark.parametrize(
    "size",
    [pytest.param(700, marks=_long), pytest.param(1024, marks=_long), 1535, 2048, pytest.param(3000, marks=_long)],
)
def test_plain_archive_that_is_cut_short_in_a_member_leaves_no_volume(
    read_back: Any, engine: EngineSession, size: int
) -> None:
    with pytest.raises(IntegrityError, match="cut short"):
        read_back(TWO_FILES[:size])
    assert _volumes(engine) == []


@pytest.mark.parametrize(
    ("size", "names"), [(1536, {"one"}), pytest.param(3072, {"one", "two"}, marks=_long)], ids=["first", "last"]
)
def test_plain_archive_that_is_cut_short_after_a_member_is_never_taken_for_whole(
    read_back: Any, size: int, names: set[str]
) -> None:
    """tar sees nothing amiss there: but the end of the archive is missing."""
    found, warnings = read_back(TWO_FILES[:size])
    assert found.keys() == names
    assert any("cut short" in warning for warning in warnings)


def test_existing_volume_is_left_alone(
    library: Library, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    name = volume_factory("mine", fill=lambda path: (path / "mine").touch())
    with pytest.raises(ConflictError, match="exists already"):
        import_tar(*library, io.BytesIO(PLAIN), name)
    assert [path.name for path in volume_path(name).iterdir()] == ["mine"]


def test_archive_that_does_not_exist_is_named_by_its_path(library: Library, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.tar"):
        import_tar(*library, tmp_path / "nothing.tar", "volume")


def test_interruption_removes_the_volume(
    library: Library, engine: EngineSession, volume_name: Callable[..., str]
) -> None:
    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 4 * 1024 * 1024:
                assert len(_volumes(engine)) == 1
                raise KeyboardInterrupt
            return super().read(size)

    with pytest.raises(KeyboardInterrupt):
        import_tar(*library, Interrupting(_tar(_file("big", bytes(8 * 1024 * 1024)))), volume_name())
    assert _volumes(engine) == []


def test_imported_volume_backs_up_and_proves_like_any_other(library: Library, volume_name: Callable[..., str]) -> None:
    name = volume_name("imported")
    import_tar(*library, io.BytesIO(PLAIN), name, labels={"kept": "yes"})
    manifest = backup(*library, volume_source(library.engine, name), BackupOptions()).manifest
    assert manifest.source.labels == {"kept": "yes"}
    assert prove(*library, f"{name}@{manifest.id}").identical
