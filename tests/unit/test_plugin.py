"""`docker volback ...`: what docker runs is written and removed, and gives volback the words of the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from volback.cli.main import run
from volback.cli.plugin import script

pytestmark = pytest.mark.unit


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "cli-plugins" / "docker-volback"


def test_the_plugin_comes_and_goes(place: Path) -> None:
    assert run(["plugin", "remove"]) == 4
    for _ in range(2):
        assert run(["plugin", "install"]) == 0
        assert place.stat().st_mode & 0o777 == 0o755
    assert run(["plugin", "remove"]) == 0
    assert not place.exists()


def test_what_somebody_else_put_there_stays(place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.write_text("#!/bin/sh\n")
    assert run(["plugin", "install"]) == run(["plugin", "remove"]) == 5
    assert place.read_text() == "#!/bin/sh\n"


def test_docker_gets_the_metadata_and_volback_the_words(tmp_path: Path) -> None:
    program = tmp_path / "docker-volback"
    program.write_text(script("printf '<%s>'"))
    program.chmod(0o755)

    def say(*words: str) -> str:
        return subprocess.run([str(program), *words], capture_output=True, text=True, check=True).stdout

    assert json.loads(say("docker-cli-plugin-metadata"))["SchemaVersion"] == "0.1.0"
    assert say("volback", "list", "a b", "volback") == "<list><a b><volback>"
    assert say("--context", "web", "volback", "list") == "<--context><web><list>"
