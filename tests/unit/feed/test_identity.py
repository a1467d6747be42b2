"""A page is of the feed that is followed, or of another one; its rows are new, known or late."""

from __future__ import annotations

import pytest

from bridge.errors import FeedWentBackwards
from bridge.feed.identity import FeedMemory
from bridge.feed.pages import MovePage
from bridge.model import REMEMBERED, Move


def page(since: int, *, newest_date: str = "", **rows: str) -> MovePage:
    moves = tuple(Move(instance, int(name[1:])) for name, instance in rows.items())
    return MovePage(moves, since=since, newest_date=newest_date)


def test_new_rows_are_fresh() -> None:
    judged = FeedMemory(overlap=10).judge(page(0, s1="a", s5="b"), read_to=0)
    assert [move.sequence for move in judged.fresh] == [1, 5]
    assert not judged.late


def test_known_rows_are_neither_fresh_nor_late() -> None:
    memory = FeedMemory({1: "a", 5: "b"}, overlap=10)
    judged = memory.judge(page(0, s1="a", s5="b", s6="c"), read_to=5)
    assert [move.sequence for move in judged.fresh] == [6]
    assert not judged.late


def test_an_unknown_row_below_the_frontier_is_late() -> None:
    memory = FeedMemory({1: "a", 5: "b"}, overlap=10)
    judged = memory.judge(page(0, s1="a", s3="late", s5="b"), read_to=5)
    assert [move.instance_id for move in judged.late] == ["late"]
    assert not judged.fresh


@pytest.mark.parametrize("settled", [True, False])
def test_the_same_sequence_with_another_instance_is_another_history(*, settled: bool) -> None:
    memory = FeedMemory({5: "b"}, unfinished=() if settled else (5,), overlap=10)
    with pytest.raises(FeedWentBackwards, match="change 5 was instance b, it is x now"):
        memory.judge(page(0, s5="x", s6="y"), read_to=5 if settled else 4)
    assert memory.between(0, 9) == ((5, "b"),)


def test_only_unknown_rows_where_we_remember_some_is_another_history() -> None:
    memory = FeedMemory({4: "a", 8: "b"}, overlap=10)
    with pytest.raises(FeedWentBackwards, match="none of the remembered changes between 0 and 8"):
        memory.judge(page(0, s3="x", s7="y", s9="z"), read_to=8)


@pytest.mark.parametrize(
    ("date", "differs"),
    [
        # Sequences are given in the order of time: what is merely late is old.
        ("20260101T120000", False),
        ("20260101T120005", False),
        ("20260101T120006", True),
        ("", True),
    ],
)
def test_when_all_remembered_rows_are_gone_the_date_of_an_unknown_one_decides(
    date: str, *, differs: bool
) -> None:
    memory = FeedMemory({4: "deleted"}, overlap=10, newest_date="20260101T120000")
    memory.judge(page(8, newest_date="20260101T120005"), read_to=8)
    memory.judge(page(8, newest_date="20260101T120003"), read_to=8)
    told = MovePage((Move("x", 3, date),))
    if differs:
        with pytest.raises(FeedWentBackwards, match="none of the remembered changes"):
            memory.judge(told, read_to=8)
    else:
        assert [move.instance_id for move in memory.judge(told, read_to=8).late] == ["x"]


def test_a_feed_that_was_emptied_is_not_another_history() -> None:
    memory = FeedMemory({4: "a", 8: "b"}, overlap=10)
    assert not memory.judge(page(0), read_to=8).fresh
    assert len(memory.judge(page(0, s9="z"), read_to=8).fresh) == 1


def test_rows_from_before_we_began_tell_another_history() -> None:
    def known() -> FeedMemory:
        return FeedMemory({98: "a"}, floor=100, overlap=50, newest_date="20260101T120000")

    assert known().judge(page(50, s98="a", s99="x", s101="b"), read_to=100).known
    with pytest.raises(FeedWentBackwards, match="change 98 was instance a"):
        known().judge(page(50, s98="other", s101="b"), read_to=100)
    younger = MovePage((Move("x", 97, "20260101T120001"),), since=50)
    with pytest.raises(FeedWentBackwards, match="none of the remembered changes"):
        known().judge(younger, read_to=100)


