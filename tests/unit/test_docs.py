"""The documentation is whole: links lead somewhere, every page is found, and commands and names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import volback
from tests.support.engine import PROJECT
from tests.support.pages import INDEX, PAGES, anchors, blocks, command_lines, links, page_id, prose
from volback.cli.app import build
from volback.cli.call import global_options_first
from volback.errors import WORST_FIRST
from volback.notify.metrics import HELP as METRICS
from volback.notify.text import NAMES
from volback.policy.labels import _LABELS as LABELS
from volback.policy.labels import PREFIX
from volback.store.locate import keys_of

README = PROJECT / "README.md"
README_MAX_LINES = 120
REFERENCE = PROJECT / "docs/reference"
PLAIN = re.compile(
    r"\b(cannot be meant|(?<!there )(is|are) no [a-z]+|mend(s|ed|ing)?|sound|told|tells|for ever|at it|kept? still|"
    r"shouted|whom)\b",
    re.IGNORECASE,
)
"""Words that a reader whose third language is English stumbles over."""
COMMAND: Any = typer.main.get_command(build())
"""Of a class that Typer has moved and renamed from version to version."""


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_the_index_lists_every_page() -> None:
    listed = {(INDEX.parent / link.partition("#")[0]).resolve() for link in links(INDEX.read_text())}
    assert set(PAGES) - {INDEX} - listed == set()


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [README]
    while ahead:
        page = ahead.pop()
        if page in PAGES and page not in seen:
            seen.add(page)
            ahead += [(page.parent / link.partition("#")[0]).resolve() for link in links(page.read_text())]
    assert set(PAGES) - seen == set()


def test_a_broken_anchor_is_seen() -> None:
    assert anchors("# One\n\n## Two, and `more`: a [link](x.md)\n") == {"one", "two-and-more-a-link"}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= README_MAX_LINES


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_words_are_plain(page: Path) -> None:
    text = page.read_text()
    written = [prose(text), *blocks(text, "toml"), *blocks(text, "sh"), *blocks(text, "yaml")]
    assert [match[0] for part in written for match in PLAIN.finditer(part)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_is_one_that_volback_takes(page: Path) -> None:
    text = page.read_text()
    inline = re.findall(r"`(volback [a-z][^`]*)`", prose(text))
    for line in (*command_lines(text), *inline):
        words = shlex.split(re.split(r" [|>]|\)", line)[0], comments=True)
        _parse(words[1:], line)


def _parse(arguments: list[str], line: str) -> None:
    """Parse it as the program does, without running it."""
    context, command = None, COMMAND
    name, rest = "volback", global_options_first(arguments)
    try:
        while True:
            context = command.make_context(name, rest, parent=context)
            if not hasattr(command, "commands"):
                return
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    except Exception as exc:
        if not hasattr(exc, "format_message"):
            raise
        pytest.fail(f"{line}: {exc.format_message()}")


def test_a_command_that_there_is_not_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="--no-such-option"):
        _parse(["backup", "db", "--no-such-option"], "volback backup db --no-such-option")


def test_the_settings_page_names_every_setting_of_the_environment() -> None:
    sources = [path.read_text() for path in (PROJECT / "volback").rglob("*.py")]
    settings = {name for source in sources for name in re.findall(r'"(VOLBACK_[A-Z0-9_]+)"', source)}
    settings |= set(keys_of("s3://bucket/prefix").variables)
    assert len(settings) >= 20
    page = (REFERENCE / "settings.md").read_text()
    assert settings == set(re.findall(r"^\| `(VOLBACK_[A-Z0-9_]+)`", page, re.MULTILINE))


def test_the_commands_page_names_the_commands_that_there_are() -> None:
    """Each command has its line in the table, and no other has one."""
    page = (REFERENCE / "commands.md").read_text()
    assert sorted(COMMAND.commands) == sorted(re.findall(r"^\| `volback ([a-z]+)", page, re.MULTILINE))


def test_the_labels_page_names_every_label() -> None:
    page = (REFERENCE / "labels.md").read_text()
    table = page.partition("|---|---|")[2].partition("\n\n")[0]
    named = [name for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)]
    assert {name if name.startswith(PREFIX) else f"{PREFIX}keep{name}" for name in named} == set(LABELS)


def test_the_metrics_page_names_every_metric() -> None:
    page = (REFERENCE / "metrics.md").read_text()
    assert set(re.findall(r"`(volback_[a-z_]+)`", page)) - {"volback_job"} == set(METRICS)
    in_alerts = set(re.findall(r"volback_[a-z_]+", page.partition("```promql")[2]))
    assert in_alerts
    assert in_alerts <= set(METRICS)


def test_the_notifications_page_names_every_template_name() -> None:
    page = (REFERENCE / "notifications.md").read_text()
    table = page.partition("## Templates")[2].partition("## Pings")[0].partition("|---|---|")[2]
    cells = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == set(NAMES)


def test_the_image_says_the_version_that_it_has() -> None:
    text = (PROJECT / "Dockerfile").read_text()
    assert f'ARG VERSION="{volback.__version__}"' in text
    named = set(re.findall(r"org\.opencontainers\.image\.([a-z]+)=", text))
    assert {"source", "version", "revision", "created", "licenses"} <= named


def test_the_exit_codes_page_names_every_code() -> None:
    page = (REFERENCE / "exit-codes.md").read_text()
    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE) for code in row.split(",")}
    assert codes == {0, *WORST_FIRST}
    order = page.partition("in this order: ")[2].partition(". ")[0]
    assert [int(code) for code in re.findall(r"\d+", order)] == [code for code in WORST_FIRST if code]


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"## {volback.__version__}" in (PROJECT / "CHANGELOG.md").read_text()
