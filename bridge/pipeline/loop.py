"""The loop: moves -> window -> executor -> policy -> journal.

It does not react to each event alone. It works in turns: start what may start, wait for messages,
decide, write everything decided in one transaction, report.

Each piece of state has one owner, which alone changes it. The others ask it, or are given values;
``tests/unit/pipeline/test_state_owners.py`` holds this.

state                                     owner          who reads it, and how
----------------------------------------  -------------  -------------------------------------------
a stop, a failure, the state's error,     Pipeline       Progress
since when nothing was in the way
how many moves ended in which way         Summary        it counts events; who gave it reads it
what waits, is delayed, is under way      Window         Pipeline: can_start, under_way, empty;
                                                         Intake: wants_more
the suspect that is under way alone       Window         Pipeline: closed; the end of a task says
                                                         it (Ended.alone), Outcomes is given it
what one instance has been through        WorkItem       it is in one place at a time: the Window
                                                         or Outcomes; it changes by its methods
what the source lacks, until the feed     Missed, in     Intake: wants_look_back, begin_look_back,
was looked at again                       Outcomes       end_look_back
failures that a server is asked about     Outcomes       Pipeline: asking, open
what a server refuses                     Outcomes       Pipeline: told, refused_count
how often a server failed at one that is  Refusals,      Pipeline: put_off
parked for it                             in Outcomes
when unsettled changes were made          Outcomes       Intake: expect; Pipeline: changed_at
what was delivered lately and came back   Deliveries,    Pipeline: delivered_before,
                                          in Outcomes    park_if_circling, came_back
what the source of moves is being asked,  Intake         Pipeline: ended, done, last, read_at,
when it is asked next, pokes                             failed_side
whether a server may be used              Gate, in       Pipeline and Intake: allow, reachable,
                                          Servers        view; Outcomes: on_trial, served_count
who can work                              Available-     Pipeline: workforce, error, trouble
                                          Workers
pause, quiet hours, rates                 Throttle       Pipeline: hold, before each start
which parked instance is tried again,     ParkedRetries  Pipeline: take, over; Outcomes: end
and when the next one may be
what is to be asked for, whether it is    Urgency        Pipeline: look, take; Intake: expect
urgent
the rules of now                          RulesWatch     Pipeline: job_now, at each turn
sequences, checkpoint, gaps, notes        Journal        Intake: admit; Outcomes: settle, spend;
                                                         Pipeline: flush, checkpoint, oldest_open
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bridge.errors import BridgeError, FeedWentBackwards, StateError
from bridge.events import (
    Abandoned,
    Draining,
    Event,
    FeedDoubted,
    Observer,
    Progress,
    StateFailed,
    StateRecovered,
    Summary,
)
from bridge.feed.sources import MoveSource
from bridge.ledger.records import UNKNOWN_VERSIONS, TriedBy
from bridge.model import Job, ServerInfo, SideName, Task
from bridge.pipeline.ask_for_other_instances import FailedFile
from bridge.pipeline.available_workers import AvailableWorkers, Executor
from bridge.pipeline.failure_policy import Limits, Others
from bridge.pipeline.holds import Hold, Throttle
from bridge.pipeline.intake import FEED, Intake
from bridge.pipeline.journal import Journal
from bridge.pipeline.outcomes import OTHERS, Outcomes
from bridge.pipeline.parked_policy import RETRIES
from bridge.pipeline.parked_retries import ParkedRetries
from bridge.pipeline.runtime import (
    Answered,
    Background,
    Clock,
    Inbox,
    Message,
    Poked,
    StopAsked,
    TaskDone,
)
from bridge.pipeline.server_gates import Servers
from bridge.pipeline.urgency import URGENT, AskUrgent, Urgency
from bridge.pipeline.window import Window, WorkItem

CALM_S = 2.0
"""A suspect is sent only to servers that have answered for so long."""

STATE_RETRY_S = 1.0
TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how patient a pipeline is. With ``patience_s`` None it waits for ever.

    ``window`` 0: as many instances are under way as keep the workers busy.
    """

    window: int = 0
    poll_interval_s: float = 1.0
    patience_s: float | None = None
    shutdown_timeout_s: float = 30.0
    limits: Limits = field(default_factory=Limits)


