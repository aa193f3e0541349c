"""Restore target: the volume or directory that a restore fills, and what it takes over of the one that was backed up.

What a manifest says is data, not an order: driver options that reach the host's filesystem or its network count only if
the person asks for them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

from volback.catalog.model import Manifest, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import UsageError
from volback.masking import HIDDEN, masked_keys, with_values
from volback.operations.single_files import single_file
from volback.operations.trust import Authorship, authorship
from volback.policy.inherited import Wanted, inherited_labels, unconfirmed_warning
from volback.policy.storage import described, is_plain, is_tmpfs
from volback.state.seen_volumes import seen_volume


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """Where to restore to; what is None or empty is as the backup says."""

    name: str | None = None
    """Of the volume; None is the one that the backup is of."""
    directory: str | None = None
    """Of the engine's host, instead of a volume; empty or not there yet."""
    file: str | None = None
    """The path there to which the single file that a backup holds is restored."""
    labels: dict[str, str] = field(default_factory=dict)
    without_labels: tuple[str, ...] = ()
    """Keys of the backup's labels that the volume is not to have; `*` stands for any text."""
    driver: str | None = None
    driver_options: dict[str, str] = field(default_factory=dict)
    """They replace what the backup says; with `keep_driver` they are added to it, as the secrets that it does not hold.
    An empty value is an option that is not given."""
    keep_driver: bool = False
    """Use the driver and options that the backup says, wherever they reach."""
    keep_labels: bool = False
    """Take over labels by which programs act on the volume, also where only the backup knows them."""
    project: str | None = None
    """The compose project of which the volume is restored."""


def check_target(options: TargetOptions, *, replace: bool) -> None:
    """Raises UsageError for options that contradict each other."""
    given = bool(options.driver or options.driver_options)
    if options.keep_driver and options.driver:
        raise UsageError("--keep-driver goes without --driver", "it replaces what the other would keep")
    if options.directory is None:
        return
    if not options.directory.startswith("/"):
        raise UsageError(f"--to {options.directory} is not an absolute path", "name the directory from /")
    for_volumes = (options.name, replace, options.labels, options.without_labels, options.keep_labels)
    if any(for_volumes) or given or options.keep_driver:
        raise UsageError(
            "--to goes without --as, --replace, --label, --no-label, --keep-labels, --driver, --driver-opt and"
            " --keep-driver",
            "they are about volumes",
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be filled, and what it does not take over of the volume that was backed up."""

    source: Source
    unconfirmed_labels: tuple[str, ...] = ()

    def warnings(self, manifest: Manifest) -> list[str]:
        """Say in what the new volume is not the one of the backup."""
        labels = [unconfirmed_warning(self.source.name, self.unconfirmed_labels)] if self.unconfirmed_labels else []
        return changed_storage(manifest, self.source) + labels + hidden_labels(manifest, self.source)


def known_target(
    ctx: Context, repository: Repository, manifest: Manifest, options: TargetOptions
) -> tuple[Target, Authorship]:
    """Return what is to be filled, and who has made the backup: both decide which labels count. Raises UsageError."""
    seen, author = seen_volume(ctx.settings.state, manifest.host, manifest.volume), authorship(repository, manifest)
    is_known = author.vouches_or(seen.had_label)
    return choose_target(manifest, options, backup=manifest.name, is_known=is_known), author


def choose_target(
    manifest: Manifest,
    options: TargetOptions,
    *,
    backup: str,
    is_known: Callable[[str, str], bool] = lambda key, value: False,
) -> Target:
    """Return what is to be filled; `is_known` says whether this machine has seen the volume with a label.

    Its name is that of the key under which the backup lies, unless another is given. Raises UsageError where a backup
    of a directory comes without a place to go to.
    """
    source = manifest.source
    if options.file is not None:
        return Target(single_file(options.file))
    if options.directory is not None:
        return Target(Source(kind="directory", name="/" + posixpath.normpath(options.directory).lstrip("/")))
    if source.kind == "directory" and options.name is None:
        raise UsageError(f"backup {backup} is of a host directory", "say where: --to DIRECTORY, or --as VOLUME")
    name = options.name or manifest.volume
    renamed = source.kind != "volume" or name != manifest.volume
    driver, driver_options = _driver(source, options, renamed=renamed)
    wanted = Wanted(name, renamed, options.without_labels, options.project, options.keep_labels)
    inherited = inherited_labels(source.labels, wanted, is_known=is_known)
    labels = {**inherited.labels, **options.labels}
    filled = Source(kind="volume", name=name, driver=driver, options=driver_options, labels=labels)
    return Target(filled, tuple(inherited.unconfirmed.keys() - labels.keys()))


def changed_storage(manifest: Manifest, target: Source) -> list[str]:
    """Say that the volume `target` is a plain one where the backup's was not: a warning, or none."""
    source = manifest.source
    was_plain = source.kind != "volume" or is_plain(source.driver, source.options)
    if was_plain or not is_plain(target.driver, target.options):
        return []
    return [
        f"volume {target.name!r} is a plain local volume now: {source.name!r} was on other storage"
        f" ({described(source.driver, source.options)}), which is only used with --keep-driver or --driver-opt"
    ]


def hidden_labels(manifest: Manifest, target: Source) -> list[str]:
    """Say which labels the volume `target` does not have because their values hold a secret: a warning, or none."""
    hidden = [key for key, value in manifest.source.labels.items() if HIDDEN in value and key not in target.labels]
    if not hidden:
        return []
    return [f"not restored, as a backup holds no secrets: label {', '.join(sorted(hidden))}; give it with --label"]


def _driver(source: Source, options: TargetOptions, *, renamed: bool) -> tuple[str, dict[str, str]]:
    given = {key: value for key, value in options.driver_options.items() if value}
    if options.keep_driver and source.kind == "volume":
        return source.driver, _kept_options(source, given)
    if options.driver or options.driver_options:
        return options.driver or "local", given
    if source.kind == "volume" and (
        is_plain(source.driver, source.options)
        or (is_tmpfs(source.driver, source.options) and not renamed)  # what was in memory does not go to a disk unasked
    ):
        return source.driver, dict(source.options)
    return "local", {}


def _kept_options(source: Source, given: dict[str, str]) -> dict[str, str]:
    """The options that the backup recorded, with the secrets that no backup records. Raises UsageError."""
    kept = with_values(source.options, given)
    missing = masked_keys(kept)
    if missing:
        raise UsageError(
            f"a backup holds no secrets, and volume {source.name!r} needs some among its options: {', '.join(missing)}",
            f"give them beside --keep-driver: {' '.join(f'--driver-opt {key}=...' for key in missing)}",
        )
    return kept
