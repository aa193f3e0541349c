"""Makes the encrypted golden repository of format 1 - once; what is committed beside this file is never changed.

    python -m tests.golden.make_encrypted DIRECTORY

It holds the backups of the golden repository in clear. A person can open it, and a passphrase; the key of its host is
certified. The person's identity is in person.txt.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.support.encrypted import encrypted_copy
from volback.archive.age_keys import Identity
from volback.archive.signing import SigningKey
from volback.operations.keys import Holder, Keys, first_key
from volback.operations.trust import certify
from volback.store.local import LocalStore

HERE = Path(__file__).resolve().parent
PASSPHRASE = "golden passphrase"
NOW = datetime(2026, 1, 5, 3, 4, 5, tzinfo=UTC)


def make_repository(directory: Path) -> Identity:
    """Make the repository in `directory`; return the person's identity."""
    person, own, host = Identity.new(), Identity.new(), SigningKey.new()
    store = LocalStore(directory)
    encrypted_copy(HERE / "format-1", store, own, signer=host)
    first_key(store, own, "person", Holder((person.recipient,)), now=NOW)
    keys = Keys(store, [str(own.recipient)], lambda: [own], lambda: NOW, work_factor=10)
    keys.add("passphrase", Holder(passphrase=PASSPHRASE))
    certify(store, "e" * 32, own, "golden-host", host.public.hex(), now=NOW)
    return person


if __name__ == "__main__":
    target = Path(sys.argv[1])
    made = make_repository(target)
    (target.parent / "person.txt").write_text(f"{made}\n")
