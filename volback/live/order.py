"""Order: what has to wait for what, as levels; and all of one level at the same time.

Stopping takes each container its grace time, so those that do not need one another are stopped, and started again,
together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from graphlib import CycleError, TopologicalSorter

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
    """Run the tasks in threads, and wait for all of them; then raise the error of the first that failed, if one did.

    The caller defers signals, or is not the main thread.
    """
    if len(tasks) == 1:
        tasks[0]()
        return
    with ThreadPoolExecutor(min(len(tasks), _THREADS) or 1, thread_name_prefix="containers") as pool:
        done = [pool.submit(task) for task in tasks]
    for one in done:
        one.result()
