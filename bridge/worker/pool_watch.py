"""What a pool of worker processes should have done by now, from what is seen of its tasks.

This file must not know: sockets, files, clocks, logging, settings.

A pool tells when a task begins and when it ends. A worker that is killed between taking a task and
saying so, or while it holds what the others wait for, leaves tasks of which nothing is ever heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SILENT_S = 15.0
"""Longer than a worker needs to be replaced; shorter than the minute after which pebble holds it
against those who wait in vain for what a dead worker had locked."""
START_S = 60.0
"""Longer than the first workers need to start on a machine that has other things to do."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A task that has not ended. ``begun_s``: for how long it has been seen to run, if it has.

    ``order``: tasks begin in the order in which they were given out.
    """

    order: int
    begun_s: float | None
    timeout_s: float


def is_stuck(
    tasks: Sequence[Watched], *, workers: int, unheard_s: float, silent_s: float = SILENT_S
) -> bool:
    """Tell whether a pool must be ended, since it takes no tasks or cannot end what hangs.

    ``unheard_s``: for how long no task has been given out, has begun or has ended.
    """
    running = [task for task in tasks if task.begun_s is not None]
    overdue = any((task.begun_s or 0.0) > task.timeout_s + START_S for task in running)
    waiting, idle = len(tasks) - len(running), workers - len(running)
    return overdue or (waiting > 0 and idle > 0 and unheard_s > silent_s)


def passed_over(tasks: Sequence[Watched], *, newest_begun: int) -> frozenset[int]:
    """Tell which tasks, by their order, will never begin: later ones have.

    ``newest_begun``: the order of the last task that has begun, ended ones included.
    """
    return frozenset(
        task.order for task in tasks if task.begun_s is None and task.order < newest_begun
    )
