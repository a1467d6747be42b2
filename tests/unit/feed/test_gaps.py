"""Gaps by themselves: each rule of bridge/feed/gaps.py at its edges, without a feed."""

from __future__ import annotations

import pytest

from bridge.feed.gaps import (
    ABORTED_ROWS_MAX,
    ASK_WIDTH,
    DATED_BY,
    FIRST_PAUSE_S,
    FRESH_S,
    GROWTH,
    UNDISPUTED_S,
    Closed,
    GapLimits,
    Gaps,
    PageGap,
    age_s_of,
    page_gaps_of,
)
from bridge.model import Gap, OpenGaps

EARLY, LATER, LATEST = "20260101T000000", "20260101T000100", "20260101T000200"
EARLY_AT = 1_767_225_600.0
AGE_S = GapLimits().age_s


def noted(*spans: tuple[int, int], limits: GapLimits | None = None, counted: bool = True) -> Gaps:
    """Return gaps that were all noted at second 0, and are written down."""
    gaps = Gaps(limits=limits)
    for first, last in spans:
        gaps.note(PageGap(first, last, counted=counted), age_s=0.0, now_s=0.0, now_at=1000.0)
    gaps.written()
    return gaps


def spans(gaps: Gaps) -> list[tuple[int, int]]:
    return list(gaps.between(0, 10**9))


# What has no row in a page


@pytest.mark.parametrize(
    ("rows", "since", "to", "found"),
    [
        ([], 3, 3, []),
        ([], 3, 5, [(4, 5)]),
        ([4, 5, 6], 3, 6, []),
        ([5, 7, 8, 12], 3, 14, [(4, 4), (6, 6), (9, 11), (13, 14)]),
        ([4], 3, 5, [(5, 5)]),
    ],
)
def test_a_gap_is_what_has_no_row(
    rows: list[int], since: int, to: int, found: list[tuple[int, int]]
) -> None:
    gaps = page_gaps_of([(s, "") for s in rows], since=since, to=to, counts_from=0)
    assert [(gap.first, gap.last) for gap in gaps] == found


@pytest.mark.parametrize(
    ("counts_from", "expected"),
    [
        (None, [PageGap(4, 8, LATER, counted=False)]),
        (3, [PageGap(4, 8, LATER)]),
        (4, [PageGap(4, 4, LATER, counted=False), PageGap(5, 8, LATER)]),
        (7, [PageGap(4, 7, LATER, counted=False), PageGap(8, 8, LATER)]),
        (8, [PageGap(4, 8, LATER, counted=False)]),
        (9, [PageGap(4, 8, LATER, counted=False)]),
    ],
)
def test_a_gap_counts_as_missing_from_where_we_began_to_follow(
    counts_from: int | None, expected: list[PageGap]
) -> None:
    rows = [(3, LATEST), (9, LATER)]
    assert list(page_gaps_of(rows, since=2, to=9, counts_from=counts_from)) == expected


def test_the_latest_date_of_the_next_rows_tells_by_when_a_gap_was_there() -> None:
    dates = [EARLY] * (DATED_BY - 1) + [LATER, LATEST]
    rows = [(10 + number, date) for number, date in enumerate(dates)]
    (gap,) = page_gaps_of(rows, since=8, to=10 + DATED_BY, counts_from=0)
    assert gap == PageGap(9, 9, LATER), "the one after these may be much younger"
    (end,) = page_gaps_of(rows[:1], since=9, to=11, counts_from=0)
    assert end == PageGap(11, 11, ""), "nothing behind it tells"


@pytest.mark.parametrize(
    ("date", "feed_date", "now_at", "age_s"),
    [
        (EARLY, LATER, EARLY_AT + 500, 60.0),
        (EARLY, LATER, EARLY_AT + 20, 20.0),
        (EARLY, LATER, EARLY_AT - 20, 0.0),
        (LATER, EARLY, EARLY_AT + 500, 0.0),
        ("", LATER, EARLY_AT + 500, 0.0),
        (EARLY, "", EARLY_AT + 500, 0.0),
    ],
)
def test_a_gap_is_as_old_as_both_clocks_say(
    date: str, feed_date: str, now_at: float, age_s: float
) -> None:
    assert age_s_of(PageGap(1, 1, date), feed_date=feed_date, now_at=now_at) == age_s


