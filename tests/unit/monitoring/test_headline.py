from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.events import InFlight, Progress, SideView
from bridge.monitoring.headline import (
    BridgeStanding,
    headline,
    limits_in_words,
    next_command,
    rates_in_words,
    standing_of,
)
from bridge.monitoring.health import HealthLimits, counted, judge, lasting
from bridge.monitoring.time_left import TimeLeft

NOW = 1_000_000.0
IDLE = Progress(
    checkpoint=10,
    last=10,
    caught_up=True,
    last_progress_at=NOW,
    feed_read_at=NOW,
    phase="following",
)
BUSY = replace(
    IDLE,
    last=1210,
    caught_up=False,
    in_flight=(InFlight("i", 11, NOW, 1),),
    oldest_changed_at="19700112T134500",
)
DOWN = SideView(up=False, problem="unreachable", message="It is not there.", advice="Start it.")
FULL = SideView(up=False, problem="storage_full", message="It says 507.")
NEW = SideView(up=False, problem="not_contacted", message="It was not asked yet.")


@pytest.mark.parametrize(
    ("progress", "parked", "said"),
    [
        (IDLE, 0, "All is well: everything that the source announced has arrived."),
        (BUSY, 0, "Working on it: 1,200 changes to go, the oldest 1 min 40 s old."),
        (replace(BUSY, oldest_changed_at="19700112T134541"), 0,
         "All is well: 1,200 changes to go, the oldest 59 s old."),
        (replace(IDLE, phase="starting"), 0, "The bridge is starting."),
        (replace(IDLE, phase="draining"), 0,
         "The bridge is stopping: instances in progress may finish."),
        (replace(IDLE, phase="snapshot"), 0,
         "Working on it: comparing everything that the source holds."),
        (replace(BUSY, hold="paused"), 0,
         "Paused by an operator: 1,200 changes to go, the oldest 1 min 40 s old. To continue: "
         "orthanc-bridge resume."),
        (replace(IDLE, hold="paused"), 1,
         "Paused by an operator: everything that the source announced has arrived, except 1 "
         "instance set aside as parked. To continue: orthanc-bridge resume."),
        (replace(BUSY, hold="paused", phase="snapshot"), 0, "Paused by an operator: comparing "
         "everything that the source holds. To continue: orthanc-bridge resume."),
        (replace(BUSY, hold="quiet_hours"), 0, "Quiet hours (BRIDGE_SCHEDULE): 1,200 changes to "
         "go, the oldest 1 min 40 s old."),
        (replace(BUSY, hold="rate_limit"), 0, "Working on it: 1,200 changes to go, the oldest 1 "
                                              "min 40 s old; limited by BRIDGE_MAX_INSTANCES_S, "
                                              "BRIDGE_MAX_MBIT_S or BRIDGE_RATE_TIMETABLE."),
        # Parked instances have not arrived, however many of them are borne.
        (IDLE, 1, "All is well: everything that the source announced has arrived, except 1 "
         "instance set aside as parked."),
        (IDLE, 9, "Attention: 9 instances are parked. To see why: orthanc-bridge parked list."),
        (replace(BUSY, target=DOWN), 0, "Attention: It is not there. Start it. Nothing is lost; "
         "the bridge resumes automatically."),
        (replace(BUSY, target=FULL), 0, "Attention: It says 507. Free storage on that server. "
         "Nothing is lost; the bridge resumes automatically."),
        (replace(BUSY, source=DOWN, target=DOWN), 9, "Attention (2 more below): It is not there. "
         "Start it. Nothing is lost; the bridge resumes automatically."),
        (replace(BUSY, hold="paused"), 9, "Attention: 9 instances are parked. To see why: "
         "orthanc-bridge parked list. The bridge is also paused by an operator; to continue: "
         "orthanc-bridge resume."),
        (replace(BUSY, hold="rate_limit"), 9,
         "Attention: 9 instances are parked. To see why: orthanc-bridge parked list."),
        (replace(IDLE, source=NEW), 0, "The bridge is starting: it has not asked the source yet."),
        (replace(IDLE, source=NEW, target=NEW, hold="paused"), 0,
         "The bridge is starting: it has not asked the source and the target yet. The bridge is "
         "also paused by an operator; to continue: orthanc-bridge resume."),
        (replace(IDLE, source=NEW, target=FULL), 0,
         "Attention (1 more below): It says 507. Free storage on that server. Nothing is lost; the "
         "bridge resumes automatically."),
    ],
)  # fmt: skip
def test_headline(progress: Progress, parked: int, said: str) -> None:
    found = judge(progress, {"undecodable": parked}, HealthLimits(parked_limit=3), now=NOW)
    assert headline(progress, found, parked=parked, now=NOW) == said


HOLDING = ("paused", "quiet_hours")


