"""The queues: order among moves of one instance, suspects, held and deferred ones."""

from __future__ import annotations

from bridge.model import Move, SideName
from bridge.pipeline.window import (
    AGAIN_EVERY,
    SUSPECT_AFTER_OUTAGES,
    SUSPECT_EVERY_S,
    Ended,
    Window,
    WorkItem,
)


def item(number: int, name: str = "", **known: object) -> WorkItem:
    made = WorkItem(number, Move(name or f"i{number}", number))
    for field, value in known.items():
        setattr(made, field, value)
    return made


def start(window: Window) -> list[int]:
    """Start what may start; the numbers."""
    started: list[int] = []
    while window.can_start():
        assert len(started) < 100
        begun = window.start_next()
        window.begin(begun)
        started.append(begun.number)
    return started


def finish(window: Window, number: int) -> None:
    """It ends, and nothing is left to do for it."""
    ended = window.end(number)
    assert ended is not None
    window.finish(ended.item)


def test_of_three_moves_of_one_instance_the_newest_is_the_last_to_leave() -> None:
    """Sent anew twice while the first is under way: the newest file must be the one that stays."""
    window = Window(4)
    window.add([item(1, "a"), item(2, "a"), item(3, "a"), item(4, "b"), item(5, "a")])
    assert start(window) == [1, 4]
    assert (window.waiting, window.under_way) == (3, 2)
    for ended, then in ((1, [2]), (2, [3]), (3, [5]), (5, [])):
        finish(window, ended)
        assert start(window) == then
    assert not window.empty
    finish(window, 4)
    assert window.empty


def test_moves_of_one_instance_that_come_back_stand_before_others() -> None:
    window = Window(1)
    window.add([item(1, "a"), item(2, "a"), item(3, "a"), item(4, "b"), item(5, "c")])
    order = []
    while not window.empty:
        order += start(window)
        finish(window, order[-1])
    assert order == [1, 2, 3, 4, 5]


def test_what_waits_behind_is_counted_as_waiting() -> None:
    window = Window(3)
    window.add([item(1, "a"), item(2, "a"), item(3, "a")])
    start(window)
    assert (window.waiting, window.delayed, window.under_way) == (2, 0, 1)


def test_what_ends_twice_or_is_not_ours_is_none() -> None:
    window = Window(3)
    window.add([item(1)])
    start(window)
    assert window.end(7) is None
    ended = window.end(1)
    assert ended is not None
    assert (ended.item.number, ended.alone) == (1, False)
    assert window.end(1) is None


def test_first_means_before_all_and_in_order() -> None:
    window = Window(9)
    window.add([item(1), item(2)])
    window.add_first([item(3), item(4), item(5)])
    assert start(window) == [3, 4, 5, 1, 2]


def test_the_window_is_full_at_its_size_and_follows_it() -> None:
    window = Window(2)
    window.add([item(number) for number in range(5)])
    assert start(window) == [0, 1]
    window.resize(3)
    assert start(window) == [2]
    window.resize(1)
    window.end(0)
    window.end(1)
    assert start(window) == [], "those under way stay"
    window.end(2)
    assert start(window) == [3]


def test_it_wants_more_while_fewer_wait_than_may_be_under_way() -> None:
    window = Window(3)
    window.add([item(0), item(1)])
    assert window.wants_more
    window.add([item(2)])
    assert not window.wants_more


def test_what_is_delayed_wakes_at_its_time_the_earliest_first() -> None:
    window = Window(9)
    for number, due_s in ((1, 3.0), (2, 1.0), (3, 2.0)):
        window.delay(item(number, attempts=1), due_s)
    assert window.wake_s() == 1.0
    assert not window.empty
    window.wake(0.9)
    assert start(window) == []
    window.wake(1.0)
    assert start(window) == [2]
    window.wake(2.5)
    assert start(window) == [3]
    assert (window.delayed, window.wake_s()) == (1, 3.0)


def test_what_was_tried_before_is_not_behind_the_whole_backlog_when_its_time_has_come() -> None:
    window = Window(9)
    window.add([item(number) for number in range(10, 14)])
    window.delay(item(1, attempts=1), 1.0)
    window.wake(1.0)
    assert start(window)[0] == 1


def test_a_suspect_goes_when_nothing_else_waits_or_its_turn_is_overdue() -> None:
    window = Window(4)
    suspect = item(1, outages=SUSPECT_AFTER_OUTAGES)
    window.add([suspect, item(2)])
    assert window.suspects_turn(0.0), "none was ever sent"
    assert window.start_suspect(0.0) is suspect
    closed = [window.closed]
    window.begin(suspect)
    assert window.end(1) == Ended(suspect, alone=True)
    closed.append(window.closed)
    assert closed == [True, False], "until it has ended"
    window.add([item(3, outages=SUSPECT_AFTER_OUTAGES)])
    assert not window.suspects_turn(SUSPECT_EVERY_S - 0.1)
    assert window.suspects_turn(SUSPECT_EVERY_S)
    assert start(window) == [2]
    assert window.suspects_turn(0.1), "nothing else waits"
    assert not item(9, outages=SUSPECT_AFTER_OUTAGES - 1).suspect


