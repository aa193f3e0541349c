"""Order: what has to wait for what, as levels; and all of one level at the same time.

Stopping takes each container its grace time, so those that do not need one another are stopped, and started again,
together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from volback.threads import in_thread

_THREADS = 16
"""They only wait for the engine."""


def levels(waits_for: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the keys in levels: each comes in a later level than all that it waits for.

    Where keys wait for one another in a circle, each is a level of its own, in the given order.
    """
    sorter = TopologicalSorter({key: [other for other in waits_for[key] if other in waits_for] for key in waits_for})
    try:
        sorter.prepare()
    except CycleError:
        return [[key] for key in waits_for]
    found = []
    while sorter.is_active():
        ready = set(sorter.get_ready())
        found.append([key for key in waits_for if key in ready])
        sorter.done(*ready)
    return found


def all_at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Run the tasks in this thread and in others, as far as these can be started, and wait for all of them; then raise
    the error of the first that failed, if one did.

    The caller defers signals, or is not the main thread.
    """
    failed: dict[int, BaseException] = {}
    left = iter(enumerate(tasks))
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                number, task = next(left, (0, None))
            if task is None:
                return
            try:
                task()
            except BaseException as exc:  # noqa: BLE001 - raised below, once all have ended
                failed[number] = exc

    waits = [in_thread(work, "containers") for _ in tasks[1:_THREADS]]
    work()
    for wait in waits:
        wait()
    if failed:
        raise failed[min(failed)]