def test_rows_below_the_floor_were_never_ours() -> None:
    judged = FeedMemory(floor=100, overlap=50).judge(page(90, s99="x", s101="y"), read_to=100)
    assert [move.sequence for move in judged.fresh] == [101]
    assert not judged.late


def test_a_row_in_a_gap_on_record_is_awaited_however_young_it_is() -> None:
    memory = FeedMemory({4: "deleted"}, overlap=10, newest_date="20260101T120000")
    told = MovePage((Move("x", 3, "20260101T120009"),))
    judged = memory.judge(told, read_to=8, awaits=lambda sequence: sequence == 3)
    assert [move.instance_id for move in judged.awaited] == ["x"]
    assert not judged.known


def test_what_was_unfinished_at_the_start_is_fresh_once_with_its_row_or_without() -> None:
    rows = {5: "a", 6: "settled", 7: "b", 9: "c"}
    memory = FeedMemory(rows, unfinished=(5, 7, 9), overlap=10)
    first = memory.judge(
        MovePage((Move("a", 5), Move("settled", 6)), since=4, frontier=8), read_to=4
    )
    assert [move.sequence for move in first.fresh] == [5]
    assert first.gone == (Move("b", 7),)
    again = memory.judge(MovePage((Move("a", 5), Move("c", 9)), since=4, frontier=9), read_to=8)
    assert [move.sequence for move in again.fresh] == [9]
    assert again.gone == ()


def test_memory_is_bounded_by_the_overlap() -> None:
    memory = FeedMemory(overlap=10)
    for sequence in range(1, 1001):
        memory.judge(MovePage((Move("i", sequence),), frontier=sequence), read_to=sequence - 1)
    kept = memory.judge(MovePage((Move("i", 985),), since=980, frontier=1000), read_to=1000)
    assert not kept.late
    assert len(memory.between(0, 1000)) <= 40 + REMEMBERED + 1


def test_the_last_rows_are_kept_however_many_of_other_types_follow() -> None:
    """And one that was read out of turn is not one of them until it is read in order."""
    memory = FeedMemory(overlap=1)
    rows = [Move(f"i{sequence}", sequence) for sequence in range(1, 101)]
    memory.judge(MovePage(tuple(rows), frontier=100), read_to=0)
    memory.judge(MovePage((Move("far", 5000),), since=4000, frontier=5000, ahead=True), read_to=100)
    memory.judge(MovePage((), since=100, frontier=4000), read_to=100)
    assert list(memory.last_in_order()) == list(range(101 - REMEMBERED, 101))
    assert memory.between(0, 9000)[0] == (101 - REMEMBERED, f"i{101 - REMEMBERED}")
    memory.judge(MovePage((Move("far", 5000),), since=4000, frontier=5000), read_to=4000)
    assert list(memory.last_in_order())[-2:] == [100, 5000]


def test_a_late_row_is_known_when_it_has_been_noted() -> None:
    memory = FeedMemory({1: "a", 5: "b"}, overlap=10)
    told = page(0, s1="a", s3="late", s5="b")
    assert memory.judge(told, read_to=5).late
    assert memory.judge(told, read_to=5).late, "nobody has noted it yet"
    memory.note(Move("late", 3))
    assert not memory.judge(told, read_to=5).late
    assert 3 in memory.last_in_order()


