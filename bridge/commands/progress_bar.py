"""How far a command is: a bar with the time left on a terminal, now and then a line otherwise.

All of it on stderr. What else is written there meanwhile, log lines included, stands above the bar.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment

from bridge import events
from bridge.commands.output import on_terminal, say
from bridge.commands.progress_line import Pace, Position, as_text, line_of
from bridge.errors import BridgeError
from bridge.events import (
    Event,
    InstanceParked,
    ListCompared,
    Settled,
    VerificationWorks,
    Verified,
)
from bridge.log import log_through

LINE_EVERY_S = 5.0
REFRESHES_A_SECOND = 4


class Shown(Protocol):
    """Is told how far a phase is; ``bridge.checks.ask_both_servers.Show``, and what is parked."""

    def __call__(
        self,
        phase: str,
        done: int,
        total: int | None,
        /,
        instances: int | None = None,
        parked: int | None = None,
    ) -> None:
        """Take note of it."""


class MovesProgress:
    """An observer that shows how many of the moves that a command makes are finished.

    ``total``: so many moves; None where that is not known. Of a snapshot, those are counted too
    that the target holds already.
    """

    def __init__(self, show: Shown, phase: str, total: int | None = None) -> None:
        self._show = show
        self._phase = phase
        self._total = total
        self._passed_over = 0
        self.instances = 0
        self.parked = 0

    def on_event(self, event: Event) -> None:
        """Count the instances."""
        match event:
            case Settled():
                self.instances += 1
            case InstanceParked():
                self.instances += 1
                self.parked += 1
            case ListCompared(instances=instances, lacking=lacking):
                self._passed_over += instances - lacking
            case _:
                return
        self.show()

    def on_progress(self, progress: events.Progress) -> None:
        """Do nothing: the instances are counted."""

    def show(self) -> None:
        """Show how far it is."""
        done = self._passed_over + self.instances
        total = None if self._total is None else max(self._total, done)
        self._show(self._phase, done, total, instances=self.instances, parked=self.parked)


class RangeProgress(MovesProgress):
    """An observer that shows how far a range of sequences is done."""

    def __init__(self, show: Shown, phase: str, start: int) -> None:
        super().__init__(show, phase)
        self._start = start
        self._end = start
        self.next = start
        """The first change of the range that is not done, or the one behind it."""

    def begin(self, end: int) -> None:
        """Note the end of the range and show the start."""
        self._end = end
        self.show()

    def on_progress(self, progress: events.Progress) -> None:
        """Show the position."""
        if progress.checkpoint is not None:
            self.next = max(self._start, progress.checkpoint + 1)
            self.show()

    def show(self) -> None:
        """Show how far it is."""
        total = max(0, self._end - self._start + 1)
        done = min(self.next - self._start, total)
        self._show(self._phase, done, total, instances=self.instances, parked=self.parked)


class VerifyingProgress:
    """An observer that shows how far a verification is.

    ``held``: so many instances the source holds; None where it does not say.
    """

    def __init__(self, show: Shown, held: int | None) -> None:
        self._show = show
        self._held = held

    def on_event(self, event: Event) -> None:
        """Show how many instances are verified."""
        match event:
            case VerificationWorks(instances=int() as done):
                total = None if self._held is None else max(self._held, done)
                self._show("verifying", done, total)
            case Verified(instances=done):
                self._show("verifying", done, done)
            case _:
                pass

    def on_progress(self, progress: events.Progress) -> None:
        """Do nothing: a verification is no pipeline."""


class OnceProgress:
    """An observer that shows how far ``run --once`` is: a snapshot, then what the feed tells.

    ``held``: so many instances the source holds; None where it does not say.
    """

    def __init__(self, show: Shown, held: int | None) -> None:
        self._show = show
        self._snapshot = MovesProgress(show, "snapshot", held)
        self._following: RangeProgress | None = None
        self._phase = ""

    def on_event(self, event: Event) -> None:
        """Count the instances in the phase that is under way."""
        if self._following is not None:
            self._following.on_event(event)
        elif self._phase == "snapshot":
            self._snapshot.on_event(event)

    def on_progress(self, progress: events.Progress) -> None:
        """Show the position in the feed."""
        if progress.phase != "draining":
            self._phase = progress.phase
        if self._phase != "following" or progress.checkpoint is None:
            return
        if self._following is None and progress.last is not None:
            self._following = RangeProgress(self._show, "following", progress.checkpoint + 1)
            self._following.begin(progress.last)
        if self._following is not None:
            self._following.on_progress(progress)


@contextmanager
def showing(command: str) -> Iterator[Shown]:
    """Show how far a command is, on stderr: a bar for each phase, or lines without a terminal."""
    if not draws_bars():
        yield _Lines(command)
        return
    console = _Console(stderr=True)
    bars = _Bars()
    # Not stdout: what is printed there is a result, which may go into a file.
    with Live(
        bars, console=console, refresh_per_second=REFRESHES_A_SECOND, redirect_stdout=False
    ) as live:
        before = log_through(sys.stderr)
        try:
            yield bars
        finally:
            log_through(before)
            live.refresh()


@contextmanager
def counting(command: str) -> Iterator[Shown]:
    """Show how far a command is that only looks; where it is cut short, say how far it was."""
    last: list[Position] = []
    try:
        with showing(command) as shown:

            def show(
                phase: str,
                done: int,
                total: int | None,
                /,
                instances: int | None = None,
                parked: int | None = None,
            ) -> None:
                last[:] = [Position(phase, done, total)]
                shown(phase, done, total, instances=instances, parked=parked)

            yield show
    except (KeyboardInterrupt, BridgeError):
        for position in last:
            of = "" if position.total is None else f" of {position.total}"
            say(f"{command}: cut short at: {position.phase}, {position.done}{of}", err=True)
        say(f"{command}: it has changed nothing, and begins anew: {again()}", err=True)
        raise


def again() -> str:
    """Return the command line that this process was started with, for a shell."""
    return shlex.join(["orthanc-bridge", *sys.argv[1:]])


def draws_bars() -> bool:
    """Whether stderr is a terminal that can draw a line anew."""
    return on_terminal() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class _Console(Console):
    """A console that leaves the cursor alone: who kills the command must not lose theirs."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 (rich's)
        return False


