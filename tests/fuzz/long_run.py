"""Long runs of the fuzzed parsers, for `scripts/fuzz`: prints the input's number for each failure, and goes on."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import traceback

from tests.fuzz.archive_cases import CASES, Case, mutant
from tests.fuzz.test_catalog_fuzz import CASES as CATALOG_CASES
from volback.errors import VolbackError

SLOW_S = 5.0
FAILURES_MAX = 20
EVERY = CASES | {f"catalog: {name}": Case(*case) for name, case in CATALOG_CASES.items()}


def main(arguments: list[str]) -> int:
    """Run and return the exit code: 1 if any parser failed."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, over all cases")
    parser.add_argument("--seed", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, help="inputs a case, instead of a time")
    parser.add_argument("--case", choices=EVERY, help="one case only")
    chosen = parser.parse_args(arguments)
    cases = {chosen.case: EVERY[chosen.case]} if chosen.case else EVERY
    deadline = time.monotonic() + (chosen.seconds if chosen.count is None else float("inf"))
    stop = None if chosen.count is None else chosen.seed + chosen.count
    done, failures = 0, 0
    for number in itertools.count(chosen.seed):
        if number == stop or time.monotonic() > deadline or failures >= FAILURES_MAX:
            break
        failures += sum(not _passes(name, case, number) for name, case in cases.items())
        done += len(cases)
    print(f"{done} inputs to {len(cases)} parsers from number {chosen.seed} on: {failures} failures")
    return min(failures, 1)


def _passes(name: str, case: Case, number: int) -> bool:
    started = time.monotonic()
    try:
        case.parse(mutant(case.seeds, number))
    except VolbackError:
        pass
    except Exception:  # noqa: BLE001 - what a parser raises besides is what is looked for
        traceback.print_exc()
        print(f"FAILED: again with scripts/fuzz --case {name!r} --seed {number} --count 1", flush=True)
        return False
    took_s = time.monotonic() - started
    if took_s > SLOW_S:
        print(f"SLOW, {took_s:.1f} s: again with scripts/fuzz --case {name!r} --seed {number} --count 1", flush=True)
    return took_s <= SLOW_S


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
