"""Reading the feed: what was really given moves the position, and a reset never passes unseen."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import FeedWentBackwards, SourceError
from bridge.feed.follow import FollowFeed
from bridge.feed.pages import MovePage, filters_on_server
from bridge.feed.sources import GivenMoves, MoveSource, ReplayRange
from bridge.model import Move, ServerInfo, SideProblem
from tests.fake_store import FakeStore, FeedRow
from tests.feed_client import NEW, JudgedFeed, StoreClient, feed_of


def follow(
    client: StoreClient,
    *,
    position: int = 0,
    page_size: int = 3,
    overlap: int = 5,
    until: int | None = None,
) -> FollowFeed:
    return JudgedFeed(
        client,
        position=position,
        page_size=page_size,
        overlap=overlap,
        until=until,
    )


def drain(moves: MoveSource, *, pages_max: int = 100) -> list[MovePage]:
    """Read until there is nothing more at the moment."""
    pages = []
    for _ in range(pages_max):
        pages.append(moves.next_page())
        if pages[-1].done or pages[-1].ended:
            return pages
    raise AssertionError("it never ends")


def sequences(pages: list[MovePage]) -> list[int]:
    return [move.sequence or 0 for page in pages for move in page.moves]


def test_every_row_is_read_in_pages_and_gaps_are_normal() -> None:
    pages = drain(follow(StoreClient(feed_of(1, 2, 5, 9, 10, 11, 30))))
    assert sorted(set(sequences(pages))) == [1, 2, 5, 9, 10, 11, 30]
    assert pages[-1].frontier == 30
    assert pages[-1].last == 30
    assert [page.since for page in pages] == sorted(page.since for page in pages)


def test_other_changes_are_not_moves_but_move_the_frontier() -> None:
    store = FakeStore()
    store.script_feed([FeedRow(1, NEW, "a"), FeedRow(2, "NewSeries", "s"), FeedRow(3, "X", "x")])
    (page,) = drain(follow(StoreClient(store), page_size=10))
    assert [move.instance_id for move in page.moves] == ["a"]
    assert page.frontier == 3


def test_a_row_that_names_no_identifier_is_passed_over_and_counted_once() -> None:
    store = FakeStore()
    store.script_feed(
        [FeedRow(1, NEW, "a"), FeedRow(2, NEW, ""), FeedRow(3, "X", ""), FeedRow(4, NEW, "b")]
    )
    feed = follow(StoreClient(store), page_size=10)
    (page,) = drain(feed)
    assert [move.instance_id for move in page.moves] == ["a", "b"]
    assert (page.frontier, page.refused) == (4, 1)
    (again,) = drain(feed)
    assert again.refused == 0


def test_a_move_carries_the_row() -> None:
    store = FakeStore()
    store.script_feed([FeedRow(7, NEW, "an-instance", "20240102T030405")])
    (page,) = drain(follow(StoreClient(store)))
    assert page.moves == (Move("an-instance", 7, "20240102T030405"),)


@pytest.mark.parametrize("extended", [False, True])
def test_the_server_filters_where_it_can_and_we_always_do(extended: bool) -> None:
    store = FakeStore()
    store.script_feed([FeedRow(1, NEW, "a"), FeedRow(2, "StableStudy", "s"), FeedRow(3, NEW, "b")])
    client = StoreClient(store, extended=extended)
    (page,) = drain(follow(client, page_size=10))
    assert {asked[2] for asked in client.asked} == {extended}
    assert [move.instance_id for move in page.moves] == ["a", "b"]


def test_an_empty_page_moves_nothing_though_its_last_is_far_ahead() -> None:
    """Rows of deleted resources are gone and the counter is not: FACTS 2 and 6."""
    store = feed_of(counter=50)
    feed = follow(StoreClient(store), position=2)
    page = feed.next_page()
    assert (page.frontier, page.last) == (2, 50)
    store.script_feed([FeedRow(40, NEW, "became visible")], counter=50)
    assert sequences([feed.next_page()]) == [40]


def test_a_cleared_feed_goes_on_with_its_counter() -> None:
    store = feed_of(1, 2, 3)
    feed = follow(StoreClient(store))
    drain(feed)
    store.clear_changes()
    assert feed.next_page().frontier == 3
    store.add_change(NEW, "after")
    assert sequences(drain(feed)) == [4]


def test_at_the_end_the_last_rows_are_read_again_and_a_late_one_shows() -> None:
    store = feed_of(1, 2, 4)
    feed = follow(StoreClient(store))
    drain(feed)
    store.script_feed([FeedRow(s, NEW, f"i{s}") for s in (1, 2, 3, 4)])
    assert 3 in sequences(drain(feed))


@pytest.mark.parametrize("rows", [(), (1,), (1, 2, 3)])
def test_a_feed_that_ends_below_the_position_went_backwards(rows: tuple[int, ...]) -> None:
    feed = follow(StoreClient(feed_of(*rows)), position=10)
    with pytest.raises(FeedWentBackwards, match="read up to 10") as reset:
        drain(feed)
    assert "BRIDGE_ON_FEED_RESET" in reset.value.advice
    assert reset.value.exit_code == 13


def test_a_reset_while_catching_up_is_seen_too() -> None:
    store = feed_of(*range(1, 100))
    feed = follow(StoreClient(store), page_size=10)
    feed.next_page()
    store.script_feed([FeedRow(1, NEW, "other")])
    with pytest.raises(FeedWentBackwards):
        drain(feed)


def test_a_feed_that_ends_at_the_position_did_not() -> None:
    for store in (feed_of(10), feed_of(counter=10), feed_of(3, counter=10)):
        drain(follow(StoreClient(store), position=10))


def test_an_error_between_a_page_and_the_end_of_the_feed_loses_no_row() -> None:
    """The page of rows is there, the question for the newest row fails: the page comes again."""
    store = feed_of(*range(1, 8))
    client = StoreClient(store)
    feed = follow(client)
    chance = random.Random(0)

    def fail_sometimes() -> None:
        if chance.random() < 0.4:
            raise SourceError(SideProblem.UNREACHABLE, "gone for a moment")

    client.before_answer = fail_sometimes
    pages: list[MovePage] = []
    while not pages or not pages[-1].done:
        try:
            pages.append(feed.next_page())
        except SourceError:
            continue
    assert sorted(set(sequences(pages))) == list(range(1, 8))
    reached = 0
    for page in pages:
        assert page.since <= reached, "no gap between what was read"
        reached = max(reached, page.frontier)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("until", [0, 1, 4, 5, 6, 20])
def test_until_ends_there(until: int, extended: bool) -> None:
    store = feed_of(1, 2, 5, 6, 9, 12)
    store.add_change("StableStudy", "s")
    pages = drain(follow(StoreClient(store, extended=extended), until=until))
    assert pages[-1].ended
    assert sorted(set(sequences(pages))) == [s for s in (1, 2, 5, 6, 9, 12) if s <= until]
    assert all(page.frontier <= max(until, 0) for page in pages)


def test_a_feed_for_ever_never_ends() -> None:
    assert not drain(follow(StoreClient(feed_of(1, 2))))[-1].ended


@given(
    rows=st.sets(st.integers(1, 60), max_size=40),
    start=st.integers(0, 61),
    length=st.integers(0, 61),
    page_size=st.integers(1, 9),
    extended=st.booleans(),
)
def test_a_replay_gives_its_range_once_and_nothing_else(
    rows: set[int], start: int, length: int, page_size: int, extended: bool
) -> None:
    store = feed_of(*sorted(rows), counter=200)
    end = start + length
    moves = ReplayRange(
        StoreClient(store, extended=extended), start=start, end=end, page_size=page_size
    )
    pages = drain(moves)
    assert sequences(pages) == sorted(s for s in rows if start <= s <= end)
    assert pages[-1].ended


@given(
    arrivals=st.lists(st.lists(st.integers(1, 3), max_size=8), max_size=8),
    page_size=st.integers(1, 5),
    overlap=st.integers(1, 9),
)
def test_following_a_growing_feed_passes_nothing_over(
    arrivals: list[list[int]], page_size: int, overlap: int
) -> None:
    store = FakeStore()
    feed = follow(StoreClient(store), page_size=page_size, overlap=overlap)
    seen: set[str] = set()
    sent: set[str] = set()
    for batch in arrivals:
        for gap in batch:
            store.counter += gap - 1
            sent.add(name := f"i{store.counter}")
            store.add_change(NEW, name)
        for page in drain(feed):
            seen |= {move.instance_id for move in page.moves}
        assert seen == sent


@given(st.integers(0, 300), st.integers(1, 20), st.integers(1, 12))
def test_far_behind_it_reads_fresh_rows_too_and_still_everything(
    backlog: int, page_size: int, fresh: int
) -> None:
    store = feed_of(*range(1, backlog + 1))
    feed = follow(StoreClient(store), page_size=page_size)
    pages = [feed.next_page()]
    for number in range(fresh):
        store.add_change(NEW, f"fresh-{number}")
    pages += drain(feed, pages_max=1000)
    names = {move.instance_id for page in pages for move in page.moves}
    assert len(names) == backlog + fresh
    reached = 0
    for page in pages:
        if not page.ahead:
            assert page.since <= reached
            reached = max(reached, page.frontier)
    assert reached == store.counter


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10])
def test_given_moves_come_once(count: int) -> None:
    moves = GivenMoves([Move(str(n)) for n in range(count)], page_size=5)
    pages = drain(moves)
    assert [move.instance_id for page in pages for move in page.moves] == [
        str(n) for n in range(count)
    ]


def _missing(moves: MoveSource) -> int:
    return sum(page.missing for page in drain(moves))


@pytest.mark.parametrize("page_size", [1, 3, 100])
def test_rows_that_vanished_before_they_were_read_are_counted(page_size: int) -> None:
    client = StoreClient(feed_of(1, 2, 3))
    feed = follow(client, page_size=page_size)
    assert _missing(feed) == 0
    client.store.script_feed([FeedRow(s, NEW, f"i{s}") for s in (1, 3, 6, 7, 11)])
    assert _missing(feed) == 5, "4, 5, 8, 9 and 10; 2 was read before it went"
    assert _missing(feed) == 0, "once"


def test_a_feed_whose_end_vanished_is_counted_when_it_goes_on() -> None:
    client = StoreClient(feed_of(1, 2))
    feed = follow(client, page_size=10)
    drain(feed)
    client.store.script_feed([], counter=9)
    assert _missing(feed) == 0
    client.store.script_feed([FeedRow(10, NEW, "i10")])
    assert _missing(feed) == 7


def test_what_was_deleted_before_the_first_look_was_not_missed() -> None:
    client = StoreClient(feed_of(5, 9, 20))
    feed = follow(client)
    assert _missing(feed) == 0
    client.store.script_feed([FeedRow(s, NEW, f"i{s}") for s in (20, 22)])
    assert _missing(feed) == 1


def test_after_a_restart_everything_beyond_the_checkpoint_counts() -> None:
    assert _missing(follow(StoreClient(feed_of(5, 9, 20)), position=5)) == 13
    replay = ReplayRange(StoreClient(feed_of(5, 9)), start=1, end=9, page_size=3)
    assert _missing(replay) == 0, "a replay is of history"


@pytest.mark.parametrize(
    ("limits", "filters"),
    [
        ({}, True),
        ({"maximum_storage_bytes": 0, "maximum_patient_count": 0}, True),
        ({"maximum_storage_bytes": 9, "maximum_storage_mode": "Recycle"}, False),
        ({"maximum_patient_count": 9, "maximum_storage_mode": "Recycle"}, False),
        ({"maximum_storage_bytes": 9, "maximum_storage_mode": "Reject"}, True),
    ],
)
def test_a_source_that_recycles_is_not_asked_to_filter(
    limits: dict[str, Any], filters: bool
) -> None:
    info = ServerInfo("1.12.7", 27, has_extended_changes=True, **limits)
    assert filters_on_server(info) is filters
    assert not filters_on_server(replace(info, has_extended_changes=False))


def test_a_filtered_feed_cannot_tell_what_vanished() -> None:
    assert _missing(follow(StoreClient(feed_of(5, 9), extended=True), position=5)) == 0
