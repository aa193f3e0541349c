"""Notify targets: the targets that a job's notifications name. They never make a job fail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from volback.config.model import Config, Notification
from volback.config.secrets import UnreadableSecret
from volback.notify.targets import MessageTarget, PingTarget, Targets


def targets_of(config: Config, names: Sequence[str] | None) -> tuple[Targets, list[str]]:
    """Whom to notify for a job that names these (None: everybody), and a warning for each that cannot be notified.

    If none of the named ones can be notified, everybody is.
    """
    targets, warnings = _targets(config, config.notifications if names is None else names)
    if names and not (targets.messages or targets.pings):
        everybody, more = _targets(config, [name for name in config.notifications if name not in names])
        return everybody, warnings + more
    return targets, warnings


def _targets(config: Config, names: Iterable[str]) -> tuple[Targets, list[str]]:
    messages: list[MessageTarget] = []
    pings: list[PingTarget] = []
    warnings: list[str] = []
    for name in names:
        notification = config.notifications.get(name)
        if notification is None:
            warnings.append(f"notification {name!r} cannot be used: see `volback config check`")
            continue
        try:
            urls = tuple(_urls(notification))
            ping = None if notification.ping is None else notification.ping.reveal()
        except UnreadableSecret as exc:
            warnings.append(exc.message)
            continue
        if urls:
            on = frozenset(notification.on)
            messages.append(MessageTarget(name, urls, on, notification.title, notification.body))
        if ping is not None:
            pings.append(PingTarget(name, ping))
    metrics = None if config.metrics is None else config.metrics.textfile
    return Targets(tuple(messages), tuple(pings), metrics), warnings


def _urls(notification: Notification) -> Iterable[str]:
    """A file or a command may return several, one per line."""
    for secret in notification.urls:
        yield from (line.strip() for line in secret.reveal().splitlines() if line.strip())
