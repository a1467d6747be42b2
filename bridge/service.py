"""Each job as phases of one pipeline: follow, replay, retry. Signals arrive here.

Every job is the same pipeline with another source of moves. `Following` has phases (a snapshot,
then following), each a pipeline of its own over the same workers; its methods stand in their order.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Protocol, Self

from bridge.audit import audit_trails
from bridge.checks.disk_lists import KnownTexts
from bridge.checks.proved_held import ProvedHeld
from bridge.checks.throughput import Throughput
from bridge.config import Settings
from bridge.errors import BridgeError, ConfigurationError, FeedWentBackwards, StateError
from bridge.events import Event, FeedReset, FeedTrusted, ListCompared, Observer, Summary
from bridge.feed.follow import LOOK_BACK_EVERY_S, FollowFeed
from bridge.feed.gaps import age_s_of
from bridge.feed.held import HeldInstances
from bridge.feed.identity import KnownPlace, Place
from bridge.feed.listing import ConfirmedListing, Held, Lacking, Listing
from bridge.feed.pages import FeedClient, range_end
from bridge.feed.polling import Doubt, Resets
from bridge.feed.sources import (
    FeedEnd,
    FromKnownSource,
    GivenMoves,
    LookAgain,
    MoveSource,
    ReplayRange,
)
from bridge.ledger.records import Entry
from bridge.ledger.store import GAPS_NOTED_KEY, NEWEST_DATE_KEY, Ledger
from bridge.ledger.verifications import VerificationProgress
from bridge.log import log
from bridge.mirror.carry import Carrier
from bridge.mirror.carry_thread import CARRY_RATE_S, CarryThread, Hints
from bridge.mirror.delivered_sign import Signer
from bridge.mirror.judge_copy import CopyState
from bridge.mirror.mirror_thread import (
    REPAIRS,
    MirrorParts,
    MirrorThread,
    MirrorWorkers,
    OperatorsPace,
    ToldDeleted,
    UnderWay,
)
from bridge.mirror.repair import is_work_left
from bridge.mirror.sign_thread import SIGN_RATE_S, SignThread
from bridge.model import Gap, Move, Reason, SideName
from bridge.orthanc.carry_client import CarryClient
from bridge.orthanc.session import SideClient
from bridge.pipeline.ask_for_other_instances import LISTED_MAX
from bridge.pipeline.journal import (
    CommandJournal,
    DryRunLedger,
    FollowJournal,
    ReplayJournal,
    WithUnnumbered,
)
from bridge.pipeline.missed_instances import (
    RECOUNT_KEY,
    Beginning,
    JournalOfFound,
    LastRecount,
    Recount,
    load_last_recount,
)
from bridge.retention.background import OperatorsHold, SweepRunner, Trouble
from bridge.retention.held_deletion import given_back
from bridge.retention.limits_and_risks import NEVER_OLD_ENOUGH
from bridge.retention.note_tokens import new_token
from bridge.retention.sweep import is_unfinished
from bridge.wiring import Machinery, Observers, Pipelines, RealMachinery
from bridge.worker.proof import check_another_server

IN_DOUBT_ADVICE = (
    "If this does not pass, make sure that BRIDGE_SOURCE_URL leads to one server only. See: "
    "orthanc-bridge docs operations backwards."
)
SNAPSHOT_KEY = "snapshot_last"
"""Ledger: set while a snapshot is not finished."""
SNAPSHOT_PENDING = "pending"
WHEREVER = sys.maxsize
"""A sequence that no feed reaches: ``run --once`` then ends where the feed does."""


class BesideTheBridge(Protocol):
    """What is done by a thread of its own."""

    def start(self) -> None:
        """Begin."""

    def stop(self, timeout_s: float) -> None:
        """Finish what is under way and end."""


@contextmanager
def _running(thread: BesideTheBridge, timeout_s: float) -> Iterator[None]:
    """Have it run until the block ends."""
    thread.start()
    try:
        yield
    finally:
        thread.stop(timeout_s)


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
        self._token = new_token()
        self._announced = False
        self._throughput = Throughput()
        self._trouble = Trouble()
        self._hints = Hints()
        self._told_deleted = ToldDeleted()
        self._deliveries = UnderWay()
        others: tuple[Observer, ...] = (
            self._throughput,
            self._trouble,
            self._hints,
            self._deliveries,
        )
        self._observer = Observers((*observers, *self._audits, *others))
        self._pipelines = Pipelines(
            settings,
            self._machinery,
            self._observer,
            bounded=bounded,
            token=self._token,
            troubles=self._trouble.count,
        )
        self._stack = ExitStack()
        self._stopped = threading.Event()
        self.sweep_failure: BridgeError | None = None
        """Why ``follow`` with ``once``, which has ended well, could not delete at the source."""

    def __enter__(self) -> Self:
        for audit in self._audits:
            self._stack.callback(audit.close)
        self._stack.callback(self._pipelines.close)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def stop(self) -> None:
        """Drain and end; safe in any thread."""
        self._stopped.set()
        self._pipelines.stop()

    def audit_failure(self) -> str:
        """Say why the audit file cannot be written; "" when it can be, or there is none."""
        return next((audit.failure for audit in self._audits if audit.failing), "")

    def poke(self) -> None:
        """Look at the feed soon; safe in any thread."""
        self._pipelines.poke()

    def report(self, event: Event) -> None:
        """Tell all observers what a person has done over HTTP; safe in any thread."""
        self._observer.on_event(event)

    def hear_of_deletions(self, instances: Iterable[str]) -> None:
        """Look soon whether the source lacks these; safe in any thread."""
        self._told_deleted.add(instances)

    def read_rules_again(self) -> None:
        """Read the rules file again soon; safe in a signal handler."""
        self._pipelines.read_rules_again()

    # Before a job

    def preflight(self, *, follows: Ledger | None = None) -> None:
        """Make sure that both servers can be used. Raises SourceError or TargetError.

        ``follows``: the ledger of a bridge that follows the source: it is noted there, whatever
        becomes of the target.
        """
        if follows is not None:
            self._announce(follows)
        for side in (SideName.SOURCE, SideName.TARGET):
            self._pipelines.probes.contact(side)
        self._pipelines.source.last_change()

    def check_history(self, ledger: Ledger) -> None:
        """Make sure that the source is the one that was followed: another lacks what is parked.

        Raises SourceError, FeedWentBackwards.
        """
        look_at_feed(ledger, self._pipelines.source, overlap=self._settings.feed_overlap)

    def replay_end(self, *, start: int, end: int | None) -> int:
        """Check a range against the feed and return its last sequence.

        Raises ConfigurationError when the range is beyond the feed, SourceError.
        """
        return range_end(self._pipelines.source, start=start, end=end)

    def _announce(self, ledger: Ledger) -> None:
        """Leave notes at the servers until this service ends. Again: nothing changes."""
        if not self._announced:
            self._announced = True
            self._stack.callback(self._end_notes, ledger)
        self._pipelines.probes.announce(ledger)

    def look_before_deletion(self, source: FeedClient) -> Callable[[Ledger], None]:
        """Return what makes sure, before anything is deleted, that a source has the known feed.

        It raises as ``look_at_feed``, and while the feed is in doubt: another connection may lead
        to another server than the one whose answer was doubted.
        """

        def look(ledger: Ledger) -> None:
            doubt = self._trouble.feed_doubt
            if doubt:
                text = f"{doubt} The bridge is looking again."
                raise FeedWentBackwards(text, advice=IN_DOUBT_ADVICE)
            look_at_feed(ledger, source, overlap=self._settings.feed_overlap)

        return look

    def _end_notes(self, ledger: Ledger) -> None:
        with suppress(StateError):  # the next process waits, as after a kill
            self._pipelines.probes.end_notes(ledger)

    def _bind(self, ledger: Ledger) -> None:
        """Let the records of deliveries be about the target that is set. Raises StateError."""
        forgotten = ledger.bind_deliveries(self._settings.target_url)
        if forgotten:
            text = (
                "BRIDGE_TARGET_URL names another target than before. The bridge has forgotten the "
                f"records of {forgotten} deliveries to the previous one: it replaces or deletes "
                "nothing at the new target that it has not delivered there."
            )
            log(logging.WARNING, "deliveries_forgotten", text, deliveries=forgotten)

    # Jobs

    def follow(self, ledger: Ledger, *, once: bool = False) -> Summary:
        """Follow the feed: for ever, or (``once``) to its present end.

        What is old enough is deleted at the source meanwhile, or (``once``) at the end. Raises
        FeedWentBackwards (BRIDGE_ON_FEED_RESET=stop), StateError, and with ``once`` SourceError
        and TargetError.
        """
        self._bind(ledger)
        self._announce(ledger)
        if self._settings.mirror_deletions_after_s is not None:
            ledger.release_kept()
        following = Following(
            ledger,
            pipelines=self._pipelines,
            settings=self._settings,
            machinery=self._machinery,
            observer=self._observer,
            once=once,
        )
        with (
            self._sweeping(ledger, once=once),
            self._verifying(ledger, once=once),
            self._carrying(ledger, once=once),
            self._signing(ledger, once=once),
            self._throughput.kept_in(ledger),
        ):
            return following.run()

    @contextmanager
    def _verifying(self, ledger: Ledger, *, once: bool) -> Iterator[None]:
        """Verify both servers meanwhile, if that is wished; not with ``once``.

        Where it is not, what a killed ``check --repair`` has begun is ended all the same: the
        target may lack the copy.
        """
        settings = self._settings
        every_s = settings.verify_every_s
        if once or (every_s is None and not is_work_left(ledger)):
            yield
            return
        stop = threading.Event()
        with self._mirror(stop, repairs=REPAIRS[settings.repair]) as parts:
            thread = MirrorThread(
                state_path=ledger.path,
                every_s=every_s,
                workers=parts.workers,
                make=parts.verification,
                told_deleted=self._told_deleted,
                observer=self._observer,
                stop=stop,
            )
            with _running(thread, settings.http_timeout_s):
                yield

    @contextmanager
    def _carrying(self, ledger: Ledger, *, once: bool) -> Iterator[None]:
        """Bring what lies beside the files meanwhile (BRIDGE_CARRY); not with ``once``."""
        settings = self._settings
        if once or not settings.carried:
            yield
            return
        stop = threading.Event()
        with (
            closing(CarryClient(settings.endpoint(SideName.SOURCE))) as source,
            closing(CarryClient(settings.endpoint(SideName.TARGET))) as target,
        ):
            carrier = Carrier(
                source,
                target,
                settings.carried,
                bytes_max=settings.carry_max_mb * 1024 * 1024,
                sign=settings.sign,
                report=self._observer.on_event,
            )
            clock, allowance = self._machinery.clock, settings.allowance()
            thread = CarryThread(
                carrier,
                source,
                state_path=ledger.path,
                every_s=settings.carry_every_s,
                pace=OperatorsPace(allowance, rate_s=CARRY_RATE_S, clock=clock, stop=stop),
                hints=self._hints,
                look_at_feed=self.look_before_deletion(source),
                observer=self._observer,
                stop=stop,
            )
            with _running(thread, settings.http_timeout_s):
                yield

    @contextmanager
    def _signing(self, ledger: Ledger, *, once: bool) -> Iterator[None]:
        """Sign at the source what was delivered (BRIDGE_DELIVERED_SIGN); not with ``once``."""
        settings = self._settings
        if once or not settings.sign:
            yield
            return
        stop = threading.Event()
        with closing(CarryClient(settings.endpoint(SideName.SOURCE))) as source:
            signer = Signer(
                source,
                settings.sign,
                look_at_feed=self.look_before_deletion(source),
                report=self._observer.on_event,
            )
            thread = SignThread(
                signer,
                state_path=ledger.path,
                pace=OperatorsPace(
                    settings.allowance(),
                    rate_s=SIGN_RATE_S,
                    clock=self._machinery.clock,
                    stop=stop,
                    gives_way=self._deliveries.under_way,
                ),
                observer=self._observer,
                stop=stop,
            )
            with _running(thread, settings.http_timeout_s):
                yield

    @contextmanager
    def _mirror(
        self,
        stop: threading.Event,
        *,
        repairs: frozenset[CopyState],
        command: bool = False,
        share: float | None = None,
        beyond_limit: bool = False,
    ) -> Iterator[MirrorParts]:
        """Give what a verification is made of. ``command``: a person waits for it."""
        settings = self._settings
        with (
            closing(SideClient(settings.endpoint(SideName.SOURCE))) as source,
            closing(CarryClient(settings.endpoint(SideName.TARGET))) as target,
            MirrorWorkers(
                settings.job(), memory_bytes=settings.worker_memory_mb * 1024 * 1024
            ) as workers,
        ):
            pace = OperatorsPace(
                settings.allowance(),
                rate_s=0.0 if command else settings.verify_rate,
                clock=self._machinery.clock,
                stop=stop,
                heeds_hold=not command,
                gives_way=(lambda: False) if command else self._deliveries.under_way,
            )
            yield MirrorParts(
                settings=settings,
                token=self._token,
                source=source,
                target=target,
                workers=workers,
                pace=pace,
                observer=self._observer,
                recorded=lambda: not self.audit_failure(),
                look_at_feed=self.look_before_deletion(source),
                repairs=repairs,
                share=settings.verify_share if share is None else share,
                keeps_place=not command,
                beyond_limit=beyond_limit,
            )

    def verify(
        self, ledger: Ledger, *, repair: bool, deep: bool, beyond_limit: bool
    ) -> VerificationProgress | None:
        """Verify both servers once, from the beginning; None when it was stopped, or cannot end.

        ``deep``: compare the files of all instances. Raises SourceError, TargetError, StateError,
        FeedWentBackwards, ConfigurationError, OSError (TMPDIR is full).
        """
        self._bind(ledger)
        repairs = REPAIRS["all" if repair else "off"]
        with self._mirror(
            self._stopped,
            repairs=repairs,
            command=True,
            share=1.0 if deep else 0.0,
            beyond_limit=beyond_limit,
        ) as parts:
            verification = parts.verification(ledger)
            verification.run()
            return verification.ended

    @contextmanager
    def _sweeping(self, ledger: Ledger, *, once: bool) -> Iterator[None]:
        """Delete at the source what is old enough: meanwhile, or (``once``) at the end.

        Where nothing is deleted any more, what a killed sweep has left is looked after all the
        same.
        """
        rules = self._settings.retention_rules()
        if rules is None and is_unfinished(ledger):
            rules = NEVER_OLD_ENOUGH
        if rules is None:
            yield
            return
        with (
            closing(self._machinery.client(SideName.SOURCE)) as source,
            closing(self._machinery.client(SideName.TARGET)) as target,
        ):
            runner = SweepRunner(
                state_path=ledger.path,
                source=source,
                target=target,
                rules=rules,
                token=self._token,
                observer=self._observer,
                look_at_feed=self.look_before_deletion(source),
                hold=OperatorsHold(self._settings.allowance(), self._machinery.clock),
                trouble=self._trouble.count,
                recorded=lambda: not self.audit_failure(),
            )
            if once:
                yield
                try:
                    runner.sweep_all(lambda: self._pipelines.stopping)
                except BridgeError as error:
                    # All has been moved, and is told first.
                    self.sweep_failure = error
                return
            with _running(runner, self._settings.http_timeout_s):
                yield

    def replay(
        self, ledger: Ledger, *, start: int, end: int, dry_run: bool, skip_present: bool = False
    ) -> Summary:
        """Move the instances of the changes start..end again.

        Parks and unparks; the checkpoint stays where it is. ``dry_run`` asks what would be done
        and writes nothing. ``skip_present`` leaves out what the target is shown to hold. Raises
        SourceError, TargetError, StateError.
        """
        if not skip_present:
            return self._replay(ledger, start=start, end=end, dry_run=dry_run)
        with (
            closing(self._machinery.client(SideName.TARGET)) as target,
            closing(self._machinery.client(SideName.SOURCE)) as source,
            KnownTexts() as names,
        ):
            if not dry_run:
                self._bind(ledger)
            held = ProvedHeld(
                HeldInstances(
                    target,
                    names,
                    asked_for=lambda: end - start + 1,
                    look=partial(check_another_server, source, target),
                ),
                state_path=ledger.path,
                stored_md5=target.stored_md5 if self._settings.proof == "stored" else None,
            )
            return self._replay(ledger, start=start, end=end, dry_run=dry_run, held=held)

    def _replay(
        self, ledger: Ledger, *, start: int, end: int, dry_run: bool, held: Held | None = None
    ) -> Summary:
        total, settings = Summary(), self._settings
        if dry_run:
            # Imported here: it looks into files, and the codecs that brings are only for workers.
            from bridge.checks.dry_run import DryRunExecutor

            total.dry_run = True
            self._pipelines.make_workers = partial(
                DryRunExecutor, job=self._pipelines.job, would=total.would
            )
        moves: MoveSource = ReplayRange(
            self._pipelines.source, start=start, end=end, page_size=settings.page_size
        )
        if held is not None:
            moves = Lacking(moves, held, partial(_tell_compared, self._observer, total))
        moves = self._of_known_source(moves, ledger, total)
        journal = ReplayJournal(
            DryRunLedger() if dry_run else ledger,
            start=start,
            clock=self._machinery.clock,
            gap_limits=settings.gap_limits(patience_s=settings.command_patience_s),
        )
        if dry_run:
            self._pipelines.run(moves, journal, total, phase="replaying")
        else:
            self._bind(ledger)
            self._pipelines.run(
                moves,
                journal,
                total,
                phase="replaying",
                throttle=self._pipelines.throttle_beside(ledger),
                lost=_lost_files(ledger),
                forgotten_before=ledger.studies_forgotten_before(),
            )
        total.gaps = journal.gaps.sequences
        return total

    def retry(self, ledger: Ledger, moves: Iterable[Move]) -> Summary:
        """Move given instances again, parked ones for example.

        Parks and unparks. What the source lacks is no longer parked, so it must be the one that was
        followed. Raises FeedWentBackwards when it is not.
        """
        total = Summary()
        self._bind(ledger)
        given = self._of_known_source(
            GivenMoves(moves, page_size=self._settings.page_size), ledger, total
        )
        self._pipelines.run(
            given,
            CommandJournal(ledger),
            total,
            phase="retrying",
            throttle=self._pipelines.throttle_beside(ledger),
            lost=_lost_files(ledger),
            forgotten_before=ledger.studies_forgotten_before(),
        )
        return total

    def _of_known_source(self, moves: MoveSource, ledger: Ledger, total: Summary) -> MoveSource:
        """Have the source known again before a deletion is believed: by what was followed.

        Where nothing was followed yet, by the present end of its feed.
        """
        overlap = self._settings.feed_overlap
        known = followed_place(ledger, self._pipelines.source, overlap=overlap)
        if known is None:
            end = FeedEnd(self._pipelines.source, overlap=overlap)
            ask_end(self._pipelines, end, total)
            if end.place is None:  # stopped
                return moves
            known = KnownPlace(self._pipelines.source, end.place, overlap=overlap)
        return FromKnownSource(moves, known)


class Following:
    """The job of ``run``, over one ledger: for ever, or (``once``) to the present end of the feed.

    Its phases, each skipped when a stop was asked for, or when it has nothing to do:

    begin      a new ledger gets its first checkpoint, or a snapshot to make
    snapshot   moves everything that the target lacks; then there is a checkpoint
    note gaps  learns what may become visible below a checkpoint of an old ledger
    follow     moves what the feed tells of after the checkpoint

    When the feed turns out to be another one, a snapshot is to be made, and they begin again.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        pipelines: Pipelines,
        settings: Settings,
        machinery: Machinery,
        observer: Observer,
        once: bool,
    ) -> None:
        self._ledger = ledger
        self._pipelines = pipelines
        self._settings = settings
        self._machinery = machinery
        self._clock = machinery.clock
        self._observer = observer
        self._once = once
        self._source = pipelines.source
        self._overlap = settings.feed_overlap
        self._resets = Resets()
        self._doubt = Doubt(_confirm_s(settings, once=once))
        self._total = Summary()

    def run(self) -> Summary:
        """Go through the phases. Raises as ``Service.follow`` does."""
        while not self._pipelines.stopping:
            try:
                for phase in (self._begin, self._snapshot, self._note_gaps, self._follow):
                    if not self._pipelines.stopping:
                        phase()
                break
            except FeedWentBackwards as error:
                if not self._is_confirmed():
                    continue
                self._observer.on_event(FeedReset(error.message))
                if self._settings.on_feed_reset == "stop":
                    raise
                # First: a restored source lacks what it had since its backup. That is at the target
                # alone, and would be taken for deleted once the new feed is the one that is known.
                self._ledger.release_all_deliveries()
                self._ledger.set_meta(RECOUNT_KEY, None)
                self._ledger.set_meta(SNAPSHOT_KEY, SNAPSHOT_PENDING)
                if not self._wait_after_reset():
                    raise
        return self._total

    def _begin(self) -> None:
        """Give a new ledger its first checkpoint, or note that a snapshot is to be made.

        Raises ConfigurationError when BRIDGE_START is beyond the end of the feed.
        """
        if self._ledger.checkpoint() is not None or self._ledger.meta(SNAPSHOT_KEY) is not None:
            return
        start = self._settings.start
        if start == "beginning":
            self._ledger.restart_at(0)
            self._ledger.set_meta(RECOUNT_KEY, LastRecount(0, 0).text())
        elif start == "snapshot":
            self._ledger.set_meta(SNAPSHOT_KEY, SNAPSHOT_PENDING)
        elif isinstance(start, int):
            wanted = max(0, start - 1)
            end = FeedEnd(self._source, overlap=self._overlap, wanted=wanted)
            ask_end(self._pipelines, end, self._total)
            _refuse_start_beyond(end, wanted)
            if end.place is not None:
                self._restart_at(end.place)
        else:
            end = FeedEnd(self._source, overlap=self._overlap, with_gaps=True)
            ask_end(self._pipelines, end, self._total)
            if end.place is not None:
                self._restart_at(end.place, self._gaps(end.place))

    def _snapshot(self) -> None:
        """Move everything that the target lacks, then follow from where the feed ended before.

        What arrives while we list is in the feed after that end. It is noted anew with each
        listing: the one that was cut short may have been of another feed.
        """
        if self._ledger.meta(SNAPSHOT_KEY) is None:
            return
        end = FeedEnd(self._source, overlap=self._overlap, with_gaps=True)
        ask_end(self._pipelines, end, self._total)
        if end.place is None:
            return
        gaps = self._gaps(end.place)
        known = KnownPlace(self._source, end.place, overlap=self._overlap)
        listing = Listing(self._source, page_size=self._settings.page_size, feed=self._source)
        with (
            closing(self._machinery.client(SideName.TARGET)) as target,
            closing(self._machinery.client(SideName.SOURCE)) as source,
            KnownTexts() as names,
        ):
            held = HeldInstances(
                target,
                names,
                asked_for=self._source.count_instances,
                look=partial(check_another_server, source, target),
            )
            ended = self._pipelines.run(
                Lacking(
                    ConfirmedListing(listing, known),
                    held,
                    partial(_tell_compared, self._observer, self._total),
                ),
                CommandJournal(self._ledger),
                self._total,
                phase="snapshot",
                throttle=self._pipelines.throttle_of(self._ledger),
                lost=_lost_files(self._ledger),
                forgotten_before=self._ledger.studies_forgotten_before(),
                settled=_settled(self._ledger),
                given_back=partial(_given_back, self._ledger),
            )
        if ended:
            # A row that becomes visible late may be of an instance that the listing lacked.
            ours_from = max(0, end.place.sequence - self._overlap)
            self._restart_at(end.place, gaps, ours_from=ours_from)
            self._ledger.set_meta(SNAPSHOT_KEY, None)

    def _note_gaps(self) -> None:
        """Note what may still become visible below a checkpoint from before gaps were recorded."""
        checkpoint = self._ledger.checkpoint()
        if checkpoint is None or self._ledger.meta(GAPS_NOTED_KEY) is not None:
            return
        end = FeedEnd(
            self._source,
            overlap=self._overlap,
            wanted=checkpoint,
            with_gaps=True,
            followed=self._ledger.recent(),
        )
        ask_end(self._pipelines, end, self._total)
        # Where the feed ends below the checkpoint, following it tells what that means.
        if end.place is not None and checkpoint <= end.last:
            self._ledger.commit(Entry(gaps=self._gaps(end.place)))
            self._ledger.set_meta(GAPS_NOTED_KEY, "1")

    def _follow(self) -> None:
        """Move what the feed tells of after the checkpoint, which follows what is settled.

        With recounts (BRIDGE_RECOUNT_INTERVAL_S) also what the feed has not told of.
        """
        checkpoint = self._ledger.checkpoint()
        if checkpoint is None:
            return
        until = self._present_end(checkpoint) if self._once else None
        if self._pipelines.stopping:
            return
        settings, clock = self._settings, self._clock
        journal = FollowJournal(
            self._ledger,
            overlap=self._overlap,
            clock=clock,
            gap_limits=settings.gap_limits(
                patience_s=settings.command_patience_s if self._once else None
            ),
        )
        feed = FollowFeed(
            self._source,
            position=checkpoint,
            page_size=settings.page_size,
            overlap=self._overlap,
            until=until,
            memory=journal.memory,
            lag=self._ledger.counter_lag(),
            look_back_every_s=LOOK_BACK_EVERY_S,
            steady_s=clock.steady_s,
        )
        run = partial(
            self._pipelines.run,
            total=self._total,
            phase="following",
            throttle=self._pipelines.throttle_of(self._ledger),
            lost=_lost_files(self._ledger),
            forgotten_before=self._ledger.studies_forgotten_before(),
            settled=_settled(self._ledger),
            given_back=partial(_given_back, self._ledger),
            retries=self._pipelines.retries_of(self._ledger, once=self._once),
        )
        if settings.recount_interval_s:
            with closing(self._machinery.client(SideName.TARGET)) as target:
                recount = Recount(
                    feed,
                    source=self._source,
                    target=target,
                    state_path=self._ledger.path,
                    record=load_last_recount(self._ledger),
                    beginning=Beginning(checkpoint, journal.floor),
                    every_s=settings.recount_interval_s,
                    once=self._once,
                    observer=self._observer,
                    now_s=clock.now_s,
                    steady_s=clock.steady_s,
                )
                with_found = JournalOfFound(journal, self._ledger, recount)
                run(recount, with_found, listener=recount)
        else:
            run(feed, WithUnnumbered(journal, self._ledger))
        self._total.gaps = journal.gaps.sequences

    def _present_end(self, checkpoint: int) -> int:
        """Ask up to where ``once`` is to follow."""
        end = FeedEnd(self._source, overlap=self._overlap, followed=self._ledger.recent())
        ask_end(self._pipelines, end, self._total)
        if end.place is None or end.place.sequence < checkpoint:
            # Its newest rows were deleted, or the source was another one for a moment: the first
            # page that has nothing behind it ends the feed, wherever that is.
            return WHEREVER
        return end.place.sequence

    def _restart_at(
        self, place: Place, gaps: Iterable[Gap] = (), *, ours_from: int | None = None
    ) -> None:
        """Write the checkpoint of a beginning, and what the feed is known again by."""
        self._ledger.restart_at(
            place.sequence,
            recent=place.recent,
            newest_date=place.newest_date,
            ours_from=ours_from,
            gaps=gaps,
        )
        begun = place.sequence if ours_from is None else ours_from
        self._ledger.set_meta(RECOUNT_KEY, LastRecount(begun, None).text())

    def _gaps(self, place: Place) -> tuple[Gap, ...]:
        """Return what may still become visible before a place."""
        now_at, limits = self._clock.now_s(), self._settings.gap_limits()
        gaps = []
        for gap in place.gaps:
            age_s = age_s_of(gap, feed_date=place.newest_date, now_at=now_at)
            if age_s < limits.age_s:
                gaps.append(Gap(gap.first, gap.last, now_at - age_s, gap.counted))
        return tuple(gaps[-limits.count :])

    def _is_confirmed(self) -> bool:
        """Look again at a feed that looks like another one; False when it is ours, or to stop.

        A snapshot has no place to know the feed again by: it is believed at once.
        """
        doubt, steady_s = self._doubt, self._clock.steady_s
        doubt.begin(steady_s())
        while (pause_s := doubt.pause_s(steady_s())) > 0:
            known = followed_place(self._ledger, self._source, overlap=self._overlap)
            if known is None or self._ledger.meta(SNAPSHOT_KEY) is not None:
                return True
            self._pipelines.wait(steady_s() + pause_s)
            ours = self._looks_like(known)
            if ours is None:
                return False
            if doubt.look(steady_s(), ours=ours):
                self._observer.on_event(FeedTrusted())
                return False
        return True

    def _looks_like(self, known: KnownPlace) -> bool | None:
        """Look, on new connections, whether the source has the known feed; None to stop."""
        again = LookAgain(known, renew=self._source.close)
        journal = CommandJournal(DryRunLedger())
        try:
            ended = self._pipelines.run(again, journal, self._total, phase="starting")
        except FeedWentBackwards:
            return False
        return True if ended else None

    def _wait_after_reset(self) -> bool:
        """Wait before a feed that was reset is looked at again; False when patience is over."""
        now_s, patience_s = self._clock.steady_s(), self._pipelines.patience_s
        self._pipelines.wait(now_s + self._resets.note(now_s, chance=self._machinery.chance()))
        return patience_s is None or self._resets.lasted_s(self._clock.steady_s()) <= patience_s


