"""What a volume's driver and options say of its storage, and which labels a restored volume takes over."""

from __future__ import annotations

import pytest

from volback.policy.storage import described, inherited_labels, is_plain

COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.volume": "db", "com.docker.compose.version": "2"}
ACTING = {**COMPOSE, "com.docker.stack.namespace": "shop", "volback.keep-last": "2", "volback.job": "nightly"}
OWN = {"com.example.part": "one", "traefik.enable": "true"}


@pytest.mark.parametrize(
    ("driver", "options", "plain"),
    [
        ("local", {}, True),
        ("local", {"size": "1g"}, True),
        ("local", {"type": "none", "o": "bind", "device": "/srv/db"}, False),
        ("local", {"type": "tmpfs", "device": "tmpfs"}, False),
        ("local", {"o": "addr=nas"}, False),
        ("sshfs", {}, False),
    ],
)
def test_a_plain_volume_reaches_nothing_but_the_engines_directory(
    driver: str, options: dict[str, str], plain: bool
) -> None:
    assert is_plain(driver, options) is plain


def test_a_description_holds_no_option_that_may_be_a_password() -> None:
    options = {"type": "cifs", "device": "//nas/db", "o": "username=u,password=geheim"}
    assert described("local", options) == "driver 'local', device '//nas/db'"


def test_under_its_own_name_a_volume_keeps_its_labels() -> None:
    assert inherited_labels({**ACTING, **OWN}, renamed=False) == {**ACTING, **OWN}


def test_under_another_name_no_label_acts_on_the_copy() -> None:
    assert inherited_labels({**ACTING, **OWN}, renamed=True) == OWN


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("key", ["com.docker.volume.anonymous", "volback.made", "com.docker.volback.restore"])
def test_no_label_is_taken_over_that_would_have_the_volume_removed(key: str, renamed: bool) -> None:
    assert inherited_labels({key: "", **OWN}, renamed=renamed) == OWN


def test_labels_are_left_out_by_key_or_by_pattern() -> None:
    assert inherited_labels({**ACTING, **OWN}, renamed=False, without=["traefik.enable", "com.docker.*"]) == {
        "volback.keep-last": "2",
        "volback.job": "nightly",
        "com.example.part": "one",
    }
