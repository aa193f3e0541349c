"""Guesses: words of docker, restic, borg and others, and the commands that people mean by them.

A word that can only mean one command, and does no harm if it does not, is an alias of it. The others are answered with
the commands to choose from.
"""

from __future__ import annotations

from collections.abc import Collection

from volback.errors import UsageError

ALIASES = {
    "snapshots": "list",
    "ls-backups": "list",
    "archives": "list",
    "inspect": "show",
    "info": "show",
    "describe": "show",
    "cp": "copy",
    "rm": "remove",
    "delete": "remove",
    "search": "find",
    "stats": "du",
    "dump": "cat",
    "create": "backup",
}
"""`remove` takes only backups that are named with their ids."""

_ELSEWHERE = {
    "ps": "volback volumes lists volumes and who uses them",
    "forget": "volback prune removes by keep rules; volback remove VOLUME@ID removes one backup",
    "move": "volback migrate VOLUME --to ENGINE copies to another engine; volback clone copies on this one",
    "mv": "volback migrate VOLUME --to ENGINE copies to another engine; volback clone copies on this one",
    "push": "volback copy BACKUP --to REPO copies backups; volback migrate moves a volume to another engine",
    "pull": "volback copy BACKUP --to REPO copies backups; volback restore gets a volume back",
    "sync": "volback copy BACKUP --to REPO copies backups; volback run runs the jobs of volback.toml",
    "rename": "no backup is renamed: volback restore BACKUP --as NAME, or volback clone VOLUME NEW",
    "mount": "volback ls and volback cat look into a backup; volback restore BACKUP --to DIRECTORY unpacks it",
    "browse": "volback ls lists a backup's files; volback cat writes one of them",
    "test": "volback verify checks what is stored; volback prove compares a volume with its backup",
    "validate": "volback verify checks what is stored; volback config check checks volback.toml",
    "edit": "volback.toml is a text file; volback config check checks it",
    "logs": "volback jobs tells how each job ended; --log-format json writes a log",
    "unlock": "locks end with their process; volback recover starts what a crashed run stopped",
    "repo": "--repo REPO names a repository; volback init makes one",
    "repos": "--repo REPO names a repository; volback config show lists those of volback.toml",
    "upgrade": "repositories need no upgrade; volback version shows the version",
    "help": "volback --help, or volback COMMAND --help",
    "save": "volback backup makes a backup; volback export BACKUP FILE writes one as a tar",
    "load": "volback import FILE --as NAME makes a volume of a tar; volback restore gets a backup back",
}
_WITHIN = {
    "schedule": {"list": "show", "ls": "show", "status": "show"},
    "config": {"path": "check", "validate": "check", "cat": "show", "list": "show"},
    "key": {"ls": "list", "rm": "remove", "delete": "remove"},
    "tag": {"rm": "remove", "delete": "remove"},
}
"""The same within a group of commands. `config check` names the files that it reads."""
_HARMFUL = ("remove", "prune", "repack", "restore")
"""Offered only for what is nearly their name."""
_NEAR, _ALMOST = 0.6, 0.8


def command_meant(word: str, commands: Collection[str]) -> str:
    """The command that is called by `word`. Raises UsageError with the one that may be meant."""
    if word in commands:
        return word
    if word in ALIASES:
        return ALIASES[word]
    raise UsageError(f"no command {word!r}", _hint(word, commands))


def within(group: str, arguments: list[str]) -> list[str]:
    """The arguments of a group, with the name of the command that they mean."""
    known = _WITHIN.get(group, {})
    return [known[arguments[0]], *arguments[1:]] if arguments and arguments[0] in known else arguments


def _hint(word: str, commands: Collection[str]) -> str:
    if word in _ELSEWHERE:
        return _ELSEWHERE[word]
    from difflib import get_close_matches  # not for each start: it takes some milliseconds

    known = [*commands, *ALIASES]
    near = get_close_matches(word, known, n=3, cutoff=_NEAR)
    almost = get_close_matches(word, known, n=3, cutoff=_ALMOST)
    found = dict.fromkeys(ALIASES.get(name, name) for name in near)
    offered = [name for name in found if name not in _HARMFUL or name in almost]
    return f"did you mean {' or '.join(offered)}? see `volback --help`" if offered else "see `volback --help`"
