"""Announce: notifies all targets of a run in parallel, each with its own time limit, and never fails because of it.

Each failed notification is a line in the result: a warning that the caller passes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from volback.interrupts import deferred_signals
from volback.masking import scheme_of
from volback.notify import messages, pings
from volback.notify.metrics import WAIT_S, write_metrics
from volback.notify.report import Report
from volback.notify.targets import MessageTarget, PingTarget, Targets
from volback.notify.text import DEFAULT_BODY, DEFAULT_TITLE, complaint_of_template, render

_GRACE_S = 1.0
"""Extra time for a delivery that ends by its own limit: its reason says more than "given up"."""


def announce_start(targets: Targets, *, run_id: str | None = None) -> list[str]:
    """Notify the monitoring services that a run begins. Raises only Interrupted, after all deliveries."""
    return _run([_pinging(target, "start", run_id) for target in targets.pings])


def announce(targets: Targets, report: Report) -> list[str]:
    """Notify everybody how a run ended, and write the metrics. Raises only Interrupted, after all deliveries.

    For a monitoring service a run with warnings is a success.
    """
    messages = [target for target in targets.messages if report.status in target.on]
    warnings = [warning for target in messages for warning in _template_warnings(target)]
    deliveries = [delivery for target in messages for delivery in _messaging(target, report)]
    deliveries += [_pinging_end(target, report) for target in targets.pings]
    if targets.metrics is not None:
        deliveries.append(_measuring(targets.metrics, report))
    return warnings + _run(deliveries)


class _Delivery(threading.Thread):
    """One message, ping or metrics file. A daemon thread, so that one that hangs does not keep the process from
    ending."""

    def __init__(self, what: str, limit_s: float, deliver: Callable[[], str | None]) -> None:
        super().__init__(daemon=True)
        self.what = what
        self.limit_s = limit_s
        self.reason: str | None = None
        self._deliver = deliver

    def wait(self, limit_s: float) -> None:
        """Wait for its end, if it has a thread."""
        if self.ident is not None:
            self.join(limit_s)

    def run(self) -> None:
        """Deliver it, and keep why it failed."""
        try:
            self.reason = self._deliver()
        except Exception as exc:  # noqa: BLE001 - whatever a service's plugin raises, the job itself has not failed
            self.reason = f"internal error ({type(exc).__name__})"


def _run(deliveries: list[_Delivery]) -> list[str]:
    with deferred_signals():
        return list(_outcomes(deliveries))


def _outcomes(deliveries: list[_Delivery]) -> Iterator[str]:
    started_s = time.monotonic()
    for delivery in deliveries:
        try:
            delivery.start()
        except RuntimeError:  # the machine allows no further thread
            delivery.run()
    for delivery in deliveries:
        delivery.wait(max(0.0, started_s + delivery.limit_s + _GRACE_S - time.monotonic()))
        reason = f"given up after {delivery.limit_s:g} s" if delivery.is_alive() else delivery.reason
        if reason is not None:
            yield f"{delivery.what} failed: {reason}"


def _template_warnings(target: MessageTarget) -> Iterator[str]:
    for name, template in (("title", target.title), ("body", target.body)):
        complaint = complaint_of_template(template) if template is not None else None
        if complaint:
            yield f"notification {target.name!r}: its {name} {complaint}; the default was sent"


def _messaging(target: MessageTarget, report: Report) -> Iterator[_Delivery]:
    title = render(_usable(target.title, DEFAULT_TITLE), report)
    body = render(_usable(target.body, DEFAULT_BODY), report)
    for url in target.urls:
        what = f"notification {target.name!r} ({scheme_of(url)})"
        yield _Delivery(what, target.timeout_s, partial(messages.send, url, report.status, title, body))


def _usable(template: str | None, default: str) -> str:
    return default if template is None or complaint_of_template(template) else template


def _pinging(target: PingTarget, signal: pings.Signal, run_id: str | None, body: bytes | None = None) -> _Delivery:
    what = f"ping {target.name!r} ({signal})"
    return _Delivery(what, target.whole_s, partial(pings.ping, target, signal, run_id=run_id, body=body))


def _pinging_end(target: PingTarget, report: Report) -> _Delivery:
    if report.status == "failure":
        return _pinging(target, "fail", report.run_id, pings.body_of(report))
    return _pinging(target, "success", report.run_id)


def _measuring(path: Path, report: Report) -> _Delivery:
    return _Delivery(f"metrics file {path}", WAIT_S, partial(write_metrics, path, report))
