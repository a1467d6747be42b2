"""Rules of the feed at their edges: what is asked for, how often, and what an answer proves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

import bridge.feed.sources
from bridge.errors import ConfigurationError, FeedWentBackwards
from bridge.feed.follow import FollowFeed
from bridge.feed.gaps import Ask
from bridge.feed.identity import (
    INSTANCES_ASKED,
    Counter,
    FeedIdentity,
    FeedMemory,
    KnownPlace,
    Place,
    check_counter,
)
from bridge.feed.listing import ConfirmedListing, Listing, _begins_with_the_end
from bridge.feed.pages import (
    FeedReader,
    MovePage,
    check_order,
    counter_beyond,
    filters_on_server,
    range_end,
)
from bridge.feed.sequences import BLOCK, Sequences
from bridge.feed.sources import FeedEnd, FixedMoves, ReplayRange, pages_of, place_of
from bridge.model import Change, CounterLag, Move, Page, ServerInfo
from tests.fake_store import FeedRow
from tests.feed_client import NEW, JudgedFeed, StoreClient, feed_of

LATE = "a plugin's database"


class Answers:
    """A source that gives these answers, one after the other, the last one again and again."""

    def __init__(self, *pages: Page, last: Page | None = None, held: Sequence[bool] = ()) -> None:
        self.pages, self.last, self.held = list(pages), last, list(held)
        self.asked: list[tuple[int, int, bool]] = []
        self.instances_asked: list[str] = []

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        self.asked.append((since, limit, only_new_instances))
        return self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]

    def last_change(self) -> Page:
        assert self.last is not None
        return self.last

    def has_instance(self, instance_id: str) -> bool:
        self.instances_asked.append(instance_id)
        return self.held.pop(0) if len(self.held) > 1 else self.held[0]


def row(sequence: int, instance_id: str = "x", kind: str = NEW) -> Change:
    return Change(sequence, kind, instance_id, "")


def end_at(sequence: int) -> Page:
    return Page((row(sequence),), done=True, last=sequence)


# The counter


@pytest.mark.parametrize(
    ("counter", "newest", "answer", "lag"),
    [
        (25, 0, None, None),
        (26, 0, None, None),
        (10, 25, None, CounterLag(10, 25)),
        (10, 30, None, CounterLag(10, 30)),
        (10, 20, Page((row(26),), done=True, last=26), None),
        (10, 20, Page((), done=True, last=15), CounterLag(15, 25)),
        (10, 20, Page((), done=True, last=19), CounterLag(19, 25)),
    ],
)
def test_a_counter_below_what_was_read(
    counter: int, newest: int, answer: Page | None, lag: CounterLag | None
) -> None:
    source = Answers(*(() if answer is None else (answer,)), last=end_at(newest))
    assert check_counter(source, counter, position=25) == lag
    assert source.asked == ([] if answer is None else [(25, 1, False)])


@pytest.mark.parametrize(
    ("counter", "newest", "again", "end"),
    [(10, 20, 20, 20), (10, 20, 24, 24), (20, 20, 0, 20), (20, 9, 0, 20)],
)
def test_a_feed_that_ends_below_what_was_read_is_another_one(
    counter: int, newest: int, again: int, end: int
) -> None:
    source = Answers(Page((), done=True, last=again), last=end_at(newest))
    with pytest.raises(FeedWentBackwards, match=f"ends at {end}, but it was read up to 25"):
        check_counter(source, counter, position=25, lag=CounterLag(10, 24))
    assert check_counter(source, 10, position=24, lag=CounterLag(10, 24)) == CounterLag(10, 24)


def test_a_counter_is_learned_once_for_each_position() -> None:
    source = StoreClient(feed_of(1, 2, 3, 4, 5))
    counter = Counter(source)
    for position in (3, 3, 3, 4, 4):
        counter.learn(position)
    assert source.asked == [(3, 1, False), (4, 1, False)]


# Whether the feed was emptied


def emptied_with(*held: bool) -> tuple[Answers, Callable[[], bool]]:
    """Return a source without rows, whose counter is beyond what was read, and the question."""
    rows = {1: "a", 2: "b", 3: "c"}
    source = Answers(Page((), done=True, last=9), last=Page((), done=True, last=9), held=held)
    identity = FeedIdentity(source, FeedMemory(rows, overlap=5))
    return source, lambda: identity.was_emptied([], since=0, covered=None, read_to=3)


def test_rows_that_went_before_they_were_read() -> None:
    _, ask = emptied_with(True)
    with pytest.raises(FeedWentBackwards, match="changes 4 to 9 were deleted"):
        ask()


def test_instances_that_are_deleted_while_it_is_asked_prove_nothing() -> None:
    """The source holds them at first, without a row; when it is asked once more they are gone."""
    source, ask = emptied_with(True, True, True, True, False)
    assert not ask()
    assert source.instances_asked[:4] == ["c", *source.instances_asked[1:4]]
    assert sorted(source.instances_asked[1:4]) == ["a", "b", "c"]
    assert len(source.instances_asked) == 7


def test_only_so_many_instances_are_asked_for() -> None:
    rows = {sequence: f"i{sequence}" for sequence in range(1, 31)}
    source = Answers(Page((), done=True, last=99), held=[False])
    identity = FeedIdentity(source, FeedMemory(rows, overlap=5))
    assert not identity.was_emptied([], since=0, covered=None, read_to=30)
    newest_first = [f"i{sequence}" for sequence in range(30, 30 - INSTANCES_ASKED, -1)]
    assert source.instances_asked == newest_first


# Following


@pytest.mark.parametrize(("overlap", "since"), [(20, 80), (21, 59), (0, 100)])
def test_after_a_restart_what_a_short_look_may_have_passed_on_is_read_again(
    overlap: int, since: int
) -> None:
    source = StoreClient(feed_of(*range(1, 101)))
    feed = FollowFeed(
        source, position=100, page_size=50, overlap=overlap, memory=FeedMemory(overlap=overlap)
    )
    feed.next_page()
    assert source.asked[0][0] == since


@pytest.mark.parametrize(
    ("filters", "done"), [(False, [False, True]), (True, [False, False, True])]
)
def test_where_rows_of_other_types_are_not_read_the_end_is_looked_at_once_more(
    *, filters: bool, done: list[bool]
) -> None:
    source = StoreClient(feed_of(*range(1, 16)), extended=filters)
    feed = JudgedFeed(source, position=0, page_size=10, overlap=5)
    assert [feed.next_page().done for _ in done] == done


@pytest.mark.parametrize("stays", [True, False])
def test_a_row_in_a_gap_is_believed_when_it_is_told_twice(*, stays: bool) -> None:
    """Another server answers for a moment: with our rows, and one that we have not."""
    ours = feed_of(1, 2, 4)
    source = StoreClient(feed_of(1, 2, 3, 4), backend=LATE)
    memory = FeedMemory({1: "i1", 2: "i2", 4: "i4"}, overlap=5)
    feed = FollowFeed(source, position=4, page_size=50, overlap=5, memory=memory)

    def switch() -> None:
        if len(source.asked) == 2 and not stays:
            source.store = ours

    source.before_answer = switch
    page = feed.ask_again(Ask(2, 3, gaps=((3, 3),)))
    assert [move.sequence for move in page.moves] == [3]
    assert page.confirmed is stays
    assert source.asked == [(2, 1, False), (3, 1, False), (2, 1, False)]


def test_a_gap_that_stays_and_one_beside_a_known_row_are_asked_for_once() -> None:
    source = StoreClient(feed_of(1, 2, 4), backend=LATE)
    memory = FeedMemory({1: "i1", 2: "i2", 4: "i4"}, overlap=5)
    feed = FollowFeed(source, position=4, page_size=50, overlap=5, memory=memory)
    assert feed.ask_again(Ask(2, 3, gaps=((3, 3),))).gaps
    source.store = feed_of(1, 2, 3, 4)
    page = feed.ask_again(Ask(1, 3, gaps=((3, 3),), known=((2, "i2"),)))
    assert [move.sequence for move in page.moves] == [2, 3]
    assert not page.confirmed, "the row beside it tells"
    assert len(source.asked) == 2


# Pages


LAST_PAGE = MovePage((), since=5, frontier=5, done=True, last=5)


@pytest.mark.parametrize(
    ("newest", "done", "rest", "frontier", "last"),
    [
        (9, True, Page((), done=True, last=9), 9, 9),
        (9, True, Page((), done=True, last=12), 9, 12),
        (9, True, Page((), done=True, last=8), 5, 5),
        (9, True, Page((row(7),), done=True, last=9), 5, 5),
        (9, False, None, 5, 5),
        (5, True, None, 5, 5),
    ],
)
def test_the_end_of_a_filtered_feed_is_reached_where_nothing_of_ours_is_behind(
    newest: int, *, done: bool, rest: Page | None, frontier: int, last: int
) -> None:
    source = Answers(*(() if rest is None else (rest,)))
    reader = FeedReader(source, position=5, page_size=10, counter=Counter(source))  # type: ignore[arg-type]
    page = replace(LAST_PAGE, done=done)
    found = reader.reach(page, Change(newest, "StableStudy", "s", "20260101T120000"))
    assert (found.frontier, found.last) == (frontier, last)
    assert found.newest_date == ("20260101T120000" if frontier == newest != 5 else "")
    assert source.asked == ([] if rest is None else [(5, 1, True)])


@pytest.mark.parametrize(
    ("position", "back_to", "asked", "moves"),
    [(3, 1, (1, 2, False), [2, 3]), (0, 0, (0, 1, False), []), (5, 9, (5, 1, False), [])],
)
def test_what_was_read_is_read_again_and_no_more(
    position: int, back_to: int, asked: tuple[int, int, bool], moves: list[int]
) -> None:
    source = StoreClient(feed_of(*range(1, 7)))
    reader = FeedReader(source, position=position, page_size=10, counter=Counter(source))
    page = reader.read_again(back_to)
    assert [move.sequence for move in page.moves] == moves
    assert source.asked == [asked]
    assert page.frontier == position


@pytest.mark.parametrize(
    ("rows", "frontier", "gaps"),
    [
        ((1, 2, 3, 4, 5, 6, 9), 6, []),
        ((1, 2, 3, 4, 6, 9), 6, [(5, 5)]),
        ((1, 2, 3, 4, 5, 7), 6, [(6, 6)]),
        ((1, 2, 3, 9, 10, 11, 12, 13), 6, [(4, 6)]),
        ((1, 2, 9, 10, 11, 12, 13), 6, [(3, 6)]),
        ((1, 2), 6, [(3, 6)]),
    ],
)
def test_an_answer_about_gaps_tells_of_all_that_was_asked_for(
    rows: tuple[int, ...], frontier: int, gaps: list[tuple[int, int]]
) -> None:
    source = StoreClient(feed_of(*rows), backend=LATE)
    reader = FeedReader(source, position=13, page_size=10, counter=Counter(source))
    page = reader.ask(Ask(2, 6, gaps=((3, 6),)))
    assert page.frontier == frontier
    assert [(gap.first, gap.last) for gap in page.gaps or ()] == gaps
    assert source.asked == [(2, 4, False)]


@pytest.mark.parametrize(
    ("info", "filters"),
    [
        ({}, True),
        ({"has_extended_changes": False}, False),
        ({"database_backend": LATE}, False),
        ({"maximum_storage_bytes": 9}, False),
        ({"maximum_patient_count": 9}, False),
        ({"maximum_storage_bytes": 9, "maximum_storage_mode": "Recycle"}, False),
        ({"maximum_storage_bytes": 9, "maximum_storage_mode": "Reject"}, True),
        ({"maximum_patient_count": 9, "maximum_storage_mode": "Reject"}, True),
        ({"maximum_storage_bytes": 0, "maximum_patient_count": 0}, True),
    ],
)
def test_only_a_source_that_hides_nothing_by_it_is_asked_to_filter(
    info: dict[str, Any], *, filters: bool
) -> None:
    whole = {"version": "1.12.10", "api_version": 1, "has_extended_changes": True}
    given: dict[str, Any] = whole | info
    assert filters_on_server(ServerInfo(**given)) is filters


@pytest.mark.parametrize("filters", [True, False])
def test_a_counter_is_asked_for_as_pages_are(*, filters: bool) -> None:
    store = feed_of(1, counter=4)
    if filters:
        store.script_feed([FeedRow(1, NEW, "i1"), FeedRow(4, "StableStudy", "s")])
    source = StoreClient(store, extended=filters)
    reader = FeedReader(source, position=3, page_size=10, counter=Counter(source))
    reader.read_again(0)
    assert source.asked == [(0, 3, filters), (3, 1, filters)]


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (3, None), (None, 3), (3, 3), (3, 4), (1, 2)]
)
def test_a_range_that_holds_something(start: int | None, end: int | None) -> None:
    check_order(start=start, end=end)
    assert range_end(StoreClient(feed_of(1, 4)), start=start, end=end) == (end or 4)


@pytest.mark.parametrize(
    ("start", "end", "given"), [(5, None, r"5\.\."), (None, 5, r"\.\.5"), (2, 5, r"2\.\.5")]
)
def test_a_range_beyond_the_feed(start: int | None, end: int | None, given: str) -> None:
    with pytest.raises(ConfigurationError, match=f"The range {given} is beyond"):
        range_end(StoreClient(feed_of(1, 4)), start=start, end=end)
    with pytest.raises(ConfigurationError, match="--to 2 is below --from 3"):
        check_order(start=3, end=2)


@pytest.mark.parametrize(("sequence", "beyond"), [(9, 17), (17, 17), (30, 17), (2, 4), (1, 4)])
def test_sequences_were_given_out_up_to_there(sequence: int, beyond: int) -> None:
    source = StoreClient(feed_of(1, 4, counter=17))
    assert counter_beyond(source, sequence) == beyond
    assert source.asked == [(sequence, 1, False)]


# Listings


@pytest.mark.parametrize(
    ("listed", "tail", "goes_on"),
    [
        ("", "a", False),
        ("xa", "ab", False),
        ("ab", "ab", True),
        ("a", "ab", True),
        ("a", "abc", False),
        ("b", "abc", False),
        ("ab", "abc", True),
        ("axb", "abc", True),
        ("ba", "abcd", False),
        ("bxa", "abcd", False),
        ("cbad", "abcdef", False),
        ("bcd", "abcdef", True),
    ],
)
def test_a_page_begins_with_the_end_of_the_one_before(
    listed: str, tail: str, *, goes_on: bool
) -> None:
    assert _begins_with_the_end(listed, tail) is goes_on


@pytest.mark.parametrize(
    ("listed", "goes_on"),
    [("cd", True), ("c", True), ("bcd", True), ("abd", True), ("bd", False), ("de", False)],
)
def test_a_list_by_identifier_goes_on_with_one_of_those_that_were_listed_last(
    listed: str, *, goes_on: bool
) -> None:
    listing = Listing(StoreClient(feed_of()), page_size=200, feed=StoreClient(feed_of()))
    listing._tail, listing._listed_at = ("a", "c"), {"a": 0, "c": 0}
    assert listing._goes_on(listed) is goes_on
    assert not listing._goes_on("")


@pytest.mark.parametrize(("again", "goes_on"), [(0, False), (1, False), (49, False), (50, True)])
def test_without_a_feed_a_list_by_identifier_goes_on_with_half_of_its_end(
    again: int, *, goes_on: bool
) -> None:
    names = [f"i{number:03}" for number in range(200)]
    listing = Listing(StoreClient(feed_of()), page_size=200)
    listing._tail = tuple(names[:100])
    assert listing._goes_on(names[100 - again :]) is goes_on


@pytest.mark.parametrize(
    ("name", "found", "pages"),
    [("i450", True, 3), ("i9", True, 1), ("study", False, 3), ("none", False, 3)],
)
def test_an_instance_that_was_sent_anew_is_found_in_the_feed(
    name: str, *, found: bool, pages: int
) -> None:
    source = StoreClient(feed_of())
    rows = [FeedRow(sequence, NEW, f"i{sequence}") for sequence in range(1, 451)]
    rows[299] = FeedRow(300, "StableStudy", "study")
    source.store.script_feed(rows)
    listing = Listing(StoreClient(feed_of()), page_size=200, feed=source)
    listing._listed_at = {name: 2}
    assert listing._sent_anew(name) is found
    assert len(source.asked) == pages
    listing._listed_at = {name: 450}
    assert not listing._sent_anew(name)
    assert len(source.asked) == pages, "nothing came since"


def test_a_feed_that_promises_more_and_gives_nothing_is_not_asked_for_ever() -> None:
    source = Answers(Page((), done=False, last=0), last=end_at(9))
    listing = Listing(StoreClient(feed_of()), page_size=200, feed=source)  # type: ignore[arg-type]
    listing._listed_at = {"a": 0}
    assert not listing._sent_anew("a")


class Pages(FixedMoves):
    """A source of moves with these pages."""

    def __init__(self, *pages: MovePage) -> None:
        self.pages = list(pages)

    def next_page(self) -> MovePage:
        return self.pages.pop(0)


def test_an_end_is_confirmed_by_the_next_page() -> None:
    more, done = MovePage((Move("a"),)), MovePage((), done=True)
    end = MovePage((), done=True, ended=True)
    known = KnownPlace(StoreClient(feed_of(1)), Place(1, ((1, "i1"),)), overlap=5)
    listing = ConfirmedListing(Pages(more, end, more, done, end, end), known)
    found = [listing.next_page() for _ in range(6)]
    assert [page.ended for page in found] == [False] * 5 + [True]
    assert [page.done for page in found] == [False, False, False, True, False, True]


# The end of a feed, and a range of it


@pytest.mark.parametrize(("at", "looks"), [(12, 2), (13, 3), (30, 3), (10**6, 8)])
def test_rows_to_know_a_place_by_are_looked_for_further_and_further_back(
    at: int, looks: int
) -> None:
    source = StoreClient(feed_of())
    source.store.script_feed([FeedRow(at, "StableStudy", "s", "20260101T120000")])
    end = FeedEnd(source, overlap=3)
    end.next_page()
    asked = [3 * 4**number for number in range(looks)]
    assert source.asked == [(max(0, at - back), back, False) for back in asked]
    assert end.place == Place(at, (), "20260101T120000")


def test_an_end_is_believed_where_the_rows_before_it_are_those_that_are_followed() -> None:
    rows = [FeedRow(s, NEW, f"i{s}", f"2026010{s}T120000") for s in range(1, 6)]
    source = StoreClient(feed_of())
    source.store.script_feed(rows)
    end = FeedEnd(source, overlap=2, followed={4: "i4", 9: "other"})
    end.next_page()
    assert end.place == Place(5, ((4, "i4"), (5, "i5")), "20260105T120000")
    with pytest.raises(FeedWentBackwards, match="change 4 was instance other"):
        FeedEnd(source, overlap=2, followed={4: "other"}).next_page()


@pytest.mark.parametrize(
    ("backend", "with_gaps", "expected"),
    [
        (LATE, True, [(7, 8), (13, 13)]),
        (LATE, False, []),
        (None, True, []),
    ],
)
def test_what_may_still_come_before_an_end(
    monkeypatch: pytest.MonkeyPatch,
    backend: str | None,
    *,
    with_gaps: bool,
    expected: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr(bridge.feed.sources, "DEPTH", 16)
    monkeypatch.setattr(bridge.feed.sources, "DEPTH_PAGE", 5)
    rows = [s for s in range(1, 23) if s not in (2, 7, 8, 13)]
    source = StoreClient(feed_of(*rows), backend=backend)
    end = FeedEnd(source, overlap=2, wanted=20, with_gaps=with_gaps)
    end.next_page()
    assert end.place is not None
    assert [(gap.first, gap.last) for gap in end.place.gaps] == expected
    assert not any(gap.counted for gap in end.place.gaps)
    if expected:
        sinces = [since for since, limit, _ in source.asked if limit != 2]
        assert sinces == [4, 11, 17]


def test_a_place_is_known_again_by_the_rows_before_it() -> None:
    source = StoreClient(feed_of(*range(1, 11)))
    place_of(source).look()
    place = place_of(source)
    asked = len(source.asked)
    place.look()
    assert len(source.asked) == asked + 1, "its rows are in the page: none is asked for by itself"
    source.store.script_feed([FeedRow(s, NEW, f"other{s}") for s in range(1, 11)])
    with pytest.raises(FeedWentBackwards, match="not the one that was followed"):
        place.look()


def test_a_range_tells_the_date_of_the_feeds_end_where_it_has_gaps() -> None:
    rows = [FeedRow(s, NEW, f"i{s}", f"202601{s:02}T120000") for s in (1, 2, 4, 9, 12)]
    source = StoreClient(feed_of(), backend=LATE)
    source.store.script_feed(rows)
    dated = ReplayRange(source, start=2, end=9, page_size=2)
    pages = list(pages_of(dated))
    assert [move.sequence for page in pages for move in page.moves] == [2, 4, 9]
    assert [page.feed_date for page in pages] == ["20260112T120000"] * len(pages)
    source.store.script_feed(rows[:2])
    whole = ReplayRange(source, start=1, end=2, page_size=2)
    assert [page.feed_date for page in pages_of(whole)] == [""]


def test_a_range_of_a_feed_that_ends_below_it_is_judged() -> None:
    source = StoreClient(feed_of(1, 2, counter=2))
    with pytest.raises(FeedWentBackwards, match="ends at 2"):
        ReplayRange(source, start=1, end=5, page_size=10).next_page()


def test_moves_that_are_not_followed_tell_nothing_when_they_are_asked_again() -> None:
    moves = FixedMoves()
    assert moves.look_back() == MovePage(())
    assert moves.newest(ahead=True) == MovePage(())
    assert moves.ask_again(Ask(3, 5)) == MovePage((), since=3, frontier=5, again=True)


# A set of sequences


def test_sequences_are_remembered_one_by_one_and_forgotten_by_blocks() -> None:
    sequences, some = Sequences(), (0, 1, 5, BLOCK - 1, BLOCK, 3 * BLOCK + 7, 9 * BLOCK)
    sequences.forget_below(5)
    assert all(sequences.add(sequence) for sequence in some)
    assert not any(sequences.add(sequence) for sequence in some)
    around = {s + d for s in some for d in (-1, 0, 1) if s + d >= 0} | {2 * BLOCK}
    assert sorted(s for s in around if s in sequences) == list(some)
    sequences.forget_below(BLOCK - 1)
    assert 1 in sequences
    sequences.forget_below(BLOCK)
    assert [s for s in some if s in sequences] == [BLOCK, 3 * BLOCK + 7, 9 * BLOCK]
    sequences.forget_below(4 * BLOCK - 1)
    assert [s for s in some if s in sequences] == [3 * BLOCK + 7, 9 * BLOCK]
    assert sequences.add(5)
