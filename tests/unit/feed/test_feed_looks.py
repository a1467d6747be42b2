"""Idle looks at the feed are cheap, and nothing is seen later than it must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards
from bridge.feed.follow import FollowFeed
from bridge.ledger.store import Ledger
from bridge.pipeline.journal import FollowJournal
from tests.fake_store import FakeStore, FeedRow
from tests.feed_client import NEW, JudgedFeed, StoreClient, feed_of

EVERY_S = 1.0
OVERLAP = 5


class Looker:
    """A follower at the end of a feed, and a clock that the test moves."""

    def __init__(
        self,
        store: FakeStore,
        *,
        extended: bool = False,
        overlap: int = OVERLAP,
        journal: FollowJournal | None = None,
    ) -> None:
        self.now_s = 100.0
        self.frontier = 0
        self.client = StoreClient(store, extended=extended)
        if journal is None:
            self.feed: FollowFeed = JudgedFeed(
                self.client,
                position=0,
                page_size=100,
                overlap=overlap,
                look_back_every_s=EVERY_S,
                steady_s=lambda: self.now_s,
            )
        else:
            self.feed = FollowFeed(
                self.client,
                position=0,
                page_size=100,
                overlap=overlap,
                memory=journal.memory,
                look_back_every_s=EVERY_S,
                steady_s=lambda: self.now_s,
            )
        self.look()

    def look(self) -> list[int]:
        """Look once; the sequences that came."""
        self.client.asked.clear()
        page = self.feed.next_page()
        assert page.done
        self.frontier = page.frontier
        return [move.sequence or 0 for move in page.moves]

    @property
    def sinces(self) -> list[int]:
        """From where the last look asked, call by call."""
        return [since for since, _, _ in self.client.asked]


def store_with(*sequences: int) -> FakeStore:
    return feed_of(*sequences)


def add(store: FakeStore, *sequences: int) -> None:
    """Rows that appear now, wherever they belong."""
    rows = [*store.rows, *(FeedRow(s, NEW, f"i{s}") for s in sequences)]
    store.script_feed(sorted(rows, key=lambda row: row.seq))


def test_an_idle_look_is_one_request_for_nothing_and_looks_back_now_and_then() -> None:
    looker = Looker(store_with(*range(1, 11)))
    for _ in range(9):
        looker.now_s += 0.1
        assert looker.look() == []
        assert looker.sinces == [10]
    looker.now_s += 0.2
    assert looker.look() == [6, 7, 8, 9, 10]
    assert looker.sinces == [10 - OVERLAP]


def test_a_new_row_comes_at_once_with_a_few_before_it_and_more_with_the_next_look() -> None:
    store = store_with(*range(1, 101))
    looker = Looker(store, overlap=50)
    looker.now_s += 0.1
    add(store, 101)
    assert looker.look() == [*range(81, 102)], "what contradicts our memory would be among them"
    assert looker.sinces == [100, 80]
    looker.now_s += 0.1
    assert looker.look() == [*range(51, 102)], "the overlap before what had been read, and the new"
    assert looker.sinces == [50]
    looker.now_s += 0.1
    assert looker.look() == []
    assert looker.sinces == [101]


def test_many_new_rows_come_with_all_that_we_remember() -> None:
    store = store_with(*range(1, 61))
    looker = Looker(store, overlap=30)
    looker.now_s += 0.1
    add(store, *range(61, 82))
    assert looker.look() == [*range(31, 82)]


def test_another_source_whose_last_rows_name_no_instance_is_noticed_before_its_first(
    tmp_path: Path,
) -> None:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.restart_at(0)
        journal = FollowJournal(ledger, overlap=50)
        looker = Looker(store_with(*range(1, 61)), overlap=50, journal=journal)
        looker.now_s += EVERY_S
        journal.admit(looker.feed.next_page())
        other = FakeStore()
        rows = [FeedRow(s, NEW, f"other{s}") for s in range(1, 31)]
        rows += [FeedRow(s, "StableSeries", f"series{s}") for s in range(31, 61)]
        other.script_feed([*rows, FeedRow(61, NEW, "other61")])
        looker.client.store = other
        looker.now_s += 0.1
        with pytest.raises(FeedWentBackwards, match="not the one that was followed"):
            journal.admit(looker.feed.next_page())


def test_a_late_row_is_seen_at_the_next_look_back() -> None:
    store = store_with(1, 2, 3, 4, 5, 6, 7, 9, 10)
    looker = Looker(store)
    looker.now_s += 0.1
    add(store, 8)
    assert looker.look() == []
    looker.now_s += EVERY_S
    assert 8 in looker.look()


def test_a_feed_that_went_backwards_shows_at_the_cheapest_look() -> None:
    store = store_with(*range(1, 11))
    looker = Looker(store)
    looker.now_s += 0.1
    store.script_feed([FeedRow(1, NEW, "another")])
    with pytest.raises(FeedWentBackwards):
        looker.look()


def test_another_source_while_catching_up_is_noticed_with_the_next_page(tmp_path: Path) -> None:
    client = StoreClient(store_with(*range(1, 41)))
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.restart_at(0)
        journal = FollowJournal(ledger, overlap=OVERLAP)
        feed = FollowFeed(client, position=0, page_size=10, overlap=OVERLAP, memory=journal.memory)
        journal.admit(feed.next_page())
        journal.admit(feed.next_page())
        other = FakeStore()
        other.script_feed([FeedRow(s, NEW, f"other{s}") for s in range(1, 61)])
        client.store = other
        with pytest.raises(FeedWentBackwards, match="not the one that was followed"):
            journal.admit(feed.next_page())


@pytest.mark.parametrize("extended", [False, True])
def test_rows_of_other_types_behind_the_last_instance_are_passed(extended: bool) -> None:
    store = store_with(1, 2)
    looker = Looker(store, extended=extended)
    for kind in ("NewSeries", "StableStudy"):
        store.add_change(kind, "other")
        for _ in range(2):
            looker.now_s += 0.1
            looker.look()
        assert looker.frontier == store.counter
    looker.now_s += 0.1
    assert looker.look() == []
    assert looker.sinces == [4]


def test_an_end_whose_rows_were_deleted_is_not_asked_for_at_every_look() -> None:
    store = store_with(1, 2)
    looker = Looker(store, extended=True)
    store.counter = 9
    looks = []
    for _ in range(8):
        looker.now_s += 0.1
        looker.look()
        looks.append(len(looker.sinces))
    assert looker.frontier == 2, "nobody was given a row beyond"
    assert looks == [2, *[1] * 7]


def test_an_instance_that_comes_between_the_newest_row_and_the_page_is_not_passed() -> None:
    store = store_with(1, 2)
    looker = Looker(store, extended=True)
    store.add_change("NewSeries", "other")

    def arrive() -> None:
        if len(looker.client.asked) == 2 and store.counter == 3:
            store.script_feed([*store.rows, FeedRow(4, NEW, "i4"), FeedRow(5, "NewSeries", "s")])

    looker.client.before_answer = arrive
    looker.now_s += 0.1
    assert looker.look() == [1, 2], "the counter moved without a row of ours: it looked back"
    assert looker.frontier == 2
    looker.now_s += 0.1
    assert 4 in looker.look()


def test_once_ends_at_the_newest_row_of_another_type() -> None:
    store = store_with(1, 2)
    store.add_change("StableStudy", "other")
    feed = JudgedFeed(
        StoreClient(store, extended=True), position=0, page_size=9, overlap=OVERLAP, until=3
    )
    page = feed.next_page()
    assert (page.ended, page.frontier) == (True, 3)
