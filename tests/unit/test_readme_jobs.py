"""The README's volback.toml: it is good, and has every key that there is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from tests.support.engine import PROJECT
from volback.config.loading import load_config
from volback.store.locate import keys_of


def test_the_readmes_configuration_is_good_and_whole(tmp_path: Path) -> None:
    [text] = re.findall(
        r"^```toml\n(# /etc/volback/volback\.toml\n.*?)^```$", (PROJECT / "README.md").read_text(), re.M | re.S
    )
    file = tmp_path / "volback.toml"
    file.write_text(text)
    config = load_config([file], {"MAIL_PASSWORD": "x"}, keys_of=keys_of)
    assert config.problems == ()
    job = config.jobs["nightly"]
    unset = [field.name for part in (job, job.sources, job.keep, job.limits) for field in fields(part)
             if getattr(part, field.name) in (None, (), 0, 0.0) and field.name != "hourly"]  # fmt: skip
    assert unset == ["all"]
    known = tomllib.loads(text)["jobs"]["nightly"]
    assert len(known) == 21
