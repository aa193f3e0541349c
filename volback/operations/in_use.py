"""In use: a volume that is replaced must have no running users - asked of its storage, by whatever name it is reached.

It is asked before anything is done, right before the old content is removed, and at the end; containers that came and
went in between are known by the engine's events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.engine.storage import StorageUser
from volback.errors import ConflictError
from volback.policy.schedulers import stop_command
from volback.policy.storage import is_tmpfs


class UnusedStorage:
    """The storage of a volume or directory that nobody is to use while it is replaced."""

    def __init__(self, engine: Engine, target: Source) -> None:
        self._engine = engine
        self._what = f"{target.kind} {target.name!r}"
        self._storage = engine.storage(target)
        self._is_volume = target.kind == "volume"
        self._is_tmpfs = False
        if target.kind == "volume":
            volume = engine.volume(target.name)
            self._is_tmpfs = is_tmpfs(volume.driver, volume.options)

    def check(self) -> None:
        """Raises ConflictError if a running container uses it, or if none does that keeps a tmpfs mounted."""
        active = [user for user in self._active() if not user.broad]
        if self._is_tmpfs and not active:
            raise ConflictError(
                f"{self._what} is in memory (tmpfs), and its content lost as soon as it is restored",
                "start or pause a container that mounts it, or restore to another volume with --as",
            )
        used = [user for user in active if not (self._is_tmpfs and (user.state == "paused" or not user.writable))]
        if used:
            raise ConflictError(
                f"{self._what} is in use by container {used[0].name!r}",
                f"stop it first: {stop_command(used[0].name, used[0].labels)}",
            )

    @contextmanager
    def replacing(self, *, done: str = "", again: str = "") -> Iterator[None]:
        """Check before and after the block that replaces the content; what came and went meanwhile counts too.

        Raises ConflictError. `done` and `again`: what was done to it, and is to be done once more, where that is not a
        restore.
        """
        with self._engine.arrivals(self._storage) as arrivals:
            self.check()
            yield
            used: dict[str, Mapping[str, str]] = {name: {} for name in arrivals.names()}
            used |= {user.name: user.labels for user in self._active() if self._may_write(user)}
        if used:
            name = min(used)
            how = "replaced" if self._is_volume else "restored"
            once_more = f"restore again {'with --replace' if self._is_volume else 'into an empty directory'}"
            raise ConflictError(
                f"{self._what} was used by container {name!r} while it was {done or how}, and may hold its changes",
                f"stop it ({stop_command(name, used[name])}), and {again or once_more}",
            )

    def warnings(self, *, above: bool = False) -> tuple[str, ...]:
        """Name the running containers that can write to it only because they mount all volumes: they do not stop it.

        With `above`, those too that mount a directory above it.
        """
        return tuple(
            f"container {user.name!r} mounts {'the directory of all volumes' if user.broad else 'a directory above'},"
            f" so it can write to {self._what}"
            for user in self._active()
            if (user.broad or above) and user.writable
        )

    def _may_write(self, user: StorageUser) -> bool:
        return user.writable and not user.broad and not (self._is_tmpfs and user.state == "paused")

    def _active(self) -> list[StorageUser]:
        return [user for user in self._engine.storage_users(self._storage) if user.is_active]
