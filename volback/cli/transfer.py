"""`export`, `import` and `copy`: backups as plain tars, any tar as a volume, backups between repositories."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.arguments import BACKUPS, OneBackup
from volback.cli.call import Outcome, call_of, write_data
from volback.cli.complete import complete_repository, complete_stored_project, complete_tag
from volback.cli.facts import requests_facts
from volback.cli.words import count, human_size, pairs, unread_failure
from volback.errors import Interrupted, NotFoundError, UsageError, VolbackError, failures

if TYPE_CHECKING:
    from volback.cli.documents import moves
    from volback.context import Context
    from volback.context.repository import Repository
    from volback.operations.list import Wanted

_EXPORT_EPILOG = """\b
Examples:
  volback export db db.tar               a plain tar
  volback export db@2026 db.tar.zst      as it is stored, not compressed again
  volback export db db.tar.gz            for programs without zstd
  volback export db --zstd > db.tar.zst
  volback export db | ssh web2 'tar x -C /srv/db'
"""
_IMPORT_EPILOG = """\b
Examples:
  volback import db.tar.gz --as db    plain, gzip, zstd, xz or bzip2
  ssh web1 'tar c -C /srv/db .' | volback import - --as db
"""
_COPY_EPILOG = """\b
Examples:
  volback copy db --to /mnt/usb/repository      the latest backup of db
  volback copy db web2/db --to /srv/backups --repo /mnt/usb/repository
  volback copy --all --to offsite               every backup of this host
  volback copy --project shop --latest --to offsite
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EXPORT_EPILOG)(export)
    app.command("import", epilog=_IMPORT_EPILOG)(import_)
    app.command(epilog=_COPY_EPILOG)(copy)


def export(
    context: typer.Context,
    backup: OneBackup,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A new file, or - for standard output.", show_default=False)
    ] = "-",
    *,
    zstd: Annotated[
        bool, typer.Option("--zstd", help="As a .tar.zst: the data as it is stored, not compressed again.")
    ] = False,
) -> Outcome | None:
    """Write a backup as a tar to FILE, or to standard output.

    The ending of FILE says how: .tar, .tar.zst or .tar.gz; another compression is refused. Every part is verified
    before it is written. FILE must not exist; it appears only when it is complete.
    """
    from volback.operations import export as operation
    from volback.operations.contents import open_backup

    call = call_of(context)
    if file == "-" and call.json:
        raise UsageError("--json needs a FILE: standard output would be the tar", "volback export BACKUP FILE --json")
    if file == "-" and sys.stdout.isatty():
        raise UsageError(
            "a tar cannot be written to a terminal", "name a file, or redirect the output to a file or a pipe"
        )
    form = operation.form_of(Path(file), zstd=zstd)
    with call.opened_repository() as (ctx, repository):
        opened = open_backup(repository, backup)
        buffers = operation.export(ctx, opened, form)
        if file == "-":
            write_data(buffers)
            return None
        size = operation.write_file(Path(file), buffers)
    result: moves.Exported = {"backup": opened.name, "file": str(Path(file).absolute()), "size_bytes": size}
    return Outcome(result, [f"{opened.name} -> {file}: {human_size(size)}"])


def import_(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The archive, or - for standard input.", show_default=False)
    ],
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", show_default=False, help="Name of the volume to create.")
    ],
    *,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Set a label of the volume; may be repeated.")
    ] = None,
    driver: Annotated[str, typer.Option(metavar="NAME", help="Volume driver.")] = "local",
    driver_opt: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Set a driver option; may be repeated.")
    ] = None,
) -> Outcome:
    """Import a tar archive as a new volume; `-` reads standard input.

    Members with a path outside the volume are kept inside it and reported; the exit code is then 3.
    """
    from volback.operations.import_ import import_tar

    labels, options = pairs(label, "--label"), pairs(driver_opt, "--driver-opt")
    if file == "-" and sys.stdin.isatty():
        raise UsageError("a tar cannot be read from a terminal", "name a file, or redirect one to the input")
    source = sys.stdin.buffer if file == "-" else Path(file)
    with call_of(context).opened() as (ctx, engine, repository):
        done = import_tar(ctx, engine, repository, source, name, labels=labels, driver=driver, driver_options=options)
    result: moves.Imported = {
        "volume": done.target.name,
        "files": done.files,
        "raw_bytes": done.raw_bytes,
        "compression": done.compression or None,
    }
    text = [f"{file} -> volume {done.target.name}: {count(done.files, 'file')}, {human_size(done.raw_bytes)}"]
    return Outcome(result, text, done.warnings, incomplete=bool(done.warnings))