# Noted, on record, forgotten


def test_what_is_noted_is_open_and_on_record() -> None:
    gaps = Gaps()
    gaps.note(PageGap(4, 6), age_s=30.0, now_s=100.0, now_at=1000.0)
    gaps.note(PageGap(9, 9, counted=False), age_s=0.0, now_s=100.0, now_at=1000.0)
    gaps.note(PageGap(1, 2), age_s=10.0, now_s=100.0, now_at=1000.0)
    assert [s for s in range(12) if gaps.has(s)] == [1, 2, 4, 5, 6, 9]
    assert gaps.view == OpenGaps(3, 6, 970.0)
    written = (Gap(1, 2, 990.0), Gap(4, 6, 970.0), Gap(9, 9, 1000.0, counted=False))
    assert gaps.changes() == (written, ())
    gaps.written()
    assert not gaps.changed
    assert Gaps().view == OpenGaps(0, 0, None)


@pytest.mark.parametrize(
    ("since", "to", "found"),
    [
        (0, 3, []),
        (0, 4, [(4, 6)]),
        (5, 8, [(4, 6)]),
        (6, 8, []),
        (5, 9, [(4, 6), (9, 9)]),
        (6, 20, [(9, 9), (12, 15)]),
        (14, 20, [(12, 15)]),
        (15, 20, []),
    ],
)
def test_gaps_between(since: int, to: int, found: list[tuple[int, int]]) -> None:
    assert list(noted((4, 6), (9, 9), (12, 15)).between(since, to)) == found


def test_only_what_is_not_known_is_noted() -> None:
    gaps = noted((4, 6), (9, 9), (12, 15))
    gaps.fill(13)
    gaps.begin_move(14, now_s=1.0, now_at=1001.0)
    gaps.written()
    gaps.note(PageGap(3, 17), age_s=0.0, now_s=5.0, now_at=1005.0)
    assert spans(gaps) == [
        (3, 3), (4, 6), (7, 8), (9, 9), (10, 11), (12, 12), (13, 13), (15, 15), (16, 17),
    ]  # fmt: skip
    new = [gap.first for gap in gaps.changes()[0]]
    assert new == [3, 7, 10, 13, 16]
    assert gaps.view.sequences == 14


def test_what_is_known_at_both_ends_is_not_noted_again() -> None:
    gaps = noted((4, 4), (9, 9))
    gaps.begin_move(20, now_s=1.0, now_at=1001.0)
    gaps.begin_move(29, now_s=1.0, now_at=1001.0)
    gaps.note(PageGap(4, 9), age_s=0.0, now_s=5.0, now_at=1005.0)
    gaps.note(PageGap(20, 29), age_s=0.0, now_s=5.0, now_at=1005.0)
    assert spans(gaps) == [(4, 4), (5, 8), (9, 9), (21, 28)]
    assert gaps.view.sequences == 6 + 8


@pytest.mark.parametrize(
    ("width", "counted", "missing"),
    [
        (ABORTED_ROWS_MAX, True, 0),
        (ABORTED_ROWS_MAX + 1, True, ABORTED_ROWS_MAX + 1),
        (ABORTED_ROWS_MAX + 1, False, 0),
    ],
)
def test_what_was_there_long_before_is_over(width: int, counted: bool, missing: int) -> None:
    gaps = Gaps()
    for first in (1, 1001, 2001):
        gap = PageGap(first, first + width - 1, counted=counted)
        gaps.note(gap, age_s=AGE_S, now_s=0.0, now_at=0.0)
    assert gaps.view == OpenGaps(0, 0, None)
    assert gaps.take_closed() == Closed(expired=3 * width, missing=3 * missing)
    assert gaps.take_closed() == Closed()
    gaps.note(PageGap(1, 2), age_s=AGE_S - 1, now_s=0.0, now_at=0.0)
    assert gaps.view.gaps == 1


@pytest.mark.parametrize(
    ("closed", "any_"),
    [
        (Closed(), False),
        (Closed(filled=1), True),
        (Closed(expired=1), True),
        (Closed(given_up=1), True),
    ],
)
def test_whether_anything_became_of_any(closed: Closed, any_: bool) -> None:
    assert closed.any() is any_


