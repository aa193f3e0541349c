"""Which labels a restored volume takes over: those that do nothing, and those that act if something confirms them."""

from __future__ import annotations

import pytest

from volback.policy.inherited import (
    Inherited,
    Wanted,
    acting_labels,
    inherited_labels,
    restored_by,
    unconfirmed_warning,
    without_restore_label,
)

COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.volume": "db", "com.docker.compose.version": "2"}
ACTING = {
    **COMPOSE,
    "com.docker.compose.config-hash": "0123",
    "com.docker.stack.namespace": "shop",
    "io.portainer.accesscontrol.public": "true",
    "volback.keep-last": "2",
    "volback.exclude": "*",
}
OWN = {"com.example.part": "one", "traefik.enable": "true"}
REMOVING = ["com.docker.volume.anonymous", "volback.made", "volback.restore", "com.docker.volback.restore"]


def known(key: str, value: str) -> bool:
    return ACTING.get(key) == value


def test_under_its_own_name_a_volume_keeps_the_labels_that_this_machine_knows() -> None:
    assert inherited_labels({**ACTING, **OWN}, Wanted("db"), is_known=known) == Inherited({**ACTING, **OWN}, {})


def test_labels_that_act_are_not_taken_over_from_the_backup_alone() -> None:
    found = inherited_labels({**ACTING, **OWN}, Wanted("db"))
    assert found == Inherited(OWN, ACTING)
    warning = unconfirmed_warning("db", found.unconfirmed)
    assert "'db'" in warning
    assert "volback.keep-last" in warning
    assert "--keep-labels" in warning


def test_a_label_with_another_value_than_this_machine_has_seen_is_not_known() -> None:
    found = inherited_labels({**ACTING, "volback.keep-last": "1"}, Wanted("db"), is_known=known)
    assert found.unconfirmed == {"volback.keep-last": "1"}


def test_who_wants_them_all_gets_them() -> None:
    assert inherited_labels({**ACTING, **OWN}, Wanted("db", keep_all=True)).labels == {**ACTING, **OWN}


@pytest.mark.parametrize("wanted", [Wanted("shop_db"), Wanted("data", project="shop")])
def test_composes_labels_are_taken_over_where_they_repeat_what_was_named(wanted: Wanted) -> None:
    assert inherited_labels({**ACTING, **OWN}, wanted).labels == {**COMPOSE, **OWN}


@pytest.mark.parametrize("wanted", [Wanted("shop_uploads"), Wanted("db", project="blog")])
def test_composes_labels_of_another_project_are_not(wanted: Wanted) -> None:
    assert inherited_labels({**ACTING, **OWN}, wanted).labels == OWN


def test_two_projects_at_once_confirm_nothing() -> None:
    labels = {**COMPOSE, "io.podman.compose.project": "other"}
    assert inherited_labels(labels, Wanted("shop_db")).labels == {}


@pytest.mark.parametrize("keep_all", [False, True])
def test_under_another_name_no_label_acts_on_the_copy(keep_all: bool) -> None:
    wanted = Wanted("db-copy", renamed=True, keep_all=keep_all)
    assert inherited_labels({**ACTING, **OWN}, wanted, is_known=known) == Inherited(OWN, {})


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("key", REMOVING)
def test_no_label_is_taken_over_that_would_have_the_volume_removed(key: str, renamed: bool) -> None:
    wanted = Wanted("db", renamed=renamed, keep_all=True)
    assert inherited_labels({key: "", **OWN}, wanted, is_known=lambda *_: True) == Inherited(OWN, {})


def test_labels_are_left_out_by_key_or_by_pattern() -> None:
    wanted = Wanted("db", without=("traefik.enable", "com.docker.*", "io.*", "volback.exclude"))
    assert inherited_labels({**ACTING, **OWN}, wanted, is_known=known) == Inherited(
        {"volback.keep-last": "2", "com.example.part": "one"}, {}
    )


def test_only_labels_that_act_are_remembered() -> None:
    assert acting_labels({**ACTING, **OWN, **dict.fromkeys(REMOVING, "")}) == ACTING


@pytest.mark.parametrize("label", ["volback.restore", "com.docker.volback.restore"])
def test_a_volume_that_an_earlier_version_made_is_known_too(label: str) -> None:
    assert restored_by({**OWN, label: "run-1"}) == "run-1"
    assert without_restore_label({**OWN, label: "run-1"}) == OWN
    assert restored_by(OWN) is None