class Counting:
    """An observer that counts what happens, and passes it on."""

    def __init__(self, observer: Observer, summary: Summary) -> None:
        self._observer = observer
        self._summary = summary

    def on_event(self, event: Event) -> None:
        """Count an event, and pass it on."""
        self._summary.count(event)
        self._observer.on_event(event)

    def on_progress(self, progress: Progress) -> None:
        """Pass it on."""
        self._observer.on_progress(progress)


class Pipeline:
    """Brings every move of a source of moves to an end.

    Collaborators are interfaces: see runtime.py, journal.py, feed/follow.py, worker/pool.py,
    server_gates.py for ``probes`` and ``chance``, and outcomes.py for ``ask_for_another``,
    ``lost``, ``settled``, ``given_back`` and ``forgotten_before``. ``retries`` hands out parked
    instances to try again; None for none of them.
    ``job_now`` returns the job with the rules of now; None where they stay as they are.
    ``ask_urgent`` tells which instances go before others; None for none.
    """

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
        throttle: Throttle,
        summary: Summary,
        ask_for_another: Callable[[FailedFile], Others] | None = None,
        lost: Iterable[str] = (),
        settled: Iterable[str] = (),
        given_back: Callable[[], str] = lambda: "",
        forgotten_before: float | None = None,
        retries: ParkedRetries | None = None,
        tried_by: TriedBy = UNKNOWN_VERSIONS,
        phase: str = "following",
        job_now: Callable[[], Job] | None = None,
        ask_urgent: AskUrgent | None = None,
    ) -> None:
        self._job = job
        self._job_now = job_now
        self._retries = retries
        self._pace = pace
        self._journal = journal
        self._executor = executor
        self._inbox = inbox
        self._clock = clock
        self._summary = summary
        self._observer: Observer = Counting(observer, summary)
        self._throttle = throttle
        self._phase = phase
        self._servers = Servers(
            probes=probes,
            background=background,
            clock=clock,
            observer=self._observer,
            chance=chance,
            pause_longest_s=pace.poll_interval_s,
        )
        self._workers = AvailableWorkers(executor, clock)
        self._window = Window(self._window_size())
        self._outcomes = Outcomes(
            job=job,
            limits=pace.limits,
            window=self._window,
            servers=self._servers,
            journal=journal,
            background=background,
            observer=self._observer,
            clock=clock,
            chance=chance,
            ask_for_another=ask_for_another,
            lost=lost,
            settled=settled,
            given_back=given_back,
            forgotten_before=forgotten_before,
            retries=retries,
            tried_by=tried_by,
        )
        self._urgency = Urgency(ask_urgent, background)
        self._intake = Intake(
            moves=moves,
            journal=journal,
            window=self._window,
            servers=self._servers,
            outcomes=self._outcomes,
            urgency=self._urgency,
            background=background,
            clock=clock,
            observer=self._observer,
            poll_interval_s=pace.poll_interval_s,
        )
        self._drain_until_s: float | None = None
        self._state_error = ""
        self._hold = Hold.NONE
        self._flush_due_s = 0.0
        self._failure: BridgeError | None = None
        self._able_since = clock.now_s()
        self._was_busy = False

    def run(self) -> None:
        """Run until the moves end or a stop is asked for.

        Raises FeedWentBackwards, StateError (with patience only) and, when patience ends,
        SourceError, TargetError or InstancesRefused; always after running instances have finished
        and all that is settled is written.
        """
        while not self._finished():
            # A cluster grows and shrinks: the window follows those who work.
            self._workers.refresh()
            self._window.resize(self._window_size())
            self._fill_window()
            if self._may_read:
                self._intake.ask()
                if self._servers.reachable([SideName.SOURCE]):
                    self._urgency.look(wanted=self._job.has_urgent)
            if not self._draining:
                if self._window.new:
                    self._servers.hurry()
                self._servers.probe()
            for message in self._inbox.take(self._idle_s(), enough=self._enough()):
                self._handle(message)
            if not self._busy:
                self._servers.idle(but=self._intake.failed_side)
            self._flush()
            self._check_patience()
            self._report()
        self._abandon()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask for a drain; safe in any thread."""
        self._inbox.put(StopAsked())

    def poke(self) -> None:
        """Say that there may be something new; safe in any thread."""
        if self._intake.note_poke():
            self._inbox.put(Poked())

    # What may start

    def _fill_window(self) -> None:
        now_s = self._clock.steady_s()
        window = self._window
        window.wake(now_s)
        if self._job_now is not None:
            self._job = self._job_now()
        # Asked even if nothing may start: otherwise a hold that is over would wake the loop again
        # and again.
        self._hold = self._throttle.hold()
        if self._draining or self._state_error or window.closed or self._outcomes.asking:
            return
        if not self._workers.workforce.threads:
            return
        if window.suspects_turn(now_s) and self._servers.calm(CALM_S):
            if not window.under_way and self._servers.allow(0) and not self._hold:
                self._start(window.start_suspect(now_s))
            return
        while window.can_start() and self._servers.allow(window.under_way) and not self._hold:
            item = window.start_next(on_trial=not self._servers.allow(1))
            if self._outcomes.park_if_circling(item) or self._outcomes.put_off(item):
                continue
            self._start(item)
            self._hold = self._throttle.hold()
        self._try_parked()

    def _try_parked(self) -> None:
        """Try one parked instance again while nothing else waits: new arrivals go before it."""
        window, workforce = self._window, self._workers.workforce
        caught_up = self._intake.done or self._intake.ended
        if self._retries is None or not caught_up or window.waiting or self._hold:
            return
        idle = window.under_way < workforce.threads
        if not idle or not self._servers.allow(window.under_way + 1):
            return
        parked = self._retries.take()
        if parked is None:
            return
        window.add([self._intake.item_of(parked, alone=RETRIES[parked.reason].alone)])
        if not window.suspects_turn(self._clock.steady_s()):
            self._start(window.start_next())

    def _window_size(self) -> int:
        workforce = self._workers.workforce
        return self._pace.window or workforce.depth * max(1, workforce.threads)

    def _start(self, item: WorkItem) -> None:
        # The same instance may be in the feed twice (deleted and sent again). The number tells the
        # two apart, and the window starts the second one after the first one has ended.
        again = self._outcomes.delivered_before(item)
        task = Task(item.move, self._job, item.number, again=again)
        item.start(self._clock.now_s(), rules=self._job.rules_generation)
        self._window.begin(item)
        self._throttle.started()
        self._executor.submit(task)

    @property
    def _may_read(self) -> bool:
        return not self._draining and not self._state_error

    def _idle_s(self) -> float:
        """Tell for how many seconds there is nothing to do unless a message comes."""
        now_s = self._clock.steady_s()
        due = [now_s + (min(TICK_S, self._throttle.hold_s()) if self._hold else TICK_S)]
        wake_s = self._window.wake_s()
        if wake_s is not None and not self._draining:
            due.append(wake_s)
        if self._may_read:
            due.extend(self._intake.due_s())
        if not self._draining:
            due.extend(self._servers.probe_due_s())
        if self._drain_until_s is not None:
            due.append(self._drain_until_s)
        if self._finished():
            return 0.0
        return max(0.0, min(due) - now_s)

    def _enough(self) -> int:
        """Tell how many ends of tasks are worth a turn: half of those that no worker has begun."""
        return max(1, (self._window.under_way - self._workers.workforce.threads) // 2)

    # What has happened

    def _handle(self, message: Message) -> None:
        match message:
            case TaskDone(task=task, outcome=outcome):
                ended = self._window.end(task.number)
                if ended is not None:
                    self._throttle.ended(outcome)
                    self._workers.note(outcome)
                    self._outcomes.judge(ended.item, outcome, alone=ended.alone)
            case Answered(name=name) if name == FEED:
                self._take_page(message)
            case Answered(name=name) if name == OTHERS:
                self._outcomes.take_others(message)
            case Answered(name=name) if name == URGENT:
                self._window.promote(self._urgency.take(message))
            case Answered(name=name, error=error, value=value):
                on_trial = self._busy or self._intake.failed_side == name
                info = value if isinstance(value, ServerInfo) else None
                side = SideName(name)
                if self._servers.take_probe(side, error, info=info, on_trial=on_trial):
                    self._outcomes.take_probe(side, died=error is not None)
            case StopAsked():
                self._summary.stop()
                self._drain()
            case Poked():
                self._intake.poke()

    def _take_page(self, answer: Answered) -> None:
        try:
            self._intake.take(answer)
        except FeedWentBackwards as error:
            # Before it drains: whoever deletes meanwhile must know.
            self._observer.on_event(FeedDoubted(error.message))
            self._failure = error
            self._drain()

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
        error = self._servers.down_longer_than(
            self._pace.patience_s, under_way=self._window.under_way
        )
        if error is not None:
            self._fail(self._outcomes.left_refused(error.side) or error)
        elif self._intake.ended:
            left = self._outcomes.left_waiting(self._pace.patience_s)
            if left is not None:
                self._fail(left)
        trouble = self._workers.trouble(self._pace.patience_s, needed=not self._draining)
        if trouble is not None:
            self._fail(trouble)

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
        if not self._intake.ended or self._busy or self._state_error:
            return False
        # A job that ends waits for a rate, and for nothing else, to try what is parked.
        held = self._hold not in (Hold.NONE, Hold.RATE_LIMIT)
        return self._retries is None or self._retries.over or held or self._servers.failing

    @property
    def _busy(self) -> bool:
        """Whether there is anything unfinished."""
        return bool(self._outcomes.open or not self._window.empty)

    def _abandon(self) -> None:
        if self._window.under_way:
            self._observer.on_event(Abandoned(self._window.under_way))
        self._report()

    def _note_hindrance(self, *, up: bool, busy: bool) -> None:
        """Note since when it has had work, or has had none, with nothing in its way."""
        if self._hold or self._state_error or not up or busy != self._was_busy:
            self._able_since = self._clock.now_s()
        self._was_busy = busy

    def _report(self) -> None:
        busy = self._busy
        source, target = (self._servers.view(side) for side in (SideName.SOURCE, SideName.TARGET))
        self._note_hindrance(up=source.up and target.up, busy=busy)
        oldest, outcomes, intake = self._journal.oldest_open(), self._outcomes, self._intake
        progress = Progress(
            checkpoint=self._journal.checkpoint,
            last=intake.last,
            caught_up=intake.done and not busy,
            oldest_open=oldest,
            oldest_changed_at=outcomes.changed_at(oldest),
            waiting=self._window.waiting + outcomes.open,
            delayed=self._window.delayed,
            in_flight=tuple(self._window.in_flight()),
            source=source,
            target=target,
            state_error=self._state_error,
            executor_error=self._workers.error,
            workforce=self._workers.workforce,
            hold=self._hold,
            refused_count=outcomes.refused_count,
            refused=outcomes.told(),
            came_back=outcomes.came_back,
            last_progress_at=outcomes.last_progress_at,
            able_since=self._able_since,
            feed_read_at=intake.read_at,
            gaps=self._journal.gaps,
            phase="draining" if self._draining else self._phase,
        )
        self._observer.on_progress(progress)
