"""Exclude patterns as expressions over single paths; what a plan leaves out because of them is tested with the plan."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator

import pytest

from tests.support.regex_steps import count_steps
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
        ("./cache", b"cache", True),
        ("./cache", b"deep/cache", False),
        ("./cache/./tmp//", b"cache/tmp", True),
        (".*", b"deep/.cache", True),
        ("a/[.]/b", b"a/./b", True),
        ("a/**/b", b"a/b", True),
        ("a/**/b", b"a/x/y/b", True),
        ("**/b", b"x/y/b", True),
        ("a/**", b"a/x/y", True),
        ("a/**", b"a", False),
        ("a**b", b"ax/yb", True),
        ("a**/b", b"ax/y/b", True),
        ("*a*b*", b"xaxxbx", True),
        ("*.tar.*", b"deep/x.tar.gz", True),
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


@pytest.mark.parametrize("pattern", ["", "/", "//", ".", "./"])
def test_pattern_that_would_exclude_everything_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="everything"):
        exclusion([pattern])


def test_pattern_that_leads_out_of_the_volume_is_refused() -> None:
    with pytest.raises(UsageError, match=r"exclude pattern 'a/\.\./b' leads out of the volume"):
        exclusion(["a/../b"])


def test_pattern_with_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(UsageError, match=r"pattern '\[z-a\]x' is not valid: bad character range"):
        exclusion(["*.log", "[z-a]x"])


ALPHABET = ["a", "b", "/", "*", "**", "?", "[!a]"]
PATHS = [
    path
    for size in range(1, 6)
    for path in map("".join, itertools.product("ab/", repeat=size))
    if not path.startswith("/") and not path.endswith("/") and "//" not in path
]


def _patterns() -> Iterator[str]:
    """Every pattern of up to three parts, and longer ones by chance; where `**` is part of a name it has no slash next
    to it, as `a**/b` matched `ab` in the expression that tries all."""
    chance = random.Random(1)
    short = itertools.chain.from_iterable(itertools.product(ALPHABET, repeat=size) for size in (1, 2, 3))
    long = (chance.choices(ALPHABET, k=chance.randrange(4, 10)) for _ in range(1500))
    for parts in itertools.chain(short, long):
        pattern = "".join(parts)
        if pattern.strip("/") and "***" not in pattern and not re.search(r"[^/]\*\*/", pattern):
            yield pattern


def _trying_all(pattern: str) -> re.Pattern[str]:
    """The expression that tries every place of every star: the definition of a match, and exponential."""
    stem = re.sub("/+", "/", pattern.rstrip("/"))
    stem = stem.lstrip("/") if "/" in stem else f"**/{stem}"
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "[!a]": "(?!/)[^a]"}
    return re.compile("".join(words.get(part, part) for part in re.findall(r"\*\*/|\*+|\?|\[!a\]|[^*?\[]", stem)))


def test_every_pattern_matches_what_trying_all_its_places_matches() -> None:
    differ = []
    for pattern in _patterns():
        excluded, wanted = exclusion([pattern]), _trying_all(pattern)
        assert excluded is not None
        for path in PATHS:
            if (excluded.match(path.encode()) is None) != (wanted.fullmatch(path) is None):
                differ.append((pattern, path))
    assert differ == []


HOSTILE = [
    "*a" * 12 + "*b",
    "*" + "a*" * 100 + "b",
    "*?" * 100 + "b",
    "**/" * 40 + "b",
    "**/*a*a*a*a*a*a*b" * 3,
    "**/" + "a/" * 20 + "b",
    "*[!b]" * 50 + "*b*c",
    "*" * 200 + "b",
    "[" * 500,
    "*[a-z]*[!b-z]" * 30 + "/b",
    "caf\udce9*" * 20 + "b",
    "a**" * 40 + "b",
    "**a*a*a*a*a*a*b**" * 3,
    "a**[!b]*" * 20 + "b",
    "**a**?b**a**?b" * 5,
]
NAMES = [b"a", b"ab", b"caf\xe9", b"a\n["]


def _steps(pattern: str, path: bytes) -> int:
    excluded = exclusion([pattern])
    assert excluded is not None
    matches, steps = count_steps(excluded, path)
    assert matches == (excluded.match(path) is not None)
    return steps


def _few(pattern: str, path: bytes) -> int:
    """A byte is passed once for each slash of the pattern, plus once, and compared with all of one text at most."""
    longest = max(len(text) for text in re.split(r"\*+", pattern))
    return (8 + longest) * len(path) * (1 + pattern.strip("/").count("/")) + 3 * len(pattern)


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("name", NAMES, ids=["a", "ab", "bytes", "odd"])
def test_steps_grow_with_a_name_no_faster_than_its_length(pattern: str, name: bytes) -> None:
    for size in (240, 960):
        path = (name * size)[:size]
        assert _steps(pattern, path) <= _few(pattern, path)


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("size", [1, 60, 255])
def test_steps_grow_with_a_path_no_faster_than_its_length(pattern: str, size: int) -> None:
    """Up to the longest that Linux takes, 4,095 bytes; of short names fewer, as each is a level of the counter."""
    count = 4095 // (size + 1) if size > 1 else 500
    for number in (count // 2, count):
        path = b"/".join([b"a" * size] * number)
        assert _steps(pattern, path) <= _few(pattern, path)


def test_no_pattern_by_chance_takes_many_steps() -> None:
    chance = random.Random(2)
    path = b"a" * 60 + b"/" + b"ab" * 30
    for _ in range(400):
        pattern = "".join(chance.choices([*ALPHABET, "[a-b]"], k=chance.randrange(5, 60)))
        if pattern.strip("/"):
            assert _steps(pattern, path) <= _few(pattern, path), pattern