@pytest.mark.parametrize(
    ("progress", "standing"),
    [
        (IDLE, BridgeStanding.WELL),
        (replace(IDLE, hold="quiet_hours"), BridgeStanding.WELL),
        (replace(IDLE, hold="rate_limit"), BridgeStanding.WELL),
        (BUSY, BridgeStanding.WORKING),
        (replace(BUSY, oldest_changed_at="19700112T134540"), BridgeStanding.WORKING),
        (replace(BUSY, oldest_changed_at="19700112T134541"), BridgeStanding.WELL),
        # Whose age is not known may be old.
        (replace(BUSY, oldest_changed_at=""), BridgeStanding.WORKING),
        *((replace(BUSY, oldest_changed_at="19700112T134541", hold=hold), BridgeStanding.WORKING)
          for hold in (*HOLDING, "rate_limit")),
        (replace(IDLE, hold="paused"), BridgeStanding.WORKING),
        *((replace(IDLE, phase=phase), BridgeStanding.WORKING)
          for phase in ("starting", "snapshot", "draining")),
        (replace(IDLE, source=NEW, target=NEW), BridgeStanding.WORKING),
        (replace(IDLE, source=NEW, target=DOWN), BridgeStanding.NEEDS_PERSON),
        (replace(BUSY, hold="paused", target=FULL), BridgeStanding.NEEDS_PERSON),
    ],
)  # fmt: skip
def test_the_colour(progress: Progress, standing: BridgeStanding) -> None:
    found = judge(progress, {}, HealthLimits(), now=NOW)
    assert standing_of(progress, found, now=NOW) is standing
    said = headline(progress, found, parked=0, now=NOW)
    assert said.startswith("All is well") == (
        standing is BridgeStanding.WELL and progress.hold not in HOLDING
    )
    assert said.startswith("Attention") == (standing is BridgeStanding.NEEDS_PERSON)


def test_parked_ones_that_are_borne_need_nobody_and_others_do() -> None:
    for parked, standing in ((3, BridgeStanding.WELL), (4, BridgeStanding.NEEDS_PERSON)):
        found = judge(IDLE, {"undecodable": parked}, HealthLimits(parked_limit=3), now=NOW)
        assert standing_of(IDLE, found, now=NOW) is standing


def test_what_to_type_next() -> None:
    paused = replace(BUSY, hold="paused")
    parked = judge(paused, {"undecodable": 1}, HealthLimits(), now=NOW)
    assert next_command(paused, ()) == "orthanc-bridge resume"
    assert next_command(paused, parked) == "orthanc-bridge parked list"
    assert next_command(BUSY, judge(replace(BUSY, target=DOWN), {}, HealthLimits(), now=NOW)) == ""
    assert next_command(BUSY, ()) == ""


def test_the_rest_takes_so_long() -> None:
    left = TimeLeft(240.0, 600.0)
    said = headline(BUSY, (), parked=0, now=NOW, left=left)
    assert said.endswith("the oldest 1 min 40 s old; 4 min to 10 min left.")
    held = headline(replace(BUSY, hold="paused"), (), parked=0, now=NOW, left=left)
    assert "left" not in held


@pytest.mark.parametrize(
    ("parked", "dropped", "said"),
    [
        (0, 0, "has arrived."),
        (0, 1, "has arrived, except 1 instance dropped by an operator."),
        (2, 3, "has arrived, except 2 instances set aside as parked and 3 instances dropped by an "
         "operator."),
    ],
)  # fmt: skip
def test_what_was_dropped_has_not_arrived(parked: int, dropped: int, said: str) -> None:
    whole = headline(IDLE, (), parked=parked, dropped=dropped, now=NOW)
    assert whole == f"All is well: everything that the source announced {said}"


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("problem", ["unreachable", "tls", "forbidden", "server_error"])
def test_a_server_that_is_down_always_has_a_remedy(side: str, problem: str) -> None:
    view = SideView(up=False, problem=problem, message="Seen.")
    progress = replace(IDLE, source=view) if side == "source" else replace(IDLE, target=view)
    found = judge(progress, {}, HealthLimits(), now=NOW)
    said = headline(progress, found, parked=0, now=NOW)
    assert said.startswith("Attention: Seen. ")
    assert len(said.split(". ")) == 3, "what is wrong, what to do, what happens meanwhile"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"),
     (86_399, "23 h 59 min"), (86_400, "1 d 0 h"), (200_000, "2 d 7 h")],
)  # fmt: skip
def test_lasting(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


def test_counted() -> None:
    assert [counted(n, "change") for n in (0, 1, 1500)] == [
        "0 changes",
        "1 change",
        "1,500 changes",
    ]


def test_a_rate_limit_is_told_with_its_figure() -> None:
    limited = replace(IDLE, hold="rate_limit")
    rates = rates_in_words(40, 8)
    said = headline(limited, (), parked=0, now=NOW, rates=rates)
    assert said.endswith("; limited to 40 instances/s and 8 Mbit/s.")
    assert headline(limited, (), parked=0, now=NOW).endswith(
        "; limited by BRIDGE_MAX_INSTANCES_S, BRIDGE_MAX_MBIT_S or BRIDGE_RATE_TIMETABLE."
    )


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((0, 0, ""), ""),
        ((2.5, 0, ""), "at most 2.5 instances/s"),
        ((5, 80, ""), "at most 5 instances/s and 80 Mbit/s"),
        ((0, 80, "sun 01:00-02:00"), "at most 80 Mbit/s, quiet hours sun 01:00-02:00"),
    ],
)
def test_limits_in_words(limits: tuple[float, float, str], said: str) -> None:
    assert limits_in_words(*limits) == said
