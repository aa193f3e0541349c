"""Filesystems that lack something, disks and networks that fail, and what in a repository is not an object."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from volback.durable import rename_new
from volback.errors import ConflictError, NotFoundError, StoreError, StoreUnreachable, UsageError, VolbackError
from volback.store.local import LocalStore
from volback.store.locate import open_store

TEMP = ".tmp-0123456789abcdef~"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "repository")


def refusing(code: int) -> Callable[..., object]:
    def refused(*arguments: object, **where: object) -> object:
        raise OSError(code, os.strerror(code))

    return refused


def content(store: LocalStore, key: str) -> bytes:
    return b"".join(store.open(key))


# filesystems without hard links


@pytest.fixture(params=[errno.EPERM, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vfat, SMB and some of FUSE refuse them."""
    monkeypatch.setattr(os, "link", refusing(request.param))


@pytest.fixture(params=["renameat2", "no renameat2"])
def with_and_without_renameat2(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "no renameat2":
        monkeypatch.setattr("volback.durable._rename_no_replace", lambda *_: False)
    return str(request.param) == "renameat2"


@pytest.mark.usefixtures("without_links", "with_and_without_renameat2")
def test_a_put_if_absent_needs_no_hard_links(store: LocalStore, tmp_path: Path) -> None:
    assert store.put("a/b", [b"one"], if_absent=True) == 3

    def overtaken() -> Iterator[bytes]:
        yield b"two"
        (tmp_path / "repository/a/c").write_bytes(b"one")

    for key, chunks in (("a/b", iter([b"two"])), ("a/c", overtaken())):
        with pytest.raises(ConflictError):
            store.put(key, chunks, if_absent=True)
        assert content(store, key) == b"one"
    assert os.listdir(tmp_path / "repository/a") == ["b", "c"] or store.sweep() == []


@pytest.mark.usefixtures("without_links")
def test_without_hard_links_too_what_appears_at_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """renameat2 refuses by itself, without a look before."""
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "there").write_bytes(b"old")
    monkeypatch.setattr("volback.durable._check_absent", lambda *_: None)
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "new", tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"old"
    rename_new(tmp_path / "new", tmp_path / "free")
    assert (tmp_path / "free").read_bytes() == b"new"


# filesystems without locks


@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL], ids=errno.errorcode.get)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS without its lock daemon, and some of FUSE, refuse them."""
    monkeypatch.setattr(fcntl, "flock", refusing(request.param))


@pytest.mark.usefixtures("without_locks")
def test_without_locks_temp_files_are_known_by_their_age(store: LocalStore, tmp_path: Path) -> None:
    store.put("a/b", [b"one"])
    temp = tmp_path / "repository/a" / TEMP
    temp.write_bytes(b"")
    assert store.sweep() == []  # its writer may be alive
    assert [left.key for left in store.unfinished()] == [f"a/{TEMP}"]
    os.utime(temp, (0, 0))
    assert store.sweep() == [f"a/{TEMP}"]
    temp.write_bytes(b"")
    assert store.sweep(older_than_s=0.0) == [f"a/{TEMP}"]
    assert content(store, "a/b") == b"one"


# errors of the system


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (errno.EIO, "has a disk error", StoreError),
        (errno.EDQUOT, "is over its disk quota", StoreError),
        (errno.ENOSPC, "is full", StoreError),
        (errno.EFBIG, "takes no file of that size", StoreError),
        (errno.EROFS, "is read-only", StoreError),
        (errno.EMFILE, "too many files are open", StoreError),
        (errno.ESTALE, "does not answer", StoreUnreachable),
        (errno.ENOTCONN, "does not answer", StoreUnreachable),
        (errno.ETIMEDOUT, "does not answer", StoreUnreachable),
        (errno.EHOSTDOWN, "does not answer", StoreUnreachable),
    ],
)
@pytest.mark.parametrize("step", ["open", "fsync", "link", "rename", "unlink", "scandir", "stat"])
def test_an_error_of_the_system_is_one_line_whichever_step_it_strikes(
    store: LocalStore, step: str, code: int, words: str, kind: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a/b", [b"x"])
    calls: list[Callable[[], object]] = [
        lambda: store.put("a/c", [b"x"]),
        lambda: store.put("a/d", [b"x"], if_absent=True),
        lambda: content(store, "a/b"),
        lambda: store.stat("a/b"),
        lambda: list(store.list()),
        store.sweep,
        lambda: store.delete("a/b"),
    ]
    errors: list[VolbackError] = []
    monkeypatch.setattr(os, step, refusing(code))
    for call in calls:
        try:
            call()
        except VolbackError as exc:
            errors.append(exc)
    assert errors
    assert {type(error) for error in errors} == {kind}
    for error in errors:
        assert words in error.message
        assert "\n" not in error.message
        assert error.hint


def test_a_filesystem_with_shorter_names_is_named(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As eCryptfs, which takes 143 bytes."""
    store.put("x", [b"x"])
    monkeypatch.setattr(os, "mkdir", refusing(errno.ENAMETOOLONG))
    with pytest.raises(StoreError, match="takes no names of that length: cannot write 'a/b'"):
        store.put("a/b", [b"x"])


