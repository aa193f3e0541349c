"""Keep: which backups of one volume stay, and why. Pure: no I/O; the time and the zone are passed in.

The rules are restic's (`forget`, https://restic.readthedocs.io/en/stable/060_forget.html): a backup stays if any rule
keeps it; a calendar rule keeps the newest backup of each of the last N periods that have one; weeks begin on Monday;
where there are fewer periods than N, the oldest backup stays too; `within` counts back from the newest backup.

Beyond restic: a damaged backup stays and counts for no rule, and the newest good one stays whatever the rules say. What
a kept one uses of others does not keep these: their data stays, and not they. A safety backup (of `restore --replace`)
does not replace another in a rule: it stays in addition, as long as its day (hour, week, ...) is among those that are
kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import chain

from volback.errors import ConflictError, UsageError
from volback.latest import is_future, is_safety_copy
from volback.policy.durations import CalendarDuration
from volback.policy.invalid import InvalidValue

UNLIMITED = -1

Period = Callable[[datetime], tuple[object, ...]]

_PERIODS: dict[str, Period] = {
    # On the day on which the clocks are put back, one hour comes twice: the offset tells the first from the second.
    "hourly": lambda time: (time.date(), time.hour, time.utcoffset()),
    "daily": lambda time: (time.date(),),
    "weekly": lambda time: tuple(time.isocalendar())[:2],
    "monthly": lambda time: (time.year, time.month),
    "yearly": lambda time: (time.year,),
}
COUNTS = ("last", *_PERIODS)
"""The rules that are numbers of backups, by their names on the command line, in labels and in `volback.toml`."""


@dataclass(frozen=True, slots=True)
class KeepRules:
    """What to keep; each number is how many, 0 none, -1 (UNLIMITED) all. The rules are ORed."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: CalendarDuration | None = None
    tags: tuple[str, ...] = ()
    """Each is one tag, or several with commas, of which a backup must have all; "" is a backup without tags."""

    def __bool__(self) -> bool:
        return bool(any(getattr(self, name) for name in COUNTS) or self.within or self.tags)

    def check(self) -> None:
        """Raises UsageError where no rule says to keep anything, or a number is not valid."""
        for name in COUNTS:
            if getattr(self, name) < UNLIMITED:
                raise UsageError(
                    f"keep {name} {getattr(self, name)} is not a number of backups", "give 0 or more, or unlimited"
                )
        if not self:
            raise UsageError("no rule says what to keep", "give at least one, like --keep-daily 7")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup of the volume, as far as the rules look at it."""

    id: str
    created_at: datetime
    tags: tuple[str, ...] = ()
    damage: str | None = None
    """Why it is not reliable; None for a good backup."""
    is_readable: bool = True
    """Whether its manifest can be read, so that it is known what it needs."""
    smaller_than: str | None = None
    """The id of the earlier backup against which it is suspiciously small."""
    is_held: bool = False
    """Whether somebody holds it: it must stay until it is released."""
    noted_tags: tuple[str, ...] = ()
    """Tags that were added later. They can keep it, and no more: who can write there can forge them."""
    is_in_use: bool = False
    """Whether it is being restored: it must stay until that has ended."""
    line: str = ""
    """The rules are applied to each line by itself: to the backups of one engine."""
    is_ours: bool = True
    """Whether the rules are meant for it; what is not ours stays."""

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Those that it was given when it was made, and later."""
        return (*self.tags, *self.noted_tags)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one backup stays; the reasons are of each rule that keeps it, or else of each that does not."""

    id: str
    keep: bool
    reasons: list[str]


def read_count(value: object) -> int:
    """Read a number of backups; `unlimited`, or -1, is all of them. Raises InvalidValue."""
    plain = str(value).strip()
    if plain in {"unlimited", "-1"}:
        return UNLIMITED
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", plain):
        raise InvalidValue("is not a number of backups", "write 0 or more, or unlimited")
    return int(plain)


def merge(one: KeepRules, other: KeepRules) -> KeepRules:
    """Return rules that keep what either of the two keeps: the larger number of each rule, and all tags."""
    counts = {name: _more(getattr(one, name), getattr(other, name)) for name in COUNTS}
    within = [rules.within for rules in (one, other) if rules.within is not None]
    return KeepRules(
        **counts,
        within=max(within, key=lambda duration: duration.mean_hours, default=None),
        tags=tuple(dict.fromkeys(one.tags + other.tags)),
    )


def _more(one: int, other: int) -> int:
    return UNLIMITED if UNLIMITED in (one, other) else max(one, other)


def choose(
    rules: KeepRules,
    backups: Iterable[Candidate],
    *,
    now: datetime,
    zone: tzinfo | None = None,
    what: str = "a volume",
    forget_before: datetime | None = None,
) -> list[Decision]:
    """Return the decision on each backup of one volume, the newest first.

    A volume without a backup since `forget_before` is forgotten: only tags keep any of it. None forgets nothing.
    Periods of the calendar are those of `zone`; None is this machine's own. Raises UsageError where no rule says to
    keep anything, ConflictError where they would keep none of the good backups.
    """
    rules.check()
    ordered = sorted(backups, key=lambda backup: (backup.created_at, backup.id), reverse=True)
    ours = [backup for backup in ordered if backup.is_ours]
    good = [backup for backup in ours if backup.damage is None and not is_future(backup.created_at, now)]
    kept: dict[str, list[str]] = {backup.id: [] for backup in ordered}
    missed: dict[str, list[str]] = {backup.id: [] for backup in ordered}
    lines = [[backup for backup in good if backup.line == line] for line in dict.fromkeys(one.line for one in good)]
    if forget_before is not None and all(backup.created_at < forget_before for backup in ordered):
        lines = []
        for backup, keeps, reason in _of_forgotten(rules, good):
            (kept if keeps else missed)[backup.id].append(reason)
    for backup, keeps, reason in chain.from_iterable(_judged(rules, line, zone) for line in lines):
        (kept if keeps else missed)[backup.id].append(reason)
    if lines and not any(kept.values()):
        raise ConflictError(
            f"the rules would keep none of the {len(good)} good backups of {what}", "add a rule, like --keep-last 1"
        )
    for line in lines:
        _protect_newest(line, kept)
    _protect(ordered, now, kept)
    return [
        Decision(backup.id, bool(kept[backup.id]), kept[backup.id] or missed[backup.id])
        for backup in ordered
    ]  # fmt: skip


Judgement = tuple[Candidate, bool, str]


def _judged(rules: KeepRules, good: Sequence[Candidate], zone: tzinfo | None) -> Iterator[Judgement]:
    """Yield what each rule decides on each good backup of one line; the newest comes first."""
    regular = [backup for backup in good if not is_safety_copy(backup.tags)]
    safety = [backup for backup in good if is_safety_copy(backup.tags)]
    if rules.last:
        yield from _by_period("last", rules.last, lambda backup: (backup.id,), regular, safety)
    for name, period in _PERIODS.items():
        if count := getattr(rules, name):
            yield from _by_period(name, count, _in_zone(period, zone), regular, safety)
    if rules.within is not None:
        yield from _within(rules.within, regular, safety, zone)
    for wanted in rules.tags:
        for backup in (*regular, *safety):
            named = f"tag {wanted}" if wanted else "no tag"
            has = has_tags(backup.tags, wanted) or (bool(wanted) and has_tags(backup.all_tags, wanted))
            yield backup, has, named if has else f"tag: not {wanted}" if wanted else "tag: has some"


def _of_forgotten(rules: KeepRules, good: Sequence[Candidate]) -> Iterator[Judgement]:
    """What keeps a backup of a forgotten volume: a tag that the rules name."""
    for backup in good:
        named = [f"tag {wanted}" for wanted in rules.tags if wanted and has_tags(backup.all_tags, wanted)]
        yield backup, bool(named), named[0] if named else "anonymous, not backed up any more"


def _in_zone(period: Period, zone: tzinfo | None) -> Callable[[Candidate], tuple[object, ...]]:
    return lambda backup: period(backup.created_at.astimezone(zone))


def _by_period(
    name: str,
    count: int,
    period_of: Callable[[Candidate], tuple[object, ...]],
    regular: Sequence[Candidate],
    safety: Sequence[Candidate],
) -> Iterator[Judgement]:
    """The newest of each of the last `count` periods; then the oldest of all, if there are fewer periods."""
    limit = len(regular) + len(safety) + 1 if count == UNLIMITED else count
    of = "" if count == UNLIMITED else f" of {count}"
    newest_in: dict[tuple[object, ...], datetime] = {}
    for position, backup in enumerate(regular, 1):
        period = period_of(backup)
        is_newest = period not in newest_in
        newest_in.setdefault(period, backup.created_at)
        if is_newest and len(newest_in) <= limit:
            yield backup, True, f"{name} {len(newest_in)}{of}"
        elif not is_newest and position == len(regular) and len(newest_in) < limit:
            yield backup, True, f"{name}: oldest"
        else:
            yield backup, False, f"{name}: past {count}" if is_newest else f"{name}: newer one"
    for backup in safety:
        period = period_of(backup)
        newer = sum(other != period and at > backup.created_at for other, at in newest_in.items())
        keeps = newer < limit
        yield backup, keeps, f"safety, {name} {newer + 1}{of}" if keeps else f"{name}: past {count}"


def _within(
    duration: CalendarDuration, regular: Sequence[Candidate], safety: Sequence[Candidate], zone: tzinfo | None
) -> Iterator[Judgement]:
    both = (*regular, *safety)
    if not both:
        return
    begin = duration.before(both[0].created_at, zone)
    for backup in both:
        keeps = backup.created_at > begin
        yield backup, keeps, f"within {duration}" if keeps else f"within: past {duration}"


def has_tags(tags: Collection[str], wanted: str) -> bool:
    """Whether a tag is among these, or all of several that stand with commas; "" means without any."""
    if not wanted:
        return not tags
    return wanted in tags or all(tag in tags for tag in wanted.split(","))


def _protect_newest(good: Sequence[Candidate], kept: dict[str, list[str]]) -> None:
    """Keep the newest good backup of a line; if it is suspiciously small, also what is older than that."""
    newest = next((backup for backup in good if not is_safety_copy(backup.tags)), good[0])
    if not kept[newest.id]:
        kept[newest.id].append("newest good one")
    for backup in good:
        if newest.smaller_than and backup.id <= newest.smaller_than and not kept[backup.id]:
            kept[backup.id].append(f"{newest.id} is suspiciously small")


def _protect(ordered: Sequence[Candidate], now: datetime, kept: dict[str, list[str]]) -> None:
    """Keep what no rule may remove: damaged backups, those from the future, not ours, in use and held.

    Where a manifest is unreadable, all others too: it may need what any of them has stored.
    """
    for backup in ordered:
        if backup.damage is not None:
            kept[backup.id].append("damaged")
        elif is_future(backup.created_at, now):
            kept[backup.id].append("in the future")
        elif not backup.is_ours:
            kept[backup.id].append("another engine's")
        elif backup.is_in_use and not kept[backup.id]:
            kept[backup.id].append("being restored")
        if backup.is_held:
            kept[backup.id].append("held")
    if unreadable := [backup.id for backup in ordered if not backup.is_readable]:
        for backup in ordered:
            if not kept[backup.id]:
                kept[backup.id].append(f"may be needed by {unreadable[0]}, whose manifest cannot be read")
