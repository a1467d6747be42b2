"""What is told, and when: studies, parked instances, health and the day, from the ledger."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards, SideError, StateError, side_error
from bridge.events import TellingFailed, TellingWorks
from bridge.ledger.outbox import EventLedger
from bridge.ledger.records import EndedAs, Entry, Parked, StudyNote
from bridge.model import Gap, Move, Reason, SideName, SideProblem, Study, StudyState
from bridge.notify.event_kinds import EventKind
from bridge.notify.telling import STUDIES_AT_ONCE, Troubles
from tests.unit.notify.events_world import STUDY, Seen, World, identifier

STABLE = StudyState(stable=True, last_update="20261130T220000")
GROWN = StudyState(stable=True, last_update="20261130T230000")
MOVING = StudyState(stable=False, last_update="20261130T220000")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state.sqlite3")


def is_stable(world: World, study: Study = STUDY) -> bool:
    with EventLedger(world.path) as ledger:
        (found,) = ledger.find_studies(study.uid, limit=2)
        return found.stable


def test_a_study_is_complete_once_and_again_when_it_grows(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = MOVING
    world.source.feed_end = 9
    world.deliver(1, 2, 3, checkpoint=9)
    world.turns(100)
    assert world.told("study_complete") == []
    assert not is_stable(world)
    world.source.states[STUDY.orthanc_id] = STABLE
    world.turns(100)
    (told,) = world.told("study_complete")
    assert (told["instances"], told["delivered"], told["again"]) == (3, 3, False)
    assert told["study_instance_uid"] == STUDY.uid
    assert is_stable(world)
    world.live()
    world.turns(100)
    assert len(world.told("study_complete")) == 1, "a restart tells nothing anew"
    world.deliver(2, checkpoint=10)  # replayed: nothing that was not there
    world.turns(100)
    assert len(world.told("study_complete")) == 1
    world.source.states[STUDY.orthanc_id] = GROWN
    world.deliver(4, checkpoint=12)
    assert not is_stable(world)
    world.turns(100)
    _, again = world.told("study_complete")
    assert (again["instances"], again["again"]) == (4, True)
    assert is_stable(world)


def test_what_the_feed_has_told_since_must_be_settled(world: World) -> None:
    """The source calls it stable while our backlog is long; the feed goes on meanwhile."""
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.feed_end = 50
    world.deliver(1, 2, checkpoint=20)
    world.turns(100)
    assert world.told("study_complete") == []
    world.source.feed_end = 5000
    world.turns(100)
    world.deliver(3, study=Study("1.3", identifier(9)), checkpoint=49)
    world.turns(100)
    assert world.told("study_complete") == []
    world.deliver(3, study=Study("1.3", identifier(9)), checkpoint=50)
    world.turns(100)
    (told,) = world.told("study_complete")
    assert told["study_instance_uid"] == STUDY.uid


def test_an_instance_that_comes_while_it_is_judged_is_not_passed_over(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.feed_end = 9
    world.deliver(1, checkpoint=9)
    world.source.before_answer = lambda: world.deliver(2, ended=EndedAs.PARKED)
    world.turn(10)
    assert world.told("study_complete") == []
    world.source.before_answer = lambda: None
    world.turns(100)
    assert world.told("study_complete") == []
    (told,) = world.told("study_incomplete")
    assert (told["instances"], told["parked"]) == (2, 1)


def test_a_study_is_not_stable_while_an_instance_of_it_waits(world: World) -> None:
    """The bridge is paused, or has a backlog: nothing of that instance is settled for hours."""
    other = Study("1.7", identifier(70))
    for study, number in ((STUDY, 1), (other, 2)):
        world.source.states[study.orthanc_id] = STABLE
        world.deliver(number, study=study, checkpoint=9)
    world.source.feed_end = 9
    world.turns(20)
    assert is_stable(world)
    # Another study's comes first, then one of this one, and the source calls it stable again.
    world.source.arrive(3, 10, Study("1.8", identifier(80)))
    world.source.arrive(4, 11)
    world.source.states[STUDY.orthanc_id] = GROWN
    world.turns(10)
    assert not is_stable(world)
    world.turns(1000)
    assert not is_stable(world), "as long as it waits"
    assert is_stable(world, other), "nothing waits of that"
    world.live()
    world.turns(20)
    assert not is_stable(world), "nor after a restart"
    world.deliver(4, checkpoint=11)
    world.turns(100)
    assert is_stable(world)
    assert [told["instances"] for told in world.told("study_complete")] == [1, 1, 2]


def test_a_study_whose_waiting_instance_was_deleted_is_stable_again_and_not_told(
    world: World,
) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.deliver(1, checkpoint=9)
    world.source.feed_end = 9
    world.turns(20)
    world.source.arrive(4, 11)
    world.turns(20)
    assert not is_stable(world)
    world.commit(Entry(checkpoint=11))  # it is gone: no file told its study
    world.turns(100)
    assert is_stable(world)
    assert len(world.told("study_complete")) == 1


def test_what_is_moved_at_once_is_not_looked_up(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = MOVING
    for number in range(1, 200):
        world.source.arrive(number, number)
        world.turn()
        if number > 2:
            world.deliver(number - 2, checkpoint=number - 2)
    assert world.source.looked_up == []


def test_a_long_backlog_is_looked_up_once_and_in_parts(world: World) -> None:
    world.deliver(1, checkpoint=1)
    for number in range(2, 3002):
        world.source.arrive(number, number)
    world.turns(20)
    assert world.source.looked_up == [identifier(number) for number in range(2, 3002)]
    # A feed that begins anew has other rows at these places.
    world.source.rows, world.source.looked_up, world.source.feed_end = (), [], 1
    world.turns(5)
    world.source.arrive(7, 2)
    world.turns(10)
    assert world.source.looked_up == [identifier(7)]


def test_a_source_that_fails_to_name_studies_keeps_none_from_being_judged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> frozenset[str]:
        raise side_error(SideName.SOURCE, SideProblem.TIMED_OUT, "too slow")

    monkeypatch.setattr(world.source, "studies_of", fails)
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.feed_end = 1
    world.deliver(1, checkpoint=0)
    world.turns(5)
    world.source.arrive(5, 2, Study("1.7", identifier(70)))
    with contextlib.suppress(SideError):
        world.turns(20)
    assert not is_stable(world)
    world.commit(Entry(checkpoint=1))
    with EventLedger(world.path) as ledger:
        for _ in range(20):
            world.clock.pass_(1)
            with contextlib.suppress(SideError):
                world.watch.turn(ledger)
    assert is_stable(world)


def test_a_source_that_does_not_name_studies_is_no_trouble(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.study_of = None
    world.deliver(1, checkpoint=9)
    world.source.feed_end = 9
    world.turns(20)
    world.source.arrive(4, 11)
    world.turns(20)
    assert is_stable(world)


def test_a_gap_may_hold_an_instance_of_it(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.held[STUDY.orthanc_id] = [identifier(n) for n in (1, 2, 3)]
    world.source.feed_end = 9
    world.deliver(1, 2, checkpoint=9, gaps=(Gap(5, 5, 1.0, True),))
    world.turns(100)
    assert world.told("study_complete") == []
    world.deliver(3)
    world.turns(100)
    assert len(world.told("study_complete")) == 1


def test_parked_ones_make_it_incomplete_until_they_arrive(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.deliver(1, 2)
    world.deliver(3, ended=EndedAs.PARKED, checkpoint=3)
    world.turns(100)
    (told,) = world.told("study_incomplete")
    assert (told["instances"], told["parked"]) == (3, 1)
    world.turns(200)
    assert world.told("study_complete") == []
    world.deliver(3)
    world.turns(100)
    assert len(world.told("study_incomplete")) == 1
    assert len(world.told("study_complete")) == 1


def parked_unread(number: int) -> Parked:
    """One whose file was never read: nothing tells its study."""
    return Parked(Move(identifier(number), number), Reason.TIMED_OUT, "why", 1, 1.0, 2.0)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_parked_one_whose_file_was_never_read_is_of_its_study(
    world: World, *, dropped: bool
) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.held[STUDY.orthanc_id] = [identifier(n) for n in (1, 2, 3)]
    world.commit(Entry(parked=(parked_unread(3), parked_unread(77))))
    if dropped:
        world.commit(Entry(dropped=(identifier(3), identifier(77)), dropped_at=world.clock.now))
    world.deliver(1, 2, checkpoint=3)
    world.turns(100)
    assert world.told("study_complete") == []
    (told,) = world.told("study_incomplete")
    assert (told["instances"], told["delivered"], told["parked"]) == (3, 2, 1)
    world.deliver(3)
    world.turns(100)
    (told,) = world.told("study_complete")
    assert (told["instances"], told["delivered"], told["parked"]) == (3, 3, 0)


def test_a_study_that_was_forgotten_keeps_what_is_parked_of_it(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.held[STUDY.orthanc_id] = [identifier(n) for n in (1, 2, 3)]
    world.deliver(1, checkpoint=1)
    world.deliver(2, ended=EndedAs.PARKED, checkpoint=2)
    world.turns(100)
    world.clock.pass_(86_400.0)
    other = StudyNote(Study("1.9", ""), identifier(9), EndedAs.DELIVERED, 0.0, world.clock.now)
    world.commit(Entry(studies=(other,)))
    with EventLedger(world.path) as ledger:
        assert ledger.find_studies(STUDY.uid, limit=2) == [], "it is forgotten"
    world.deliver(3, checkpoint=3)
    world.turns(100)
    assert world.told("study_complete") == []
    assert world.told("study_incomplete")[-1]["parked"] == 1


def test_one_that_was_delivered_and_is_parked_unread_now_is_lacking(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.source.held[STUDY.orthanc_id] = [identifier(n) for n in (1, 2)]
    world.deliver(1, 2, checkpoint=2)
    world.turns(100)
    assert len(world.told("study_complete")) == 1
    world.source.held[STUDY.orthanc_id].append(identifier(3))
    world.commit(Entry(parked=(parked_unread(2),)))
    world.deliver(3, checkpoint=3)
    world.turns(100)
    assert len(world.told("study_complete")) == 1
    (told,) = world.told("study_incomplete")
    assert (told["delivered"], told["parked"]) == (2, 1)


def test_a_parked_one_that_is_gone_is_not_waited_for(world: World) -> None:
    """It was deleted at the source: no file tells its study any more."""
    world.source.states[STUDY.orthanc_id] = STABLE
    world.deliver(1, 2)
    world.deliver(3, ended=EndedAs.PARKED, checkpoint=3)
    world.turns(100)
    world.commit(Entry(unparked=(identifier(3),)))
    world.turns(100)
    (told,) = world.told("study_complete")
    assert (told["delivered"], told["skipped"]) == (2, 1)


@pytest.mark.parametrize("delivered", [2, 0])
def test_an_incomplete_study_that_is_deleted_at_the_source_ends(
    world: World, delivered: int
) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.deliver(*range(10, 10 + delivered))
    world.deliver(3, ended=EndedAs.PARKED, checkpoint=3)
    world.turns(100)
    assert len(world.told("study_incomplete")) == 1
    del world.source.states[STUDY.orthanc_id]
    world.turns(100)
    assert world.told("study_complete") == [], "it is still parked"
    world.commit(Entry(unparked=(identifier(3),)))  # a retry has found that it is gone
    world.turns(100)
    (told,) = world.told("study_complete")
    assert (told["delivered"], told["skipped"], told["parked"]) == (delivered, 1, 0)
    # Planted, seen to fail: the page still says that it is not complete.
    assert is_stable(world)
    world.live()
    world.turns(100)
    assert len(world.told("study_complete")) == 1


def test_a_study_that_is_not_there_is_not_told(world: World) -> None:
    world.deliver(1, checkpoint=3)
    world.deliver(2, study=Study("1.4", ""), checkpoint=3)
    world.turns(20)
    assert world.told("study_complete") == []
    asked = len(world.source.asked)
    world.turns(200)
    assert len(world.source.asked) == asked, "and is not asked for any more"


def test_before_there_is_a_checkpoint_nothing_is_asked(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.deliver(1)
    world.turns(50)
    assert world.source.asked == []
    world.deliver(2, checkpoint=5)
    world.turns(50)
    assert len(world.told("study_complete")) == 1


def test_a_study_that_is_not_stable_is_asked_for_ever_less_often(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = MOVING
    world.deliver(1, checkpoint=1)
    world.turns(3600)
    assert 60 <= len(world.source.asked) < 90, "once a minute"


def test_the_source_is_known_again_before_its_feed_is_believed(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.deliver(1, checkpoint=5)

    def another_feed(_: EventLedger) -> None:
        raise FeedWentBackwards("another feed")

    world.watch._look_at_feed = another_feed
    world.clock.pass_(10)
    with EventLedger(world.path) as ledger, pytest.raises(FeedWentBackwards):
        world.watch.turn(ledger)
    assert not is_stable(world)


def test_many_studies_all_have_their_turn(world: World) -> None:
    many = [Study(f"1.5.{n}", identifier(1000 + n)) for n in range(3 * STUDIES_AT_ONCE + 7)]
    for number, study in enumerate(many):
        world.source.states[study.orthanc_id] = MOVING if number % 3 == 0 else STABLE
        world.deliver(number, study=study, checkpoint=number)
    world.turns(100)
    told = {one["study_instance_uid"] for one in world.told("study_complete")}
    assert told == {study.uid for number, study in enumerate(many) if number % 3}


def test_a_clock_that_is_set_back_hides_no_study(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.deliver(1, checkpoint=1)
    world.clock.now -= 86_400
    world.turns(10)
    assert len(world.told("study_complete")) == 1


@pytest.mark.slow
def test_500_parked_are_one_event(world: World) -> None:
    world.deliver(1, ended=EndedAs.PARKED)
    for number in range(2, 501):
        world.deliver(number, ended=EndedAs.PARKED)
        if number % 10 == 0:
            world.turn()
    world.turns(60)
    (told,) = world.told("parked")
    assert (told["count"], told["total"]) == (500, 500)
    assert told["reasons"] == {"undecodable": 500}
    world.turns(200)
    assert len(world.told("parked")) == 1
    # The same one parked anew is told anew; tried again by the policy in vain, it is not.
    world.deliver(7, ended=EndedAs.PARKED)
    world.turns(70)
    assert world.told("parked")[1]["count"] == 1
    again = Parked(
        Move(identifier(7), 7), Reason.UNDECODABLE, "w", 1, 1.0, 2.0, retries=1, tried_at=3.0
    )
    world.commit(Entry(parked=(again,)))
    world.turns(70)
    assert len(world.told("parked")) == 2


def test_what_was_parked_before_events_had_a_way_out_is_no_event(tmp_path: Path) -> None:
    world = World(tmp_path / "state.sqlite3")
    inboxes, world.inboxes = world.inboxes, []
    world.live()  # without a way
    world.deliver(1, 2, 3, ended=EndedAs.PARKED)
    world.turns(100)
    world.inboxes = inboxes
    world.live()
    world.deliver(4, ended=EndedAs.PARKED)
    world.turns(100)
    (told,) = world.told("parked")
    assert (told["count"], told["total"]) == (1, 4)


def test_health_is_told_when_it_changes(world: World) -> None:
    world.codes = ["target_unreachable"]
    world.turns(100)
    world.live()
    world.turns(100)
    world.codes = []
    world.turns(200)
    assert world.told("health_changed") == [
        {"status": "failing", "reasons": ["target_unreachable"], "before": []},
        {"status": "ok", "reasons": [], "before": ["target_unreachable"]},
    ]


def test_the_day_is_told_once(world: World) -> None:
    world.source.states[STUDY.orthanc_id] = STABLE
    world.turns(5)
    for hour in range(72):
        if hour == 12:
            world.deliver(hour, checkpoint=hour)
            world.deliver(99, ended=EndedAs.PARKED, study=Study("1.9", identifier(7)))
        world.turn(3600)
        if hour % 5 == 0:
            world.live()
    told = world.told("digest")
    assert len({one["day"] for one in told}) == len(told) == 3
    assert [(one["studies"], one["studies_incomplete"]) for one in told][-1] == (0, 0)
    assert sum(one["studies"] for one in told) == 2
    assert sum(one["studies_stable"] for one in told) == 1
    assert sum(one["studies_incomplete"] for one in told) == 1
    assert told[-1]["parked"] == {"undecodable": 1}


def test_a_clock_that_goes_ahead_and_back_stops_no_digest(world: World) -> None:
    world.turns(5)
    world.turn(86_400)
    assert len(world.told("digest")) == 1
    world.clock.now += 30 * 86_400
    world.turns(5)
    assert len(world.told("digest")) == 2, "by the clock a month has passed"
    for _ in range(3):
        world.clock.now -= 30 * 86_400
        world.turns(5)
        world.clock.now += 30 * 86_400
        world.turns(5)
    assert len(world.told("digest")) == 2, "none is told twice"
    world.clock.now -= 30 * 86_400
    for days in range(1, 4):
        world.turn(86_400)
        world.live()
        assert len(world.told("digest")) == 2 + days
    assert len({one["day"] for one in world.told("digest")}) == 5


def test_only_what_was_chosen_is_told(tmp_path: Path) -> None:
    world = World(tmp_path / "state.sqlite3", kinds=(EventKind.PARKED,))
    world.source.states[STUDY.orthanc_id] = STABLE
    world.codes = ["target_unreachable"]
    world.deliver(1, checkpoint=1)
    world.deliver(2, ended=EndedAs.PARKED, study=Study("1.9", identifier(7)))
    world.turns(200)
    world.turn(90_000)
    assert len(world.told("parked")) == 1
    assert {notice.kind for notice in world.inboxes[0].arrived} == {"parked"}
    assert is_stable(world), "that is on record all the same"
    # What was not chosen then is not told later.
    world.kinds = tuple(EventKind)
    world.live()
    world.turns(200)
    assert world.told("study_complete") == []


def test_trouble_with_the_source_is_said_once_and_not_asked_into() -> None:
    seen, now = Seen(), [0.0]
    troubles = Troubles(seen, steady_s=lambda: now[0])
    looks = 0
    refused = side_error(SideName.SOURCE, SideProblem.FORBIDDEN, "it refuses")

    def look() -> None:
        nonlocal looks
        looks += 1
        if now[0] < 1000:
            raise refused

    for second in range(3000):
        now[0] = float(second)
        troubles.try_to(look)
        if second == 999:
            assert looks < 12
    assert seen.events == [TellingFailed("it refuses"), TellingWorks()]

    def no_state() -> None:
        raise StateError("full")

    with pytest.raises(StateError):
        troubles.try_to(no_state)
