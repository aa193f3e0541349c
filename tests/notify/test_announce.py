"""Telling all targets at once, over real servers; whatever they do is a warning and no more."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.support.listener import dead_address, listening
from tests.support.mail import mail_server
from tests.support.report import failed, report
from volback.notify.announce import announce, announce_start
from volback.notify.messages import complaint_of_url
from volback.notify.targets import MessageTarget, PingTarget, Targets

ALWAYS = frozenset({"success", "warning", "failure"})


def message(*urls: str, **options: object) -> Targets:
    return Targets(messages=(MessageTarget("ops", urls, **{"on": ALWAYS, **options}),))  # type: ignore[arg-type]


def ping(url: str, **options: float) -> Targets:
    return Targets(pings=(PingTarget("hc", url, **{"pause_s": 0.01, **options}),))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> object:
    yield
    assert capfd.readouterr() == ("", "")


def test_a_message_arrives_with_title_body_and_kind() -> None:
    with listening() as server:
        assert announce(message(f"json://me:passw0rd@{server.address}/hook"), failed()) == []
    sent = json.loads(server.heard[0].body)
    assert sent["title"] == "volback: job nightly on web1 FAILED"
    assert "error: db: volume 'db' does not exist" in sent["message"]
    assert sent["type"] == "failure"
    assert server.heard[0].path == "/hook"


@pytest.mark.parametrize("status", ["success", "warning", "failure"])
def test_a_target_hears_of_what_it_asked_for(status: str) -> None:
    with listening() as server:
        everywhere = Targets(
            messages=tuple(
                MessageTarget(name, (f"json://{server.address}/{name}",), frozenset({name}))
                for name in ("success", "warning", "failure")
            )
        )
        assert announce(everywhere, report(status)) == []  # type: ignore[arg-type]
    assert [heard.path for heard in server.heard] == [f"/{status}"]
    assert json.loads(server.heard[0].body)["type"] == status


def test_by_itself_a_target_hears_of_warnings_and_failures() -> None:
    assert MessageTarget("ops", ()).on == {"warning", "failure"}


def test_templates_fill_title_and_body() -> None:
    with listening() as server:
        target = message(f"form://{server.address}", title="$job\n$status", body="took $duration")
        assert announce(target, report()) == []
    sent = urllib.parse.parse_qs(server.heard[0].body.decode())
    assert (sent["title"], sent["message"]) == (["nightly success"], ["took 1 min 20 s"])


def test_a_template_that_cannot_be_used_gives_way_to_the_default_with_a_warning() -> None:
    with listening() as server:
        said = announce(message(f"json://{server.address}", title="$nobody", body="$"), report())
    assert [warning.partition(" has")[0].partition(" names")[0] for warning in said] == [
        "notification 'ops': its title", "notification 'ops': its body",
    ]  # fmt: skip
    assert json.loads(server.heard[0].body)["title"] == "volback: job nightly on web1 is done"


@pytest.mark.parametrize(
    "service", ["ntfy://{}/topic", "gotify://{}/tokentokentoken", "slack://{}", "apprise://{}/key"]
)
def test_services_are_reached_by_their_urls(service: str) -> None:
    with listening() as server:
        announce(message(service.format(server.address)), report())
        heard = len(server.heard)
    assert heard == (0 if service.startswith("slack") else 1)


def test_each_failure_is_a_warning_without_a_secret() -> None:
    secret = "s3cr3t-t0ken"
    with listening(500) as server:
        urls = (
            f"json://me:{secret}@{server.address}/{secret}?+X-Key={secret}",
            f"gotify://{server.address}/{secret}",
            f"ntfy://{secret}:{secret}@{dead_address()}/{secret}",
            f"nosuchservice://{secret}",
            f"slack://{secret}",
            secret,
        )
        said = announce(message(*urls), report())
    assert [warning.partition(" failed: ")[0] for warning in said] == [
        f"notification 'ops' ({scheme})" for scheme in ("json", "gotify", "ntfy", "nosuchservice", "slack", "unknown")
    ]
    assert "500" in said[0]
    assert secret not in repr((said, message(*urls)))
    assert [complaint_of_url(url) is None for url in urls] == [True, True, True, False, False, False]
    assert secret not in repr([complaint_of_url(url) for url in urls])


def test_one_that_fails_does_not_keep_the_others_from_hearing() -> None:
    with listening() as server:
        said = announce(message(f"json://{dead_address()}", f"json://{server.address}"), report())
    assert len(said) == 1
    assert len(server.heard) == 1


@pytest.mark.parametrize("manner", ["hang", "drip"])
def test_a_message_that_hangs_is_given_up(manner: str) -> None:
    with listening(manner=manner) as server:  # type: ignore[arg-type]
        started = time.monotonic()
        said = announce(message(f"json://{server.address}/s3cret?rto=60", timeout_s=0.2), report())
        assert time.monotonic() - started < 30
    assert said == ["notification 'ops' (json) failed: given up after 0.2 s"]


def test_one_that_hangs_does_not_hold_the_process_at_its_end() -> None:
    with listening(manner="hang") as server:
        script = f"""if True:
            from tests.notify.test_announce import message
            from tests.support.report import report
            from volback.notify.announce import announce
            print(announce(message("json://{server.address}/?rto=600", timeout_s=0.2), report()))
        """
        done = subprocess.run([sys.executable, "-c", script], timeout=50, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[\"notification 'ops' (json) failed: given up after 0.2 s\"]\n", "")


def test_a_signal_waits_until_everybody_is_notified(tmp_path: Path) -> None:
    with listening(manner="hang") as server:
        script = f"""if True:
            from tests.notify.test_announce import message
            from tests.support.report import report
            from volback import interrupts
            from volback.errors import Interrupted
            from volback.notify.announce import announce
            interrupts.install()
            try:
                announce(message("json://{server.address}/?rto=600"), report())
            except Interrupted as exc:
                print(exc.exit_code)
        """
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        while not server.heard:
            assert child.poll() is None
            time.sleep(0.01)
        child.terminate()
        time.sleep(0.2)
        assert child.poll() is None
        server.released.set()
        assert child.communicate(timeout=50)[0] == "143\n"


def test_a_message_goes_by_mail() -> None:
    with mail_server() as mails:
        url = f"mailto://{mails.address}/?from=backup@web1.example&to=ops@example.org&mode=insecure&format=text"
        assert announce(message(url), failed()) == []
    (mail,) = mails.received
    assert mail["To"] == "ops@example.org"
    assert mail["Subject"] == "volback: job nightly on web1 FAILED"
    text = mail.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert "error: db: volume 'db' does not exist" in text.decode()


def test_a_ping_that_drips_is_given_up() -> None:
    with listening(manner="drip") as server:
        said = announce(ping(f"{server.url}/s3cret", timeout_s=0.3, tries=1), report())
    assert said == ["ping 'hc' (success) failed: given up after 0.3 s"]


def test_targets_are_notified_in_parallel() -> None:
    with listening(manner="hang") as server:
        urls = [f"json://{server.address}/{number}?rto=60" for number in range(20)]
        started = time.monotonic()
        assert len(announce(message(*urls, timeout_s=1.0), report())) == 20
        assert time.monotonic() - started < 15


@pytest.mark.parametrize(("status", "path"), [("success", "/u"), ("warning", "/u"), ("failure", "/u/fail")])
def test_pings_tell_start_and_end_with_one_run_id(status: str, path: str) -> None:
    with listening() as server:
        target = ping(f"{server.url}/u")
        assert announce_start(target, run_id="abc") == []
        assert announce(target, report(status, run_id="abc", log_tail="last words")) == []  # type: ignore[arg-type]
    assert [heard.path for heard in server.heard] == ["/u/start?rid=abc", f"{path}?rid=abc"]
    assert server.heard[1].body.endswith(b"last words" if status == "failure" else b"")


def test_a_dead_ping_is_a_warning_without_its_url() -> None:
    target = ping(f"http://{dead_address()}/s3cret")
    assert announce_start(target) == ["ping 'hc' (start) failed: Connection refused (3 tries)"]
    assert announce(target, failed()) == ["ping 'hc' (fail) failed: Connection refused (3 tries)"]
    assert "s3cret" not in repr(target)


def test_metrics_are_written_and_their_failure_is_a_warning(tmp_path: Path) -> None:
    assert announce(Targets(metrics=tmp_path / "volback.prom"), report()) == []
    assert (
        'volback_files{host="web1",volback_job="nightly",volume="db"} 1222.0' in (tmp_path / "volback.prom").read_text()
    )
    missing = tmp_path / "no/volback.prom"
    assert announce(Targets(metrics=missing), report()) == [f"metrics file {missing} failed: No such file or directory"]


def test_a_plugin_that_raises_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("json://s3cret")

    monkeypatch.setattr("volback.notify.messages.send", broken)
    assert announce(message("json://s3cret"), report()) == [
        "notification 'ops' (json) failed: internal error (RuntimeError)"
    ]


def test_what_apprise_logs_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        announce(message(f"json://me:s3cret@{dead_address()}"), report())
    assert "s3cret" not in caplog.text


def test_nobody_to_tell_is_nothing_to_do() -> None:
    assert announce(Targets(), report()) == []
    assert announce_start(Targets()) == []
