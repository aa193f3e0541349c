"""A small image from this machine's own programs: no registry is asked.

Used by the tests and by the scripts, which need containers that fill, hold and change a volume.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile

PROGRAMS = (
    "dash",
    "bash",
    "sleep",
    "cat",
    "ls",
    "cp",
    "mv",
    "rm",
    "ln",
    "mkdir",
    "tar",
    "find",
    "stat",
    "truncate",
    "zstd",
)


def image_tar(programs: tuple[str, ...] = PROGRAMS) -> bytes:
    """A root filesystem of `programs` with their libraries, and dash as /bin/sh. Raises FileNotFoundError."""
    found = {program: _resolve(program) for program in programs}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in ("bin", "tmp", "data", "proc", "dev", "sys", "etc"):
            _add_directory(archive, directory)
        for program, path in found.items():
            archive.add(path, f"bin/{program}")
        for library in sorted({library for path in found.values() for library in _libraries(path)}):
            archive.add(os.path.realpath(library), library.lstrip("/"))
        shell = tarfile.TarInfo("bin/sh")
        shell.type, shell.linkname = tarfile.SYMTYPE, "dash"
        archive.addfile(shell)
    return buffer.getvalue()


def _resolve(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise FileNotFoundError(f"program {program!r} is not on this machine")
    return os.path.realpath(path)


def _libraries(path: str) -> list[str]:
    """What the loader would map, the loader itself included, by `ldd`."""
    lines = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.splitlines()
    words = (line.split() for line in lines)
    return [word for line in words for word in line if word.startswith("/")]


def _add_directory(archive: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    archive.addfile(member)
