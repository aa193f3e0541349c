"""Three screens in a real terminal of 80 columns: no line is wider, and no id is cut or wrapped."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from scripts.screenshots import COLUMNS, SCREENS, make_place, screen


def test_screens_fit_80_columns_and_ids_are_whole() -> None:
    with tempfile.TemporaryDirectory(prefix="v") as name:  # short, as the repository's address is shown
        place = Path(name)
        environment = make_place(place)
        said = {key: re.sub(r"\x1b\[[0-9;]*m", "", screen(words, environment)) for key, words in SCREENS.items()}
        ids = {path.parent.name for path in place.rglob("manifest.json")}
    for key, text in said.items():
        assert [line for line in text.splitlines() if len(line) > COLUMNS] == [], key
        assert len(text.splitlines()) > 10, key
    assert len(ids) >= 5
    assert set(re.findall(r"\b\d{8}T\d{6}Z-\w{4}\b", said["list"])) >= ids
    assert said["status"].startswith("PROBLEM"), "what is wrong comes first"
    assert "wiki_attachments-of-the-whole-department" in said["status"]
    assert "wiki_attachments-of-the-whole-department" in said["list"]
