"""Grouping: which volumes of a move belong together, because their containers do. Pure.

Containers of one compose project, and those of which one needs another, run together or not at all: where one volume
of them was not moved, all of them go on where they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from volback.engine.containers import Container
from volback.policy.projects import PROJECT


@dataclass(frozen=True, slots=True)
class Group:
    """What is moved as a whole: volumes (by name, or path), and the containers that are stopped for them."""

    members: frozenset[str]
    containers: tuple[Container, ...] = ()
    """Empty where none is to be stopped."""
    projects: frozenset[str] = frozenset()
    """Compose projects that they are of."""

    def belongs_to(self, other: Group) -> bool:
        """Whether one cannot be moved without the other."""
        if self.projects & other.projects:
            return True
        pairs = ((one, two) for one in self.containers for two in other.containers)
        return any(one.id == two.id or one.needs(two) or two.needs(one) for one, two in pairs)

    def with_all_of(self, other: Group) -> Group:
        """Both as one."""
        containers = {one.id: one for one in (*self.containers, *other.containers)}
        return Group(self.members | other.members, tuple(containers.values()), self.projects | other.projects)


def group_of(member: str | None, containers: Sequence[Container], project: str | None) -> Group:
    """The smallest group of a volume, or of containers that mount none of them."""
    projects = {project, *(container.labels.get(PROJECT) for container in containers)}
    members = frozenset({member} if member is not None else ())
    return Group(members, tuple(containers), frozenset(name for name in projects if name))


def joined(groups: Iterable[Group]) -> list[Group]:
    """Join those that belong together."""
    found = list[Group]()
    for group in groups:
        mine = [other for other in found if group.belongs_to(other)]
        found = [other for other in found if other not in mine]
        found.append(reduce(Group.with_all_of, mine, group))
    return found
