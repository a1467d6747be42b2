"""What is to be said of one instance, once both servers were asked: a pure function.

This file must not know: sockets, files, clocks, logging, settings.

The source is the truth, and the record of deliveries tells what is ours: a copy of which there is
no record is never touched, whatever it is. What is wrong with a copy is judged by what is cheap:
whether it is there, its syntax, whether the target can read its file, and the MD5 on both sides
against those on record. Only where a sum is another one than on record, both files are compared:
a server that rewrites its files changes sums and no content, and is not fought. Where the source's
own file is damaged, it is no truth any more: no copy is judged by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bridge.ledger.records import DeliveryRecord


class CopyState(StrEnum):
    """What a copy at the target is. The names are part of the contract (metrics, ``check``)."""

    EQUAL = "equal"
    """As it was delivered, or as the source has it."""
    REWRITTEN = "rewritten"
    """A server has written the file anew: other bytes, the same content. Noted, not repaired."""
    MISSING = "missing"
    """The source holds it, the target does not, and nobody says why."""
    NO_FILE = "no_file"
    """The target lists it and gives no file of it: lost, or damaged (from Orthanc 1.13 on)."""
    DAMAGED = "damaged"
    """The target's file is not what was delivered: damaged on its disk, or other content."""
    SYNTAX = "syntax"
    """It is in another transfer syntax than the bridge would send, and not as it was delivered."""
    OLDER = "older"
    """The source has sent another version since, and the target has kept the one before."""
    NOT_OURS = "not_ours"
    """One of the above, and there is no record that this bridge has delivered it; or the source has
    another file than then, and has lost its history since: the copy may be the newer one."""
    LOST = "lost"
    """The source does not hold the instance any more, and the target's file is damaged or lost; or
    the target does not hold it either, though nobody has wished it away from the source."""
    LEFT = "left"
    """This bridge has delivered it, and the source does not hold it any more."""
    FOREIGN = "foreign"
    """The target holds it, the source does not, and this bridge has not delivered it."""
    WAITING = "waiting"
    """The source holds it, and the follower has not come to it yet."""
    PARKED = "parked"
    """It is parked, or was dropped: the state file has the reason why the target lacks it."""
    SKIPPED = "skipped"
    """A rule keeps it from the target."""
    UNDECIDED = "undecided"
    """It cannot be told: a server does not answer for it, or no decoder reads it."""
    SOURCE_DAMAGED = "source_damaged"
    """The source's own file is not what it noted at its arrival, or lost: damaged on its disk. The
    copy is not judged by it."""
    UNVERIFIABLE = "unverifiable"
    """The target refuses to read its file and to give it: a missing right, and no lost file."""
    GONE = "gone"
    """Neither server holds it any more, and the source has not by the bridge's doing."""


REPLACED = frozenset({CopyState.NO_FILE, CopyState.DAMAGED, CopyState.SYNTAX, CopyState.OLDER})
"""What a repair replaces: the copy is deleted at the target, and sent anew."""
REPAIRED = REPLACED | {CopyState.MISSING}
DIFFERENCES = REPAIRED | {
    CopyState.NOT_OURS,
    CopyState.LOST,
    CopyState.UNDECIDED,
    CopyState.UNVERIFIABLE,
    CopyState.SOURCE_DAMAGED,
}
"""What is told as a difference of the two servers. The rest is as it should be."""


class Comparison(StrEnum):
    """What a comparison of both files says, each fetched and decoded."""

    SAME = "same"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class CopyView:
    """What was seen of one instance.

    ``source_md5``, ``target_md5``: as the servers noted them; "" where they do not tell.
    ``readable``: the target has read its file, and it is as it noted; None where it does not tell.
    ``has_file``: it gives a file at all; asked only where it is not readable. Where it neither
    tells nor gives, a right is missing: no Orthanc answers so for a file that it has lost.
    ``right_syntax`` None: not known. ``skipped``: by a rule. ``comparison`` None: the files were
    not compared. ``fetched_md5``: of the source's file that was compared, "" where none was.
    ``source_readable``: the source has read its file, and it is as it noted; None where it was not
    asked, or does not tell. ``may_vanish``: somebody empties the target, and the operator knows.
    """

    instance_id: str
    at_source: bool
    at_target: bool
    record: DeliveryRecord | None = None
    source_md5: str = ""
    target_md5: str = ""
    readable: bool | None = None
    has_file: bool = True
    right_syntax: bool | None = None
    skipped: bool = False
    waiting: bool = False
    parked: bool = False
    comparison: Comparison | None = None
    fetched_md5: str = ""
    source_readable: bool | None = None
    may_vanish: bool = False


