"""`prune --job` and what a dry run of a job says of its keep rules, as far as they need no engine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.library import Library, open_from
from tests.support.repository import IDS, make_backup, use_here
from volback.cli.main import run
from volback.config.model import Job
from volback.jobs.steps import prune_sources
from volback.operations.prune import Upcoming, prune
from volback.operations.prune_result import PruneResult
from volback.policy.keep import KeepRules
from volback.settings import Settings


@pytest.fixture
def library(tmp_path: Path) -> Library:
    settings = Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state", host="web1")
    library = open_from(settings, now=lambda: datetime(2026, 11, 28, 12, tzinfo=UTC))
    for id_ in IDS[:3]:
        make_backup(library.repository.store, id_, data_bytes=10)
    return library


def removed(result: PruneResult) -> list[str]:
    assert result.errors == ()
    return [judged.key.id for judged in result.judged if not judged.is_kept]


def test_the_backup_that_a_run_would_make_counts_and_is_not_listed(library: Library) -> None:
    assert removed(prune(*library, KeepRules(last=3), dry_run=True)) == []
    result = prune(*library, KeepRules(last=3), dry_run=True, upcoming=Upcoming())
    assert (removed(result), len(result.judged)) == ([IDS[0]], 3)
    tagged = prune(*library, KeepRules(tags=("nightly",)), dry_run=True, upcoming=Upcoming(("nightly",)))
    assert removed(tagged) == IDS[2::-1], "as the new one is the newest good one"


def test_a_job_without_volumes_prunes_nothing(library: Library) -> None:
    """Where no volume is named, `prune` itself takes all of the host."""
    job = Job("nightly", ("main",), keep=KeepRules(last=1))
    assert list(prune_sources(*library, job, [])) == []


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--keep-last", "1"], 2, "--keep-last and --job exclude each other"),
        (["--all-hosts"], 2, "--all-hosts and --job exclude each other"),
        ([], 4, "there is no job 'nightly' in the configuration"),
    ],
)
def test_the_job_says_how_it_prunes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list[str], code: int, said: str,
) -> None:  # fmt: skip
    use_here(monkeypatch, tmp_path, "repository")
    file = tmp_path / "volback.toml"
    file.write_text('[repositories.main]\nurl = "repository"\n')
    assert run(["--config", str(file), "prune", "--job", "nightly", *options]) == code
    assert capsys.readouterr().err.startswith(f"error: {said}\n")