def test_where_there_are_too_many_the_oldest_go() -> None:
    gaps = Gaps(limits=GapLimits(count=3))
    for first, age_s in ((1, 10.0), (11, 30.0), (21, 20.0)):
        gaps.note(PageGap(first, first + 1), age_s=age_s, now_s=0.0, now_at=0.0)
    gaps.note(PageGap(31, 32), age_s=0.0, now_s=0.0, now_at=0.0)
    assert spans(gaps) == [(1, 2), (21, 22), (31, 32)]
    gaps.note(PageGap(41, 42), age_s=0.0, now_s=0.0, now_at=0.0)
    assert spans(gaps) == [(1, 2), (31, 32), (41, 42)]
    assert gaps.take_closed() == Closed(given_up=4)
    # The oldest is so old by now that nothing is late there: its end is known.
    gaps.note(PageGap(51, 52), age_s=0.0, now_s=UNDISPUTED_S - 10.0, now_at=0.0)
    assert spans(gaps) == [(31, 32), (41, 42), (51, 52)]
    assert gaps.take_closed() == Closed(expired=2)
    gaps.note(PageGap(61, 62), age_s=0.0, now_s=UNDISPUTED_S - 0.5, now_at=0.0)
    assert gaps.take_closed() == Closed(given_up=2)
    wide, gaps = ABORTED_ROWS_MAX + 1, Gaps(limits=GapLimits(count=1))
    for first, counted in ((101, True), (201, False), (301, True)):
        gap = PageGap(first, first + wide - 1, counted=counted)
        gaps.note(gap, age_s=UNDISPUTED_S, now_s=0.0, now_at=0.0)
    assert gaps.take_closed() == Closed(expired=2 * wide, missing=wide)


# Those of an earlier run


@pytest.mark.parametrize(
    ("noted_at", "kept_age_s"),
    [
        (1000.0 - 50.0, 50.0),
        (1000.0 + 50.0, 0.0),
        (1000.0 - AGE_S - 100.0, AGE_S - FRESH_S),
    ],
)
def test_a_gap_of_an_earlier_run_keeps_its_age_and_is_asked_for_again(
    noted_at: float, kept_age_s: float
) -> None:
    gaps = Gaps([Gap(4, 6, noted_at, counted=False)], read_to=9, now_s=0.0, now_at=1000.0)
    assert not gaps.changed, "it is on record"
    assert gaps.view == OpenGaps(1, 3, noted_at)
    assert gaps.due_s() == 0.0
    gaps.asked(since=3, to=6, now_s=AGE_S - kept_age_s - 1.0)
    assert gaps.view.gaps == 1
    gaps.asked(since=3, to=6, now_s=AGE_S - kept_age_s)
    assert gaps.take_closed() == Closed(expired=3)
    assert gaps.changes() == ((), (4,))


def test_of_an_earlier_run_only_what_was_read_is_asked_for() -> None:
    recorded = [Gap(2, 3, 900.0), Gap(5, 9, 900.0), Gap(12, 13, 900.0)]
    gaps = Gaps(recorded, read_to=7, now_s=0.0, now_at=1000.0)
    assert spans(gaps) == [(2, 3), (5, 7)]
    assert gaps.changes() == ((Gap(5, 7, 900.0),), (12,))
    whole = Gaps(recorded, read_to=13, now_s=0.0, now_at=1000.0)
    assert spans(whole) == [(2, 3), (5, 9), (12, 13)]
    assert not whole.changed


# A row in a gap


def test_a_row_closes_its_sequence_and_no_other() -> None:
    gaps = noted((4, 8), counted=False)
    gaps.asked(since=3, to=8, now_s=2.0)
    due_s = gaps.due_s()
    for sequence in (3, 9, 6, 6):
        gaps.fill(sequence)
    assert spans(gaps) == [(4, 5), (7, 8)]
    assert gaps.take_closed() == Closed(filled=1)
    assert gaps.due_s() == due_s, "when it was noted and asked for is kept"
    written, forgotten = gaps.changes()
    assert written == (Gap(4, 5, 1000.0, counted=False), Gap(7, 8, 1000.0, counted=False))
    assert forgotten == (6,)
    gaps.fill(4)
    gaps.fill(8)
    assert spans(gaps) == [(5, 5), (7, 7)]
    assert gaps.view == OpenGaps(2, 2, 1000.0)


