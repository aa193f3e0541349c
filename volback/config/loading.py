"""Loading: find the files, parse them, merge them. All problems are found, and what is valid is loaded anyway: a job
must run, and its failure must be reported, even if another one cannot be read.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volback.config.locate import Lines, split_tables
from volback.config.model import BrokenJob, Config, Job, Metrics, Notification, Repository
from volback.config.places import Place, Problem
from volback.config.reading import (
    KeysOf,
    Known,
    read_job,
    read_metrics,
    read_notification,
    read_notify,
    read_repository,
)
from volback.config.tables import Document, Table
from volback.errors import NotFoundError

_FILE_MAX_BYTES = 4 * 1024 * 1024
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_JOB_HEADER = re.compile(r"^\s*\[\s*jobs\s*\.\s*[\"']?([A-Za-z0-9][A-Za-z0-9_.-]*?)[\"']?\s*[.\]]", re.MULTILINE)
_SECTIONS = ("repositories", "notifications", "jobs")


def find_files(named: Sequence[Path]) -> list[Path]:
    """The files that `named` stands for: a file, or a directory's *.toml and conf.d/*.toml, in this order.

    Raises NotFoundError for one that does not exist.
    """
    found: dict[Path, None] = {}
    for path in named:
        if path.is_dir():
            inside = [*sorted(path.glob("*.toml")), *sorted((path / "conf.d").glob("*.toml"))]
            if not inside:
                raise NotFoundError(f"configuration {path}: no *.toml in that directory")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise NotFoundError(f"configuration {path} does not exist", "check --config and VOLBACK_CONFIG")
    return list(found)


def load_config(files: Sequence[Path], environment: Mapping[str, str] | None = None, *, keys_of: KeysOf) -> Config:
    """Read and merge the files. Raises nothing for what is wrong in them: see Config.problems and Config.broken."""
    env = os.environ if environment is None else environment
    loader = _Loader([_parse(path, env) for path in files], keys_of)
    return loader.load(tuple(files))


@dataclass(slots=True)
class _Parsed:
    """One file: its tree, or if it is not TOML, what could be recovered of it."""

    document: Document
    tree: dict[str, Any]
    recovered: dict[str, Any] = field(default_factory=dict)
    lost_jobs: list[str] = field(default_factory=list)


def _parse(path: Path, environment: Mapping[str, str]) -> _Parsed:
    document = Document(path, Lines(""), environment)
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_MAX_BYTES + 1)
        if len(data) > _FILE_MAX_BYTES:
            raise ValueError(f"is larger than {_FILE_MAX_BYTES} bytes")
        text = data.decode().replace("\r\n", "\n")
    except OSError as exc:
        return _unreadable(document, f"cannot be read: {exc.strerror}")
    except UnicodeDecodeError as exc:
        return _unreadable(document, "is not UTF-8", data.count(b"\n", 0, exc.start) + 1)
    except ValueError as exc:
        return _unreadable(document, str(exc))
    try:
        tree = tomllib.loads(text)
        document.lines = Lines(text)
    except tomllib.TOMLDecodeError as exc:
        return _recover_tables(document, text, exc)
    except (RecursionError, ValueError) as exc:  # ValueError: a number of more digits than Python converts
        reason = "is nested too deeply" if isinstance(exc, RecursionError) else "is not TOML: a number is too long"
        return _unreadable(document, reason)
    return _Parsed(document, tree)


def _unreadable(document: Document, why: str, line: int | None = None) -> _Parsed:
    document.problems.append(Problem(Place(str(document.file), line, ""), why))
    return _Parsed(document, {})


def _recover_tables(document: Document, text: str, exc: tomllib.TOMLDecodeError) -> _Parsed:
    """Of a file that is not TOML, the tables that are valid by themselves: whom to notify, and which jobs cannot
    run."""
    at = _AT.search(str(exc))
    line = int(at[1]) if at and at[1] else text.rstrip("\n").count("\n") + 1
    reason = _AT.sub("", str(exc))
    parsed = _unreadable(document, f"is not TOML: {reason[:1].lower()}{reason[1:]}", line)
    parsed.lost_jobs = list(dict.fromkeys(_JOB_HEADER.findall(text)))
    good = ""
    for piece in split_tables(text):
        try:
            parsed.recovered = tomllib.loads(good + piece)
        except (ValueError, RecursionError):
            continue
        good += piece
    return parsed


class _Loader:
    """The merging of parsed files: repositories and notifications first, because jobs refer to them."""

    def __init__(self, parsed: list[_Parsed], keys_of: KeysOf) -> None:
        self._parsed = parsed
        self._keys_of = keys_of
        self._places: dict[tuple[str, ...], str] = {}
        self._repositories: dict[str, Repository] = {}
        self._notifications: dict[str, Notification] = {}
        self._jobs: dict[str, Job] = {}
        self._metrics: Metrics | None = None
        self._invalid: dict[tuple[str, str], list[Problem]] = {}
        self._broken: dict[str, BrokenJob] = {}
        self._shown: dict[str, dict[str, object]] = {}
        self._defaults: list[tuple[str, Table]] = []
        """Repositories with `default = true`."""

    def load(self, files: tuple[Path, ...]) -> Config:
        tops = [Table(parsed.document, (), parsed.tree) for parsed in self._parsed]
        names = {section: self._names(section) for section in _SECTIONS}
        known = Known(names["repositories"], names["notifications"])
        for section in _SECTIONS:
            for top in tops:
                self._section(top, section, known)
        for name, table in self._defaults[1:]:  # both stay good, and their jobs run
            table.complain("default", f"{self._defaults[0][0]} is the default already; name {name} with --repo")
        for top in tops:
            self._top(top)
        for parsed in self._parsed:
            self._load_recovered(parsed)
        documents = [parsed.document for parsed in self._parsed]
        return Config(
            files,
            self._repositories,
            self._jobs,
            self._broken,
            self._notifications,
            self._metrics,
            tuple(problem for document in documents for problem in _by_line(document)),
            tuple(warning for document in documents if (warning := _readable_by_others(document))),
            self._shown,
        )

    def _names(self, section: str) -> list[str]:
        tables = [parsed.tree.get(section) for parsed in self._parsed]
        return [name for table in tables if isinstance(table, dict) for name in table]

    def _section(self, top: Table, section: str, known: Known) -> None:
        outer = top.table(section)
        if outer is None:
            return
        for name, table in outer.each():
            problems = table.document.problems
            before = len(problems)
            if not self._is_first(table, section, name):
                pass
            elif section == "repositories":
                self._repositories[name] = read_repository(name, table, self._keys_of)
                self._defaults += [(name, table)] if self._repositories[name].default else []
            elif section == "notifications":
                self._notifications[name] = read_notification(name, table)
            else:
                self._jobs[name] = read_job(name, table, known)
            self._judge(section, name, problems[before:], outer, table)

    def _is_first(self, table: Table, *names: str) -> bool:
        """Whether nothing of that name was defined before; a second definition is a problem of both."""
        line = table.document.lines.line(table.path)
        first = self._places.setdefault(names, f"{table.document.file}:{line}")
        if first != f"{table.document.file}:{line}":
            table.complain(None, f"is defined twice: first in {first}")
            return False
        return True

    def _judge(self, section: str, name: str, problems: list[Problem], outer: Table, table: Table) -> None:
        """Remove what has problems; a job also has the problems of its repositories."""
        if table.shown:
            self._shown.setdefault(section, {})[name] = table.shown
        job = self._jobs.get(name) if section == "jobs" else None
        for repository in job.repositories if job else ():
            problems = problems + self._invalid.get(("repositories", repository), [])
        if not problems:
            return
        self._invalid.setdefault((section, name), []).extend(problems)
        if section == "jobs":
            self._jobs.pop(name, None)
            self._broken[name] = BrokenJob(name, tuple(self._invalid[section, name]), read_notify(outer.value_of(name)))
        elif section == "repositories":
            self._repositories.pop(name, None)
        else:
            self._notifications.pop(name, None)

    def _top(self, top: Table) -> None:
        metrics = top.table("metrics")
        if metrics is not None and self._is_first(metrics, "metrics"):
            self._metrics = read_metrics(metrics)
            self._shown["metrics"] = metrics.shown
        top.end()

    def _load_recovered(self, parsed: _Parsed) -> None:
        """Load what is known of a file that is not TOML. Its notifications count, as there may be no others."""
        if not parsed.lost_jobs and not parsed.recovered:
            return
        document = Document(parsed.document.file, Lines(""), parsed.document.environment)
        for name, table in _tables(Table(document, (), parsed.recovered), "notifications"):
            before = len(document.problems)
            read = read_notification(name, table)
            if len(document.problems) == before:
                self._notifications.setdefault(name, read)
        jobs = parsed.recovered.get("jobs")
        for name in parsed.lost_jobs:
            job = jobs.get(name) if isinstance(jobs, dict) else None
            self._jobs.pop(name, None)
            self._broken[name] = BrokenJob(name, tuple(parsed.document.problems), read_notify(job))


def _tables(top: Table, section: str) -> list[tuple[str, Table]]:
    outer = top.table(section)
    return [] if outer is None else list(outer.each())


def _by_line(document: Document) -> list[Problem]:
    return sorted(document.problems, key=lambda problem: problem.place.line or 0)


def _readable_by_others(document: Document) -> str | None:
    try:
        is_open = document.file.stat().st_mode & 0o004
    except OSError:
        return None
    if not (document.has_secrets and is_open):
        return None
    return f"{document.file} holds secrets, and every user of this machine can read it: chmod 600 {document.file}"
