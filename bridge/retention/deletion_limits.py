"""What holds deletions back, however well proved they are: a person, the record, and the limits."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.errors import ConfigurationError
from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.retention.bridge_notes import NOTES_AWAITED, notes_awaited
from bridge.retention.limits_and_risks import RetentionRules
from bridge.retention.protocols import KeepingServer

UNRECORDED = "the audit file cannot be written"
HOUR_S, DAY_S = 3600.0, 86_400.0
SHARE_FROM = 1000
"""So many deletions a day are not asked about, whatever share of the source they are."""
COUNTED_AGAIN_S = 600.0
"""How long it is believed how many instances the source holds: counting takes it seconds."""

STOPPED_KEY = "retention_stopped"
"""Ledger: why nothing is deleted any more before a person has said so (--confirm)."""
CONFIRMED_KEY = "retention_confirmed_until"
"""Ledger: until when, by the age clock, the share of a day does not count."""


class DeletionLimits:
    """Asked before each deletion. ``hold`` and ``recorded`` as in Sweeper."""

    def __init__(
        self,
        source: KeepingServer,
        rules: RetentionRules,
        *,
        hold: Callable[[Ledger], str],
        recorded: Callable[[], bool],
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._rules = rules
        self._hold = hold
        self._recorded = recorded
        self._steady_s = steady_s
        self._counted: tuple[float, int] | None = None

    def held_back(self, ledger: Ledger, now: float, *, asks: bool = True) -> str:
        """Say why nothing may be deleted now, or "". Raises ConfigurationError, SideError.

        ``asks``: the source may be asked, which takes it seconds. Not between the last look at an
        instance and its deletion: what it held when it was asked before is believed there.
        """
        if not self._recorded():
            return UNRECORDED
        if notes_awaited(ledger, now):
            return NOTES_AWAITED
        hold = self._hold(ledger)
        if hold:
            return hold
        if self.left_this_hour(ledger, now) == 0:
            return "limit of deletions an hour"
        self.refuse_share(ledger, now, asks=asks)
        return ""

    def left_this_hour(self, ledger: Ledger, now: float) -> int | None:
        """Say how many more may be deleted before some time has passed; None without a limit."""
        limit = self._rules.per_hour
        return max(0, limit - ledger.deletions_since(now - HOUR_S)) if limit else None

    def refuse_share(self, ledger: Ledger, now: float, *, asks: bool = True) -> None:
        """Raise ConfigurationError above the share of a day. Raises SideError."""
        today = ledger.deletions_since(now - DAY_S)
        if today < SHARE_FROM or self._rules.day_share >= 1:
            return
        with explained(ledger.path):
            if float(ledger.meta(CONFIRMED_KEY) or "-inf") > now:
                return
        now_s = self._steady_s()
        counted = self._counted
        if asks and (counted is None or now_s - counted[0] >= COUNTED_AGAIN_S):
            counted = self._counted = now_s, self._source.statistics().instances + today
        if counted is None:
            return  # it was not asked for below so many a day; the next instance asks
        instances = counted[1]
        if today >= self._rules.day_share * instances:
            raise ConfigurationError(
                f"{today} instances were deleted at the source within a day, more than "
                f"{self._rules.day_share:.0%} of the {instances} that it held. No more are "
                "deleted until you allow it.",
                advice="To allow more for one day: orthanc-bridge retention --confirm. The limit "
                "is BRIDGE_RETENTION_DAY_SHARE (1: no limit).",
            )


def confirm(ledger: Ledger, *, now: float) -> None:
    """A person's word: go on after a stop, and for a day above the share of a day."""
    ledger.set_meta(STOPPED_KEY, None)
    ledger.set_meta(CONFIRMED_KEY, repr(now + DAY_S))


def is_stopped(ledger: Ledger) -> bool:
    """Tell whether a person's word is awaited."""
    return ledger.meta(STOPPED_KEY) is not None


def refuse_stopped(ledger: Ledger) -> None:
    """Raise ConfigurationError where a person's word is awaited."""
    text = ledger.meta(STOPPED_KEY)
    if text is not None:
        raise ConfigurationError(
            text, advice="Once the cause is fixed: orthanc-bridge retention --confirm."
        )
