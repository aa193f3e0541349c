"""Hooks in real containers: what they say is logged line by line, and a failure is one line that says all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession
from tests.support.library import Library, open_from
from volback.errors import EngineError, NotRunningError
from volback.live.hooks import run_hook
from volback.policy.hooks import Hook
from volback.policy.labels import LabelPolicy, hooks_of
from volback.settings import Settings

Factory = Callable[..., Any]


@pytest.fixture
def library(engine: EngineSession, tmp_path: Path) -> Library:
    return open_from(Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state"))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "volback.hooks"]


def test_output_goes_to_the_log_with_the_containers_name(
    library: Library, container_factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    container = container_factory(environment={"PASSWORD": "hunter2"})
    caplog.set_level(logging.DEBUG, "volback")
    command = "echo dump of $((40 + 2)) tables; printf '\\033[31mred\\n'; truncate -s 5000 /tmp/f; cat /tmp/f; : secret"
    run_hook(library.engine, Hook(container.id, command), what="pre-hook")
    first, second, third = logged(caplog)
    assert first == f"{container.name}: dump of 42 tables"
    assert second == f"{container.name}: \\x1b[31mred"
    assert third.startswith(f"{container.name}: \\x00\\x00")
    assert third.endswith("… (5,000 characters)")
    assert len(third) < 5000
    assert "hunter2" not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            "echo one; echo 'pg_dump: error: no such database' >&2; echo; exit 3",
            "status 3: pg_dump: error: no such data",
        ),
        ("exit 1", "status 1: it wrote no message"),
    ],
)
def test_a_hook_that_fails_says_where_and_why(
    library: Library, container_factory: Factory, command: str, reason: str
) -> None:
    container = container_factory()
    with pytest.raises(EngineError) as caught:
        run_hook(library.engine, Hook(container.name, command), what="pre-hook")
    assert f"pre-hook in container '{container.name}' failed with {reason}" in caught.value.message
    assert "--verbose" in str(caught.value.hint)


def test_a_hook_that_takes_too_long_is_a_failure(library: Library, container_factory: Factory) -> None:
    container = container_factory()
    with pytest.raises(
        EngineError, match=f"post-hook in container '{container.name}' did not end within 1 s"
    ) as caught:
        run_hook(library.engine, Hook(container.name, "sleep 500", timeout_s=1), what="post-hook")
    assert caught.value.hint is not None


def test_a_container_that_does_not_run_is_distinguished_from_a_failure(
    library: Library, container_factory: Factory
) -> None:
    container = container_factory("exit 0")
    container.wait()
    with pytest.raises(NotRunningError, match="is exited"):
        run_hook(library.engine, Hook(container.name, "true"), what="pre-hook")


def test_hooks_of_labels_keep_their_containers_order_and_user() -> None:
    policies = [
        ("pg", LabelPolicy(exec_pre="dump", exec_post="clean", exec_user="postgres")),
        ("web", LabelPolicy()),
        ("redis", LabelPolicy(exec_pre="redis-cli SAVE")),
    ]
    before, after = hooks_of(policies)
    assert before == (Hook("pg", "dump", "postgres"), Hook("redis", "redis-cli SAVE"))
    assert after == (Hook("pg", "clean", "postgres"),)
    assert "dump" not in repr(before), "a command may hold a password"