def judge_copy(view: CopyView, *, sampled: bool = False) -> CopyState | None:
    """Say what a copy is; None when both files must be compared first.

    ``sampled``: compare them whatever the sums say (BRIDGE_VERIFY_DEEP): a sum is what a server
    noted once, and says nothing of the file that it has now.
    """
    if not view.at_source:
        return _without_source(view)
    if not view.at_target:
        return _missing(view)
    state = _copy(view, sampled=sampled)
    if state in REPLACED and (view.record is None or _may_be_newer(view, view.record)):
        return CopyState.NOT_OURS
    return state


def _may_be_newer(view: CopyView, record: DeliveryRecord) -> bool:
    """Tell whether the copy may be of a version that the source has lost.

    A source that was restored from a backup holds an older one again, and no row says so. What its
    feed has told since then is newer.
    """
    source_changed = _differ(view.source_md5, record.source_md5)
    return record.released and source_changed and not record.outdated


def _without_source(view: CopyView) -> CopyState:
    if not view.at_target:
        # What retention has let go of had its last copy at the target.
        is_lost = view.record is not None and view.record.released and not view.may_vanish
        return CopyState.LOST if is_lost else CopyState.GONE
    if view.record is None:
        return CopyState.FOREIGN
    return CopyState.LOST if view.readable is False else CopyState.LEFT


def _missing(view: CopyView) -> CopyState:
    if view.skipped:
        return CopyState.SKIPPED
    if view.waiting:
        return CopyState.WAITING
    return CopyState.PARKED if view.parked else CopyState.MISSING


def _copy(  # noqa: PLR0911 (a table of states)
    view: CopyView, *, sampled: bool
) -> CopyState | None:
    if view.readable is False:
        return CopyState.DAMAGED if view.has_file else CopyState.NO_FILE
    if view.readable is None and not view.has_file:
        return CopyState.UNVERIFIABLE
    record = view.record
    if view.source_readable is False:
        return CopyState.SOURCE_DAMAGED
    as_delivered = record is not None and view.target_md5 == (record.target_md5 or None)
    # The file that was delivered is right: the settings were others then, or the target changes
    # what it stores, and would change it again.
    if view.right_syntax is False and not as_delivered:
        return CopyState.SYNTAX
    outdated = record is not None and record.outdated
    source_changed = record is not None and _differ(view.source_md5, record.source_md5)
    target_changed = record is not None and _differ(view.target_md5, record.target_md5)
    if not (sampled or outdated or source_changed or target_changed):
        return CopyState.EQUAL
    if not sampled and view.source_md5 and view.source_md5 == view.target_md5:
        return CopyState.EQUAL  # the very same file
    if view.comparison is not None and is_other_file(view):
        # Its disk has changed it; or something on the way, where the source can read it.
        return CopyState.UNDECIDED if view.source_readable else CopyState.SOURCE_DAMAGED
    match view.comparison:
        case None:
            return None
        case Comparison.UNDECIDED:
            return CopyState.UNDECIDED
        case Comparison.DIFFERENT:
            newer = (outdated or source_changed) and not target_changed
            return CopyState.OLDER if newer else CopyState.DAMAGED
        case Comparison.SAME:
            rewritten = source_changed or target_changed
            return CopyState.REWRITTEN if rewritten and not outdated else CopyState.EQUAL


def is_other_file(view: CopyView) -> bool:
    """Tell whether the file that came from the source is another one than it notes.

    Of a source that notes nothing: than was delivered, where its feed has told of no newer one.
    """
    if view.source_md5:
        return _differ(view.fetched_md5, view.source_md5)
    record = view.record
    if record is None or record.outdated or view.comparison is Comparison.SAME:
        return False
    return _differ(view.fetched_md5, record.source_md5)


def _differ(seen: str, recorded: str) -> bool:
    """Tell whether two sums differ, as far as both are known."""
    return bool(seen and recorded) and seen != recorded


def learned(view: CopyView, state: CopyState) -> DeliveryRecord | None:
    """Return the record as it is after a look; None where it is as it was.

    What was found equal is what the next look compares with. So a rewrite is compared once.
    """
    record = view.record
    if record is None or state not in (CopyState.EQUAL, CopyState.REWRITTEN):
        return None
    after = DeliveryRecord(
        record.instance_id,
        view.source_md5 or record.source_md5,
        view.target_md5 or record.target_md5,
        record.delivered_at,
    )
    return None if after == record else after
