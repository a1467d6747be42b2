"""Sends what is in the outbox, on each way by itself, until its receiver has it.

An event leaves the outbox after the receiver has said that it has it: who dies in between sends it
again, with the same ID. Pauses grow, for an event and for a way: a receiver that is down is asked
seldom, and an event that it refuses does not keep the others from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bridge.events import NoticeFailed, NoticesDropped, NoticeSent, Observer
from bridge.feed.polling import backoff_s
from bridge.ledger.outbox import PAUSE_LONGEST_S, EventLedger
from bridge.ledger.records import WaitingNotice
from bridge.notify.ways import Way
from bridge.pipeline.runtime import Clock

PAUSE_FIRST_S = 5.0
WAY_PAUSE_LONGEST_S = 900.0
AT_ONCE_MAX = 20
"""So many events are sent on a way before the next way has its turn."""
IDLE_S = 1.0
AGE_EVERY_S = 3600.0
"""So often it is looked what has become too old, and noted what has come."""


@dataclass(slots=True)
class _Pause:
    """Of a way: failures one after the other, and until when it is left alone (steady clock)."""

    failures: int = 0
    until_s: float = field(default=float("-inf"))


class Sender:
    """Sends on every way. ``chance`` draws a number in [0, 1].

    ``age``: a clock that nobody can set (retention/age_clock.py), by which events become too old.
    """

    def __init__(
        self,
        ways: Sequence[Way],
        observer: Observer,
        *,
        clock: Clock,
        age: Callable[[EventLedger], float],
        chance: Callable[[], float],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ways = ways
        self._observer = observer
        self._clock = clock
        self._chance = chance
        self._stopping = stopping
        self._age = age
        self._aged_s = float("-inf")
        self._pauses = {way.name: _Pause() for way in ways}

    def turn(self, ledger: EventLedger, *, last: bool = False) -> float:
        """Send what is due; returns for how long to wait then, seconds. Raises StateError.

        ``last``: the bridge is ending; what is not sent now waits for the next start.
        """
        dropped = ledger.drop_excess()
        if self._clock.steady_s() - self._aged_s >= AGE_EVERY_S:
            dropped += ledger.drop_old(self._age(ledger))
            self._aged_s = self._clock.steady_s()
        if dropped:
            self._observer.on_event(NoticesDropped(dropped))
        more = [self._send_some(ledger, way, last=last) for way in self._ways]
        return 0.0 if any(more) else IDLE_S

    def _send_some(self, ledger: EventLedger, way: Way, *, last: bool) -> bool:
        """Send what is due on a way; True when there may be more."""
        pause = self._pauses[way.name]
        for _ in range(AT_ONCE_MAX):
            if (self._stopping() and not last) or self._clock.steady_s() < pause.until_s:
                return False
            waiting = ledger.due(way.name, now=self._clock.now_s())
            if waiting is None:
                return False
            self._send(ledger, way, waiting, pause)
        return True

    def _send(self, ledger: EventLedger, way: Way, waiting: WaitingNotice, pause: _Pause) -> None:
        notice = waiting.notice
        sent = way.send(notice)
        if sent.taken:
            pause.failures = 0
            ledger.sent(waiting)
            self._observer.on_event(NoticeSent(notice.kind, way.name))
            return
        pause.failures += 1
        way_s = self._pause_s(pause.failures, WAY_PAUSE_LONGEST_S)
        event_s = self._pause_s(waiting.attempts + 1, PAUSE_LONGEST_S)
        if sent.gone:
            way_s = event_s = PAUSE_LONGEST_S
        pause.until_s = self._clock.steady_s() + way_s
        next_at = self._clock.now_s() + event_s
        ledger.put_off(waiting, next_at=next_at, problem=sent.text)
        self._observer.on_event(NoticeFailed(notice.kind, way.name, sent.text))

    def _pause_s(self, failures: int, longest_s: float) -> float:
        return backoff_s(
            failures, first_s=PAUSE_FIRST_S, longest_s=longest_s, chance=self._chance()
        )
