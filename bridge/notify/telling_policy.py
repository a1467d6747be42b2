"""When what is told: studies, parked instances, health, the digest. Storms become one event.

This file must not know: sockets, files, clocks, logging, settings.
Times are arguments, in seconds of a steady clock unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum

from bridge.ledger.records import StudyRecord, StudyTold
from bridge.model import StudyState

HEALTH_CALM_S = 3600.0
"""After so long without an event of it the next change is told without delay again."""
HEALTH_HELD_MAX = 3
"""Each change within that time doubles how long the next must last, so often at most."""
NOT_TOLD = ("events_failing",)
"""Reasons of /health that are no event: that none gets out."""
NOT_KNOWN = ("source_not_contacted", "target_not_contacted")
"""While /health says so, a server was not asked yet: that is neither a failure nor a recovery."""


DIGEST_DAYS_KEPT = 10
"""So many days that were told are remembered, those first that were told last."""


class StudyVerdict(StrEnum):
    """What is to be told of a study."""

    WAIT = "wait"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Asked:
    """That the source called a study stable, and where its feed ended after that.

    Everything that was in the study then is in the feed up to ``feed_end``, or in a gap of it.
    """

    state: StudyState
    feed_end: int


def asked_again(before: Asked | None, state: StudyState, feed_end: int) -> Asked | None:
    """Combine what the source says now with what it said before; None when it is not stable.

    Where nothing has come to the study, the lower end counts: in a long backlog the end of the feed
    goes ahead of the checkpoint for ever. Rows go with their resources: it may go back, too.
    """
    if not state.stable:
        return None
    same = before is not None and before.state == state and state.last_update
    if before is None or not same:
        return Asked(state, feed_end)
    return Asked(state, min(before.feed_end, feed_end))


def judge_study(
    record: StudyRecord,
    told: StudyTold,
    asked: Asked | None,
    *,
    checkpoint: int | None,
    gaps: int,
    held: int | None,
) -> StudyVerdict:
    """Decide what is to be told of a study.

    ``record``: as it was when the checkpoint was read, or later. ``asked`` None: it is not stable.
    ``gaps``: sequences below the feed's end of which nobody knows yet what they are. ``held``: how
    many instances of it the source holds, None where not known; it counts where there are gaps.
    """
    if asked is None or checkpoint is None or checkpoint < asked.feed_end:
        return StudyVerdict.WAIT
    if gaps and (held is None or held > record.seen):
        return StudyVerdict.WAIT  # one of them may be in a gap: its row becomes visible late
    if record.parked:
        worse = record.parked > told.parked or record.seen > told.seen
        return StudyVerdict.INCOMPLETE if worse else StudyVerdict.NOTHING
    if not record.delivered and not told.parked:
        return StudyVerdict.NOTHING  # a rule skips all of it
    grown = not told.complete or record.seen > told.seen
    return StudyVerdict.COMPLETE if grown else StudyVerdict.NOTHING


def judge_gone(record: StudyRecord, told: StudyTold) -> StudyVerdict:
    """Decide what is to be told of a study that the source does not hold any more.

    It is not there to be stable, so it is not told as complete; but what was told as incomplete
    must end once nothing of it is parked.
    """
    return StudyVerdict.COMPLETE if told.parked and not record.parked else StudyVerdict.NOTHING


def told_after(verdict: StudyVerdict, record: StudyRecord, told: StudyTold) -> StudyTold:
    """Return what has been told of a study after a verdict."""
    if verdict in (StudyVerdict.COMPLETE, StudyVerdict.INCOMPLETE):
        return StudyTold(record.seen, record.parked, verdict is StudyVerdict.COMPLETE)
    return told


@dataclass(frozen=True, slots=True)
class DigestDay:
    """The day whose digest is the latest. ``told``: what to remember, once it was told if due."""

    day: str
    due: bool
    told: str


class ParkedFold:
    """Gathers parked instances: one event for all of a while, which begins with the first."""

    def __init__(self, fold_s: float) -> None:
        self._fold_s = fold_s
        self._since_s: float | None = None

    def is_due(self, untold: bool, now_s: float) -> bool:
        """Tell whether an event is due. ``untold``: some are parked of which none has told."""
        if not untold:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < self._fold_s:
            return False
        self._since_s = None
        return True


class HealthFold:
    """Tells a change of /health once it has lasted; one that goes back meanwhile is not told."""

    def __init__(self, told: Iterable[str], fold_s: float) -> None:
        self.told = tuple(sorted(told))
        self._fold_s = fold_s
        self._seen: tuple[str, ...] = self.told
        self._since_s = float("-inf")
        self._told_s = float("-inf")
        self._close = 0
        """So many changes were told closely after each other."""

    def change(self, codes: Iterable[str], now_s: float) -> tuple[str, ...] | None:
        """Return the codes to tell, or None. ``told_now`` is to be called when they were noted."""
        found = set(codes)
        if found.intersection(NOT_KNOWN):
            return None
        seen = tuple(sorted(found.difference(NOT_TOLD)))
        if seen != self._seen:
            self._seen, self._since_s = seen, now_s
        if seen == self.told:
            return None
        if now_s - self._told_s >= HEALTH_CALM_S:
            self._close = 0
        if now_s - max(self._since_s, self._told_s) < self._fold_s * 2**self._close:
            return None
        return seen

    def told_now(self, codes: tuple[str, ...], now_s: float) -> None:
        """Note that these were told."""
        self.told = codes
        self._told_s = now_s
        self._close = min(self._close + 1, HEALTH_HELD_MAX)


def digest_day(told: str | None, now: datetime, at: time) -> DigestDay:
    """Return the day whose digest is the latest, and whether it is due. ``now``: local time.

    ``told``: the days that were told, as the last call returned them; None where none was: the
    first one is tomorrow's, since nothing is known of a day before that.

    A day to come was told while the clock was ahead. It keeps no digest back, and none is told
    twice when the clock goes to and fro.
    """
    day = now.date() if now.time() >= at else date.fromordinal(now.date().toordinal() - 1)
    latest = day.isoformat()
    days = (told or "").split()
    before = [one for one in days if one <= latest]
    due = bool(before) and latest not in before
    if latest in days:
        return DigestDay(latest, due, told or "")
    return DigestDay(latest, due, " ".join([latest, *days][:DIGEST_DAYS_KEPT]))
