"""The loop: moves -> window -> executor -> policy -> journal. All mutable state and control flow.

It does not react to events one by one but runs at its own pace: start what may start, wait for
messages, decide, write everything decided in one transaction, report.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridge.brake import Brake, Hold
from bridge.core.errors import (
    BridgeError,
    ConfigurationError,
    FeedWentBackwards,
    SideError,
    StateError,
)
from bridge.core.events import (
    Abandoned,
    Draining,
    FeedReset,
    InstanceParked,
    InstanceRetried,
    Observer,
    PageRead,
    Progress,
    Settled,
    StateFailed,
    StateRecovered,
    WorkerLost,
)
from bridge.core.looks import Looks
from bridge.core.model import (
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Move,
    Outcome,
    Reason,
    ServerInfo,
    SideFailed,
    SideName,
    Skipped,
    Task,
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
from bridge.feed import MovePage, MoveSource
from bridge.journal import Journal
from bridge.runtime import (
    Answered,
    Background,
    Clock,
    Inbox,
    Message,
    Poked,
    StopAsked,
    TaskDone,
)
from bridge.servers import Servers
from bridge.sides import failure_of
from bridge.summary import Summary
from bridge.window import Item, Window
from bridge.workers import Executor

SPREAD_MAX = 100_000
"""Sequences that reading may be ahead of the oldest unfinished one: memory stays bounded."""

CALM_S = 2.0
"""A suspect is sent only to servers that have been answering for so long."""

EXECUTOR_ADVICE = "Instances lost no attempt. Run orthanc-bridge doctor."

STATE_RETRY_S = 1.0
TICK_S = 1.0

PAGE = "feed"
WORKER_LOSSES = (Reason.WORKER_DIED, Reason.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how patient a pipeline is. ``patience_s`` None waits for ever.

    ``window`` 0: as many instances as keep the workers busy.
    """

    window: int = 0
    poll_interval_s: float = 1.0
    patience_s: float | None = None
    shutdown_timeout_s: float = 30.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class _Accusation:
    """A suspect failed while it was alone: whether the server died of it, a probe will tell."""

    item: Item
    failure: SideFailed


