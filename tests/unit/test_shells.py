"""Completion in the shells themselves: fish asks for it, and zsh in a terminal. For bash see test_completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import PROJECT
from tests.support.repository import IDS, make_backup, use_here
from volback.cli.completion import SCRIPTS
from volback.store.local import LocalStore

pytestmark = pytest.mark.programs

_ZSH = r"""zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "fpath=($PWD \$fpath); autoload -Uz compinit; compinit -u -D; print REA''DY"
zpty -r shell out '*READY*' || exit 1
for typed in "$@"; do
  zpty -n -w shell "$typed"$'\t\n'
  zpty -w shell "print EN''D"
  zpty -r shell out '*END*' || exit 1
  print -r -- "$out"
done
zpty -d shell
"""
"""Types each line with a tab and return: what the tab has made of it is run."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a repository, the scripts for the shells, and volback as a program."""
    use_here(monkeypatch, tmp_path, "repository")
    make_backup(LocalStore(tmp_path / "repository"), IDS[0], volume="db", data_bytes=100)
    program = tmp_path / "bin/volback"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m volback "$@"\n')
    program.chmod(0o755)
    (tmp_path / "_volback").write_text(SCRIPTS["zsh"])
    (tmp_path / "volback.fish").write_text(SCRIPTS["fish"])
    (tmp_path / "typed.zsh").write_text(_ZSH)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_fish(place: Path) -> None:
    asked = [
        f"complete -C '{typed}'" for typed in ("volback sche", f"volback show db@{IDS[0][:8]}", "volback list --las")
    ]
    lines = _said("fish", "-c", "; ".join(["source volback.fish", *asked])).splitlines()
    assert [line.partition("\t")[0] for line in lines] == ["scheduler", "schedule", f"db@{IDS[0]}", "--last"]
    assert all(line.partition("\t")[2] for line in lines if "@" not in line), "with its help"


def test_zsh(place: Path) -> None:
    said = _said("zsh", "-f", "typed.zsh", "volback vers", f"volback show db@{IDS[0][:8]}")
    assert "(format 1, Python" in said
    assert f"backup:       {IDS[0]}" in said.replace("\r", "")
