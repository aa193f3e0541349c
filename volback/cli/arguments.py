"""Arguments that several commands have: what they are called, what help says of them, and how they are completed."""

from __future__ import annotations

from typing import Annotated

import typer

from volback.cli.complete import complete_backup

OneBackup = Annotated[
    str,
    typer.Argument(
        metavar="BACKUP",
        help="The backup: VOLUME, VOLUME@ID, VOLUME@yesterday.",
        show_default=False,
        autocompletion=complete_backup,
    ),
]
BACKUPS = typer.Argument(
    metavar="BACKUP...",
    help="Backups: VOLUME, VOLUME@ID, VOLUME@yesterday.",
    show_default=False,
    autocompletion=complete_backup,
)
"""For an argument of several, or of none."""
