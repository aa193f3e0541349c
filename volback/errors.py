"""The one error tree of volback; every package translates foreign errors into it at its edge.

    VolbackError            1    failed
      UsageError            2    the call itself is wrong
        IdentityNeeded      2    what is encrypted is to be read, and no available identity or passphrase opens it
      NotFoundError         4    volume, backup, path or object that is not there
      ConflictError         5    in use, not empty, exists already, depended upon
        NotRunningError     5    a command is to run in a container that is not running
      LockedError           6    another run holds it
      IntegrityError        7    stored bytes are not what was written
        FormatError         7    a format number or document that this version cannot read
        MissingObject       7    an object that a backup needs is not there
        DamagedFrame        7    stored data is damaged in one place
        DamagedPiece        7    a piece of an encrypted object is damaged
          UnknownRequirement 7   a repository that only a newer version may use
      EngineError           1    the engine refused or a helper failed
        HelperLost          1    a helper was killed, or ended before its work was done
        EngineUnreachable   8    no engine, no permission on its socket, no answer in time
      StoreError            1    the store refused a read or a write (disk full)
        StoreDenied         1    its rights do not allow that
          ObjectLocked      1    an object lock or a retention does not allow it now
        ManifestUnreadable  1    it did not return a manifest, so what that backup needs is unknown
        StoreUnreachable    9    no store, no answer in time
          NoRepository      9    the repository is not there, or is not the one that was there before
            RecipientChanged 7  it is encrypted for somebody else than before
    Interrupted             130  SIGINT;  143 SIGTERM. A BaseException: see there

Only cli/ turns them into text and exit codes. A message may repeat what an engine, a hook or a store said, so each one
masks the secrets in it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from volback.masking import masked

log = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_WARNINGS = 3
WORST_FIRST = (143, 130, 7, 1, 8, 9, 5, 2, 4, 6, EXIT_WARNINGS, EXIT_DONE)
"""Where several things failed, the exit code is the first of these: an interruption, then damage, then failures by how
much of the work they are likely to have cost, then what another run has locked."""


class VolbackError(Exception):
    """A failure in one line: what failed, on which object, why; the hint is the next command."""

    kind = "failed"
    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = masked(message)
        self.hint = None if hint is None else masked(hint)
        super().__init__(self.message)


def as_failure(exc: Exception) -> VolbackError:
    """The error for the user of an exception that nobody translated: of the machine's limits, or of volback itself."""
    where = f"{exc.filename}: " if isinstance(exc, OSError) and exc.filename else ""
    if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
        return VolbackError(f"{where}too many files are open", "raise the limit: ulimit -n")
    if isinstance(exc, RuntimeError) and "can't start new thread" in str(exc):
        return VolbackError(
            "this machine allows no further thread", "raise the limit: ulimit -u, or pids of a container"
        )
    if isinstance(exc, MemoryError):
        return VolbackError("there is not enough memory", "free some, or raise the limit of the container")
    if isinstance(exc, OSError) and exc.errno == errno.ENOMEM:
        return as_failure(MemoryError())
    if isinstance(exc, OSError) and exc.strerror:
        return VolbackError(f"{where}{exc.strerror}", "run it again with --debug")
    return VolbackError(f"internal error: {type(exc).__name__}: {exc}", "run it again with --debug and report it")


class UsageError(VolbackError):
    """The call itself is wrong: an option, a name or a combination that is not valid."""

    kind = "usage"
    exit_code = 2


class IdentityNeeded(UsageError):
    """What is to be read is encrypted, and nothing available opens it: no identity, another one, a wrong passphrase."""

    kind = "identity"


class NotFoundError(VolbackError):
    """A volume, backup, path or object that does not exist."""

    kind = "not_found"
    exit_code = 4


class ConflictError(VolbackError):
    """The object is in a state that the call must not change: in use, not empty, existing already."""

    kind = "conflict"
    exit_code = 5


class NotRunningError(ConflictError):
    """A container has to run for what is asked, and is stopped, paused or restarting; nothing was done."""


class LockedError(VolbackError):
    """Another run holds the lock."""

    kind = "locked"
    exit_code = 6


class IntegrityError(VolbackError):
    """Stored bytes are not those that were written; no unverified byte has been used."""

    kind = "integrity"
    exit_code = 7


