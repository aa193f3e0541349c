"""What an error of the system means for a repository in a directory. Pure, used by store.local."""

from __future__ import annotations

import errno

from volback.errors import NotFoundError, StoreError, StoreUnreachable, VolbackError

_ELSEWHERE = "or choose another one with --repo"
_GONE = (
    "does not answer",
    f"see that its filesystem is mounted, and mount it again, {_ELSEWHERE}",
)
_REASONS = {
    errno.ENOSPC: ("is full", "free space there (`volback remove` old backups), then run the command again"),
    errno.EDQUOT: ("is over its disk quota", "raise the quota or `volback remove` old backups, then run again"),
    errno.EFBIG: ("takes no file of that size", f"its filesystem must take larger ones (vfat: 4 GiB), {_ELSEWHERE}"),
    errno.EROFS: ("is read-only", "mount it writable, or choose another one with --repo"),
    errno.EACCES: ("denies access", "run as the owner of the repository, or choose another one with --repo"),
    errno.EPERM: ("denies access", "its files must not be immutable, and its filesystem must allow them to be renamed"),
    errno.EIO: ("has a disk error", "see the kernel's log, then check the backups with `volback verify --data`"),
    errno.ENAMETOOLONG: ("is on a filesystem that takes no names of that length", "choose another one with --repo"),
    errno.ENOTDIR: ("holds a file where a directory belongs", "move that file out of the repository"),
    errno.EISDIR: ("holds a directory where a file belongs", "move that directory out of the repository"),
    errno.ENOENT: ("lost what was being written", "see which program removes files there, then run the command again"),
    errno.EMFILE: ("could not be opened: too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("could not be opened: the system has too many open files", "raise fs.file-max"),
    **dict.fromkeys(
        (errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO),
        _GONE,
    ),
}


def explain_os_error(exc: OSError, root: str, *, action: str, key: str) -> VolbackError:
    """The error for the user: what failed, on which object, why, and what to do. `key` is `.` for the root."""
    code = exc.errno or 0
    if action == "read" and key != "." and code in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return NotFoundError(f"object {key!r} is not in repository {root}", "see `volback list`")
    why, hint = _REASONS.get(code, (f"failed ({exc.strerror})", None))
    unreachable = _REASONS.get(code) is _GONE
    message = f"repository {root} {why}: cannot {action} {key!r}" + (f" ({exc.strerror})" if unreachable else "")
    return (StoreUnreachable if unreachable else StoreError)(message, hint)
