"""Messages: a report to one apprise URL (mail, chat, push). The only file that imports apprise.

apprise tells why a message failed through its log alone, and what it logs can hold parts of the URL: the log is
caught, and only its last warning comes out, masked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from volback.notify.masking import masked, scheme_of
from volback.notify.report import Status

if TYPE_CHECKING:
    from apprise import NotifyBase

_REASON_CHARS = 300


def complaint_of_url(url: str) -> str | None:
    """Return what is wrong with an apprise URL, None if nothing is; no secret of it is shown."""
    with _caught() as said:
        usable = _instantiate(url) is not None
    return None if usable else f"is no URL that apprise knows ({scheme_of(url)}://...){_because(said, url)}"


def send(url: str, status: Status, title: str, body: str) -> str | None:
    """Send one message. Returns why it failed, None if it did not. How long it takes is the service's matter."""
    import apprise

    with _caught() as said:
        plugin = _instantiate(url)
        if plugin is None:
            return f"it is no URL that apprise knows{_because(said, url)}"
        client = apprise.Apprise(asset=plugin.asset)
        client.add(plugin)
        done = client.notify(
            body=body or title,
            title=" ".join(title.split()),
            notify_type=apprise.NotifyType(status),
            body_format=apprise.NotifyFormat.TEXT,
        )
    return None if done else f"it was not taken{_because(said, url)}"


def _instantiate(url: str) -> NotifyBase | None:
    import apprise

    # With a limit of its own apprise sends in a pool of threads, and one that hangs there holds the process at its end.
    asset = apprise.AppriseAsset(app_id="volback", app_desc="volback", app_url="", async_mode=False, service_timeout=0)
    return apprise.Apprise.instantiate(url, asset=asset)


class _Catch(logging.Handler):
    """Keeps what one thread logs; several messages may be on their way at once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, if it is of this thread."""
        if record.thread == self._thread:
            self.said.append(record.getMessage())


@contextmanager
def _caught() -> Iterator[list[str]]:
    logger = logging.getLogger("apprise")
    logger.propagate = False  # without a handler above it, Python would print its warnings
    catch = _Catch()
    logger.addHandler(catch)
    try:
        yield catch.said
    finally:
        logger.removeHandler(catch)


def _because(said: list[str], url: str) -> str:
    if not said:
        return ""
    line = " ".join(masked(said[-1], url).split())
    return f": {line[:_REASON_CHARS]}"
