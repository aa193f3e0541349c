"""The benchmark's case `move`: a clone beside `cp -a`, and a move over ssh on loopback beside tar, ssh and tar.

The second engine looks like another host: it has namespaces of its own, and does not see this side's state directory.
All rounds use volumes of the engines' own directories, as people do; nothing of a round stays.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import docker

from scripts.bench_contestants import IMAGE
from scripts.bench_measure import MIB, Options, Sample, measure, ratio, spread, verdict
from scripts.bench_place import LABEL, fresh_place
from tests.support.engine import build_image, remove_volume
from tests.support.fingerprint import differences, fingerprint
from tests.support.remote import SecondEngine, own_filesystem, second_engine, ssh_server
from tests.support.tree import make_mixed_tree

FILES, BYTES = 20_000, 600_000_000
GOAL, DOWNTIME_GOAL, MEMORY_GOAL_MIB = 1.0, 0.15, 200


def case_move(client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """A clone, and a move to another host, with and without zstd; then the down-time of a move in two passes."""
    if not client.images.list(IMAGE):
        build_image(client, IMAGE, {LABEL: "1"})
    with TemporaryDirectory(prefix="volback-bench-") as temporary, second_engine() as second:
        directory = Path(temporary)
        with closing(second.client()) as there:
            build_image(there, IMAGE, {LABEL: "1"})
        with own_filesystem(directory / "state") as state, ssh_server(directory / "ssh", second) as (url, programs):
            bench = _Bench(client, second, options, state=state, url=url, programs=programs)
            try:
                return bench.run()
            finally:
                bench.clean()


class _Bench:
    def __init__(
        self, client: docker.DockerClient, second: SecondEngine, options: Options, *, state: Path, url: str,
        programs: Path,
    ) -> None:  # fmt: skip
        self._client = client
        self._second = second
        self._options = options
        self._name = f"volback-bench-move-{os.getpid()}"
        self._new = f"{self._name}-new"
        self._url = url
        self._environment = {
            "VOLBACK_STATE_DIR": str(state), "VOLBACK_REPO": str(state / "none"), "VOLBACK_CACHE": str(state / "cache"),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        """All comparisons."""
        volume = self._client.volumes.create(self._name, labels={LABEL: "1"})
        source, scale = Path(volume.attrs["Mountpoint"]), self._options.scale
        make_mixed_tree(source, int(FILES * scale), int(BYTES * scale))
        print(f"\nmove: {FILES} files, {BYTES} bytes, at scale {scale}")
        clones = self._races_of_clones()
        move = ["migrate", self._name, "--to", self._url, "--as", self._new]
        rows = [
            *clones,
            self._race("migrate, plain", [*move, "--no-prove", "--no-compress"], self._pipe("cat", "cat")),
            self._race("migrate, zstd", [*move, "--no-prove"], self._pipe("zstd -q -1 -T0", "zstd -q -dc")),
            self._alone("migrate, proven", move),
        ]
        return {"rows": rows, "downtime": self._downtime(source, move)}

    def clean(self) -> None:
        """Remove what was made here and there."""
        for name in (self._name, self._new):
            remove_volume(self._client, name)
        with closing(self._second.client()) as there:
            remove_volume(there, self._new)

    def _races_of_clones(self) -> list[dict[str, Any]]:
        """In a filesystem in memory: a clone is on disk when it says so, and `cp -a` is not, but in the second race."""
        scale = self._options.scale
        with fresh_place(self._client, inodes=200_000) as place:
            make_mixed_tree(place.source, int(FILES * scale), int(BYTES * scale))
            new = place.directory / "new"
            options = [f"--driver-opt={pair}" for pair in ("type=none", "o=bind", f"device={new}")]
            mounts = ["-v", f"{place.volume}:/a:ro", "-v", f"{new}:/b"]

            def reset() -> None:
                remove_volume(self._client, self._new)
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()

            ours = ["clone", place.volume, self._new, "--no-prove", *options]
            theirs = ["docker", "run", "--rm", "--network", "none", *mounts, IMAGE, "cp", "-a", "/a/.", "/b/"]
            synced = ["sh", "-c", f"{shlex.join(theirs)} && sync -f {shlex.quote(str(new))}"]
            races = {"clone": theirs, "clone, cp synced": synced}
            return [
                self._race(label, ours, command, reset=reset, check=lambda: _check(place.source, new))
                for label, command in races.items()
            ]

    def _race(
        self, label: str, arguments: list[str], theirs: list[str], *, reset: Callable[[], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        ours: list[Sample] = []
        others: list[Sample] = []
        for number in range(self._options.runs):
            turns: list[tuple[list[str], list[Sample]]] = [(self._volback(arguments), ours), (theirs, others)]
            for command, samples in turns if number % 2 else reversed(turns):
                (reset or self._remove_new)()
                os.sync()
                samples.append(measure(command, self._environment))
                if number == 0 and samples is ours:
                    (check or self._check)()
        found = ratio([one.seconds for one in ours], [one.seconds for one in others])
        self._print(label, ours, f"{found} of {spread([one.seconds for one in others])} s", found.of_medians <= GOAL)
        return {"case": label, "ours": ours, "theirs": others, "ratio": found._asdict(), "goal": GOAL}

    def _alone(self, label: str, arguments: list[str]) -> dict[str, Any]:
        samples = []
        for _ in range(self._options.runs):
            self._remove_new()
            os.sync()
            samples.append(measure(self._volback(arguments), self._environment))
        self._print(label, samples, "", None)
        return {"case": label, "ours": samples}

    def _downtime(self, source: Path, move: list[str]) -> dict[str, Any]:
        """A container changes 1 % of the files until it is stopped."""
        changed = [path for path in sorted(source.rglob("*")) if path.is_file()][::100]
        random.Random(1).shuffle(changed)
        names = "\n".join(shlex.quote(f"/data/{path.relative_to(source)}") for path in changed)
        script = (
            f"trap 'exit 0' TERM; for name in {names.replace(chr(10), ' ')}; do echo x >>$name; done; sleep 600 & wait"
        )
        seconds = {}
        for how in ("--stop", "--live"):
            self._remove_new()
            container = self._client.containers.run(
                IMAGE, ["/bin/sh", "-c", script], detach=True, labels={LABEL: "1"}, network_mode="none",
                volumes={self._name: {"bind": "/data", "mode": "rw"}},
            )  # fmt: skip
            try:
                done = subprocess.run(
                    self._volback([*move, how, "--json"]), env=os.environ | self._environment, check=True,
                    stdout=subprocess.PIPE,
                )  # fmt: skip
            finally:
                container.remove(force=True)
            seconds[how] = float(json.loads(done.stdout)["result"]["downtime_s"])
        share = seconds["--live"] / seconds["--stop"]
        print(
            f"  down-time: {seconds['--live']:.2f} s in two passes, {seconds['--stop']:.2f} s in one: {share:.2f}"
            f"  {verdict(share <= DOWNTIME_GOAL)} (goal {DOWNTIME_GOAL})"
        )
        return {"live_s": seconds["--live"], "one_pass_s": seconds["--stop"], "goal": DOWNTIME_GOAL}

    def _print(self, label: str, samples: list[Sample], beside: str, reached: bool | None) -> None:
        peak = max(one.peak_bytes for one in samples) / MIB
        word = "" if reached is None else f"  {verdict(reached)} (goal {GOAL})"
        memory = f"{peak:.0f} MiB {verdict(peak <= MEMORY_GOAL_MIB)}"
        print(f"  {label:16} {spread([one.seconds for one in samples])} s  {beside}{word}  {memory}")

    def _volback(self, arguments: list[str]) -> list[str]:
        return [sys.executable, "-m", "volback", *arguments]

    def _pipe(self, pack: str, unpack: str) -> list[str]:
        """tar in a container, through ssh, into tar in a container of the other host."""
        here = f"docker run --rm --network none -v {self._name}:/v:ro {IMAGE} tar -C /v -c --xattrs --acls --sparse ."
        there = f"docker run -i --rm --network none -v {self._new}:/v {IMAGE} tar -C /v -xp --xattrs --acls"
        host, _, port = self._url.removeprefix("ssh://").rpartition(":")
        remote = shlex.quote(f"{unpack} | {there}")
        return ["bash", "-c", f"set -o pipefail; {here} | {pack} | ssh -p {port} {host} {remote}"]

    def _remove_new(self) -> None:
        remove_volume(self._client, self._new)
        with closing(self._second.client()) as there:
            remove_volume(there, self._new)

    def _check(self) -> None:
        _check(Path(self._client.volumes.get(self._name).attrs["Mountpoint"]), self._second.volume_path(self._new))


def _check(source: Path, new: Path) -> None:
    """A fast copy of something else would be no result."""
    wrong = differences(fingerprint(source), fingerprint(new))
    if wrong:
        sys.exit("\n".join([*wrong[:10], "error: the copy is not what was copied"]))
