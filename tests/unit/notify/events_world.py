"""A ledger, a source that tells of studies, and receivers: the world of events, without a network.

``Killed`` ends a life of the bridge at any of its steps: before, within and after each
transaction, and before and after a receiver has an event.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.events import Event, Progress
from bridge.feed.pages import NEW_INSTANCE
from bridge.ledger.outbox import EventLedger
from bridge.ledger.records import EndedAs, Entry, Notice, Parked, StudyNote
from bridge.model import Change, Gap, Move, Page, Reason, Study, StudyState
from bridge.notify.event_kinds import CHOICES, EventKind
from bridge.notify.sending import Sender
from bridge.notify.telling import Mailer, StudyWatch, Teller
from bridge.notify.ways import Sent
from bridge.pipeline.pacing import parse_daily
from bridge.retention.age_clock import AgeClock

EVERY_STEP_S = 1.0
STUDY = Study("1.2.840.1", "00000000-00000000-00000000-00000000-000000aa")


class Killed(BaseException):
    """The process is gone."""


def identifier(number: int) -> str:
    text = f"{number:040x}"
    return "-".join(text[start : start + 8] for start in range(0, 40, 8))


class Steps:
    """Counts what can be interrupted, and ends the life at step number ``last``."""

    def __init__(self, last: int | None = None) -> None:
        self.done = 0
        self._last = last

    def step(self) -> None:
        self.done += 1
        if self.done == self._last:
            raise Killed


class MortalLedger(EventLedger):
    """A ledger whose process may end at each edge of a transaction."""

    steps = Steps()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.steps.step()
        with super()._transaction():
            yield
            self.steps.step()
        self.steps.step()


@dataclass
class ManualClock:
    """Both clocks, moved by hand."""

    now: float = 1_800_000_000.0
    steady: float = 0.0

    def now_s(self) -> float:
        return self.now

    def steady_s(self) -> float:
        return self.steady

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds


@dataclass
class Source:
    """What the source says of its studies, and where its feed ends."""

    states: dict[str, StudyState] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    feed_end: int = 0
    rows: tuple[Change, ...] = ()
    """Of the feed, as far as they matter."""
    study_of: dict[str, str] | None = field(default_factory=dict)
    """By instance; None: it does not answer that."""
    asked: list[str] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    raises: Exception | None = None
    before_answer: Callable[[], None] = lambda: None

    def study_state(self, study_id: str) -> StudyState | None:
        self.asked.append(study_id)
        if self.raises is not None:
            raise self.raises
        return self.states.get(study_id)

    def last_change(self) -> Page:
        self.before_answer()
        return Page((), done=True, last=self.feed_end)

    def instances_of_study(self, study_id: str) -> list[str] | None:
        return self.held.get(study_id)

    def changes(self, since: int, limit: int) -> Page:
        found = [row for row in self.rows if row.sequence > since][:limit]
        last = found[-1].sequence if found else self.feed_end
        return Page(tuple(found), done=len(found) < limit, last=last)

    def studies_of(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        self.looked_up += instance_ids
        if self.study_of is None:
            return None
        return frozenset(self.study_of[one] for one in instance_ids if one in self.study_of)

    def arrive(self, number: int, sequence: int, study: Study = STUDY) -> None:
        """Let an instance come, with a row of its own."""
        row = Change(sequence, NEW_INSTANCE, identifier(number), "")
        self.rows, self.feed_end = (*self.rows, row), sequence
        if self.study_of is not None:
            self.study_of[identifier(number)] = study.orthanc_id


class Inbox:
    """A way out: what arrived, also twice. ``refuses``: so many attempts are refused first."""

    def __init__(self, name: str = "webhook", *, steps: Steps | None = None) -> None:
        self.name = name
        self.arrived: list[Notice] = []
        self.refuses = 0
        self.attempts = 0
        self.gone = False
        self._steps = steps or Steps()

    def send(self, notice: Notice) -> Sent:
        self._steps.step()
        self.attempts += 1
        if self.refuses > 0:
            self.refuses -= 1
            return Sent(taken=False, text="it answered 500", gone=self.gone)
        self.arrived.append(notice)
        self._steps.step()
        return Sent(taken=True, text="it answered 200")

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What arrived of a kind, each event once."""
        bodies = {one.event_id: json.loads(one.body) for one in self.arrived if one.kind == kind}
        return [body["data"] for body in bodies.values()]


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: Progress) -> None:
        """Ignore it."""


