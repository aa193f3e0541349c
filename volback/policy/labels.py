"""Labels: what `volback.*` labels on volumes and containers ask for. Pure: reads no engine, and no label makes it fail.

What is unknown or malformed is left aside and named in a complaint: which label, on what, and what was expected.
The command line and a job's settings come before a volume's label, and that before its containers' labels.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from volback.errors import UsageError
from volback.policy.excludes import exclusion
from volback.policy.keep import UNLIMITED, read_count, read_duration

Quiesce = Literal["stop", "pause", "none"]
Keep = str | tuple[str, ...]
"""The value of one keep rule; tags are a tuple."""

PREFIX = "volback."
OWN_LABELS = frozenset(
    PREFIX + word
    for word in ("helper", "run", "client", "made", "test", "bench", "quickstart")
)  # fmt: skip
"""Set by volback itself, and by its own tests and scripts: they ask for nothing."""

STRONGEST: tuple[Quiesce, ...] = ("stop", "pause", "none")
"""Of two containers that disagree, the one that is named first here counts."""

_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_SHOWN_CHARS = 60
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """What labels ask for; None, or nothing, where they are silent."""

    enable: bool | None = None
    quiesce: Quiesce | None = None
    exec_pre: str | None = None
    exec_post: str | None = None
    exec_user: str | None = None
    excludes: tuple[str, ...] = ()
    stop_timeout_s: float | None = None
    keep: dict[str, Keep] = field(default_factory=dict)
    """By the part after `volback.keep-`, as `keeping.read_rules` takes them; it has been seen to read each."""
    job: str | None = None


def read_labels(labels: Mapping[str, str], what: str) -> tuple[LabelPolicy, list[str]]:
    """Return what the labels of `what` (`volume 'db'`, `container 'web'`) ask for, and a complaint for each other one.

    Patterns of `volback.exclude` come one a line; in a value of one line, commas part them.
    """
    values: dict[str, Any] = {}
    keep: dict[str, Keep] = {}
    complaints: list[str] = []
    for label in sorted(label for label in labels if label.startswith(PREFIX) and label not in OWN_LABELS):
        known = _LABELS.get(label)
        if known is None:
            complaints.append(_unknown(label, what))
            continue
        try:
            value = known.read(labels[label].strip())
        except (ValueError, UsageError):
            shown = "" if known.read is _command else f"={_shown(labels[label])}"  # a command may hold a password
            complaints.append(f"label {label}{shown} of {what}: expected {known.expected}")
            continue
        if known.field == "keep":
            keep[label.removeprefix(f"{PREFIX}keep-")] = value
        else:
            values[known.field] = value
    return LabelPolicy(keep=keep, **values), complaints


def policy_of(
    volume: str, labels: Mapping[str, str], containers: Iterable[tuple[str, Mapping[str, str]]]
) -> tuple[LabelPolicy, list[str]]:
    """Return what its own labels ask for a volume, and those of the containers (name, labels) that mount it.

    The volume's label counts before the containers'. Where containers disagree: enabled before disabled; stop before
    pause before none; the longest stop time-out; everything that one of them excludes; whatever one of them keeps.
    Commands stay with their container, so they are in no volume's policy: see `read_labels` of each container.
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


def _first(one: LabelPolicy, other: LabelPolicy) -> LabelPolicy:
    """All that `one` says, and what it is silent about from `other`."""
    return LabelPolicy(
        enable=other.enable if one.enable is None else one.enable,
        quiesce=one.quiesce or other.quiesce,
        excludes=one.excludes or other.excludes,
        stop_timeout_s=other.stop_timeout_s if one.stop_timeout_s is None else one.stop_timeout_s,
        keep=one.keep or other.keep,
        job=one.job or other.job,
    )


def _both(one: LabelPolicy, other: LabelPolicy) -> LabelPolicy:
    """What two containers ask for together."""
    stop_timeouts = [policy.stop_timeout_s for policy in (one, other) if policy.stop_timeout_s is not None]
    return replace(
        _first(one, other),
        enable=True if other.enable else one.enable if one.enable is not None else other.enable,
        quiesce=next((word for word in STRONGEST if word in (one.quiesce, other.quiesce)), None),
        excludes=tuple(dict.fromkeys(one.excludes + other.excludes)),
        stop_timeout_s=max(stop_timeouts, default=None),
        keep={rule: _more(rule, one.keep.get(rule), other.keep.get(rule)) for rule in {**one.keep, **other.keep}},
    )


def _more(rule: str, one: Keep | None, other: Keep | None) -> Keep:
    """Of two values of one keep rule, that which keeps more; of tags both."""
    if one is None or other is None:
        return one or other or ""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return tuple(dict.fromkeys(one + other))
    return max(str(one), str(other), key=_hours if rule == "within" else _number)


def _number(count: str) -> float:
    number = read_count(count, "keep")
    return math.inf if number == UNLIMITED else number


def _hours(duration: str) -> int:
    read = read_duration(duration, "keep within")
    return (read.years * 365 + read.months * 30 + read.days) * 24 + read.hours


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
    """One label: which field it fills, how its text is read (ValueError: not so), and how that is said."""

    field: str
    read: Callable[[str], Any]
    expected: str


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError(text)


def _quiesce(text: str) -> Quiesce:
    for word in STRONGEST:
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


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)\s?([smh]?)", text, re.ASCII)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2]]


def _count(text: str) -> str:
    read_count(text, "keep")
    return text


def _duration(text: str) -> str:
    read_duration(text, "keep within")
    return text


def _tags(text: str) -> tuple[str, ...]:
    """One a line: with commas it stands for backups that have them all."""
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
        "exclude": _Label("excludes", _patterns, "patterns, one a line or parted by commas, like *.log,cache/tmp"),
        "stop-timeout": _Label("stop_timeout_s", _seconds, "seconds, or a time like 30s or 2m"),
        **{f"keep-{rule}": _Label("keep", _count, "a number of backups, or unlimited") for rule in _COUNTS},
        "keep-within": _Label("keep", _duration, "a duration like 14d or 1y6m (y, m, w, d, h)"),
        "keep-tag": _Label("keep", _tags, "tags, one a line; A,B stands for both"),
        "job": _Label("job", _word, "the name of a job"),
    }.items()
}
