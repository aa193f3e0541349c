"""Reading: from the tables of `volback.toml` to the model. The keys that are taken here are those that are allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from volback.config.model import Job, JobLimits, Metrics, Notification, Repository, Sources
from volback.config.secrets import Secret
from volback.config.tables import Table
from volback.config.urls import in_message_url, in_ping_url
from volback.config.values import (
    BYTES,
    COUNT,
    CPUS,
    CRON,
    DIRECTORIES,
    DURATION,
    FILE,
    FLAG,
    GRACE,
    MEMORY,
    RATIO,
    RECIPIENT,
    SHARE,
    SIZE,
    TEXT,
    TEXTS,
    TIME_LIMIT,
    TURNS,
    WITHIN,
    ZONE,
    one_of,
    some_of,
    whole,
)
from volback.masking import HIDDEN
from volback.policy.hooks import DEFAULT_TIMEOUT_S, Hook
from volback.policy.keep import COUNTS, KeepRules
from volback.policy.packing import HALF
from volback.policy.quiesce import STRONGEST_FIRST

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_USERINFO = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True, slots=True)
class Known:
    """Names that a job may refer to."""

    repositories: Collection[str]
    notifications: Collection[str]


class RepositoryKeys(Protocol):
    """What a table of `[repositories]` may hold beside its url: defined by the store, as store.registry.StoreKeys."""

    @property
    def credentials(self) -> Collection[str]:
        """Keys of the table, each a secret."""

    @property
    def variables(self) -> Collection[str]:
        """Keys of its `environment`."""

    @property
    def secret_variables(self) -> Collection[str]:
        """Those whose value is never shown."""

    @property
    def check(self) -> Callable[[Collection[str]], str | None]:
        """Returns what is wrong with a set of credentials."""


KeysOf = Callable[[str], RepositoryKeys]
"""From a repository's url to the keys of its store. It is passed in: this package must not import the stores."""


def read_repository(name: str, table: Table, keys_of: KeysOf) -> Repository:
    """A table of `[repositories]`."""
    _check_name(name, table)
    url = table.take("url", TEXT)
    if not table.has("url"):
        table.complain(None, "has no url")
    if url is not None:
        table.shown["url"] = _USERINFO.sub(f"{HIDDEN}@", str(table.shown["url"]))
    keys = keys_of(url or "")
    credentials = {key: secret for key in keys.credentials if (secret := table.secret(key)) is not None}
    environment = _environment(table.table("environment"), keys)
    complaint = keys.check([key for key in keys.credentials if table.has_secret(key)])
    if complaint:
        table.complain(None, complaint)
    repository = Repository(
        name,
        url or "",
        table.place("url"),
        credentials,
        environment,
        identity=table.secret("identity", in_clear=False),
        passphrase=table.secret("passphrase", in_clear=False),
        recipient=table.take("recipient", RECIPIENT),
        default=table.take("default", FLAG),
    )
    table.end()
    return repository


def read_notification(name: str, table: Table) -> Notification:
    """A table of `[notifications]`."""
    _check_name(name, table)
    read = Notification(
        name=name,
        urls=table.secrets("urls", _scheme_alone, encode=in_message_url),
        on=table.take("on", some_of("success", "warning", "failure"), ["failure", "warning"]) or (),
        title=table.take("title", TEXT),
        body=table.take("body", TEXT),
        ping=_ping(table),
        places={key: table.place(key) for key in ("title", "body")},
    )
    if not (table.has_secret("urls") or table.has_secret("ping")):
        table.complain(None, "notifies nobody: it has neither urls nor a ping")
    table.end()
    return read


def read_metrics(table: Table) -> Metrics | None:
    """The table `[metrics]`."""
    path = table.take("textfile", FILE)
    if not table.has("textfile"):
        table.complain(None, "has no textfile")
    table.end()
    return None if path is None else Metrics(path)


def read_job(name: str, table: Table, known: Known) -> Job:
    """A table of `[jobs]`."""
    _check_name(name, table)
    job = Job(
        name=name,
        repositories=_repositories(table, known.repositories),
        create=table.take("create", FLAG) or False,
        reencrypt=table.take("reencrypt", FLAG) or False,
        sources=_sources(table),
        excludes=table.take("exclude", TEXTS) or (),
        level=table.take("level", whole(1, 19), 3) or 3,
        tags=table.take("tags", TEXTS) or (),
        shrink_ratio=table.take("shrink_ratio", RATIO),
        full=table.take("full", FLAG) or False,
        full_every_s=table.take("full_every", TIME_LIMIT),
        reread=table.take("reread", FLAG) or False,
        reread_every_s=table.take("reread_every", TIME_LIMIT),
        ignore_inode=table.take("ignore_inode", FLAG) or False,
        ignore_ctime=table.take("ignore_ctime", FLAG) or False,
        quiesce=table.take("quiesce", one_of(*STRONGEST_FIRST)),
        live_wanted=table.take("consistency", one_of("live")) == "live",
        two_pass=table.take("two_pass", FLAG),
        stop_timeout_s=table.take("stop_timeout", DURATION),
        hooks_pre=_hooks(table, "exec_pre"),
        hooks_post=_hooks(table, "exec_post"),
        keep=_keep(table.table("keep")),
        grace_s=table.take("grace", GRACE),
        repack=table.take("repack", FLAG) is not False,
        max_repack_bytes=table.take("max_repack", BYTES),
        repack_below=table.take("repack_below", SHARE) or HALF,
        verify_parts=table.take("verify_subset", TURNS),
        schedule=table.take("schedule", CRON),
        timezone=table.take("timezone", ZONE),
        jitter_s=table.take("jitter", DURATION, "0s") or 0.0,
        wait_s=table.take("wait", DURATION, "0s") or 0.0,
        limits=_limits(table.table("limits")),
        notify=_references(table, "notify", known.notifications),
    )
    for key in ("timezone", "jitter"):
        if table.has(key) and not table.has("schedule"):
            table.complain(key, "has no effect without a schedule")
    if table.has("reencrypt") and len(job.repositories) == 1:
        table.complain("reencrypt", "has no effect without a second repository, into which backups are copied")
    table.end()
    return job


