"""Fixtures of tests that call the operations on a real engine."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engine import EngineSession
from tests.support.library import Library, open_library
from volback.engine.image import assemble
from volback.operations.backup import BackupOptions, backup
from volback.operations.sources import volume_source


@pytest.fixture
def library(engine: EngineSession, tmp_path: Path) -> Library:
    """What operations work with: a repository and a state of the test's own."""
    return open_library(engine, tmp_path)


@pytest.fixture
def save(library: Library, volume_factory: Callable[..., str]) -> Callable[[Callable[[Path], None]], str]:
    """Makes a volume that a function has filled, and a backup of it; gives the volume's name."""

    def made(fill: Callable[[Path], None]) -> str:
        name = volume_factory("saved", fill=fill)
        backup(*library, volume_source(library.engine, name), BackupOptions())
        return name

    return made


_SYNC_FAILS = "echo \"sync: error syncing '$2': Input/output error\" >&2; exit 1"


@pytest.fixture
def image_that_cannot_sync(engine: EngineSession) -> Iterator[str]:
    """A helper image whose sync fails as that of a disk with errors does."""
    with _image_with_sync(engine, _SYNC_FAILS) as tag:
        yield tag


@pytest.fixture
def image_whose_first_sync_fails(engine: EngineSession) -> Iterator[str]:
    """Another one: of a target it fails once, as an error is given to the first that asks."""
    at = "case $2 in /target | .) at=$2;; *) exit;; esac"
    once = f'{at}; [ -e "$at/asked" ] || {{ : >"$at/asked" && {_SYNC_FAILS}; }}'
    with _image_with_sync(engine, once) as tag:
        yield tag


@contextmanager
def _image_with_sync(engine: EngineSession, command: str) -> Iterator[str]:
    tag = f"volback-test-helper:{secrets.token_hex(6)}"
    out, script = io.BytesIO(), f"#!/bin/sh\n{command}\n".encode()
    with (
        tarfile.open(fileobj=io.BytesIO(assemble())) as assembled,
        tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for entry in assembled:
            if entry.name != "usr/bin/sync":
                archive.addfile(entry, assembled.extractfile(entry) if entry.isfile() else None)
        entry = tarfile.TarInfo("usr/bin/sync")
        entry.size, entry.mode = len(script), 0o755
        archive.addfile(entry, io.BytesIO(script))
    repository, _, version = tag.partition(":")
    changes = ["ENV PATH=/usr/bin:/bin"]
    engine.client.api.import_image_from_data(out.getvalue(), repository=repository, tag=version, changes=changes)
    try:
        yield tag
    finally:
        engine.client.images.remove(tag)
