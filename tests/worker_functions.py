"""What tests let a worker process run instead of `move`; chosen by the instance's ID."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bridge.model import Action, Delivered, Outcome, Reason, Skipped, StageTimes, Task
from bridge.worker import places

PATIENT = "SECRET^PATIENT"
WORK_S = 0.05
"""What an instance takes whose ID begins with work-; its SOP Instance UID tells the process."""


def misbehave(task: Task) -> Outcome:
    """Do what the instance's ID says; anything else is done well and tells the process."""
    name = task.move.instance_id
    if name in DEEDS:
        outcome: Outcome = DEEDS[name]()
        return outcome
    if name.startswith("work-"):
        threading.Event().wait(WORK_S)
        times = StageTimes(transcode_s=WORK_S)
        told = str(os.getpid())
        return Delivered("Success", Action.TRANSCODED, "1.2", "1.2.1", told, 1, 1, times)
    return Skipped(Reason.GONE, str(os.getpid()))


def echo(work: bytes) -> bytes:
    """Give back what was given; what ends in ``!`` ends the process instead."""
    if work.endswith(b"!"):
        os._exit(7)
    return work


def report_and_hang(task: Task) -> NoReturn:
    """Write this process's number into the file that the ID names, and hang."""
    with Path(task.move.instance_id).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    _hang()


def _hang() -> NoReturn:
    while True:
        threading.Event().wait()


def _hang_in_c() -> NoReturn:
    """Hold the interpreter's lock: no Python signal handler runs any more."""
    while True:
        ctypes.PyDLL(None).pause()


def _raise_of_patient() -> NoReturn:
    raise ValueError(PATIENT)


def _eat_memory() -> Outcome:
    eaten = [bytearray(16 * 1024 * 1024) for _ in range(1000)]
    return Skipped(Reason.GONE, str(len(eaten)))


def _segfault() -> Outcome:
    ctypes.string_at(0)
    return Skipped(Reason.GONE, "still alive")


def _abort() -> NoReturn:
    os.abort()


def _unpicklable() -> Any:
    return lambda: None


def _exit() -> NoReturn:
    os._exit(7)


def _system_exit() -> NoReturn:
    sys.exit(3)


DEEDS: dict[str, Callable[[], Any]] = {
    "segfault": _segfault,
    "abort": _abort,
    "exit": _exit,
    "system-exit": _system_exit,
    "hang": _hang,
    "hang-in-c": _hang_in_c,
    "eat": _eat_memory,
    "raise": _raise_of_patient,
    "unpicklable": _unpicklable,
}


def in_a_place(task: Task) -> Outcome:
    """Do what the instance's ID says, with a place: as long as it takes, nobody else has it."""
    places.here().take()
    return misbehave(task)
