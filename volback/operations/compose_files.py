"""Compose files: the files from which compose made a project, kept beside its volumes, as a backup of their own.

The labels of its containers name them. They are read here and not by a helper: they lie where compose was called, which
may be another machine than the engine's. The backup looks like one of a directory, WORKING_DIR/PROJECT.compose, which
does not exist; labels of its source say which of its files compose is to be given.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from volback.archive import tar
from volback.catalog.model import Manifest, Source
from volback.engine.streams import VolumeReader, no_action
from volback.errors import EngineError
from volback.policy.binds import is_below
from volback.policy.projects import CONFIG_FILES, ENVIRONMENT_FILES, PROJECT, WORKING_DIR
from volback.state.runs import Run

FILE_MAX_BYTES = 1024 * 1024
_SUFFIXES = (".yaml", ".yml", ".json")
_OUTSIDE = "outside"
"""Where files are kept that do not lie in the project's directory."""
SECRET_MODE = 0o600


@dataclass(frozen=True, slots=True)
class ComposeFiles:
    """The files of one project that can be read here."""

    project: str
    working_dir: str
    paths: Mapping[str, Path]
    """Where they are, by the path that each has in the backup."""
    config_files: tuple[str, ...]
    """Those that compose is to be given, in this order."""
    environment_files: tuple[str, ...]
    """Those with values for them, where compose was given some by name."""

    @property
    def source(self) -> Source:
        """What the backup says of them."""
        labels = {
            PROJECT: self.project, WORKING_DIR: self.working_dir, CONFIG_FILES: ",".join(self.config_files),
            ENVIRONMENT_FILES: ",".join(self.environment_files),
        }  # fmt: skip
        name = posixpath.join(self.working_dir, f"{self.project}.compose")
        return Source(kind="directory", name=name, labels={key: value for key, value in labels.items() if value})


def is_compose_files(manifest: Manifest) -> bool:
    """Whether a backup is of the compose files of a project."""
    return manifest.source.kind == "directory" and CONFIG_FILES in manifest.source.labels


def is_environment(name: str) -> bool:
    """Whether a file holds values, which may be secrets: `.env`, `.env.local`, `production.env`."""
    last = posixpath.basename(name)
    return last == ".env" or last.startswith(".env.") or last.endswith(".env")


def find_compose_files(
    project: str, labels: Iterable[Mapping[str, str]], *, more: Iterable[str] = ()
) -> tuple[ComposeFiles | None, list[tuple[str, str]]]:
    """Return the files that the labels of a project's containers name, and each that is left out, with the reason.

    `more` are paths that are kept too, if they lie in the project's directory. None where no compose file can be read.
    """
    named = next((found for found in labels if found.get(WORKING_DIR) and found.get(CONFIG_FILES)), None)
    if named is None:
        return None, []
    finding = _Finding(posixpath.normpath(named[WORKING_DIR]))
    configs = finding.keep(_listed(named[CONFIG_FILES]), lambda path: path.endswith(_SUFFIXES))
    if not configs:
        return None, finding.left_out
    given = finding.keep(_listed(named.get(ENVIRONMENT_FILES, "")), is_environment)
    for path in (".env", *more):
        finding.keep_inside(path)
    return ComposeFiles(project, finding.working_dir, finding.paths, tuple(configs), tuple(given)), finding.left_out


def _listed(text: str) -> list[str]:
    return [path for path in text.split(",") if path]


class _Finding:
    def __init__(self, working_dir: str) -> None:
        self.working_dir = working_dir
        self.paths: dict[str, Path] = {}
        self.left_out: list[tuple[str, str]] = []

    def keep(self, paths: Iterable[str], is_wanted: Callable[[str], bool]) -> list[str]:
        """Return the names under which those are kept that can be read here, and are what they are said to be."""
        kept = []
        for text in paths:
            path = posixpath.normpath(posixpath.join(self.working_dir, text))
            why = "is not named as such a file is" if not is_wanted(path) else _unreadable(path)
            if why is None:
                kept.append(self._name(path))
                self.paths[kept[-1]] = Path(path)
            else:
                self.left_out.append((path, why))
        return kept

    def keep_inside(self, text: str) -> None:
        path = posixpath.normpath(posixpath.join(self.working_dir, text))
        if is_below(path, self.working_dir) and _unreadable(path) is None:
            self.paths[self._name(path)] = Path(path)

    def _name(self, path: str) -> str:
        if is_below(path, self.working_dir):
            return posixpath.relpath(path, self.working_dir)
        return _OUTSIDE + path


def _unreadable(path: str) -> str | None:
    """Why a file is not kept; None where it is."""
    try:
        found = os.stat(path)
    except OSError as exc:
        return f"cannot be read here: {exc.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return "is not a file"
    if found.st_size > FILE_MAX_BYTES:
        return "is larger than 1 MiB"
    return None if os.access(path, os.R_OK) else "cannot be read here: Permission denied"


@contextmanager
def open_files(run: Run, files: ComposeFiles, *, rescan: bool = False) -> Iterator[VolumeReader]:
    """Read copies of the files in the run's own directory, as a helper reads a volume. Raises EngineError."""
    root = run.scratch("compose-files")
    try:
        with _usable():
            _copy(files, root)
        yield LocalReader(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _copy(files: ComposeFiles, root: Path) -> None:
    root.mkdir(mode=0o700)
    for name, path in files.paths.items():
        copy, mode = root / name, path.stat().st_mode & 0o777
        copy.parent.mkdir(parents=True, exist_ok=True)
        is_secret = name in files.environment_files or is_environment(name)
        copy.touch(SECRET_MODE)
        shutil.copyfile(path, copy)
        copy.chmod(SECRET_MODE if is_secret else mode)
        os.utime(copy, ns=(path.stat().st_mtime_ns,) * 2)
    for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
        os.utime(directory, ns=(0, 0))


class LocalReader:
    """Reads a directory of this machine with its own find and tar; what they write fits into memory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._messages = b""

    def scan(self) -> Iterator[bytes | bytearray]:
        """See VolumeReader."""
        yield self._run(tar.FIND) + tar.SCAN_END.encode()

    def read(self, names: Iterable[bytes], at_end: Callable[[], None] = no_action) -> Iterator[bytes | bytearray]:
        """See VolumeReader."""
        stream = self._run([*tar.CREATE, "--files-from=-", "--file=-"], b"".join(names))
        at_end()
        yield stream

    def messages(self) -> bytes:
        """See VolumeReader."""
        return self._messages

    def check(self) -> None:
        """See VolumeReader."""

    def _run(self, command: list[str], given: bytes = b"") -> bytes:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC0"}
        with _usable():
            done = subprocess.run(
                command, cwd=self._root, input=given, capture_output=True, env=environment, check=False
            )
        self._messages = done.stderr
        return done.stdout


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise EngineError(f"compose files cannot be read: {exc.filename}: {exc.strerror}") from exc
