"""Requests that a store has sent are counted by what they do, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from volback.cli.facts import requests_facts
from volback.cli.words import requests_line
from volback.context.repository import Repository
from volback.store.base import Wrapper
from volback.store.limit import LimitStore
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore
from volback.store.traffic import Requests, Traffic, Verb, verb_of

pytestmark = pytest.mark.unit


class Bucket(Wrapper):
    """A store that has sent requests."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(MemoryStore("m"))
        self._traffic = traffic

    @property
    def requests(self) -> Requests:
        return self._traffic.so_far()


@pytest.mark.parametrize(
    ("operation", "verb"),
    [
        ("get_object", "get"), ("head_object", "head"), ("list_objects_v2", "list"), ("list_parts", "list"),
        ("put_object", "put"), ("upload_part", "put"), ("upload_part_copy", "put"), ("create_multipart_upload", "put"),
        ("complete_multipart_upload", "put"), ("delete_object", "delete"), ("abort_multipart_upload", "delete"),
    ],
)  # fmt: skip
def test_an_operation_counts_as_what_it_does(operation: str, verb: Verb) -> None:
    assert verb_of(operation) == verb


def test_requests_of_two_buckets_are_added_up_and_shown() -> None:
    one, other = Traffic(), Traffic()
    for _ in range(1200):
        one.note("get")
    one.received(3 * 1024)
    other.note("put", sent_bytes=500)
    repositories = [Repository(Bucket(traffic), lambda: "web1") for traffic in (one, other)]
    facts = requests_facts(*repositories, Repository(MemoryStore("m"), lambda: "web1"))
    assert facts == {
        "total": 1201, "get": 1200, "head": 0, "list": 0, "put": 1, "delete": 0, "sent_bytes": 500,
        "received_bytes": 3072,
    }  # fmt: skip
    assert requests_line(facts) == ["1,201 requests (1,200 get, 1 put): 3.0 KiB received, 500 B sent"]


def test_a_directory_has_no_requests(tmp_path: Path) -> None:
    repository = Repository(LimitStore(LocalStore(tmp_path), 1e9), lambda: "web1")
    assert requests_facts(repository) is None
    assert requests_line(None) == []


def test_what_was_counted_does_not_change_later() -> None:
    traffic = Traffic()
    before = traffic.so_far()
    traffic.note("list")
    assert (before.total, traffic.so_far().total) == (0, 1)