def test_unfinished_rows_are_known_until_they_are_read() -> None:
    """A page with all of them is held back, and the end of the feed is read again before it."""
    overlap, end = 10, 4 * 10 + REMEMBERED + 100
    rows = {sequence: f"i{sequence}" for sequence in range(1, end + 1)}
    memory = FeedMemory(rows, unfinished=rows, overlap=overlap)
    moves = tuple(Move(instance, sequence) for sequence, instance in rows.items())
    memory.judge(MovePage(moves[-overlap:], since=end - overlap, frontier=end), read_to=0)
    deleted = (1, end // 2, end - overlap)
    there = tuple(move for move in moves if move.sequence not in deleted)
    judged = memory.judge(MovePage(there, since=0, frontier=end), read_to=0)
    assert judged.gone == tuple(Move(rows[sequence], sequence) for sequence in deleted)
    assert len(judged.fresh) == end - overlap - len(deleted)


def test_what_is_at_the_floor_or_below_is_not_ours_wherever_we_read() -> None:
    memory = FeedMemory(floor=10, overlap=50)
    judged = memory.judge(page(0, s8="a", s10="b", s11="c"), read_to=5)
    assert [move.sequence for move in judged.fresh] == [11]
    assert not judged.late
    judged = FeedMemory(floor=10, overlap=50).judge(page(0, s12="a", s20="b", s21="c"), read_to=20)
    assert [move.sequence for move in judged.late] == [12, 20]
    assert [move.sequence for move in judged.fresh] == [21]


def test_a_row_is_late_for_two_overlaps() -> None:
    memory = FeedMemory(overlap=10)
    judged = memory.judge(page(0, s79="over", s80="late", s100="late"), read_to=100)
    assert [move.sequence for move in judged.late] == [80, 100]
    assert memory.keep_from(100) == 80


@pytest.mark.parametrize(
    ("rows", "told", "known"),
    [({}, {}, True), ({}, {"s9": "a"}, True), ({9: "a"}, {}, False), ({9: "a"}, {"s9": "a"}, True)],
)
def test_a_page_is_known_by_one_row_or_where_none_is(
    rows: dict[int, str], told: dict[str, str], *, known: bool
) -> None:
    assert FeedMemory(rows, overlap=5).judge(page(8, **told), read_to=9).known is known


def test_an_answer_about_gaps_or_out_of_turn_tells_nothing_of_what_it_does_not_show() -> None:
    memory = FeedMemory({5: "a", 7: "b", 9: "c"}, unfinished=(5, 7, 9), overlap=10)
    for told in (
        MovePage((), since=4, frontier=9, again=True, newest_date="20260101T120000"),
        MovePage((), since=4, frontier=9, ahead=True, newest_date="20260101T120000"),
    ):
        assert memory.judge(told, read_to=4).gone == ()
        assert memory.newest_date == ""
    gone = memory.judge(MovePage((), since=5, frontier=9, newest_date="2"), read_to=4).gone
    assert gone == (Move("b", 7), Move("c", 9))
    assert memory.newest_date == "2"
    assert memory.judge(MovePage((), since=5, frontier=9), read_to=4).gone == ()


@pytest.mark.parametrize(
    ("done", "last", "gone"),
    [(False, None, [5]), (False, 9, [5]), (True, None, [5]), (True, 9, [5, 8, 9])],
)
def test_a_last_page_tells_of_all_up_to_the_end_of_the_feed(
    *, done: bool, last: int | None, gone: list[int]
) -> None:
    rows = {4: "a", 5: "b", 8: "c", 9: "d", 10: "e"}
    memory = FeedMemory(rows, unfinished=rows, overlap=10)
    told = MovePage((), since=4, frontier=6, done=done, last=last)
    assert [move.sequence for move in memory.judge(told, read_to=4).gone] == gone


def test_what_was_read_out_of_turn_and_forgotten_is_not_remembered_as_such() -> None:
    memory = FeedMemory(overlap=1)
    for turn in range(300):
        ahead = MovePage((Move("i", 10 * turn + 9),), since=10 * turn, ahead=True)
        memory.judge(ahead, read_to=10 * turn)
        memory.judge(MovePage((), since=10 * turn, frontier=10 * turn + 10), read_to=10 * turn)
    assert len(memory._rows) <= 4 + REMEMBERED + 1
    assert len(memory._ahead) <= len(memory._rows)


@pytest.mark.parametrize(
    ("move", "up_to", "known"),
    [
        (Move("b", 5), 5, True),
        (Move("b", 5), 4, False),
        (Move("c", 5), 5, False),
        (Move("b", 6), 9, False),
        (Move("b"), 9, False),
    ],
)
def test_a_row_is_known_by_its_sequence_and_instance(
    move: Move, up_to: int, *, known: bool
) -> None:
    memory = FeedMemory({5: "b"}, overlap=5)
    assert memory.knows_one([Move("x", 1), move, Move("y", 3)], up_to=up_to) is known


def test_known_rows_between() -> None:
    memory = FeedMemory({9: "c", 3: "a", 5: "b"}, overlap=5)
    assert memory.between(3, 9) == ((5, "b"), (9, "c"))
    assert memory.between(2, 8) == ((3, "a"), (5, "b"))
