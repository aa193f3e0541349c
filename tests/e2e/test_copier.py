"""One helper that has both volumes: what it copies is the same bit for bit, and what goes wrong in it is said."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.disks import loop_device, make_ext4, mounted
from tests.support.engine import EngineSession
from tests.support.fingerprint import differences, fingerprint
from tests.support.library import Library, open_from
from tests.support.tree import make_odd_tree
from volback.engine.engine import Engine
from volback.errors import EngineError
from volback.moving.clone import clone
from volback.moving.copier import can_copy, read_report
from volback.moving.move import MoveOptions
from volback.moving.sides import source_side
from volback.operations.prove import Comparison
from volback.settings import Transport

IDENTICAL = Comparison([], [], [])
MIB = 1024 * 1024


def _odd(path: Path) -> None:
    make_odd_tree(path, deep=False)


@pytest.mark.parametrize(
    ("transport", "prove"),
    [
        ("pipe", True),
        pytest.param("pipe", False, marks=pytest.mark.long),
        pytest.param("attach", True, marks=pytest.mark.long),
        ("attach", False),
    ],
    ids=["pipe-proven", "pipe-not-proven", "attach-proven", "attach-not-proven"],
)
def test_an_odd_tree_is_the_same(
    library: Library, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path], *, transport: Transport, prove: bool,
) -> None:  # fmt: skip
    library = open_from(replace(library.ctx.settings, transport=transport))
    original, new = volume_factory("odd", fill=_odd), volume_name("new")
    side = source_side(library.engine, original)
    assert can_copy(side, side, digested=prove)

    done = clone(*library, original, new, MoveOptions(prove=prove))

    assert done.proof == (IDENTICAL if prove else None)
    assert (done.incomplete, done.raw_bytes > MIB) == (False, True)
    assert differences(fingerprint(volume_path(original)), fingerprint(volume_path(new))) == []


def test_pipes_between_its_programs_are_made_wide(
    library: Library, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    original = volume_factory(fill=lambda path: (path / "file").write_bytes(os.urandom(64 * MIB)))
    with caplog.at_level("DEBUG", "volback.engine.inner_pipes"):
        clone(*library, original, volume_name("new"), MoveOptions(prove=False))
    (said,) = caplog.messages
    assert re.fullmatch(r"helper \w{12}: [1-9]\d* pipes between its programs are wide", said)


def test_it_is_not_used_where_a_pace_is_asked_for(
    library: Library, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    roles: list[bool] = []
    reader = Engine.reader

    def noted(self: Engine, *args: object, **options: object) -> object:
        roles.append(options.get("into") is not None)
        return reader(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "reader", noted)
    original = volume_factory(fill=lambda path: (path / "file").write_bytes(os.urandom(MIB)))
    for bytes_s, copies in ((None, True), (1e9, False)):
        roles.clear()
        new = volume_name("new")
        clone(*library, original, new, MoveOptions(bytes_s=bytes_s))
        assert any(roles) is copies
        assert differences(fingerprint(volume_path(original)), fingerprint(volume_path(new))) == []


@pytest.mark.parametrize("prove", [True, False], ids=["proven", "not-proven"])
def test_a_disk_that_gets_full_is_an_error(
    library: Library, engine: EngineSession, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    *, tmp_path: Path, prove: bool,
) -> None:  # fmt: skip
    """Room for the files is there, and none for their directories, which are not counted before."""
    image, new = make_ext4(tmp_path / "image", 8 * MIB, "-m", "0"), volume_name("new")
    with loop_device(image) as device, mounted(tmp_path / "disk", device) as disk:
        room = os.statvfs(disk)

        def fill(path: Path) -> None:
            for number in range(20):
                (path / f"directory-{number}").mkdir()
            (path / "large").write_bytes(os.urandom(room.f_bavail * room.f_bsize))

        original = volume_factory("large", fill=fill)
        options = {"type": "none", "o": "bind", "device": str(disk)}
        with pytest.raises(EngineError, match=f"no space left in volume '{new}': .* did not fit"):
            clone(*library, original, new, MoveOptions(driver_options=options, prove=prove))
    assert new not in {volume.name for volume in engine.client.volumes.list()}
    assert list((library.ctx.settings.state / "runs").iterdir()) == []


def test_a_target_that_cannot_be_synced_is_a_failure(
    library: Library, volume_factory: Callable[..., str], volume_name: Callable[..., str], engine: EngineSession,
    *, image_that_cannot_sync: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    library = open_from(replace(library.ctx.settings, helper_image=image_that_cannot_sync))
    monkeypatch.setattr(Engine, "has_program", lambda self, name: True)  # of an image of one's own it is not known
    original, new = volume_factory(fill=lambda path: (path / "file").touch()), volume_name("new")
    for prove in (True, False):
        with pytest.raises(EngineError, match=f"volume '{new}' could not be written: sync: error syncing '/target'"):
            clone(*library, original, new, MoveOptions(prove=prove))
    assert new not in {volume.name for volume in engine.client.volumes.list()}


def test_a_sync_that_fails_while_more_is_copied_is_a_failure(
    library: Library, volume_factory: Callable[..., str], volume_name: Callable[..., str], engine: EngineSession,
    *, image_whose_first_sync_fails: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The last one does not see that error any more."""
    library = open_from(replace(library.ctx.settings, helper_image=image_whose_first_sync_fails))
    monkeypatch.setattr(Engine, "has_program", lambda self, name: True)
    original = volume_factory(fill=lambda path: (path / "file").write_bytes(bytes(144 * MIB)))
    new = volume_name("new")
    with pytest.raises(EngineError, match=f"volume '{new}' could not be written: sync: error syncing '/target'"):
        clone(*library, original, new, MoveOptions(prove=False))
    assert new not in {volume.name for volume in engine.client.volumes.list()}


def test_a_report_is_read_in_pieces_and_its_end_is_needed() -> None:
    total = b"tar: odd\nTotal bytes read: 5 (5B, 1B/s)"
    whole = b"..\n2\x00%b\x00%b  -\x00" % (total, b"ab" * 32)
    counted: list[int] = []
    report = read_report([whole[at : at + 7] for at in range(0, len(whole), 7)], counted.append)
    assert (report.status, report.messages, report.raw_bytes) == (2, b"tar: odd", 5)
    assert (report.digest, sum(counted)) == (b"\xab" * 32, 8 * MIB)
    for cut in (b"", b"..", whole[:-1]):
        with pytest.raises(EngineError, match="did not say how it ended"):
            read_report([cut], counted.append)
