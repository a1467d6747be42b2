"""What follows from the end of a task: settled, tried again, parked, or a server is blamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.core.events import InstanceParked, InstanceRetried, Observer, Settled, WorkerLost
from bridge.core.model import (
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    Skipped,
)
from bridge.core.policy import (
    REFUSALS,
    Defer,
    Limits,
    Park,
    PauseSide,
    RetryLater,
    Settle,
    decide,
)
from bridge.entry import Attempts, Kept, Parked
from bridge.journal import Journal
from bridge.runtime import Clock
from bridge.servers import Servers
from bridge.summary import Summary
from bridge.window import Item, Window

WORKER_LOSSES = (Reason.WORKER_DIED, Reason.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Accusation:
    """A suspect failed while it was alone: whether the server died of it, a probe will tell."""

    item: Item
    failure: SideFailed


class Endings:
    """Carries out what the policy decides of each outcome.

    ``chance`` yields numbers from 0 to 1, to spread retries. ``summary`` is counted into.
    """

    def __init__(
        self,
        *,
        job: Job,
        limits: Limits,
        window: Window,
        servers: Servers,
        journal: Journal,
        observer: Observer,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._job = job
        self._limits = limits
        self._window = window
        self._servers = servers
        self._journal = journal
        self._observer = observer
        self._clock = clock
        self._chance = chance
        self.summary = Summary()
        self.accusation: Accusation | None = None
        self.missed: list[tuple[Item, Skipped]] = []
        """The source lacks them: a look at the feed will tell whether to believe it."""
        self.changed_at: dict[int, str] = {}
        """Of what is not settled, by sequence."""
        self.refusal: SideFailed | ExecutorFailed | None = None
        """The last deferral of one instance alone."""
        self.last_progress_at = clock.now_s()

    @property
    def open(self) -> int:
        """How many are neither settled nor in the window."""
        return len(self.missed) + (self.accusation is not None)

    def judge(self, item: Item, outcome: Outcome) -> None:
        """Decide what follows, and see to it."""
        if isinstance(outcome, InstanceFailed) and outcome.reason in WORKER_LOSSES:
            self._observer.on_event(WorkerLost(item.move, outcome))
        if isinstance(outcome, SideFailed) and outcome.begun and item is self._window.alone:
            self.accusation = Accusation(item, outcome)
            self._servers.fail(outcome, ask_at_once=True)
            return
        decision = decide(
            outcome,
            attempts=item.attempts,
            limits=self._limits,
            refusals=item.refusals,
            served_others=self._served_others(item, outcome),
            chance=self._chance(),
        )
        self._note_service(outcome)
        match decision:
            case Settle() if isinstance(outcome, Skipped) and outcome.reason is Reason.GONE:
                self.missed.append((item, outcome))
            case Settle():
                self._settle(item, outcome)
            case Park(reason=reason, message=message, attempts=attempts):
                self._park(item, outcome, reason, message, attempts)
            case RetryLater(after_s=after_s, attempts=attempts):
                self._retry(item, outcome, after_s, attempts)
            case Defer(after_s=after_s):
                item.refusals += 1
                self.refusal = outcome if isinstance(outcome, SideFailed | ExecutorFailed) else None
                self._retry(item, outcome, after_s, item.attempts)
            case PauseSide(side=side):
                self._hold(item, outcome, side)

    def _served_others(self, item: Item, outcome: Outcome) -> bool:
        if not isinstance(outcome, SideFailed) or item.served_before is None:
            return False
        return self._servers.served_count(outcome.side) > item.served_before

    def _note_service(self, outcome: Outcome) -> None:
        """Note which servers did their part, and open their gates."""
        served: tuple[SideName, ...] = ()
        match outcome:
            case Delivered():
                served = (SideName.SOURCE, SideName.TARGET)
            case InstanceFailed(reason=reason) if reason not in WORKER_LOSSES:
                served = (SideName.SOURCE,)
            case Skipped() | SideFailed(side=SideName.TARGET):
                served = (SideName.SOURCE,)
            case _:
                pass
        self._servers.serve(served)

    def _settle(self, item: Item, outcome: Outcome) -> None:
        if isinstance(outcome, Delivered):
            if outcome.already_there:
                self.summary.already_there += 1
            else:
                self.summary.delivered += 1
        elif isinstance(outcome, Skipped):
            self.summary.skipped[outcome.reason] += 1
        self._journal.settle(item.move, None, self._kept(item, outcome))
        self._observer.on_event(Settled(item.move, outcome, item.attempts + 1))
        self._progressed(item)

    def settle_missed(self, count: int) -> None:
        """Believe that instances were deleted, now that the source is known to be the same one.

        A source that has lost its disk for a moment, or another one at its address, lacks them too,
        and may have been itself again when we looked. So the source is asked twice for an
        instance, and is looked at after each time.
        """
        confirmed, self.missed = self.missed[:count], self.missed[count:]
        for item, outcome in confirmed:
            if item.missed:
                self._settle(item, outcome)
            else:
                item.missed = True
                self._window.add([item])

    def _kept(self, item: Item, outcome: Outcome) -> Kept | None:
        """What to remember of a proved delivery, so that the source may let go of it later."""
        if not (self._job.keeps_evidence and isinstance(outcome, Delivered)):
            return None
        return Kept(
            instance_id=item.move.instance_id,
            source_md5=outcome.source_md5,
            target_md5=outcome.target_md5,
            delivered_at=self._clock.now_s(),
        )

    def _park(
        self, item: Item, outcome: Outcome, reason: Reason, message: str, attempts: int
    ) -> None:
        now = self._clock.now_s()
        known = outcome if isinstance(outcome, InstanceFailed) else None
        parked = Parked(
            move=item.move,
            reason=reason,
            message=message,
            attempts=attempts,
            first_failed_at=item.first_failed_at or now,
            parked_at=now,
            source_syntax=known.source_syntax if known else "",
            sop_instance_uid=known.sop_instance_uid if known else "",
        )
        self.summary.parked[reason] += 1
        self._journal.settle(item.move, parked)
        event = InstanceParked(
            item.move, reason, message, attempts, parked.source_syntax, parked.sop_instance_uid
        )
        self._observer.on_event(event)
        self._progressed(item)

    def _progressed(self, item: Item) -> None:
        self.last_progress_at = self._clock.now_s()
        if item.move.sequence is not None:
            self.changed_at.pop(item.move.sequence, None)

    def _retry(self, item: Item, outcome: Outcome, after_s: float, attempts: int) -> None:
        item.attempts = attempts
        if attempts:
            item.first_failed_at = item.first_failed_at or self._clock.now_s()
            self._journal.spend(item.move, Attempts(attempts, item.first_failed_at))
        if isinstance(outcome, SideFailed):
            item.served_before = self._servers.served_count(outcome.side)
        self._observer.on_event(InstanceRetried(item.move, outcome, attempts, after_s))
        due_s = self._clock.steady_s() + after_s
        self._window.delay(item, due_s)

    def _hold(self, item: Item, outcome: Outcome, side: SideName) -> None:
        if not isinstance(outcome, SideFailed):
            raise TypeError("only a failed side pauses a side")
        item.outages += outcome.begun
        if outcome.specific or item.suspect or outcome.problem in REFUSALS:
            # Perhaps this instance is the trouble: let others be tried before it.
            item.served_before = self._servers.served_count(side)
            self._window.add([item])
        else:
            self._window.add_first([item])
        self._servers.fail(outcome)

    def take_verdict(self, side: SideName, *, died: bool) -> None:
        """Decide about a suspect that failed alone, now that a probe has told how the server is."""
        accusation = self.accusation
        if accusation is None or accusation.failure.side is not side:
            return
        self.accusation = None
        item, failure = accusation.item, accusation.failure
        decision = decide(
            failure,
            attempts=item.attempts,
            limits=self._limits,
            served_others=self._served_others(item, failure),
            alone=True,
            died=died,
            chance=self._chance(),
        )
        item.served_before = self._servers.served_count(side)
        match decision:
            case Park(reason=reason, message=message, attempts=attempts):
                text = f"The {side} died while handling it: {message}" if died else message
                self._park(item, failure, reason, text, attempts)
            case RetryLater(after_s=after_s, attempts=attempts):
                self._retry(item, failure, after_s, attempts)
            case _:
                self._window.add([item])
