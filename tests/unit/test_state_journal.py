"""The journal: typed entries that know their engine or repository, and files that earlier versions wrote."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from volback.errors import FormatError
from volback.policy.hooks import Hook
from volback.state.journal import (
    Entry,
    HeldContainer,
    HeldService,
    HeldTask,
    Journal,
    NewBackup,
    NewDirectory,
    NewFile,
    NewVolume,
    PendingHook,
    Reading,
    Replacing,
    decode_journal,
    encode_journal,
)

ENTRIES: list[Entry] = [
    NewBackup(repository="/r", prefix="h/v/1/"),
    Reading(repository="/r", prefix="h/v/0/"),
    NewVolume(engine="A", host="web1", name="v"),
    NewDirectory(engine="A", path="/srv"),
    NewFile(engine="A", path="/srv/.volback-1.part"),
    Replacing(engine="A", volume="v", repository="/r", safety_backup="h/v@1"),
    HeldContainer(engine="A", id="c1", name="pg", how="stop", phase="held", needs=["c0"]),
    HeldContainer(engine="A", id="c3", name="app", how="stop", restart_policy=("on-failure", 3), stays=True),
    HeldService(
        engine="A",
        id="s1",
        name="web",
        node="n1",
        phase="stopping",
        version=3,
        replicas=2,
        running=1,
        containers=[HeldTask(id="c2", name="web.1.t", mounts=[("volume", "v", "/data", True)])],
    ),
    PendingHook(engine="A", hook=Hook("pg", "secret", "postgres")),
    PendingHook(engine="A", hook=Hook("web.1.t", "secret"), service="s1"),
]


def test_every_entry_is_read_as_it_was_written() -> None:
    written = encode_journal(Journal(pid=7, kind="restore", subject="v", entries=ENTRIES))
    read = decode_journal(written)
    assert [type(entry) for entry in read.entries] == [type(entry) for entry in ENTRIES]
    assert encode_journal(read) == written


def test_what_stays_stopped_is_not_to_run_again_but_still_to_be_settled() -> None:
    journal = Journal(pid=7, kind="quiesce", entries=ENTRIES)
    assert {entry.name for entry in journal.held} == {"pg", "web"}
    assert "app" in {entry.name for entry in journal.quiescing if isinstance(entry, HeldContainer)}
    assert journal.is_open


def test_entries_are_found_by_type_and_dropped_one_by_one() -> None:
    twice = [NewVolume(engine="A", name="v"), NewVolume(engine="A", name="v")]
    journal = Journal(pid=7, kind="restore", entries=[*ENTRIES, *twice])
    journal.drop(twice[1])
    assert journal.of(NewVolume) == [ENTRIES[2], twice[0]]
    assert [entry.what for entry in journal.quiescing] == [
        "stopped container 'pg'",
        "stopped container 'app'",
        "scaled-down service 'web'",
        "command to be run in container 'pg'",
        "command to be run in container 'web.1.t'",
    ]


@pytest.mark.parametrize("entry", ENTRIES)
def test_all_but_what_is_only_read_has_to_be_remembered(entry: Entry) -> None:
    assert Journal(pid=7, kind="restore", entries=[entry]).is_open == (not isinstance(entry, Reading))


def test_an_entry_says_where_it_is() -> None:
    assert [entry.where for entry in ENTRIES[:4]] == [
        "in /r", "in /r", "on the engine of host web1", "on engine A",
    ]  # fmt: skip
    assert NewVolume(engine="", name="v").where == "on an unknown engine"


def test_a_journal_of_a_version_without_types_is_read() -> None:
    old = {
        "pid": 7, "command": "restore host/db@1", "repository": "/r", "prefixes": ["h/v/1/"], "reading": ["h/v/0/"],
        "engine": None, "containers": [], "hooks": [], "volumes": ["v"], "directories": ["/srv"],
        "replacing": {"db": "h/db@1", "web": ""},
    }  # fmt: skip
    journal = decode_journal(json.dumps(old).encode())
    assert (journal.pid, journal.kind, journal.subject) == (7, "restore", "host/db@1")
    assert journal.entries == [
        NewBackup(repository="/r", prefix="h/v/1/"),
        Reading(repository="/r", prefix="h/v/0/"),
        NewVolume(engine="", name="v"),
        NewDirectory(engine="", path="/srv"),
        Replacing(engine="", volume="db", repository="/r", safety_backup="h/db@1"),
        Replacing(engine="", volume="web", repository="/r", safety_backup=None),
    ]


def test_containers_of_a_version_without_types_keep_their_engine() -> None:
    held = {"id": "c1", "name": "pg", "how": "pause", "phase": "stopping", "grace_s": 3, "since": 1.5, "needs": ["c0"]}
    hook = {"container": "pg", "command": "x", "user": None, "timeout_s": 9.0}
    old = {"pid": 7, "command": "quiesce", "engine": "A", "containers": [held], "hooks": [hook]}
    journal = decode_journal(json.dumps(old).encode())
    (container,), (pending,) = journal.of(HeldContainer), journal.of(PendingHook)
    assert (container.engine, container.phase, container.needs) == ("A", "stopping", ["c0"])
    assert pending == PendingHook(engine="A", hook=Hook("pg", "x", timeout_s=9.0))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"{}", b'{"pid": 1}', b'{"pid": 1, "kind": "fly"}', b'{"pid": 1, "command": "fly 1"}',
        b'{"pid": 1, "kind": "copy", "entries": [{"type": "of-tomorrow"}]}', b"\xff",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises(FormatError, match="journal that this version cannot read"):
        decode_journal(data)


FIRST_READ = """
import sys
import threading
from volback.state.journal import HeldContainer, Journal, decode_journal, encode_journal
held = HeldContainer(engine="A", id="c1", name="pg", how="stop", needs=["c0"])
data = encode_journal(Journal(pid=7, kind="quiesce", entries=[held] * 100))
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def read():
    start.wait()
    decode_journal(data)
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_first_journal_may_be_read_by_several_threads_at_once() -> None:
    """Without a decoder made before, about half of such processes died of SIGSEGV."""
    ends = [subprocess.run([sys.executable, "-c", FIRST_READ], check=False, timeout=60).returncode for _ in range(3)]
    assert ends == [0, 0, 0]
