"""What the state file keeps of verifications and repairs.

Texts in the ledger's table of values; a file that somebody has changed raises StateError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.model import SourceDoubt

UNDER_WAY_KEY = "verification"
"""Ledger: the verification that is under way, as JSON: a restart goes on with it."""
ASKED_KEY = "verification_asked"
"""Ledger: a person wants one before it is due; absent without such a wish."""
LAST_KEY = "verification_last"
"""Ledger: the last one that came to its end, as JSON."""
INTENT_KEY = "repair_intent"
"""Ledger: the copy that is about to be replaced, as JSON, until the new one is proved."""
DAY_KEY = "repairs_of_a_day"
"""Ledger: how many copies were repaired or deleted in each hour of the age clock, as JSON."""
CONFIRMED_KEY = "repairs_confirmed_until"
"""Ledger: until when, by the age clock, the limit of a day does not count: a person said so."""
HELD_KEY = "repairs_held"
"""Ledger: how many repairs and deletions wait for a person's word; absent without any."""
DOUBT_KEY = "source_doubt"
"""Ledger: why deletions at the source are not followed (SourceDoubt); absent without a reason."""
RECYCLED_KEY = "source_recycled_at"
"""Ledger: when the source was last seen to recycle, by the age clock, until a later verification
has let everything stay that it lacked then; absent where it was not."""
SOURCE_DAMAGED_KEY = "source_damaged"
"""Ledger: instances whose file is damaged at the source, as JSON; absent without any."""
SOURCE_DAMAGED_MAX = 1000
HOUR_S, DAY_S = 3600.0, 86_400.0
COUNT_MAX = 2**53
_IDENTIFIER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_STATE = re.compile(r"[a-z_]{1,30}")
MOMENT_MAX = 253_402_300_799.0


@dataclass(frozen=True, slots=True)
class VerificationProgress:
    """How far a verification is. ``position``: all identifiers up to it are done, "" for none.

    ``begun_at``: epoch seconds; ``begun_age``: by the age clock. ``counts``: instances by state,
    ``differences`` among them. ``nowhere``: of those that are lost, what neither server holds.
    """

    begun_at: float
    begun_age: float = 0.0
    position: str = ""
    instances: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    differences: int = 0
    repaired: int = 0
    failed: int = 0
    deleted: int = 0
    nowhere: int = 0


@dataclass(frozen=True, slots=True)
class LastVerification:
    """A verification that came to its end. Times: epoch seconds."""

    begun_at: float
    ended_at: float
    instances: int
    counts: Mapping[str, int]
    differences: int = 0
    repaired: int = 0
    failed: int = 0
    deleted: int = 0
    nowhere: int = 0


@dataclass(frozen=True, slots=True)
class RepairIntent:
    """A copy that is about to be replaced. The prepared file lies beside the state file.

    ``source_md5``: of the source's file that it was made of. ``target_md5``: of the prepared file.
    ``before_md5``: of the copy that is to go, "" where it is not known or there is none. ``kept``:
    not "" once the target did not hold, or could not read, what was sent.
    """

    instance_id: str
    state: str
    source_md5: str
    target_md5: str
    before_md5: str = ""
    kept: str = ""


def under_way(ledger: Ledger) -> VerificationProgress | None:
    """Return the verification that is under way. Raises StateError."""
    text = ledger.meta(UNDER_WAY_KEY)
    if text is None:
        return None
    with explained(ledger.path):
        told = _object(text)
        position = told.pop("position")
        if position and not _IDENTIFIER.fullmatch(position):
            raise ValueError("not a position")
        begun_age = _moment(told.pop("begun_age"))
        return VerificationProgress(position=position, begun_age=begun_age, **_checked(told))


def last_verification(ledger: Ledger) -> LastVerification | None:
    """Return the last verification that came to its end. Raises StateError."""
    text = ledger.meta(LAST_KEY)
    if text is None:
        return None
    with explained(ledger.path):
        told = _object(text)
        return LastVerification(ended_at=_moment(told.pop("ended_at")), **_checked(told))


def ask_for_verification(ledger: Ledger) -> None:
    """Have a verification begin soon, whether or not one is due. Raises StateError."""
    ledger.set_meta(ASKED_KEY, "1")


def is_asked_for(ledger: Ledger) -> bool:
    """Tell whether a person wants a verification. Raises StateError."""
    return ledger.meta(ASKED_KEY) is not None


def note_answered(ledger: Ledger) -> None:
    """Note that the verification that a person wanted came to its end. Raises StateError."""
    ledger.set_meta(ASKED_KEY, None)


def save_progress(ledger: Ledger, progress: VerificationProgress) -> None:
    """Remember how far a verification is. Raises StateError."""
    ledger.set_meta(UNDER_WAY_KEY, json.dumps(asdict(progress)))


def end_verification(
    ledger: Ledger, progress: VerificationProgress, *, ended_at: float, ends_place: bool = True
) -> None:
    """Remember that a verification came to its end.

    ``ends_place``: the place on record is its own.
    """
    told = asdict(progress)
    del told["position"], told["begun_age"]
    ledger.set_meta(LAST_KEY, json.dumps(told | {"ended_at": ended_at}))
    if ends_place:
        ledger.set_meta(UNDER_WAY_KEY, None)


