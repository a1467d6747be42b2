"""In which stage each instance under way is: a byte of shared memory for each, for people to see.

A message for each stage would cost more than some stages take. Whoever hands a task to a local
worker notes that it is queued, the worker notes what it does, and the status page reads. Nothing
is decided by it: workers elsewhere have no such memory, and then nothing is told.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from contextlib import suppress
from enum import IntEnum


class Stage(IntEnum):
    """Where an instance is: the byte that stands for it."""

    UNKNOWN = 0
    QUEUED = 1
    FETCH = 2
    TRANSCODE = 3
    DELIVER = 4
    PROVE = 5
    ENDED = 6
    """The worker is done with it; the pipeline has not taken its outcome yet."""


NAMES = {stage.value: stage.name.lower() for stage in Stage if stage is not Stage.UNKNOWN}
"""What each byte is called in /api/status. Any other byte is not known, and called "": a worker
that a codec has damaged may write anything, and the view goes on."""
WORK = (Stage.FETCH, Stage.TRANSCODE, Stage.DELIVER, Stage.PROVE, Stage.ENDED)
"""What a worker goes through, in this order."""
SLOTS = 1 << 14
"""More than there can be under way (BRIDGE_WINDOW): no two of them share a byte."""

Memory = ctypes.Array[ctypes.c_ubyte]


class Stages:
    """The memory, in the process that shows it. ``memory`` None: this machine has none to share."""

    def __init__(self) -> None:
        self.memory: Memory | None = None
        with suppress(OSError):
            self.memory = multiprocessing.get_context("spawn").RawArray(ctypes.c_ubyte, SLOTS)

    def queue(self, number: int) -> None:
        """Note that a task waits for a worker."""
        _note(self.memory, number, Stage.QUEUED)

    def of(self, number: int) -> str:
        """Name the stage that a task is in; "" where that is not known."""
        return "" if self.memory is None else NAMES.get(self.memory[number % SLOTS], "")


class _ThisWorker:
    """The memory, in a worker."""

    memory: Memory | None = None


def adopt(memory: Memory | None) -> None:
    """Have this process, a worker, tell its stages."""
    _ThisWorker.memory = memory


def tell(number: int, stage: Stage) -> None:
    """Note what this worker does with a task."""
    _note(_ThisWorker.memory, number, stage)


def _note(memory: Memory | None, number: int, value: Stage) -> None:
    if memory is not None:
        memory[number % SLOTS] = value
