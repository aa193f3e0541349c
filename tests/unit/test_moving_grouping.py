"""Which volumes are moved as a whole: those whose containers belong together."""

from __future__ import annotations

from volback.engine.containers import Container
from volback.moving.grouping import Group, group_of, joined
from volback.policy.projects import PROJECT


def container(name: str, project: str | None = None, *, shares: tuple[str, ...] = ()) -> Container:
    labels = {} if project is None else {PROJECT: project}
    return Container(
        id=f"id-{name}", name=name, state="running", started_at="", health=None, auto_remove=False, grace_s=10,
        labels=labels, mounts=(), shares=shares,
    )  # fmt: skip


def members(groups: list[Group]) -> list[list[str]]:
    return sorted(sorted(group.members) for group in groups)


def test_volumes_that_share_nothing_stay_apart() -> None:
    groups = joined([group_of("a", [container("one")], None), group_of("b", [], None), group_of("c", [], None)])
    assert members(groups) == [["a"], ["b"], ["c"]]


def test_a_container_or_a_project_ties_volumes_together() -> None:
    both = container("both")
    groups = [
        group_of("a", [both], None), group_of("b", [both], None),
        group_of("c", [container("web", "shop")], None), group_of("d", [], "shop"), group_of("e", [], "blog"),
    ]  # fmt: skip
    assert members(joined(groups)) == [["a", "b"], ["c", "d"], ["e"]]


def test_what_comes_later_joins_earlier_groups() -> None:
    one, two = container("one"), container("two", shares=("one",))
    three = container("three", "shop")
    groups = [group_of("a", [one], None), group_of("b", [three], None), group_of("c", [two, three], None)]
    (group,) = joined(groups)
    assert sorted(group.members) == ["a", "b", "c"]
    assert sorted(found.name for found in group.containers) == ["one", "three", "two"]


def test_containers_without_volumes_belong_to_their_project() -> None:
    (group,) = joined([group_of("a", [], "shop"), group_of(None, [container("proxy", "shop")], None)])
    assert (group.members, [found.name for found in group.containers]) == (frozenset({"a"}), ["proxy"])
