"""Successions: keys/successions/RECIPIENT.json says which recipient follows that one, signed by who holds its identity.

A rotation writes one. It is proven by who has pinned the former recipient (volback/encryption/pinning.py).
"""

from __future__ import annotations

import logging
import re
from typing import Final

import msgspec

from volback.catalog.model import FORMAT
from volback.catalog.objects import Objects
from volback.catalog.sealed import Signature, Signer, open_document, read_document, seal_document, signature_of
from volback.errors import FormatError, NotFoundError

log = logging.getLogger(__name__)

SUCCESSIONS_PREFIX: Final = "keys/successions/"

_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_KEY = re.compile(r"[0-9a-f]{64}")


class Succession(msgspec.Struct, frozen=True, kw_only=True):
    """That a repository is encrypted for another recipient from now on."""

    format: int = FORMAT
    repository: str
    """The id of the repository for which it counts."""
    former: str
    recipient: str
    authority: str
    """The public key (hex) with which who holds the new identity signs."""
    made_at: str


def write_succession(objects: Objects, succession: Succession, signer: Signer) -> None:
    """Store it, in place of one that was written for the same recipient by a rotation that did not end."""
    objects.put(_key_of(succession.former), [seal_document(succession, signer)])


def read_succession(objects: Objects, former: str) -> tuple[Succession, Signature] | None:
    """What follows a recipient, and its signature, which is not proven yet; None where nothing says it."""
    key = _key_of(former)
    try:
        data = read_document(objects, key)
        succession, signature = open_document(data, Succession, key), signature_of(data)
        if signature is None or succession.former != former or not _is_valid(succession):
            raise FormatError(f"{key} does not say what follows that recipient")
    except NotFoundError:
        return None
    except FormatError as exc:
        log.warning("%s", exc.message)
        return None
    return succession, signature


def _is_valid(succession: Succession) -> bool:
    return bool(_RECIPIENT.fullmatch(succession.recipient) and _KEY.fullmatch(succession.authority))


def _key_of(recipient: str) -> str:
    return f"{SUCCESSIONS_PREFIX}{recipient}.json"
