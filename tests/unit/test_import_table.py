"""The table of rooms, enforced: each imports only from the floors below it, each library has one room.

Imports are read from the syntax tree, so those inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "volback"

FLOORS = {
    "__main__": 11,
    "cli": 10,
    "schedule": 9,
    "jobs": 8,
    "moving": 8,
    "operations": 7,
    "live": 6,
    "context": 5,
    "encryption": 4,
    "archive": 3,
    "engine": 3,
    "notify": 3,
    "store": 3,
    "config": 2,
    "state": 2,
    "catalog": 1,
    "policy": 1,
    "ahead": 0,
    "durable": 0,
    "errors": 0,
    "feed": 0,
    "interrupts": 0,
    "latest": 0,
    "masking": 0,
    "measures": 0,
    "pace": 0,
    "printable": 0,
    "priority": 0,
    "progress": 0,
    "retry": 0,
    "settings": 0,
    "streams": 0,
    "threads": 0,
    "workers": 0,
    "__init__": 0,
}
"""A room of a higher floor imports from lower ones only; rooms of one floor do not know each other.

Floor 0 is single modules, which may import each other where that makes no circle. `config` and `state` stand above
`policy`, as both hold its rules and hooks.
"""

WAYS_IN = {"store": ("store.base", "store.locate")}
"""The modules of a room that others may import; `store.locate.open_store` is the one way to a store."""

ROOMS_OF_LIBRARIES = {
    "docker": ("engine/",),
    "requests": ("engine/",),
    "urllib3": ("engine/",),
    "zstandard": ("archive/",),
    "pyfastcdc": ("archive/blocks.py",),
    "cryptography": ("archive/primitives.py",),
    "pyrage": ("archive/",),
    "boto3": ("store/s3/client.py",),
    "botocore": ("store/s3/client.py",),
    "cronsim": ("config/times.py",),
    "apprise": ("notify/messages.py",),
    "prometheus_client": ("notify/metrics.py",),
    "rich": ("cli/",),
    "typer": ("cli/",),
    "click": ("cli/",),
    "msgspec": ("catalog/", "state/", "cli/"),
}


def violations(package: Path) -> list[str]:
    """One line for each import that the table forbids."""
    lines = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        for line, module in _imports(path, inside):
            top, _, rest = module.partition(".")
            complaint = _own(inside, rest) if top == "volback" else _foreign(inside, top)
            if complaint:
                lines.append(f"{inside}:{line}: {complaint}")
    return lines


def _imports(path: Path, inside: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                module = _absolute(node, inside)
                # `from volback import engine` and `from volback.store import s3` name it only in what they take.
                inner = module == "volback" or module.removeprefix("volback.") in WAYS_IN
                names = [f"{module}.{alias.name}" for alias in node.names] if inner else [module]
                yield from ((node.lineno, name) for name in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def _absolute(node: ast.ImportFrom, inside: Path) -> str:
    if not node.level:
        return node.module or ""
    package = ["volback", *inside.parts[:-1]]
    return ".".join(package[: len(package) - node.level + 1] + ([node.module] if node.module else []))


def _own(inside: Path, module: str) -> str | None:
    mine, theirs = _room(inside), module.partition(".")[0]
    if theirs.startswith("__") or not theirs:
        return None  # volback itself: its version
    if mine not in FLOORS or theirs not in FLOORS:
        return f"the table has no floor for {mine if mine not in FLOORS else theirs!r}"
    ways = WAYS_IN.get(theirs)
    if mine != theirs and ways and module not in ways:
        return f"{mine} imports {module}; into {theirs} lead {' and '.join(ways)} alone"
    if mine == theirs or FLOORS[theirs] < FLOORS[mine] or FLOORS[theirs] == FLOORS[mine] == 0:
        return None
    return f"{mine} (floor {FLOORS[mine]}) imports {theirs} (floor {FLOORS[theirs]})"


def _room(inside: Path) -> str:
    return inside.parts[0].removesuffix(".py")


def _foreign(inside: Path, library: str) -> str | None:
    if library in sys.stdlib_module_names:
        return None
    rooms = ROOMS_OF_LIBRARIES.get(library)
    if rooms is None:
        return f"the table has no room for the library {library!r}"
    if inside.as_posix().startswith(rooms):
        return None
    return f"{library} belongs into {' and '.join(rooms)}"


def test_every_import_of_the_package_is_in_the_table() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) > 20
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("archive/cut.py", "import docker"),
        ("archive/cut.py", "def cut():\n    import docker.types"),
        ("store/local.py", "from boto3 import client"),
        ("store/s3/store.py", "from volback.catalog.model import Frame\nimport zstandard"),
        ("operations/backup.py", "import typer"),
        ("operations/backup.py", "import numpy"),
        ("operations/backup.py", "from volback.cli.main import main"),
        ("engine/connect.py", "from volback.archive import seal"),
        ("engine/connect.py", "from volback import archive"),
        ("engine/connect.py", "from ..archive.seal import sealed"),
        ("engine/connect.py", "from .. import store"),
        ("catalog/index.py", "import importlib\nimportlib.import_module('volback.store.base')"),
        ("catalog/index.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from volback.state import runs"),
        ("errors.py", "import volback.state.runs"),
        ("jobs/open_config.py", "from volback.store.s3.settings import Credentials"),
        ("jobs/open_config.py", "def read():\n    from volback.store.s3 import settings"),
        ("cli/backup.py", "def read():\n    import volback.store.s3.store"),
        ("operations/copy.py", "from volback.store import local"),
        ("operations/open_backup.py", "from ..store.local import LocalStore"),
        ("context/__init__.py", "from importlib import import_module\nimport_module('volback.store.s3.store')"),
        ("policy/labels.py", "from volback.archive.plan import Plan"),
        ("policy/keep.py", "from volback.catalog.model import Manifest"),
        ("config/model.py", "from volback.state.runs import Run"),
        ("context/__init__.py", "from volback.live.plan import plan_quiesce"),
        ("live/quiesce.py", "from volback.operations.backup import backup"),
        ("operations/backup.py", "from volback.jobs.run import run_jobs"),
        ("operations/backup.py", "from volback.schedule.table import Schedule"),
        ("jobs/run.py", "from volback.schedule.table import Schedule"),
        ("utils.py", "from volback.errors import VolbackError"),
        ("cli/main.py", "from volback.helpers import anything"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, path: str, source: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("__main__.py", "from volback.cli.main import main"),
        ("cli/main.py", "import typer\nfrom volback import __version__\nfrom volback.operations.backup import backup"),
        ("operations/backup.py", "from volback.engine.engine import Engine\nfrom volback.state import runs\nimport os"),
        ("archive/seal.py", "import zstandard\nfrom .cut import cut\nfrom ..errors import IntegrityError"),
        (
            "store/s3/client.py",
            "import boto3\nfrom botocore.config import Config\nfrom volback.store.base import Store",
        ),
        ("settings.py", "from volback.errors import UsageError"),
        ("context/__init__.py", "from volback.store.base import Store\nfrom volback.store import locate"),
    ],
)
def test_an_import_from_below_is_allowed(tmp_path: Path, path: str, source: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    assert violations(tmp_path) == []