def test_a_directory_that_cannot_be_made_is_a_repository_that_is_not_reachable(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    places = {
        "/proc/nothing/here": "no such file or directory: /proc/nothing",
        f"{tmp_path}/link/here": "no such file or directory: ",
    }
    for place, why in places.items():
        with pytest.raises(StoreUnreachable, match=why) as caught:
            LocalStore(Path(place)).put("a/b", [b"x"])
        assert caught.value.message.startswith(f"repository {place} cannot be made: ")


def test_a_root_that_cannot_be_a_directory_is_a_repository_that_is_not_reachable(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    places = {
        "loop": "is a symbolic link to nothing",
        "file": "is not a directory",
        "file/below": "is not a directory",
        "x" * 300: "is not a path: it is, or a name in it is, too long",
        "x/" * 2100: "is not a path: it is, or a name in it is, too long",
    }
    for place, why in places.items():
        store = LocalStore(tmp_path / place)
        for call in (lambda: store.put("a", [b"x"]), lambda: list(store.list()), lambda: store.stat("a")):  # noqa: B023
            with pytest.raises(StoreUnreachable, match=why):
                call()


def test_a_root_is_a_path_of_any_bytes_but_nul(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n\xff")
    store = LocalStore(tmp_path / name)
    store.put("a/b", [b"x"], if_absent=True)
    assert [info.key for info in store.list()] == ["a/b"]
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9 \n\xff"]
    with pytest.raises(UsageError):
        open_store(f"{tmp_path}/a\0b")


# what is not an object


def test_a_device_a_socket_and_a_fifo_are_not_objects_and_are_never_opened(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open a device can do something by itself: a tape rewinds, a watchdog starts."""
    store.put("a/b", [b"x"])
    directory = tmp_path / "repository/a"
    os.mkfifo(directory / "fifo")
    monkeypatch.chdir(directory)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        if os.geteuid() == 0:
            os.mknod("device", 0o20600, os.makedev(1, 3))
        assert [info.key for info in store.list()] == ["a/b"]
        for name in set(os.listdir()) - {"b"}:
            for call in (lambda: content(store, f"a/{name}"), lambda: store.stat(f"a/{name}")):  # noqa: B023
                with pytest.raises(NotFoundError):
                    call()
            store.delete(f"a/{name}")
            with pytest.raises(ConflictError):
                store.put(f"a/{name}", [b"y"], if_absent=True)
            store.put(f"a/{name}", [b"y"])
            assert content(store, f"a/{name}") == b"y"


# descriptors


def test_few_descriptors_are_enough_however_deep_and_wide_a_repository_is(store: LocalStore) -> None:
    """Four: one more than a put in progress has, for the step from one directory into the next."""
    deep = "/".join("d" * 40)
    names = [f"wide/{number:03}/o" for number in range(50)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest - len(os.listdir("/proc/self/fd")) + 2)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, before[1]))
        for name in [f"{deep}/o", *names]:
            store.put(name, [b"x"], if_absent=True)
        assert [info.key for info in store.list()] == [f"{deep}/o", *names]
        assert store.sweep() == []
        for name in [f"{deep}/o", *names]:
            assert content(store, name) == b"x"
            store.delete(name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)
