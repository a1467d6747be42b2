"""Both threads: what they say of trouble, and that they end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bridge.events import TellingFailed
from bridge.ledger.outbox import EventLedger
from bridge.ledger.records import EndedAs
from bridge.model import StudyState
from bridge.notify.events_thread import EventsThread, Repeating
from tests.unit.notify.events_world import STUDY, Seen, World


def events_thread(world: World, stop: threading.Event, *, source_up: bool = True) -> EventsThread:
    return EventsThread(
        world.teller,
        world.sender,
        world.watch,
        state_path=world.path,
        observer=world.seen,
        source_up=lambda: source_up,
        steady_s=world.clock.steady_s,
        stop=stop,
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_by_a_bug_is_told(tmp_path: Path) -> None:
    def bug(_: EventLedger) -> float:
        raise ZeroDivisionError

    EventLedger(tmp_path / "state").close()
    seen, stop = Seen(), threading.Event()
    thread = Repeating("events", bug, state_path=tmp_path / "state", observer=seen, stop=stop)
    thread.start()
    assert thread.join(10)
    (told,) = seen.events
    assert isinstance(told, TellingFailed)
    assert "restart the bridge" in told.message


def test_a_state_file_that_cannot_be_used_is_waited_for(tmp_path: Path) -> None:
    turns = threading.Event()

    def turn(_: EventLedger) -> float:
        turns.set()
        return 100.0

    seen, stop = Seen(), threading.Event()
    thread = Repeating("events", turn, state_path=tmp_path / "none", observer=seen, stop=stop)
    assert thread._once() >= 1.0
    assert seen.events == []
    EventLedger(tmp_path / "none").close()
    thread.start()
    assert turns.wait(10)
    stop.set()
    assert thread.join(10)
    assert seen.events == []


def test_what_a_command_leaves_is_told_and_sent_at_its_end(tmp_path: Path) -> None:
    world, stop = World(tmp_path / "state.sqlite3"), threading.Event()
    world.source.states[STUDY.orthanc_id] = StudyState(True, "20261130T220000")
    world.deliver(1, 2, checkpoint=2)
    world.deliver(3, ended=EndedAs.PARKED)
    world.clock.pass_(30)
    thread = events_thread(world, stop)
    thread.start()
    thread.stop(finish=True)
    assert [one["count"] for one in world.told("parked")] == [1]
    assert len(world.told("study_incomplete")) == 1


def test_a_source_that_is_down_is_not_asked(tmp_path: Path) -> None:
    world, stop = World(tmp_path / "state.sqlite3"), threading.Event()
    world.deliver(1, checkpoint=2)
    world.clock.pass_(30)
    with EventLedger(world.path) as ledger:
        events_thread(world, stop, source_up=False).tell(ledger)
        assert world.source.asked == []
        events_thread(world, stop).tell(ledger)
        assert world.source.asked == [STUDY.orthanc_id]
