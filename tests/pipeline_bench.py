"""A pipeline among fakes: time is a number, workers do what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bridge.errors import BridgeError, SideError, side_error
from bridge.events import Event, Progress, Summary, Workforce
from bridge.feed.gaps import Ask
from bridge.feed.pages import MovePage
from bridge.feed.sources import GivenMoves, MoveSource
from bridge.ledger.records import UNKNOWN_VERSIONS, Entry
from bridge.model import (
    Action,
    Delivered,
    Endpoint,
    Job,
    Move,
    Outcome,
    ServerInfo,
    SideFailed,
    SideName,
    SideProblem,
    StageTimes,
    Task,
)
from bridge.pipeline.ask_for_other_instances import FailedFile
from bridge.pipeline.failure_policy import Others
from bridge.pipeline.holds import Hold
from bridge.pipeline.journal import CommandJournal, Journal
from bridge.pipeline.loop import Pace, Pipeline
from bridge.pipeline.parked_retries import ParkedRetries
from bridge.pipeline.runtime import Answered, Found, Message, TaskDone
from bridge.pipeline.urgency import AskUrgent

JOB = Job(Endpoint(SideName.SOURCE, "http://a"), Endpoint(SideName.TARGET, "http://b"), "1.2")
DELIVERED = Delivered("Success", Action.UNCHANGED, "1.2", "1.2", "1", 10, 10, StageTimes())
STEPS_MAX = 20_000


def down(
    side: SideName = SideName.TARGET,
    problem: SideProblem = SideProblem.UNREACHABLE,
    *,
    specific: bool = False,
) -> SideFailed:
    return SideFailed(side, problem, "It is down.", specific=specific)


class Stuck(Exception):
    """The pipeline did not come to an end."""


@dataclass
class Time:
    """The clock and the inbox: waiting for a message makes the time pass."""

    s: float = 0.0
    messages: list[Message] = field(default_factory=list)
    due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    steps: int = 0
    enough: list[int] = field(default_factory=list)
    """What was asked for. Here nobody has to be woken: what is there is enough."""

    def now_s(self) -> float:
        return 1_000_000.0 + self.s

    def steady_s(self) -> float:
        return self.s

    def at(self, delay_s: float, deed: Callable[[], None]) -> None:
        self.due.append((self.s + delay_s, len(self.due) + self.steps, deed))

    def put(self, message: Message) -> None:
        self.messages.append(message)

    def take(self, timeout_s: float, *, enough: int = 1) -> list[Message]:
        self.enough.append(enough)
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Stuck(f"after {self.s:.0f} s")
        until = self.s + timeout_s
        while not self.messages:
            ready = [entry for entry in self.due if entry[0] <= until]
            if not ready:
                self.s = until
                break
            first = min(ready, key=lambda entry: entry[:2])
            self.due.remove(first)
            self.s = max(self.s, first[0])
            first[2]()
        taken, self.messages = self.messages, []
        return taken


class Free:
    """A throttle that holds nothing."""

    def hold(self) -> Hold:
        return Hold.NONE

    def hold_s(self) -> float:
        return 0.0

    def started(self) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


class Recording:
    """A ledger in memory that can be made to fail."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.error: BridgeError | None = None

    def commit(self, entry: Entry) -> None:
        if self.error is not None:
            raise self.error
        self.entries.append(entry)

    @property
    def settled(self) -> set[str]:
        return {name for entry in self.entries for name in entry.unparked}

    @property
    def parked(self) -> dict[str, Any]:
        return {p.move.instance_id: p for entry in self.entries for p in entry.parked}


