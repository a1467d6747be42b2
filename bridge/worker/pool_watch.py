"""What is to become of a worker, from what is seen of the task that it has in hand.

This file must not know: sockets, files, clocks, logging, settings.

A worker notes in shared memory that it has begun a task. One that was stopped, or killed between
taking a task and noting it, has done nothing with it: the task is not to blame. Nor is it when
somebody has stopped the worker in the middle of it.
"""

from __future__ import annotations

from enum import Enum

SILENT_S = 15.0
"""Longer than a worker needs to begin a task, or a template to make one, on a machine that has
other things to do."""
START_S = 60.0
"""Longer than the template needs to import what workers need, there."""

WAITED_MAX = 20
"""In times of a task's own time: longer than others need to give way, even if all of them hang."""


class Hanging(Enum):
    """What a task that is in hand says of its worker."""

    NOT = "it may go on"
    LATE = "it has not finished in time"
    SILENT = "it does nothing"


def hanging_of(
    *, at_work: bool, taken_s: float, waited_s: float, timeout_s: float, silent_s: float
) -> Hanging:
    """Tell whether a worker must be ended. ``taken_s``: for how long it has had the task.

    ``at_work``: it has begun it, and is not stopped. ``waited_s``: for how much of the time it
    waited for a place, because of others. It says so itself, and is not believed for ever.
    """
    if not at_work:
        return Hanging.SILENT if taken_s > silent_s else Hanging.NOT
    if taken_s > WAITED_MAX * timeout_s:
        return Hanging.SILENT
    return Hanging.LATE if taken_s - waited_s > timeout_s else Hanging.NOT
