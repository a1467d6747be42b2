"""The progress of a replay: a bar with ETA on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bridge.commands.output import on_terminal
from bridge.core import events
from bridge.core.events import Event, InstanceParked, Settled

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
        typer.echo(f"replay {100 * done // total}%: {text}, {spent_s:.0f} s{left}", err=True)
