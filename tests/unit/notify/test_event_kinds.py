"""What an event carries: identifiers and numbers, as JSON and in words."""

from __future__ import annotations

import json

import pytest

from bridge.ledger.records import StudyRecord
from bridge.model import Study
from bridge.notify.event_kinds import (
    CHOICES,
    NAMED_MAX,
    EventKind,
    Fields,
    chosen_events,
    digest_data,
    event_body,
    health_data,
    in_words,
    parked_data,
    study_data,
)

RECORD = StudyRecord(Study("1.2.840.1", "id"), 1.0, 2.0, 410, 2, 1)


def body(kind: EventKind, data: Fields, *, bridge: str = "night") -> str:
    return event_body(kind, data, event_id="e1", bridge=bridge, created_at=1_800_000_000.5)


def test_the_envelope() -> None:
    told = json.loads(body(EventKind.STUDY_COMPLETE, study_data(RECORD, again=False)))
    assert told == {
        "id": "e1",
        "type": "study_complete",
        "version": 1,
        "time": "2027-01-15T08:00:00Z",
        "bridge": "night",
        "data": {
            "study_instance_uid": "1.2.840.1",
            "orthanc_id": "id",
            "instances": 413,
            "delivered": 410,
            "skipped": 1,
            "parked": 2,
            "again": False,
        },
    }


def test_what_stands_in_the_place_of_a_uid_is_not_told() -> None:
    record = StudyRecord(Study("Zyxwvut^Quirin", "id"), 1.0, 2.0, 1, 0, 0)
    assert study_data(record, again=False)["study_instance_uid"] == ""


def test_all_parked_are_counted_and_some_are_named() -> None:
    parked = [(f"i{n}", "undecodable" if n % 2 else "timed_out") for n in range(500)]
    told = parked_data(parked, total=700)
    assert (told["count"], told["total"]) == (500, 700)
    assert told["reasons"] == {"timed_out": 250, "undecodable": 250}
    assert told["instances"] == [
        {"orthanc_id": name, "reason": reason} for name, reason in parked[:NAMED_MAX]
    ]


WORDS: list[tuple[EventKind, Fields, str, str]] = [
    (
        EventKind.STUDY_COMPLETE,
        study_data(RECORD, again=False),
        "night: Study complete",
        "1.2.840.1: 410 of 413 instances delivered, 1 skipped.",
    ),
    (
        EventKind.STUDY_COMPLETE,
        study_data(RECORD, again=True),
        "night: Study complete, it has grown",
        "1.2.840.1: 410 of 413 instances delivered, 1 skipped.",
    ),
    (
        EventKind.STUDY_INCOMPLETE,
        study_data(RECORD, again=False),
        "night: Study incomplete",
        "1.2.840.1: 2 of 413 instances are parked or dropped.",
    ),
    (
        EventKind.PARKED,
        parked_data([("i", "timed_out")], total=3),
        "night: 1 instance parked",
        "1 timed_out. 3 are parked in all.",
    ),
    (
        EventKind.HEALTH_CHANGED,
        health_data(("source_unreachable", "parked"), before=()),
        "night: Attention needed",
        "Reasons: source_unreachable, parked.",
    ),
    (
        EventKind.HEALTH_CHANGED,
        health_data((), before=("parked",)),
        "night: All is well again",
        "Before: parked.",
    ),
    (
        EventKind.DIGEST,
        digest_data(
            day="2026-11-30",
            studies=(7, 5, 2),
            parked={"timed_out": 3},
            dropped_events=0,
            codes=("parked",),
        ),
        "night: Digest of 2026-11-30",
        "7 studies in 24 hours, 2 incomplete; 3 instances are parked; health: failing (parked).",
    ),
    (
        EventKind.TEST,
        {},
        "night: Test",
        "This is a test: somebody ran orthanc-bridge events test.",
    ),
]


@pytest.mark.parametrize(("kind", "data", "title", "text"), WORDS)
def test_in_words(kind: EventKind, data: Fields, title: str, text: str) -> None:
    assert in_words(body(kind, data)) == (title, text)


def test_a_study_without_a_valid_uid_is_named_by_its_identifier() -> None:
    record = StudyRecord(Study("an-orthanc-id", "an-orthanc-id"), 1.0, 2.0, 4, 1, 0)
    data = study_data(record, again=False)
    assert (data["study_instance_uid"], data["orthanc_id"]) == ("", "an-orthanc-id")
    text = in_words(body(EventKind.STUDY_INCOMPLETE, data))[1]
    assert text == "Orthanc ID an-orthanc-id: 1 of 5 instances are parked or dropped."


def test_a_bridge_without_a_name_is_called_what_it_is() -> None:
    assert in_words(body(EventKind.TEST, {}, bridge=""))[0] == "orthanc-bridge: Test"


def test_every_kind_has_words() -> None:
    assert {kind for kind, *_ in WORDS} == set(EventKind)


def test_which_events_are_chosen() -> None:
    assert chosen_events(" Parked, digest ,,") == {EventKind.PARKED, EventKind.DIGEST}
    assert chosen_events("") == frozenset()
    assert chosen_events(",".join(CHOICES)) == set(CHOICES)
    for wrong in ("test", "everything", "parked;digest"):
        with pytest.raises(ValueError, match="must be of study_complete, study_incomplete"):
            chosen_events(wrong)
