"""What is written into the ledger: plain values.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from bridge.model import CounterLag, Gap, Move, Reason, Study


@dataclass(frozen=True, slots=True)
class TriedBy:
    """Which bridge and which codecs an instance was tried with; "" where that is not known."""

    bridge: str = ""
    codecs: str = ""


UNKNOWN_VERSIONS = TriedBy()


@dataclass(frozen=True, slots=True)
class Parked:
    """An instance that was given up, and what a person needs to know. Times: epoch seconds.

    ``retries``: how often it was tried again by policy since ``parked_at``. ``tried_at``: when the
    last attempt began or, for the first ones, ended. ``tried_by``: what the last attempt that has
    told something of the instance was made with.
    """

    move: Move
    reason: Reason
    message: str
    attempts: int
    first_failed_at: float
    parked_at: float
    source_syntax: str = ""
    sop_instance_uid: str = ""
    retries: int = 0
    tried_at: float = 0.0
    tried_by: TriedBy = UNKNOWN_VERSIONS


@dataclass(frozen=True, slots=True)
class Due:
    """Which parked instances of one reason are to be tried again: all conditions must hold.

    ``retries_min``, ``retries_max``: how often they were tried again, inclusive. ``tried_before``:
    when they were tried last at the latest, ``tried_after``: later than then; epoch seconds.
    ``other_bridge``, ``other_codecs``: only what was tried with others than these; None for
    whatever it was tried with.
    """

    reason: Reason
    retries_min: int
    retries_max: int
    tried_before: float
    other_bridge: str | None = None
    other_codecs: str | None = None
    tried_after: float = -math.inf


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts spent on an instance that is not settled yet."""

    attempts: int
    first_failed_at: float


class MissedAt(IntEnum):
    """Which server lacked an instance when retention looked at it last."""

    NOWHERE = 0
    SOURCE = 1
    TARGET = 2
    """Or the target could not read its file."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A delivered and proved instance that still lies at the source.

    ``source_md5``: of the file as it was fetched. ``target_md5``: of the file as it was stored.
    ``source_file``, ``target_file``: the names of these files in the two storage areas; "" where
    they were not learned. ``aged_from``: from when its age counts, by the age clock; None until
    retention has seen it. ``missed``: which server lacked it when it was looked at last.
    """

    instance_id: str
    source_md5: str
    target_md5: str
    delivered_at: float
    missed: MissedAt = MissedAt.NOWHERE
    source_file: str = ""
    target_file: str = ""
    aged_from: float | None = None


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """An instance that this bridge has brought to the target.

    ``source_md5``: of the file as it was fetched. ``target_md5``: of the file as it was sent. Both
    are "" where they were not learned. ``outdated``: the source has sent another version since, and
    the target has kept this one. ``lacking_since``: since when the source lacks it, by the age
    clock; None while it is there, as far as is known. ``released``: what the source lacks, nobody
    has deleted there on purpose: this bridge has (BRIDGE_SOURCE_RETENTION), or the source was
    restored from a backup since. The copy at the target may be the last one, and stays.
    ``to_sign``: the delivery is new, and is to be signed at the source; it is not told when read.
    """

    instance_id: str
    source_md5: str
    target_md5: str
    delivered_at: float
    outdated: bool = False
    lacking_since: float | None = None
    released: bool = False
    to_sign: bool = False


@dataclass(frozen=True, slots=True)
class SignDue:
    """A delivery that is to be signed at the source. ``noted_at``: when it was noted, epoch s.

    ``tries``: how often it was tried in vain.
    """

    instance_id: str
    noted_at: float
    tries: int = 0


class EndedAs(IntEnum):
    """How an instance of a study ended last."""

    DELIVERED = 1
    PARKED = 2
    """Until it is delivered, also when a person has dropped it."""
    SKIPPED = 3


@dataclass(frozen=True, slots=True)
class StudyNote:
    """That an instance of a study came to its end, ``at`` epoch seconds.

    ``forget_before``: studies of which nothing has come since then are forgotten, epoch seconds.
    """

    study: Study
    instance_id: str
    ended: EndedAs
    at: float
    forget_before: float


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """What is known of a study: how many of its instances ended in which way.

    ``first_at``, ``last_at``: when the first and the last instance came to its end, epoch seconds.
    ``stable``: the source has said that nothing came to it for a while, all of it was settled, and
    nothing has come since.
    """

    study: Study
    first_at: float
    last_at: float
    delivered: int
    parked: int
    skipped: int
    stable: bool = False

    @property
    def seen(self) -> int:
        """How many instances came to their end, in whatever way."""
        return self.delivered + self.parked + self.skipped


@dataclass(frozen=True, slots=True)
class StudyTold:
    """What was told of a study by events: how many instances of it, how many of them parked.

    ``complete``: that it is complete. All zero: nothing.
    """

    seen: int = 0
    parked: int = 0
    complete: bool = False


@dataclass(frozen=True, slots=True)
class ChangedStudy:
    """A study to which something came since it was found stable and settled.

    ``changes``: how often: what was judged holds as long as this number is the same.
    """

    number: int
    changes: int
    record: StudyRecord
    told: StudyTold


@dataclass(frozen=True, slots=True)
class Notice:
    """An event on its way out. ``body``: JSON text. ``created_at``: epoch seconds.

    ``event_id``: by which a receiver knows a repetition. ``way``: where it is sent to.
    """

    event_id: str
    way: str
    kind: str
    body: str
    created_at: float


@dataclass(frozen=True, slots=True)
class WaitingNotice:
    """An event in the outbox: ``number`` is its place, ``attempts`` so many came to nothing."""

    number: int
    notice: Notice
    attempts: int


@dataclass(frozen=True, slots=True)
class OutboxView:
    """What waits in the outbox, by way. ``oldest_at``: epoch seconds; None when nothing waits.

    ``problem``: why the oldest that was tried could not be sent, "" where none was tried.
    """

    waiting: Mapping[str, int] = field(default_factory=dict)
    oldest_at: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction. Every part is optional.

    ``checkpoint`` None leaves it as it is. ``settled`` are sequences to remember above the
    checkpoint, ``finished`` instance IDs whose attempts need not be remembered any more,
    ``parked`` those that are given up (one with ``retries`` is changed only where it is still
    parked and nothing else has come to it since),
    ``unparked`` those that are no longer parked, ``recent`` rows of the feed to remember, of
    which those below ``recent_from`` are forgotten. ``kept`` are delivered instances
    that the source still holds, ``not_kept`` those of which that is no longer true (only this
    evidence is forgotten, not that of a delivery since). ``gaps`` are sequences that nobody has
    seen, on record from now on, ``gaps_closed`` the first sequences of those that are no longer,
    ``gaps_given_up`` how many sequences were dropped unseen, ``lag`` where the source's counter was
    seen to stay below a row. ``dropped`` are parked instances that
    a person lets go of, at ``dropped_at`` (epoch seconds): they stay on record as such until they
    are delivered or parked again. ``delivered`` are records of deliveries, ``outdated`` instances
    of which the target has kept an older version: that changes a record, and makes none.
    ``forgotten``: remembered texts that are not needed any more, by their keys.
    ``studies``: instances of studies that came to their end.
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
    gaps: tuple[Gap, ...] = ()
    gaps_closed: tuple[int, ...] = ()
    gaps_given_up: int = 0
    lag: CounterLag | None = None
    dropped: tuple[str, ...] = ()
    dropped_at: float = 0.0
    delivered: tuple[DeliveryRecord, ...] = ()
    outdated: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    studies: tuple[StudyNote, ...] = ()
