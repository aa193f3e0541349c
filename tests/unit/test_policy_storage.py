"""What a volume's driver and options say of its storage."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from volback.policy.storage import described, is_plain, is_tmpfs, storage_of_directory, storage_of_volume


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


def test_a_tmpfs_with_a_bind_flag_is_a_directory_of_the_host() -> None:
    options = {"type": "tmpfs", "o": "bind", "device": "/etc/cron.d"}
    assert is_tmpfs("local", {"type": "tmpfs", "o": "size=1m"})
    assert not is_tmpfs("local", options)
    host = Facts("v", options={"type": "none", "o": "bind", "device": "/etc/cron.d"})
    assert alias_of(Facts("w", options=options), host)


@dataclass(frozen=True)
class Facts:
    """A volume as an engine describes it."""

    name: str
    driver: str = "local"
    options: dict[str, str] = field(default_factory=dict)

    @property
    def mountpoint(self) -> str:
        return f"{ALL}/{self.name}/_data"


ALL = "/var/lib/docker/volumes"
BIND = {"type": "none", "o": "bind"}
NFS = {"type": "nfs", "o": "addr=nas,ro"}


def alias_of(one: Facts, other: Facts) -> bool:
    return other.name in storage_of_volume(one.name, [one, other], all_volumes=ALL).volumes


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, False),
        (BIND | {"device": "/srv"}, BIND | {"device": "/srv"}, True),
        (BIND | {"device": "/srv"}, BIND | {"device": "/srv/below"}, True),
        (BIND | {"device": "/srv"}, BIND | {"device": "/srv2"}, False),
        ({}, BIND | {"device": f"{ALL}/one/_data"}, True),
        (NFS | {"device": ":/x"}, {"type": "nfs4", "o": "addr=nas", "device": ":/x"}, True),
        (NFS | {"device": ":/x"}, {"type": "nfs", "device": "nas:/x/y"}, True),
        (NFS | {"device": ":/x"}, NFS | {"device": ":/y"}, False),
        (NFS | {"device": ":/x"}, {"type": "nfs", "device": "other:/x"}, False),
        ({"type": "cifs", "device": "//NAS/db"}, {"type": "cifs", "device": "//nas/DB"}, True),
        (NFS | {"device": ":/x"}, {"type": "nfs", "device": "NAS.local.:/x/"}, True),
        ({"type": "nfs", "device": "nas.a:/x"}, {"type": "nfs", "device": "nas.b:/x"}, False),
        ({"type": "nfs", "device": "nas:/x"}, {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}, True),
        ({"type": "nfs", "device": "10.0.0.2:/x"}, {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}, False),
        ({"type": "nfs", "device": "[fe80::1]:/x"}, {"type": "nfs", "o": "addr=fe80::1", "device": ":/x"}, True),
        ({"type": "nfs", "device": "nas:/x"}, {"type": "cifs", "device": "//nas/x"}, False),
        ({"type": "cifs", "device": "//nas/db"}, {"type": "cifs", "o": "ip=nas", "device": "\\\\other\\db"}, True),
        ({"type": "cifs", "device": "//nas/db/a"}, {"type": "cifs", "o": "prefixpath=b", "device": "//nas/db"}, False),
        ({"type": "ext4", "device": "/dev/sdb1"}, {"device": "/dev/sdb1"}, True),
        ({"type": "ext4", "device": "/dev/sdb1"}, {"type": "ext4", "device": "/dev/sdb2"}, False),
        ({"type": "btrfs", "device": "/dev/sdb", "o": "subvol=a"}, {"type": "btrfs", "device": "/dev/sdb"}, True),
        (
            {"type": "btrfs", "device": "/dev/sdb", "o": "subvol=a"},
            {"type": "btrfs", "device": "/dev/sdb", "o": "noatime,subvol=/b"},
            False,
        ),
        (
            {"type": "overlay", "device": "overlay", "o": "lowerdir=/l,upperdir=/u1,workdir=/w1"},
            {"type": "overlay", "device": "overlay", "o": "lowerdir=/l,upperdir=/u2,workdir=/w2"},
            False,
        ),
        ({"type": "overlay", "device": "overlay", "o": "upperdir=/u1"}, BIND | {"device": "/u1"}, True),
        ({"type": "tmpfs", "device": "tmpfs"}, {"type": "tmpfs", "device": "tmpfs"}, False),
    ],
)
def test_two_names_of_one_storage_are_known_by_its_device(
    one: dict[str, str], other: dict[str, str], same: bool
) -> None:
    mine, theirs = Facts("one", options=one), Facts("other", options=other)
    assert alias_of(mine, theirs) is alias_of(theirs, mine) is same


@pytest.mark.parametrize(("options", "same"), [({"sshcmd": "h:/x"}, True), ({}, False)])
def test_equal_options_of_a_plugin_are_one_storage(options: dict[str, str], same: bool) -> None:
    assert alias_of(Facts("one", "sshfs", options), Facts("other", "sshfs", options)) is same


@pytest.mark.parametrize(
    ("kind", "source", "reach"),
    [
        ("volume", "db", "near"),
        ("volume", "other", None),
        ("bind", f"{ALL}/db/_data", "near"),
        ("bind", f"{ALL}/db", "near"),
        ("bind", f"{ALL}/db/_data/base", "near"),
        ("bind", f"{ALL}/db2", None),
        ("bind", ALL, "broad"),
        ("bind", "/var/lib/docker", "broad"),
        ("bind", "/", "broad"),
        ("tmpfs", "", None),
    ],
)
def test_a_mount_reaches_a_volume_by_name_or_by_path(kind: str, source: str, reach: str | None) -> None:
    storage = storage_of_volume("db", [Facts("db"), Facts("other")], all_volumes=ALL)
    assert storage.reach(kind, source) == reach


def test_a_directory_is_reached_by_the_volumes_that_are_on_it() -> None:
    volumes = [Facts("a", options=BIND | {"device": "/srv/db"}), Facts("b")]
    storage = storage_of_directory("/srv/db", volumes, all_volumes=ALL)
    assert storage.volumes == {"a"}
    assert [storage.reach("bind", path) for path in ("/srv", "/srv/db/x", "/srv/other", "/")] == [
        "near", "near", None, "broad",
    ]  # fmt: skip


def test_a_volume_on_a_parent_does_not_draw_in_all_that_is_below_it() -> None:
    volumes = [Facts("a"), Facts("host", options=BIND | {"device": "/"}), Facts("b")]
    storage = storage_of_volume("a", volumes, all_volumes=ALL)
    assert storage.volumes == {"a"}
    assert [storage.reach("volume", name) for name in ("a", "host", "b")] == ["near", "broad", None]
    assert storage.reach("bind", "/srv") is None


def test_symbolic_links_are_followed_where_they_can_be() -> None:
    links = {"/link": "/srv/db", "/to-all": "/var/lib", "/by-id": "/dev/sdb1"}

    def resolve(path: str) -> str:
        first, rest = path[: (path + "/").index("/", 1)], path[(path + "/").index("/", 1) :]
        return links.get(first, first) + rest

    volumes = [
        Facts("a", options=BIND | {"device": "/srv/db"}),
        Facts("b", options=BIND | {"device": "/link"}),
        Facts("c", options={"type": "ext4", "device": "/by-id"}),
        Facts("d", options={"type": "ext4", "device": "/dev/sdb1"}),
    ]
    storage = storage_of_volume("a", volumes, all_volumes=ALL, resolve=resolve)
    assert storage.volumes == {"a", "b"}
    assert [storage.reach("bind", path) for path in ("/link", "/link/x", "/to-all", "/srv/other")] == [
        "near", "near", "broad", None,
    ]  # fmt: skip
    assert storage_of_volume("c", volumes, all_volumes=ALL, resolve=resolve).volumes == {"c", "d"}
    plain = storage_of_volume("e", [Facts("e")], all_volumes=ALL, resolve=resolve)
    assert plain.reach("bind", "/to-all") == "broad"
    assert storage_of_directory("/link", volumes, all_volumes=ALL, resolve=resolve).volumes == {"a", "b"}
