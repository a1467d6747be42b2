"""Who works for the bridge, as a value: its own processes, or workers on other machines.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "local"
REFUSED_MAX = 20
"""Refused workers that are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A worker that gets no work, and why."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Crew:
    """How much can be done at once.

    ``threads``: instances that can be in work at the same time; 0 means that nothing can be
    started. ``depth``: how many should be under way for each of them, so that none waits for the
    next. ``problem`` is empty or a code of /health: why nothing can be started.
    ``awaited``: somebody has been asked and has not said yet who it is.
    """

    threads: int
    workers: int
    depth: int = 3
    place: str = LOCAL
    problem: str = ""
    message: str = ""
    advice: str = ""
    refused: tuple[Refused, ...] = ()
    refused_count: int = 0
    awaited: bool = False


NOBODY = Crew(threads=0, workers=0)
"""Before anything is known."""
