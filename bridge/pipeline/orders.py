"""What a person orders through the state file: pause, resume, drop what is parked.

A command writes it beside a running bridge, and the monitoring server writes it for whoever has
the token: both here, so that an order is the same from wherever it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridge.events import InstanceDropped, Observer
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.pipeline.holds import PAUSED_KEY


def paused_since(ledger: Ledger) -> float | None:
    """Return since when the bridge is paused, epoch seconds; None when it is not."""
    told = ledger.meta(PAUSED_KEY)
    return None if told is None else float(told)


def pause(ledger: Ledger, *, now: float) -> float | None:
    """Have nothing new started from now on; returns since when it was paused before, if it was."""
    before = paused_since(ledger)
    if before is None:
        ledger.set_meta(PAUSED_KEY, str(int(now)))
    return before


def resume(ledger: Ledger) -> float | None:
    """Go on after a pause; returns since when it lasted, None when there was none."""
    before = paused_since(ledger)
    ledger.set_meta(PAUSED_KEY, None)
    return before


def drop(
    ledger: Ledger, chosen: Sequence[Parked], observers: Iterable[Observer], *, now: float
) -> None:
    """Let go of parked instances: they stay on record as such, and are not tried again.

    Observers are told first: what is on record of a drop must not depend on what comes after it.
    """
    for observer in observers:
        for parked in chosen:
            observer.on_event(InstanceDropped(parked.move, parked.reason))
    ledger.commit(Entry(dropped=tuple(one.move.instance_id for one in chosen), dropped_at=now))
