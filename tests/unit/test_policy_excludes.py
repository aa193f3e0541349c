"""Exclude patterns as expressions over single paths; what a plan leaves out because of them is tested with the plan."""

from __future__ import annotations

import pytest

from volback.errors import UsageError
from volback.policy.excludes import exclusion


def test_no_patterns_exclude_nothing() -> None:
    assert exclusion([]) is None


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.log", b"a.log", True),
        ("*.log", b"deep/in/it/a.log", True),
        ("*.log", b"a.log/x", False),  # the directory matches, and takes with it all that is below
        ("/cache", b"cache", True),
        ("/cache", b"deep/cache", False),
        ("cache/tmp", b"cache/tmp", True),
        ("cache/tmp", b"deep/cache/tmp", False),
        ("a/**/b", b"a/b", True),
        ("a/**/b", b"a/x/y/b", True),
        ("a*b", b"a/b", False),
        ("a?b", b"a/b", False),
        ("a[!x]b", b"a/b", False),
        ("a[!x]b", b"ayb", True),
        ("[a", b"[a", True),
        ("caf\udce9", b"caf\xe9", True),
    ],
)
def test_a_pattern_matches_a_path(pattern: str, path: bytes, matches: bool) -> None:
    excluded = exclusion([pattern])
    assert excluded is not None
    assert bool(excluded.match(path)) is matches


@pytest.mark.parametrize("pattern", ["", "/", "//"])
def test_pattern_that_would_exclude_everything_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="everything"):
        exclusion([pattern])


def test_pattern_with_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(UsageError, match=r"pattern '\[z-a\]x' is not valid: bad character range"):
        exclusion(["*.log", "[z-a]x"])
