"""Rates by the hour: what the clock on the wall shows decides, at midnight and when it changes."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from bridge.config import load_settings
from bridge.errors import ConfigurationError
from bridge.model import Action, Delivered, StageTimes
from bridge.pipeline.holds import Hold, OperatorThrottle
from bridge.pipeline.pacing import Allowance, Bucket, parse_timetable
from tests.pipeline_bench import Time

MEGABIT = 1_000_000
OFFICE = "08:00,20 18:00,off Europe/Berlin"
WEEK = "07:30,5 20:00,50 sat-00:00,off mon-06:00,2.5"


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return local.timestamp()


@pytest.mark.parametrize(
    ("timetable", "moment", "zone", "rate"),
    [
        # 2026-11-23 is a Monday.
        (OFFICE, "2026-11-23T07:59:59", "Europe/Berlin", 0),
        (OFFICE, "2026-11-23T08:00", "Europe/Berlin", 20),
        (OFFICE, "2026-11-23T17:59:59", "Europe/Berlin", 20),
        (OFFICE, "2026-11-23T18:00", "Europe/Berlin", 0),
        (OFFICE, "2026-11-23T07:00", "UTC", 20),
        # Around midnight, and around the end of the week: what was last holds on.
        (OFFICE, "2026-11-23T00:00", "Europe/Berlin", 0),
        ("08:00,20 23:59,3", "2026-11-23T00:00", "UTC", 3),
        ("08:00,20 23:59,3", "2026-11-22T23:59:59", "UTC", 3),
        ("00:00,7 12:00,off", "2026-11-23T00:00", "UTC", 7),
        ("00:00,7 12:00,off", "2026-11-22T23:59:59", "UTC", 0),
        # Days of their own beside every day.
        (WEEK, "2026-11-28T00:00", "UTC", 0),
        (WEEK, "2026-11-27T23:59", "UTC", 50),
        (WEEK, "2026-11-28T07:30", "UTC", 5),
        (WEEK, "2026-11-23T06:00", "UTC", 2.5),
        (WEEK, "2026-11-23T05:59", "UTC", 50),
        (WEEK, "2026-11-24T06:00", "UTC", 50),
        # One entry holds for ever; one on one day for the whole week.
        ("12:00,9", "2026-11-23T03:00", "UTC", 9),
        ("wed-12:00,9", "2026-11-23T03:00", "UTC", 9),
        # The night in which clocks go forward: 01:59 is followed by 03:00.
        ("01:00,1 02:30,2 04:00,4 Europe/Berlin", "2026-03-29T01:59", "Europe/Berlin", 1),
        ("01:00,1 02:30,2 04:00,4 Europe/Berlin", "2026-03-29T03:00", "Europe/Berlin", 2),
        # The night in which they go back: 02:30 comes twice, and 02:00 after 02:59 too.
        ("01:00,1 02:30,2 04:00,4 Europe/Berlin", "2026-10-25T02:30", "Europe/Berlin", 2),
        ("01:00,1 02:30,2 04:00,4 Europe/Berlin", "2026-10-25T03:59", "Europe/Berlin", 2),
    ],
)
def test_the_rate_of_a_moment(timetable: str, moment: str, zone: str, rate: float) -> None:
    parsed = parse_timetable(timetable)
    assert parsed is not None
    assert parsed.mbit_s(at(moment, zone)) == rate


def test_the_hour_that_comes_twice_is_what_the_wall_shows_both_times() -> None:
    parsed = parse_timetable("02:00,1 02:30,2 03:00,3 Europe/Berlin")
    assert parsed is not None
    shown = [
        parsed.mbit_s(at(f"2026-10-25T02:{minute}", "Europe/Berlin", fold))
        for fold in (0, 1)
        for minute in ("00", "30")
    ]
    assert shown == [1, 2, 1, 2]


def test_nothing_is_no_timetable() -> None:
    assert parse_timetable("") is None
    assert parse_timetable("  ") is None


def test_two_rates_are_refused() -> None:
    servers = {"source_url": "http://a", "target_url": "http://b"}
    load_settings(**servers, rate_timetable=OFFICE)
    with pytest.raises(ConfigurationError, match="set one of them"):
        load_settings(**servers, rate_timetable=OFFICE, max_mbit_s=5)


def delivered(megabits: float) -> Delivered:
    size = int(megabits * MEGABIT / 8)
    return Delivered("Success", Action.UNCHANGED, "1", "1", "1", size, 0, StageTimes())


def test_a_bridge_obeys_the_hour() -> None:
    """20 Mbit/s until 18:00, then as fast as it can; a debt of the day holds nobody at night."""

    class Evening(Time):
        def now_s(self) -> float:
            return at("2026-11-23T17:59:30", "Europe/Berlin") + self.s

    clock = Evening()
    throttle = OperatorThrottle(
        Allowance(timetable=parse_timetable(OFFICE)), ledger=None, clock=clock
    )
    assert throttle.hold() is Hold.NONE
    throttle.ended(delivered(120.0))  # six seconds' worth, and one second was saved up
    assert throttle.hold() is Hold.RATE_LIMIT
    assert throttle.hold_s() == pytest.approx(5.0)
    clock.s = 5.01
    assert throttle.hold() is Hold.NONE
    throttle.ended(delivered(2000.0))
    clock.s = 29.9
    assert throttle.hold() is Hold.RATE_LIMIT
    clock.s = 30.0
    assert throttle.hold() is Hold.NONE
    throttle.ended(delivered(2000.0))
    assert throttle.hold() is Hold.NONE


def test_a_morning_begins_with_one_seconds_worth_and_not_with_a_night() -> None:
    bucket = Bucket(0.0, now_s=0.0)
    bucket.charge(1e9, now_s=10.0)
    bucket.change(20.0, now_s=3600.0)
    assert bucket.ready_in_s(now_s=3600.0) == 0
    bucket.charge(60.0, now_s=3600.0)
    assert bucket.ready_in_s(now_s=3600.0) == pytest.approx(2.0)


def test_a_debt_is_paid_at_the_new_rate() -> None:
    bucket = Bucket(10.0, now_s=0.0)
    bucket.charge(110.0, now_s=0.0)
    bucket.change(50.0, now_s=0.0)
    assert bucket.ready_in_s(now_s=0.0) == pytest.approx(2.0)
    bucket.change(50.0, now_s=1.0)
    assert bucket.ready_in_s(now_s=1.0) == pytest.approx(1.0)
    saved_up = Bucket(1000.0, now_s=0.0)
    saved_up.change(1.0, now_s=0.0)
    saved_up.charge(2.0, now_s=0.0)
    assert saved_up.ready_in_s(now_s=0.0) == pytest.approx(1.0)


def test_what_is_told_of_the_rate_is_that_of_the_moment() -> None:
    allowance = Allowance(mbit_s=0.0, timetable=parse_timetable(OFFICE))
    assert allowance.mbit_s_at(at("2026-11-23T12:00", "Europe/Berlin")) == 20
    assert Allowance(mbit_s=3.0).mbit_s_at(0.0) == 3
