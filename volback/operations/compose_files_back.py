"""Compose files back: those that a set holds, or a move finds, into a directory of this machine that a person names.

Nothing that exists is overwritten. Modes are not taken from the backup: files that may hold secrets are readable by
their owner only.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from volback.catalog.model import Manifest
from volback.context.repository import Repository
from volback.errors import ConflictError, IntegrityError, StoreError
from volback.operations.compose_files import FILE_MAX_BYTES, SECRET_MODE, is_environment
from volback.operations.contents import read_file
from volback.operations.open_backup import OpenBackup
from volback.policy.projects import CONFIG_FILES, ENVIRONMENT_FILES

_MODE = 0o644
_DIRECTORY_MODE = 0o755
_FILES_MAX = 1000


@dataclass(frozen=True, slots=True)
class FilesBack:
    """The compose files of a set or a project, and where they go."""

    labels: Mapping[str, str]
    """What says which of the files compose is to be given."""
    directory: Path
    contents: dict[str, bytes]
    """By path below the directory."""

    @property
    def secret(self) -> list[str]:
        """Files that may hold secrets."""
        return sorted(name for name in self.contents if self._is_secret(name))

    def obstacle(self, done: str = "restored") -> ConflictError | None:
        """A file that is there and holds something else; the same content is as good as written.

        `done`: what would be done, in words.
        """
        for name, data in sorted(self.contents.items()):
            path = self.directory / name
            if os.path.lexists(path) and not _holds(path, data):
                return ConflictError(f"{path} exists already, so nothing was {done}", "name another --compose-dir")
        return None

    def write(self) -> None:
        """Write those that are not there. Raises ConflictError, StoreError."""
        for name, data in sorted(self.contents.items()):
            path = self.directory / name
            try:
                path.parent.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
            except OSError as exc:
                raise StoreError(f"directory {path.parent} cannot be made: {exc.strerror}") from exc
            if not _holds(path, data):
                _write_new(path, data, SECRET_MODE if self._is_secret(name) else _MODE)

    def start_command(self, project: str, *, engine: Sequence[str] = (), home: str | None = None) -> str:
        """The command that starts the project with these files.

        `engine`: options of docker that name it; `home`: the project's directory on its host, where that is not theirs.
        """
        words = ["docker", *engine, "compose", "--project-name", project, "--project-directory"]
        words.append(str(self.directory) if home is None else home)
        given = {
            "--file": self.labels.get(CONFIG_FILES, "").split(","),
            "--env-file": self.labels.get(ENVIRONMENT_FILES, "").split(","),
        }
        if home is not None and not any(given["--env-file"]):
            given["--env-file"] = [".env"]  # compose looks for it in the project's directory
        for option, names in given.items():
            for name in filter(self.contents.__contains__, names):
                words += [option, str(self.directory / name)]
        return shlex.join([*words, "up", "--detach"])

    def _is_secret(self, name: str) -> bool:
        given = self.labels.get(ENVIRONMENT_FILES, "").split(",")
        return name in given or is_environment(name)


def read_files(repository: Repository, backup: Manifest, directory: Path) -> FilesBack:
    """Read the compose files that a backup holds. Raises IntegrityError, NotFoundError."""
    opened, contents = OpenBackup.of(repository, backup), dict[str, bytes]()
    for member in opened.members():
        if member.type != "f":
            continue
        if member.size_bytes > FILE_MAX_BYTES or len(contents) == _FILES_MAX:
            raise IntegrityError(f"backup {backup.name} holds more than compose files", "restore it with --to DIR")
        contents[os.fsdecode(member.path)] = b"".join(map(bytes, read_file(opened, member.path)))
    return FilesBack(backup.source.labels, directory, contents)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == data
    except OSError:
        return False


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Raises ConflictError, StoreError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError as exc:
        raise ConflictError(f"{path} exists already", "name another --compose-dir") from exc
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}") from exc
