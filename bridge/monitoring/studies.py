"""What the page of studies shows: read from the ledger when somebody asks, in bounded pages."""

from __future__ import annotations

import itertools
from pathlib import Path

from bridge.ledger.records import Parked, StudyRecord
from bridge.ledger.store import Ledger

PAGE_STUDIES = 50
FOUND_MAX = 20
PARKED_MAX = 100
SEARCH_CHARACTERS_MAX = 64
"""A UID and an Orthanc ID are no longer."""


class NoSuchPage(ValueError):
    """A page was asked for that there is none of. Its text is for whoever asked, quotes nothing."""


def studies_page(
    path: Path, *, search: str = "", after: str = "", incomplete: bool = False
) -> dict[str, object]:
    """Return studies, the newest first, as JSON-ready values. Raises StateError, NoSuchPage.

    ``search``: only the study with that Study Instance UID or Orthanc ID, or with that instance
    while it is parked; of one study its parked instances are told too. ``after``: those that follow
    upon the study of that UID. ``incomplete``: only those that lack instances.
    """
    with Ledger(path, create=False) as ledger:
        if search:
            found = _find(ledger, search, limit=FOUND_MAX)
            told: dict[str, object] = {"studies": [study_fields(one) for one in found]}
            if len(found) == 1:
                told |= _parked_fields(ledger, found[0])
            return told | {"older": ""}
        found = _find(ledger, after, limit=1)
        if after and not found:
            # The first page again would be taken for the next one, for ever.
            raise NoSuchPage(
                "after must be older from the previous page. No such study is on record: it may "
                "have been forgotten since. Begin with the first page."
            )
        page = ledger.studies(
            limit=PAGE_STUDIES + 1, before=next(iter(found), None), incomplete=incomplete
        )
    older = page[PAGE_STUDIES - 1].study.uid if len(page) > PAGE_STUDIES else ""
    return {"studies": [study_fields(one) for one in page[:PAGE_STUDIES]], "older": older}


def _find(ledger: Ledger, name: str, *, limit: int) -> list[StudyRecord]:
    """Find studies by a name that somebody has sent; by nothing, or what is too long, none."""
    if not 0 < len(name) <= SEARCH_CHARACTERS_MAX:
        return []
    return ledger.find_studies(name, limit=limit)


def study_fields(record: StudyRecord) -> dict[str, object]:
    """Return a study as JSON-ready values.

    ``stable``: the source expects no more, and all of it is settled. ``complete``: and nothing of
    it is parked or was dropped.
    """
    return {
        "uid": record.study.uid,
        "orthanc_id": record.study.orthanc_id,
        "first_at": round(record.first_at, 1),
        "last_at": round(record.last_at, 1),
        "seen": record.seen,
        "delivered": record.delivered,
        "parked": record.parked,
        "skipped": record.skipped,
        "complete": record.stable and record.parked == 0,
        "stable": record.stable,
    }


def parked_fields(parked: Parked) -> dict[str, object]:
    """Return a parked instance as the pages show it, as JSON-ready values."""
    return {
        "instance": parked.move.instance_id,
        "sequence": parked.move.sequence,
        "reason": parked.reason,
        "message": parked.message,
        "attempts": parked.attempts,
        "parked_at": round(parked.parked_at, 1),
    }


def _parked_fields(ledger: Ledger, record: StudyRecord) -> dict[str, object]:
    found = list(itertools.islice(ledger.parked_of_study(record.study.uid), PARKED_MAX + 1))
    return {
        "parked": [parked_fields(one) for one in found[:PARKED_MAX]],
        "parked_more": len(found) > PARKED_MAX,
    }
