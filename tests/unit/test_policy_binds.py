"""Which directories of the host that containers mount are worth a backup."""

from __future__ import annotations

import pytest

from volback.policy.binds import (
    is_below,
    is_machine_file,
    is_system,
    known_place_of,
    may_be_filled,
    outermost,
    place_of,
)

ROOT = "/var/lib/docker"


@pytest.mark.parametrize(
    "path",
    ["/", "/proc", "/sys/fs/cgroup", "/dev/shm", "/run/docker.sock", "/var/run/x", ROOT, f"{ROOT}/volumes", "/var"],
)  # fmt: skip
def test_what_belongs_to_the_machine(path: str) -> None:
    assert is_system(path, ROOT)


@pytest.mark.parametrize("path", ["/srv/shop", "/home/me/shop/html", "/etc/shop", "/runner", "/var/lib/docker-data"])
def test_what_belongs_to_a_project(path: str) -> None:
    assert not is_system(path, ROOT)
    assert not is_system(path, "")


def test_a_directory_holds_what_lies_below_it() -> None:
    assert outermost(["/srv/shop/html", "/srv/shop", "/srv/shop-2", "/srv/shop/", "/a"]) == [
        "/a", "/srv/shop", "/srv/shop-2",
    ]  # fmt: skip
    assert is_below("/a/b", "/c", "/a")
    assert is_below("/a", "/a")
    assert not is_below("/ab", "/a")


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/var", "/srv", "/usr/bin", "/boot/grub", "/run/shop", ROOT, f"{ROOT}/x"]
)
def test_what_is_another_hosts_own_is_not_filled(path: str) -> None:
    assert not may_be_filled(path, ROOT)


@pytest.mark.parametrize("path", ["/srv/shop", "/etc/shop", "/home/me/html", "/data"])
def test_what_a_project_has_may_be_filled(path: str) -> None:
    assert may_be_filled(path, ROOT)


def test_the_deepest_place_counts() -> None:
    maps = {"/srv": "/data", "/srv/shop/html": "/www"}
    assert place_of("/srv/shop/html/images", maps) == "/www/images"
    assert place_of("/srv/shop/html", maps) == "/www"
    assert place_of("/srv/shop", maps) == "/data/shop"
    assert place_of("/home/shop", maps) == "/home/shop"


@pytest.mark.parametrize(
    "path", ["/etc/hosts", "/etc/localtime", "/usr/share/zoneinfo/UTC", "/usr/bin/env", "/run/docker.sock", "/swap"]
)
def test_a_file_by_which_a_machine_is_known_is_its_own(path: str) -> None:
    assert is_machine_file(path, ROOT)


@pytest.mark.parametrize("path", ["/etc/shop.conf", "/srv/nginx.conf", "/etc/nginx/hosts", "/home/me/shop/.env"])
def test_a_file_of_a_project_is_not(path: str) -> None:
    assert not is_machine_file(path, ROOT)


def test_what_a_repository_says_of_a_path_does_not_lead_out_of_the_place_for_it() -> None:
    maps = {"/home/shop/": "/srv/shop"}
    assert known_place_of("/home/shop/html", maps) == "/srv/shop/html"
    assert known_place_of("/home/shop/../../etc/cron.d/x", maps) == "/etc/cron.d/x"
    assert known_place_of("/home/x/../shop/../../srv/shop/../../etc/x", {"/home/x/..": "/srv/shop"}) == "/etc/x"
