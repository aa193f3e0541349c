"""The volback.toml of the reference is good and has every key that there is; those of other pages are good too."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.engine import PROJECT
from tests.support.pages import PAGES, blocks, page_id
from volback.config.loading import load_config
from volback.store.locate import keys_of


def test_the_configuration_of_the_reference_is_good_and_whole(tmp_path: Path) -> None:
    [text] = re.findall(
        r"^```toml\n(# /etc/volback/volback\.toml\n.*?)^```$",
        (PROJECT / "docs/reference/configuration.md").read_text(),
        re.M | re.S,
    )
    file = tmp_path / "volback.toml"
    file.write_text(text)
    config = load_config([file], {"MAIL_PASSWORD": "x"}, keys_of=keys_of)
    assert config.problems == ()
    job = config.jobs["nightly"]
    assert job.keep is not None
    unset = [field.name for part in (job, job.sources, job.keep, job.limits) for field in fields(part)
             if getattr(part, field.name) in (None, (), 0, 0.0)
             and field.name not in ("hourly", "anonymous_s")]  # fmt: skip
    assert unset == ["full", "reread", "ignore_inode", "ignore_ctime", "create", "reencrypt", "all", "anonymous"]
    known = tomllib.loads(text)["jobs"]["nightly"]
    assert len(known) == 38


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text(), "toml")], ids=page_id)
def test_every_configuration_that_a_page_shows_is_good(page: Path, tmp_path: Path) -> None:
    for text in blocks(page.read_text(), "toml"):
        file = tmp_path / "volback.toml"
        file.write_text(text)
        assert load_config([file], {"MAIL_PASSWORD": "x"}, keys_of=keys_of).problems == ()
