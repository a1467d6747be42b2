from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.ledger.checkpoint import OpenChanges


def test_an_empty_feed_leaves_the_checkpoint_alone() -> None:
    mark = OpenChanges(7)
    mark.advance(7)
    assert (mark.checkpoint, mark.oldest_open(), mark.open_count) == (7, None, 0)


def test_rows_of_other_types_advance_it_without_work() -> None:
    mark = OpenChanges(0)
    mark.advance(12)
    assert mark.checkpoint == 12


def test_it_waits_for_the_oldest_open_change() -> None:
    mark = OpenChanges(0)
    for sequence in (3, 5, 9):
        assert mark.open(sequence)
    mark.advance(10)
    mark.settle(5)
    mark.settle(9)
    assert mark.checkpoint == 2
    assert mark.settled_above_count == 2
    mark.settle(3)
    assert mark.checkpoint == 10
    assert mark.settled_above_count == 0


def test_what_was_settled_before_a_restart_is_not_opened_again() -> None:
    mark = OpenChanges(4, settled_above=[2, 6, 8])
    assert not mark.open(4)
    assert not mark.open(6)
    assert mark.open(5)
    assert not mark.open(5)
    mark.advance(8)
    assert mark.checkpoint == 4
    mark.settle(5)
    assert mark.checkpoint == 8


def test_settling_what_is_not_open_is_a_mistake() -> None:
    mark = OpenChanges(0)
    with pytest.raises(KeyError):
        mark.settle(1)


@st.composite
def _schedules(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    """Pages of ascending sequences with gaps, and a seed for the order of completion."""
    gaps = draw(st.lists(st.integers(1, 4), max_size=40))
    sequences, at = [], 0
    for gap in gaps:
        at += gap
        sequences.append(at)
    cuts = sorted(draw(st.lists(st.integers(0, len(sequences)), max_size=6)))
    bounds = [0, *cuts, len(sequences)]
    pages = [sequences[a:b] for a, b in itertools.pairwise(bounds)]
    return pages, draw(st.integers(0, 2**32))


@given(_schedules(), st.data())
def test_any_interleaving(schedule: tuple[list[list[int]], int], data: st.DataObject) -> None:
    """The checkpoint never passes an open sequence, never goes back, and ends at the end."""
    pages, _ = schedule
    mark = OpenChanges(0)
    pages = list(pages)
    unsettled: list[int] = []
    unread = [sequence for page in pages for sequence in page]
    seen = 0
    while pages or unsettled:
        read_next = bool(pages) and (not unsettled or data.draw(st.booleans()))
        if read_next:
            page = pages.pop(0)
            for sequence in page:
                assert mark.open(sequence)
                unsettled.append(sequence)
                unread.remove(sequence)
            mark.advance(page[-1] if page else mark.frontier)
        else:
            mark.settle(unsettled.pop(data.draw(st.integers(0, len(unsettled) - 1))))
        assert mark.checkpoint >= seen
        assert all(sequence > mark.checkpoint for sequence in unsettled + unread)
        seen = mark.checkpoint
    assert mark.checkpoint == mark.frontier
    assert mark.settled_above_count == 0


@given(_schedules(), st.data())
def test_a_restart_at_any_moment_redoes_exactly_the_unsettled(
    schedule: tuple[list[list[int]], int], data: st.DataObject
) -> None:
    sequences = [sequence for page in schedule[0] for sequence in page]
    mark = OpenChanges(0)
    for sequence in sequences:
        mark.open(sequence)
    if sequences:
        mark.advance(sequences[-1])
    settled = data.draw(st.sets(st.sampled_from(sequences))) if sequences else set()
    for sequence in settled:
        mark.settle(sequence)
    remembered = [sequence for sequence in settled if sequence > mark.checkpoint]
    after = OpenChanges(mark.checkpoint, remembered)
    again = {sequence for sequence in sequences if after.open(sequence)}
    assert again == set(sequences) - settled


def test_spread_is_how_far_reading_in_order_is_ahead_of_the_oldest_open() -> None:
    changes = OpenChanges(10)
    assert changes.spread == 0
    changes.open(13)
    changes.open(20)
    changes.advance(30)
    assert changes.spread == 17
    changes.settle(13)
    assert changes.spread == 10
    changes.open(31)
    changes.settle(20)
    assert changes.spread == 0, "read ahead, out of order"
    changes.settle(31)
    assert changes.spread == 0


def test_it_begins_before_the_first_change_and_forgets_what_the_checkpoint_covers() -> None:
    assert OpenChanges().checkpoint == 0
    changes = OpenChanges(10, {9, 10, 12, 13})
    assert changes.settled_above_count == 2
    changes.advance(11)
    assert changes.checkpoint == 11, "no further than was read"
    changes.advance(13)
    assert (changes.checkpoint, changes.settled_above_count) == (13, 0)