class World:
    """One bridge's events. What is not in the ledger is lost with each new life."""

    def __init__(self, path: Path, *, kinds: tuple[EventKind, ...] = CHOICES) -> None:
        self.path = path
        self.clock = ManualClock()
        self.source = Source()
        self.inboxes = [Inbox("webhook"), Inbox("notify-1")]
        self.codes: list[str] = []
        self.seen = Seen()
        self.looks = 0
        self.kinds = kinds
        self.numbers = iter(range(10_000))
        MortalLedger.steps = Steps()
        self.ledger: MortalLedger | None = None
        self.live()

    def live(self, steps: Steps | None = None) -> None:
        """Begin a life; it ends when ``steps`` says so."""
        steps = steps or Steps()
        MortalLedger.steps = steps
        for inbox in self.inboxes:
            inbox._steps = steps
        mailer = Mailer(
            [inbox.name for inbox in self.inboxes],
            self.kinds,
            bridge="b",
            clock=self.clock,
            new_id=lambda: f"event-{next(self.numbers)}",
        )
        self.watch = StudyWatch(
            self.source,
            mailer,
            look_at_feed=self._look,
            newest=lambda: self.source.feed_end,
            clock=self.clock,
        )
        self.teller = Teller(
            mailer,
            lambda: self.codes,
            fold_s=60.0,
            digest_at=parse_daily("07:00"),
            clock=self.clock,
        )
        age = AgeClock(now_s=self.clock.now_s, steady_s=self.clock.steady_s, boot_id=lambda: "boot")
        self.sender = Sender(
            self.inboxes, self.seen, clock=self.clock, age=age.now_s, chance=lambda: 1.0
        )
        if self.ledger is not None:
            self.ledger.close()
        self.ledger = MortalLedger(self.path)
        self.teller.begin(self.ledger)

    def _look(self, _: EventLedger) -> None:
        self.looks += 1

    def turn(self, seconds: float = EVERY_STEP_S) -> None:
        """Let time pass, then do what both threads do."""
        self.clock.pass_(seconds)
        if self.ledger is None:
            raise AssertionError("no life has begun")
        self.teller.turn(self.ledger)
        self.watch.turn(self.ledger)
        self.sender.turn(self.ledger)

    def turns(self, seconds: int) -> None:
        for _ in range(seconds):
            self.turn()

    def commit(self, entry: Entry) -> None:
        """Do as the pipeline: it does not die here."""
        with EventLedger(self.path) as ledger:
            ledger.commit(entry)

    def deliver(
        self,
        *numbers: int,
        ended: EndedAs = EndedAs.DELIVERED,
        study: Study = STUDY,
        checkpoint: int | None = None,
        gaps: tuple[Gap, ...] = (),
    ) -> None:
        """Let instances come to their ends, all of the feed up to ``checkpoint`` with them."""
        notes = tuple(
            StudyNote(study, identifier(number), ended, self.clock.now, 0.0) for number in numbers
        )
        parked = tuple(
            Parked(Move(identifier(n), n), Reason.UNDECODABLE, "why", 1, 1.0, 2.0)
            for n in (numbers if ended is EndedAs.PARKED else ())
        )
        unparked = tuple(identifier(n) for n in numbers if ended is EndedAs.DELIVERED)
        self.commit(
            Entry(
                studies=notes,
                parked=parked,
                unparked=unparked,
                checkpoint=checkpoint,
                gaps=gaps,
            )
        )

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What arrived of a kind: the same on each way."""
        first, *others = [inbox.told(kind) for inbox in self.inboxes]
        for other in others:
            assert sorted(map(str, other)) == sorted(map(str, first))
        return first
