"""Fuzz of every parser of the archive: whatever comes, it raises VolbackError or gives a value, quickly."""

from __future__ import annotations

import time

import pytest

from tests.fuzz.archive_cases import CASES, mutant
from volback.errors import VolbackError

ROUNDS = {
    "walk": 300,
    "cut": 300,
    "cut beside reused": 300,
    "lying index": 300,
    "plan": 300,
    "frame": 500,
    "foreign archive": 500,
}
OTHERWISE = 2000
TIME_MAX_S = 5.0
"""Of processor time for one input: most take a millisecond, the largest has 1.3 MB."""


@pytest.mark.parametrize("name", CASES)
def test_a_parser_of_the_archive_raises_only_our_errors(name: str) -> None:
    parse, seeds = CASES[name]
    rounds = ROUNDS.get(name, OTHERWISE)
    refused, longest = 0, 0
    for number in range(rounds):
        started = time.process_time()
        try:
            parse(mutant(seeds, number))
        except VolbackError as error:
            refused += 1
            longest = max(longest, len(error.message))
        except Exception as exc:
            raise AssertionError(
                f"input {number} of {name!r}: scripts/fuzz --case {name!r} --seed {number} --count 1"
            ) from exc
        assert time.process_time() - started < TIME_MAX_S, number
    assert longest < 1000
    assert refused > rounds // 10 or name == "messages", "the inputs are too tame to show anything"


@pytest.mark.parametrize("name", CASES)
def test_the_seeds_themselves_are_accepted(name: str) -> None:
    parse, seeds = CASES[name]
    for seed in seeds:
        parse(seed)
