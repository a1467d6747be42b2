"""Why nothing is started although both servers are well: pause, quiet hours, rate limits.

The pipeline asks before it starts an instance, and says afterwards what it cost.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from bridge.errors import StateError
from bridge.model import Delivered, Outcome
from bridge.pipeline.pacing import BITS_A_MEGABIT, Allowance, Bucket
from bridge.pipeline.runtime import Clock

PAUSED_KEY = "paused_at"
"""Ledger: since when the operator has paused the bridge, epoch seconds."""
MONITOR_KEY = "monitor_url"
"""Ledger: where the running bridge serves its status."""

LOOK_EVERY_S = 1.0


class Hold(StrEnum):
    """Why nothing is started now."""

    NONE = ""
    PAUSED = "paused"
    QUIET_HOURS = "quiet_hours"
    RATE_LIMIT = "rate_limit"
    GIVES_WAY = "gives_way"


class LedgerValues(Protocol):
    """What is needed of the ledger here: what commands write there for a running bridge."""

    def meta(self, key: str) -> str | None:
        """Return a value by its key. Raises StateError."""


class RunningBridge(Protocol):
    """The bridge that runs on the same ledger as a command."""

    @property
    def busy(self) -> bool:
        """Whether it had instances under way when it was asked last."""

    def serves_at(self, url: str | None) -> None:
        """Note where it serves its status; None where no bridge runs. Never blocks."""


class Throttle(Protocol):
    """Says whether an instance may be started now, apart from the servers' state."""

    def hold(self) -> Hold:
        """Why nothing may be started now; NONE when it may."""

    def hold_s(self) -> float:
        """In how many seconds to ask again."""

    def started(self) -> None:
        """Note that an instance was started."""

    def ended(self, outcome: Outcome) -> None:
        """Note what an instance cost."""


class OperatorThrottle:
    """Rate limits hold for everything; pause and quiet hours only for what runs by itself.

    ``ledger`` None: a person has started this command, and a pause does not stop it.
    """

    def __init__(self, allowance: Allowance, *, ledger: LedgerValues | None, clock: Clock) -> None:
        now_s = clock.steady_s()
        self._schedule = allowance.schedule if ledger is not None else None
        self._ledger = ledger
        self._clock = clock
        self._instances = Bucket(allowance.instances_s, now_s=now_s)
        self._allowance = allowance
        self._bits = Bucket(self._bits_s(), now_s=now_s)
        self._looked_s = float("-inf")
        self._standing = Hold.NONE

    def hold(self) -> Hold:
        """Why nothing may be started now."""
        standing = self._look()
        if standing is not Hold.NONE:
            return standing
        return Hold.RATE_LIMIT if self._rate_s() > 0 else Hold.NONE

    def hold_s(self) -> float:
        """In how many seconds to ask again."""
        return LOOK_EVERY_S if self._standing is not Hold.NONE else self._rate_s()

    def started(self) -> None:
        """Note that an instance was started."""
        self._instances.charge(1, now_s=self._clock.steady_s())

    def ended(self, outcome: Outcome) -> None:
        """Note what an instance cost."""
        if isinstance(outcome, Delivered):
            bits = 8 * (outcome.source_bytes + outcome.target_bytes)
            self._bits.charge(bits, now_s=self._clock.steady_s())

    def _bits_s(self) -> float:
        return self._allowance.mbit_s_at(self._clock.now_s()) * BITS_A_MEGABIT

    def _rate_s(self) -> float:
        now_s = self._clock.steady_s()
        if self._allowance.timetable is not None:
            self._bits.change(self._bits_s(), now_s=now_s)
        return max(self._instances.ready_in_s(now_s=now_s), self._bits.ready_in_s(now_s=now_s))

    def _look(self) -> Hold:
        now_s = self._clock.steady_s()
        if self._ledger is not None and now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._standing = self._standing_hold(self._ledger)
        return self._standing

    def _standing_hold(self, ledger: LedgerValues) -> Hold:
        try:
            paused = ledger.meta(PAUSED_KEY) is not None
        except StateError:
            # The pipeline meets the same error when it writes, and reports it.
            return self._standing
        if paused:
            return Hold.PAUSED
        quiet = self._schedule is not None and self._schedule.quiet(self._clock.now_s())
        return Hold.QUIET_HOURS if quiet else Hold.NONE


class CommandThrottle:
    """For a command beside a running bridge: new arrivals go before a replay.

    While the running bridge has instances under way, the command moves one instance at a time. So
    it is slow, and never stands still.
    """

    def __init__(
        self, throttle: Throttle, running: RunningBridge, *, ledger: LedgerValues, clock: Clock
    ) -> None:
        self._throttle = throttle
        self._running = running
        self._ledger = ledger
        self._clock = clock
        self._looked_s = float("-inf")
        self._under_way = 0

    def hold(self) -> Hold:
        """Why nothing may be started now."""
        self._look()
        if self._under_way and self._running.busy:
            return Hold.GIVES_WAY
        return self._throttle.hold()

    def hold_s(self) -> float:
        """In how many seconds to ask again."""
        gives_way = self._under_way and self._running.busy
        return LOOK_EVERY_S if gives_way else self._throttle.hold_s()

    def started(self) -> None:
        """Note that an instance was started."""
        self._under_way += 1
        self._throttle.started()

    def ended(self, outcome: Outcome) -> None:
        """Note what an instance cost."""
        self._under_way -= 1
        self._throttle.ended(outcome)

    def _look(self) -> None:
        now_s = self._clock.steady_s()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            self._running.serves_at(self._ledger.meta(MONITOR_KEY))
        except StateError:
            # The pipeline meets the same error when it writes, and reports it.
            return