def test_a_late_row_stays_on_record_while_it_is_moved() -> None:
    gaps = noted((4, 6))
    assert gaps.begin_move(5, now_s=9.0, now_at=1009.0)
    assert not gaps.begin_move(5, now_s=9.0, now_at=1009.0)
    assert gaps.take_closed() == Closed(filled=1)
    assert spans(gaps) == [(4, 4), (6, 6)], "and is no gap"
    record = tuple(Gap(s, s, 1000.0) for s in (4, 5, 6))
    assert gaps.changes() == (record, ())
    gaps.written()
    gaps.end_move(5)
    gaps.end_move(5)
    assert gaps.changes() == ((), (5,))
    assert gaps.begin_move(5, now_s=9.0, now_at=1009.0)


def test_a_row_that_is_later_than_any_gap_is_on_record_too() -> None:
    gaps = noted((4, 6))
    assert gaps.begin_move(9, now_s=7.0, now_at=1007.0)
    assert gaps.take_closed() == Closed()
    assert gaps.changes() == ((Gap(9, 9, 1007.0, counted=False),), ())
    gaps.written()
    gaps.end_move(7)
    assert not gaps.changed


# Asked for, and when


def test_a_gap_is_asked_for_after_the_first_pause() -> None:
    gaps = Gaps()
    assert gaps.due_s() is None
    assert gaps.look(1e9) is None
    gaps.note(PageGap(4, 6), age_s=50.0, now_s=100.0, now_at=0.0)
    assert gaps.due_s() == 100.0 + FIRST_PAUSE_S
    assert gaps.look(100.0) is None
    assert gaps.look(100.0 + FIRST_PAUSE_S) == (4, 6)


def test_a_question_spans_what_is_due_and_near() -> None:
    near = ASK_WIDTH
    gaps = noted((1000, 1001), (1000 + near - 2, 1000 + near - 1), (1000 + near, 1000 + near))
    assert gaps.look(1.0) == (1000, 1000 + near - 1)
    gaps.put_off(since=999, to=1001, now_s=1.0)
    assert gaps.look(1.0) == (1000 + near - 2, 1000 + near), "what is not due ends no question"


def test_a_question_goes_back_to_what_is_due_and_near() -> None:
    """The first that is due is the last in order."""
    gaps = Gaps()
    for first, now_s in ((2000, 0.0), (2000 - ASK_WIDTH + 2, 1.0), (2000 - ASK_WIDTH + 1, 2.0)):
        gaps.note(PageGap(first, first + 1), age_s=0.0, now_s=now_s, now_at=0.0)
    assert gaps.look(1.0) == (2000, 2001)
    assert gaps.look(2.0) == (2000 - ASK_WIDTH + 2, 2001)
    assert gaps.look(3.0) == (2000 - ASK_WIDTH + 2, 2001), "one more would be too wide"


def test_a_question_goes_back_over_all_that_are_due_just_now() -> None:
    gaps = Gaps()
    for first, now_s in ((40, 0.0), (10, 1.0), (20, 1.0), (30, 1.0)):
        gaps.note(PageGap(first, first), age_s=0.0, now_s=now_s, now_at=0.0)
    assert gaps.look(1.0 + FIRST_PAUSE_S) == (10, 40)


def test_an_answer_begins_after_its_first_sequence() -> None:
    gaps = noted((4, 9))
    gaps.asked(since=4, to=9, now_s=AGE_S)
    assert spans(gaps) == [(4, 4)]


def test_what_is_between_and_not_due_is_passed_over() -> None:
    gaps = noted((10, 10), (20, 20), (30, 30), (40, 40), (50, 50))
    for sequence in (10, 20, 40, 50):
        gaps.put_off(since=sequence - 1, to=sequence, now_s=5.0)
    assert gaps.look(1.0) == (30, 30)
    gaps.put_off(since=29, to=30, now_s=9.0)
    assert gaps.look(6.0) == (10, 50)
    assert gaps.look(5.0) is None


