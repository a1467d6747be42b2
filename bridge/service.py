"""Puts the parts together for each job: follow, replay, retry. Signals arrive here.

Every job is the same pipeline with another source of moves; a job may have phases (a snapshot,
then following), each a pipeline of its own over the same workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import TracebackType
from typing import Self

from bridge.audit import audit_trails
from bridge.brake import Brake, CourteousBrake, OperatorsBrake
from bridge.config import Settings
from bridge.core.errors import BridgeError, ConfigurationError, FeedWentBackwards
from bridge.core.events import Observer
from bridge.core.model import Move, Outcome, SideName, Task
from bridge.core.policy import Limits
from bridge.core.resets import Resets
from bridge.feed import LOOK_BACK_EVERY_S, FollowFeed, GivenMoves, MoveSource, ReplayRange
from bridge.feed_reader import feed_end
from bridge.janitor import Janitor
from bridge.journal import CommandJournal, FollowJournal, Journal, Rehearsal, ReplayJournal
from bridge.ledger import NEWEST_DATE_KEY, Ledger
from bridge.listing import Believed, FeedEnd, KnownPlace, Lacking, Listing, OfKnownPlace, Place
from bridge.machinery import ClosableExecutor, Machinery, Observers, RealMachinery
from bridge.neighbour import Neighbour
from bridge.pipeline import Pace, Pipeline
from bridge.runtime import TaskDone
from bridge.summary import Summary
from bridge.throughput import Throughput

SNAPSHOT_KEY = "snapshot_last"
"""Ledger: set while a snapshot is not finished."""
SNAPSHOT_PENDING = "pending"


class Service:
    """One run of one command that moves instances. A context manager: it owns the workers."""

    def __init__(
        self,
        settings: Settings,
        observers: Iterable[Observer],
        *,
        bounded: bool,
        machinery: Machinery | None = None,
    ) -> None:
        self._settings = settings
        self._machinery = machinery or RealMachinery(settings)
        self._audits = audit_trails(settings)
        self._throughput = Throughput()
        self._observer = Observers((*observers, *self._audits, self._throughput))
        self._job = settings.job()
        self._pace = Pace(
            window=settings.window,
            poll_interval_s=settings.poll_interval_s,
            patience_s=settings.command_patience_s if bounded else None,
            shutdown_timeout_s=settings.shutdown_timeout_s,
            limits=Limits(attempts_max=settings.attempts),
        )
        self._source = self._machinery.client(SideName.SOURCE)
        self._probes = {side: self._machinery.client(side) for side in SideName}
        self._inbox = self._machinery.inbox()
        self._pipeline: Pipeline | None = None
        self._executor: ClosableExecutor | None = None
        self._stopping = False
        self._resets = Resets()
        self._stack = ExitStack()
        self.sweep_failure: BridgeError | None = None
        """Why ``follow`` with ``once``, which has ended well, could not delete at the source."""

    def __enter__(self) -> Self:
        for client in (self._source, *self._probes.values()):
            self._stack.callback(client.close)
        for audit in self._audits:
            self._stack.callback(audit.close)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._executor is not None:
            self._executor.close()
        self._stack.close()

    def stop(self) -> None:
        """Drain and end; safe in a signal handler."""
        self._stopping = True
        if self._pipeline is not None:
            self._pipeline.stop()

    def poke(self) -> None:
        """Look at the feed soon; safe in any thread."""
        if self._pipeline is not None:
            self._pipeline.poke()

    def preflight(self) -> None:
        """Make sure that both servers can be used. Raises SourceError or TargetError."""
        for side in (SideName.SOURCE, SideName.TARGET):
            self._probes[side].system()
        self._source.last_change()

    def check_history(self, ledger: Ledger) -> None:
        """Make sure that the source is the one that was followed: another lacks what is parked.

        Raises SourceError, FeedWentBackwards.
        """
        known = self._followed_place(ledger)
        if known is not None:
            known.look()

    def follow(self, ledger: Ledger, *, once: bool = False) -> Summary:
        """Follow the feed: for ever, or (``once``) to its present end.

        Raises FeedWentBackwards (BRIDGE_ON_FEED_RESET=stop), StateError, and with ``once``
        SourceError and TargetError.
        """
        total = Summary()
        with self._sweeping(ledger, once=once), self._throughput.kept_in(ledger):
            self._follow_on(ledger, total, once=once)
        return total

    def _follow_on(self, ledger: Ledger, total: Summary, *, once: bool) -> None:
        while True:
            try:
                if not self._stopping:
                    self._begin(ledger, total)
                if not self._stopping and ledger.meta(SNAPSHOT_KEY) is not None:
                    self._snapshot(ledger, total)
                if not self._stopping:
                    self._follow(ledger, total, once=once)
                return
            except FeedWentBackwards:
                if self._settings.on_feed_reset == "stop":
                    raise
                ledger.set_meta(SNAPSHOT_KEY, SNAPSHOT_PENDING)
                if not self._leave_alone():
                    raise

    def _leave_alone(self) -> bool:
        """Wait before a feed that was reset is looked at again; False when patience is over."""
        clock, patience_s = self._machinery.clock, self._pace.patience_s
        now_s = clock.steady_s()
        until_s = now_s + self._resets.note(now_s, chance=self._machinery.chance())
        while not self._stopping and now_s < until_s:
            # What an earlier phase has abandoned may end here: it is done again in any case.
            self._inbox.take(until_s - now_s)
            now_s = clock.steady_s()
        return patience_s is None or self._resets.lasted_s(now_s) <= patience_s

    def replay_end(self, *, start: int, end: int | None) -> int:
        """Check a range against the feed and return its last sequence.

        Raises ConfigurationError when the range is beyond the feed, SourceError.
        """
        last = feed_end(self._source, at_least=max(start, end or 0))
        if start > last or (end is not None and end > last):
            raise ConfigurationError(
                f"The range {start}..{'' if end is None else end} is beyond the feed: its last "
                f"change is {last}. Nothing was done.",
                advice=f"Choose --from and --to up to {last}.",
            )
        return last if end is None else end

    def replay(self, ledger: Ledger, *, start: int, end: int, dry_run: bool) -> Summary:
        """Move the instances of the changes start..end again.

        Raises SourceError, TargetError, StateError.
        """
        total = Summary()
        moves: MoveSource = ReplayRange(
            self._source, start=start, end=end, page_size=self._settings.page_size
        )
        if dry_run:
            # Imported here: it looks into files, and the codecs that brings are only for workers.
            from bridge.rehearsal import RehearsalExecutor

            self._executor = RehearsalExecutor(self._done, self._job)
        known = self._known_place(ledger, total)
        if known is not None:
            moves = OfKnownPlace(moves, known)
        writer = Rehearsal() if dry_run else ledger
        beside = None if dry_run else ledger
        journal = ReplayJournal(writer, start=start)
        self._run(moves, journal, total, phase="replaying", beside=beside)
        return total

    def retry(self, ledger: Ledger, moves: Iterable[Move]) -> Summary:
        """Move given instances again, parked ones for example.

        What the source lacks is no longer parked, so it must be the one that was followed. Raises
        FeedWentBackwards when it is not.
        """
        total = Summary()
        given: MoveSource = GivenMoves(moves, page_size=self._settings.page_size)
        known = self._known_place(ledger, total)
        if known is not None:
            given = OfKnownPlace(given, known)
        self._run(given, CommandJournal(ledger), total, phase="retrying", beside=ledger)
        return total

    def _known_place(self, ledger: Ledger, total: Summary) -> KnownPlace | None:
        """Return what the source is known again by, followed or not; None when stopped."""
        known = self._followed_place(ledger)
        if known is None:
            place = self._place(ledger, total)
            if place is not None:
                known = KnownPlace(self._source, place, overlap=self._settings.feed_overlap)
        return known

    def _followed_place(self, ledger: Ledger) -> KnownPlace | None:
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            return None
        rows = tuple((s, i) for s, i in ledger.recent().items() if s <= checkpoint)
        place = Place(checkpoint, rows, ledger.meta(NEWEST_DATE_KEY) or "")
        return KnownPlace(self._source, place, overlap=self._settings.feed_overlap)

    @contextmanager
    def _sweeping(self, ledger: Ledger, *, once: bool) -> Iterator[None]:
        """Let the source go of what is old enough: meanwhile, or (``once``) at the end."""
        retention_s = self._settings.retention_s
        if retention_s is None:
            yield
            return
        with (
            closing(self._machinery.client(SideName.SOURCE)) as source,
            closing(self._machinery.client(SideName.TARGET)) as target,
        ):
            janitor = Janitor(
                state_path=ledger.path,
                source=source,
                target=target,
                retention_s=retention_s,
                observer=self._observer,
            )
            if once:
                yield
                try:
                    while not self._stopping and janitor.sweep_once().more:
                        pass
                except BridgeError as error:
                    # All has been moved, and is told first.
                    self.sweep_failure = error
                return
            janitor.start()
            try:
                yield
            finally:
                janitor.stop(self._settings.http_timeout_s)

    # The phases of following

    def _begin(self, ledger: Ledger, total: Summary) -> None:
        """Give a new ledger its first checkpoint."""
        if ledger.checkpoint() is not None or ledger.meta(SNAPSHOT_KEY) is not None:
            return
        start = self._settings.start
        if start == "beginning":
            ledger.restart_at(0)
        elif start == "snapshot":
            ledger.set_meta(SNAPSHOT_KEY, SNAPSHOT_PENDING)
        else:
            wanted = max(0, start - 1) if isinstance(start, int) else None
            place = self._place(ledger, total, wanted=wanted)
            if place is not None:
                self._restart_at(ledger, place)

    def _restart_at(self, ledger: Ledger, place: Place, *, ours_from: int | None = None) -> None:
        ledger.restart_at(
            place.sequence,
            recent=place.recent,
            newest_date=place.newest_date,
            ours_from=ours_from,
        )

    def _snapshot(self, ledger: Ledger, total: Summary) -> None:
        """Move everything that the target lacks, then follow from where the feed ended before.

        What arrives while we list is in the feed after that end. It is noted anew with each
        listing: the one that was cut short may have been of another feed.
        """
        end = self._place(ledger, total)
        if end is None:
            return
        with closing(self._machinery.client(SideName.TARGET)) as target:
            listing = Listing(self._source, page_size=self._settings.page_size, feed=self._source)
            known = KnownPlace(self._source, end, overlap=self._settings.feed_overlap)
            moves = Lacking(Believed(listing, known), target)
            ended = self._run(moves, CommandJournal(ledger), total, phase="snapshot", ledger=ledger)
        if ended:
            # A row that becomes visible late may be of an instance that the listing lacked.
            ours_from = max(0, end.sequence - self._settings.feed_overlap)
            self._restart_at(ledger, end, ours_from=ours_from)
            ledger.set_meta(SNAPSHOT_KEY, None)

    def _follow(self, ledger: Ledger, total: Summary, *, once: bool) -> None:
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            return
        end = self._place(ledger, total) if once else None
        if end is not None and end.sequence < checkpoint:
            # Its newest rows were deleted, or the source was another one for a moment.
            end = self._place(ledger, total)
        if self._stopping:
            return
        until = end.sequence if end else None
        overlap = self._settings.feed_overlap
        journal = FollowJournal(ledger, overlap=overlap)
        feed = FollowFeed(
            self._source,
            position=checkpoint,
            page_size=self._settings.page_size,
            overlap=overlap,
            until=until,
            recent=ledger.recent(),
            look_back_every_s=LOOK_BACK_EVERY_S,
            steady_s=self._machinery.clock.steady_s,
        )
        self._run(feed, journal, total, phase="following", ledger=ledger)

    def _place(self, ledger: Ledger, total: Summary, *, wanted: int | None = None) -> Place | None:
        """Ask for the end of the feed, as patiently as for everything else. None when stopped.

        Raises ConfigurationError when ``wanted`` (from BRIDGE_START) is beyond it.
        """
        end = FeedEnd(self._source, overlap=self._settings.feed_overlap, wanted=wanted)
        self._run(end, CommandJournal(ledger), total, phase="starting")
        if wanted is not None and end.place is not None and wanted > end.last:
            raise ConfigurationError(
                f"BRIDGE_START={wanted + 1} is beyond the feed of the source: its last change is "
                f"{end.last}. Nothing was done.",
                advice=f"Set it to {end.last + 1} at most, or to now, beginning or snapshot.",
            )
        return end.place

    def _run(
        self,
        moves: MoveSource,
        journal: Journal,
        total: Summary,
        *,
        phase: str,
        ledger: Ledger | None = None,
        beside: Ledger | None = None,
    ) -> bool:
        """Run one pipeline and add up; True when it came to its end without being stopped.

        With ``ledger`` it obeys pause and quiet hours; with ``beside`` it gives way to the bridge
        that runs on this ledger, if one does.
        """
        self._inbox = self._machinery.inbox()
        background = self._machinery.background(self._inbox)
        self._pipeline = Pipeline(
            job=self._job,
            pace=self._pace,
            moves=moves,
            journal=journal,
            executor=self._workers(),
            background=background,
            inbox=self._inbox,
            clock=self._machinery.clock,
            observer=self._observer,
            probes={side: client.probe for side, client in self._probes.items()},
            chance=self._machinery.chance,
            brake=self._brake(ledger, beside),
            phase=phase,
        )
        if self._stopping:
            self._pipeline.stop()
        try:
            self._pipeline.run(total)
        finally:
            background.close()
        return not total.stopped

    def _brake(self, ledger: Ledger | None, beside: Ledger | None) -> Brake:
        clock = self._machinery.clock
        brake = OperatorsBrake(self._settings.allowance(), ledger=ledger, clock=clock)
        if beside is None:
            return brake
        neighbour = self._stack.enter_context(Neighbour())
        return CourteousBrake(brake, neighbour, ledger=beside, clock=clock)

    def _workers(self) -> ClosableExecutor:
        if self._executor is None:
            self._executor = self._machinery.executor(self._done)
        return self._executor

    def _done(self, task: Task, outcome: Outcome) -> None:
        self._inbox.put(TaskDone(task, outcome))
