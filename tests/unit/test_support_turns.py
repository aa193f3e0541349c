"""Turns of tests that share an engine."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

from tests.support.turns import turn


def test_two_run_beside_each_other(tmp_path: Path) -> None:
    with turn(tmp_path, alone=False), turn(tmp_path, alone=False):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["gate", "room"]


def _is_held(path: Path) -> bool:
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_one_alone_waits_for_the_others_and_lets_none_go_before_it(tmp_path: Path) -> None:
    order: list[str] = []

    def run(name: str, *, alone: bool) -> threading.Thread:
        def work() -> None:
            with turn(tmp_path, alone=alone):
                order.append(name)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    with turn(tmp_path, alone=False):
        threads = [run("alone", alone=True)]
        while not _is_held(tmp_path / "gate"):
            time.sleep(0.01)
        threads.append(run("beside", alone=False))
        threads[1].join(0.3)
        order.append("first")
    for thread in threads:
        thread.join()
    assert order == ["first", "alone", "beside"]
