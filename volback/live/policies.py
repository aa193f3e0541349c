"""Policies: how each source of a set is backed up, by the call's own options, else by labels; and its hooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.engine.volumes import VolumeUser
from volback.live.plan import QuiesceRequest
from volback.policy.hooks import Hook
from volback.policy.labels import LabelPolicy, hooks_of, policy_of, read_labels
from volback.policy.quiesce import How, Quiesce, whole_grace_s


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """How one source is backed up."""

    source: Source
    request: QuiesceRequest | None
    """How its containers are quiesced; None: not at all."""
    excludes: tuple[str, ...]
    containers: frozenset[str]
    """Names and ids of the containers that mount it: a hook in one of them concerns this source."""
    is_live_wanted: bool = False
    """Whether it was said that nothing is stopped or paused for it."""


@dataclass(frozen=True, slots=True)
class SetHook:
    """A hook and the names of the sources that it concerns: they wait for it, and fail with it."""

    hook: Hook
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """How a whole set is backed up."""

    sources: list[SourcePolicy]
    before: list[SetHook]
    after: list[SetHook]
    complaints: list[str]
    """One for each label that is not valid."""


def read_policies(
    engine: Engine,
    sources: list[Source],
    *,
    quiesce: Quiesce | None,
    stop_timeout_s: float | None,
    before: Iterable[Hook] = (),
    after: Iterable[Hook] = (),
) -> SetPolicy:
    """Read the labels of the sources and of the containers that mount them; arguments override them."""
    users = {source.name: _users(engine, source) for source in sources}
    complaints: list[str] = []
    policies = []
    for source in sources:
        policy, more = policy_of(source.name, source.labels, [(user.name, user.labels) for user in users[source.name]])
        complaints += more if source.kind == "volume" else []
        policies.append(_located(engine, _policy(source, policy, users[source.name], quiesce, stop_timeout_s)))
    labelled_before, labelled_after = hooks_of(_container_policies(users.values()))
    return SetPolicy(
        policies,
        [_about(hook, policies) for hook in (*before, *labelled_before)],
        [_about(hook, policies) for hook in (*after, *labelled_after)],
        list(dict.fromkeys(complaints)),
    )


def _users(engine: Engine, source: Source) -> list[VolumeUser]:
    return engine.users(source.name) if source.kind == "volume" else []


def _located(engine: Engine, policy: SourcePolicy) -> SourcePolicy:
    """With the storage of what is to be quiesced, by which its writers are known."""
    if policy.request is None:
        return policy
    return replace(policy, request=replace(policy.request, storage=engine.storage(policy.source)))


def _policy(
    source: Source, policy: LabelPolicy, users: list[VolumeUser], quiesce: Quiesce | None, stop_timeout_s: float | None
) -> SourcePolicy:
    how: How | None = None
    match quiesce or policy.quiesce:
        case "stop" | "pause" as wanted:
            how = wanted
    grace_s = policy.stop_timeout_s if stop_timeout_s is None else stop_timeout_s
    return SourcePolicy(
        source,
        None if how is None else QuiesceRequest(source, how, None if grace_s is None else whole_grace_s(grace_s)),
        policy.excludes,
        frozenset(name for user in users for name in (user.name, user.container_id)),
        (quiesce or policy.quiesce) == "none",
    )


def _container_policies(users: Iterable[list[VolumeUser]]) -> list[tuple[str, LabelPolicy]]:
    """Each container's own labels, once, by name."""
    labels = {user.name: user.labels for found in users for user in found}
    return [(name, read_labels(labels[name], f"container {name!r}")[0]) for name in sorted(labels)]


def _about(hook: Hook, policies: list[SourcePolicy]) -> SetHook:
    """A hook in a container that mounts none of the sources (a client of the database, say) concerns all of them."""
    mine = frozenset(policy.source.name for policy in policies if hook.container in policy.containers)
    return SetHook(hook, mine or frozenset(policy.source.name for policy in policies))
