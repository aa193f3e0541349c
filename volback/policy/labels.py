"""Labels: what `volback.*` labels on volumes and containers request. Pure: it calls no engine, and no label makes it
fail.

An unknown or malformed label is ignored and named in a complaint: which label, on what, and what was expected.
The command line and a job's settings override a volume's label, and that overrides its containers' labels.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from volback.errors import UsageError
from volback.policy.durations import read_calendar, read_seconds
from volback.policy.excludes import exclusion
from volback.policy.hooks import Hook
from volback.policy.invalid import InvalidValue
from volback.policy.keep import COUNTS, KeepRules, merge, read_count
from volback.policy.quiesce import STRONGEST_FIRST, Quiesce

PREFIX = "volback."
OWN_LABELS = frozenset(
    PREFIX + word
    for word in ("helper", "run", "client", "made", "restore", "image", "test", "bench", "quickstart")
)  # fmt: skip
"""Set by volback itself, and by its own tests and scripts: they request nothing. `image` is on the helper image, and
so on containers of it."""

_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """What labels request; a field is None or empty where no label sets it."""

    enable: bool | None = None
    quiesce: Quiesce | None = None
    exec_pre: str | None = None
    exec_post: str | None = None
    exec_user: str | None = None
    excludes: tuple[str, ...] = ()
    stop_timeout_s: float | None = None
    keep: KeepRules | None = None
    job: str | None = None


def read_labels(labels: Mapping[str, str], what: str) -> tuple[LabelPolicy, list[str]]:
    """Return what the labels of `what` (`volume 'db'`, `container 'web'`) ask for, and a complaint for each bad one.

    `volback.exclude` has one pattern per line; in a value of one line, commas separate them.
    """
    values: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    complaints: list[str] = []
    for label in sorted(label for label in labels if label.startswith(PREFIX) and label not in OWN_LABELS):
        known = _LABELS.get(label)
        if known is None:
            complaints.append(_unknown(label, what))
            continue
        try:
            value = known.read(labels[label].strip())
        except InvalidValue as exc:
            complaints.append(f"label {label}={_shown(labels[label])} of {what} {exc}")
        except (ValueError, UsageError):
            shown = "" if known.read is _command else f"={_shown(labels[label])}"  # a command may hold a password
            complaints.append(f"label {label}{shown} of {what}: expected {known.expected}")
        else:
            (rules if label.startswith(f"{PREFIX}keep-") else values)[known.field] = value
    return LabelPolicy(**values, keep=KeepRules(**rules) if rules else None), complaints


def policy_of(
    volume: str, labels: Mapping[str, str], containers: Iterable[tuple[str, Mapping[str, str]]]
) -> tuple[LabelPolicy, list[str]]:
    """Return what a volume's own labels and those of the containers (name, labels) that mount it request.

    The volume's label overrides the containers' labels. Where containers disagree: enabled before disabled; stop before
    pause before none; the longest stop timeout; everything that one of them excludes; whatever one of them keeps.
    Commands belong to their container, so they are not in the policy of a volume: see `read_labels` of each container.
    """
    own, complaints = read_labels(labels, f"volume {volume!r}")
    complaints += _commands_of_a_volume(own, volume)
    theirs = LabelPolicy()
    for name, container_labels in sorted(containers, key=lambda container: container[0]):
        read, more = read_labels(container_labels, f"container {name!r}")
        complaints += more
        if read.job and theirs.job and read.job != theirs.job:
            complaints.append(
                f"label {PREFIX}job={_shown(read.job)} of container {name!r}: expected {theirs.job!r}, as another"
                f" container of volume {volume!r} has it"
            )
        theirs = _both(theirs, read)
    return _first(own, theirs), complaints


def hooks_of(policies: Iterable[tuple[str, LabelPolicy]]) -> tuple[tuple[Hook, ...], tuple[Hook, ...]]:
    """Return the hooks (before, after) that the labels of containers (name, policy) ask for, in their order."""
    named = list(policies)
    return (
        tuple(Hook(name, policy.exec_pre, policy.exec_user) for name, policy in named if policy.exec_pre),
        tuple(Hook(name, policy.exec_post, policy.exec_user) for name, policy in named if policy.exec_post),
    )


def _first(one: LabelPolicy, other: LabelPolicy) -> LabelPolicy:
    """All fields that `one` sets; the rest is from `other`."""
    return LabelPolicy(
        enable=other.enable if one.enable is None else one.enable,
        quiesce=one.quiesce or other.quiesce,
        excludes=one.excludes or other.excludes,
        stop_timeout_s=other.stop_timeout_s if one.stop_timeout_s is None else one.stop_timeout_s,
        keep=other.keep if one.keep is None else one.keep,
        job=one.job or other.job,
    )


def _both(one: LabelPolicy, other: LabelPolicy) -> LabelPolicy:
    """What two containers request together."""
    stop_timeouts = [policy.stop_timeout_s for policy in (one, other) if policy.stop_timeout_s is not None]
    return replace(
        _first(one, other),
        enable=True if other.enable else one.enable if one.enable is not None else other.enable,
        quiesce=next((word for word in STRONGEST_FIRST if word in (one.quiesce, other.quiesce)), None),
        excludes=tuple(dict.fromkeys(one.excludes + other.excludes)),
        stop_timeout_s=max(stop_timeouts, default=None),
        keep=_merged(one.keep, other.keep),
    )


def _merged(one: KeepRules | None, other: KeepRules | None) -> KeepRules | None:
    if one is None or other is None:
        return other if one is None else one
    return merge(one, other)


def _commands_of_a_volume(policy: LabelPolicy, volume: str) -> list[str]:
    given = {"exec-pre": policy.exec_pre, "exec-post": policy.exec_post, "exec-user": policy.exec_user}
    return [
        f"label {PREFIX}{word} of volume {volume!r}: expected on a container, which is where commands run"
        for word, value in given.items()
        if value is not None
    ]


def _unknown(label: str, what: str) -> str:
    near = difflib.get_close_matches(label[:_SHOWN_CHARS], _LABELS, n=1)
    known = f"did you mean {near[0]}?" if near else f"expected {', '.join(_LABELS)}"
    return f"label {_shown(label)[1:-1]} of {what} is unknown: {known}"


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARS else value[: _SHOWN_CHARS - 1] + "…")


@dataclass(frozen=True, slots=True)
class _Label:
    """One label: the field that it fills, of a LabelPolicy or of its KeepRules, and how its text is read."""

    field: str
    read: Callable[[str], Any]
    """Raises InvalidValue, which says what was expected, or another ValueError or UsageError."""
    expected: str = ""


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError(text)


def _quiesce(text: str) -> Quiesce:
    for word in STRONGEST_FIRST:
        if text == word:
            return word
    raise ValueError(text)


def _command(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,255}", text):
        raise ValueError(text)
    return text


def _patterns(text: str) -> tuple[str, ...]:
    patterns = _items(text)
    if not patterns:
        raise ValueError(text)
    exclusion(patterns)
    return tuple(patterns)


def _tags(text: str) -> tuple[str, ...]:
    """One a line; a line with commas is for backups that have all of its tags."""
    tags = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tags:
        raise ValueError(text)
    return tags


def _items(text: str) -> list[str]:
    parts = text.splitlines() if "\n" in text else text.split(",")
    return [part.strip() for part in parts if part.strip()]


_COMMAND = "a command for the container's shell"
_LABELS: dict[str, _Label] = {
    PREFIX + word: label
    for word, label in {
        "enable": _Label("enable", _boolean, "true or false"),
        "quiesce": _Label("quiesce", _quiesce, "stop, pause or none"),
        "exec-pre": _Label("exec_pre", _command, _COMMAND),
        "exec-post": _Label("exec_post", _command, _COMMAND),
        "exec-user": _Label("exec_user", _word, "a user's name or number, like postgres or 999:999"),
        "exclude": _Label("excludes", _patterns, "patterns, one a line or separated by commas, like *.log,cache/tmp"),
        "stop-timeout": _Label("stop_timeout_s", read_seconds),
        **{f"keep-{rule}": _Label(rule, read_count) for rule in COUNTS},
        "keep-within": _Label("within", read_calendar),
        "keep-tag": _Label("tags", _tags, "tags, one a line; A,B is for backups that have both"),
        "job": _Label("job", _word, "the name of a job"),
    }.items()
}
