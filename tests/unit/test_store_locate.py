"""From what people type to a store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from volback.errors import UsageError
from volback.store.local import LocalStore
from volback.store.locate import open_store


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/srv/backups", "/srv/backups"),
        ("/srv/../srv/backups/", "/srv/backups"),
        ("file:///srv/backups", "/srv/backups"),
        ("FILE://localhost/srv/backups", "/srv/backups"),
        ("file:///srv/my%20backups%23", "/srv/my backups#"),
        ("/srv/100%25", "/srv/100%25"),
        ("~", "/home/me"),
        ("~/backups", "/home/me/backups"),
        ("backups", "/home/me/here/backups"),
        ("./s3:/x", "/home/me/here/s3:/x"),
    ],
)
def test_a_path_or_file_url_is_a_local_store(
    url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    store = open_store(url)
    assert isinstance(store, LocalStore)
    assert store.url == path.replace("/home/me", str(tmp_path))
    assert open_store(store.url).url == store.url


@pytest.mark.parametrize("url", ["", " ", "a\0b", "file://", "file://host/path", "file:///a%00b", "~no-such-user/x"])
def test_what_is_no_path_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "file:///path" in (caught.value.hint or "")


def test_an_s3_url_is_an_s3_store_limited_where_that_is_asked_for() -> None:
    store = open_store("s3://bucket/prefix", {})
    assert (type(store).__name__, store.url) == ("S3Store", "s3://bucket/prefix")
    limited = open_store("s3://bucket/prefix?bandwidth=2", {})
    assert type(limited).__name__ == "LimitStore"
    assert open_store(limited.url, {}).url == limited.url


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("https://me:secret@host/x", "https"), ("memory://x/secret", "memory"), ("ftp://[secret", "ftp")],
)
def test_any_other_scheme_is_refused_without_repeating_its_secrets(url: str, scheme: str) -> None:
    with pytest.raises(UsageError, match=f"no store is registered for '{scheme}://'") as caught:
        open_store(url)
    assert "secret" not in caught.value.message
    assert "file:///path" in (caught.value.hint or "")


def test_an_s3_address_is_checked_without_importing_boto3() -> None:
    script = (
        "import sys\n"
        "from volback.store.locate import check_address, keys_of, open_store\n"
        "check_address('s3://bucket/prefix', {})\n"
        "print(keys_of('s3://bucket').credentials[0], 'boto3' in sys.modules)\n"
        "open_store('s3://bucket/prefix', {})\n"
        "print('boto3' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["access_key_id", "False", "True"]
