"""The loop: moves -> window -> executor -> policy -> journal. All mutable state and control flow.

It does not react to events one by one but runs at its own pace: start what may start, wait for
messages, decide, write everything decided in one transaction, report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridge.brake import Brake, Hold
from bridge.core.errors import BridgeError, FeedWentBackwards, StateError
from bridge.core.events import (
    Abandoned,
    Draining,
    FeedReset,
    Observer,
    Progress,
    StateFailed,
    StateRecovered,
)
from bridge.core.model import Job, ServerInfo, SideName, Task
from bridge.core.policy import Limits
from bridge.endings import Endings
from bridge.feed import MoveSource
from bridge.hands import Hands
from bridge.journal import Journal
from bridge.reading import PAGE, Reading
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
from bridge.summary import Summary
from bridge.window import Item, Window
from bridge.workers import Executor

CALM_S = 2.0
"""A suspect is sent only to servers that have been answering for so long."""

STATE_RETRY_S = 1.0
TICK_S = 1.0


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


class Pipeline:
    """Brings every move of a source of moves to an end.

    Collaborators are interfaces: see runtime.py, journal.py, feed.py, workers.py, and servers.py
    for ``probes`` and ``chance``.
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
        brake: Brake,
        phase: str = "following",
    ) -> None:
        self._job = job
        self._pace = pace
        self._journal = journal
        self._executor = executor
        self._inbox = inbox
        self._clock = clock
        self._observer = observer
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
        self._hands = Hands(executor, clock)
        self._window = Window(self._window_size())
        self._endings = Endings(
            job=job,
            limits=pace.limits,
            window=self._window,
            servers=self._servers,
            journal=journal,
            observer=observer,
            clock=clock,
            chance=chance,
        )
        self._reading = Reading(
            moves=moves,
            journal=journal,
            window=self._window,
            servers=self._servers,
            endings=self._endings,
            background=background,
            clock=clock,
            observer=observer,
            poll_interval_s=pace.poll_interval_s,
        )
        self._drain_until_s: float | None = None
        self._state_error = ""
        self._held = Hold.NONE
        self._flush_due_s = 0.0
        self._failure: BridgeError | None = None
        self._able_since = clock.now_s()
        self._was_busy = False
        self._summary = Summary()

    def run(self, summary: Summary) -> None:
        """Run until the moves end or a stop is asked for, counting into ``summary``.

        Raises FeedWentBackwards, StateError (with patience only) and, when patience ends,
        SourceError or TargetError; always after running instances have finished and all that is
        settled is written.
        """
        self._summary = self._endings.summary = self._reading.summary = summary
        while not self._finished():
            # A cluster grows and shrinks: the window follows those who work.
            self._hands.look()
            self._window.resize(self._window_size())
            self._fill_window()
            if self._may_read:
                self._reading.ask()
            if not self._draining:
                self._servers.probe()
            for message in self._inbox.take(self._idle_s(), enough=self._enough()):
                self._handle(message)
            if not self._busy:
                self._servers.idle(but=self._reading.failed_side)
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
        if not self._reading.poke_noted:
            self._reading.poke_noted = True
            self._inbox.put(Poked())

    # What may start

    def _fill_window(self) -> None:
        now_s = self._clock.steady_s()
        window = self._window
        window.wake(now_s)
        # Asked even if nothing may start anyway: a hold that is over would be waited for, busily.
        self._held = self._brake.hold()
        if self._draining or self._state_error or window.alone or self._endings.accusation:
            return
        if not self._hands.crew.threads:
            return
        if window.suspects_turn(now_s) and self._servers.calm(CALM_S):
            if not window.under_way and self._servers.allow(0) and not self._held:
                self._start(window.start_suspect(now_s))
            return
        while window.can_start() and self._servers.allow(window.under_way) and not self._held:
            self._start(window.start_next())
            self._held = self._brake.hold()

    def _window_size(self) -> int:
        crew = self._hands.crew
        return self._pace.window or crew.depth * max(1, crew.threads)

    def _start(self, item: Item) -> None:
        # The same instance may be in the feed twice (deleted and sent again): the number keeps
        # the two apart, and the window one behind the other.
        task = Task(item.move, self._job, item.number)
        item.started_at = self._clock.now_s()
        self._window.begin(item)
        self._brake.started()
        self._executor.submit(task)

    @property
    def _may_read(self) -> bool:
        return not self._draining and not self._state_error

    def _idle_s(self) -> float:
        """Tell how long nothing needs doing unless a message comes, in seconds."""
        now_s = self._clock.steady_s()
        due = [now_s + (min(TICK_S, self._brake.hold_s()) if self._held else TICK_S)]
        wake_s = self._window.wake_s()
        if wake_s is not None and not self._draining:
            due.append(wake_s)
        if self._may_read:
            due.extend(self._reading.due_s())
        if not self._draining:
            due.extend(self._servers.probe_due_s())
        if self._drain_until_s is not None:
            due.append(self._drain_until_s)
        if self._finished():
            return 0.0
        return max(0.0, min(due) - now_s)

    def _enough(self) -> int:
        """Tell how many ends of tasks are worth a turn: half of those that no worker has begun."""
        return max(1, (self._window.under_way - self._hands.crew.threads) // 2)

    # What has happened

    def _handle(self, message: Message) -> None:
        match message:
            case TaskDone(task=task, outcome=outcome):
                item = self._window.end(task.number)
                if item is not None:
                    self._brake.ended(outcome)
                    self._hands.note(outcome)
                    self._endings.judge(item, outcome)
                    self._window.alone = None
            case Answered(name=name) if name == PAGE:
                self._take_page(message)
            case Answered(name=name, error=error, value=value):
                on_trial = self._busy or self._reading.failed_side == name
                info = value if isinstance(value, ServerInfo) else None
                self._servers.take_probe(SideName(name), error, info=info, on_trial=on_trial)
                self._endings.take_verdict(SideName(name), died=error is not None)
            case StopAsked():
                self._summary.stopped = True
                self._drain()
            case Poked():
                self._reading.poke()

    def _take_page(self, answer: Answered) -> None:
        try:
            self._reading.take(answer)
        except FeedWentBackwards as error:
            self._observer.on_event(FeedReset(error.message))
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
        error = self._servers.down_longer_than(self._pace.patience_s)
        if error is not None:
            self._fail(error)
        trouble = self._hands.trouble(self._pace.patience_s, needed=not self._draining)
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
        return self._reading.ended and not self._busy and not self._state_error

    @property
    def _busy(self) -> bool:
        """Whether there is anything unfinished."""
        return bool(self._endings.open or not self._window.empty)

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
        oldest, endings, reading = self._journal.oldest_open(), self._endings, self._reading
        progress = Progress(
            checkpoint=self._journal.checkpoint,
            last=reading.last,
            caught_up=reading.done and not self._busy,
            oldest_open=oldest,
            oldest_changed_at="" if oldest is None else endings.changed_at.get(oldest, ""),
            waiting=self._window.waiting + endings.open,
            delayed=self._window.delayed,
            in_flight=tuple(self._window.in_flight()),
            source=self._servers.view(SideName.SOURCE),
            target=self._servers.view(SideName.TARGET),
            state_error=self._state_error,
            executor_error=self._hands.error,
            crew=self._hands.crew,
            hold=self._held,
            refused=self._window.refused,
            refusal=endings.refusal.message if endings.refusal else "",
            refusal_advice=endings.refusal.advice if endings.refusal else "",
            last_progress_at=endings.last_progress_at,
            able_since=self._able_since,
            feed_read_at=reading.read_at,
            phase="draining" if self._draining else self._phase,
        )
        self._observer.on_progress(progress)
