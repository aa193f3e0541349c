"""Pings: a request to a monitoring service at a run's start and end, as healthchecks.io documents it.

GET URL/start, GET URL, POST URL/fail with the log's end as the body, each with `rid=UUID`
(https://healthchecks.io/docs/http_api/). Standard library alone.
"""

from __future__ import annotations

import base64
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

import volback
from volback.notify.report import Report
from volback.notify.targets import PingTarget
from volback.notify.text import render
from volback.printable import printable_lines

Signal = Literal["start", "success", "fail"]

LOG_BYTES = 10_000
_PATHS: dict[Signal, str] = {"start": "/start", "success": "", "fail": "/fail"}
_AGAIN = frozenset({408, 425, 429})
"""Statuses after which a request is tried again; others below 500 are final."""


def body_of(report: Report) -> bytes:
    """What a failed run's ping carries: the report, then the end of the log, LOG_BYTES of it at most."""
    report_text = render("$report", report).encode(errors="replace")[:LOG_BYTES]
    log = printable_lines(report.log_tail.encode(errors="replace").decode()).encode()[-LOG_BYTES:]
    return report_text + (b"\n\n" + log if log else b"")


def complaint_of_ping(url: str) -> str | None:
    """Return what is wrong with a ping's URL, None if nothing is; never a part of the URL."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return "is not a URL"
    if not known:
        return "is not an http:// or https:// URL"
    return None if url.isprintable() and " " not in url else "has a character that is not allowed in a URL"


def ping(target: PingTarget, signal: Signal, *, run_id: str | None = None, body: bytes | None = None) -> str | None:
    """Send one signal, with its tries. Returns why it failed, None if it did not; network errors are not raised."""
    complaint = complaint_of_ping(target.url)
    if complaint:
        return f"its URL {complaint}"
    request = _request(urlsplit(target.url), signal, run_id, body)
    for tried in range(1, target.tries + 1):
        reason, final = _send(request, target.timeout_s)
        if reason is None or final:
            return reason
        if tried < target.tries:
            time.sleep(target.pause_s * 2 ** (tried - 1))
    return f"{reason} ({target.tries} tries)"


def _request(parts: SplitResult, signal: Signal, run_id: str | None, body: bytes | None) -> urllib.request.Request:
    path = quote(parts.path.rstrip("/"), safe="/%:~+,;=@!$&'()*") + _PATHS[signal]
    query = "&".join(part for part in (parts.query, f"rid={run_id}" if run_id else "") if part)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit((parts.scheme, host, path or "/", query, "")), data=body)
    request.add_header("User-Agent", f"volback/{volback.__version__}")
    if body is not None:
        request.add_header("Content-Type", "text/plain; charset=utf-8")
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    return request


def _send(request: urllib.request.Request, timeout_s: float) -> tuple[str | None, bool]:
    """Why it failed, and whether trying again is useless. Without the exception's text: it can contain the URL."""
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as exc:
        exc.close()
        return f"the server answered {exc.code}", exc.code < 500 and exc.code not in _AGAIN
    except TimeoutError:
        return f"no answer in {timeout_s:g} s", False
    except urllib.error.URLError as exc:
        return _reason(exc.reason, timeout_s), False
    except OSError as exc:
        return _reason(exc, timeout_s), False
    except (HTTPException, ValueError) as exc:
        return f"no HTTP answer ({type(exc).__name__})", False
    return None, True


def _reason(cause: object, timeout_s: float) -> str:
    if isinstance(cause, TimeoutError):
        return f"no answer in {timeout_s:g} s"
    return (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__
