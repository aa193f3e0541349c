"""The benchmark's cases: data from a seed, rounds A B C A B C, medians with their spread, as text and JSON.

Each round runs every contestant once, beginning with another, so that a slow minute hits all alike; a ratio's spread is
that of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker

from scripts.bench_contestants import ALL, IMAGE, S3, Contestant, Volback
from scripts.bench_increments import INCREMENTS, case_increments
from scripts.bench_list import case_list
from scripts.bench_measure import MIB, Options, Sample, bytes_below, measure, ratio, spread, verdict
from scripts.bench_move import case_move
from scripts.bench_place import LABEL, Place, fresh_place, place_in
from scripts.bench_prune import case_prune
from tests.support.engine import build_image, connect
from tests.support.fingerprint import differences, fingerprint

GIB = 1024 * MIB
# Ratios of volback's median to the other's, from the project's own aims.
RATIO_GOALS = {
    ("backup", "tar_zstd"): 1.0,
    ("backup", "restic"): 0.5,
    ("backup", "borg"): 0.5,
    ("restore", "tar_zstd"): 1.0,
    ("restore", "restic"): 0.9,
    ("backup", "tar_zstd + sync"): 1.15,
    ("backup", "restic + sync"): 0.5,
    ("restore", "tar_zstd + sync"): 1.1,
    ("restore", "restic + sync"): 0.5,
    # In the S3 case it is volback_s3's time.
    ("backup", "volback"): 1.3,
    ("restore", "volback"): 1.3,
    ("backup", "restic_s3"): 1.0,
    ("restore", "restic_s3"): 1.0,
}
HELP_GOAL_S = 0.25


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="may be repeated; default: all")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of files and bytes (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="for what has no place in memory")
    parser.add_argument(
        "--only", action="append", choices=sorted(INCREMENTS), help="of the case increments; repeatable"
    )
    given = parser.parse_args()
    if given.runs < 1 or given.scale <= 0:
        parser.error("--runs must be 1 or more, --scale greater than 0")
    client = connect()
    directory = given.directory.absolute() / f"volback-bench-{os.getpid()}"
    options = Options(given.runs, given.scale, directory, tuple(given.only or INCREMENTS))
    results: dict[str, Any] = {"machine": _machine(client), "runs": options.runs, "scale": options.scale, "cases": {}}
    _print_machine(results["machine"])
    try:
        for case in given.case or CASES:
            results["cases"][case] = CASES[case](client, options)
            if given.json:
                given.json.write_text(json.dumps(results, indent=2) + "\n")
    finally:
        shutil.rmtree(options.directory, ignore_errors=True)
        if client.images.list(IMAGE):
            client.images.remove(IMAGE, force=True)


def case_mixed(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """58,000 files of 1.3 GB."""
    return _race(client, options, "mixed", 58_000, 1_300_000_000)


def case_big(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """4 files of 500 MB."""
    return _race(client, options, "big", 4, 500_000_000)


def case_tiny(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """200,000 files of at most 300 bytes."""
    return _race(client, options, "tiny", 200_000)


def case_s3(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """The mixed tree into a bucket on loopback, beside the local store and restic to the same server."""
    with _s3_server(options):
        return _race(client, options, "mixed", 58_000, 1_300_000_000, contestants=S3)


def case_memory(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """Peak memory of volback alone."""
    rows = []
    for label, kind, numbers, goal_mib in (
        ("1 GiB", "big", (1, GIB), 200),
        ("10 GiB", "big", (10, GIB), 200),
        ("a million files", "tiny", (1_000_000,), 600),
    ):
        with place_in(client, options.directory / label.replace(" ", "-")) as place:  # on a disk: 20 GiB
            _fill(place, options, kind, *numbers)
            contestant = Volback(place)
            for action, _, sample in _both(contestant, place, check=False):
                row = {"data": label, "action": action, "peak_bytes": sample.peak_bytes, "seconds": sample.seconds}
                rows.append(row | {"goal_bytes": goal_mib * MIB})
                word = verdict(sample.peak_bytes <= goal_mib * MIB)
                print(f"  {label:16} {action:8} {sample.peak_bytes / MIB:6.0f} MiB  {word} (goal {goal_mib} MiB)")
    return {"rows": rows}


def case_help(_: docker.DockerClient, options: Options) -> dict[str, Any]:
    """How long `volback --help` takes."""
    command = [str(Path(sys.executable).with_name("volback")), "--help"]
    measure(command, {})  # the first run compiles
    seconds = [measure(command, {}).seconds for _ in range(options.runs * 4)]
    median = statistics.median(seconds)
    print(f"\nvolback --help\n  {spread(seconds, 3)} s  {verdict(median <= HELP_GOAL_S)} (goal {HELP_GOAL_S} s)")
    return {"seconds": seconds, "median_s": median, "goal_s": HELP_GOAL_S}


CASES: dict[str, Callable[[docker.DockerClient, Options], dict[str, Any]]] = {
    "mixed": case_mixed,
    "big": case_big,
    "tiny": case_tiny,
    "s3": case_s3,
    "memory": case_memory,
    "help": case_help,
    "increments": case_increments,
    "prune": case_prune,
    "move": case_move,
    "list": case_list,
}


@contextmanager
def _s3_server(options: Options) -> Iterator[None]:
    """A real S3 server, and the environment that leads to it."""
    directory = options.directory.with_name(options.directory.name + "-s3")
    script = Path(__file__).with_name("stack")
    try:
        subprocess.run([script, "up", directory], check=True, stdout=subprocess.DEVNULL)
        for line in (directory / "env").read_text().splitlines():
            name, value = line.removeprefix("export ").split("=", 1)
            os.environ[name] = value
        yield
    finally:
        subprocess.run([script, "down", directory], check=True, stdout=subprocess.DEVNULL)


def _race(
    client: docker.DockerClient,
    options: Options,
    kind: str,
    *numbers: int,
    contestants: tuple[Callable[[Place], Contestant], ...] = ALL,
) -> dict[str, Any]:
    """Every contestant in every round, backup then restore; the first one's times are held against the others'."""
    if not client.images.list(IMAGE):
        build_image(client, IMAGE, {LABEL: "1"})
    samples: dict[str, dict[str, list[Sample]]] = {"backup": {}, "restore": {}}
    stored: dict[str, int] = {}
    raw_bytes = 0
    print(f"\n{kind}: {' '.join(map(str, numbers))} (files, bytes), at scale {options.scale}")
    for number in range(options.runs):
        at = number % len(contestants)
        for make in (*contestants[at:], *contestants[:at]):
            with _filled_place(client, options, kind, *numbers) as place:
                contestant = make(place)
                _say(f"  round {number + 1}: {contestant.name}")
                raw_bytes = bytes_below(place.source)
                for action, name, sample in _both(contestant, place, check=number == 0):
                    samples[action].setdefault(name, []).append(sample)
                stored[contestant.name] = contestant.stored_bytes()
    return _report(samples, stored, raw_bytes)


def _both(contestant: Contestant, place: Place, *, check: bool) -> Iterator[tuple[str, str, Sample]]:
    """Each action, with the name under which it counts: what does not sync what it writes counts with a sync, too."""
    contestant.prepare()
    yield from _measured("backup", contestant, contestant.backup())
    os.sync()
    contestant.prepare_restore()
    yield from _measured("restore", contestant, contestant.restore())
    if check and contestant.name.startswith("volback"):  # a fast restore of something else would be no result
        wrong = differences(fingerprint(place.source), fingerprint(contestant.restored()))
        if wrong:
            sys.exit("\n".join([*wrong[:10], "error: what volback restored is not what it backed up"]))


def _measured(action: str, contestant: Contestant, command: list[str]) -> Iterator[tuple[str, str, Sample]]:
    sample = measure(command, contestant.environment)
    yield action, contestant.name, sample
    written = contestant.unsynced()
    if written is not None:
        sync = measure(["sync", "--file-system", str(written)], {})
        yield action, f"{contestant.name} + sync", Sample(sample.seconds + sync.seconds, sample.peak_bytes)


@contextmanager
def _filled_place(client: docker.DockerClient, options: Options, kind: str, *numbers: int) -> Iterator[Place]:
    """A fresh filesystem, whose volume has data."""
    with fresh_place(client, inodes=max(200_000, 3 * numbers[0])) as place:
        _fill(place, options, kind, *numbers)
        yield place


def _fill(place: Place, options: Options, kind: str, *numbers: int) -> None:
    """Another process makes the data: ru_maxrss of a child begins at what its parent had."""
    scaled = [max(1, int(number * options.scale)) for number in numbers]
    if kind == "big":  # fewer bytes a file, not fewer files
        scaled[0] = numbers[0]
    command = [sys.executable, "-m", "tests.support.tree", kind, str(place.source), *map(str, scaled)]
    subprocess.run(command, check=True)
    os.sync()


def _report(samples: dict[str, dict[str, list[Sample]]], stored: dict[str, int], raw_bytes: int) -> dict[str, Any]:
    report: dict[str, Any] = {"raw_bytes": raw_bytes, "stored_bytes": stored, "actions": {}}
    for action, by_name in samples.items():
        first = next(iter(by_name))
        ours = [sample.seconds for sample in by_name[first]]
        print(f"  {action}: seconds as median (least - most), MB/s, peak memory, {first}'s time as ratio to theirs")
        rows = report["actions"][action] = {}
        for name, found in by_name.items():
            rows[name] = row = _row(found, ours, RATIO_GOALS.get((action, name)))
            rate = raw_bytes / row["median_s"] / 1e6
            line = f"    {name:18} {spread(row['seconds']):24} {rate:6.0f} {row['peak_bytes'] / MIB:6.0f} MiB"
            print(line if name == first else f"{line}  {_ratio(row)}")
    sizes = ", ".join(f"{name} {size / raw_bytes:.2f}" for name, size in stored.items())
    print(f"  stored, of {raw_bytes / 1e6:.0f} MB: {sizes}")
    return report


def _row(found: list[Sample], ours: list[float], goal: float | None) -> dict[str, Any]:
    theirs = [sample.seconds for sample in found]
    of_ours = ratio(ours, theirs)
    return {
        "seconds": theirs,
        "median_s": statistics.median(theirs),
        "peak_bytes": max(sample.peak_bytes for sample in found),
        "ratio": of_ours.of_medians,
        "ratio_least": of_ours.least,
        "ratio_most": of_ours.most,
        "ratio_goal": goal,
    }


def _ratio(row: dict[str, Any]) -> str:
    text = f"ratio {row['ratio']:.2f} ({row['ratio_least']:.2f} - {row['ratio_most']:.2f})"
    goal = row["ratio_goal"]
    return text if goal is None else f"{text}  {verdict(row['ratio'] <= goal)} (goal {goal})"


def _machine(client: docker.DockerClient) -> dict[str, Any]:
    commands = {"tar": "tar --version", "zstd": "zstd -qV", "restic": "restic version", "borg": "borg --version"}
    versions = {
        name: subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout.splitlines()[0]
        for name, command in commands.items()
    }
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return versions | {
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": client.version()["Version"],
    }


def _print_machine(machine: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in machine.items()))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