def test_what_is_held_goes_after_what_is_new_and_does_not_stop_reading() -> None:
    window = Window(2)
    for number in (1, 2, 3):
        window.delay(item(number, delays=1, delayed_by=SideName.TARGET), 1.0)
    window.wake(1.0)
    assert window.wants_more
    assert not window.empty
    assert window.only_failed_left
    window.add([item(9)])
    assert start(window) == [9, 1]
    assert window.waiting == 2
    held = [window.only_failed_left]
    window.end(9)
    window.end(1)
    held.append(window.only_failed_left)
    assert held == [False, True], "nothing is under way, and only what has failed is left"


def test_what_arrived_while_a_server_failed_is_tried_before_all_others() -> None:
    window = Window(2)
    window.add([item(1), item(2)])
    assert not window.wants_more
    assert window.new == 0
    window.delay(item(3, delays=1, delayed_by=SideName.TARGET), 0.0)
    window.wake(0.0)
    window.add_new([item(7), item(8), item(9)])
    assert (window.new, window.waiting) == (3, 6)
    assert [window.start_next(on_trial=True).number for _ in range(3)] == [7, 8, 9]
    assert window.new == 0
    assert [window.start_next(on_trial=True).number for _ in range(3)] == [1, 2, 3]
    assert window.empty


def test_what_is_new_is_counted_wherever_others_are() -> None:
    window = Window(2)
    window.add_new([item(7, "a")])
    reads = [window.wants_more]
    assert not window.empty
    assert not window.only_failed_left
    window.add([item(1, outages=SUSPECT_AFTER_OUTAGES)])
    window.add_new([item(8, "a")])
    reads.append(window.wants_more)
    assert reads == [True, False], "reading is bounded"
    assert not window.suspects_turn(float("-inf")), "a suspect waits while others do"
    assert start(window) == [7]
    assert window.new == 0, "the same instance waits behind itself"
    finish(window, 7)
    assert start(window) == [8]


def test_a_server_that_serves_releases_what_was_held_for_it_and_nothing_else() -> None:
    window = Window(9)
    window.delay(item(1, delayed_by=SideName.TARGET), 100.0)
    window.delay(item(2, delayed_by=SideName.SOURCE), 100.0)
    window.delay(item(3), 100.0)
    window.delay(item(4, delayed_by=SideName.TARGET, refusals=1), 100.0)
    window.delay(item(5, delayed_by=SideName.TARGET), 1.0)
    window.wake(1.0)
    window.add([item(9)])
    window.release(SideName.TARGET)
    assert sorted(start(window)[:2]) == [1, 5]
    assert window.delayed == 3
    window.wake(100.0)
    assert sorted(start(window)) == [2, 3, 4]


def test_a_long_backlog_does_not_hide_what_was_deferred_and_a_trial_is_with_something_new() -> None:
    window = Window(100)
    window.delay(item(1, refusals=1), 0.0)
    window.wake(0.0)
    window.add([item(number) for number in range(10, 10 + 2 * AGAIN_EVERY)])
    begun = [window.start_next().number for _ in range(AGAIN_EVERY)]
    assert begun[-1] == 1
    window.delay(item(2, refusals=1), 0.0)
    window.wake(0.0)
    assert 2 not in [window.start_next(on_trial=True).number for _ in range(AGAIN_EVERY)]


def test_what_is_under_way_is_described() -> None:
    window = Window(2)
    window.add([item(7, "a", attempts=2, started_at=5.0)])
    start(window)
    (told,) = window.in_flight()
    assert (told.instance_id, told.sequence, told.started_at, told.attempt, told.number) == (
        "a",
        7,
        5.0,
        3,
        7,
    )


def test_one_that_was_refused_waits_behind_another_move_of_its_instance() -> None:
    """Not only what is new: the older file would arrive last."""
    window = Window(9)
    window.add([item(1, "a")])
    assert start(window) == [1]
    for number in (2, 3, 4):
        window.delay(item(number, "a", refusals=1), 0.0)
    window.wake(0.0)
    assert start(window) == []
    assert window.waiting == 3
    for ended, next_one in ((1, 2), (2, 3), (3, 4)):
        finish(window, ended)
        assert start(window) == [next_one]


def test_suspects_go_one_after_the_other_as_they_came() -> None:
    window = Window(4)
    window.add([item(number, outages=SUSPECT_AFTER_OUTAGES) for number in (1, 2, 3)])
    assert [window.start_suspect(0.0).number for _ in range(3)] == [1, 2, 3]
    assert not window.suspects_turn(1e9)


