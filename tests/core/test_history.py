from __future__ import annotations

import pytest

from bridge.core.history import History
from bridge.core.model import Move


def _moves(**rows: str) -> list[Move]:
    return [Move(instance, int(name[1:])) for name, instance in rows.items()]


def test_new_rows_are_fresh() -> None:
    history = History({}, floor=0, overlap=10)
    seen = history.compare(_moves(s1="a", s5="b"), since=0, frontier=0)
    assert [move.sequence for move in seen.fresh] == [1, 5]
    assert not seen.late
    assert not seen.difference


def test_known_rows_are_neither_fresh_nor_late() -> None:
    history = History({1: "a", 5: "b"}, floor=0, overlap=10)
    seen = history.compare(_moves(s1="a", s5="b", s6="c"), since=0, frontier=5)
    assert [move.sequence for move in seen.fresh] == [6]
    assert not seen.late


def test_an_unknown_row_below_the_frontier_is_late() -> None:
    history = History({1: "a", 5: "b"}, floor=0, overlap=10)
    seen = history.compare(_moves(s1="a", s3="late", s5="b"), since=0, frontier=5)
    assert [move.instance_id for move in seen.late] == ["late"]
    assert not seen.fresh


def test_the_same_sequence_with_another_instance_is_another_history() -> None:
    history = History({5: "b"}, floor=0, overlap=10)
    seen = history.compare(_moves(s5="x", s6="y"), since=0, frontier=5)
    assert "change 5" in seen.difference
    assert not seen.fresh


def test_only_unknown_rows_where_we_remember_some_is_another_history() -> None:
    history = History({4: "a", 8: "b"}, floor=0, overlap=10)
    seen = history.compare(_moves(s3="x", s7="y", s9="z"), since=0, frontier=8)
    assert "none of the changes remembered" in seen.difference


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
    date: str, differs: bool
) -> None:
    history = History({4: "deleted"}, floor=0, overlap=10, newest_date="20260101T120000")
    history.saw("20260101T120005")
    history.saw("20260101T120003")
    seen = history.compare([Move("x", 3, date)], since=0, frontier=8)
    assert bool(seen.difference) is differs
    assert [move.instance_id for move in seen.late] == ([] if differs else ["x"])


def test_a_feed_that_was_emptied_is_not_another_history() -> None:
    history = History({4: "a", 8: "b"}, floor=0, overlap=10)
    assert not history.compare([], since=0, frontier=8).difference
    seen = history.compare(_moves(s9="z"), since=0, frontier=8)
    assert not seen.difference
    assert len(seen.fresh) == 1


def test_rows_from_before_we_began_tell_another_history() -> None:
    known = History({98: "a"}, floor=100, overlap=50, newest_date="20260101T120000")
    assert not known.compare(_moves(s98="a", s99="x", s101="b"), since=50, frontier=100).difference
    seen = known.compare(_moves(s98="other", s101="b"), since=50, frontier=100)
    assert "change 98 was instance a" in seen.difference
    younger = [Move("x", 97, "20260101T120001")]
    assert "none of the changes" in known.compare(younger, since=50, frontier=100).difference


def test_rows_below_the_floor_were_never_ours() -> None:
    history = History({}, floor=100, overlap=50)
    seen = history.compare(_moves(s99="x", s101="y"), since=90, frontier=100)
    assert [move.sequence for move in seen.fresh] == [101]
    assert not seen.late


def test_memory_is_bounded_by_the_overlap() -> None:
    history = History({}, floor=0, overlap=10)
    for sequence in range(1, 1001):
        history.remember([Move("i", sequence)])
        history.forget_below(history.keep_from(sequence))
    kept = history.compare([Move("i", 985)], since=980, frontier=1000)
    assert not kept.late
    assert len(history._rows) <= 41
