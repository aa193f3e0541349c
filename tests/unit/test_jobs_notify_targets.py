"""Whom a job's run notifies: those that it names, and everybody where none of them can be notified."""

from __future__ import annotations

from pathlib import Path

from volback.config.loading import load_config
from volback.jobs.notify_targets import targets_of
from volback.store.locate import keys_of

TEXT = """
[notifications.a]
urls_file = "URLS"
on = "success"
[notifications.b]
ping = "http://localhost/b"
[notifications.c]
urls_file = "/no/such/file"
"""


def test_targets(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("json://one\n\njson://two\n")
    file = tmp_path / "volback.toml"
    file.write_text(TEXT.replace("URLS", str(tmp_path / "urls")))
    config = load_config([file], {}, keys_of=keys_of)
    assert config.problems == ()

    targets, warnings = targets_of(config, ["a"])
    (target,) = targets.messages
    assert (target.name, target.urls, set(target.on)) == ("a", ("json://one", "json://two"), {"success"})
    assert (targets.pings, warnings) == ((), [])
    targets, warnings = targets_of(config, None)
    assert ([target.name for target in targets.messages], [target.name for target in targets.pings]) == (["a"], ["b"])
    assert warnings == [f"{file}:8: notifications.c.urls_file: cannot read /no/such/file: No such file or directory"]
    targets, warnings = targets_of(config, ["c", "typo"])
    assert (len(targets.messages), len(targets.pings), len(warnings)) == (1, 1, 2), "nobody of those: so everybody"
    targets, warnings = targets_of(config, [])
    assert (targets.messages, targets.pings, warnings) == ((), (), [])
