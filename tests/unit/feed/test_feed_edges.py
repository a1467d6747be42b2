"""Edges of reading the feed: what is counted again, asked twice, noted first."""

from __future__ import annotations

import pytest

from bridge.feed.follow import FollowFeed
from bridge.feed.gaps import ASK_WIDTH, Ask, PageGap
from bridge.feed.identity import ROWS_ASKED, Counter, last_row_there
from bridge.feed.pages import FeedReader, MovePage
from bridge.model import Move
from tests.feed_client import JudgedFeed, StoreClient, feed_of
from tests.unit.feed.test_feed_ahead import GrowingFeed
from tests.unit.feed.test_feed_looks import EVERY_S, Looker, store_with


def test_the_last_rows_are_asked_for_the_newest_first_and_no_more_than_a_few() -> None:
    known = range(1, 3 * ROWS_ASKED)
    client = StoreClient(feed_of(*known))
    assert last_row_there(client, known) == Move(f"i{known[-1]}", known[-1])
    assert len(client.asked) == 1
    client.store = feed_of(*known[: -ROWS_ASKED + 1])
    assert last_row_there(client, known) == Move(f"i{known[-ROWS_ASKED]}", known[-ROWS_ASKED])
    client.store = feed_of(*known[:-ROWS_ASKED])
    client.asked.clear()
    assert last_row_there(client, known) is None
    assert len(client.asked) == ROWS_ASKED


def test_a_page_that_ends_below_the_position_does_not_move_it() -> None:
    client = StoreClient(feed_of())
    reader = FeedReader(client, position=10, page_size=5, counter=Counter(client))
    for frontier, position in ((3, 10), (12, 12), (11, 12)):
        reader.accept(MovePage((), frontier=frontier))
        assert reader.position == position


def test_an_answer_that_was_cut_short_tells_nothing_of_what_is_behind_it() -> None:
    """More rows than one question asks for: the rest of them is no gap."""
    width = 2 * ASK_WIDTH
    client = StoreClient(feed_of(*range(1, width + 1)), backend="postgresql")
    reader = FeedReader(client, position=width, page_size=5, counter=Counter(client))
    page = reader.ask(Ask(0, width, ((7, 9), (ASK_WIDTH + 3, ASK_WIDTH + 5)), ()))
    assert (page.frontier, page.gaps) == (ASK_WIDTH, ())
    rest = reader.ask(Ask(ASK_WIDTH, width, ((ASK_WIDTH + 3, ASK_WIDTH + 5),), ()))
    assert (rest.since, rest.frontier, len(rest.moves)) == (ASK_WIDTH, width, ASK_WIDTH)


@pytest.mark.parametrize("stays", [True, False])
def test_a_row_in_a_gap_is_believed_when_it_is_told_twice(*, stays: bool) -> None:
    """Another server answered for a moment, at the first question and not at the second."""
    ours = feed_of(*range(1, 11), *range(21, 31))
    client = StoreClient(ours, backend="postgresql")
    recent = {sequence: f"i{sequence}" for sequence in range(21, 31)}
    feed = JudgedFeed(client, position=30, page_size=100, overlap=5, recent=recent)
    client.store = feed_of(*range(1, 31))
    asked: list[int] = []

    def another_for_a_moment() -> None:
        asked.append(1)
        if len(asked) == 2 and not stays:  # the first was for the rows of the gap
            client.store = ours

    client.before_answer = another_for_a_moment
    page = feed.ask_again(Ask(12, 18, ((13, 18),), ()))
    assert [move.sequence for move in page.moves] == list(range(13, 19))
    assert page.confirmed is stays
    assert len(asked) >= 3


def test_a_look_back_counts_from_when_it_began() -> None:
    """A row may have become visible right after a slow source had looked."""
    looker = Looker(store_with(*range(1, 31)))
    looker.now_s += EVERY_S

    def slowly() -> None:
        looker.now_s += 0.2

    looker.client.before_answer = slowly
    begun_s = looker.now_s
    looker.look()
    assert looker.sinces[0] < 30
    assert looker.now_s > begun_s
    looker.client.before_answer = lambda: None
    looker.now_s = begun_s + EVERY_S
    looker.look()
    assert min(looker.sinces) < 30, "it looked back again"


def test_far_from_the_end_few_rows_are_read_again() -> None:
    """What was given out before a page was read says how far it is complete."""
    client = StoreClient(feed_of(*range(1, 2001)))
    feed = JudgedFeed(client, position=0, page_size=100, overlap=400, until=2000)
    frontier = 0
    for number in range(6):
        client.asked.clear()
        page = feed.next_page()
        if number >= 2:
            assert client.asked[0][0] == frontier - FollowFeed.AGAIN
        frontier = page.frontier


def test_each_backlog_may_be_read_ahead_of_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FollowFeed, "AHEAD_MAX", 25)
    client = GrowingFeed(1000)
    feed = JudgedFeed(client, position=0, page_size=10, overlap=5)
    counts = []
    for _ in range(3):
        ahead = 0
        for _ in range(40):
            feed.next_page()
            client.last += 10
            ahead += len(feed.newest(ahead=True).moves)
        counts.append(ahead)
        while not feed.next_page().done:
            pass
        client.last += 1000
    assert counts == [30, 30, 30]


def test_holes_of_an_answer_are_those_it_can_tell_of() -> None:
    client = StoreClient(feed_of(1, 2, 5, 9), backend="postgresql")
    reader = FeedReader(client, position=9, page_size=5, counter=Counter(client))
    page = reader.ask(Ask(0, 8, ((3, 4), (6, 8)), ()))
    assert page.gaps is not None
    assert [(gap.first, gap.last) for gap in page.gaps] == [(3, 4), (6, 8)]
    assert all(isinstance(gap, PageGap) for gap in page.gaps)
    assert page.again
