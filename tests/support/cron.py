"""A real cron daemon in mount and PID namespaces of its own: it sees the tables of the test, not the machine's."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.support.engine import engine_socket

_SCRIPT = """
set -e
mkdir -p {root}/etc/cron.d {root}/spool/crontabs {root}/machine-run
mount --bind {root}/etc/cron.d /etc/cron.d
mount --bind {root}/spool /var/spool/cron
chmod 1730 /var/spool/cron/crontabs
mount --bind /dev/null /etc/crontab
mount --bind /run {root}/machine-run
mount -t tmpfs tmpfs /run
if [ -S {root}/machine-run/{socket} ]; then
  mkdir -p "$(dirname /run/{socket})"
  touch /run/{socket}
  mount --bind {root}/machine-run/{socket} /run/{socket}
fi
exec {words}
"""
_FAKETIME = "/usr/$LIB/faketime/libfaketime.so.1"
"""As Debian's faketime has it preloaded: the linker fills $LIB in. The program itself needs a semaphore that is named
for its process id, which is the same in each PID namespace."""
_LATE_S = 55
"""In which second of a minute cron starts, by its clock: what is due each minute is due soon."""


def words_apart(root: Path, *words: str) -> list[str]:
    """The command line that runs these words where `root` has the cron tables; all ends with its first process."""
    socket = engine_socket().resolve()
    kept = socket.relative_to("/run") if socket.is_relative_to("/run") else "none"
    script = _SCRIPT.format(root=shlex.quote(str(root)), words=shlex.join(words), socket=shlex.quote(str(kept)))
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]


@contextmanager
def cron_daemon(root: Path) -> Iterator[None]:
    """Run cron inside, on `root`/etc/cron.d and the users' tables in `root`/spool/crontabs.

    Its clock alone is ahead, as it gives jobs an environment of its own: a minute ends soon after its start.
    """
    ahead_s = (_LATE_S - datetime.now(UTC).second) % 60
    clock = [f"LD_PRELOAD={_FAKETIME}", f"FAKETIME=+{ahead_s}s", "NO_FAKE_STAT=1"]
    process = subprocess.Popen(words_apart(root, "env", *clock, "cron", "-f"), stdin=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, "cron ended by itself"
    finally:
        process.kill()
        process.wait()
