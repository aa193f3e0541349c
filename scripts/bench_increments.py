"""The benchmark's case `increments`: what a second backup takes and adds, beside restic and borg.

Each round has a fresh filesystem, as creating files is slow for minutes where many were just deleted: an image in
/dev/shm, which holds the volume (a bind volume), and every contestant's repository and cache. All make their first
backup, then the data is changed once, then each makes the one that counts. After that volback's backups are verified.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import docker

from scripts.bench_changes import DATA, MB
from scripts.bench_contestants import IMAGE, Borg, Contestant, Restic, Volback
from scripts.bench_measure import MIB, Options, Sample, measure, output_of, ratio, spread, verdict
from scripts.bench_place import LABEL, Place, fresh_place, part_of
from tests.support.engine import build_image, remove_containers
from tests.support.fingerprint import differences, fingerprint

CHECKED = (Volback, Restic, Borg)
YOUNG_S = 3
"""A file whose ctime is younger than 2 s when it is read is read again by the next backup."""
BLOCK_BYTES = 64 * 1024
DEPTH = 100
INODES = 3_000_000
"""At scale 1. Their tables are written by mkfs, as the kernel would otherwise do it while something is measured."""


class Goals(NamedTuple):
    """`seconds`, `bytes`: at most these ratios to the contestants' of that name; `limit`: so many bytes at a scale."""

    seconds: Mapping[str, float] = MappingProxyType({})
    bytes: Mapping[str, float] = MappingProxyType({})
    limit: Callable[[float], float] | None = None
    peak_bytes: int | None = None


GOALS = {
    "unchanged": Goals({"restic": 0.5}, limit=lambda _: 64 * 1024),
    "few-directories": Goals({"restic": 0.7}, {"restic": 1.1}),
    "anywhere": Goals({"restic": 1.0}, {"restic": 1.3}),
    "pages": Goals(bytes={"restic": 0.3, "borg": 0.3}),
    "postgres": Goals(bytes={"restic": 0.5, "borg": 0.5}),
    "postgres-short": Goals(bytes={"restic": 0.5, "borg": 0.5}),
    "dump": Goals(bytes={"restic": 0.5, "borg": 0.5}),
    "log": Goals(limit=lambda scale: 5 * MB * scale + 2 * BLOCK_BYTES),
    "million": Goals({"restic": 0.5}, peak_bytes=600 * MIB),
}
DEEP_GOAL, TWO_PASS_GOAL = 1.3, 0.15


@dataclass
class Series:
    """What one contestant's measured backups took, in the order of the rounds."""

    samples: list[Sample] = field(default_factory=list)
    new_bytes: list[int] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return [sample.seconds for sample in self.samples]


def case_increments(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """Every one that was asked for; a table of each."""
    results = {}
    for name in options.only:
        print(f"\n{name}: {_what(name)}, load {os.getloadavg()[0]:.1f}")
        results[name] = _SPECIAL[name](client, options) if name in _SPECIAL else _race(client, options, name)
    return results


def _what(name: str) -> str:
    made, changed = ((step.__doc__ or "").strip().rstrip(".") for step in DATA[name])
    return f"{made}; {changed}"


def _race(client: docker.DockerClient, options: Options, name: str) -> dict[str, Any]:
    series = {contestant.name: Series() for contestant in CHECKED}
    for number in range(options.runs):
        with fresh_place(client, inodes=_inodes(options)) as place:
            _data("make", name, place, options, seed=number)
            contestants = [kind(part_of(place, kind.name)) for kind in CHECKED]
            for contestant in contestants:
                contestant.prepare()
                measure(contestant.backup(), contestant.environment)
            _data("change", name, place, options, seed=number)
            at = number % len(contestants)
            for contestant in (*contestants[at:], *contestants[:at]):
                _measured(contestant, series[contestant.name])
            _verify(contestants[0], backups=2)
    return _report(name, series, options.scale)


def _measured(contestant: Contestant, series: Series) -> None:
    before = contestant.stored_bytes()
    series.samples.append(measure(contestant.backup(), contestant.environment))
    os.sync()
    series.new_bytes.append(contestant.stored_bytes() - before)


def _verify(contestant: Contestant, backups: int) -> None:
    """`verify --data` has to find so many backups, and none damaged; how many is printed."""
    command = [str(Path(sys.executable).with_name("volback")), "verify", "--data", "--json"]
    result = json.loads(output_of(command, contestant.environment))["result"]
    print(f"  verify --data: {result['checked']} of {backups} backups right")
    if result["checked"] != backups or result["damaged"]:
        sys.exit(f"error: volback verify --data found {result}")


def _report(name: str, series: dict[str, Series], scale: float) -> dict[str, Any]:
    goals = GOALS[name]
    ours = series[Volback.name]
    rows = {}
    for other, found in series.items():
        print(f"  {other:8} {spread(found.seconds):22} s  {_bytes(found.new_bytes):36} {_peak(found) / MIB:5.0f} MiB")
        rows[other] = {"seconds": found.seconds, "new_bytes": found.new_bytes, "peak_bytes": _peak(found)}
        if found is not ours:
            rows[other]["seconds_ratio"] = _against("seconds", ours.seconds, found.seconds, goals.seconds.get(other))
            rows[other]["bytes_ratio"] = _against("bytes", ours.new_bytes, found.new_bytes, goals.bytes.get(other))
    if goals.limit is not None:
        _limit("bytes", max(ours.new_bytes), goals.limit(scale))
    if goals.peak_bytes is not None:
        _limit("peak memory", _peak(ours), goals.peak_bytes)
    return rows


def _peak(series: Series) -> int:
    return max(sample.peak_bytes for sample in series.samples)


def _bytes(values: Sequence[int]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,} - {max(values):,}) bytes"