class FormatError(IntegrityError):
    """A document that this version cannot read: garbage, or of another format number."""

    kind = "format"


class MissingObject(IntegrityError):
    """An object that a backup needs is not there: it is lost, or the backup was repacked meanwhile."""


class DamagedFrame(IntegrityError):
    """A frame that is not what was written, in the data object of the backup with that id."""

    def __init__(self, backup: str, offset: int, why: str) -> None:
        self.backup = backup
        self.offset = offset
        self.why = why
        super().__init__(f"frame at {offset} of backup {backup} is damaged: {why}")


class DamagedPiece(IntegrityError):
    """A piece of an encrypted object that is not what was written; what follows it may be."""

    def __init__(self, message: str, number: int) -> None:
        self.number = number
        super().__init__(message)


class UnknownRequirement(FormatError):
    """The repository says that its users must know what this version does not."""


class EngineError(VolbackError):
    """The engine refused a call, or a helper container failed."""

    kind = "engine"


class HelperLost(EngineError):
    """A helper was killed, or ended before its work was done, as where an engine stops or a connection breaks."""


class EngineUnreachable(EngineError):
    """No engine answers: not running, no permission on its socket, or no reply in time."""

    kind = "engine_unreachable"
    exit_code = 8


class StoreError(VolbackError):
    """The store refused a read or a write: disk full, permission, read-only."""

    kind = "store"


class StoreDenied(StoreError):
    """The store's rights do not allow it: a key that may only write cannot read, or not delete."""


class ObjectLocked(StoreDenied):
    """An object lock or a retention keeps an object from being deleted; `until` says how long, where that is known."""

    until: datetime | None = None


class ManifestUnreadable(StoreError):
    """A store did not return a manifest that is there, so it is unknown what its backup needs: nothing is damaged."""


class StoreUnreachable(StoreError):
    """The store does not answer."""

    kind = "store_unreachable"
    exit_code = 9


class NoRepository(StoreUnreachable):
    """Where a repository should be, there is none, or another one: perhaps its disk is not mounted."""

    kind = "no_repository"


class RecipientChanged(NoRepository):
    """A repository is encrypted for somebody else than before, or in clear now: whoever can write there did that."""

    kind = "recipient_changed"
    exit_code = 7


class Interrupted(BaseException):
    """A signal ended the run; exit code 128 + its number.

    A BaseException, as trio's Cancelled is: much code catches VolbackError or Exception to collect an error and carry
    on with the next volume, and libraries (docker-py, botocore, logging) do so too. None of that may take a signal for
    a failure of the thing in hand. Clean-up that must happen belongs into `finally` or `except BaseException`.
    """

    kind = "interrupted"

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.message = f"interrupted by signal {signal_number}"
        self.hint: str | None = "run the command again"
        self.exit_code = 128 + signal_number


@contextmanager
def cleaning_up(what: str) -> Iterator[None]:
    """Clean up after an error that is raised next: one of the block is logged, as it would hide the first.

    For `except BaseException:` and `finally:`; a plain call there would replace what led to it.
    """
    try:
        yield
    except VolbackError as exc:
        log.warning("%s: %s", what, exc.message)


Failure = VolbackError | Interrupted
"""What ends a command, or a part of one, and is shown in one line."""


_E = TypeVar("_E", bound=VolbackError)


def because(exc: _E, what: str) -> _E:
    """The error for what did not come about because of `exc`."""
    error = type(exc)(f"{what}: {exc.message}", exc.hint)
    error.__cause__ = exc
    return error


def kind_of_all(errors: Collection[VolbackError]) -> type[VolbackError]:
    """The type of the one error for several things that cannot be read: damage, if one of them is damaged."""
    return IntegrityError if any(isinstance(one, IntegrityError) for one in errors) else type(next(iter(errors)))


def failures(interrupted: Interrupted | None, errors: Iterable[VolbackError]) -> list[Failure]:
    """All that ended parts of a command. An interruption comes first, so that its exit code counts."""
    return [*([interrupted] if interrupted is not None else []), *errors]


_F = TypeVar("_F", VolbackError, Failure)


def worst_first(errors: Iterable[_F]) -> list[_F]:
    """The errors in the order of WORST_FIRST; those of one exit code stay as they were."""
    return sorted(errors, key=lambda error: WORST_FIRST.index(error.exit_code))
