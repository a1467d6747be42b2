"""How far a command is: a bar with ETA on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bridge import events
from bridge.checks.ask_both_servers import Show
from bridge.commands.output import on_terminal, say
from bridge.events import Event, InstanceParked, Settled

LINE_EVERY_S = 5.0


class RangeProgress:
    """An observer that shows how far a range of sequences is done.

    ``show`` gets the sequences done, their total, and a text.
    """

    def __init__(self, start: int, show: Callable[[int, int, str], None]) -> None:
        self._start = start
        self._end = start
        self._show = show
        self._instances = 0
        self._parked = 0
        self.next = start
        """The first change of the range that is not done, or the one behind it."""

    def begin(self, end: int) -> None:
        """Note the end of the range and show the start."""
        self._end = end
        self._show(0, self._total, self._text())

    def on_event(self, event: Event) -> None:
        """Count the instances."""
        if isinstance(event, Settled):
            self._instances += 1
        elif isinstance(event, InstanceParked):
            self._instances += 1
            self._parked += 1

    def on_progress(self, progress: events.Progress) -> None:
        """Show the position."""
        if progress.checkpoint is not None:
            self.next = max(self._start, progress.checkpoint + 1)
            done = progress.checkpoint - self._start + 1
            self._show(min(max(0, done), self._total), self._total, self._text())

    @property
    def _total(self) -> int:
        return max(1, self._end - self._start + 1)

    def _text(self) -> str:
        return f"{self._instances} instances, {self._parked} parked"


@contextmanager
def range_progress(start: int) -> Iterator[RangeProgress]:
    """Show a bar on a terminal and lines otherwise, both on stderr."""
    if not on_terminal():
        yield RangeProgress(start, _Lines().show)
        return
    bar = Progress(
        TextColumn("replay"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=None)
        yield RangeProgress(
            start,
            lambda done, total, text: bar.update(
                task, completed=done, total=total, description=text
            ),
        )


class _Lines:
    """At most one line every few seconds, and one at the end."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()
        self._said_s = self._begun_s
        self._said_end = False

    def show(self, done: int, total: int, text: str) -> None:
        now_s = time.monotonic()
        ended = done >= total
        if self._said_end or (not ended and now_s - self._said_s < LINE_EVERY_S):
            return
        self._said_s = now_s
        self._said_end = ended
        spent_s = now_s - self._begun_s
        left = f", about {spent_s * (total - done) / done:.0f} s left" if done and not ended else ""
        say(f"replay {100 * done // total}%: {text}, {spent_s:.0f} s{left}", err=True)


# The progress of commands that count: a bar on a terminal, a plain line now and then otherwise.

COUNT_LINE_EVERY_S = 5.0
BAR_EVERY = 50
"""Counts between two updates of the bar: updating it costs more than some of what is counted."""


@contextmanager
def counting(command: str) -> Iterator[Show]:
    """Show how far a command is, on stderr."""
    if not on_terminal():
        yield _CountLines(command).show
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        yield _Bars(bar).show


class _Bars:
    """One bar for each phase."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def show(self, phase: str, done: int, total: int | None) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=total)
        if done % BAR_EVERY == 0 or done == total or total is None:
            self._bar.update(self._tasks[phase], completed=done, total=total)


class _CountLines:
    """At most one line every few seconds."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._said_s = time.monotonic()

    def show(self, phase: str, done: int, total: int | None) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s < COUNT_LINE_EVERY_S:
            return
        self._said_s = now_s
        of = "" if total is None else f" of {total}"
        say(f"{self._command}: {phase}: {done}{of}", err=True)
