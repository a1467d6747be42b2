from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from bridge.pipeline.pacing import parse_schedule


def _at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return local.timestamp()


OFFICE = "mon-fri 07:00-19:00 Europe/Berlin"
NIGHT = "sun-thu 22:00-06:00"


@pytest.mark.parametrize(
    ("schedule", "moment", "zone", "quiet"),
    [
        # 2026-11-23 is a Monday.
        (OFFICE, "2026-11-23T06:59", "Europe/Berlin", False),
        (OFFICE, "2026-11-23T07:00", "Europe/Berlin", True),
        (OFFICE, "2026-11-23T18:59:59", "Europe/Berlin", True),
        (OFFICE, "2026-11-23T19:00", "Europe/Berlin", False),
        (OFFICE, "2026-11-23T06:30", "UTC", True),
        # Week end.
        (OFFICE, "2026-11-27T18:00", "Europe/Berlin", True),
        (OFFICE, "2026-11-28T12:00", "Europe/Berlin", False),
        (OFFICE, "2026-11-29T12:00", "Europe/Berlin", False),
        # Around midnight: Sunday's night ends on Monday, Friday has none of its own.
        (NIGHT, "2026-11-22T21:59", "UTC", False),
        (NIGHT, "2026-11-22T22:00", "UTC", True),
        (NIGHT, "2026-11-23T00:00", "UTC", True),
        (NIGHT, "2026-11-23T05:59", "UTC", True),
        (NIGHT, "2026-11-23T06:00", "UTC", False),
        (NIGHT, "2026-11-27T05:00", "UTC", True),
        (NIGHT, "2026-11-27T23:00", "UTC", False),
        (NIGHT, "2026-11-28T05:00", "UTC", False),
        # Days that wrap around the week, every day, the whole day.
        ("sat-mon 10:00-11:00", "2026-11-23T10:30", "UTC", True),
        ("sat-mon 10:00-11:00", "2026-11-24T10:30", "UTC", False),
        ("10:00-11:00", "2026-11-24T10:30", "UTC", True),
        ("sun 00:00-24:00", "2026-11-22T23:59", "UTC", True),
        ("sun 00:00-24:00", "2026-11-23T00:00", "UTC", False),
        ("", "2026-11-22T12:00", "UTC", False),
        # The night in which clocks go back: 02:30 comes twice, both times quiet; 03:00 is over.
        ("02:00-03:00 Europe/Berlin", "2026-10-25T02:30", "Europe/Berlin", True),
        ("02:00-03:00 Europe/Berlin", "2026-10-25T03:00", "Europe/Berlin", False),
        # The night in which they go forward: 01:59 is followed by 03:00.
        ("01:00-03:00 Europe/Berlin", "2026-03-29T01:59", "Europe/Berlin", True),
        ("01:00-03:00 Europe/Berlin", "2026-03-29T03:00", "Europe/Berlin", False),
    ],
)
def test_quiet(schedule: str, moment: str, zone: str, quiet: bool) -> None:
    assert parse_schedule(schedule).quiet(_at(moment, zone)) is quiet


def test_the_hour_that_comes_twice_is_quiet_both_times() -> None:
    schedule = parse_schedule("02:00-03:00 Europe/Berlin")
    first, second = (_at("2026-10-25T02:30", "Europe/Berlin", fold) for fold in (0, 1))
    assert second - first == 3600
    assert schedule.quiet(first)
    assert schedule.quiet(second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("always", "'always' is not days and hours such as"),
        ("mon 7:00-19:00", "is not days and hours"),
        ("mon 25:00-26:00", "25:00 is not a time"),
        ("mon 10:60-11:00", "10:60 is not a time"),
        ("mom 10:00-11:00", "'mom' is not one of"),
        ("mon 10:00-11:00 Europe/Atlantis", "Europe/Atlantis is not a time zone"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_schedule(text)
