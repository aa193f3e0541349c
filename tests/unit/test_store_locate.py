"""From what people type to a store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from volback.context import Context, open_repository
from volback.errors import UsageError
from volback.settings import load_settings
from volback.store.local import LocalStore
from volback.store.locate import check_address, open_store


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


FOREIGN = {
    "s3:s3.amazonaws.com/bucket": "s3://bucket",
    "s3:https://s3.example.org/bucket/a/b": "s3://bucket/a/b?endpoint=https://s3.example.org",
    "s3:http://nas:9000/bucket": "s3://bucket?endpoint=http://nas:9000",
    "s3:10.0.0.1:9000/bucket": "s3://bucket?endpoint=https://10.0.0.1:9000",
    "s3:https://mine.s3.eu-central-1.amazonaws.com/a": "s3://mine/a?region=eu-central-1",
    "s3:/bucket": "s3://bucket",
    "s3:bucket/prefix": "s3://bucket/prefix",
    "s3:": "s3://BUCKET/PREFIX",
    "S3//bucket/prefix": "s3://bucket/prefix",
    "s3//bucket": "s3://bucket",
    "https://nas:9000/bucket": "s3://bucket?endpoint=https://nas:9000",
    "https:/nas/bucket": "s3://bucket?endpoint=https://nas",
    "s3a://bucket/prefix": "s3://bucket/prefix",
    "gs://bucket/x": "endpoint=https://storage.googleapis.com",
    "b2:bucket:prefix": "endpoint=https://s3.REGION.backblazeb2.com",
    "sftp:backup@nas:/srv/b": "sshfs",
    "sftp://backup@nas/srv/b": "sshfs",
    "ssh://nas/srv/b": "sshfs",
    "backup@nas:/srv/b": "sshfs",
    "nas:/srv/b": "sshfs",
    "nas:b": "./NAME",
    "nas::module": "sshfs",
    "rclone:remote:path": "rclone serve s3",
    "azure:container:/": "rclone serve s3",
    "azure://container": "rclone serve s3",
    "rest:http://nas:8000/": "a server of restic",
    "file:/srv/b": "file:///PATH",
    "C:\\dir": "a path of this machine",
    "C:/dir": "a path of this machine",
    "D:": "a path of this machine",
    "\\\\server\\share": "a path of this machine",
    "//server/share": "mount it here",
}


@pytest.mark.parametrize("address", FOREIGN)
def test_the_address_of_another_program_is_refused_with_the_form_that_is_right_here(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        open_store(address)
    assert FOREIGN[address] in (caught.value.hint or "")
    suggested = re.search(r"write (s3://[a-z]\S*?)[;,]?( |$)", caught.value.hint or "")
    if suggested:
        check_address(suggested[1], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    ["rest:http://me:secret@nas:8000/", "s3:https://key:secret@nas/bucket", "me:secret@nas:/srv", "s3:key/a:secret@b",
     "https://me:secret@nas/bucket", "http:me:secret@nas/bucket", "s3:https://nas/bucket?password=secret"],
)  # fmt: skip
def test_a_password_in_the_address_of_another_program_is_not_repeated(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(address)
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "path", ["./s3:bucket", "./a:b/c", "../a:b", "/srv/a:b", "srv/a:b", "~/C:/x", "///srv", "a@b/c"]
)
def test_a_directory_may_have_a_colon_in_its_name(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store(path).url == os.path.normpath(Path(path).expanduser().absolute())


def test_a_relative_path_in_a_directory_that_was_removed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="repository 'backups' is relative, and the working directory was removed"):
        open_store("backups")
    with pytest.raises(UsageError, match="VOLBACK_STATE_DIR 'state' is relative"):
        load_settings({"VOLBACK_STATE_DIR": "state"})
    assert open_store("/srv/backups").url == "/srv/backups"


@pytest.mark.parametrize("address", [os.fsdecode(b"/srv/caf\xe9"), "file:///srv/caf%E9"])
def test_a_path_that_is_not_utf8_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"^repository '/srv/caf\\udce9': its path is not UTF-8$") as caught:
        open_store(address)
    assert caught.value.message.isascii()
    assert caught.value.hint == "give a symbolic link to it"


def test_an_option_without_a_value_does_not_mean_the_default_repository() -> None:
    """As in `--repo "$BACKUPS"` where the variable is not set."""
    settings = load_settings({"VOLBACK_REPO": "/srv/backups"}, repository="")
    with pytest.raises(UsageError, match="'' is not a path"):
        open_repository(Context(settings))


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
