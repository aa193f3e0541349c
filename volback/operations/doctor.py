"""Doctor: check everything that a backup needs, one check after the other; a failed check does not stop the others.

It changes only what `fix` removes; what it writes to measure (a small object, a helper) it removes again.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from volback.catalog.condemned import GRACE_S
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import IntegrityError, VolbackError, cleaning_up
from volback.measures import count, human_size
from volback.operations.keys import keys_of
from volback.operations.leftovers import Leftovers
from volback.operations.recover import sweep
from volback.operations.standing import LITTLE_SPACE_BYTES
from volback.state.journal import Replacing
from volback.state.runs import Run
from volback.state.unfinished import forget_all

log = logging.getLogger(__name__)

Status = Literal["ok", "warning", "failed"]
PROBE_BYTES = 64 * 1024
STALE_S = 86_400.0
"""Only its age distinguishes an abandoned upload from one in progress."""
_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found; `text` for people, `facts` for programs."""

    name: str
    status: Status
    text: str
    hint: str | None = None
    facts: dict[str, str | int | float] = field(default_factory=dict)
    exit_code: int = 0
    """The exit code of the error that made it fail."""
    is_incomplete: bool = False
    """Whether something stays that was to be removed."""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All checks, in the order in which they were made."""

    checks: list[Check]

    @property
    def exit_code(self) -> int:
        """That of the first check that failed; warnings are not failures."""
        return next((check.exit_code for check in self.checks if check.status == "failed"), 0)


def doctor(
    ctx: Context, engine: Engine, repository: Repository, *, fix: bool, older_than_s: float | None = None
) -> DoctorReport:
    """Make every check; with `fix`, remove what crashed runs left, and unfinished uploads of that age.

    Without an age it is a day, or where another machine may be uploading, the two days after which a prune aborts it.
    """
    if older_than_s is None:
        older_than_s = STALE_S + GRACE_S if repository.store.is_shared else STALE_S
    return DoctorReport(_Doctor(ctx, engine, repository, fix=fix, older_than_s=older_than_s).examine())


class _Doctor:
    def __init__(self, ctx: Context, engine: Engine, repository: Repository, *, fix: bool, older_than_s: float) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._fix = fix
        self._older_than_s = older_than_s
        self._failed: set[str] = set()
        self._left = Leftovers()

    def examine(self) -> list[Check]:
        return [
            self._check("state", self._check_state),
            self._check("engine", self._check_engine),
            self._check("image", self._check_image, needs="engine"),
            self._check("transport", self._check_transport, needs="engine state image"),
            self._check("repository", self._check_repository),
            self._check("repository write", self._check_write, needs="repository"),
            self._check("space", self._check_space, needs="repository"),
            self._check("unfinished", self._check_unfinished, needs="repository"),
            self._check("leftovers", self._check_leftovers, needs="engine state"),
            self._check("replaced volumes", self._check_replaced, needs="engine state leftovers"),
            self._check("elsewhere", self._check_elsewhere, needs="engine state leftovers"),
            self._check("empty volumes", self._check_empty_volumes, needs="engine"),
        ]

    def _check(self, name: str, check: Callable[[str], Check], *, needs: str = "") -> Check:
        """Make one check. One that depends on a failed check reports that, and does not fail itself."""
        lacking = [need for need in needs.split() if need in self._failed]
        if lacking:
            return Check(name, "warning", f"not checked: it needs the {lacking[0]}")
        try:
            return check(name)
        except VolbackError as exc:
            log.debug("check %s failed", name, exc_info=True)
            self._failed.add(name)
            return Check(name, "failed", exc.message, exc.hint, exit_code=exc.exit_code)

    def _check_state(self, name: str) -> Check:
        with self._run():
            return Check(name, "ok", f"{self._ctx.settings.state} is writable")

    def _check_engine(self, name: str) -> Check:
        info = self._engine.info
        text = f"{info.version}, API {info.api_version}, on host {info.name} ({info.architecture})"
        facts: dict[str, str | int | float] = {"version": info.version, "api_version": info.api_version}
        return Check(name, "ok", text, facts=facts | {"host": info.name, "id": info.id})

    def _check_image(self, name: str) -> Check:
        present = self._engine.has_image()
        image = self._engine.ensure_image()
        how = "present" if present else "made"
        return Check(name, "ok", f"helper image {image} is {how}", facts={"image": image, "how": how})

    def _check_transport(self, name: str) -> Check:
        with self._run() as run:
            speed = self._engine.probe(run=run.id, directory=run.scratch("probe"))
        what = "named pipes" if speed.transport == "pipe" else "attach connection"
        text = f"{speed.transport} ({what}), {speed.bytes_per_s / 1e6:.0f} MB/s"
        facts: dict[str, str | int | float] = {"transport": speed.transport, "bytes_per_s": round(speed.bytes_per_s)}
        state, own = self._ctx.settings.state, self._engine.own_container
        if own is not None and own.mount_of(state) is None:
            text += f"; {state} is not in a volume, and is lost with container {own.name!r}"
            return Check(name, "warning", text, f"mount a volume on {state}", facts)
        return Check(name, "ok", text, facts=facts)

    def _check_repository(self, name: str) -> Check:
        url, info = self._repository.store.url, self._repository.info
        backups = len(self._repository.catalog.backups())
        facts: dict[str, str | int | float] = {"url": url, "format": info.format, "id": info.id, "backups": backups}
        text = f"{url}: format {info.format}, {backups} backups"
        if info.encryption is None:
            return Check(name, "ok", text, facts=facts)
        keys = keys_of(self._repository).all()
        opening = sum(info.encryption.recipient in key.opens for key in keys)
        facts |= {"keys": len(keys), "opening_keys": opening}
        if not opening:
            hint = "add one: volback key add NAME --identity FILE"
            return Check(name, "warning", f"{text}; encrypted, and no key is known to open it", hint, facts)
        return Check(name, "ok", f"{text}; encrypted, {count(opening, 'key')}: without one, all is lost", facts=facts)

    def _check_write(self, name: str) -> Check:
        """Write, read back and delete one object, with a name that is not part of a backup."""
        store, key, data = self._repository.store, f"volback-probe-{self._ctx.random_hex(8)}", os.urandom(PROBE_BYTES)
        try:
            store.put(key, [data], if_absent=True)
            if b"".join(store.open(key)) != data:
                raise IntegrityError(f"repository {store.url} does not return what was written", "check its disk")
        except BaseException:
            with cleaning_up("what doctor wrote may stay"):
                store.delete(key)
            raise
        store.delete(key)
        return Check(name, "ok", "an object was written, read back and deleted")

    def _check_space(self, name: str) -> Check:
        free = self._repository.store.free_bytes()
        if free is None:
            return Check(name, "ok", "the repository has no known limit")
        text, facts = f"{human_size(free)} free in the repository", {"free_bytes": free}
        if free < LITTLE_SPACE_BYTES:
            return Check(name, "warning", text, "make room, or remove old backups: volback remove", {**facts})
        return Check(name, "ok", text, facts={**facts})

    def _check_unfinished(self, name: str) -> Check:
        """Uploads that were begun and not ended: a bucket's owner pays for them, and listings of objects do not show
        them."""
        store, now = self._repository.store, datetime.now(UTC)
        left = store.unfinished()
        stale = [upload for upload in left if (now - upload.started_at).total_seconds() >= self._older_than_s]
        facts: dict[str, str | int | float] = {"unfinished": len(left), "stale": len(stale)}
        if stale and not self._fix:
            names = ", ".join(upload.key for upload in stale[:_NAMED_AT_MOST])
            more = f" and {len(stale) - _NAMED_AT_MOST} more" if len(stale) > _NAMED_AT_MOST else ""
            return Check(name, "warning", f"unfinished: {names}{more}", "abort them: volback doctor --fix", facts)
        if stale:
            removed = store.sweep(older_than_s=self._older_than_s)
            return Check(name, "ok", f"removed {count(len(removed), 'unfinished write')}", facts=facts)
        if left:
            text = f"{count(len(left), 'write')} in progress, or not old enough to be considered dead"
            return Check(name, "ok", text, facts=facts)
        return Check(name, "ok", "no unfinished writes", facts=facts)

    def _check_leftovers(self, name: str) -> Check:
        if self._fix:
            forget_all(self._ctx.settings.state, self._repository.id, self._ctx.now())
        left = self._left = sweep(self._ctx, self._engine, self._repository, remove=self._fix)
        found = _counted(left)
        if left.kept:
            also = f"; removed {found}" if found and self._fix else ""
            return Check(name, "warning", f"{'; '.join(left.kept)}{also}", is_incomplete=self._fix)
        if left.directories:
            names, also = ", ".join(left.directories), f"; removed {found}" if found and self._fix else ""
            text = f"a run died while it restored into {names}: what is there is incomplete{also}"
            return Check(name, "warning", text, f"remove it on the engine's host: rm -r {left.directories[0]}")
        if not found:
            return Check(name, "ok", "crashed runs left nothing")
        if self._fix:
            return Check(name, "ok", f"removed {found}")
        return Check(name, "warning", f"crashed runs left {found}", "remove them: volback doctor --fix")

    def _check_replaced(self, name: str) -> Check:
        replaced = sorted(self._left.replaced, key=lambda entry: entry.volume)
        if not replaced:
            return Check(name, "ok", "no volume was left half replaced")
        names = ", ".join(repr(volume) for volume in dict.fromkeys(entry.volume for entry in replaced))
        return Check(
            name,
            "warning",
            f"a run died while it replaced {names}: what it holds may be incomplete",
            self._way_back(replaced[0]),
        )

    def _way_back(self, entry: Replacing) -> str:
        if entry.is_copied_into and not entry.safety_backup:
            return f"remove it (docker volume rm {entry.volume}), and copy the other volume again"
        there = entry.repository if entry.repository != self._repository.store.url else ""
        repository = f"--repo {shlex.quote(there)} " if there else ""
        backup = entry.safety_backup or entry.backup or entry.volume
        part = [] if entry.safety_backup else [f"--path {shlex.quote(path)} " for path in entry.paths]
        return f"get it back: volback {repository}restore {backup} --as {entry.volume} {''.join(part)}--replace"

    def _check_elsewhere(self, name: str) -> Check:
        """What a run here can neither see nor remove, and therefore keeps in the journal."""
        left = self._left
        named = [f"{entry.what} {entry.where}" for entry in left.elsewhere]
        named += [f"{directory}, whose journal this version cannot read" for directory in left.unreadable]
        if not named:
            return Check(name, "ok", "crashed runs left nothing on other engines or in other repositories")
        return Check(
            name,
            "warning",
            f"crashed runs left {', '.join(named)}",
            "run volback doctor --fix there, with this state directory;"
            f" if it no longer exists, remove the run from {self._ctx.settings.state / 'runs'}",
        )

    def _check_empty_volumes(self, name: str) -> Check:
        made = [volume.name for volume in self._engine.volumes_made_by_mounting()]
        if not made:
            return Check(name, "ok", "no volume was created by mistake")
        return Check(
            name,
            "warning",
            f"a killed run mounted volumes that had been removed, so the engine created them again: {', '.join(made)}",
            f"if nobody uses it: docker volume rm {made[0]}",
        )

    @contextmanager
    def _run(self) -> Iterator[Run]:
        with Run(self._ctx.settings.state, "doctor") as run:
            yield run


def _counted(left: Leftovers) -> str:
    """What was left, in words."""
    counts = {
        "stopped container": left.containers, "scaled-down service": left.services,
        "helper container": left.helpers, "half-restored volume": left.volumes,
        "half-made backup": left.backups, "crashed run": left.runs,
    }  # fmt: skip
    return ", ".join(f"{len(found)} {what}{'s' * (len(found) > 1)}" for what, found in counts.items() if found)