def _tell_compared(observer: Observer, total: Summary, instances: int, lacking: int) -> None:
    """Tell what of a page the target holds, and add it up."""
    compared = ListCompared(instances, lacking)
    total.count(compared)
    observer.on_event(compared)


def ask_end(pipelines: Pipelines, end: FeedEnd, total: Summary) -> None:
    """Ask where the feed ends, as patiently as for everything else; nothing is moved or written.

    ``end`` has no place after it when a stop was asked for.
    """
    pipelines.run(end, CommandJournal(DryRunLedger()), total, phase="starting")


def followed_place(ledger: Ledger, source: FeedClient, *, overlap: int) -> KnownPlace | None:
    """Return what the feed that was followed is known again by; None before the first checkpoint.

    ``overlap``: BRIDGE_FEED_OVERLAP.
    """
    checkpoint = ledger.checkpoint()
    if checkpoint is None:
        return None
    rows = tuple((s, i) for s, i in ledger.recent().items() if s <= checkpoint)
    date = ledger.meta(NEWEST_DATE_KEY) or ""
    place = Place(checkpoint, rows, date, lag=ledger.counter_lag())
    return KnownPlace(source, place, overlap=overlap)


def look_at_feed(ledger: Ledger, source: FeedClient, *, overlap: int) -> None:
    """Make sure that a source has the feed that was followed, if one was.

    ``overlap``: BRIDGE_FEED_OVERLAP. Raises SourceError, FeedWentBackwards.
    """
    known = followed_place(ledger, source, overlap=overlap)
    if known is not None:
        known.look()


