"""Variables in the URLs of notifications are data: a password arrives as it is, whatever characters it has."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.support.listener import Listener, listening
from tests.support.report import failed
from volback.config.loading import load_config
from volback.jobs.notify_targets import targets_of
from volback.jobs.open_config import check_config
from volback.notify.announce import announce
from volback.store.locate import keys_of

PASSWORDS = [
    "p@ssword", "left:right", "a%41b", "a%2Fb", "100%", "a/b", "a#b", "a?b", "a&b=c", "ä", "a+b", "a b", 'x\\"y',
]  # fmt: skip


def announced(tmp_path: Path, text: str, environment: dict[str, str]) -> list[str]:
    """Notify by a table of that text; return the warnings."""
    file = tmp_path / "volback.toml"
    file.write_text(f"[notifications.ops]\n{text}\n")
    config = load_config([file], environment, keys_of=keys_of)
    assert check_config(config) == []
    targets, warnings = targets_of(config, None)
    return warnings + announce(targets, failed())


def user_of(server: Listener, encoding: str = "utf-8") -> str:
    return base64.b64decode(server.heard[-1].headers["Authorization"].split()[-1]).decode(encoding)


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_in_a_message_url_arrives_as_it_is(tmp_path: Path, password: str) -> None:
    with listening() as server:
        url = f"json://${{USER}}:${{PW}}@{server.address}/hook?-token=${{PW}}"
        assert announced(tmp_path, f'urls = "{url}"', {"USER": "m@e", "PW": password}) == []
    assert user_of(server, "latin-1") == f"m@e:{password}", "the HTTP library of apprise encodes so"
    assert parse_qs(urlsplit(server.heard[0].path).query)["token"] == [password]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_in_a_ping_arrives_as_it_is(tmp_path: Path, password: str) -> None:
    with listening() as server:
        url = f"http://me:${{PW}}@{server.address}/ping/${{PW}}?key=${{PW}}"
        assert announced(tmp_path, f'ping = "{url}"', {"PW": password}) == []
    assert user_of(server) == f"me:{password}"
    path, _, query = server.heard[0].path.partition("?")
    assert unquote(path) == f"/ping/{password}/fail"
    assert unquote(re.findall("key=([^&]*)", query)[0]) == password


def test_a_variable_may_be_the_whole_url_or_begin_it(tmp_path: Path) -> None:
    with listening() as server:
        base = f"json://me:p%40ss@{server.address}/a%20b"
        for text in ("${URL}", "${URL}/${NAME}", f"${{SCHEME}}://me:p%40ss@{server.address}"):
            warnings = announced(tmp_path, f'urls = "{text}"', {"URL": base, "NAME": "x/y", "SCHEME": "json"})
            assert (warnings, user_of(server)) == ([], "me:p@ss")
    assert [heard.path for heard in server.heard] == ["/a%20b", "/a%20b/x%2Fy", "/"]


def test_a_variable_may_be_a_host_with_its_port(tmp_path: Path) -> None:
    with listening() as server:
        for text in ("json://me:${PW}@${HOST}/x", "json://${HOST}"):
            assert announced(tmp_path, f'urls = "{text}"', {"PW": "a:1", "HOST": server.address}) == []
    assert len(server.heard) == 2