def test_the_pauses_grow_with_the_age() -> None:
    gaps, asked_s, now_s = noted((4, 6)), [], FIRST_PAUSE_S
    while gaps.view.gaps:
        assert gaps.look(now_s) == (4, 6)
        gaps.asked(since=3, to=6, now_s=now_s)
        asked_s.append(now_s)
        now_s = gaps.due_s() or 0.0
    assert asked_s[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 3 * FIRST_PAUSE_S]
    assert asked_s[10] == pytest.approx(asked_s[9] * (1 + GROWTH))
    assert asked_s[-1] == AGE_S, "and the last one is when it is old"
    assert len(asked_s) < 35


def test_a_command_asks_when_its_patience_ends() -> None:
    gaps = noted((4, 6), limits=GapLimits(patience_s=10.0))
    assert gaps.waits()
    gaps.asked(since=3, to=6, now_s=8.0)
    assert gaps.waits()
    assert gaps.due_s() == 10.0
    gaps.asked(since=3, to=6, now_s=10.0)
    assert not gaps.waits()
    assert gaps.due_s() == 15.0
    gaps.fill(5)
    assert spans(gaps) == [(4, 4), (6, 6)]
    assert not gaps.waits(), "its parts were asked for as it was"


def test_who_has_no_patience_waits_for_none() -> None:
    assert not noted((4, 6)).waits()
    assert not noted(limits=GapLimits(patience_s=10.0)).waits()


def test_an_answer_concerns_what_it_spans() -> None:
    gaps = noted((4, 9), (12, 13), (20, 29))
    gaps.asked(since=6, to=24, now_s=AGE_S)
    assert spans(gaps) == [(4, 6), (25, 29)]
    assert gaps.take_closed() == Closed(expired=3 + 2 + 5)
    assert gaps.changes() == ((Gap(4, 6, 1000.0), Gap(25, 29, 1000.0)), (7, 12, 20))
    gaps = noted((4, 9), (20, 29))
    gaps.asked(since=6, to=24, now_s=100.0)
    assert spans(gaps) == [(4, 6), (7, 9), (20, 24), (25, 29)]
    assert gaps.look(1.0) == (4, 29), "what was not in the answer is due still"
    for since, to in ((3, 6), (24, 29)):
        gaps.put_off(since=since, to=to, now_s=500.0)
    assert gaps.look(149.0) is None
    assert gaps.look(150.0) == (7, 24)


def test_an_answer_that_is_not_believed_is_asked_for_again_soon() -> None:
    gaps = noted((4, 6), (9, 9), (12, 13))
    gaps.put_off(since=4, to=9, now_s=50.0)
    assert gaps.look(1.0) == (12, 13)
    gaps.put_off(since=11, to=12, now_s=60.0)
    assert gaps.due_s() == 50.0 + FIRST_PAUSE_S
    assert gaps.take_closed() == Closed()
    assert spans(gaps) == [(4, 6), (9, 9), (12, 13)]


def test_a_gap_is_young_for_as_long_as_a_row_may_have_come() -> None:
    assert not Gaps().has_young(0.0)
    gaps = noted((4, 6), (9, 9))
    assert gaps.has_young(UNDISPUTED_S - 1.0)
    assert not gaps.has_young(UNDISPUTED_S)


def test_what_is_remembered_of_old_times_stays_bounded() -> None:
    """And the gap that is due first is known after it was tidied up, whatever was noted first."""
    gaps, entries = Gaps(), []
    for first, age_s in ((4, 0.0), (9, 20.0), (12, 50.0)):
        gaps.note(PageGap(first, first), age_s=age_s, now_s=0.0, now_at=1000.0)
    gaps.put_off(since=3, to=4, now_s=9000.0)
    gaps.put_off(since=8, to=9, now_s=8000.0)
    for turn in range(2100):
        gaps.put_off(since=11, to=12, now_s=float(turn))
        entries.append(len(gaps._due))
        if entries[-1] < max(entries):
            assert gaps.due_s() == turn + FIRST_PAUSE_S
            assert gaps.view.oldest_at == 950.0
    assert max(entries) == 4 * 3 + 1000
    ages = []
    for first in range(100, 4100, 2):
        gaps.note(PageGap(first, first), age_s=1.0, now_s=3000.0, now_at=1000.0)
        ages.append(len(gaps._ages))
        gaps.fill(first)
    assert max(ages) == 4 * 4 + 1000
    gaps.fill(12)
    assert gaps.view == OpenGaps(2, 2, 980.0)
    assert gaps.due_s() == 8000.0 + FIRST_PAUSE_S
