"""Masking: secrets by key, by place and by value; what is no secret stays."""

from __future__ import annotations

import logging

import msgspec
import pytest

from tests.support.documents import MANIFEST
from volback.catalog.model import Source
from volback.errors import EngineError, UsageError, VolbackError
from volback.masking import (
    MaskingFilter,
    masked,
    masked_command,
    masked_keys,
    masked_labels,
    masked_mount,
    masked_options,
    secret_values,
    with_values,
    without_url,
)
from volback.operations.restore_target import TargetOptions, check_target, choose_target, hidden_labels

MOUNT = "failed to mount local volume: mount //nas/x:/var/lib/docker/volumes/n/_data, data: addr=10.0.0.1,username=me,"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2", "password=***"),
        ("PGPASSWORD=hunter2 pg_dump db", "PGPASSWORD=*** pg_dump db"),
        ('AWS_SECRET_ACCESS_KEY="hunter 2" sync', "AWS_SECRET_ACCESS_KEY=*** sync"),
        ("s3.api-key='hunter 2', size=3", "s3.api-key=***, size=3"),
        ("credentials=/etc/hunter2,rw", "credentials=***,rw"),
        ("password=hun\"ter'2", "password=***"),
        ('{"password": "hunter 2", "size": 3}', '{"password": ***, "size": 3}'),
        ("Password: hunter2", "Password: ***"),
        ("Access denied (using password: YES)", "Access denied (using password: YES)"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
        ("postgres://me:hun@ter2@db:5432/app failed", "postgres://me:***@db:5432/app failed"),
        ("//me:hunter2@nas/share", "//me:***@nas/share"),
        ("https://hunter2@example.org/x?access_token=hunter2&b=1", "https://***@example.org/x?access_token=***&b=1"),
        ("ssh://root@nas http://127.0.0.1:9000/b web1/db@2026", "ssh://root@nas http://127.0.0.1:9000/b web1/db@2026"),
        ("--driver-opt 'x' is not KEY=VALUE", "--driver-opt 'x' is not KEY=VALUE"),
        ("give --driver-opt password=...", "give --driver-opt password=..."),
        ("monkeys=3 of 4", "monkeys=3 of 4"),
        ("identity AGE-SECRET-KEY-1QQPQYQ is wrong", "identity *** is wrong"),
    ],
)
def test_secrets_in_text_are_masked_by_their_key_or_place(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown, "masking again changes nothing"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("mysqldump -uroot -phunter2 db > x", "mysqldump -uroot -p*** db > x"),
        ("mysqldump --password hunter2 db", "mysqldump --password *** db"),
        ("mongodump -u a -p hunter2 c", "mongodump -u a -p *** c"),
        ("redis-cli -a hunter2 save", "redis-cli -a *** save"),
        ("curl -u me:hunter2 http://x", "curl -u *** http://x"),
        ("sh -c 'PGPASSWORD=\"hunter 2\" pg_dump -p5432'", "sh -c 'PGPASSWORD=*** pg_dump -p5432'"),
        ("mkdir -p /x; pg_dump --no-password db", "mkdir -p /x; pg_dump --no-password db"),
    ],
)
def test_secrets_in_commands_are_masked(command: str, shown: str) -> None:
    assert masked_command(command) == shown


@pytest.mark.parametrize("password", ["hunter2", "hun ter;2&3", "hun: ter2", "hun=ter'2\"", "hunter2:"])
def test_an_engines_error_does_not_repeat_the_password_of_a_mount(password: str) -> None:
    said = masked_mount(f"{MOUNT}password={password}: invalid argument")
    assert said == f"{MOUNT}password=***: invalid argument"
    said = masked_mount(f"{MOUNT}password={password},vers=3.0: invalid argument")
    assert said == f"{MOUNT}password=***,vers=3.0: invalid argument"


