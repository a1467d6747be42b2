"""What holds the bridge back although it could go on: pause, quiet hours, rate limits.

The pipeline asks before it starts an instance and says afterwards what it cost.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from bridge.core.errors import StateError
from bridge.core.model import Delivered, Outcome
from bridge.core.pacing import BITS_A_MEGABIT, Allowance, Bucket
from bridge.ledger import Ledger
from bridge.neighbour import MONITOR_KEY, Neighbour
from bridge.runtime import Clock

PAUSED_KEY = "paused_at"
"""Ledger: since when the operator has paused the bridge, epoch seconds."""

LOOK_EVERY_S = 1.0


class Hold(StrEnum):
    """Why nothing is started now."""

    NONE = ""
    PAUSED = "paused"
    QUIET_HOURS = "quiet_hours"
    RATE_LIMIT = "rate_limit"
    GIVES_WAY = "gives_way"


class Brake(Protocol):
    """Asked by the pipeline before each start."""

    def hold(self) -> Hold:
        """Why nothing may be started now; NONE when it may."""

    def hold_s(self) -> float:
        """In how many seconds to ask again."""

    def started(self) -> None:
        """Note that an instance was started."""

    def ended(self, outcome: Outcome) -> None:
        """Note what an instance cost."""


class OperatorsBrake:
    """Rate limits for everything; pause and quiet hours for what no person has just asked for.

    ``ledger`` None: a command that a person started, which a pause does not stop.
    """

    def __init__(self, allowance: Allowance, *, ledger: Ledger | None, clock: Clock) -> None:
        now_s = clock.steady_s()
        self._schedule = allowance.schedule if ledger is not None else None
        self._ledger = ledger
        self._clock = clock
        self._instances = Bucket(allowance.instances_s, now_s=now_s)
        self._bits = Bucket(allowance.mbit_s * BITS_A_MEGABIT, now_s=now_s)
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

    def _rate_s(self) -> float:
        now_s = self._clock.steady_s()
        return max(self._instances.ready_in_s(now_s=now_s), self._bits.ready_in_s(now_s=now_s))

    def _look(self) -> Hold:
        now_s = self._clock.steady_s()
        if self._ledger is not None and now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._standing = self._standing_hold(self._ledger)
        return self._standing

    def _standing_hold(self, ledger: Ledger) -> Hold:
        try:
            paused = ledger.meta(PAUSED_KEY) is not None
        except StateError:
            # The pipeline meets the same trouble when it writes, and reports it.
            return self._standing
        if paused:
            return Hold.PAUSED
        quiet = self._schedule is not None and self._schedule.quiet(self._clock.now_s())
        return Hold.QUIET_HOURS if quiet else Hold.NONE


class CourteousBrake:
    """For a command beside a running bridge: fresh arrivals before replay.

    While the running bridge has instances under way, one instance of the command at a time is
    moved: slow, and never at a standstill.
    """

    def __init__(self, brake: Brake, neighbour: Neighbour, *, ledger: Ledger, clock: Clock) -> None:
        self._brake = brake
        self._neighbour = neighbour
        self._ledger = ledger
        self._clock = clock
        self._looked_s = float("-inf")
        self._under_way = 0

    def hold(self) -> Hold:
        """Why nothing may be started now."""
        self._look()
        if self._under_way and self._neighbour.busy:
            return Hold.GIVES_WAY
        return self._brake.hold()

    def hold_s(self) -> float:
        """In how many seconds to ask again."""
        gives_way = self._under_way and self._neighbour.busy
        return LOOK_EVERY_S if gives_way else self._brake.hold_s()

    def started(self) -> None:
        """Note that an instance was started."""
        self._under_way += 1
        self._brake.started()

    def ended(self, outcome: Outcome) -> None:
        """Note what an instance cost."""
        self._under_way -= 1
        self._brake.ended(outcome)

    def _look(self) -> None:
        now_s = self._clock.steady_s()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            self._neighbour.at(self._ledger.meta(MONITOR_KEY))
        except StateError:
            # The pipeline meets the same trouble when it writes, and reports it.
            return
