"""The outbox: at least once whenever the bridge is killed, bounded, and no receiver in the way."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bridge.events import NoticeFailed, NoticesDropped, NoticeSent
from bridge.ledger.outbox import OUTBOX_AGE_S, PAUSE_LONGEST_S, EventLedger
from bridge.ledger.records import EndedAs, Entry, Notice, OutboxView, Parked
from bridge.model import Move, Reason, Study, StudyState
from bridge.notify.sending import AGE_EVERY_S, AT_ONCE_MAX, WAY_PAUSE_LONGEST_S
from tests.unit.notify.events_world import STUDY, Killed, ManualClock, Steps, World, identifier

STABLE = StudyState(stable=True, last_update="20261130T220000")
OTHER = Study("1.2.840.2", "00000000-00000000-00000000-00000000-000000bb")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state.sqlite3")


def notice(number: int, *, way: str = "webhook", at: float = 1_800_000_000.0) -> Notice:
    return Notice(f"event-{number}", way, "parked", "{}", at)


def put(world: World, *notices: Notice) -> None:
    with EventLedger(world.path) as ledger:
        ledger.tell(notices)


def waiting(world: World) -> OutboxView:
    with EventLedger(world.path) as ledger:
        return ledger.outbox()


def what_happens(world: World) -> None:
    """Let one study be complete, one lack an instance, and a server be down. The pipeline lives."""
    world.source.states |= {STUDY.orthanc_id: STABLE, OTHER.orthanc_id: STABLE}
    world.source.feed_end = 6
    world.deliver(1, 2, 3)
    world.deliver(4, 5, study=OTHER)
    world.deliver(6, study=OTHER, ended=EndedAs.PARKED, checkpoint=6)
    world.codes = ["target_unreachable"]


EXPECTED = {"study_complete": 1, "study_incomplete": 1, "parked": 1, "health_changed": 1}


def live_until_told(world: World) -> None:
    for _ in range(80):
        world.turn(5.0)
    assert waiting(world) == OutboxView()


@pytest.mark.slow
def test_killed_at_any_step_everything_is_told_and_a_repetition_is_known_by_its_id(
    tmp_path: Path,
) -> None:
    """Before, within and after each transaction; before and after each receiver has an event."""
    repeated = 0
    for last in itertools.count(1):
        world = World(tmp_path / f"{last}.sqlite3")
        what_happens(world)
        steps = Steps(last)
        try:
            world.live(steps)
            live_until_told(world)
        except Killed:
            world.live()
            live_until_told(world)
        for kind, count in EXPECTED.items():
            assert len(world.told(kind)) == count, f"killed at step {last}: {kind}"
        for inbox in world.inboxes:
            repeated += len(inbox.arrived) - len({one.event_id for one in inbox.arrived})
        if steps.done < last:
            break
    assert last > 40, "there is something to interrupt"
    assert 1 <= repeated < last, "after a receiver had it, before that was noted"


@pytest.mark.slow
def test_killed_twice(tmp_path: Path) -> None:
    for first, second in itertools.product(range(1, 40, 6), range(1, 30, 5)):
        world = World(tmp_path / f"{first}-{second}.sqlite3")
        what_happens(world)
        for last in (first, second, None):
            try:
                world.live(Steps(last))
                live_until_told(world)
            except Killed:
                continue
        assert {kind: len(world.told(kind)) for kind in EXPECTED} == EXPECTED


def test_a_receiver_that_is_down_is_asked_ever_less_often_and_gets_everything(
    world: World,
) -> None:
    down, up = world.inboxes
    down.refuses = 40
    put(world, *(notice(n) for n in range(60)))
    put(world, *(notice(n, way="notify-1") for n in range(60)))
    world.turns(30)
    assert len(up.arrived) == 60, "another way is not in its way"
    assert down.attempts < 8
    assert waiting(world).waiting == {"webhook": 60}
    assert waiting(world).problem == "it answered 500"
    seconds = 0
    while down.refuses:
        world.turn(60.0)
        seconds += 60
    assert seconds > 30 * WAY_PAUSE_LONGEST_S / 2, "once in a quarter of an hour"
    for _ in range(100):
        world.turn(60.0)
    assert {one.event_id for one in down.arrived} == {f"event-{n}" for n in range(60)}
    assert waiting(world) == OutboxView()


def test_an_event_that_is_refused_keeps_no_other_from_its_receiver(world: World) -> None:
    class Picky:
        name = "webhook"
        arrived: list[str] = []  # noqa: RUF012
        refused = 0

        def send(self, one: Notice) -> object:
            from bridge.notify.ways import Sent

            if one.event_id == "event-0":
                self.refused += 1
                return Sent(taken=False, text="it answered 422")
            self.arrived.append(one.event_id)
            return Sent(taken=True, text="")

    picky = Picky()
    world.sender._ways = (picky,)  # type: ignore[assignment]
    put(world, *(notice(n) for n in range(6)))
    for _ in range(24 * 60):
        world.turn(60.0)
    assert sorted(picky.arrived) == [f"event-{n}" for n in range(1, 6)]
    assert 24 <= picky.refused < 40, "about once an hour"


def test_who_wants_no_more_is_left_alone_for_an_hour(world: World) -> None:
    world.inboxes[0].refuses, world.inboxes[0].gone = 1, True
    put(world, notice(1), notice(2))
    world.turns(10)
    assert world.inboxes[0].attempts == 1
    world.turn(PAUSE_LONGEST_S)
    world.turn(PAUSE_LONGEST_S)
    assert len(world.inboxes[0].arrived) == 2


def test_a_restart_asks_no_sooner_for_what_was_refused(world: World) -> None:
    world.inboxes[0].refuses = 1
    put(world, notice(1))
    world.turn()
    world.live()
    world.turns(3)
    assert world.inboxes[0].attempts == 1
    world.turns(4)
    assert len(world.inboxes[0].arrived) == 1


def test_a_clock_that_is_set_back_holds_no_event(world: World) -> None:
    world.inboxes[0].refuses = 1
    put(world, notice(1))
    world.turn()
    world.clock.now -= 30 * 86_400
    world.turns(20)
    assert len(world.inboxes[0].arrived) == 1


def test_it_is_bounded_in_rows(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    with EventLedger(tmp_path / "state.sqlite3") as ledger:
        ledger.tell([notice(n, at=now - 1) for n in range(3)])
        assert ledger.drop_excess(rows_max=3) == 0
        ledger.tell([notice(n, at=now) for n in range(3, 8)])
        assert ledger.drop_excess(rows_max=3) == 5
        assert ledger.outbox() == OutboxView({"webhook": 3}, now, "")
        left = ledger.due("webhook", now=now)
        assert left is not None
        assert left.notice.event_id == "event-5", "the oldest go"
        assert ledger.meta("events_dropped") == "5"


def test_it_is_bounded_in_age_by_a_clock_that_nobody_can_set(tmp_path: Path) -> None:
    """Fails when the time that is written beside an event decides: it may be of any clock."""
    with EventLedger(tmp_path / "state.sqlite3") as ledger:
        ledger.tell([notice(1, at=0.0), notice(2, at=4e9)])
        assert ledger.drop_old(1000.0) == 0
        ledger.tell([notice(3, at=0.0)])
        assert ledger.drop_old(1000.0 + OUTBOX_AGE_S - 1) == 0
        assert ledger.drop_old(1000.0 + OUTBOX_AGE_S) == 2
        assert ledger.drop_old(1000.0 + 2 * OUTBOX_AGE_S - 2) == 0
        assert ledger.drop_old(5.0) == 0, "of a restored state file: younger, never older"
        assert ledger.drop_old(4.0 + OUTBOX_AGE_S) == 0
        assert ledger.drop_old(5.0 + OUTBOX_AGE_S) == 1
        assert ledger.meta("events_dropped") == "3"


@pytest.mark.parametrize("days", [8, 30, 4000])
def test_a_clock_that_is_set_days_ahead_drops_no_event(world: World, days: int) -> None:
    """Before a restart and after it, and when it is set back again."""
    put(world, *(notice(n, at=world.clock.now) for n in range(4)))
    world.inboxes[0].refuses = world.inboxes[1].refuses = 1000
    world.turn()
    world.clock.now += days * 86_400
    world.turn(AGE_EVERY_S)
    world.live()
    world.turn(AGE_EVERY_S)
    world.clock.now -= days * 86_400
    world.turn(AGE_EVERY_S)
    assert not [event for event in world.seen.events if isinstance(event, NoticesDropped)]
    world.inboxes[0].refuses = 0
    for _ in range(100):
        world.turn(AGE_EVERY_S / 4)
    assert {notice.event_id for notice in world.inboxes[0].arrived} >= {
        f"event-{n}" for n in range(4)
    }


def test_what_is_dropped_is_told(world: World) -> None:
    put(world, *(notice(n, at=world.clock.now) for n in range(4)))
    world.inboxes[0].refuses = 1000
    world.turn()
    world.turn(OUTBOX_AGE_S)
    assert NoticesDropped(4) in world.seen.events


def test_what_was_sent_and_what_failed_is_told(world: World) -> None:
    world.inboxes[0].refuses = 1
    put(world, notice(1))
    world.turns(20)
    assert world.seen.events == [
        NoticeFailed("parked", "webhook", "it answered 500"),
        NoticeSent("parked", "webhook"),
    ]


def test_an_event_whose_place_was_taken_by_another_stays(tmp_path: Path) -> None:
    """A place is given anew; only the event that was sent may leave it."""
    with EventLedger(tmp_path / "state.sqlite3") as ledger:
        ledger.tell([notice(1)])
        first = ledger.due("webhook", now=2e9)
        assert first is not None
        ledger.sent(first)
        ledger.tell([notice(2)])
        second = ledger.due("webhook", now=2e9)
        assert second is not None
        assert second.number == first.number
        ledger.sent(first)
        ledger.put_off(first, next_at=9e9, problem="x")
        assert ledger.due("webhook", now=2e9) == second


def test_one_way_does_not_take_all_the_time(world: World) -> None:
    put(world, *(notice(n) for n in range(3 * AT_ONCE_MAX)))
    put(world, notice(1, way="notify-1"))
    world.turn()
    assert len(world.inboxes[0].arrived) == AT_ONCE_MAX
    assert len(world.inboxes[1].arrived) == 1


def test_a_stop_is_not_waited_for_by_what_is_left(world: World) -> None:
    world.sender._stopping = lambda: True
    put(world, notice(1))
    world.turns(5)
    assert world.inboxes[0].attempts == 0
    with EventLedger(world.path) as ledger:
        world.sender.turn(ledger, last=True)
    assert len(world.inboxes[0].arrived) == 1


def test_a_parked_one_that_arrives_before_it_is_told_is_not_told(world: World) -> None:
    for n in (1, 2, 3):
        entry = Parked(Move(identifier(n), n), Reason.TIMED_OUT, "why", 1, 1.0, 2.0)
        world.commit(Entry(parked=(entry,)))
    world.turns(10)
    world.commit(Entry(unparked=tuple(identifier(n) for n in (1, 2, 3))))
    world.turns(100)
    assert world.told("parked") == []
    assert isinstance(world.clock, ManualClock)


def test_what_waits_on_a_way_that_was_taken_away_is_no_trouble(world: World) -> None:
    """An address whose password was changed is another way: nobody could clear /health."""
    first, second = world.inboxes
    for inbox in world.inboxes:
        inbox.refuses = 10_000
    world.codes = ["parked"]
    world.turns(100)
    assert world.ledger is not None
    assert world.ledger.outbox().waiting == {"webhook": 1, "notify-1": 1}
    for ways, waiting in (([first], {"webhook": 1}), ([], {}), ([second], {"notify-1": 1})):
        world.inboxes = list(ways)
        world.live()
        view = world.ledger.outbox()
        assert view.waiting == waiting
        assert (view.oldest_at is None, view.problem == "") == (not waiting, not waiting)
    second.refuses = 0
    world.turns(10_000)
    assert len(second.told("health_changed")) == 1, "it waited for its way to be set again"
