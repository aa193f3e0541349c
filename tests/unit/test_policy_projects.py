"""How compose names and labels a project's volumes under another project's name."""

from __future__ import annotations

import pytest

from volback.errors import UsageError
from volback.policy.projects import ProjectVolume, as_volume_of, check_project

LABELS = {
    "com.docker.compose.project": "shop", "com.docker.compose.volume": "db", "com.docker.compose.version": "2.29.1",
    "com.docker.compose.config-hash": "0b6ee0f8", "com.example.part": "one",
}  # fmt: skip
NEW = {
    "com.docker.compose.project": "blog", "com.docker.compose.volume": "db", "com.docker.compose.version": "2.29.1",
}  # fmt: skip


def test_a_volume_is_named_after_the_new_project() -> None:
    assert as_volume_of("blog", "shop_db", LABELS, of="shop") == ProjectVolume("blog_db", NEW)


def test_podmans_label_is_of_the_new_project_too() -> None:
    labels = {**LABELS, "io.podman.compose.project": "shop"}
    found = as_volume_of("blog", "shop_db", labels, of="shop")
    assert found.labels == {**NEW, "io.podman.compose.project": "blog"}


def test_a_name_of_its_own_stays() -> None:
    assert as_volume_of("blog", "precious", LABELS, of="shop") == ProjectVolume("precious", NEW)


@pytest.mark.parametrize("labels", [{}, {**LABELS, "com.docker.compose.project": "other"}])
def test_an_external_volume_stays_as_it_is(labels: dict[str, str]) -> None:
    assert as_volume_of("blog", "shop_db", labels, of="shop") == ProjectVolume("shop_db", {})


@pytest.mark.parametrize("name", ["blog", "b", "0", "my-blog_2"])
def test_names_that_compose_accepts(name: str) -> None:
    check_project(name)


@pytest.mark.parametrize("name", ["", "Blog", "my blog", "-blog", "_blog", "blög", "a/b", "a\n"])
def test_names_that_compose_does_not_accept(name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid project name"):
        check_project(name)
