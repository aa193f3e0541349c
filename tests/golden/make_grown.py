"""Makes the golden repository of format 1 with a large file that grew - once; what is committed beside this file is
never changed.

    python -m tests.golden.make_grown DIRECTORY

The line of the file is compressed with the segment of its former line, in both increments with that of the full backup.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
from pathlib import Path

from tests.support.archive import plan_of, read
from tests.support.nights import context
from tests.support.stored import HOST, commit_next
from volback.catalog.repository import Catalog
from volback.context.repository import Repository
from volback.store.local import LocalStore

IDS = ("20260102T030405Z-0001", "20260103T030405Z-0002", "20260104T030405Z-0003")
BLOCKS = 420


def make_repository(directory: Path) -> list[str]:
    """Make the repository in `directory`; return the SHA-256 of each backup's stream."""
    store, dice, digests = LocalStore(directory), random.Random(1), list[str]()
    Catalog(store).ensure_repository(lambda: "0123456789abcdef0123456789abcdef")
    with tempfile.TemporaryDirectory(prefix="volback-golden-") as temporary:
        ctx, root = context(Path(temporary)), Path(temporary) / "tree"
        root.mkdir()
        (root / "small").write_bytes(b"small\n")
        log = root / "log"
        log.write_bytes(b"".join(_block(dice) for _ in range(BLOCKS)))
        for night, backup_id in enumerate(IDS):
            if night:
                with log.open("r+b") as file:
                    file.seek(night * 5_000_000)
                    file.write(b"changed")
                    file.seek(0, 2)
                    file.write(b"".join(_block(dice) for _ in range(5)))
            commit_next(ctx, Repository(store, lambda: HOST, ctx.now), backup_id, root)
            digests.append(hashlib.sha256(read(root, plan_of(root))).hexdigest())
    return digests


def _block(dice: random.Random) -> bytes:
    """64 KiB that compress to nothing, each different."""
    return dice.randbytes(64) * 1024


if __name__ == "__main__":
    print("\n".join(make_repository(Path(sys.argv[1]))))
