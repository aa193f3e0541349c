"""Filesystems of their own for tests: real ones on loop devices, and what the kernel keeps in memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mounted(path: Path, *arguments: str | Path) -> Iterator[Path]:
    """Make the directory `path`, and mount there what the arguments of mount(8) say."""
    path.mkdir()
    subprocess.run(["mount", *arguments, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def make_ext4(image: Path, size_bytes: int, *options: str) -> Path:
    """Make a file that holds an empty ext4 filesystem with blocks of 1 KiB."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", *options, image], check=True)
    return image


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """A block device of the file's bytes."""
    found = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    device = found.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
