"""Open configuration: which `volback.toml` is used, and whether it is valid, including secrets and addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from volback.catalog.keys import REPOSITORY_KEY
from volback.config.loading import find_files, load_config
from volback.config.model import Config, Notification, Repository
from volback.config.places import Problem
from volback.config.secrets import Secret, UnreadableSecret
from volback.context import Access, Context, open_repository
from volback.context.repository import Repository as OpenRepository
from volback.encryption.sources import SecretText, Sources, secret_text
from volback.errors import UsageError
from volback.settings import config_paths, standard_files
from volback.store.locate import check_address, keys_of

if TYPE_CHECKING:
    from volback.engine.engine import Engine


def open_config(named: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Config:
    """The configuration in the named files, else in those of VOLBACK_CONFIG, else in the standard places.

    Raises NotFoundError for a named file that does not exist, UsageError where there is none at all.
    """
    env = os.environ if environment is None else environment
    paths = config_paths(env, named)
    files = find_files(paths) if paths else standard_files(env)
    if not files:
        raise UsageError("there is no configuration", "write /etc/volback/volback.toml, or name a file with --config")
    return load_config(files, env, keys_of=keys_of)


def check_config(config: Config) -> list[Problem]:
    """Every problem: those of the files, then those of addresses and of secrets, each of which is read once."""
    notifications = (problem for one in config.notifications.values() for problem in _notification_problems(one))
    return [*config.problems, *_secret_problems(config), *_address_problems(config), *notifications]


def find_repository(
    name: str, named: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Repository | None:
    """The repository of that name; None where it is a directory here, or no configuration names repositories.

    Raises UsageError for a broken one, and for a name that is neither: a typing error is not a directory of that name.
    """
    config = read_config(named, environment)
    found = config.repositories.get(name)
    wrong = [problem for problem in config.problems if problem.place.key.startswith(f"repositories.{name}.")]
    if found is None and wrong:
        raise UsageError(f"configuration: {wrong[0]}", "see `volback config check`")
    if found is None and config.repositories and not os.path.isdir(name):
        there = ", ".join(sorted(config.repositories))
        raise UsageError(f"no [repositories.{name}] is defined", f"there are {there}; a directory here is ./{name}")
    return found


def default_repository(
    built_in: str, named: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Repository | None:
    """The repository of a command that names none: the one with `default = true`, or the only one; None stands for
    `built_in`, where the configuration has none, or each has `default = false`.

    Raises UsageError where another one may be meant: of several none is the default, or `built_in` is there too.
    """
    config = read_config(named, environment)
    wrong = [problem for problem in config.problems if problem.place.key.partition(".")[0] in ("", "repositories")]
    if wrong:
        hint = "see `volback config check`, or name the repository: --repo"
        raise UsageError(f"the default repository is not known: {wrong[0]}", hint)
    found = config.repositories.values()
    chosen = [one for one in found if one.default] or [one for one in found if one.default is None]
    if not chosen or (len(chosen) == 1 and (chosen[0].default or not _is_repository(built_in))):
        return chosen[0] if chosen else None
    names = sorted(one.name for one in chosen)
    others = [built_in] if _is_repository(built_in) else []
    raise UsageError(
        f"it is not said which repository is used: {', '.join([*names, *others])}",
        f"name one, like --repo {names[0]}, or write `default = true` below [repositories.{names[0]}]",
    )


def _is_repository(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, REPOSITORY_KEY))


def repository_names(named: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> list[str]:
    """The names of the configuration's repositories; none where there is no configuration."""
    return sorted(read_config(named, environment).repositories)


def read_config(named: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Config:
    """As `open_config`, but an empty one where there is none. Raises NotFoundError for a named file."""
    env = os.environ if environment is None else environment
    paths = config_paths(env, named)
    if paths:
        return load_config(find_files(paths), env, keys_of=keys_of)
    # One of the machine that this user may not read is not theirs.
    return load_config([file for file in standard_files(env) if os.access(file, os.R_OK)], env, keys_of=keys_of)


def environment_of(repository: Repository, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for this repository's store. Raises UsageError for a secret that cannot be read."""
    env = os.environ if environment is None else environment
    return {**env, **{name: secret.reveal() for name, secret in repository.environment.items()}}


def access_of(repository: Repository, environment: Mapping[str, str] | None = None) -> Access:
    """How its store is reached. Raises UnreadableSecret."""
    credentials = {key: secret.reveal() for key, secret in repository.credentials.items()}
    return Access(
        environment_of(repository, environment),
        credentials,
        sources=Sources(_texts(repository.identity), _texts(repository.passphrase)),
        recipient=repository.recipient,
    )


def _texts(secret: Secret | None) -> tuple[SecretText, ...]:
    return () if secret is None else (secret_text(secret),)


def open_configured(
    ctx: Context, repository: Repository, engine: Engine | None = None, *, bandwidth_bytes_s: float | None = None
) -> OpenRepository:
    """Open a repository of the configuration. Raises UnreadableSecret."""
    access = replace(access_of(repository), bandwidth_bytes_s=bandwidth_bytes_s, name=repository.name)
    return open_repository(ctx, engine, url=repository.url, access=access)


def _secrets(config: Config) -> Iterator[Secret]:
    for repository in config.repositories.values():
        yield from repository.environment.values()
        yield from repository.credentials.values()
        yield from filter(None, [repository.identity, repository.passphrase])


def _secret_problems(config: Config) -> Iterator[Problem]:
    for secret in _secrets(config):
        try:
            secret.reveal()
        except UnreadableSecret as exc:
            yield exc.problem


def _address_problems(config: Config) -> Iterator[Problem]:
    for repository in config.repositories.values():
        try:
            check_address(repository.url, environment_of(repository))
        except UnreadableSecret:
            continue  # reported already
        except UsageError as exc:
            yield Problem(repository.place, exc.message + (f" ({exc.hint})" if exc.hint else ""))


def _notification_problems(notification: Notification) -> Iterator[Problem]:
    from volback.notify.messages import complaint_of_url
    from volback.notify.pings import complaint_of_ping

    kinds = [(secret, complaint_of_url) for secret in notification.urls]
    kinds += [(notification.ping, complaint_of_ping)] if notification.ping is not None else []
    for secret, complaint_of in kinds:
        try:
            complaints = [complaint_of(url.strip()) for url in secret.reveal().splitlines() if url.strip()]
        except UnreadableSecret as exc:
            yield exc.problem
        else:
            yield from (Problem(secret.place, complaint) for complaint in complaints if complaint)
    yield from _template_problems(notification)


def _template_problems(notification: Notification) -> Iterator[Problem]:
    from volback.notify.text import complaint_of_template

    for key, template in (("title", notification.title), ("body", notification.body)):
        complaint = None if template is None else complaint_of_template(template)
        if complaint:
            yield Problem(notification.places[key], complaint)
