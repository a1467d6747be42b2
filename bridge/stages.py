"""In which stage each instance under way is: a byte of shared memory for each, for people to see.

A message for each stage would cost more than some stages take. Whoever hands a task to a local
worker notes that it is queued, the worker notes what it does, and the status page reads. Nothing
is decided by it: workers elsewhere have no such memory, and then nothing is told.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from contextlib import suppress

NAMES = ("", "queued", "fetch", "transcode", "deliver", "prove")
"""A byte is a place in here; 0 is not known."""
QUEUED = 1
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
        _note(self.memory, number, QUEUED)

    def of(self, number: int) -> str:
        """Name the stage that a task is in; "" where that is not known."""
        return "" if self.memory is None else NAMES[self.memory[number % SLOTS]]


class _Worker:
    """The memory, in a worker."""

    memory: Memory | None = None


def adopt(memory: Memory | None) -> None:
    """Have this process, a worker, tell its stages."""
    _Worker.memory = memory


def tell(number: int, stage: int) -> None:
    """Note what this worker does with a task: its first stage is 1."""
    _note(_Worker.memory, number, QUEUED + stage)


def _note(memory: Memory | None, number: int, value: int) -> None:
    if memory is not None:
        memory[number % SLOTS] = value
