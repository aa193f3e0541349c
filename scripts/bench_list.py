"""The benchmark's case `list`: a bucket with a thousand backups, of which each request takes 30 ms.

Server and proxy run on this machine: they take processor time of the same cores.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker

from scripts.bench_measure import Options, measure, output_of, spread, verdict
from tests.support.proxy import Planned, Proxy
from tests.support.repository import IDS, make_backup
from tests.support.s3 import S3Server, rclone_server
from volback.store.memory import MemoryStore

BACKUPS = 1000
LATENCY_S = 0.03
FIRST_GOAL_S, SECOND_GOAL_S = 3.0, 1.0
_DELAYED = Planned("delay", ("HTTP/1.1",), nth=None, delay_s=LATENCY_S)


def case_list(_: docker.DockerClient, options: Options) -> dict[str, Any]:
    """`list` of all, with an empty cache, and once more."""
    count = max(1, int(BACKUPS * options.scale))
    command = [str(Path(sys.executable).with_name("volback")), "list", "--json"]
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    with (
        tempfile.TemporaryDirectory(prefix="volback-bench-") as directory,
        rclone_server(Path(directory, "server")) as (server, _),
        server.bucket() as bucket,
    ):
        _fill(server, bucket, count)
        address = urlsplit(server.endpoint)
        with Proxy((str(address.hostname), address.port or 0), [_DELAYED]).running() as proxy:
            for number in range(options.runs):
                home = Path(directory, f"home{number}")
                environment = server.environment() | {
                    "VOLBACK_S3_ENDPOINT": proxy.endpoint, "VOLBACK_REPO": f"s3://{bucket}/r",
                    "VOLBACK_CACHE": str(home / "cache"), "VOLBACK_STATE_DIR": str(home / "state"),
                    "VOLBACK_HOSTNAME": "web1",
                }  # fmt: skip
                for found in seconds.values():
                    found.append(measure(command, environment).seconds)
                shown = len(json.loads(output_of(command, environment))["result"]["backups"])
                if shown != count:
                    sys.exit(f"error: {shown} of {count} backups were listed")
    for name, goal_s in (("first", FIRST_GOAL_S), ("second", SECOND_GOAL_S)):
        reached = verdict(statistics.median(seconds[name]) <= goal_s)
        print(f"  list of {count} backups, {name}: {spread(seconds[name])} s  {reached} (goal {goal_s:.0f} s)")
    return {"seconds": seconds, "backups": count}


def _fill(server: S3Server, bucket: str, count: int) -> None:
    near = MemoryStore("near")
    for number in range(count):
        make_backup(near, IDS[number % len(IDS)], volume=f"volume{number // len(IDS)}", data_bytes=10)
    client = server.client()
    for stored in near.list():
        client.put_object(Bucket=bucket, Key=f"r/{stored.key}", Body=b"".join(near.open(stored.key)))
