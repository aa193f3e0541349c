"""Makes the golden repository of format 1 that was rotated - once; what is committed beside this file is never changed.

    python -m tests.golden.make_rotated DIRECTORY

As the encrypted one, with a document that its authority has signed; then its identity was replaced. The identity of a
person with a key is in person.txt.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.golden.make_encrypted import make_repository
from volback.archive.age_keys import Identity
from volback.context import Context, open_repository
from volback.encryption.sources import SecretText, Sources
from volback.operations.rotate import rotate
from volback.settings import Settings


def make_rotated(directory: Path) -> Identity:
    """Make the repository in `directory`; return the person's identity."""
    person = make_repository(directory)
    with tempfile.TemporaryDirectory() as state:
        sources = Sources((SecretText("person", str(person).encode),))
        context = Context(Settings(repository=str(directory), state=Path(state), host="golden-host"), sources=sources)
        rotate(context, open_repository(context), work_factor=10)
    return person


if __name__ == "__main__":
    target = Path(sys.argv[1])
    made = make_rotated(target)
    (target.parent / "person.txt").write_text(f"{made}\n")