class Pipeline:
    """Brings every move of a source of moves to an end.

    Collaborators are interfaces: see runtime.py, journal.py, feed.py, workers.py, and servers.py
    for ``probes`` and ``chance``.
    """

    _numbers = itertools.count()
    """Shared by all pipelines of the process: what an earlier one abandoned may still end, in the
    same workers, and must not be taken for something of this one."""

    def __init__(
        self,
        *,
        job: Job,
        pace: Pace,
        moves: MoveSource,
        journal: Journal,
        executor: Executor,
        background: Background,
        inbox: Inbox,
        clock: Clock,
        observer: Observer,
        probes: Mapping[SideName, Callable[[], ServerInfo]],
        chance: Callable[[], float],
        brake: Brake,
        phase: str = "following",
    ) -> None:
        self._job = job
        self._pace = pace
        self._moves = moves
        self._journal = journal
        self._executor = executor
        self._background = background
        self._inbox = inbox
        self._clock = clock
        self._observer = observer
        self._chance = chance
        self._brake = brake
        self._phase = phase
        self._servers = Servers(
            probes=probes,
            background=background,
            clock=clock,
            observer=observer,
            chance=chance,
            pause_longest_s=pace.poll_interval_s,
        )
        self._crew = executor.crew()
        self._crew_failed_s: float | None = None
        self._window = Window(self._window_size())
        self._accusation: _Accusation | None = None
        self._missed: list[tuple[Item, Skipped]] = []
        self._confirming = 0
        self._changed_at: dict[int, str] = {}
        self._attempts = dict(journal.attempts())
        self._looks = Looks(pace.poll_interval_s)
        self._page_asked = False
        self._poke_noted = False
        self._page_failed: SideName | None = None
        self._ended = False
        self._done = False
        self._last: int | None = None
        self._drain_until_s: float | None = None
        self._state_error = ""
        self._executor_error = ""
        self._executor_failed_s = self._executor_failing_s = 0.0
        self._held = Hold.NONE
        self._refusal: SideFailed | None = None
        self._flush_due_s = 0.0
        self._failure: BridgeError | None = None
        self._last_progress_at = clock.now_s()
        self._able_since = self._last_progress_at
        self._was_busy = False
        self._feed_read_at: float | None = None
        self._summary = Summary()

    def run(self, summary: Summary) -> None:
        """Run until the moves end or a stop is asked for, counting into ``summary``.

        Raises FeedWentBackwards, StateError (with patience only) and, when patience ends,
        SourceError or TargetError; always after running instances have finished and all that is
        settled is written.
        """
        self._summary = summary
        while not self._finished():
            self._look_at_crew()
            self._fill_window()
            self._ask_for_page()
            if not self._draining:
                self._servers.probe()
            for message in self._inbox.take(self._idle_s(), enough=self._enough()):
                self._handle(message)
            self._flush()
            self._check_patience()
            self._report()
        self._abandon()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask for a drain; safe in any thread and in a signal handler."""
        self._inbox.put(StopAsked())

    def poke(self) -> None:
        """Say that there may be something new; safe in any thread.

        However often it is said, the loop hears of it once for each look that it begins.
        """
        if not self._poke_noted:
            self._poke_noted = True
            self._inbox.put(Poked())

    # What may start

    def _fill_window(self) -> None:
        now_s = self._clock.steady_s()
        window = self._window
        window.wake(now_s)
        if self._draining or self._state_error or window.alone or self._accusation:
            return
        self._held = self._brake.hold()
        if not self._crew.threads:
            return
        if window.suspects_turn(now_s) and self._servers.calm(CALM_S):
            if not window.under_way and self._servers.allow(0) and not self._held:
                self._start(window.start_suspect(now_s))
            return
        while window.can_start() and self._servers.allow(window.under_way) and not self._held:
            self._start(window.start_next())
            self._held = self._brake.hold()

    def _look_at_crew(self) -> None:
        """Let the window follow those who work: a cluster grows, shrinks and may be away."""
        self._crew = self._executor.crew()
        self._window.resize(self._window_size())
        if not self._crew.problem:
            self._crew_failed_s = None
        elif self._crew_failed_s is None:
            self._crew_failed_s = self._clock.steady_s()

    def _window_size(self) -> int:
        return self._pace.window or self._crew.depth * max(1, self._crew.threads)

    def _start(self, item: Item) -> None:
        # The same instance may be in the feed twice (deleted and sent again): the number keeps
        # the two apart.
        task = Task(item.move, self._job, item.number)
        item.started_at = self._clock.now_s()
        self._window.begin(item)
        self._brake.started()
        self._executor.submit(task)

    def _ask_for_page(self) -> None:
        if not self._may_ask():
            return
        now_s = self._clock.steady_s()
        if self._missed:
            self._page_asked = True
            self._confirming = len(self._missed)
            self._background.call(PAGE, self._moves.look_back)
        elif self._wants_page() and now_s >= self._looks.due_s:
            self._page_asked = True
            self._poke_noted = False  # before the look: whoever pokes from now on asks for another
            self._looks.begin(now_s)
            self._background.call(PAGE, self._moves.next_page)

    def _may_ask(self) -> bool:
        needed = {SideName.SOURCE, self._page_failed or SideName.SOURCE}
        return (
            not self._page_asked
            and not self._draining
            and not self._state_error
            and self._servers.reachable(needed)
        )

    def _wants_page(self) -> bool:
        return not self._ended and self._window.wants_more and self._journal.spread() < SPREAD_MAX

    def _idle_s(self) -> float:
        """Tell how long nothing needs doing unless a message comes, in seconds."""
        now_s = self._clock.steady_s()
        due = [now_s + (min(TICK_S, self._brake.hold_s()) if self._held else TICK_S)]
        wake_s = self._window.wake_s()
        if wake_s is not None and not self._draining:
            due.append(wake_s)
        if self._may_ask():
            due.extend([now_s] if self._missed else [])
            due.extend([self._looks.due_s] if self._wants_page() else [])
        if not self._draining:
            due.extend(self._servers.probe_due_s())
        if self._drain_until_s is not None:
            due.append(self._drain_until_s)
        if self._finished():
            return 0.0
        return max(0.0, min(due) - now_s)

    def _enough(self) -> int:
        """Tell how many ends of tasks are worth a turn: half of those that no worker has begun."""
        return max(1, (self._window.under_way - self._crew.threads) // 2)

    # What has happened

    def _handle(self, message: Message) -> None:
        match message:
            case TaskDone(task=task, outcome=outcome):
                item = self._window.end(task.number)
                if item is not None:
                    self._brake.ended(outcome)
                    self._judge(item, outcome)
                    self._window.alone = None
            case Answered(name=name) if name == PAGE:
                self._page_asked = False
                self._take_page(message)
            case Answered(name=name, error=error, value=value):
                on_trial = self._busy or self._page_failed == name
                info = value if isinstance(value, ServerInfo) else None
                self._servers.take_probe(SideName(name), error, info=info, on_trial=on_trial)
                self._take_verdict(SideName(name), died=error is not None)
            case StopAsked():
                self._summary.stopped = True
                self._drain()
            case Poked():
                self._looks.poke()

    def _take_page(self, answer: Answered) -> None:
        confirmed, self._confirming = self._confirming, 0
        match answer.error:
            case None:
                pass
            case SideError() as error:
                self._page_failed = error.side
                self._servers.fail(failure_of(error))
                return
            case FeedWentBackwards() as error:
                self._feed_reset(error)
                return
            case error:
                raise error
        page = answer.value if isinstance(answer.value, MovePage) else MovePage(())
        try:
            admission = self._journal.admit(page)
        except FeedWentBackwards as error:
            self._feed_reset(error)
            return
        if self._page_failed is not None:
            self._servers.open(self._page_failed)
            self._page_failed = None
        self._feed_read_at = self._clock.now_s()
        if page.last is not None:
            self._last = page.last
        items = [self._item(move) for move in admission.moves]
        if confirmed:
            self._window.add(items)
            self._settle_missed(confirmed)
        elif page.ahead:
            # Fresh arrivals go before the backlog.
            self._window.add_first(items)
        else:
            self._window.add(items)
            self._ended = page.ended
            self._done = page.done
            self._looks.end(self._clock.steady_s(), idle=page.done)
        self._summary.late += admission.late
        self._summary.missing += page.missing
        if admission.moves or page.missing:
            new, late = len(admission.moves), admission.late
            event = PageRead(new, late, page.frontier, page.missing)
            self._observer.on_event(event)

    def _item(self, move: Move) -> Item:
        spent = self._attempts.pop(move.instance_id, Attempts(0, 0.0))
        if move.sequence is not None:
            self._changed_at[move.sequence] = move.changed_at
        return Item(next(self._numbers), move, spent.attempts, spent.first_failed_at)

    def _feed_reset(self, error: FeedWentBackwards) -> None:
        self._observer.on_event(FeedReset(error.message))
        self._failure = error
        self._drain()

    def _judge(self, item: Item, outcome: Outcome) -> None:
        if isinstance(outcome, InstanceFailed) and outcome.reason in WORKER_LOSSES:
            self._observer.on_event(WorkerLost(item.move, outcome))
        if isinstance(outcome, SideFailed) and outcome.begun and item is self._window.alone:
            self._accusation = _Accusation(item, outcome)
            self._servers.fail(outcome, ask_at_once=True)
            return
        if not isinstance(outcome, ExecutorFailed):
            self._executor_error = ""
        else:
            now_s = self._clock.steady_s()
            if not self._executor_error:
                self._executor_error = outcome.message
                self._executor_failed_s = now_s
            # Up to this failure, not up to now: a task that is still under way may yet succeed.
            self._executor_failing_s = now_s - self._executor_failed_s
        decision = decide(
            outcome,
            attempts=item.attempts,
            limits=self._pace.limits,
            refusals=item.refusals,
            served_others=self._served_others(item, outcome),
            chance=self._chance(),
        )
        self._note_service(outcome)
        match decision:
            case Settle() if isinstance(outcome, Skipped) and outcome.reason is Reason.GONE:
                self._missed.append((item, outcome))
            case Settle():
                self._settle(item, outcome)
            case Park(reason=reason, message=message, attempts=attempts):
                self._park(item, outcome, reason, message, attempts)
            case RetryLater(after_s=after_s, attempts=attempts):
                self._retry(item, outcome, after_s, attempts)
            case Defer(after_s=after_s):
                item.refusals += 1
                self._refusal = outcome if isinstance(outcome, SideFailed) else None
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

    # What follows from it

    def _settle(self, item: Item, outcome: Outcome) -> None:
        if isinstance(outcome, Delivered):
            if outcome.already_there:
                self._summary.already_there += 1
            else:
                self._summary.delivered += 1
        elif isinstance(outcome, Skipped):
            self._summary.skipped[outcome.reason] += 1
        self._journal.settle(item.move, None, self._kept(item, outcome))
        self._observer.on_event(Settled(item.move, outcome, item.attempts + 1))
        self._progressed(item)

    def _settle_missed(self, count: int) -> None:
        """Believe that instances were deleted, now that the source is known to be the same one.

        A source that has lost its disk for a moment, or another one at its address, lacks them too,
        and may have been itself again when we looked. So the source is asked twice for an
        instance, and is looked at after each time.
        """
        confirmed, self._missed = self._missed[:count], self._missed[count:]
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
        self._summary.parked[reason] += 1
        self._journal.settle(item.move, parked)
        event = InstanceParked(
            item.move, reason, message, attempts, parked.source_syntax, parked.sop_instance_uid
        )
        self._observer.on_event(event)
        self._progressed(item)

    def _progressed(self, item: Item) -> None:
        self._last_progress_at = self._clock.now_s()
        if item.move.sequence is not None:
            self._changed_at.pop(item.move.sequence, None)

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

    def _take_verdict(self, side: SideName, *, died: bool) -> None:
        """Decide about a suspect that failed alone, now that a probe has told how the server is."""
        accusation = self._accusation
        if accusation is None or accusation.failure.side is not side:
            return
        self._accusation = None
        item, failure = accusation.item, accusation.failure
        decision = decide(
            failure,
            attempts=item.attempts,
            limits=self._pace.limits,
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

    # Writing down, stopping, reporting

    def _flush(self) -> None:
        if self._state_error and self._clock.steady_s() < self._flush_due_s:
            return
        try:
            self._journal.flush()
        except StateError as error:
            self._flush_due_s = self._clock.steady_s() + STATE_RETRY_S
            if not self._state_error:
                self._observer.on_event(StateFailed(str(error)))
            self._state_error = str(error)
            if self._pace.patience_s is not None:
                self._fail(error)
            return
        if self._state_error:
            self._state_error = ""
            self._observer.on_event(StateRecovered())

    def _check_patience(self) -> None:
        if self._pace.patience_s is None or self._failure is not None:
            return
        error = self._servers.down_longer_than(self._pace.patience_s)
        if error is not None:
            self._fail(error)
        if self._crew_failed_s is not None and not self._draining:
            if self._clock.steady_s() - self._crew_failed_s >= self._pace.patience_s:
                self._fail(ConfigurationError(self._crew.message, advice=self._crew.advice))
            return
        if self._executor_error and self._executor_failing_s >= self._pace.patience_s:
            self._fail(ConfigurationError(self._executor_error, advice=EXECUTOR_ADVICE))

    def _fail(self, error: BridgeError) -> None:
        self._failure = self._failure or error
        self._drain()

    @property
    def _draining(self) -> bool:
        return self._drain_until_s is not None

    def _drain(self) -> None:
        if not self._draining:
            self._drain_until_s = self._clock.steady_s() + self._pace.shutdown_timeout_s
            self._observer.on_event(Draining(self._window.under_way))

    def _finished(self) -> bool:
        if self._drain_until_s is not None:
            late = self._clock.steady_s() >= self._drain_until_s
            return late or not self._window.under_way
        return self._ended and not self._busy and not self._state_error

    @property
    def _busy(self) -> bool:
        """Whether there is anything unfinished."""
        return bool(self._accusation or self._missed or not self._window.empty)

    def _abandon(self) -> None:
        self._summary.abandoned += self._window.under_way
        if self._window.under_way:
            self._observer.on_event(Abandoned(self._window.under_way))
        self._report()

    def _note_hindrance(self) -> None:
        """Begin anew to count how long it has had work, or none, with nothing in its way."""
        up = all(self._servers.view(side).up for side in SideName)
        if self._held or self._state_error or not up or self._busy != self._was_busy:
            self._able_since = self._clock.now_s()
        self._was_busy = self._busy

    def _report(self) -> None:
        self._note_hindrance()
        oldest = self._journal.oldest_open()
        progress = Progress(
            checkpoint=self._journal.checkpoint,
            last=self._last,
            caught_up=self._done and not self._busy,
            oldest_open=oldest,
            oldest_changed_at=self._changed_at.get(oldest, "") if oldest is not None else "",
            waiting=self._window.waiting + (self._accusation is not None) + len(self._missed),
            delayed=self._window.delayed,
            in_flight=tuple(self._window.in_flight()),
            source=self._servers.view(SideName.SOURCE),
            target=self._servers.view(SideName.TARGET),
            state_error=self._state_error,
            executor_error=self._executor_error,
            crew=self._crew,
            hold=self._held,
            refused=self._window.refused,
            refusal=self._refusal.message if self._refusal else "",
            refusal_advice=self._refusal.advice if self._refusal else "",
            last_progress_at=self._last_progress_at,
            able_since=self._able_since,
            feed_read_at=self._feed_read_at,
            phase="draining" if self._draining else self._phase,
        )
        self._observer.on_progress(progress)
