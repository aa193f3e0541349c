"""Both transports carry the same bytes, and neither ever ends a stream short without saying so."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.engine.conftest import Directory, Opener, Target
from tests.support.archive import scan_fields
from tests.support.engine import EngineSession
from tests.support.remote import Relay, SecondEngine, own_filesystem
from tests.support.tree import make_odd_tree
from volback.archive import tar
from volback.archive.plan import make_plan
from volback.engine import attach
from volback.engine.engine import Engine
from volback.engine.raw import STDOUT
from volback.engine.streams import VolumeReader, VolumeWriter
from volback.errors import EngineError, HelperLost, NotFoundError, StoreError, UsageError
from volback.settings import Transport, load_settings

MIB = 1024 * 1024


def _read(engine: Engine, target: Target, directory: Path) -> tuple[list[bytes], str, int]:
    """Scan and tar everything: the scan's records, the stream's digest and its size."""
    with _reader(engine, target, directory) as reader:
        scan = b"".join(reader.scan())
        digest, size = hashlib.sha256(), 0
        for buffer in reader.read([_names(scan)]):
            digest.update(buffer)
            size += len(buffer)
        assert reader.messages() == b""
    return scan_fields(scan)[0], digest.hexdigest(), size


def _reader(
    engine: Engine, target: Target, directory: Path, *, scan: list[str] = tar.FIND, read: list[str] = tar.CREATE,
    rescan: bool = False,
) -> AbstractContextManager[VolumeReader]:  # fmt: skip
    return engine.reader(
        target, run="test", directory=directory, scan=scan, read=read, scan_end=tar.SCAN_END, rescan=rescan
    )


def _names(scan: bytes) -> bytes:
    assert scan.endswith(b"\0" + tar.SCAN_END.encode())
    paths = [record.partition(b"//")[0] for record in scan_fields(scan)[0]]
    return b"".join(b"./%b\0" % path for path in sorted(paths[1:]))


def _zeros(size: int) -> list[str]:
    """A read command that takes its names and gives zeros."""
    return ["sh", "-c", f'cat "${{1#--files-from=}}" >/dev/null; exec head -c {size} /dev/zero', "sh"]


def _shell(script: str) -> list[str]:
    return ["sh", "-c", script, "sh"]


def test_both_carry_the_same_bytes(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str]
) -> None:
    target = Target("volume", volume_factory(fill=lambda path: make_odd_tree(path, deep=False)))
    os.sync()  # the blocks of a sparse file, which a scan says, are counted anew when it is written out
    piped = _read(open_engine("pipe"), target, directory())
    assert _read(open_engine("attach"), target, directory()) == piped
    assert piped[2] > MIB


def test_what_was_written_is_read_again(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    engine, target = open_engine(transport), Target("volume", volume_factory())
    pieces = [os.urandom(size) for size in (1, 0, 7, 3 * MIB, 511, 5 * MIB + 1, *([1000] * 3000))]
    with engine.writer(target, run="test", directory=directory(), write=_shell("cat >file")) as writer:
        assert writer.write(memoryview(piece) for piece in pieces) == 0
        assert writer.messages() == b""
    with _reader(engine, target, directory(), read=_shell('cat "${1#--files-from=}" >/dev/null; cat file')) as reader:
        assert b"file" in b"".join(reader.scan())
        assert b"".join(reader.read([b"x"])) == b"".join(pieces)


def test_a_waiting_helper_says_the_time_and_filesystem_of_each_scan(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], volume_path: Callable[[str], Path],
    transport: Transport,
) -> None:  # fmt: skip
    name = volume_factory()
    with _reader(open_engine(transport), Target("volume", name), directory(), rescan=True) as reader:
        first = make_plan(reader.scan())
        (volume_path(name) / "between").touch()
        between_ns = (volume_path(name) / "between").stat().st_ctime_ns
        second = make_plan(reader.scan())
    assert first.started_ns <= between_ns <= second.started_ns
    assert second.newest_ns == between_ns
    found = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", volume_path(name)], capture_output=True, check=True)
    assert first.filesystem == second.filesystem == found.stdout.decode().strip()


def test_names_arrive_whole(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    target = Target("volume", volume_factory())
    names = [b"%d\0" % number * 100 for number in range(20_000)]
    with _reader(open_engine(transport), target, directory(), read=_shell('cat "${1#--files-from=}"')) as reader:
        list(reader.scan())
        assert b"".join(reader.read(iter(names))) == b"".join(names)


def test_messages_come_apart_from_data(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    loud = "for n in 1 2 3 4 5 6 7 8 9; do head -c 100000 /dev/zero; echo said $n >&2; done"
    read = _shell(f'cat "${{1#--files-from=}}" >/dev/null; {loud}')
    target = Target("volume", volume_factory())
    with _reader(open_engine(transport), target, directory(), scan=_shell(loud), read=read) as reader:
        assert b"".join(reader.scan()) == bytes(900_000) + tar.SCAN_END.encode()
        assert b"".join(reader.read([b"x"])) == bytes(900_000)
        assert reader.messages() == b"".join(b"said %d\n" % number for number in range(1, 10)) * 2


def test_a_second_scan_runs_when_it_is_asked_for(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], volume_path: Callable[[str], Path],
    transport: Transport,
) -> None:  # fmt: skip
    """What the first one said of a volume that was written to is not said of the reading."""
    name = volume_factory()
    target, loud = Target("volume", name), _shell("echo *; echo said of * >&2")
    ended = []
    with _reader(open_engine(transport), target, directory(), scan=loud, read=_zeros(9 * MIB), rescan=True) as reader:
        end = tar.SCAN_END.encode()
        assert b"".join(reader.scan()) == b"*\n" + end
        reader.check()
        (volume_path(name) / "later").touch()
        assert b"".join(reader.scan()) == b"later\n" + end
        buffers = reader.read([b"x"], lambda: ended.append(True))
        next(buffers)
        assert not ended
        assert b"".join(buffers) == bytes(5 * MIB)
        assert ended
        assert reader.messages() == b"said of later\n"


def test_a_helper_that_dies_while_it_waits_is_an_error(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], engine: EngineSession,
    transport: Transport,
) -> None:  # fmt: skip
    ours, target = open_engine(transport), Target("volume", volume_factory())
    with _reader(ours, target, directory(), rescan=True) as reader:
        list(reader.scan())
        engine.client.api.kill(ours.leftover_helpers()[0])
        with pytest.raises(EngineError, match="killed"):
            list(reader.scan())
        with pytest.raises(EngineError, match="killed"):
            reader.check()


def test_a_scan_that_was_killed_has_no_end_mark(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    target = Target("volume", volume_factory())
    with _reader(open_engine(transport), target, directory(), scan=_shell("echo part; kill -9 $$")) as reader:
        assert b"".join(reader.scan()) == b"part\n"


def test_a_command_that_reads_nothing_gives_its_status(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    target = Target("volume", volume_factory(fill=lambda path: (path / "f").write_bytes(b"x")))
    delete = ["find", ".", "-mindepth", "1", "-print", "-delete"]
    engine = open_engine(transport)
    with engine.writer(target, run="test", directory=directory(), write=delete) as writer:
        assert writer.write(()) == 0
    with engine.writer(target, run="test", directory=directory(), write=_shell("echo why >&2; exit 3")) as writer:
        assert writer.write(()) == 3
        assert writer.messages() == b"why\n"


LOOK = _shell("echo seen >&2; find . -type f; exit 3")


def test_a_writer_looks_and_then_writes_or_does_not(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], volume_path: Callable[[str], Path],
    transport: Transport,
) -> None:  # fmt: skip
    name, engine = volume_factory(fill=lambda path: (path / "f").write_bytes(b"x")), open_engine(transport)
    write = _shell("tee copy >&2")
    with engine.writer(Target("volume", name), run="test", directory=directory(), write=write, look=LOOK) as writer:
        assert writer.look() == (3, b"seen\n./f\n")
    assert [path.name for path in volume_path(name).iterdir()] == ["f"], "it was closed before it was given anything"
    with engine.writer(Target("volume", name), run="test", directory=directory(), write=write, look=LOOK) as writer:
        assert writer.look() == (3, b"seen\n./f\n")
        assert writer.write([b"new"]) == 0
        assert writer.messages() == b"new", "nothing of the look is among them"
    assert (volume_path(name) / "copy").read_bytes() == b"new"


def test_a_copier_looks_into_its_target(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    source = Target("volume", volume_factory(fill=lambda path: (path / "f").write_bytes(b"x")))
    target = Target("volume", volume_factory(fill=lambda path: (path / "other").write_bytes(b"y")))
    with open_engine(transport).reader(
        source, run="test", directory=directory(), scan=tar.FIND, scan_end=tar.SCAN_END, into=target, look=LOOK,
        read=_shell('cat "${1#--files-from=}"; find /target -type f'),
    ) as copier:  # fmt: skip
        assert copier.look() == (3, b"seen\n./other\n")
        assert len(scan_fields(b"".join(copier.scan()))[0]) == 2
        assert b"".join(copier.read([b"names "])) == b"names /target/other\n"
        assert copier.messages() == b""


@pytest.mark.parametrize("what", ["helper", "command"])
def test_a_look_that_is_killed_is_an_error(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], engine: EngineSession,
    transport: Transport, what: str,
) -> None:  # fmt: skip
    ours, target = open_engine(transport), Target("volume", volume_factory())
    look = _shell("kill -9 $$" if what == "command" else "sleep 900")
    with (
        ours.writer(target, run="test", directory=directory(), write=["cat"], look=look) as writer,
        pytest.raises(HelperLost, match="helper for write was killed"),
    ):
        _look_and_kill(
            writer, (lambda: engine.client.api.kill(ours.leftover_helpers()[0])) if what == "helper" else None
        )


def _look_and_kill(writer: VolumeWriter, kill: Callable[[], None] | None) -> None:
    if kill is not None:
        kill()
    writer.look()


def test_a_command_that_stops_reading_is_an_error_with_its_words(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    target, stop = Target("volume", volume_factory()), _shell("head -c 3000000 >/dev/null; echo no room >&2; exit 2")
    with (
        open_engine(transport).writer(target, run="test", directory=directory(), write=stop) as writer,
        pytest.raises(EngineError, match=r"stopped reading \(status 2\): no room"),
    ):
        writer.write(itertools.repeat(bytes(MIB), 10_000))


def test_data_that_fails_waits_for_no_command_that_reads_nothing(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    target = Target("volume", volume_factory())

    def failing() -> Iterator[bytes]:
        yield bytes({"pipe": 3 * MIB, "attach": 1000}[transport])  # more than a pipe holds
        raise StoreError("the store is gone")

    started = time.monotonic()
    with (
        pytest.raises(StoreError, match="the store is gone"),
        open_engine(transport).writer(target, run="test", directory=directory(), write=["sleep", "900"]) as writer,
    ):
        writer.write(failing())
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("when", ["scan", "read"])
def test_a_killed_helper_is_an_error(
    open_engine: Opener, directory: Directory, engine: EngineSession, transport: Transport, when: str
) -> None:
    ours, target = open_engine(transport), Target("directory", "/usr/bin")
    scan = ["cat", "/dev/zero"] if when == "scan" else tar.FIND
    with (
        _reader(ours, target, directory(), scan=scan, read=_zeros(1 << 50)) as reader,
        pytest.raises(EngineError, match="helper"),
    ):
        _consume_and_kill(reader, when, lambda: engine.client.api.kill(ours.leftover_helpers()[0]))
    assert ours.leftover_helpers() == []


def _consume_and_kill(reader: VolumeReader, when: str, kill: Callable[[], None]) -> None:
    stream = reader.scan()
    if when == "read":
        list(stream)
        stream = reader.read([b"x"])
    next(stream)
    killing = threading.Thread(target=kill)  # the engine returns when all that it has to deliver is taken
    killing.start()
    for _ in stream:
        continue
    killing.join()
    if when == "scan":  # a scan without its end is seen by its missing mark, or by the next step
        list(reader.read([b"x"]))


def test_a_killed_writer_is_an_error(
    open_engine: Opener, directory: Directory, engine: EngineSession, transport: Transport
) -> None:
    ours, target = open_engine(transport), Target("directory", "/usr/bin")

    def stream() -> Iterator[bytes]:
        for number in itertools.count():
            if number == 20:
                engine.client.api.kill(ours.leftover_helpers()[0])
            yield bytes(MIB)

    with (
        ours.writer(target, run="test", directory=directory(), write=_shell("cat >/dev/null")) as writer,
        pytest.raises(EngineError, match="killed"),
    ):
        writer.write(stream())


def test_a_reading_may_be_left_in_the_middle(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    ours, target, place = open_engine(transport), Target("volume", volume_factory()), directory()
    started = time.monotonic()
    with _reader(ours, target, place, read=_zeros(1 << 50)) as reader:
        list(reader.scan())
        assert len(list(itertools.islice(reader.read([b"x"]), 3))) == 3
    assert time.monotonic() - started < 60
    assert ours.leftover_helpers() == []
    assert not place.exists()


def _read_without_end(engine: Engine, target: Target, directory: Path, cut: Callable[[], None]) -> None:
    with _reader(engine, target, directory, read=_zeros(1 << 50)) as reader:
        list(reader.scan())
        for _ in _cut_in_mid_stream(reader.read([b"x"]), cut):
            continue


def _write_without_end(engine: Engine, target: Target, directory: Path, cut: Callable[[], None]) -> None:
    with engine.writer(target, run="test", directory=directory, write=_shell("cat >/dev/null")) as writer:
        writer.write(_cut_in_mid_stream(itertools.repeat(bytes(MIB)), cut))


def _cut_in_mid_stream(stream: Iterable[bytes | bytearray], cut: Callable[[], None]) -> Iterator[bytes | memoryview]:
    """Cut while the stream flows, which twenty pieces that have passed show: the helper is there, and its id known."""
    for number, piece in enumerate(stream):
        if number == 20:
            cut()
        yield memoryview(piece)


@pytest.mark.parametrize("way", [_read_without_end, _write_without_end], ids=["read", "write"])
def test_a_broken_connection_is_an_error(
    open_engine: Opener, directory: Directory, second: SecondEngine, way: Callable[..., None]
) -> None:
    target = Target("directory", str(second.directory / "etc"))
    with Relay(second) as relay:
        ours = open_engine("attach", relay.url)
        with pytest.raises(EngineError):
            way(ours, target, directory(), relay.cut)
        assert ours.leftover_helpers() == []


def test_pipes_are_chosen_where_they_work(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str]
) -> None:
    ours = open_engine()
    assert ours.transport is None
    _read(ours, Target("volume", volume_factory()), directory())
    assert ours.transport == "pipe"


def test_an_engine_without_our_directory_is_attached_to(
    open_engine: Opener, second: SecondEngine, tmp_path: Path
) -> None:
    ours, target = open_engine(None, second.url), Target("directory", str(second.directory / "etc"))
    with own_filesystem(tmp_path / "own") as own:
        _read(ours, target, own / "first")
        assert ours.transport == "attach"
        with ours.writer(target, run="test", directory=own / "second", write=_shell("cat >/dev/null")) as writer:
            assert writer.write([b"x"]) == 0
        assert list(own.iterdir()) == []


def test_a_forced_pipe_that_cannot_be_says_so(open_engine: Opener, second: SecondEngine, tmp_path: Path) -> None:
    target = Target("directory", str(second.directory / "etc"))
    with own_filesystem(tmp_path / "own") as own:
        ours = open_engine("pipe", second.url)
        with pytest.raises(EngineError, match="named pipes") as caught, _reader(ours, target, own / "pipes"):
            pytest.fail("a reader was given")
    assert caught.value.hint == "leave VOLBACK_TRANSPORT unset"


@pytest.mark.parametrize("way", ["read", pytest.param("write", marks=pytest.mark.long)])
def test_pipes_that_are_not_ours_are_given_up_in_seconds(
    open_engine: Opener, second: SecondEngine, tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a virtual machine's shared directory: the path is there, its pipes lead nowhere."""
    caplog.set_level(logging.DEBUG, "volback.engine.transport")
    target = Target("directory", str(second.directory / "etc"))
    with own_filesystem(tmp_path / "own") as own:
        pipes = own / "pipes"
        second.inside("mkdir", "-p", pipes)
        second.inside("mkfifo", pipes / "scan", pipes / "names", pipes / "data")
        second.inside("touch", pipes / "messages")
        ours, started = open_engine(None, second.url), time.monotonic()
        if way == "read":
            _read(ours, target, pipes)
        else:
            with ours.writer(target, run="test", directory=pipes, write=_shell("cat >/dev/null")) as writer:
                assert writer.write([b"x"]) == 0
        assert ours.transport == "attach"
        assert time.monotonic() - started < 40
        _read(ours, target, pipes)
        assert len(caplog.messages) == 1, "tried once, and not again"
        assert ours.leftover_helpers() == []


