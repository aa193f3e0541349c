"""Settings of one run: from the command line, else the environment, else defaults. Nothing secret in here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from volback.errors import UsageError

Transport = Literal["pipe", "attach"]

CACHE_BYTES = 1024**3
CONFIG_NAME = "volback.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command starts from."""

    repository: str
    state: Path
    engine: str | None = None
    host: str | None = None
    """Name under which backups are filed; None is the engine's own."""
    helper_image: str | None = None
    helper_cpus: float | None = None
    helper_memory_bytes: int | None = None
    helper_io_weight: int | None = None
    """10 to 1000, beside the engine's 500 for other containers; only where its kernel weighs I/O."""
    engine_timeout_s: float = 60.0
    transport: Transport | None = None
    """How helpers are reached; None is the way that is seen to work."""
    cache: Path | None = None
    """Where copies of what never changes in distant repositories are kept; None: nowhere."""
    cache_bytes: int = CACHE_BYTES
    """How large the cache may become; 0: nothing is kept."""
    shrink_ratio: float = 0.2
    """A backup of less than this part of the one before is suspicious; 0: none is."""


def load_settings(
    environment: Mapping[str, str] | None = None, *, repository: str | None = None, engine: str | None = None
) -> Settings:
    """Read the settings. Raises UsageError for a value that is not valid."""
    env = os.environ if environment is None else environment
    data = _data_directory(env)
    return Settings(
        repository=repository if repository is not None else env.get("VOLBACK_REPO") or str(data / "repository"),
        state=absolute(Path(env.get("VOLBACK_STATE_DIR") or data / "state"), "VOLBACK_STATE_DIR"),
        engine=engine or None,
        cache=_cache(env),
        cache_bytes=_cache_bytes(env),
        host=env.get("VOLBACK_HOSTNAME") or None,
        helper_image=env.get("VOLBACK_HELPER_IMAGE") or None,
        helper_cpus=_number(env, "VOLBACK_HELPER_CPUS"),
        helper_memory_bytes=_whole(_number(env, "VOLBACK_HELPER_MEMORY_MIB", scale=1024 * 1024)),
        engine_timeout_s=_number(env, "VOLBACK_ENGINE_TIMEOUT") or 60.0,
        transport=_transport(env),
        shrink_ratio=_ratio(env, "VOLBACK_SHRINK_RATIO", 0.2),
    )


def absolute(path: Path, what: str) -> Path:
    """The path from the root. Raises UsageError for a relative one (`what`) where the working directory is gone."""
    try:
        return path.absolute()
    except OSError as exc:
        why = "was removed" if isinstance(exc, FileNotFoundError) else f"cannot be read ({exc.strerror})"
        message = f"{what} '{path}' is relative, and the working directory {why}"
        raise UsageError(message, "give an absolute path") from exc


def config_paths(environment: Mapping[str, str], named: Sequence[str] = ()) -> list[Path]:
    """Files and directories of the configuration: the named ones, else VOLBACK_CONFIG's; an empty result stands for
    the usual ones."""
    paths = list(named) or environment.get("VOLBACK_CONFIG", "").split(os.pathsep)
    return [Path(path).expanduser() for path in paths if path]


def standard_places(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The directories of the machine's configuration and of the user's."""
    user = Path(environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or "/") / ".config")
    return Path("/etc/volback"), user / "volback"


def standard_files(environment: Mapping[str, str]) -> list[Path]:
    """Those of the machine, then those of the user; having none is not an error."""
    found: list[Path] = []
    for directory in standard_places(environment):
        main = directory / CONFIG_NAME
        found += ([main] if os.path.exists(main) else []) + sorted((directory / "conf.d").glob("*.toml"))
    return list(dict.fromkeys(found))


def _data_directory(env: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/volback")
    base = env.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "volback"


def _cache(env: Mapping[str, str]) -> Path:
    if place := env.get("VOLBACK_CACHE"):
        return absolute(Path(place).expanduser(), "VOLBACK_CACHE")
    if os.geteuid() == 0:
        return Path("/var/cache/volback")
    base = env.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "volback"


def _cache_bytes(env: Mapping[str, str]) -> int:
    if env.get("VOLBACK_CACHE_MIB") == "0":
        return 0
    return _whole(_number(env, "VOLBACK_CACHE_MIB", scale=1024 * 1024)) or CACHE_BYTES


def _transport(env: Mapping[str, str]) -> Transport | None:
    match env.get("VOLBACK_TRANSPORT") or None:
        case None:
            return None
        case "pipe" | "attach" as transport:
            return transport
        case other:
            raise UsageError(f"VOLBACK_TRANSPORT={other} is not a transport", "leave it unset, or set pipe or attach")


def _number(env: Mapping[str, str], name: str, *, scale: int = 1) -> float | None:
    text = env.get(name)
    if not text:
        return None
    try:
        value = float(text) * scale
    except ValueError:
        value = -1.0
    if not 0 < value < 1e15:
        raise UsageError(f"{name}={text} is not a positive number")
    return value


def _ratio(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{name}={text} is not a number from 0 to 1")
    return value


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
