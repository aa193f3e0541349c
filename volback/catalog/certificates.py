"""Certificates: keys/hosts/HOST-KEYID.json says that a key is that of a host, signed by who holds the repository's
identity. Read here, and proven by volback/operations/trust.py.
"""

from __future__ import annotations

import logging
import re
from typing import Final

import msgspec

from volback.catalog.keys import encode_part
from volback.catalog.model import FORMAT
from volback.catalog.objects import Objects
from volback.catalog.sealed import Signature, Signer, open_document, read_document, seal_document, signature_of
from volback.errors import FormatError, NotFoundError

log = logging.getLogger(__name__)

CERTIFICATES_PREFIX: Final = "keys/hosts/"
CERTIFICATES_MAX: Final = 1000
"""More are not looked at."""

_KEY = re.compile(r"[0-9a-f]{64}")
_ID_CHARS = 16
_HOST_CHARS = 200


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """That a public key (hex) signs for a host of this name."""

    format: int = FORMAT
    repository: str
    """The id of the repository for which it counts."""
    host: str
    key: str
    certified_at: str


def certificate_key(certificate: Certificate) -> str:
    """The object of a certificate."""
    return f"{CERTIFICATES_PREFIX}{encode_part(certificate.host)[:_HOST_CHARS]}-{certificate.key[:_ID_CHARS]}.json"


def write_certificate(objects: Objects, certificate: Certificate, signer: Signer) -> None:
    """Store a certificate, in place of an earlier one of the same key."""
    objects.put(certificate_key(certificate), [seal_document(certificate, signer)])


def read_certificates(objects: Objects) -> list[tuple[Certificate, Signature]]:
    """Every certificate that can be read and has a signature, which is not proven yet."""
    found = []
    for stored in list(objects.list(CERTIFICATES_PREFIX))[:CERTIFICATES_MAX]:
        try:
            data = read_document(objects, stored.key)
            certificate, signature = open_document(data, Certificate, stored.key), signature_of(data)
            if signature is None or not _KEY.fullmatch(certificate.key):
                raise FormatError(f"{stored.key} is not a certificate")
        except NotFoundError:
            log.debug("%s was removed meanwhile", stored.key)
        except FormatError as exc:
            log.warning("%s", exc.message)
        else:
            found.append((certificate, signature))
    return found
