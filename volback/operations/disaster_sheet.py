"""The disaster sheet: what to keep on paper, so that backups can be read when every computer with a key is gone."""

from __future__ import annotations

from datetime import datetime

from volback.context.repository import Repository
from volback.operations.keys import identity_text

_SHEET = """\
VOLBACK DISASTER SHEET

Whoever reads this sheet can read every backup of the repository. Keep it in a safe, and on no computer.

repository  {url}
id          {id}
recipient   {recipient}
written     {written}


IDENTITY

{identity}

RESTORE WITH VOLBACK

1. Write the lines above that begin with AGE-SECRET-KEY-1 into a file, identity.txt, then: chmod 600 identity.txt
   They end in a checksum: a letter that was read wrongly is noticed.
2. Which backups there are:
   volback list --all-hosts --repo {url}
3. The latest one of a volume:
   volback restore HOST/VOLUME --repo {url} --identity identity.txt

RESTORE WITHOUT VOLBACK

It needs a copy of the repository in a directory (REPOSITORY), the programs age, zstd and tar, and Python 3.8.

1. The file identity.txt, as above.
2. A full backup is a tar:
   age -d -i identity.txt REPOSITORY/HOST/VOLUME/ID/data.tar.zst.age | zstd -d | tar x
3. Every backup, also an increment, with rescue.py, which is in volback's source (docs/rescue.py):
   python3 rescue.py REPOSITORY HOST/VOLUME identity.txt > volume.tar
"""


def disaster_sheet(repository: Repository, now: datetime) -> str:
    """The text of the sheet, with the identities in clear. Raises IdentityNeeded."""
    return _SHEET.format(
        url=repository.store.url,
        id=repository.info.id,
        recipient=repository.recipients[0],
        written=f"{now:%Y-%m-%d %H:%M} UTC",
        identity=identity_text(repository.identities(), now),
    )
