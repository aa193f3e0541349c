"""Pings, to real servers on loopback: good, bad, slow and dead ones."""

from __future__ import annotations

import base64
import time

import pytest

from tests.support.listener import dead_address, listening
from tests.support.report import failed
from volback.notify.pings import LOG_BYTES, body_of, complaint_of_ping, ping
from volback.notify.targets import PingTarget

RUN = "c3f1a4de-9f0e-4a5b-8d21-0f6f1b2c3d4e"


def target(url: str, **options: float) -> PingTarget:
    return PingTarget("hc", url, pause_s=0.01, **options)  # type: ignore[arg-type]


def test_start_success_and_fail_go_where_healthchecks_wants_them() -> None:
    with listening() as server:
        there = target(f"{server.url}/ping/uuid")
        assert ping(there, "start", run_id=RUN) is None
        assert ping(there, "success", run_id=RUN) is None
        assert ping(there, "fail", run_id=RUN, body=b"the log") is None
    assert [(heard.method, heard.path, heard.body) for heard in server.heard] == [
        ("GET", f"/ping/uuid/start?rid={RUN}", b""),
        ("GET", f"/ping/uuid?rid={RUN}", b""),
        ("POST", f"/ping/uuid/fail?rid={RUN}", b"the log"),
    ]
    assert server.heard[0].headers["User-Agent"].startswith("volback/")


def test_a_query_of_the_url_stays_and_a_slash_at_its_end_does_not_double() -> None:
    with listening() as server:
        ping(target(f"{server.url}/key/slug/?create=1"), "start", run_id=RUN)
        ping(target(server.url), "fail")
        ping(target(f"{server.url}/caf\u00e9"), "success")
    assert [heard.path for heard in server.heard] == [f"/key/slug/start?create=1&rid={RUN}", "/fail", "/caf%C3%A9"]


def test_a_user_in_the_url_is_sent_as_basic_authentication() -> None:
    with listening() as server:
        assert ping(target(f"http://me:p%40ss@{server.address}/uuid"), "success") is None
    assert server.heard[0].headers["Authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}"


def test_a_server_that_stumbles_is_asked_again() -> None:
    with listening(500, 503, 200) as server:
        assert ping(target(f"{server.url}/uuid"), "success") is None
    assert len(server.heard) == 3


def test_a_server_that_always_fails_is_asked_three_times() -> None:
    with listening(500) as server:
        assert ping(target(f"{server.url}/uuid"), "success") == "the server answered 500 (3 tries)"
    assert len(server.heard) == 3


def test_a_refusal_is_final() -> None:
    with listening(404) as server:
        assert ping(target(f"{server.url}/uuid"), "success") == "the server answered 404"
    assert len(server.heard) == 1


def test_too_many_requests_is_not_final() -> None:
    with listening(429, 200) as server:
        assert ping(target(f"{server.url}/uuid"), "success") is None


def test_a_dead_server() -> None:
    said = ping(target(f"http://{dead_address()}/s3cret"), "success")
    assert said == "Connection refused (3 tries)"


def test_a_name_that_does_not_resolve() -> None:
    said = ping(target("http://nobody.invalid/s3cret", tries=1), "success")
    assert said is not None
    assert "s3cret" not in said


@pytest.mark.parametrize("manner", ["hang", "close"])
def test_a_server_that_does_not_answer(manner: str) -> None:
    with listening(manner=manner) as server:  # type: ignore[arg-type]
        started = time.monotonic()
        said = ping(target(f"{server.url}/s3cret", timeout_s=0.2, tries=2), "success")
        assert time.monotonic() - started < 30
    assert said in ("no answer in 0.2 s (2 tries)", "no HTTP answer (RemoteDisconnected) (2 tries)",
                    "RemoteDisconnected (2 tries)")  # fmt: skip


@pytest.mark.parametrize(
    "url", ["", "uuid", "ftp://host/s3cret", "file:///etc/passwd", "http://", "http://[s3cret", "http://host:s3cret/",
            "http://host/s3cret here", "http://host/s3cret\r\nX: y"],
)  # fmt: skip
def test_a_url_that_cannot_be_is_said_and_not_shown(url: str) -> None:
    complaint = complaint_of_ping(url)
    assert complaint
    assert "s3cret" not in complaint
    assert ping(target(url), "success") == f"its URL {complaint}"


def test_the_body_of_a_failure_is_the_report_and_the_end_of_the_log() -> None:
    log = "".join(f"line {number}\n" for number in range(100_000))
    body = body_of(failed(log_tail=log))
    assert body.startswith(b"0 of 1 volume backed up")
    assert b"db: volume 'db' does not exist" in body
    assert body.endswith(b"line 99998\nline 99999\n")
    assert LOG_BYTES < len(body) < 2 * LOG_BYTES


def test_a_log_that_is_not_utf8_is_sent_all_the_same() -> None:
    assert body_of(failed(log_tail="caf\udce9")).endswith(b"caf?")
