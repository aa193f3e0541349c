"""The published schema of what `--json` writes: made of the types of the documents, and real documents keep to it.

What a test of tests/e2e makes volback write is held to it too: see `Volback` in tests/support/engine.py.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from scripts.reference import helps, json_schema
from tests.support.engine import PROJECT
from tests.support.repository import use_here
from tests.support.schema import faults, faults_of_said
from volback.archive.age_keys import Identity
from volback.cli.app import parser
from volback.cli.documents.schema import RESULTS, WITHOUT
from volback.cli.main import run
from volback.schedule import scheduler

FILE = PROJECT / "docs/reference/json-schema.json"
CONFIG = """
[repositories.main]
url = "{place}/repository"

[jobs.nightly]
repository = "main"
volumes = ["db"]
schedule = "30 2 * * *"

[notifications.me]
urls = ["json://127.0.0.1:9/"]
"""
ALICE = Identity.new()
SCHEDULE = ["--cron", "--root", "{place}/root"]
HERE: dict[str, tuple[list[str], int]] = {
    "init": (["--encrypt", "--recipient", str(ALICE.recipient)], 0),
    "list": ([], 0),
    "version": ([], 0),
    "key list": ([], 0),
    "key add": (["second", "--new-passphrase-file", "{place}/passphrase"], 0),
    "key passwd": (["second", "--new-passphrase-file", "{place}/passphrase"], 0),
    "key remove": (["second"], 0),
    "key export": (["{place}/sheet"], 0),
    "key host": ([], 0),
    "key pin": (["{recipient}"], 0),
    "key rotate": ([], 0),
    "config check": ([], 0),
    "config show": ([], 0),
    "jobs": ([], 0),
    "run": (["nightly"], 8),
    "status": ([], 3),
    "doctor": ([], 8),
    "schedule install": (SCHEDULE, 0),
    "schedule show": (SCHEDULE[1:], 0),
    "schedule remove": (SCHEDULE[1:], 0),
    "scheduler": (["--check"], 0),
    "notify": ([], 1),
    "completion": (["zsh"], 0),
    "plugin install": ([], 0),
    "plugin remove": ([], 0),
}
"""Commands that need no engine, or fail without one in a part, with arguments and the exit code; in this order."""
ELSEWHERE = {
    "migrate": "test_migrate.py",
    "config init": "test_config_commands.py",
    "key trust": "test_trusted_hosts.py",
}
"""Tests of tests/e2e that run the others, beside the contract."""


def test_the_published_schema_is_that_of_the_types() -> None:
    if os.environ.get("VOLBACK_TEST_WRITE_DOCS") == "yes":
        FILE.write_text(json_schema())
    assert json_schema() == FILE.read_text(), "VOLBACK_TEST_WRITE_DOCS=yes writes it anew"
    jsonschema.Draft202012Validator.check_schema(json.loads(FILE.read_text()))


def test_every_command_that_writes_a_document_has_a_schema() -> None:
    leaves = {path.removeprefix("volback ") for path, _ in helps(parser())} - {"volback"}
    leaves -= {path.rpartition(" ")[0] for path in leaves}
    assert leaves == {*RESULTS, *WITHOUT}


def test_a_document_of_every_command_is_held_to_it() -> None:
    """Of those that are not run below: the contract has them, or another test runs them with --json."""
    contract = (PROJECT / "tests/e2e/test_json_contract.py").read_text()
    in_contract = set(re.findall(r'result_of\(.*"([a-z ]+)"\)', contract)) | set(
        re.findall(r'\(\["(hold|release|note|tag", "add|tag", "remove)"', contract)
    )
    for command, file in ELSEWHERE.items():
        text = (PROJECT / "tests/e2e" / file).read_text()
        assert '"--json"' in text, command
        assert all(f'"{word}"' in text for word in command.split()), command
    found = {command.replace('", "', " ") for command in in_contract} | set(HERE) | set(ELSEWHERE)
    assert found >= set(RESULTS)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration and all that the commands need."""
    use_here(monkeypatch, tmp_path, "repository")
    (tmp_path / "volback.toml").write_text(CONFIG.format(place=tmp_path))
    (tmp_path / "passphrase").write_text("a long passphrase\n")
    (tmp_path / "identity").write_text(f"{ALICE}\n")
    for name in ("passphrase", "identity"):
        (tmp_path / name).chmod(0o600)
    (tmp_path / "root/etc/cron.d").mkdir(parents=True)
    monkeypatch.setenv("VOLBACK_CONFIG", str(tmp_path / "volback.toml"))
    monkeypatch.setenv("VOLBACK_IDENTITY_FILE", str(tmp_path / "identity"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path


def test_real_documents_keep_to_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat = scheduler._beat_file(place / "state")
    beat.parent.mkdir(parents=True, exist_ok=True)
    beat.write_text(json.dumps({"pid": os.getpid(), "at": time.time()}))
    words = {"place": str(place), "recipient": ""}
    wrong = {}
    for command, (arguments, code) in HERE.items():
        got = run([*command.split(), *(argument.format(**words) for argument in arguments), "--json"])
        said = capsys.readouterr()
        document = json.loads(said.out)
        words |= {"recipient": document.get("result", {}).get("recipient") or words["recipient"]}
        assert (document["command"], got) == (command, code), said.out
        assert "result" in document, command
        wrong[command] = faults(document)
    assert {command: found for command, found in wrong.items() if found} == {}


def test_the_documents_that_the_reference_shows_keep_to_it() -> None:
    shown = re.findall(r"^```json\n(.+?)\n```$", (FILE.parent / "json.md").read_text(), re.MULTILINE | re.DOTALL)
    assert [faults(json.loads(text)) for text in shown] == [[], []]


@pytest.mark.parametrize(
    "document",
    [
        {"schema": 1, "command": "version", "ok": True, "result": {"version": "1", "format": 1}, "warnings": []},
        {"schema": 2, "command": "version", "ok": True},
        {"schema": 1, "command": "key host", "ok": True, "result": {"key": "k", "more": 1}, "warnings": []},
        {"schema": 1, "command": "list", "ok": False, "error": {"kind": "usage", "message": "m", "exit_code": 2}},
        {"schema": 1, "command": "new", "ok": True, "result": {}, "warnings": []},
    ],
)
def test_what_is_not_as_published_is_found(document: Any) -> None:
    assert faults(document) != []


def test_errors_and_lines_of_the_log_keep_to_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nonsense"], ["list", "--no-such"], ["restore", "db"]):
        run([*arguments, "--json"])
        document = json.loads(capsys.readouterr().out)
        assert (document["ok"], faults(document)) == (False, [])
    run(["run", "nightly", "--verbose", "--log-format", "json"])
    lines = capsys.readouterr().err
    assert '"level": "ERROR"' in lines
    assert faults_of_said("", lines) == []
    assert faults_of_said("", lines.replace('"level"', '"Level"')) != []
