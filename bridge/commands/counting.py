"""The progress of commands that count: a bar on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bridge.commands.output import on_terminal

LINE_EVERY_S = 5.0
BAR_EVERY = 50
"""Counts between two updates of the bar: updating it costs more than some of what is counted."""

Show = Callable[[str, int, int | None], None]
"""Is told the phase, what is done of it, and how much it is if that is known."""


@contextmanager
def counting(command: str) -> Iterator[Show]:
    """Show how far a command is, on stderr."""
    if not on_terminal():
        yield _Lines(command).show
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


class _Lines:
    """At most one line every few seconds."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._said_s = time.monotonic()

    def show(self, phase: str, done: int, total: int | None) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s < LINE_EVERY_S:
            return
        self._said_s = now_s
        of = "" if total is None else f" of {total}"
        typer.echo(f"{self._command}: {phase}: {done}{of}", err=True)
