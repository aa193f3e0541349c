"""Messages: a report to one apprise URL (mail, chat, push). The only file that imports apprise.

apprise reports why a message failed only in its log, which can contain parts of the URL: the log is captured, and only
its last warning is returned, masked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from volback.masking import scheme_of, without_url
from volback.notify.report import Status

if TYPE_CHECKING:
    from apprise import NotifyBase

_REASON_CHARS = 300


def complaint_of_url(url: str) -> str | None:
    """Return what is wrong with an apprise URL, None if nothing is; it contains no secret of the URL."""
    with _caught() as logged:
        usable = _instantiate(url) is not None
    return None if usable else f"is not a URL that apprise knows ({scheme_of(url)}://...){_because(logged, url)}"


def send(url: str, status: Status, title: str, body: str) -> str | None:
    """Send one message. Returns why it failed, None if it did not. It may take as long as the service takes."""
    import apprise

    with _caught() as logged:
        plugin = _instantiate(url)
        if plugin is None:
            return f"it is not a URL that apprise knows{_because(logged, url)}"
        client = apprise.Apprise(asset=plugin.asset)
        client.add(plugin)
        done = client.notify(
            body=body or title,
            title=" ".join(title.split()),
            notify_type=apprise.NotifyType(status),
            body_format=apprise.NotifyFormat.TEXT,
        )
    return None if done else f"the service did not accept it{_because(logged, url)}"


def _instantiate(url: str) -> NotifyBase | None:
    import apprise

    # With a limit of its own apprise sends in a pool of threads; one that hangs would keep the process from ending.
    asset = apprise.AppriseAsset(app_id="volback", app_desc="volback", app_url="", async_mode=False, service_timeout=0)
    return apprise.Apprise.instantiate(url, asset=asset)


class _Catch(logging.Handler):
    """Keeps what one thread logs; several messages may be sent in parallel."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.logged: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, if this thread logged it."""
        if record.thread == self._thread:
            self.logged.append(record.getMessage())


@contextmanager
def _caught() -> Iterator[list[str]]:
    logger = logging.getLogger("apprise")
    logger.propagate = False  # without a handler above it, Python would print its warnings
    catch = _Catch()
    logger.addHandler(catch)
    try:
        yield catch.logged
    finally:
        logger.removeHandler(catch)


def _because(logged: list[str], url: str) -> str:
    if not logged:
        return ""
    line = " ".join(without_url(logged[-1], url).split())
    return f": {line[:_REASON_CHARS]}"
