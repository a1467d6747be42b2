"""Which events there are, and what each carries: identifiers and numbers, no patient data.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from bridge.ledger.records import StudyRecord

PAYLOAD_VERSION = 1
"""Of the bodies: raised where a receiver that knew the former one could go wrong."""
NAMED_MAX = 20
"""So many parked instances are named in one event; all are counted."""
_UID = re.compile(r"[0-9.]{1,64}")

Fields = Mapping[str, object]


class EventKind(StrEnum):
    """What an event tells."""

    STUDY_COMPLETE = "study_complete"
    STUDY_INCOMPLETE = "study_incomplete"
    PARKED = "parked"
    HEALTH_CHANGED = "health_changed"
    DIGEST = "digest"
    TEST = "test"
    """Only when a person asks for it."""


CHOICES = tuple(kind for kind in EventKind if kind is not EventKind.TEST)


def chosen_events(text: str) -> frozenset[EventKind]:
    """Read BRIDGE_EVENTS: names with commas between them. Raises ValueError for another name."""
    named = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in named:
        if name not in CHOICES:
            raise ValueError(f"names {name!r}: must be of {', '.join(CHOICES)}")
    return frozenset(map(EventKind, named))


def event_body(
    kind: EventKind, data: Fields, *, event_id: str, bridge: str, created_at: float
) -> str:
    """Return an event as JSON text. ``bridge``: BRIDGE_NAME. ``created_at``: epoch seconds."""
    moment = datetime.fromtimestamp(created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {
        "id": event_id,
        "type": kind,
        "version": PAYLOAD_VERSION,
        "time": moment,
        "bridge": bridge,
        "data": data,
    }
    return json.dumps(told, separators=(",", ":"), allow_nan=False)


def study_data(record: StudyRecord, *, again: bool) -> Fields:
    """What an event tells of a study. ``again``: it was told as complete before, and has grown."""
    return {
        "study_instance_uid": _uid(record.study.uid),
        "orthanc_id": record.study.orthanc_id,
        "instances": record.seen,
        "delivered": record.delivered,
        "skipped": record.skipped,
        "parked": record.parked,
        "again": again,
    }


def parked_data(parked: Sequence[tuple[str, str]], *, total: int) -> Fields:
    """What an event tells of parked instances: IDs and reasons. ``total``: parked in all now."""
    named = parked[:NAMED_MAX]
    return {
        "count": len(parked),
        "total": total,
        "reasons": dict(sorted(Counter(reason for _, reason in parked).items())),
        "instances": [{"orthanc_id": name, "reason": reason} for name, reason in named],
    }


def health_data(codes: Sequence[str], *, before: Sequence[str]) -> Fields:
    """What an event tells of /health: the codes of its reasons, and those told before."""
    return {
        "status": "failing" if codes else "ok",
        "reasons": list(codes),
        "before": list(before),
    }


def digest_data(
    *,
    day: str,
    studies: tuple[int, int, int],
    parked: Mapping[str, int],
    dropped_events: int,
    codes: Sequence[str],
) -> Fields:
    """What the event of a day tells. ``studies``: all of the last 24 hours, stable, incomplete."""
    return {
        "day": day,
        "studies": studies[0],
        "studies_stable": studies[1],
        "studies_incomplete": studies[2],
        "parked": dict(sorted(parked.items())),
        "parked_total": sum(parked.values()),
        "events_dropped": dropped_events,
        "status": "failing" if codes else "ok",
        "reasons": list(codes),
    }


def in_words(body: str) -> tuple[str, str]:
    """Write an event for people: a title and a text, from its body."""
    told = json.loads(body)
    data, name = told["data"], told["bridge"] or "orthanc-bridge"
    match told["type"]:
        case EventKind.STUDY_COMPLETE:
            what = "Study complete" + (", it has grown" if data["again"] else "")
            text = f"{_study(data)}: {data['delivered']} of {data['instances']}"
            text += " instances delivered"
            text += f", {data['skipped']} skipped." if data["skipped"] else "."
        case EventKind.STUDY_INCOMPLETE:
            what = "Study incomplete"
            text = f"{_study(data)}: {data['parked']} of {data['instances']}"
            text += " instances are parked or dropped."
        case EventKind.PARKED:
            what = f"{data['count']} {'instance' if data['count'] == 1 else 'instances'} parked"
            reasons = ", ".join(f"{count} {reason}" for reason, count in data["reasons"].items())
            text = f"{reasons}. {data['total']} are parked in all."
        case EventKind.HEALTH_CHANGED:
            failing = data["status"] == "failing"
            what = "Attention needed" if failing else "All is well again"
            before = f"Before: {', '.join(data['before'])}." if data["before"] else ""
            text = f"Reasons: {', '.join(data['reasons'])}. {before}" if failing else before
        case EventKind.DIGEST:
            what = f"Digest of {data['day']}"
            text = (
                f"{data['studies']} studies in 24 hours, {data['studies_incomplete']} incomplete; "
                f"{data['parked_total']} instances are parked; health: {data['status']}"
            )
            text += f" ({', '.join(data['reasons'])})." if data["reasons"] else "."
        case _:
            what, text = "Test", "This is a test: somebody ran orthanc-bridge events test."
    return f"{name}: {what}", text.strip() or what


def _study(data: Mapping[str, object]) -> str:
    """Name a study for people."""
    return str(data["study_instance_uid"] or f"Orthanc ID {data['orthanc_id']}")


def _uid(text: str) -> str:
    """Return what is a UID; whatever else stands in its place is not told."""
    return text if _UID.fullmatch(text) else ""
