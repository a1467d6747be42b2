"""Deletes at the source what is old enough, in a thread beside the bridge or at its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from bridge.errors import BridgeError
from bridge.events import (
    Event,
    FeedDoubted,
    FeedReset,
    FeedTrusted,
    Observer,
    Progress,
    SideDown,
    SideStillDown,
    SideUp,
    SourceDeletes,
    SourceSwept,
    SweepFailed,
    SweepWaits,
    SweepWorks,
)
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.pipeline.holds import PAUSED_KEY, Hold
from bridge.pipeline.pacing import Allowance, Bucket
from bridge.pipeline.runtime import Clock
from bridge.retention.age_clock import AgeClock
from bridge.retention.bridge_notes import NOTES_AWAITED
from bridge.retention.held_deletion import FATE_AWAITED, FATE_AWAITED_TEXT, ON_TRIAL
from bridge.retention.limits_and_risks import RetentionRules
from bridge.retention.protocols import HoldingServer, KeepingServer
from bridge.retention.sweep import Sweep, Sweeper

PAUSE_S = 30.0
"""Between sweeps that found nothing to do; a server that is down is left alone so long too."""
HOLD_PAUSE_S = 1.0
"""Pause after a sweep that the limit of instances a second held back, or a deletion on trial; with
``run --once`` also after one that waits for the notes of other bridges."""


class Trouble:
    """An observer that counts the troubles of pipeline, probes and sweeps. For any thread.

    What was proved before a trouble is not believed after it: neither by a sweep, nor by who makes
    sure that source and target are two servers.
    """

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()
        self.feed_doubt = ""
        """Why the source's feed looks like another one; "" when it does not."""

    def count(self) -> int:
        """Return a number that changes with each trouble."""
        return self._count

    def on_event(self, event: Event) -> None:
        """Count an outage, its end, another feed, and a sweep that fails or spares an instance."""
        match event:
            case FeedDoubted(message=message):
                self.feed_doubt = message
            case FeedTrusted() | FeedReset():
                self.feed_doubt = ""
            case SideDown() | SideStillDown() | SideUp() | SweepFailed():
                pass
            case SourceSwept(differing=differing) if differing:
                pass
            case _:
                return
        with self._lock:
            self._count += 1

    def on_progress(self, progress: Progress) -> None:
        """Do nothing: what matters is an event."""


class OperatorsHold:
    """Pause, quiet hours and BRIDGE_MAX_INSTANCES_S, asked before each deletion."""

    def __init__(self, allowance: Allowance, clock: Clock) -> None:
        self._schedule = allowance.schedule
        self._clock = clock
        self._instances = Bucket(allowance.instances_s, now_s=clock.steady_s())

    def __call__(self, ledger: Ledger) -> str:
        """Say why nothing may be deleted now, or "". Raises StateError."""
        if ledger.meta(PAUSED_KEY) is not None:
            return Hold.PAUSED
        if self._schedule is not None and self._schedule.quiet(self._clock.now_s()):
            return Hold.QUIET_HOURS
        if self._instances.ready_in_s(now_s=self._clock.steady_s()) > 0:
            return Hold.RATE_LIMIT
        return ""

    def note(self, event: Event) -> None:
        """Charge for a deletion."""
        if not isinstance(event, SourceDeletes):
            return
        self._instances.charge(1, now_s=self._clock.steady_s())


class SweepRunner:
    """Runs sweeps: in a thread of its own while the bridge runs, or all that are due at its end."""

    def __init__(
        self,
        *,
        state_path: Path,
        source: KeepingServer,
        target: HoldingServer,
        rules: RetentionRules,
        token: str,
        observer: Observer,
        look_at_feed: Callable[[Ledger], None],
        hold: OperatorsHold,
        trouble: Callable[[], int],
        recorded: Callable[[], bool],
        clock: AgeClock | None = None,
    ) -> None:
        self._state_path = state_path
        self._rules = rules
        self._observer = observer
        self._clock = clock or AgeClock()
        self._hold = hold
        self._stop = threading.Event()
        self._sweeper = Sweeper(
            source,
            target,
            rules,
            token=token,
            look_at_feed=look_at_feed,
            hold=hold,
            trouble=trouble,
            recorded=recorded,
            report=self._deletes,
            stopping=self._stop.is_set,
        )
        self._thread = threading.Thread(target=self._work, name="sweeps", daemon=True)
        self._said = ""

    def start(self) -> None:
        """Sweep from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the present instance and end."""
        self._stop.set()
        self._thread.join(timeout=timeout_s)

    def sweep_once(self) -> Sweep:
        """Do one batch and report it. Raises as ``Sweeper.sweep`` does.

        Nothing before the feed has a place in the ledger: nobody would know it again.
        """
        done = Sweep()
        try:
            with Ledger(self._state_path, create=False) as ledger:
                now = self._clock.now_s(ledger)
                if ledger.checkpoint() is not None:
                    self._sweeper.sweep(ledger, now=now, done=done)
        finally:
            if done.deleted or done.spared:
                self._observer.on_event(SourceSwept(done.deleted, done.spared))
        return done

    def sweep_all(self, stopping: Callable[[], bool]) -> None:
        """Do batch after batch until nothing is due. Raises as ``Sweeper.sweep`` does."""
        while not stopping():
            done = self.sweep_once()
            if done.hold in (Hold.RATE_LIMIT, NOTES_AWAITED, ON_TRIAL):
                self._stop.wait(HOLD_PAUSE_S)
            elif not done.more:
                if done.hold:
                    log(logging.INFO, "sweep_held", f"nothing more is deleted now: {done.hold}")
                return

    def _deletes(self, event: Event) -> None:
        self._hold.note(event)
        self._observer.on_event(event)

    def _work(self) -> None:
        try:
            self._sweep_on()
        finally:
            if not self._stop.is_set():
                # A bug in the bridge: the log tells where. Nobody would notice otherwise.
                self._observer.on_event(SweepFailed("its thread has ended; restart the bridge"))

    def _sweep_on(self) -> None:
        while not self._stop.is_set():
            pause_s = min(PAUSE_S, max(1.0, self._rules.retention_s / 4))
            try:
                done = self.sweep_once()
                if done.hold == FATE_AWAITED:
                    # It does not work yet, and what failed before is over: this is the reason now.
                    self._observer.on_event(SweepWaits(FATE_AWAITED_TEXT))
                else:
                    self._said = ""
                    self._observer.on_event(SweepWorks())
                if done.more:
                    continue
                if done.hold in (Hold.RATE_LIMIT, ON_TRIAL):
                    pause_s = HOLD_PAUSE_S
            except BridgeError as exc:
                # Not always met by the pipeline too: a login may read and not delete.
                self._observer.on_event(SweepFailed(str(exc)))
                if str(exc) != self._said:
                    self._said = str(exc)
                    log(logging.ERROR, "sweep_failed", f"nothing is deleted at present: {exc}")
            self._stop.wait(pause_s)
