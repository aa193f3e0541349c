"""Plain terms: words that readers of earlier versions stumbled over stay out of code, messages, tests and pages.

Each is an archaic turn, a pun, or an everyday word where the field has a term. CHANGELOG.md is not read: it tells
what versions of the past printed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("volback", "tests", "docs", "scripts", "README.md", "CONTRIBUTING.md", "SECURITY.md")

# Whole words, where `_` ends a word too: names of functions and variables count.
FORBIDDEN = {
    "is not valid": r"can(not)? be meant",
    "is not a(n)": r"(?<!there )(?<!what )(is|are|was|were) no (?!(longer|more|slower)\b)[a-z]+",
    "fix": r"mend(s|ed|ing)?",
    "intact, valid": r"(un)?sound",
    "notified, reported, said": r"(un)?told",
    "permanently, without end": r"for ever",
    "in progress, uses it": r"(is|was|be|are) (still )?at it",
    "stopped or paused, quiesced": r"(keep|keeps|keeping|kept) still|to be still|stillness",
    "reported": r"shout(s|ed|ing)?",
    "deferred, delayed": r"(hold|holds|holding|held) back",
    "available, current": r"at hand",
    "by itself": r"own accord",
    "pass": r"(hand|hands|handed|handing) over",
    "ends": r"(come|comes|came) to (its|an|their) end",
    "RetryBudget, a time limit": r"patience",
    "delivery": r"errands?",
}
"""What to write instead, and the expression of what is not to be written."""

ALLOWED = {
    "tests/unit/test_words.py",  # this list
    "tests/unit/test_docs.py",  # a list for the pages alone
}

ALLOWED_TEXT = ('"told"', "told: list[str]")
"""A key of the JSON contract, which stays: the names that `volback notify` has reached."""


def hits(text: str) -> list[str]:
    """Each forbidden word of the text, with what stands around it and what to write instead."""
    for allowed in ALLOWED_TEXT:
        text = text.replace(allowed, "")
    words = re.sub(r"[\s#_]+", " ", text)
    return [
        f"{words[max(0, match.start() - 40) : match.end() + 20]!r}: instead of {match[0]!r} write: {instead}"
        for instead, pattern in FORBIDDEN.items()
        for match in re.finditer(rf"\b({pattern})\b", words, re.IGNORECASE)
    ]


def files() -> list[str]:
    """The text files that are read, relative to the root."""
    places = [ROOT / place for place in PLACES]
    found = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
    names = [file.relative_to(ROOT).as_posix() for file in found if file.is_file() and "__pycache__" not in file.parts]
    return [name for name in names if "golden/format" not in name and name not in ALLOWED]


@pytest.mark.parametrize("name", files())
def test_a_file_is_written_in_plain_terms(name: str) -> None:
    assert hits((ROOT / name).read_text("utf-8", errors="replace")) == []


@pytest.mark.parametrize("text", [
    "a value that cannot be meant", "it is no URL", "mend it", "1 sound", "def a_sound_repository():", "told admins",
    "for ever", "for\n# ever", "another run is at it", "Kept still", "deferred, held back",
])  # fmt: skip
def test_a_forbidden_word_is_found(text: str) -> None:
    assert len(hits(text)) == 1


@pytest.mark.parametrize("text", [
    "there is no cron here", "it is no longer there", "look at it", "recommended", "resounding", "None is unlimited",
])  # fmt: skip
def test_other_words_are_left_alone(text: str) -> None:
    assert hits(text) == []