def test_a_known_value_is_masked_wherever_it_is_repeated() -> None:
    values = secret_values({"token": "a,b;c d", "o": "user=x,pass=hunter2", "size": "8000"})
    assert (
        masked("plugin: login a,b;c d failed, tried hunter2, 8000", values)
        == "plugin: login *** failed, tried ***, 8000"
    )


def test_every_error_masks_its_message_and_its_hint() -> None:
    error = EngineError("mount: password=hunter2", "try: PGPASSWORD=hunter2 psql")
    assert (error.message, error.hint, str(error)) == ("mount: password=***", "try: PGPASSWORD=*** psql", error.message)


def test_a_logged_record_is_masked_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(MaskingFilter())
    try:
        raise VolbackError("x") from OSError("password=hunter2")
    except VolbackError:
        logging.getLogger("volback.test").warning("%s", "token=hunter2", exc_info=True)
    assert "token=***" in caplog.text
    assert "password=***" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (
            {"type": "cifs", "o": "addr=nas,username=me,password=hun ter=2,vers=3.0", "device": "//nas/share"},
            {"type": "cifs", "o": "addr=nas,username=me,password=***,vers=3.0", "device": "//nas/share"},
        ),
        ({"o": "pass=a"}, {"o": "pass=***"}),
        ({"o": "PASSWD=a,rw"}, {"o": "PASSWD=***,rw"}),
        ({"s3.secret_key": "abc", "size": "8m"}, {"s3.secret_key": "***", "size": "8m"}),
        ({"device": "//me:hunter2@nas/share"}, {"device": "//me:***@nas/share"}),
        ({}, {}),
    ],
)
def test_secrets_of_a_volume_driver_are_masked(options: dict[str, str], shown: dict[str, str]) -> None:
    assert masked_options(options) == shown


def test_labels_lose_only_what_is_secret() -> None:
    labels = {
        "app.token": "hunter2",
        "tokenizer": "fast",
        "keycloak": "22",
        "volback.exec-pre": "mysqldump -phunter2 db",
    }
    shown = {"app.token": "***", "tokenizer": "fast", "keycloak": "22", "volback.exec-pre": "mysqldump -p*** db"}
    assert masked_labels(labels) == shown


def test_no_part_of_a_notifications_url_is_left() -> None:
    url = "json://me:p%40ss-hunter2@example.org/to/ken1234?x=query99"
    said = without_url(f"failed {url}: p@ss-hunter2 of me, ken1234, query99 at example.org", url)
    assert said == "failed *** ***: *** of me, ***, *** at example.org".replace("*** ***:", "***")


CIFS = Source(
    kind="volume",
    name="nas",
    options={"type": "cifs", "device": "//nas/x", "o": "addr=nas,password=***,vers=3"},
    labels={"app.token": "***", "a": "b"},
)


OF_CIFS = msgspec.structs.replace(MANIFEST, source=CIFS)


def test_a_kept_driver_asks_for_the_secrets_that_no_backup_holds() -> None:
    options = TargetOptions(keep_driver=True)
    with pytest.raises(UsageError, match=r"holds no secrets, and volume 'nas' needs .*: password") as caught:
        choose_target(OF_CIFS, options, backup="nas@1")
    assert caught.value.hint == "give them beside --keep-driver: --driver-opt password=..."


def test_a_kept_driver_takes_given_secrets_into_its_options() -> None:
    options = TargetOptions(keep_driver=True, driver_options={"password": "new"})
    check_target(options, replace=False)
    target = choose_target(OF_CIFS, options, backup="nas@1").source
    assert target.options == {"type": "cifs", "device": "//nas/x", "o": "addr=nas,password=new,vers=3"}
    assert target.labels == {"a": "b"}
    assert hidden_labels(OF_CIFS, target) == [
        "not restored, as a backup holds no secrets: label app.token; give it with --label"
    ]


def test_a_plugins_hidden_option_is_replaced_whole() -> None:
    options = with_values({"token": "***", "size": "1"}, {"token": "a,b", "mode": "x"})
    assert options == {"token": "a,b", "size": "1", "mode": "x"}
    assert masked_keys(options) == []