class Bench:
    """Everything around one pipeline.

    ``script`` maps instances to their outcomes, in order; the last repeats; others arrive.
    ``work_s`` is how long an attempt takes. ``probe_errors`` are raised by the sides' probes.
    """

    def __init__(self, *, work_s: float = 0.1, window: int = 4, **pace: Any) -> None:
        self.time = Time()
        self.work_s = work_s
        self.script: dict[str, list[Outcome]] = {}
        self.holding: set[str] = set()
        self.workers = Workforce(threads=2, workers=2)
        self.running: dict[int, Task] = {}
        self.started: list[str] = []
        self.most_running = 0
        self.pages_at: list[float] = []
        self.probe_errors: dict[SideName, SideError] = {}
        self.events: list[Event] = []
        self.progress: list[Progress] = []
        self.reported_at: list[float] = []
        self.ledger = Recording()
        self.summary = Summary()
        self.pace = Pace(window=window, **pace)
        self.lost: list[str] = []
        self.settled: list[str] = []
        self.given_back = ""
        self.ask_for_another: Callable[[FailedFile], Others] | None = None
        self.retries: ParkedRetries | None = None
        self.tried_by = UNKNOWN_VERSIONS
        self.job_now: Callable[[], Job] | None = None
        self.ask_urgent: AskUrgent | None = None

    def pipeline(
        self, moves: MoveSource | Iterable[str], *, journal: Journal | None = None
    ) -> Pipeline:
        source = (
            moves
            if hasattr(moves, "next_page")
            else GivenMoves([Move(name) for name in moves], page_size=100)
        )
        self.moves: Any = source
        return Pipeline(
            job=JOB,
            pace=self.pace,
            moves=self,
            journal=journal or CommandJournal(self.ledger),
            executor=self,
            background=self,
            inbox=self.time,
            clock=self.time,
            observer=self,
            probes={side: partial(self.probe, side) for side in SideName},
            chance=lambda: 1.0,
            throttle=Free(),
            summary=self.summary,
            ask_for_another=self.ask_for_another,
            lost=self.lost,
            settled=self.settled,
            given_back=lambda: self.given_back,
            retries=self.retries,
            tried_by=self.tried_by,
            job_now=self.job_now,
            ask_urgent=self.ask_urgent,
        )

    def run(self, moves: MoveSource | Iterable[str], *, journal: Journal | None = None) -> Summary:
        self.pipeline(moves, journal=journal).run()
        return self.summary

    def happened(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def bring_down(self, side: SideName, problem: SideProblem = SideProblem.UNREACHABLE) -> None:
        self.probe_errors[side] = side_error(side, problem, "It is down.")

    # What the pipeline sees

    def next_page(self) -> MovePage:
        self.pages_at.append(self.time.s)
        page: MovePage = self.moves.next_page()
        return page

    def look_back(self) -> MovePage:
        page: MovePage = self.moves.look_back()
        return page

    def ask_again(self, ask: Ask) -> MovePage:
        page: MovePage = self.moves.ask_again(ask)
        return page

    def newest(self, *, ahead: bool) -> MovePage:
        page: MovePage = self.moves.newest(ahead=ahead)
        return page

    def workforce(self) -> Workforce:
        return self.workers

    def submit(self, task: Task) -> None:
        name = task.move.instance_id
        self.started.append(name)
        self.running[task.number] = task
        self.most_running = max(self.most_running, len(self.running))
        if name not in self.holding:
            self.time.at(self.work_s, lambda: self.finish(task))

    def finish(self, task: Task) -> None:
        """End a task as the script says."""
        del self.running[task.number]
        outcomes = self.script.get(task.move.instance_id, [DELIVERED])
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        self.time.put(TaskDone(task, outcome))

    def call(self, name: str, function: Callable[[], Found]) -> None:
        def answer() -> None:
            try:
                self.time.put(Answered(name, value=function()))
            except BridgeError as exc:
                self.time.put(Answered(name, error=exc))

        self.time.at(0.001, answer)

    def close(self) -> None: ...

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.reported_at.append(self.time.now_s())

    def probe(self, side: SideName) -> ServerInfo:
        if side in self.probe_errors:
            raise self.probe_errors[side]
        return ServerInfo(f"1.0-{side}", 1, has_extended_changes=False)
