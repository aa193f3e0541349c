"""References: what people type, and what volback prints for them to type again."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from volback.catalog.reference import Reference, parse_reference
from volback.errors import UsageError

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1) | st.text(
    "ab/.@%", min_size=1, max_size=9
)
PREFIXES = st.integers(1, 21).map(lambda length: "20261123T160254Z-3f9c"[:length])


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("db", Reference(None, "db")),
        ("db@2026", Reference(None, "db", "2026")),
        ("web1/db@20261123T160254Z-3f9c", Reference("web1", "db", "20261123T160254Z-3f9c")),
        ("web1/db", Reference("web1", "db")),
        ("/srv/data", Reference(None, "/srv/data")),
        ("/srv/data@2026", Reference(None, "/srv/data", "2026")),
        ("web1//srv/data@2026", Reference("web1", "/srv/data", "2026")),
        ("/", Reference(None, "/")),
        ("/srv/data/", Reference(None, "/srv/data")),
        ("//srv//data", Reference(None, "/srv/data")),
        ("web1//srv/data/", Reference("web1", "/srv/data")),
        ("/srv/me%40home", Reference(None, "/srv/me@home")),
        ("a%2Fb/c%25", Reference("a/b", "c%")),
        ("/srv/größe", Reference(None, "/srv/größe")),
    ],
)
def test_every_form_is_read(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@settings(deadline=None)
@given(st.none() | NAMES, NAMES, st.none() | PREFIXES)
@example(None, "/srv/me@home", "2026")
@example("h", "//x/", None)
@example("/h", "a/b", None)
@example(None, "/srv/../x", None)
def test_a_printed_reference_means_the_same(host: str | None, volume: str, id_prefix: str | None) -> None:
    reference = Reference(host, volume, id_prefix)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("text", ["db", "web1/db@2026", "/srv/data@2026", "web1//srv/data", "größe"])
def test_plain_names_print_as_they_are_typed(text: str) -> None:
    assert str(parse_reference(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *["", "@", "@2026", "db@", "web1/", "web1/@2026", "a/b/c", "db@latest", "db@2026@11", "a%", "a%zz", "a%FF"],
        *["db@20261123T160254Z-3f9c0", "\udc80", "/srv/me@home/data", "a\0", "a%00"],
    ],
)
def test_garbage_is_refused_with_a_form_to_follow(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert "VOLUME" in str(caught.value.hint) or "%40" in str(caught.value.hint)


@pytest.mark.parametrize("host", ["x;reboot", "$(reboot)", "`reboot`", "a\x1b[2J", "a\u202eb", "a\\b"])
def test_a_printed_name_does_nothing_in_a_shell_or_a_terminal(host: str) -> None:
    """Names come from the repository, and people copy hints."""
    named = Reference(host, f"/srv/{host}", "2026")
    assert not set("\"'$&;<>|\\`()\x1b\u202e") & set(str(named))
    assert parse_reference(str(named)) == named