def test_a_directory_that_is_not_there_is_not_found(
    open_engine: Opener, directory: Directory, transport: Transport, tmp_path: Path
) -> None:
    target = Target("directory", str(tmp_path / "none"))
    with (
        pytest.raises(NotFoundError, match="none does not exist"),
        _reader(open_engine(transport), target, directory()),
    ):
        pytest.fail("a reader was given")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("value", "meant"), [("", None), ("pipe", "pipe"), ("attach", "attach")])
def test_the_environment_forces_a_transport(value: str, meant: str | None) -> None:
    assert load_settings({"VOLBACK_TRANSPORT": value}).transport == meant


def test_a_transport_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="VOLBACK_TRANSPORT=smoke"):
        load_settings({"VOLBACK_TRANSPORT": "smoke"})


def test_a_read_whose_names_cannot_be_passed_on_ends(
    open_engine: Callable[[Transport], Engine], volume_factory: Callable[..., str], directory: Callable[[], Path]
) -> None:
    """As without a descriptor for the pipe of the names: tar waits for them, and nobody waits for tar."""
    target, place = Target("volume", volume_factory()), directory()
    with _reader(open_engine("pipe"), target, place) as reader:
        for _ in reader.scan():
            pass
        (place / "names").unlink()
        with pytest.raises(EngineError, match="named pipe of a helper: No such file"):
            list(reader.read([b"./\0"]))


_LATE = b"late"
_STDERR = 2


class _LateErrors(attach._Wire):
    """A connection on which standard error comes one delivery late: an engine copies both outputs apart."""

    _late = b""

    def receive(self) -> memoryview:
        return memoryview(_LATE) if self._late else super().receive()

    def demultiplex(self, received: memoryview) -> Iterator[tuple[int, memoryview]]:
        if received == _LATE:
            late, self._late = self._late, b""
            yield _STDERR, memoryview(late)
            return
        for stream, piece in super().demultiplex(received):
            if stream == STDOUT:
                yield stream, piece
            else:
                self._late += piece


def test_what_a_scan_said_is_there_at_its_end(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "_Wire", _LateErrors)
    scan = ["sh", "-c", "echo path; echo denied >&2", "sh"]
    with _reader(
        open_engine("attach"), Target("volume", volume_factory()), directory(), scan=scan, rescan=True
    ) as reader:
        for _ in range(2):
            assert b"".join(reader.scan()) == b"path\n" + tar.SCAN_END.encode()
            assert reader.messages() == b"denied\n"
