"""Whatever stands in `volback.toml`: it is read, or each problem is reported; never another exception."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from volback.config.loading import load_config
from volback.config.locate import Lines
from volback.config.toml import write_toml
from volback.store.locate import keys_of

WORDS = (
    "url access_key_id secret_access_key_file session_token_command environment volumes all label exclude level tags "
    "quiesce stop_timeout exec_pre exec_post repository keep schedule timezone jitter wait limits notify urls on title "
    "body ping textfile container command last within cpus memory io_class bandwidth VOLBACK_S3_REGION x a-b"
)
KEYS = st.sampled_from(WORDS.split())
NAMES = st.sampled_from(["main", "nightly", "a b", "", "é", "x" * 200])
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["main", "1d", "512MiB", "30 2 * * *", "Europe/Berlin", "..", "/", "${HOME}", "${", "$${X}", "s3://x"]
    ),
)
VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
SECTIONS = st.sampled_from(["repositories", "jobs", "notifications", "metrics", "other"])
TREES = st.dictionaries(
    SECTIONS, st.one_of(VALUES, st.dictionaries(NAMES, st.one_of(VALUES, st.dictionaries(KEYS, VALUES)), max_size=3))
)
FRAGMENTS = st.lists(
    st.sampled_from(
        ["[jobs.a]", "[[jobs.a.exec_pre]]", "[", "]", "=", "\n", '"', "'", '"""', "#", "{", "}", ",", "1", "a", ".",
         "repository", "[repositories.main]\n", 'url = "/x"\n', "\\", "\r\n", "\0", "é", " "]
    ),
    max_size=30,
).map("".join)  # fmt: skip


def load(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "volback.toml"
        file.write_bytes(data)
        config = load_config([file], {"HOME": "/root"}, keys_of=keys_of)
        for problem in config.problems:
            assert str(problem).startswith(str(file))
        assert not set(config.jobs) & set(config.broken)
        tomllib.loads("\n".join(write_toml(config.shown)))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), FRAGMENTS.map(lambda text: text.encode())))
def test_garbage(data: bytes) -> None:
    load(data)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_odd_values_in_good_toml(tree: dict[str, object]) -> None:
    load("\n".join(write_toml(tree)).encode("utf-8", "surrogatepass"))


@settings(max_examples=150, deadline=None)
@given(FRAGMENTS)
def test_lines_of_any_text_that_is_toml(text: str) -> None:
    Lines(text)
