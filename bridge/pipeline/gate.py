"""Whether a server may be used now: open, closed, or on trial after an outage.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from enum import StrEnum

from bridge.feed.polling import backoff_s
from bridge.model import SideFailed, SideName

TRIAL_SHARE = 0.1
"""A server that answers probes and fails at work is tried again after this share of the time that
the outage has lasted. So attempts that cannot succeed become rarer, whatever the poll interval."""
TRIAL_LONGEST_S = 60.0
HURRY_GAP_S = 1.0
"""An instance that was never tried is tried at once, one at a time, but no sooner after the last
failure than this. The time doubles with each such try that fails. Otherwise steady arrivals would
mean an upload a second for as long as a server fails at all of them."""
HURRY_LONGEST_S = 3.0
"""So whatever the arrivals are, one upload in so many seconds is in vain, and each instance causes
one of them at most."""


class GateState(StrEnum):
    """How much is let through."""

    OPEN = "open"
    TRIAL = "trial"
    CLOSED = "closed"


class Gate:
    """One server's gate.

    It begins CLOSED and due for a probe: no server is used before it has answered one.

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
        """Its last failure was at work, not at a probe: an answered probe proves nothing then."""
        self._pause_first_s = pause_first_s
        self._pause_longest_s = pause_longest_s
        self._failures = 0
        self._failed_s = float("-inf")
        self._hurried = False
        self._in_vain = 0

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
            self._failed_s = now_s
            self._in_vain += self._hurried
            self._hurried = False
            self._plan_probe(now_s, chance, min(self._pause_longest_s, TRIAL_LONGEST_S))
            # It may answer every probe and fail at all work: each trial is an upload, say.
            outage_s = min(TRIAL_LONGEST_S, TRIAL_SHARE * (now_s - self.closed_at_s))
            self.probe_at_s = max(self.probe_at_s, now_s + outage_s)
        return fresh

    def hurry(self, now_s: float) -> None:
        """Probe soon: an instance waits that was never tried, which may well be served."""
        if self.state is GateState.CLOSED and self.only_answers:
            gap_s = min(HURRY_LONGEST_S, HURRY_GAP_S * 2.0 ** min(self._in_vain, 16))
            soon_s = max(now_s, self._failed_s + gap_s)
            if soon_s < self.probe_at_s:
                self.probe_at_s = soon_s
                self._hurried = True

    def probe_now(self, now_s: float) -> None:
        """Let the next probe be due at once."""
        self.probe_at_s = now_s

    def probe_failed(self, failure: SideFailed, *, now_s: float, chance: float) -> None:
        """Stay closed and plan the next probe."""
        self.failure = failure
        self.only_answers = False
        self._plan_probe(now_s, chance, self._pause_longest_s)

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
        self._failures = self._in_vain = 0
        self._hurried = False
        return True

    def usable(self) -> bool:
        """Whether the server is to be told as usable.

        On trial it counts as usable if it was silent before. It does not if it answered all
        probes and failed at work (storage full, uploads that hang): otherwise the outage would
        seem to be over for as long as each trial takes.
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

    def _plan_probe(self, now_s: float, chance: float, longest_s: float) -> None:
        self._failures += 1
        self.probe_at_s = now_s + backoff_s(
            self._failures,
            first_s=self._pause_first_s,
            longest_s=longest_s,
            chance=chance,
        )