class _Bars:
    """One line for each phase. Drawn by a thread of rich, as wide as the terminal is then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[Position, Pace]] = {}
        self._ended: dict[str, float] = {}

    def __call__(
        self,
        phase: str,
        done: int,
        total: int | None,
        /,
        instances: int | None = None,
        parked: int | None = None,
    ) -> None:
        position = Position(phase, done, total, instances, parked)
        now_s = time.monotonic()
        with self._lock:
            if phase not in self._phases:
                for other in self._phases:
                    self._ended.setdefault(other, now_s)
            pace = self._phases[phase][1] if phase in self._phases else Pace(now_s, position)
            self._phases[phase] = position, pace
            if position.ended:
                self._ended.setdefault(phase, now_s)
            else:
                self._ended.pop(phase, None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw; one column stays free, so that no terminal wraps."""
        width, now_s = options.max_width - 1, time.monotonic()
        with self._lock:
            phases = dict(self._phases)
            ended = dict(self._ended)
        for number, (phase, (position, pace)) in enumerate(phases.items()):
            at_s = ended.get(phase, now_s)
            pace.note(at_s, position)
            line = line_of(position, pace, now_s=at_s, width=width)
            if number:
                yield Segment.line()
            yield Segment(line.before)
            if line.bar:
                bar = ProgressBar(total=1.0, completed=position.share, width=line.bar)
                yield from console.render(bar, options.update(width=line.bar))
            yield Segment(line.after)


class _Lines:
    """At most one line every few seconds, and one at the end of a phase."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._said_s = time.monotonic()
        self._paces: dict[str, Pace] = {}
        self._said_end: set[str] = set()

    def __call__(
        self,
        phase: str,
        done: int,
        total: int | None,
        /,
        instances: int | None = None,
        parked: int | None = None,
    ) -> None:
        now_s = time.monotonic()
        position = Position(phase, done, total, instances, parked)
        pace = self._paces.setdefault(phase, Pace(now_s, position))
        pace.note(now_s, position)
        late = now_s - self._said_s >= LINE_EVERY_S
        if phase in self._said_end or not (late or (position.ended and instances is not None)):
            return
        self._said_s = now_s
        if position.ended:
            self._said_end.add(phase)
        named = "" if phase == self._command else f"{self._command}: "
        say(named + as_text(position, pace, now_s=now_s), err=True)
