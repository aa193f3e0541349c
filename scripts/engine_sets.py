"""Which tests run on which engines: called by `scripts/test engines`, and the source of a table in the documentation.

python -m scripts.engine_sets names [others]       the engines, or all but this machine's own
python -m scripts.engine_sets start ENGINE         what `scripts/engine run` gets for it; nothing for this machine's own
python -m scripts.engine_sets tests ENGINE         what pytest gets for it
python -m scripts.engine_sets check ENGINE         compare the version at DOCKER_HOST with the one expected
python -m scripts.engine_sets table                the table in docs/reference/engines.md
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from tests.support.engine import connect


class EngineKind(NamedTuple):
    """An engine that tests run on, and the arguments of `scripts/engine run` that start it."""

    name: str
    title: str
    version: str
    start: tuple[str, ...] = ()


class Part(NamedTuple):
    """Tests of one thing, as pytest names them."""

    title: str
    tests: tuple[str, ...]


class Except(NamedTuple):
    """A test that does not run on an engine, and why."""

    engine: str
    test: str
    reason: str


MACHINE = "machine"
AS_29 = ("forky", "--containerd", "--min-api", "1.44", "--cgroup2")
ENGINES = (
    EngineKind(MACHINE, "Docker 20.10 (Debian 12), or what this machine has", "20.10"),
    EngineKind("docker-26", "Docker 26.1 (trixie)", "26.1", ("trixie",)),
    EngineKind("docker-28", "Docker 28.5 (forky)", "28.5", ("forky",)),
    EngineKind("docker-28-as-29", "the same with the defaults of 29", "28.5", AS_29),
    EngineKind("podman-5", "Podman 5.8 (forky)", "5.8", ("forky", "--podman", "--cgroup2")),
)

_QUIESCE = "tests/e2e/test_quiesce.py::test_"
_KILL = "tests/fault/test_quiesce_kill.py::test_"
_IN_CONTAINER = "tests/e2e/test_container.py::test_"
_TRANSPORTS = "tests/engine/test_transports.py::test_"
_STORAGE = "tests/e2e/test_storage.py::test_"
_PROJECTS = "tests/e2e/test_projects.py::test_"
_PLACE = "a_directory_that_holds_something_is_replaced_only_on_request_and_goes_to_another_place"
_MOVE = f"tests/e2e/test_migrate_set.py::test_{_PLACE}"
_SERVICES = "tests/fault/test_services.py::test_"
PARTS = (
    Part("What comes back is what was there", ("tests/e2e/test_fidelity.py",)),
    Part(
        "Both transports",
        (
            f"{_TRANSPORTS}both_carry_the_same_bytes",
            f"{_TRANSPORTS}what_was_written_is_read_again",
            f"{_TRANSPORTS}a_killed_helper_is_an_error",
            f"{_TRANSPORTS}pipes_are_chosen_where_they_work",
            f"{_TRANSPORTS}a_directory_that_is_not_there_is_not_found",
        ),
    ),
    Part("Helpers", ("tests/engine/test_helpers.py",)),
    Part(
        "Volumes",
        (
            "tests/engine/test_volumes.py",
            f"{_STORAGE}a_copy_of_a_volume_with_a_device_is_a_plain_volume",
            f"{_STORAGE}a_tmpfs_volume_is_only_backed_up_while_it_is_mounted",
        ),
    ),
    Part(
        "Containers are stopped and paused",
        (
            f"{_QUIESCE}stop_ends_a_container_by_its_own_signal_and_starts_it_again",
            f"{_QUIESCE}pause_freezes_a_container_that_goes_on_where_it_was",
            f"{_QUIESCE}a_container_that_would_be_gone_is_not_stopped_and_the_others_go_on",
            f"{_QUIESCE}a_container_that_begins_to_crash_before_it_is_paused_gets_the_same_message",
            f"{_QUIESCE}dependants_stop_first_and_start_last",
            f"{_QUIESCE}a_container_with_a_health_check_is_healthy_when_the_backup_ends",
            f"{_QUIESCE}a_container_that_is_removed_meanwhile_is_reported",
            # Not by links: an engine of scripts/engine has a host name of its own, so it counts as another machine.
            "tests/e2e/test_hidden_writers.py::test_stop_finds_a_hidden_writer[mountpoint]",
            "tests/e2e/test_hidden_writers.py::test_stop_finds_a_hidden_writer[second volume]",
            "tests/e2e/test_hidden_writers.py::test_a_container_that_came_and_went_during_the_read_is_noticed",
        ),
    ),
    Part(
        "Containers run again after SIGKILL",
        (
            "tests/engine/test_connect.py::test_an_engine_has_the_same_id_whenever_it_is_asked",
            f"{_KILL}after_a_kill_the_guard_lets_a_paused_container_go_on",
            f"{_KILL}after_a_kill_of_both_recover_lets_containers_run_again",
            f"{_KILL}several_that_stop_at_the_same_time_run_again",
        ),
    ),
    Part(
        "Hooks",
        (
            "tests/engine/test_hooks.py",
            "tests/engine/test_execute.py::test_a_command_runs_as_the_user_that_is_asked_for",
            "tests/engine/test_execute.py::test_a_container_without_a_shell_is_said_to_have_none",
            "tests/engine/test_execute.py::test_a_command_that_takes_too_long_is_ended_with_all_that_it_started",
        ),
    ),
    Part(
        "volback in a container",
        (
            "tests/engine/test_own.py",
            f"{_IN_CONTAINER}a_volume_there_and_back[root]",
            f"{_IN_CONTAINER}it_leaves_its_own_volumes_out_and_never_stops_itself",
            f"{_IN_CONTAINER}killed_in_mid_backup_what_it_stopped_runs_again_before_the_container_ends",
        ),
    ),
    Part(
        "Compose projects",
        (
            f"{_PROJECTS}a_project_goes_and_comes_back_and_compose_says_nothing",
            f"{_PROJECTS}volumes_are_found_by_composes_labels_and_by_what_containers_mount",
            _MOVE,
        ),
    ),
    Part("Moves to the first of these engines and back, restores too", ("tests/e2e/test_between_engines.py",)),
    Part(
        "Services of a swarm are scaled to 0 and back",
        (
            f"{_SERVICES}a_service_is_scaled_to_0_while_its_volumes_are_read_and_has_all_else_as_before",
            f"{_SERVICES}after_a_kill_the_guard_or_recover_scales_back",
        ),
    ),
)

_NO_CPU = "processor time cannot be limited on cgroup v2 beside v1, as a host of v1 holds that controller"
_NO_BUILD = "Podman cannot build the image on cgroup v2 beside v1, as a host of v1 holds the controller of processes"
_ZERO = "Podman reports a size of 0 for a volume with a device that is not mounted, where Docker reports none"
_ALL = "Podman measures all volumes or none, and one of another test may be too deep for it, or be removed meanwhile"
_HIDDEN = "the test hides the overlay's directory, by which a container on Podman is known"
_CRASHES = "Podman restarts a container that crashes at once, without the growing pauses in which Docker has it wait"
_NO_SWARM = "Podman has no swarm"
_COMPOSE = "what counts there is the compose command, and Docker 26.1 comes with 2.26, 28.5 with 2.40"
_WITH_COMPOSE = ("docker-26", "docker-28")
_NO_SYSTEMD = "Podman leaves health checks to timers of systemd, which does not run on the machine of the tests"


def _left_out(engine: str, start: str | tuple[str, ...], reason: str) -> list[Except]:
    return [Except(engine, test, reason) for part in PARTS for test in part.tests if test.startswith(start)]


EXCEPT = (
    Except("docker-28-as-29", "tests/engine/test_helpers.py::test_it_has_the_least_that_it_needs", _NO_CPU),
    Except("podman-5", "tests/engine/test_helpers.py::test_it_has_the_least_that_it_needs", _NO_CPU),
    Except("podman-5", "tests/engine/test_volumes.py::test_sizes_are_returned_to_many_who_ask_at_once", _ALL),
    Except("podman-5", "tests/engine/test_volumes.py::test_a_volume_with_driver_options_is_listed", _ZERO),
    Except(
        "podman-5", "tests/engine/test_own.py::test_two_that_mount_at_the_same_place_differ_in_what_they_mount", _HIDDEN
    ),
    *_left_out("podman-5", _IN_CONTAINER, _NO_BUILD),
    Except(
        "podman-5", f"{_QUIESCE}a_container_that_begins_to_crash_before_it_is_paused_gets_the_same_message", _CRASHES
    ),
    Except("podman-5", f"{_QUIESCE}a_container_with_a_health_check_is_healthy_when_the_backup_ends", _NO_SYSTEMD),
    *_left_out("podman-5", _SERVICES, _NO_SWARM),
    *(Except(engine.name, _MOVE, _COMPOSE) for engine in ENGINES if engine.name not in _WITH_COMPOSE),
)


def tests(engine: str) -> list[str]:
    """What pytest gets: the tests, and those among them that are left out."""
    chosen = [test for part in PARTS for test in part.tests]
    return chosen + [f"--deselect={left.test}" for left in EXCEPT if left.engine == engine]


def table() -> str:
    """Rows are parts, columns engines; below it are the tests that are left out, with the reasons."""
    lines = [_row(["", *(engine.title for engine in ENGINES)]), _row(["---"] * (len(ENGINES) + 1))]
    lines += [_row([part.title, *(_cell(part, engine) for engine in ENGINES)]) for part in PARTS]
    notes = [_note(number, reason) for number, reason in enumerate(_reasons(), 1)]
    return "\n".join([*lines, "", *notes]) + "\n"


def check(engine: EngineKind) -> None:
    """Say if the engine is another than the documentation has: a suite of Debian goes on."""
    found = connect().version()["Version"]
    print(f"{engine.name}: engine {found}")
    if engine.name != MACHINE and not found.startswith(f"{engine.version}."):
        print(f"note: the documentation says {engine.version}: change it in scripts/engine_sets.py")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _cell(part: Part, engine: EngineKind) -> str:
    left = [left for left in EXCEPT if left.engine == engine.name and left.test.startswith(part.tests)]
    numbers = ", ".join(str(number) for number in sorted({_reasons().index(each.reason) + 1 for each in left}))
    if {each.test for each in left} >= set(part.tests):
        return f"no ({numbers})"
    return f"yes, but for some ({numbers})" if left else "yes"


def _reasons() -> list[str]:
    return list(dict.fromkeys(left.reason for left in EXCEPT))


def _note(number: int, reason: str) -> str:
    names = dict.fromkeys(f"`{_short(left.test)}`" for left in EXCEPT if left.reason == reason)
    return f"{number}. {reason[:1].upper()}{reason[1:]}: {', '.join(names)}."


def _short(test: str) -> str:
    return test.rpartition("::")[2]


def main(command: str, *arguments: str) -> None:
    """Print what is asked for, one item a line."""
    engines = {engine.name: engine for engine in ENGINES}
    if command == "names":
        print("\n".join(name for name in engines if name != MACHINE or not arguments))
    elif command == "table":
        print(table(), end="")
    elif not arguments or arguments[0] not in engines:
        sys.exit(f"error: {' '.join(arguments) or 'nothing'} is not one of the engines {', '.join(engines)}")
    elif command == "check":
        check(engines[arguments[0]])
    else:
        print("\n".join(tests(arguments[0]) if command == "tests" else engines[arguments[0]].start))


if __name__ == "__main__":
    main(*sys.argv[1:])