def _against(what: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None) -> float:
    found = ratio(ours, theirs)
    goal_text = "" if goal is None else f"  {verdict(found.of_medians <= goal)} (goal {goal})"
    print(f"    volback's {what} as ratio: {found}{goal_text}")
    return found.of_medians


def _limit(what: str, found: float, limit: float) -> None:
    print(f"    volback's {what}: {found:,.0f}  {verdict(found <= limit)} (goal {limit:,.0f})")


def _case_deep(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """Restore the last one of many increments, and a full backup of the same state."""
    depth = max(2, int(DEPTH * min(1.0, options.scale)))
    seconds: dict[str, list[float]] = {"deep": [], "full": []}
    for number in range(options.runs):
        with fresh_place(client, inodes=_inodes(options)) as place:
            chain, full = Volback(part_of(place, "chain")), Volback(part_of(place, "full"))
            _data("make", "deep", place, options, seed=number)
            for contestant in (chain, full):
                contestant.prepare()
            measure(chain.backup(), chain.environment)
            for step in range(depth):
                _data("change", "deep", place, options, seed=1000 * number + step, wait_s=0)
                measure(chain.backup(), chain.environment)
            measure(full.backup(), full.environment)
            _verify(chain, backups=depth + 1)
            for kind, contestant in (
                (("deep", chain), ("full", full)) if number % 2 else (("full", full), ("deep", chain))
            ):
                seconds[kind].append(_restored_s(contestant, place))
    print(f"  {depth} increments deep {spread(seconds['deep'])} s, full {spread(seconds['full'])} s")
    return seconds | {"ratio": _against("restore", seconds["deep"], seconds["full"], DEEP_GOAL), "depth": depth}


def _restored_s(contestant: Contestant, place: Place) -> float:
    """Restores into a directory of the fresh filesystem, and compares."""
    contestant.prepare_restore()
    sample = measure(contestant.restore(), contestant.environment)
    wrong = differences(fingerprint(place.source), fingerprint(contestant.restored()))
    if wrong:
        sys.exit("\n".join([*wrong[:10], "error: what was restored is not what was backed up"]))
    return sample.seconds


def _case_two_pass(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """The down-time of a container: all read while it is stopped, and only what changed."""
    seconds: dict[str, list[float]] = {"one pass": [], "two passes": []}
    build_image(client, IMAGE, {LABEL: "1"})
    for number in range(options.runs):
        with fresh_place(client, inodes=_inodes(options)) as place, _writer(client, place.volume) as writer:
            contestant = Volback(part_of(place, "volback"))
            contestant.prepare()
            _data("make", "two-pass", place, options, seed=number)
            for kind, how in (("one pass", ["--full", "--no-two-pass"]), ("two passes", ["--two-pass"])):
                command = [*contestant.backup(), "--stop", "--json", *how]
                result = json.loads(output_of(command, contestant.environment))["result"]
                seconds[kind].append(result["downtime_s"][writer])
                _data("change", "two-pass", place, options, seed=number)
            _verify(contestant, backups=2)
    print(f"  down: one pass {spread(seconds['one pass'])} s, two passes {spread(seconds['two passes'])} s")
    return seconds | {"ratio": _against("down-time", seconds["two passes"], seconds["one pass"], TWO_PASS_GOAL)}


_SPECIAL = {"deep": _case_deep, "two-pass": _case_two_pass}
INCREMENTS = tuple(DATA)


@contextmanager
def _writer(client: docker.DockerClient, volume: str) -> Iterator[str]:
    """A container that may write to the volume, and ends at once when it is stopped; its name."""
    script = "trap exit TERM; while :; do sleep 1 & wait; done"
    container = client.containers.run(
        IMAGE, ["sh", "-c", script], detach=True, labels={LABEL: "1"}, network_mode="none", volumes=[f"{volume}:/data"]
    )
    try:
        yield str(container.name)
    finally:
        remove_containers([container])


def _inodes(options: Options) -> int:
    return max(200_000, int(INODES * options.scale))


def _data(action: str, name: str, place: Place, options: Options, *, seed: int, wait_s: float = YOUNG_S) -> None:
    command = [
        sys.executable,
        "-m",
        "scripts.bench_changes",
        action,
        name,
        str(place.source),
        str(options.scale),
        str(seed),
    ]
    subprocess.run(command, check=True)
    time.sleep(wait_s)
