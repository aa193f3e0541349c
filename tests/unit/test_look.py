"""`diff`, `find`, `history`, `du`, `list`, `show` on a repository of a full backup and increments; no engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.archive import plan_of, read
from tests.support.counting import CountingStore
from tests.support.stored import HOST, VOLUME, store_backup, store_increment
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.cli.main import run
from volback.context.repository import Repository
from volback.errors import NotFoundError, UsageError
from volback.operations.diff import diff_backups
from volback.operations.search import find, history
from volback.operations.usage import usage
from volback.policy.excludes import exclusion
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

NIGHTS = [f"2026112{number}T020000Z-aaaa" for number in range(1, 6)]
FIRST, SECOND, THIRD, FOURTH, FIFTH = NIGHTS
OLD_NS = 1_763_719_200_000_000_000
Shown = Callable[..., list[str]]


class Chain:
    """A tree, and its backups: the first is full, and each other one an increment of the one before."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "tree"
        self.store = LocalStore(directory / "repository")
        self.manifests: list[Manifest] = []
        Catalog(self.store).ensure_repository(lambda: "a" * 32)

    @property
    def repository(self) -> Repository:
        return Repository(self.store, lambda: HOST)

    def write(self, path: str, text: str, at_ns: int = OLD_NS) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)
        os.utime(self.root / path, ns=(at_ns, at_ns))

    def backup(self, id_: str, *, full: bool = False) -> None:
        plan = plan_of(self.root)
        if full or not self.manifests:
            made = store_backup(self.store, id_, plan, [read(self.root, plan)])
        else:
            made = store_increment(
                self.store, id_, plan, lambda plan, wanted: [read(self.root, plan, wanted)], self.manifests[-1]
            )
        Catalog(self.store).commit(made)
        self.manifests.append(made)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Five nights: nothing happens in the second and in the last one."""
    for name, value in {
        "VOLBACK_REPO": str(tmp_path / "repository"), "VOLBACK_STATE_DIR": str(tmp_path / "state"),
        "VOLBACK_HOSTNAME": HOST, "DOCKER_HOST": f"unix://{tmp_path}/no.sock", "VOLBACK_CONFIG": "", "TZ": "UTC",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    made = Chain(tmp_path)
    for number in range(20):
        made.write(f"data/file-{number:02}", f"{number}" * 3000)
    made.write("etc/app.conf", "one\n")
    made.backup(FIRST)
    made.backup(SECOND)
    made.write("etc/app.conf", "number two\n", OLD_NS + 86_400 * 10**9)
    made.write("etc/other.conf", "")
    made.backup(THIRD)
    (made.root / "etc/app.conf").unlink()
    (made.root / "data/file-03").chmod(0o600)
    made.backup(FOURTH)
    made.backup(FIFTH)
    return made


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """Runs a command, and returns the lines on standard output."""

    def show(*arguments: str, exit_code: int = 0) -> list[str]:
        code = run(list(arguments))
        printed = capsys.readouterr()
        assert code == exit_code, printed
        return (printed.out + printed.err).splitlines()

    return show


def _json(lines: list[str]) -> Any:
    return json.loads(lines[0])["result"]


def test_diff_names_what_changed_between_two_backups(chain: Chain, shown: Shown) -> None:
    assert shown("diff", f"{VOLUME}@{FIRST}", f"{VOLUME}@{SECOND}") == ["no differences"]
    assert shown("diff", f"{VOLUME}@{FIRST}", f"{VOLUME}@{THIRD}") == [
        "changed  etc: time",
        "changed  etc/app.conf: content (4 B -> 11 B), time",
        "added    etc/other.conf (0 B)",
        "1 added (0 B), 2 changed (4 B -> 11 B)",
    ]
    assert shown("diff", f"{VOLUME}@{THIRD}", VOLUME) == [
        "changed  data/file-03: mode 0644 -> 0600",
        "changed  etc: time",
        "removed  etc/app.conf (11 B)",
        "1 removed (11 B), 2 changed",
    ]


def test_diff_in_json(chain: Chain, shown: Shown) -> None:
    found = _json(shown("diff", f"{VOLUME}@{FIRST}", f"{VOLUME}@{THIRD}", "--json"))
    assert (found["before"], found["after"]) == (f"{HOST}/{VOLUME}@{FIRST}", f"{HOST}/{VOLUME}@{THIRD}")
    assert [(one["path"], one["kind"], one["changes"]) for one in found["differences"]] == [
        ("etc", "changed", ["time"]),
        ("etc/app.conf", "changed", ["content", "time"]),
        ("etc/other.conf", "added", []),
    ]
    assert [one["before"] and one["before"]["size_bytes"] for one in found["differences"]] == [0, 4, None]
    assert (found["totals"]["added"], found["totals"]["changed"]) == (1, 2)


def test_diff_and_find_and_history_read_no_data(chain: Chain) -> None:
    store = CountingStore(chain.store)
    repository = Repository(store, lambda: HOST)
    assert len(list(diff_backups(repository, f"{VOLUME}@{FIRST}", f"{VOLUME}@{FIFTH}").found)) == 4
    assert len(find(repository, "*.conf", [])[0]) == 3
    assert len(history(repository, VOLUME, b"etc/app.conf")[0]) == 3
    assert {Path(one.key).name for one in store.reads} == {"index.jsonl.zst", "manifest.json", "volback.json"}


def test_diff_does_not_decode_what_both_indexes_share(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a line was decoded")

    monkeypatch.setattr("volback.catalog.index.decode_unit", refuse)
    assert list(diff_backups(chain.repository, f"{VOLUME}@{FOURTH}", f"{VOLUME}@{FIFTH}").found) == []


def test_diff_takes_a_volume_or_a_second_backup(chain: Chain, shown: Shown) -> None:
    assert "--volume and --data" in shown("diff", VOLUME, VOLUME, "--data", exit_code=2)[0]
    assert shown("diff", VOLUME, f"{VOLUME}@2025", exit_code=4)[0].startswith("error: no backup")


def test_find_shows_each_version_with_the_backups_that_have_it(chain: Chain, shown: Shown) -> None:
    expected = [
        f"{VOLUME}  etc/app.conf",
        f"  {FIRST} .. {SECOND}         4 B  2025-11-21 10:00",
        f"  {THIRD}                                 11 B  2025-11-22 10:00",
        f"{VOLUME}  etc/other.conf",
        f"  {THIRD} .. {FIFTH}         0 B  2025-11-21 10:00",
    ]
    for arguments in (
        ["*.conf"], ["/etc/*.conf", VOLUME], ["e*/?*.conf", f"{HOST}/{VOLUME}"], ["./etc/./*.conf"],
    ):  # fmt: skip
        assert shown("find", *arguments) == expected
    assert max(map(len, expected)) <= 80
    assert shown("find", "*.conf", VOLUME, "--all-hosts")[0] == f"{HOST}/{expected[0]}"
    assert shown("find", "other.conf", "--all")[1:] == [
        f"  {id_:<46}         0 B  2025-11-21 10:00" for id_ in (THIRD, FOURTH, FIFTH)
    ]
    assert shown("find", "*.conf", f"{VOLUME}@{FIRST}") == [expected[0], f"  {FIRST:<46}         4 B  2025-11-21 10:00"]
    assert shown("find", "conf") == ["nothing matches 'conf'"]
    assert [line.split()[-3] for line in shown("find", "etc")[1:]] == ["-", "-", "-"]


def test_find_in_json(chain: Chain, shown: Shown) -> None:
    found = _json(shown("find", "app.conf", "--json"))["versions"]
    assert [one["backups"] for one in found] == [[FIRST, SECOND], [THIRD]]
    assert [one["entry"]["size_bytes"] for one in found] == [4, 11]


@pytest.mark.parametrize("pattern", ["*", "data/**", "file-[01]?", "**/file-1*", "file-0[!1-9]", "*ile-07", "data"])
def test_find_misses_nothing_that_the_pattern_matches(chain: Chain, pattern: str) -> None:
    expected = exclusion([pattern])
    assert expected is not None
    paths = {str(path.relative_to(chain.root)).encode() for path in chain.root.rglob("*")}
    found, unread = find(chain.repository, pattern, [f"{VOLUME}@{FIFTH}"])
    assert not unread.errors
    assert {version.state.member.path for version in found} == {path for path in paths if expected.match(path)}
    assert found


def test_find_refuses_what_is_not_there(chain: Chain) -> None:
    with pytest.raises(NotFoundError, match="no backup of nothing on host host"):
        find(chain.repository, "*", ["nothing"])
    with pytest.raises(NotFoundError, match="no backup of nothing on any host"):
        find(chain.repository, "*", [VOLUME, "nothing"], all_hosts=True)
    with pytest.raises(NotFoundError, match="no backup of volume@2025 on host host"):
        find(chain.repository, "*", [VOLUME, f"{VOLUME}@2025"])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "pattern '' matches everything"),
        ("/", "pattern '/' matches everything"),
        ("[z-a]", r"pattern '\[z-a\]' is not valid: bad character range z-a"),
        ("../etc", "pattern '../etc' leads out of the volume"),
    ],
)
def test_find_refuses_a_pattern_by_what_was_given(chain: Chain, pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        find(chain.repository, pattern, [])


def test_a_path_is_the_same_however_it_is_written(chain: Chain, shown: Shown) -> None:
    wanted = str(chain.root / "etc/other.conf")
    assert Path(wanted).exists()
    for path in ("etc/other.conf", "/etc/other.conf", "./etc//other.conf"):
        assert shown("find", path)[0] == f"{VOLUME}  etc/other.conf"
        assert shown("history", VOLUME, path)[1].endswith("absent")
        assert shown("ls", VOLUME, path)[0].endswith("etc/other.conf")


def test_history_names_what_changed_and_when_it_was_not_there(chain: Chain, shown: Shown) -> None:
    lines = shown("history", VOLUME, "/etc/app.conf")
    assert [line.split("  ", 1) for line in lines] == [
        ["BACKUPS", " " * 39 + "STATE"],
        [f"{FIRST} .. {SECOND}", "present: 4 B, 2025-11-21 10:00"],
        [THIRD, " " * 25 + "content (4 B -> 11 B), time"],
        [f"{FOURTH} .. {FIFTH}", "removed"],
    ]
    lines = shown("history", f"{HOST}/{VOLUME}", "etc/other.conf")
    assert [line[48:] for line in lines[1:]] == ["absent", "added: 0 B, 2025-11-21 10:00"]
    assert [line[48:] for line in shown("history", VOLUME, "data/file-03")[1:]] == [
        "present: 2.9 KiB, 2025-11-21 10:00",
        "mode 0644 -> 0600",
    ]
    found = _json(shown("history", VOLUME, "etc/app.conf", "--json"))["states"]
    assert [(one["backups"], one["changes"]) for one in found] == [
        ([FIRST, SECOND], []),
        ([THIRD], ["content", "time"]),
        ([FOURTH, FIFTH], []),
    ]
    assert found[2]["entry"] is None
    assert "is in no backup of volume" in shown("history", VOLUME, "etc/app", exit_code=4)[0]


def test_a_backup_that_cannot_be_read_hides_no_other(chain: Chain, shown: Shown) -> None:
    index = chain.root.parent / "repository" / BackupKey(HOST, VOLUME, THIRD).index
    index.write_bytes(b"x" * index.stat().st_size)
    for arguments in (["find", "etc"], ["history", VOLUME, "etc"]):
        lines = shown(*arguments, exit_code=7)
        assert f"warning: backup {HOST}/{VOLUME}@{THIRD} is damaged: " in "\n".join(lines)
        assert FIRST in "\n".join(lines)


def test_du_says_what_removing_would_free(chain: Chain, shown: Shown) -> None:
    sizes = {stored.key: stored.size_bytes for stored in chain.store.list()}
    found = usage(chain.repository, [])
    assert found.stored_bytes == sum(sizes.values())
    assert found.volumes[0].stored_bytes == sum(sizes.values()) - sizes["volback.json"]
    backups = {backup.key.id: backup for backup in found.volumes[0].backups}
    assert list(backups) == NIGHTS
    for id_, backup in backups.items():
        freed = {key for key in sizes if key.startswith(BackupKey(HOST, VOLUME, id_).prefix)}
        needed = {
            BackupKey(HOST, VOLUME, used.id).prefix + used.name
            for other in chain.manifests
            if other.id != id_
            for used in other.uses
        }
        assert backup.frees_bytes == sum(sizes[key] for key in freed - needed)
        assert backup.stored_bytes == sum(sizes[key] for key in freed)
    assert backups[FIRST].needed_by == [SECOND, THIRD, FOURTH, FIFTH]
    assert backups[FIFTH].needed_by == []
    lines = shown("du", VOLUME)
    assert lines[0].split() == ["BACKUP", "STORED", "FREES", "NEEDED", "BY"]
    assert lines[1].startswith(f"{VOLUME}@{FIRST}")
    assert lines[1].endswith("4 backups")
    assert lines[-2].startswith(f"{VOLUME}: 5 backups, ")
    assert max(map(len, lines)) <= 80
    assert set(_json(shown("du", "--json"))) == {"backups", "volumes", "stored_bytes"}


def test_du_shows_the_backups_that_were_named(chain: Chain, shown: Shown) -> None:
    every = shown("du", VOLUME)
    assert shown("du", f"{VOLUME}@{THIRD}")[1:] == [every[3], *every[-2:]]
    assert shown("du", f"{VOLUME}@{THIRD}", f"{HOST}/{VOLUME}@{FIRST}")[1:3] == [every[1], every[3]]
    assert shown("du", VOLUME, "--all-hosts")[1].split() == f"{HOST}/{every[1]}".split()
    assert "no backup of volume@2025" in shown("du", f"{VOLUME}@2025", exit_code=4)[0]


def test_du_frees_what_removing_frees(chain: Chain) -> None:
    before = usage(chain.repository, [VOLUME])
    chain.repository.catalog.remove([BackupKey(HOST, VOLUME, FIFTH)])
    after = usage(chain.repository, [VOLUME])
    assert before.stored_bytes - after.stored_bytes == before.volumes[0].backups[-1].frees_bytes


def test_du_counts_an_object_that_outlives_its_backup_with_those_that_use_it(chain: Chain) -> None:
    chain.repository.catalog.remove([BackupKey(HOST, VOLUME, id_) for id_ in (FIRST, SECOND, THIRD, FOURTH)])
    (backup,) = usage(chain.repository, [VOLUME]).volumes[0].backups
    data = chain.store.stat(BackupKey(HOST, VOLUME, FIRST).data).size_bytes
    assert backup.frees_bytes is not None
    assert backup.frees_bytes >= data + backup.stored_bytes


def test_du_does_not_know_what_an_unreadable_manifest_uses(chain: Chain, shown: Shown) -> None:
    manifest = chain.root.parent / "repository" / BackupKey(HOST, VOLUME, FOURTH).manifest
    manifest.write_bytes(b"{}")
    backups = usage(chain.repository, []).volumes[0].backups
    assert [backup.frees_bytes is None for backup in backups] == [True, True, True, False, True]
    assert "unknown" in shown("du", exit_code=7)[1]


def test_verify_of_a_subset_reads_its_part_of_the_data(chain: Chain, shown: Shown) -> None:
    assert shown("verify", "--subset", "1/1") == ["5 backups checked (part 1 of 1 of the data), 5 intact"]
    data = chain.root.parent / "repository" / BackupKey(HOST, VOLUME, FIRST).data
    data.write_bytes(bytes(data.stat().st_size))
    assert "5 intact" in shown("verify")[0]
    assert "of the data), 0 intact" in shown("verify", "--subset", "1/1", exit_code=7)[-3]


def test_list_says_what_each_backup_adds_and_shares(chain: Chain, shown: Shown) -> None:
    lines = shown("list")
    assert lines[0].split() == ["BACKUP", "AGE", "FILES", "SIZE", "STORED", "SHARED", "TAGS"]
    assert [line.split()[-1] for line in lines[1:3]] == ["-", "100%"]
    assert max(map(len, lines)) <= 80
    assert "SHARED" not in shown("list", f"{VOLUME}@{FIRST}")[0]


def test_show_says_what_a_backup_adds_and_shares(chain: Chain, shown: Shown) -> None:
    manifest = chain.manifests[2]
    lines = shown("show", f"{VOLUME}@{THIRD}")
    (stored,) = (line for line in lines if line.startswith("stored:"))
    (shared,) = (line for line in lines if line.startswith("shared:"))
    assert stored.split(maxsplit=1)[1] == f"{manifest.stored_bytes} B"
    assert f"({manifest.reused_bytes:,} bytes)" in shared
    assert shared.endswith("of it, with 1 earlier backup")
    assert f"needs:        {FIRST}" in "\n".join(lines)
    assert not any(line.startswith("shared:") for line in shown("show", f"{VOLUME}@{FIRST}"))
