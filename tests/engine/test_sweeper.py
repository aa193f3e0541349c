"""A process of tests that is killed leaves nothing: neither on the engine nor of what it started."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

from tests.support.engine import PROJECT, EngineSession
from tests.support.remote import wait_for

_SESSION = """
import subprocess, sys, time
from pathlib import Path
from tests.support.engine import EngineSession, connect
from tests.support.sweeper import swept

id_, directory, image = sys.argv[1:]
with swept(id_, Path(directory)):
    session = EngineSession(connect(), id_)
    name = session.new_name()
    session.client.volumes.create(name, labels=session.labels)
    sleep = ["sleep", "600"]
    session.client.containers.run(image, sleep, detach=True, labels=session.labels, volumes=[f"{name}:/data"])
    # a helper has no label of the tests, but that of the client whose id lies in its state directory
    Path(directory, "client-id").write_text(id_)
    session.client.containers.create(image, sleep, labels={"volback.client": id_})
    print(subprocess.Popen(sleep).pid, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_of_tests_left_is_removed(engine: EngineSession, test_image: str, tmp_path: Path) -> None:
    killed = EngineSession(engine.client, secrets.token_hex(6))
    killed.client_ids.add(killed.id)
    command = [sys.executable, "-c", _SESSION, killed.id, str(tmp_path), test_image]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT) as process:
            try:
                assert process.stdout is not None
                started = int(process.stdout.readline())
                assert len(killed.leftovers()) == 3
            finally:
                process.kill()
        wait_for(lambda: not killed.leftovers(), "what a killed session left on the engine")
        wait_for(lambda: not Path(f"/proc/{started}/environ").exists() or _is_zombie(started), "its processes")
    finally:
        killed.remove()


def _is_zombie(pid: int) -> bool:
    """It has ended, and nobody has waited for it: so where process 1 reaps none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
