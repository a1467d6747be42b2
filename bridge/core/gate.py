"""Whether a server may be used now: open, closed, or on trial after an outage.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from enum import StrEnum

from bridge.core.model import SideFailed, SideName
from bridge.core.policy import backoff_s


class GateState(StrEnum):
    """How much is let through."""

    OPEN = "open"
    TRIAL = "trial"
    CLOSED = "closed"


class Gate:
    """One server's gate.

    It begins CLOSED and due for a probe: a server is not believed in before it was seen.

    OPEN lets everything through. A failure closes it; after a pause the server is probed, and
    when the probe succeeds the gate is on TRIAL: one instance at a time, until one is served.
    A server that answers the probe and still refuses instances (storage full, a forbidden
    route) thus gets one request per pause, and a server that has just come up is not flooded.
    """

    def __init__(self, side: SideName, *, pause_first_s: float, pause_longest_s: float) -> None:
        self.side = side
        self.state = GateState.CLOSED
        self.failure: SideFailed | None = None
        self.closed_at_s: float | None = None
        self.answered_at_s = 0.0
        self.probe_at_s = 0.0
        self.only_answers = False
        """Its last failure was at work, not at a probe: that it answers a probe says nothing."""
        self._pause_first_s = pause_first_s
        self._pause_longest_s = pause_longest_s
        self._failures = 0

    def fail(self, failure: SideFailed, *, now_s: float, chance: float) -> bool:
        """Close the gate and plan the next probe. True when it was not closed before.

        Instances that were in flight when the outage began fail one after another: only the
        first lengthens the pause.
        """
        fresh = self.state is not GateState.CLOSED or self.closed_at_s is None
        self.failure = failure
        if self.closed_at_s is None:
            self.closed_at_s = now_s
        if fresh:
            self.state = GateState.CLOSED
            self.only_answers = True
            self._plan_probe(now_s, chance)
        return fresh

    def probe_failed(self, failure: SideFailed, *, now_s: float, chance: float) -> None:
        """Stay closed and plan the next probe."""
        self.failure = failure
        self.only_answers = False
        self._plan_probe(now_s, chance)

    def probe_succeeded(self, *, now_s: float) -> None:
        """Go on trial: the server answers; whether it serves is still to be seen."""
        if self.state is GateState.CLOSED:
            self.state = GateState.TRIAL
            self.answered_at_s = now_s

    def served(self) -> bool:
        """Note that the server did its part for an instance. True when that opened the gate.

        A closed gate stays closed: the answer may be older than the failure.
        """
        if self.state is not GateState.TRIAL:
            return False
        self.state = GateState.OPEN
        self.only_answers = False
        self.failure = None
        self.closed_at_s = None
        self._failures = 0
        return True

    def usable(self) -> bool:
        """Whether the server is to be told as usable.

        On trial it is believed to be back if it was silent before, and not if it answered probes
        all the time and failed at work (storage full, uploads that hang): else that outage would
        be told as none for as long as each trial takes.
        """
        if self.state is GateState.TRIAL:
            return not self.only_answers
        return self.state is GateState.OPEN

    def allows(self, in_flight: int) -> bool:
        """Tell whether one more instance may be started with ``in_flight`` under way."""
        if self.state is GateState.TRIAL:
            return in_flight == 0
        return self.state is GateState.OPEN

    def calm(self, *, now_s: float, for_s: float) -> bool:
        """Tell whether the server has been answering for so long without an outage."""
        return self.state is not GateState.CLOSED and now_s - self.answered_at_s >= for_s

    def probe_due(self, now_s: float) -> bool:
        """Tell whether it is time to ask the server again."""
        return self.state is GateState.CLOSED and now_s >= self.probe_at_s

    def _plan_probe(self, now_s: float, chance: float) -> None:
        self._failures += 1
        self.probe_at_s = now_s + backoff_s(
            self._failures,
            first_s=self._pause_first_s,
            longest_s=self._pause_longest_s,
            chance=chance,
        )