def test_what_is_left_after_a_release_still_wakes_the_earliest_first() -> None:
    window = Window(20)
    for number, until_s in ((1, 1.0), (2, 9.0), (3, 2.0), (4, 10.0), (5, 11.0), (6, 3.0), (7, 4.0)):
        side = SideName.TARGET if number in (1, 3) else SideName.SOURCE
        window.delay(item(number, delayed_by=side), until_s)
    window.release(SideName.TARGET)
    woken = []
    while (wake_s := window.wake_s()) is not None:
        woken.append(wake_s)
        window.wake(wake_s)
    assert woken == [3.0, 4.0, 9.0, 10.0, 11.0]


def test_a_release_leaves_alone_whose_server_still_serves_nobody() -> None:
    window = Window(9)
    held = [item(n, delayed_by=SideName.SOURCE if n == 2 else SideName.TARGET) for n in (1, 2, 3)]
    for one in held:
        window.delay(one, 1.0)
    window.wake(1.0)
    window.release(SideName.TARGET)
    assert [one.delayed_by for one in held] == [None, SideName.SOURCE, None]
    window.add([item(9)])
    assert start(window)[-1] == 2, "after what is new and after those that were released"


def test_what_is_sent_again_waits_while_the_first_is_tried_again() -> None:
    """Also while that one waits for its turn; and what was read before a try is known."""
    window = Window(9)
    first = item(1, "a")
    window.add([first, item(2, "b")])
    assert start(window) == [1, 2]
    window.end(1)
    window.delay(first, 5.0)
    window.add([item(3, "a")])
    window.add_first([item(4, "a")])
    window.add_new([item(5, "a")])
    assert start(window) == []
    assert (window.behind, window.waiting, window.delayed, window.new) == (3, 3, 1, 0)
    window.wake(5.0)
    assert start(window) == [1]
    window.add([item(6, "a")])
    window.end(1)
    assert [one.number for one in window.take_tried_with(first)] == [3, 4, 5]
    assert window.take_tried_with(first) == [], "once only"
    window.finish(first)
    assert start(window) == [6]
    assert window.take_tried_with(first) == [], "it is another one's turn"
    finish(window, 6)
    finish(window, 2)
    assert window.empty


def test_what_is_urgent_stands_before_all_others_and_counts_as_waiting() -> None:
    """New ones among them, in their order: those that came while a server failed, then the rest."""
    window = Window(3)
    window.add([item(number) for number in range(1, 6)])
    window.add_new([item(11), item(12), item(13)])
    window.promote(frozenset({"i2", "i4", "i12", "i13"}))
    assert (window.waiting, window.new, window.wants_more) == (8, 1, False)
    window.resize(20)
    assert start(window) == [12, 13, 2, 4, 11, 1, 3, 5]


def test_what_is_urgent_is_wanted_work_and_has_not_failed() -> None:
    window = Window(3)
    window.add([item(1), item(2), item(3)])
    window.promote(frozenset({"i1", "i2", "i3"}))
    assert not window.wants_more
    assert not window.only_failed_left
    suspect = item(9, outages=SUSPECT_AFTER_OUTAGES)
    window.add([suspect])
    window.start_suspect(100.0)
    window.begin(suspect)
    finish(window, 9)
    window.add([item(8, outages=SUSPECT_AFTER_OUTAGES)])
    assert not window.suspects_turn(100.0 + SUSPECT_EVERY_S - 1), "urgent ones wait"
    assert window.suspects_turn(100.0 + SUSPECT_EVERY_S)


def test_of_urgent_moves_of_one_instance_only_the_first_starts() -> None:
    window = Window(9)
    window.add([item(1, "a"), item(2, "a"), item(3, "b"), item(4, "a")])
    window.promote(frozenset({"a", "b"}))
    assert start(window) == [1, 3]
    finish(window, 1)
    assert start(window) == [2]
    finish(window, 2)
    assert start(window) == [4]


def test_a_suspect_that_has_waited_is_a_suspect_still() -> None:
    """Whatever it waited for: it is sent alone, and not with those that are ready."""
    window = Window(4)
    suspects = [
        item(1, outages=SUSPECT_AFTER_OUTAGES),
        item(2, outages=SUSPECT_AFTER_OUTAGES, refusals=1),
        item(3, outages=SUSPECT_AFTER_OUTAGES, delayed_by=SideName.TARGET),
    ]
    for suspect in suspects:
        window.delay(suspect, 50.0)
    window.wake(50.0)
    assert not window.can_start()
    assert window.suspects_turn(50.0)
    assert [window.start_suspect(50.0).number for _ in suspects] == [1, 2, 3]


def test_nothing_starts_before_the_suspect_itself_has_ended() -> None:
    window = Window(4)
    window.add([item(1), item(2, outages=SUSPECT_AFTER_OUTAGES), item(3)])
    assert start(window) == [1, 3]
    window.begin(window.start_suspect(1.0))
    ended = window.end(1)
    assert ended is not None
    assert not ended.alone
    assert window.closed
    ended = window.end(2)
    assert ended is not None
    assert ended.alone
    assert not window.closed
