"""Restore and prove of a part: what was asked for, the directories above it, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.disks import mounted
from tests.support.engine import EngineSession, remove_volume
from tests.support.fingerprint import Entry, differences, fingerprint
from tests.support.library import Library, open_library
from tests.support.tree import make_odd_tree
from volback.archive.codec import ZstdCodec
from volback.errors import ConflictError, EngineError, IntegrityError, NotFoundError, UsageError
from volback.operations.backup import BackupOptions, backup
from volback.operations.recover import sweep
from volback.operations.restore import RestoreOptions, RestoreResult, restore
from volback.operations.sources import volume_source
from volback.store.local import LocalStore

MIB = 1024 * 1024


class Whole(NamedTuple):
    """A volume that was backed up and stays as it is: many tests restore parts of it."""

    library: Library
    original: str
    before: dict[bytes, Entry]
    backup: str


def backed_up(library: Library, original: str, path: Path) -> Whole:
    made = backup(*library, volume_source(library.engine, original), BackupOptions())
    return Whole(library, original, fingerprint(path), made.manifest.name)


class Part:
    """A backed-up volume, and the restores of parts of it into volumes that do not exist yet."""

    def __init__(self, whole: Whole, volume_name: Callable[..., str], volume_path: Callable[[str], Path]) -> None:
        self.library, self.original, self.before, self.backup = whole
        self._volume_name = volume_name
        self._volume_path = volume_path

    def restore(self, *paths: str) -> tuple[dict[bytes, Entry], RestoreResult]:
        """What the kernel says of the volume that holds just these paths; the restore has been proven."""
        name = self._volume_name("part")
        result = restore(*self.library, self.backup, RestoreOptions(name=name, paths=list(paths), prove=True))
        assert result.proven
        return fingerprint(self._volume_path(name)), result

    def expected(self, *paths: bytes) -> dict[bytes, Entry]:
        """Of the whole volume what is at and below the paths, and the directories above."""
        above = {path[:at] for path in paths for at in range(len(path)) if path[at : at + 1] == b"/"} | {b""}
        kept = {
            path: entry
            for path, entry in self.before.items()
            if path in paths or path.startswith(tuple(path + b"/" for path in paths)) or path in above
        }
        return _with_names_of(kept)


def _with_names_of(kept: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """The same entries, where of the names of an inode only those that are kept count."""
    groups: dict[bytes, list[bytes]] = {}
    for path, entry in kept.items():
        if entry.first_name:
            groups.setdefault(entry.first_name, []).append(path)
    for names in groups.values():
        for path in names:
            kept[path] = kept[path]._replace(first_name=names[0] if len(names) > 1 else b"")
    return kept


@pytest.fixture(scope="module")
def odd_whole(engine: EngineSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    name = engine.new_name("odd")
    path = Path(engine.client.volumes.create(name, labels=engine.labels).attrs["Mountpoint"])
    try:
        make_odd_tree(path, deep=False)
        yield backed_up(open_library(engine, tmp_path_factory.mktemp("odd")), name, path)
    finally:
        remove_volume(engine.client, name)


@pytest.fixture
def odd(odd_whole: Whole, volume_name: Callable[..., str], volume_path: Callable[[str], Path]) -> Part:
    return Part(odd_whole, volume_name, volume_path)


def test_parts_of_the_odd_tree_come_back_as_they_were(odd: Part) -> None:
    """One backup, many parts: a file, a directory, odd names, hard links without their first name, holes, devices.

    What is of no concern to another part of the tree comes back in one restore with it.
    """
    alone = (b"zz/small", b"zz/big", b"zz/empty", b"zz/symlink", b"zz/to-long")
    odd_names = (b"names/\xff\xfe\xfd", b"names/new\nline", b"names/" + b"n" * 255)
    second_names = (b"sparse/two-names-again", b"capabilities/two-names-again")
    links = (b"links/zz/small", b"links/zz/small-\xff\n", b"links/b")
    cases: list[tuple[bytes, ...]] = [
        (b"links/zz/small",),
        (b"sizes/text", b"sort/a", b"nested/empty", *odd_names, *second_names, *(b"links/" + name for name in alone)),
        (b"sizes/random-0", b"modes", b"special", b"sparse", b"symlinks/itself", *links),
        (b"acls", b"capabilities", b"xattrs", b"links/b/big", b"links/zz/big"),
        (b"links/zz", b"many", b"many/7", b"sort"),
    ]
    for paths in cases:
        found, result = odd.restore(*(os.fsdecode(path) for path in paths))
        expected = odd.expected(*paths)
        assert differences(expected, found) == [], paths
        assert result.files == len(expected)


def test_root_is_everything(odd: Part) -> None:
    found, result = odd.restore("/")
    assert differences(odd.before, found) == []
    assert result.files == len(odd.before)


def test_path_can_be_written_as_people_write_it(odd: Part) -> None:
    """Each one names something, as one that does not is an error, and all of them the same."""
    found, _ = odd.restore("sizes/text", "/sizes/text", "./sizes/text", "sizes/text/", "sizes//text", "sizes/./text")
    assert set(found) == {b"", b"sizes", b"sizes/text"}


def test_path_that_the_backup_lacks_is_reported_and_makes_no_volume(odd: Part, engine: EngineSession) -> None:
    for path in ("no/such", "sizes/tex", "sizes/text/below", "Sizes"):
        with pytest.raises(NotFoundError, match=path):
            odd.restore("sizes/text", path)
    with pytest.raises(UsageError, match="leads out"):
        odd.restore("sizes/../../etc")
    assert [volume.name for volume in engine.volumes()] == [odd.original]


def test_part_into_a_directory(odd: Part, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    options = RestoreOptions(directory=str(target), paths=["acls", "sparse/small"], prove=True)
    assert restore(*odd.library, odd.backup, options).proven
    assert differences(odd.expected(b"acls", b"sparse/small"), fingerprint(target)) == []


@pytest.fixture
def in_place(library: Library, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]) -> InPlace:
    def fill(root: Path) -> None:
        (root / "etc" / "conf.d").mkdir(parents=True)
        (root / "etc" / "app.conf").write_text("port = 80")
        os.chown(root / "etc" / "app.conf", 1000, 2000)
        (root / "etc" / "app.conf").chmod(0o640)
        os.link(root / "etc" / "app.conf", root / "second-name")
        (root / "etc" / "conf.d" / "a").write_text("a")
        (root / "other").write_text("other")

    name = volume_factory("in-place", fill=fill)
    backup(*library, volume_source(library.engine, name), BackupOptions())
    return InPlace(library, name, volume_path(name))


class InPlace:
    """A backed-up volume that has changed since, and restores of parts into it."""

    def __init__(self, library: Library, name: str, root: Path) -> None:
        self.library, self.name, self.root = library, name, root

    def restore(self, *paths: str) -> RestoreResult:
        options = RestoreOptions(paths=list(paths), replace=True, prove=True)
        return restore(*self.library, self.name, options)


def test_a_part_in_place_changes_its_path_alone(in_place: InPlace) -> None:
    root = in_place.root
    file = root / "etc" / "app.conf"
    file.unlink()
    (root / "etc").chmod(0o711)
    os.chown(root / "etc", 7, 8)
    root.chmod(0o700)
    (root / "other").write_text("newer")
    (root / "etc" / "made-since").write_text("since")
    before, times = fingerprint(root), (root / "etc").stat()
    result = in_place.restore("etc/app.conf")
    os.utime(root / "etc", ns=(0, times.st_mtime_ns))  # a file was made in it
    after = fingerprint(root)
    assert file.read_text() == "port = 80"
    assert (file.stat().st_mode & 0o7777, file.stat().st_uid, file.stat().st_gid) == (0o640, 1000, 2000)
    assert result.files == 1
    assert result.safety_backup
    del after[b"etc/app.conf"]
    assert differences(before, after) == []


def test_a_directory_in_place_replaces_files_of_its_names_and_keeps_the_others(in_place: InPlace) -> None:
    root = in_place.root
    (root / "etc" / "app.conf").write_text("damaged")
    (root / "etc" / "made-since").write_text("since")
    result = in_place.restore("etc")
    assert (root / "etc" / "app.conf").read_text() == "port = 80"
    assert (root / "etc" / "made-since").read_text() == "since"
    assert (root / "second-name").read_text() == "damaged"
    assert result.safety_backup
    restore(*in_place.library, result.safety_backup, RestoreOptions(replace=True))
    assert (root / "etc" / "app.conf").read_text() == "damaged"


def test_a_part_in_place_makes_the_directories_above_that_are_gone(in_place: InPlace) -> None:
    shutil.rmtree(in_place.root / "etc")
    in_place.restore("etc/conf.d/a")
    assert (in_place.root / "etc" / "conf.d" / "a").read_text() == "a"
    assert not (in_place.root / "etc" / "app.conf").exists()


@pytest.mark.parametrize("in_the_way", ["link above", "directory"])
def test_a_part_in_place_changes_no_other_path_by_what_is_in_its_way(in_place: InPlace, in_the_way: str) -> None:
    root = in_place.root
    if in_the_way == "directory":
        (root / "etc" / "app.conf").unlink()
        (root / "etc" / "app.conf").mkdir()
        (root / "etc" / "app.conf" / "kept").write_text("kept")
    else:
        (root / "etc").rename(root / "elsewhere")
        (root / "etc").symlink_to("elsewhere")
    before = fingerprint(root)
    with pytest.raises(ConflictError, match="directory"):
        in_place.restore("etc/app.conf")
    assert differences(before, fingerprint(root)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m,mode=0755", "volback-test") as path:
        yield path


def test_a_part_that_does_not_fit_in_place_changes_nothing(
    library: Library, small_disk: Path, volume_factory: Callable[..., str]
) -> None:
    root = small_disk
    (root / "etc" / "new").mkdir(parents=True)
    for name in ("etc/a 1", "etc/\\0101", "etc/new/-x\n1"):
        (root / name).write_bytes(os.urandom(400_000))
    name = volume_factory("small", driver_opts={"type": "none", "o": "bind", "device": str(root)})
    backup(*library, volume_source(library.engine, name), BackupOptions())
    shutil.rmtree(root / "etc" / "new")
    (root / "etc" / "a 1").write_bytes(b"newer")
    (root / "etc" / "a 1").chmod(0o640)
    os.link(root / "etc" / "a 1", root / "etc" / "made-since")
    (root / "etc").chmod(0o711)
    (root / "other").write_bytes(os.urandom(1_300_000))
    before = fingerprint(root)
    with pytest.raises(
        EngineError, match=r"no space left in volume .*: \d+\.\d KiB of 1\.1 MiB did not fit"
    ) as failure:
        restore(*library, name, RestoreOptions(paths=["etc"], replace=True))
    assert f"volume {name!r} has its former content; make room there" in str(failure.value.hint)
    after = fingerprint(root)
    for found in (before, after):  # the two names have inodes of their own now
        found.update({path: entry._replace(first_name=b"") for path, entry in found.items()})
    assert differences(before, after) == []
    assert not sweep(*library, remove=False)


def test_part_fetches_only_its_frames(odd: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of 5 MiB needs its own bytes and a few small frames, not the 20 MiB beside it."""
    fetched: list[int] = []
    open_as_ever = LocalStore.open

    def counting(store: LocalStore, key: str, *, start: int = 0, length: int | None = None) -> object:
        for buffer in open_as_ever(store, key, start=start, length=length):
            if key.endswith("data.tar.zst"):
                fetched.append(len(buffer))
            yield buffer

    monkeypatch.setattr(LocalStore, "open", counting)
    odd.restore("sizes/random-513")
    assert sum(fetched) < 3 * MIB
    fetched.clear()
    odd.restore(f"sizes/random-{5 * MIB}")
    assert 10 * MIB < sum(fetched) < 14 * MIB, "restore and proof read the 5 MiB once each"