def read_notify(value: object) -> tuple[str, ...] | None:
    """Whom a job that cannot be read notifies, if that much can be read."""
    given = value.get("notify") if isinstance(value, Mapping) else None
    names = [name for name in (given if isinstance(given, list) else [given]) if isinstance(name, str)]
    return tuple(names) or None


def _check_name(name: str, table: Table) -> None:
    if not NAME.fullmatch(name):
        table.complain(None, "is not a valid name: use A-Z a-z 0-9 _ . - and begin with a letter or a digit")


def _environment(table: Table | None, keys: RepositoryKeys) -> dict[str, Secret]:
    if table is None:
        return {}
    found: dict[str, Secret] = {}
    for variable in keys.variables:
        secret = table.secret(variable)
        if secret is not None:
            found[variable] = secret
            if secret.text is not None and variable not in keys.secret_variables:
                table.shown[variable] = secret.text
    table.end()
    return found


def _repositories(table: Table, known: Collection[str]) -> tuple[str, ...]:
    if not table.has("repository"):
        table.complain(None, "has no repository")
    return _references(table, "repository", known)


def _references(table: Table, key: str, known: Collection[str]) -> tuple[str, ...]:
    found = table.take(key, TEXTS) or ()
    section = {"repository": "repositories", "notify": "notifications"}[key]
    for name in found:
        if name not in known:
            there = f"there are {', '.join(sorted(known))}" if known else "there is none"
            table.complain(key, f"no [{section}.{name}] is defined; {there}")
    return found


def _sources(table: Table) -> Sources:
    return Sources(
        volumes=table.take("volumes", TEXTS) or (),
        all=table.take("all", FLAG) or False,
        anonymous=table.take("anonymous", FLAG) or False,
        labels=table.take("label", TEXTS) or (),
        projects=table.take("project", TEXTS) or (),
        containers=table.take("containers", TEXTS) or (),
        directories=table.take("directories", DIRECTORIES) or (),
    )


def _hooks(table: Table, key: str) -> tuple[Hook, ...]:
    found: list[Hook] = []
    for hook in table.array(key):
        container, command = hook.take("container", TEXT), hook.take("command", TEXT)
        for needed in ("container", "command"):
            if not hook.has(needed):
                hook.complain(None, f"has no {needed}")
        user, timeout_s = hook.take("user", TEXT), hook.take("timeout", TIME_LIMIT, "10m")
        hook.end()
        found.append(Hook(container or "", command or "", user, timeout_s or DEFAULT_TIMEOUT_S))
    return tuple(found)


def _keep(table: Table | None) -> KeepRules | None:
    if table is None:
        return None
    counts = {rule: table.take(rule, COUNT) or 0 for rule in COUNTS}
    rules = KeepRules(**counts, within=table.take("within", WITHIN), tags=table.take("tags", TEXTS) or ())
    table.end()
    if not rules and table.is_table:
        table.complain(None, "keeps nothing: give one rule at least, such as last = 7")
    return rules


def _limits(table: Table | None) -> JobLimits:
    if table is None:
        return JobLimits()
    limits = JobLimits(
        cpus=table.take("cpus", CPUS),
        memory_bytes=table.take("memory", MEMORY),
        io_class=table.take("io_class", one_of("idle", "best-effort")),
        bandwidth_bytes_s=table.take("bandwidth", SIZE),
    )
    table.end()
    return limits


def _ping(table: Table) -> Secret | None:
    ping = table.secret("ping", encode=in_ping_url)
    if ping is None or ping.text is None:
        return ping
    try:
        parts = urlsplit(ping.text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        table.complain("ping", "expected a URL that begins with http:// or https://")
        return None
    table.shown["ping"] = f"{parts.scheme}://{parts.hostname}/{HIDDEN}"
    return ping


def _scheme_alone(url: str) -> str:
    match = re.match(r"[a-z][a-z0-9+.-]*(?=://)", url)
    return f"{match[0]}://{HIDDEN}" if match else HIDDEN