def answer_lost(ledger: Ledger) -> None:
    """Take what neither server holds from the last verification: a person knows of all of it.

    Raises StateError.
    """
    last = last_verification(ledger)
    if last is None or not last.nowhere:
        return
    counts = dict(last.counts)
    counts["lost"] = max(0, counts.get("lost", 0) - last.nowhere)
    counts = {state: count for state, count in counts.items() if count}
    differences = max(0, last.differences - last.nowhere)
    after = replace(last, counts=counts, differences=differences, nowhere=0)
    ledger.set_meta(LAST_KEY, json.dumps(asdict(after)))


def repair_intent(ledger: Ledger) -> RepairIntent | None:
    """Return the copy that is about to be replaced. Raises StateError."""
    text = ledger.meta(INTENT_KEY)
    if text is None:
        return None
    with explained(ledger.path):
        intent = RepairIntent(**{name: _text(value) for name, value in _object(text).items()})
        if not _IDENTIFIER.fullmatch(intent.instance_id):
            raise ValueError("not an identifier")
        return intent


def intent_text(intent: RepairIntent) -> str:
    """Write an intent, for ``INTENT_KEY``."""
    return json.dumps(asdict(intent))


def repairs_since(ledger: Ledger, now: float) -> int:
    """Count the repairs and deletions of the last day, by the age clock; an hour too many."""
    return sum(_hours(ledger, now).values())


def count_repair(ledger: Ledger, now: float) -> None:
    """Count one, before it is done."""
    hours = _hours(ledger, now)
    hour = int(now // HOUR_S)
    hours[hour] = hours.get(hour, 0) + 1
    ledger.set_meta(DAY_KEY, json.dumps(sorted(hours.items())))


def _hours(ledger: Ledger, now: float) -> dict[int, int]:
    text = ledger.meta(DAY_KEY)
    if text is None:
        return {}
    first = int((now - DAY_S) // HOUR_S)
    with explained(ledger.path):
        return {_count(h): _count(n) for h, n in json.loads(text) if _count(h) >= first}


def confirm_repairs(ledger: Ledger, now: float) -> None:
    """A person's word: go on for a day beyond the limit. ``now``: by the age clock."""
    ledger.set_meta(CONFIRMED_KEY, repr(now + DAY_S))
    ledger.set_meta(HELD_KEY, None)


def is_confirmed(ledger: Ledger, now: float) -> bool:
    """Tell whether a person has said so within the last day."""
    with explained(ledger.path):
        return float(ledger.meta(CONFIRMED_KEY) or "-inf") > now


def held_repairs(ledger: Ledger) -> int:
    """Count the repairs and deletions that wait for a person's word. Raises StateError."""
    text = ledger.meta(HELD_KEY)
    with explained(ledger.path):
        return _count(int(text or 0))


def note_source(ledger: Ledger, doubt: SourceDoubt | None, *, recycles: bool, age: float) -> None:
    """Note whether deletions at the source may be followed, as it has just said.

    ``recycles``: also where nobody wishes to follow them, for the day when somebody does.
    """
    if ledger.meta(DOUBT_KEY) != doubt:
        ledger.set_meta(DOUBT_KEY, doubt)
    if recycles:
        ledger.set_meta(RECYCLED_KEY, repr(age))


def source_doubt(ledger: Ledger) -> SourceDoubt | None:
    """Return why deletions at the source are not followed. Raises StateError."""
    text = ledger.meta(DOUBT_KEY)
    with explained(ledger.path):
        return None if text is None else SourceDoubt(text)


def damaged_at_source(ledger: Ledger) -> frozenset[str]:
    """Return instances whose file was found damaged at the source. Raises StateError."""
    text = ledger.meta(SOURCE_DAMAGED_KEY)
    if text is None:
        return frozenset()
    with explained(ledger.path):
        told = json.loads(text)
        if not isinstance(told, list) or not all(map(_IDENTIFIER.fullmatch, told)):
            raise ValueError("not identifiers")
        return frozenset(told)


def note_damaged_at_source(ledger: Ledger, instances: Collection[str]) -> None:
    """Remember which they are, SOURCE_DAMAGED_MAX at most. Raises StateError."""
    noted = sorted(instances)[:SOURCE_DAMAGED_MAX]
    text = json.dumps(noted) if noted else None
    if ledger.meta(SOURCE_DAMAGED_KEY) != text:
        ledger.set_meta(SOURCE_DAMAGED_KEY, text)


def release_recycled(ledger: Ledger, *, begun_age: float) -> bool:
    """Let what the source lacks stay at the target for good, if it may have recycled it.

    ``begun_age``: when the verification that ends now began. One that began after the source was
    last seen to recycle has noted all of it. Tells whether any may have been. Raises StateError.
    """
    text = ledger.meta(RECYCLED_KEY)
    if text is None:
        return False
    with explained(ledger.path):
        recycled_at = float(text)
    for record in ledger.lacking():
        ledger.release_delivery(record.instance_id)
    if begun_age > recycled_at:
        ledger.set_meta(RECYCLED_KEY, None)
    return True


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that both kinds of verification have. Raises ValueError, TypeError."""
    counts = told.pop("counts")
    if not isinstance(counts, dict):
        raise TypeError("not counts")
    checked: dict[str, Any] = {
        "begun_at": _moment(told.pop("begun_at")),
        "counts": {state: _count(number) for state, number in counts.items()},
    }
    if not all(map(_STATE.fullmatch, counts)):
        raise ValueError("not a state")
    return checked | {name: _count(value) for name, value in told.items()}


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
        raise ValueError("not a number from 0 up")
    return value


def _moment(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= MOMENT_MAX:
        raise ValueError("not a time")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 100:
        raise ValueError("not a text")
    return value