def _confirm_s(settings: Settings, *, once: bool) -> float:
    """Return for how long a feed that looks like another one is looked at again."""
    confirm_s = settings.feed_confirm_s
    return min(confirm_s, settings.command_patience_s) if once else confirm_s


def _refuse_start_beyond(end: FeedEnd, wanted: int) -> None:
    if end.place is not None and wanted > end.last:
        raise ConfigurationError(
            f"BRIDGE_START={wanted + 1} is beyond the source's feed: its last change is "
            f"{end.last}. Nothing was done.",
            advice=f"Set it to {end.last + 1} at most, or to now, beginning or snapshot.",
        )


def _lost_files(ledger: Ledger) -> list[str]:
    """Return the first few that are parked since a server did not do its part for them."""
    parked = ledger.parked(reason=Reason.SERVER_REFUSES_INSTANCE)
    return [one.move.instance_id for one in islice(parked, LISTED_MAX)]


def _given_back(ledger: Ledger) -> str:
    """Return the instance that retention gave back to the source at last; "" for none."""
    with suppress(StateError):  # then it counts as one that came back
        return given_back(ledger)
    return ""


def _settled(ledger: Ledger) -> list[str]:
    """Return the instances of the last rows that are settled: one that comes again may return."""
    checkpoint = ledger.checkpoint()
    if checkpoint is None:
        return []
    above = set(ledger.settled_above())
    return [i for s, i in ledger.recent().items() if s <= checkpoint or s in above]