def test_directory_of_many_small_files_opens_each_frame_once(
    library: Library,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frame holds hundreds of them: it is opened once, not once for each file."""
    opened: list[int] = []

    unseal = ZstdCodec.unseal

    def counting(codec: ZstdCodec, stored: bytes | memoryview, raw_bytes: int) -> bytes:
        opened.append(raw_bytes)
        return unseal(codec, stored, raw_bytes)

    def fill(path: Path) -> None:
        for directory in ("wanted", "other"):
            (path / directory).mkdir()
            for number in range(2000):
                (path / directory / f"{number}").write_bytes(b"%d" % number * 50)

    name = volume_factory("small", fill=fill)
    part = Part(backed_up(library, name, volume_path(name)), volume_name, volume_path)
    monkeypatch.setattr(ZstdCodec, "unseal", counting)
    found, result = part.restore("wanted")
    assert differences(part.expected(b"wanted"), found) == []
    assert result.files == 2002
    assert 0 < len(opened) < 40


def test_proof_of_a_part_names_what_differs(
    odd: Part, volume_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch, volume_path: Callable[[str], Path]
) -> None:
    """The volume changes between the restore and its proof, which must see it."""
    from volback.operations import prove

    name = volume_name("part")
    compare_as_ever = prove.compare_part

    def change_then_compare(*arguments: object, **options: bool) -> object:
        (volume_path(name) / "acls" / "file").write_bytes(b"XXX")
        return compare_as_ever(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prove, "compare_part", change_then_compare)
    with pytest.raises(IntegrityError, match="acls/file differs"):
        restore(*odd.library, odd.backup, RestoreOptions(name=name, paths=["acls"], prove=True))
    assert volume_path(name).is_dir(), "kept, to be looked at"
