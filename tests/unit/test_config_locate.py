"""Lines of keys in TOML texts: strings, comments and brackets do not mislead."""

from __future__ import annotations

import tomllib

import pytest

from volback.config.locate import Lines, Path, dotted, split_tables

TEXT = '''\
top = 1 # a [comment] = "x
# [not.a.table]
[jobs.nightly] # "
text = """
[also.not]
key = 1
"""
quoted."a.b" = 'it # is'
list = [
  "]", # ]
  [1, 2],
]
inline = { a = 1, b = "}" }
[[jobs.nightly.exec_pre]]
user = "x"
[[jobs.nightly.exec_pre]]
user = \'\'\'
y\'\'\'
[ jobs . "a ] b" ]
key = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 1),
        (("jobs",), 3),
        (("jobs", "nightly"), 3),
        (("jobs", "nightly", "text"), 4),
        (("jobs", "nightly", "quoted", "a.b"), 8),
        (("jobs", "nightly", "list"), 9),
        (("jobs", "nightly", "list", 1), 9),
        (("jobs", "nightly", "inline", "b"), 13),
        (("jobs", "nightly", "exec_pre", 0, "user"), 15),
        (("jobs", "nightly", "exec_pre", 1), 16),
        (("jobs", "nightly", "exec_pre", 1, "user"), 17),
        (("jobs", "a ] b", "key"), 20),
        (("jobs", "nightly", "nothing"), 3),
        (("nothing",), None),
    ],
)
def test_line_of_a_key(path: Path, line: int | None) -> None:
    tomllib.loads(TEXT)
    assert Lines(TEXT).line(path) == line


def test_dotted_is_read_by_people() -> None:
    assert dotted(("jobs", "a b", "exec_pre", 0, "user")) == 'jobs."a b".exec_pre[0].user'


def test_split_tables_loses_nothing() -> None:
    assert "".join(split_tables(TEXT)) == TEXT
    assert next(split_tables(TEXT)).startswith("top = 1")