def copy(
    context: typer.Context,
    backups: Annotated[list[str] | None, BACKUPS] = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="REPO",
            show_default=False,
            help="Repository to copy into.",
            autocompletion=complete_repository,
        ),
    ],
    reencrypt: Annotated[
        bool, typer.Option("--reencrypt", help="Store copies as the target is: for its identity, or in clear.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every backup of this host.")] = False,
    project: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Every backup of a compose project; may be repeated.",
            autocompletion=complete_stored_project,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            "-t",
            metavar="TAG",
            help="Every backup with this tag; may be repeated. A,B: both tags.",
            autocompletion=complete_tag,
        ),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="With --all, --project or --tag: only the latest of each volume.")
    ] = False,
    all_hosts: Annotated[
        bool, typer.Option("--all-hosts", help="With --all, --project or --tag: those of every host.")
    ] = False,
) -> Outcome:
    """Copy backups into another repository, as they are stored.

    Each digest is checked. An increment arrives complete: what the other repository lacks of its data comes with it. A
    backup that is there already is skipped.

    Encrypted backups are copied without a key where both repositories have the same identity; their sizes are checked
    then, and the backups that an increment uses come with it. Otherwise --reencrypt decrypts them with --identity, and
    encrypts them for the other repository if it is encrypted.
    """
    from volback.operations import copy as operation

    call, several = call_of(context), bool(every or project or tag)
    if bool(backups) == several:
        given = "no backup is named" if not several else "--all, --project and --tag choose backups; do not name any"
        raise UsageError(given, "name some, like db or db@20261123, or give --all, --project NAME or --tag TAG")
    if (latest or all_hosts) and not several:
        raise UsageError("--latest and --all-hosts are for --all, --project and --tag", "a VOLUME alone is its latest")
    with call.opened_repository() as (ctx, source):
        target = call.repository_at(ctx, to)
        operation.prepare_target(ctx, source, target, reencrypt=reencrypt)
        made = _Copied(ctx, source, target)
        made.work_off(backups or made.chosen(_wanted(project, tag, latest=latest), all_hosts=all_hosts))
        where, requests = target.store.url, requests_facts(source, target)
    text = [f"{name} -> {where}: {human_size(size)}" for name, size in made.copied.items()]
    text += [f"{name} is in {where} already" for name in made.skipped]
    result: moves.Copied = {"copied": list(made.copied), "skipped": made.skipped, "requests": requests}
    return Outcome(
        result,
        text,
        errors=failures(made.interrupted, made.errors),
    )


def _wanted(project: list[str] | None, tag: list[str] | None, *, latest: bool) -> Wanted:
    from volback.operations.list import Wanted

    return Wanted(tag or [], project or [], last=1 if latest else None)


class _Copied:
    """The copies of one call, and what failed: a failure stops only what depends on it."""

    def __init__(self, ctx: Context, source: Repository, target: Repository) -> None:
        self.copied: dict[str, int] = {}
        self.skipped: list[str] = []
        self.errors: list[VolbackError] = []
        self.interrupted: Interrupted | None = None
        self._ctx = ctx
        self._source = source
        self._target = target

    def chosen(self, wanted: Wanted, *, all_hosts: bool) -> list[str]:
        """The names of the backups to copy; an error for those that cannot be read. Raises NotFoundError."""
        from volback.operations.list import list_backups

        found = list_backups(self._ctx, self._source, all_hosts=all_hosts, wanted=wanted)
        unread = [row.error for row in found if row.error is not None]
        self.errors += [unread_failure(unread)] if unread else []
        names = [row.name for row in found if row.error is None]
        if not names and not unread:
            raise NotFoundError(f"no such backup in {self._source.store.url}", "see `volback list`")
        return names

    def work_off(self, references: list[str]) -> None:
        """Copy one after the other, until all are done or a signal comes. All backups are found first."""
        from volback.operations import copy as operation

        failed: set[str] = set()
        for item in operation.plan_copies(self._source, self._target, references):
            if failed.intersection(item.needs):
                failed.add(item.name)
                continue
            try:
                done = operation.copy_backup(self._ctx, self._source, self._target, item)
            except Interrupted as exc:
                self.interrupted = exc
                return
            except VolbackError as exc:
                failed.add(item.name)
                self.errors.append(exc)
                continue
            if done.done == "copied":
                self.copied[item.name] = done.stored_bytes
            else:
                self.skipped.append(item.name)
