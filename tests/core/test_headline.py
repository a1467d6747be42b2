from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.events import InFlight, Progress, SideView
from bridge.core.headline import counted, headline, lasting, limits_in_words
from bridge.core.health import HealthLimits, judge

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
        (BUSY, 0, "All is well: 1,200 changes to go, the oldest 1 min 40 s old."),
        (replace(IDLE, phase="starting"), 0, "The bridge is starting."),
        (replace(IDLE, phase="draining"), 0,
         "The bridge is stopping: what is under way may finish."),
        (replace(IDLE, phase="snapshot"), 0,
         "All is well: going through everything that the source holds."),
        (replace(BUSY, hold="paused"), 0,
         "All is well: 1,200 changes to go, the oldest 1 min 40 s old; paused by an operator; to "
         "go on: orthanc-bridge resume."),
        # Parked instances have not arrived, however many of them are borne.
        (IDLE, 1, "All is well: everything that the source announced has arrived, except 1 "
         "instance set aside as parked."),
        (IDLE, 9, "Attention: 9 instances are parked. Look at them: orthanc-bridge parked list."),
        (replace(BUSY, target=DOWN), 0, "Attention: It is not there. Start it. Nothing is lost; "
         "the bridge goes on by itself."),
        (replace(BUSY, target=FULL), 0, "Attention: It says 507. Make room on that server. "
         "Nothing is lost; the bridge goes on by itself."),
        (replace(BUSY, source=DOWN, target=DOWN), 9, "Attention (2 more below): It is not there. "
         "Start it. Nothing is lost; the bridge goes on by itself."),
        (replace(BUSY, hold="paused"), 9, "Attention: 9 instances are parked. Look at them: "
         "orthanc-bridge parked list. The bridge is also paused by an operator; to go on: "
         "orthanc-bridge resume."),
        (replace(BUSY, hold="rate_limit"), 9,
         "Attention: 9 instances are parked. Look at them: orthanc-bridge parked list."),
        (replace(IDLE, source=NEW), 0, "Attention: It was not asked yet. Wait a moment."),
    ],
)  # fmt: skip
def test_headline(progress: Progress, parked: int, said: str) -> None:
    found = judge(progress, {"undecodable": parked}, HealthLimits(parked_limit=3), now=NOW)
    assert headline(progress, found, parked=parked, now=NOW) == said


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


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((0, 0, ""), ""),
        ((2.5, 0, ""), "at most 2.5 instances a second"),
        ((5, 80, ""), "at most 5 instances and 80 Mbit a second"),
        ((0, 80, "sun 01:00-02:00"), "at most 80 Mbit a second, quiet hours sun 01:00-02:00"),
    ],
)
def test_limits_in_words(limits: tuple[float, float, str], said: str) -> None:
    assert limits_in_words(*limits) == said
