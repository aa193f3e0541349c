"""Guesses of options: those of docker, restic and borg, and the options that people mean by them.

Another name for an option is accepted where it means the same, and help does not show it. Where it does not, or where
the option would overwrite or remove something, the answer names the right one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "backup": {
        "--project": ("--compose",),
        "--note": ("--description", "--message", "-m"),
        "--full": ("--force-full",),
    },
    "restore": {"--as": ("--name",), "--path": ("--include",), "--prove": ("--verify",)},
    "list": {"--all-hosts": ("--all", "-a"), "--project": ("--compose",)},
    "verify": {"--data": ("--read-data",), "--subset": ("--read-data-subset",)},
    "copy": {"--to": ("--target",)},
    "clone": {"--as-project": ("--to-project",)},
    "migrate": {"--to": ("--target",)},
    "import": {"--as": ("--name",)},
}
"""By command and option, its other names."""

_INSTEAD: dict[str, dict[tuple[str, ...], str]] = {
    "backup": {
        ("--output", "-o"): "--repo REPO says where backups are stored; volback export BACKUP FILE writes one as a tar",
        ("--name",): "a backup has the name of its volume: volback backup VOLUME --tag TAG, or --note TEXT",
        ("-f", "--force"): "--full stores everything anew, --reread reads every file",
        ("--compression",): "--level N, from 1 to 19",
        ("--latest",): "volback list --latest shows the latest backup of each volume",
    },
    "restore": {
        ("--target", "-t"): "--as NAME is a new volume, --to DIR a directory of the engine's host",
        ("--into",): (
            "--as NAME is a new volume, --to DIR a directory of the engine's host; --replace an existing volume"
        ),
        ("--volume",): "volback restore VOLUME; --as NAME for a new volume of another name",
        ("--overwrite", "--force", "-f"): (
            "--replace replaces what an existing volume holds, and keeps a safety backup of that"
        ),
        ("--exclude",): "--path PATH restores only a part; may be repeated",
        ("--stop",): "nothing is restored under a container that may write: docker stop it, then --replace",
        ("--latest", "-l"): "volback restore VOLUME takes the latest; VOLUME@latest~1 the one before",
        ("--verify-only",): "volback prove BACKUP compares a volume with a backup, and changes nothing",
    },
    "list": {
        ("-f", "--filter"): "--tag TAG, --project NAME, --since TIME and VOLUME say which backups are listed",
        ("--volume",): "volback list VOLUME",
        ("--no-trunc",): "no name and no id is ever cut off",
        ("--format",): "volback list --json",
    },
    "volumes": {
        ("-f", "--filter"): "volback volumes --json lists all that is known of each",
        ("-a", "--all"): "every volume is listed",
        ("--format",): "volback volumes --json",
    },
    "prune": {
        ("-a", "--all"): (
            "say what is kept: --keep-daily 7, --keep-last 3; --all-hosts prunes backups of other hosts, too"
        ),
        ("-f", "--force"): "prune does not ask; --dry-run shows what it would remove",
    },
    "remove": {
        ("-f", "--force"): "--yes does not ask; a backup that is held is released first: volback release BACKUP",
        ("-a", "--all"): "each backup is named with its id; volback prune removes by keep rules",
        ("--dry-run", "-n"): "volback du BACKUP shows what removing it would free",
        ("-v",): "removes backups, not volumes: docker volume rm",
    },
    "export": {
        ("-o", "--output"): "name the file: volback export BACKUP FILE",
    },
    "cat": {
        ("-o", "--output"): "volback cat BACKUP PATH > FILE",
    },
    "show": {
        ("-f", "--format"): "volback show BACKUP --json",
    },
    "verify": {
        ("-a", "--all"): "volback verify checks every backup",
    },
    "jobs": {
        ("-f",): "volback jobs shows each job's last run; --log-format json writes a log of a run",
    },
}
"""By command and options, what to write instead."""


def understand(command: Any, name: str) -> None:
    """Let a command's options answer to their other names."""
    others = _NAMES.get(name, {})
    for option in command.params:
        for known in (known for known in option.opts if known in others):
            _also(option, others[known])


def _also(option: Any, names: tuple[str, ...]) -> None:
    """The parser gets all names; what else asks for them, as help does, gets those that are documented."""
    shown, add = option.opts, option.add_to_parser

    def add_all(parser: Any, context: Any) -> None:
        option.opts = [*shown, *names]
        try:
            add(parser, context)
        finally:
            option.opts = shown

    option.add_to_parser = add_all


def instead_of(command: str, option: str) -> str | None:
    """What to write instead of an option that the command does not have; None where that is not known."""
    return next((answer for options, answer in _INSTEAD.get(command, {}).items() if option in options), None)


def guesses() -> Iterator[tuple[str, str]]:
    """Every command and option of this module."""
    for command, others in _NAMES.items():
        yield from ((command, name) for names in others.values() for name in names)
    for command, answers in _INSTEAD.items():
        yield from ((command, name) for names in answers for name in names)
