"""Pinning: this machine encrypts for whom the configuration says, or for whom a repository was encrypted at first use.

Whoever can write to a repository can put another recipient into its document, and would read all that comes. So another
one is accepted if a person does that, or if who holds the former identity has signed that it follows.
"""

from __future__ import annotations

import logging
from pathlib import Path

from volback.archive.signing import is_signed_by
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.model import RepositoryInfo
from volback.catalog.objects import Objects
from volback.catalog.successions import read_succession
from volback.errors import RecipientChanged, UsageError
from volback.state.pinned import CLEAR, Pin, pinned, remember_pin, write_pin

log = logging.getLogger(__name__)

_ROTATIONS_MAX = 100
"""More that this machine has missed are not followed."""


def check_recipient(state: Path, info: RepositoryInfo, configured: str | None, url: str, objects: Objects) -> None:
    """Compare for whom a repository is encrypted with what is pinned, which is remembered at the first use.

    What follows it by a rotation is pinned from then on, and said. Raises RecipientChanged.
    """
    stated = _stated(info)
    if configured is not None:
        if configured != stated.recipient:
            raise _changed(url, stated.recipient, configured, is_configured=True)
        return
    known = pinned(state, info.id)
    if known is None:
        remember_pin(state, info.id, stated)
    elif known.recipient == stated.recipient:
        if known.authority not in {None, stated.authority}:
            raise _not_signed(url)
    elif follows(objects, info.id, known, stated):
        log.warning(
            "repository %s was rotated: this machine encrypts for %s from now on, and did for %s",
            url, stated.recipient, known.recipient,
        )  # fmt: skip
        remember_pin(state, info.id, stated)
    else:
        raise _changed(url, stated.recipient, known.recipient, is_configured=False)


def follows(objects: Objects, repository_id: str, known: Pin, stated: Pin) -> bool:
    """Whether one rotation or several, each signed by who held the identity before it, lead from what is pinned to what
    the repository states."""
    current = known
    for _ in range(_ROTATIONS_MAX):
        found = None if current.authority is None else read_succession(objects, current.recipient)
        if found is None:
            return False
        succession, signature = found
        signer = bytes.fromhex(current.authority or "")
        if succession.repository != repository_id or not is_signed_by(signer, signature):
            return False
        current = Pin(succession.recipient, succession.authority)
        if current == stated:
            return True
    return False


def pin(
    state: Path, info: RepositoryInfo, recipient: str, configured: str | None, url: str, *, authority: str | None = None
) -> None:
    """Pin a recipient, which must be the repository's; `authority` is that of who holds its identity, if it is proven.

    Raises UsageError.
    """
    stated = _stated(info).recipient
    if recipient != stated:
        has = f"is encrypted for {stated}" if stated else "is not encrypted"
        raise UsageError(f"repository {url} {has}, not for {recipient[:80]}", "see `volback key list`")
    if configured not in (None, recipient):
        raise UsageError(f"the configuration pins {configured}", "change `recipient` in volback.toml")
    write_pin(state, info.id, Pin(recipient, authority))


def _stated(info: RepositoryInfo) -> Pin:
    return Pin(CLEAR) if info.encryption is None else Pin(info.encryption.recipient, info.authority)


def _not_signed(url: str) -> RecipientChanged:
    return RecipientChanged(
        f"the {REPOSITORY_KEY} of repository {url} was changed by somebody who does not hold its identity",
        "bring the former one back before anything is written",
    )


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
