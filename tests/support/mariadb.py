"""MariaDB's part of the databases under load: InnoDB tables, written to through the server's own client."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.databases import Load, Write, said

TABLES = (
    "CREATE TABLE entry (id BIGINT PRIMARY KEY, content TEXT) ENGINE=InnoDB;"
    "CREATE INDEX by_content ON entry (content(32));"
    "CREATE TABLE total (entries BIGINT) ENGINE=InnoDB; INSERT INTO total VALUES (0)"
)
TORN = "SELECT COUNT(*) FROM entry WHERE content <> REPEAT(MD5(id), 20)"


def mariadb_load(container: Any) -> Load:
    """Each entry is a transaction over two tables, so that half of one is noticed. The server has no port: a client in
    its container is the connection, and says a number when the transaction is committed."""
    name = container.name
    said(container, "mariadb", "test", "-e", TABLES)

    @contextmanager
    def connect() -> Iterator[Write]:
        client = ["mariadb", "--batch", "--skip-column-names", "--unbuffered", "test"]
        with subprocess.Popen(
            ["docker", "exec", "--interactive", name, *client],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        ) as process:  # fmt: skip
            yield lambda entry: _insert(process, entry)

    return Load(connect)


def _insert(process: subprocess.Popen[bytes], entry: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    insert = f"INSERT INTO entry VALUES ({entry}, REPEAT(MD5({entry}), 20)); UPDATE total SET entries = entries + 1"
    process.stdin.write(f"BEGIN; {insert}; COMMIT; SELECT {entry};\n".encode())
    reply = process.stdout.readline()
    if reply != b"%d\n" % entry:
        raise ConnectionError(f"MariaDB said {reply!r}")


def mariadb_entries(container: Any) -> set[int]:
    """The entries that are there, each with all of its value and counted by the other table."""
    entries = {int(line) for line in mariadb_said(container, "SELECT id FROM entry").split()}
    assert mariadb_said(container, "SELECT entries FROM total").split() == [str(len(entries))]
    assert mariadb_said(container, TORN).split() == ["0"]
    return entries


def assert_mariadb_is_consistent(container: Any) -> None:
    """Every table and index of every database is checked."""
    lines = said(container, "mariadb-check", "--all-databases", "--extended").splitlines()
    assert {line.split()[-1] for line in lines} == {"OK"}, lines


def mariadb_said(container: Any, query: str) -> str:
    return said(container, "mariadb", "--batch", "--skip-column-names", "test", "-e", query)
