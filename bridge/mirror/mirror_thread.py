"""Verifies both servers beside the bridge, in a thread of its own; also for ``check --repair``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.checks.pixels import ImageComparer, ImageComparison
from bridge.config import Settings
from bridge.errors import BridgeError
from bridge.events import Event, Observer, Progress, VerificationFailed, VerificationWorks
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import (
    is_asked_for,
    last_verification,
    note_answered,
    under_way,
)
from bridge.log import log
from bridge.mirror.copy_deletion import CopyDeletion, Grace
from bridge.mirror.judge_copy import REPAIRED, REPLACED, CopyState
from bridge.mirror.repair import Repairer, RepairLimit, is_work_left
from bridge.mirror.told_instances import ToldInstances
from bridge.mirror.verify import Verification, VerificationPace, VerificationRules
from bridge.model import Job, Move, Outcome, Task
from bridge.monitoring.health import SOURCE_DOUBTS, counted
from bridge.orthanc.carry_client import CarryClient
from bridge.orthanc.session import SideClient
from bridge.pipeline.holds import PAUSED_KEY
from bridge.pipeline.pacing import Allowance, Bucket
from bridge.pipeline.runtime import Clock
from bridge.retention.age_clock import AgeClock
from bridge.retention.other_bridges import awaits_notes_at_target
from bridge.worker.pool import OrderedPool
from bridge.worker.prepare import Preparation, prepare

LOOK_EVERY_S = 1.0
"""While a pause or quiet hours hold; and whether the source has told of deletions."""
PAUSE_S = 30.0
"""Between two looks whether a verification is due; after a failure, ten times as long at most."""
FAILURES_MAX = 10
SHARE = 0.03
"""So much of the time is worked while instances are delivered: they go first. At each moment one
process at most works for it, here or at a server, so it takes no more of any of them."""
SLOWEST_S = 2.5
"""Instances a second that are looked at all the same: servers that are far away only wait."""
TOLD_DELETED_MAX = 10_000
LOOKED_AT_ONCE = 100


class UnderWay:
    """An observer that knows whether instances are being delivered."""

    def __init__(self) -> None:
        self._under_way = False

    def on_event(self, event: Event) -> None:
        """Nothing to note."""

    def on_progress(self, progress: Progress) -> None:
        """Take the newest report."""
        self._under_way = bool(progress.in_flight)

    def under_way(self) -> bool:
        """Tell whether some are; safe in any thread."""
        return self._under_way


class OperatorsPace:
    """Rates, pause and quiet hours. ``rate_s``: instances a second, 0 for no limit.

    ``heeds_hold``: a person's command is not held by a pause. ``gives_way``: tells whether
    something is under way that goes first. Then SHARE of the time is worked, or SLOWEST_S instances
    a second are looked at, whatever is more.
    """

    def __init__(
        self,
        allowance: Allowance,
        *,
        rate_s: float,
        clock: Clock,
        stop: threading.Event,
        heeds_hold: bool = True,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        rates = [rate for rate in (rate_s, allowance.instances_s) if rate]
        self._bucket = Bucket(min(rates, default=0.0), now_s=clock.steady_s())
        self._schedule = allowance.schedule if heeds_hold else None
        self._heeds_hold = heeds_hold
        self._gives_way = gives_way
        self._clock = clock
        self._let_through: tuple[float, int] | None = None
        """When the last ones were let through, and how many."""
        self._stop = stop

    def take(self, ledger: Ledger, instances: int) -> bool:
        """Wait until so many instances may be looked at; False when it is to end."""
        come_at_s = self._clock.steady_s()
        gives_way_until_s = come_at_s + self._rest_s(come_at_s)
        while not self._stop.is_set():
            if self._held(ledger):
                self._stop.wait(LOOK_EVERY_S)
                continue
            now_s = self._clock.steady_s()
            wait_s = self._bucket.ready_in_s(now_s=now_s)
            if self._gives_way():
                wait_s = max(wait_s, gives_way_until_s - now_s)
            if wait_s <= 0:
                self._bucket.charge(instances, now_s=now_s)
                self._let_through = now_s, instances
                return True
            self._stop.wait(min(wait_s, LOOK_EVERY_S))
        return False

    def _rest_s(self, now_s: float) -> float:
        """Return for how long others go first, after what was let through last was done."""
        if self._let_through is None:
            return 0.0
        at_s, instances = self._let_through
        worked_s = now_s - at_s
        return min(worked_s / SHARE - worked_s, max(0.0, instances / SLOWEST_S - worked_s))

    def _held(self, ledger: Ledger) -> bool:
        if self._heeds_hold and ledger.meta(PAUSED_KEY) is not None:
            return True
        return self._schedule is not None and self._schedule.quiet(self._clock.now_s())


class MirrorWorkers:
    """Processes that fetch and decode for a verification: started when they are needed.

    A context manager: it owns them. For one thread.
    """

    def __init__(self, job: Job, *, memory_bytes: int) -> None:
        self._job = job
        self._memory_bytes = memory_bytes
        self._stack = ExitStack()
        self._comparer: ImageComparer | None = None
        self._pool: OrderedPool[Preparation, Outcome] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._comparer = self._pool = None
        self._stack.close()
        self._stack = ExitStack()

    def comparisons(self, asked: Iterable[tuple[str, str]]) -> Iterator[ImageComparison]:
        """Compare the files of instances. Raises SideError."""
        wanted = list(asked)
        if not wanted:
            return
        if self._comparer is None:
            comparer = ImageComparer(
                self._job, workers=1, memory_bytes=self._memory_bytes, with_content=True
            )
            self._comparer = self._stack.enter_context(comparer)
        yield from self._comparer.comparisons(wanted)

    def prepare(self, instance_id: str, path: Path) -> Outcome:
        """Write what would be sent of an instance."""
        if self._pool is None:
            pool = OrderedPool(
                prepare,
                workers=1,
                memory_bytes=self._memory_bytes,
                timeout_s=self._job.task_timeout_s,
            )
            self._pool = self._stack.enter_context(pool)
            self._pool.start()
        work = Preparation(Task(Move(instance_id), self._job), path)
        ((_, end),) = self._pool.results([work])
        return end


@dataclass(frozen=True, slots=True)
class MirrorParts:
    """What a verification is made of, whoever asks for it. ``repairs``: states that are repaired.

    ``token``: of this process, in its notes at the servers.

    ``recorded`` tells whether all that was reported is where it has to be on record.
    """

    settings: Settings
    token: str
    source: SideClient
    target: CarryClient
    workers: MirrorWorkers
    pace: VerificationPace
    observer: Observer
    recorded: Callable[[], bool]
    look_at_feed: Callable[[Ledger], None]
    repairs: frozenset[CopyState]
    share: float
    keeps_place: bool = True
    beyond_limit: bool = False

    def verification(self, ledger: Ledger) -> Verification:
        """Make a verification for a ledger."""
        settings, job = self.settings, self.settings.job()
        limit = RepairLimit(1.0 if self.beyond_limit else settings.repair_share)
        repairer = Repairer(
            self.source,
            self.target,
            self.workers,
            limit=limit,
            look_at_feed=self.look_at_feed,
            vouched=settings.servers_are_distinct,
            replaces=bool(self.repairs & REPLACED),
            keeps_evidence=job.keeps_evidence,
            signs=job.signs,
            deadline_s=job.task_timeout_s,
            recorded=self.recorded,
            report=self.observer.on_event,
        )
        after_s = settings.mirror_deletions_after_s
        deletion = None
        if after_s is not None and self.keeps_place:
            deletion = CopyDeletion(
                self.source,
                self.target,
                limit=limit,
                be_sure=repairer.be_sure,
                awaits_notes=lambda ledger, age: awaits_notes_at_target(
                    ledger,
                    self.target,
                    now=age,
                    accepted=settings.accepted_risks,
                    token=self.token,
                ),
                accepted=settings.accepted_risks,
                recorded=self.recorded,
                report=self.observer.on_event,
            )
        return Verification(
            self.source,
            self.target,
            job=job,
            ledger=ledger,
            rules=VerificationRules(
                self.share, self.repairs, Grace(after_s), may_vanish=settings.target_may_lose
            ),
            pace=self.pace,
            comparer=self.workers,
            repairer=repairer,  # also where nothing is repaired: a killed process may have begun
            deletion=deletion,
            look_at_feed=self.look_at_feed,
            age=AgeClock().now_s,
            page_size=settings.page_size,
            keeps_place=self.keeps_place,
            report=self.observer.on_event,
        )


REPAIRS = {
    "off": frozenset[CopyState](),
    "missing": frozenset({CopyState.MISSING}),
    "all": REPAIRED,
}
"""What BRIDGE_REPAIR means."""


class ToldDeleted(ToldInstances):
    """Instances that the source says it has deleted."""

    def __init__(self) -> None:
        super().__init__(TOLD_DELETED_MAX)


class MirrorThread:
    """Verifies when it is due, until it is stopped.

    ``told_deleted``: looked at before, one by one.

    ``every_s`` None: it only ends the repair that a killed process has begun. ``make`` makes a
    verification for a ledger, with the workers and the pace.
    """

    def __init__(
        self,
        *,
        state_path: Path,
        every_s: float | None,
        workers: MirrorWorkers,
        make: Callable[[Ledger], Verification],
        observer: Observer,
        stop: threading.Event,
        told_deleted: ToldDeleted | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._state_path = state_path
        self._every_s = every_s
        self._workers = workers
        self._make = make
        self._observer = observer
        self._stop = stop
        self._told_deleted = ToldDeleted() if told_deleted is None else told_deleted
        self._now_s = now_s
        self._thread = threading.Thread(target=self._work, name="verification", daemon=True)
        self._said = ""
        self._failures = 0
        self._has_asked = False

    def start(self) -> None:
        """Verify from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the present instance and end."""
        self._stop.set()
        self._thread.join(timeout=timeout_s)

    def is_due(self, ledger: Ledger) -> bool:
        """Tell whether a verification is to begin, or to be gone on with."""
        if self._every_s is None or ledger.checkpoint() is None:
            return False  # nobody would know the source again
        if under_way(ledger) is not None or is_asked_for(ledger):
            return True
        last = last_verification(ledger)
        # Begun after now: the clock was ahead then, and may have been by years.
        return last is None or not 0 <= self._now_s() - last.begun_at < self._every_s

    def look_at_source(self) -> None:
        """Ask the source once whether what it lacks may be deleted. Raises SideError, StateError.

        Long before anything is, so that its answer is in the log of each start, and in /health.
        """
        if self._has_asked or self._every_s is None:
            return
        with Ledger(self._state_path, create=False) as ledger:
            doubt = self._make(ledger).look_at_source()
        self._has_asked = True
        if doubt is not None:
            text, advice = SOURCE_DOUBTS[doubt]
            log(logging.WARNING, "deletions_refused", f"{text} {advice}", doubt=str(doubt))

    def verify_once(self) -> bool:
        """Do what is due; False where it did not come to its end. Raises as Verification.run."""
        with Ledger(self._state_path, create=False) as ledger:
            due = self.is_due(ledger)
            if not (due or is_work_left(ledger)):
                return True
            with self._workers:
                verification = self._make(ledger)
                if not due:
                    return verification.resume()
                ended = verification.run()
            if ended:
                note_answered(ledger)
            return ended

    def look_at_deleted(self) -> None:
        """Look at what the source says it has deleted. Raises as Verification.run."""
        while not self._stop.is_set() and (taken := self._told_deleted.take(LOOKED_AT_ONCE)):
            try:
                with Ledger(self._state_path, create=False) as ledger:
                    noted = 0
                    if self._every_s is not None and ledger.checkpoint() is not None:
                        noted = self._make(ledger).look_for_lack(taken)
            except (BridgeError, OSError):
                self._told_deleted.add(taken)
                raise
            if noted:
                text = (
                    "the source reported deletions, and lacks "
                    f"{counted(noted, 'delivered instance')}"
                )
                log(logging.INFO, "lack_noted", text, instances=noted)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._pause(self._turn())
        finally:
            if not self._stop.is_set():
                # A bug in the bridge: the log tells where. Nobody would notice otherwise.
                text = "its thread has ended; restart the bridge"
                self._observer.on_event(VerificationFailed(text))

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until the source tells of a deletion, unless something has failed."""
        left_s = seconds
        while left_s > 0 and not self._stop.wait(min(left_s, LOOK_EVERY_S)):
            left_s -= LOOK_EVERY_S
            if len(self._told_deleted) and not self._failures:
                return

    def _turn(self) -> float:
        """Do what is due; returns for how long to wait then, seconds."""
        try:
            self.look_at_source()
            self.look_at_deleted()
            ended = self.verify_once()
        except (BridgeError, OSError) as exc:
            self._failures = min(self._failures + 1, FAILURES_MAX)
            said = str(exc) if isinstance(exc, BridgeError) else f"TMPDIR: {exc.strerror}"
            self._observer.on_event(VerificationFailed(said))
            if said != self._said:
                self._said = said
                log(
                    logging.ERROR,
                    "verification_failed",
                    f"the verification of both servers cannot continue: {said}",
                )
            return PAUSE_S * self._failures
        if not ended:
            self._failures = min(self._failures + 1, FAILURES_MAX)
            return PAUSE_S * self._failures
        self._failures, self._said = 0, ""
        self._observer.on_event(VerificationWorks())
        return min(PAUSE_S, max(1.0, (self._every_s or PAUSE_S) / 4))
