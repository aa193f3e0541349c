"""A person at a terminal is asked for passphrases; what is typed is not shown."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.forked import clean_environment

PASSPHRASE = "correct horse"


class Terminal:
    """Runs volback on a terminal, and answers each question once it stands there."""

    def __init__(self, place: Path) -> None:
        self._environment = clean_environment() | {
            "VOLBACK_REPO": str(place / "repository"),
            "VOLBACK_STATE_DIR": str(place / "state"),
            "DOCKER_HOST": f"unix://{place}/no.sock",
        }

    def __call__(self, *arguments: str, answers: Sequence[tuple[str, str]] = (), code: int = 0) -> str:
        child, terminal = pty.fork()
        if child == 0:
            os.execve(sys.executable, [sys.executable, "-m", "volback", *arguments], self._environment)
        left, shown, answered_to = list(answers), b"", 0
        try:
            while data := self._read(terminal):
                shown += data
                if left and left[0][0].encode() in shown[answered_to:]:
                    answered_to = len(shown)
                    os.write(terminal, f"{left.pop(0)[1]}\n".encode())
        finally:
            os.close(terminal)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = shown.decode()
        assert (status, left) == (code, []), text
        assert PASSPHRASE not in text
        return text

    @staticmethod
    def _read(terminal: int) -> bytes:
        try:
            return os.read(terminal, 65536)
        except OSError:  # Linux: the other side has ended
            return b""


@pytest.fixture
def on_terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_a_repository_is_made_and_opened_with_what_a_person_types(on_terminal: Terminal, tmp_path: Path) -> None:
    new = [("New passphrase of key first: ", PASSPHRASE), ("The same again: ", PASSPHRASE)]
    differ = on_terminal("init", "--encrypt", answers=[new[0], ("The same again: ", "another")], code=2)
    assert "the passphrases differ" in differ
    assert not (tmp_path / "repository").exists()
    on_terminal("init", "--encrypt", answers=new)
    question = f"Passphrase of repository {tmp_path}/repository: "
    sheet = str(tmp_path / "sheet.txt")
    on_terminal("key", "export", sheet, answers=[(question, "another"), (question, PASSPHRASE)])
    assert "AGE-SECRET-KEY-1" in Path(sheet).read_text()
    refused = on_terminal("key", "export", f"{sheet}2", answers=[(question, "")], code=2)
    assert "an identity is needed" in refused
