"""What is written into the ledger: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.core.model import Move, Reason


@dataclass(frozen=True, slots=True)
class Parked:
    """An instance that was given up, and what a person needs to know. Times: epoch seconds."""

    move: Move
    reason: Reason
    message: str
    attempts: int
    first_failed_at: float
    parked_at: float
    source_syntax: str = ""
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts spent on an instance that is not settled yet."""

    attempts: int
    first_failed_at: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A delivered and proved instance that still lies at the source.

    ``source_md5``: of the file as it was fetched. ``target_md5``: of the file as it was stored.
    ``missed``: a server lacked it when it was looked at last.
    """

    instance_id: str
    source_md5: str
    target_md5: str
    delivered_at: float
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction. Every part is optional.

    ``checkpoint`` None leaves it as it is. ``settled`` are sequences to remember above the
    checkpoint, ``finished`` instance IDs whose attempts need not be remembered any more,
    ``unparked`` those that are no longer parked, ``recent`` rows of the feed to remember, of
    which those below ``recent_from`` are forgotten. ``kept`` are delivered instances
    that the source still holds, ``not_kept`` those of which that is no longer true (only this
    evidence is forgotten, not that of a delivery since).
    """

    checkpoint: int | None = None
    settled: tuple[int, ...] = ()
    parked: tuple[Parked, ...] = ()
    unparked: tuple[str, ...] = ()
    attempts: Mapping[str, Attempts] = field(default_factory=dict)
    finished: tuple[str, ...] = ()
    recent: tuple[tuple[int, str], ...] = ()
    recent_from: int | None = None
    newest_date: str = ""
    kept: tuple[Kept, ...] = ()
    not_kept: tuple[Kept, ...] = ()
