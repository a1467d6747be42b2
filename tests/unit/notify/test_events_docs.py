"""docs/events.md: its verification against a real signature, its tables against the code."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from bridge.ledger.outbox import OUTBOX_AGE_S, OUTBOX_ROWS_MAX
from bridge.ledger.records import StudyRecord
from bridge.model import Study
from bridge.notify.event_kinds import (
    CHOICES,
    PAYLOAD_VERSION,
    EventKind,
    digest_data,
    event_body,
    health_data,
    parked_data,
    study_data,
)
from bridge.notify.ways import signature

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "events.md").read_text("utf-8")
SECRET = "a-secret-that-is-long"  # noqa: S105


def test_the_verification_that_the_page_shows_verifies() -> None:
    code = PAGE.partition("<!-- verify: begin -->\n```python\n")[2].partition("```")[0]
    assert len(code.strip().splitlines()) <= 12
    shown: dict[str, Any] = {}
    exec(code, shown)  # noqa: S102 (what the page tells people to run)
    now, body = int(time.time()), b'{"id":"e"}'

    def headers(sent: int, **other: str) -> dict[str, str]:
        return {
            "webhook-id": "e",
            "webhook-timestamp": str(sent),
            "webhook-signature": signature(SECRET, "e", sent, body),
        } | other

    verified = shown["verified"]
    assert verified(SECRET, headers(now), body)
    assert not verified(SECRET, headers(now), body + b" ")
    assert not verified("other", headers(now), body)
    assert not verified(SECRET, headers(now - 1000), body)
    assert not verified(SECRET, headers(now, **{"webhook-id": "f"}), body)


def test_every_event_and_each_of_its_fields_is_described() -> None:
    record = StudyRecord(Study("1.2", "id"), 1.0, 2.0, 1, 0, 0)
    data = {
        EventKind.STUDY_COMPLETE: study_data(record, again=False),
        EventKind.STUDY_INCOMPLETE: study_data(record, again=False),
        EventKind.PARKED: parked_data([("i", "r")], total=1),
        EventKind.HEALTH_CHANGED: health_data((), before=()),
        EventKind.DIGEST: digest_data(
            day="", studies=(0, 0, 0), parked={}, dropped_events=0, codes=()
        ),
        EventKind.TEST: {},
    }
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.+) \|$", PAGE, re.M)
    for kind in EventKind:
        described = " ".join(text for names, text in rows if f"`{kind}`" in names)
        assert kind is EventKind.TEST or described, kind
        for field in data[kind]:
            assert f"`{field}`" in described, f"{kind}: {field}"
    assert set(data) == set(EventKind)
    assert all(f"`{kind}`" in PAGE for kind in CHOICES)


def test_the_example_is_as_events_are() -> None:
    shown = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])
    record = StudyRecord(Study("1.2", "id"), 1.0, 2.0, 1, 0, 0)
    body = event_body(
        EventKind.STUDY_COMPLETE,
        study_data(record, again=False),
        event_id="e",
        bridge="b",
        created_at=1.0,
    )
    made = json.loads(body)
    assert list(shown) == list(made)
    assert list(shown["data"]) == list(made["data"])
    assert shown["version"] == PAYLOAD_VERSION


def test_the_bounds_are_as_the_page_says() -> None:
    days = f"{OUTBOX_AGE_S / 86_400:g} days"
    assert f"The outbox holds at most {OUTBOX_ROWS_MAX:,} events, each for at most {days}." in PAGE
