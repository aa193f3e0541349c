"""Pinning: this machine encrypts for whom the configuration says, or for whom a repository was encrypted at first use.

Whoever can write to a repository can put another recipient into its document, and would read all that comes.
"""

from __future__ import annotations

from pathlib import Path

from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.model import RepositoryInfo
from volback.errors import RecipientChanged, UsageError
from volback.state.pinned import CLEAR, pin_recipient, pinned_recipient, remember_recipient


def check_recipient(state: Path, info: RepositoryInfo, configured: str | None, url: str) -> None:
    """Compare for whom a repository is encrypted with what is pinned, which is remembered at the first use.

    Raises RecipientChanged.
    """
    stated = _stated(info)
    pinned = configured or pinned_recipient(state, info.id)
    if pinned is None:
        remember_recipient(state, info.id, stated)
    elif pinned != stated:
        raise _changed(url, stated, pinned, is_configured=configured is not None)


def pin(state: Path, info: RepositoryInfo, recipient: str, configured: str | None, url: str) -> None:
    """Pin a recipient, which must be the repository's. Raises UsageError."""
    stated = _stated(info)
    if recipient != stated:
        has = f"is encrypted for {stated}" if stated else "is not encrypted"
        raise UsageError(f"repository {url} {has}, not for {recipient[:80]}", "see `volback key list`")
    if configured not in (None, recipient):
        raise UsageError(f"the configuration pins {configured}", "change `recipient` in volback.toml")
    pin_recipient(state, info.id, recipient)


def _stated(info: RepositoryInfo) -> str:
    return CLEAR if info.encryption is None else info.encryption.recipient


def _changed(url: str, stated: str, pinned: str, *, is_configured: bool) -> RecipientChanged:
    if not stated:
        return RecipientChanged(
            f"repository {url} is not encrypted now, and it was encrypted for {pinned}",
            f"somebody has replaced its {REPOSITORY_KEY}: bring the former one back before anything is written",
        )
    if not pinned:
        return RecipientChanged(
            f"repository {url} is encrypted for {stated} now, and it was not encrypted",
            f"somebody has replaced its {REPOSITORY_KEY}: bring the former one back before anything is written",
        )
    accept = "change `recipient` in volback.toml" if is_configured else f"volback key pin {stated}"
    return RecipientChanged(
        f"repository {url} is encrypted for {stated} now, and it was for {pinned}",
        f"whoever changed that can read what is written from now on; if you did, with `volback key rotate`: {accept}",
    )
