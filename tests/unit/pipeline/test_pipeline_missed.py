"""An instance that the source lacks counts as deleted only when the source is the same one."""

from __future__ import annotations

import pytest

from bridge.errors import FeedWentBackwards, SourceError
from bridge.events import Settled
from bridge.feed.follow import FollowFeed
from bridge.feed.pages import MovePage
from bridge.feed.sources import GivenMoves
from bridge.model import Move, Reason, SideProblem, Skipped
from tests.feed_client import JudgedFeed, StoreClient, feed_of
from tests.pipeline_bench import DELIVERED, Bench

MANY = [f"i{number:02}" for number in range(20)]
GONE = Skipped(Reason.GONE)


class Looking(GivenMoves):
    """Moves with a history; each look back raises the next of these errors, if any is left."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__([Move(name) for name in MANY], page_size=100)
        self.errors = list(errors)
        self.looks = 0

    def look_back(self) -> MovePage:
        self.looks += 1
        if self.errors:
            raise self.errors.pop(0)
        return MovePage(())


def test_it_is_settled_after_two_looks_at_the_feed() -> None:
    bench, moves = Bench(), Looking()
    bench.script = {"i03": [GONE, GONE], "i07": [GONE, GONE]}
    summary = bench.run(moves)
    assert summary.skipped == {"gone": 2}
    assert summary.delivered == 18
    assert 2 <= moves.looks <= 4


def test_a_source_that_lacks_it_for_a_moment_loses_nothing() -> None:
    """It was another one while it was asked, and itself again when it was looked at."""
    bench, moves = Bench(), Looking()
    bench.script = {name: [GONE, DELIVERED] for name in MANY}
    summary = bench.run(moves)
    assert not summary.skipped
    assert summary.delivered == len(MANY)


def test_a_feed_that_cannot_be_read_decides_nothing() -> None:
    bench = Bench()
    moves = Looking(*[SourceError(SideProblem.TIMED_OUT, "slow today")] * 3)
    bench.script = {"i03": [GONE, GONE]}
    assert bench.run(moves).skipped == {"gone": 1}
    assert moves.looks == 5


def test_nothing_is_believed_of_another_source() -> None:
    bench, moves = Bench(), Looking(FeedWentBackwards("another history"))
    bench.script = {name: [GONE] for name in MANY}
    with pytest.raises(FeedWentBackwards):
        bench.run(moves)
    assert not bench.summary.skipped
    assert not bench.happened(Settled)
    assert not bench.ledger.settled


def follow(client: StoreClient, *, until: int | None = None) -> FollowFeed:
    return JudgedFeed(client, position=0, page_size=100, overlap=5, until=until)


def test_a_look_back_brings_nothing_new_and_moves_nothing() -> None:
    client = StoreClient(feed_of(*range(1, 21)))
    feed = follow(client)
    feed.next_page()
    client.store = feed_of(*range(1, 31))
    page = feed.look_back()
    assert [move.sequence for move in page.moves] == [16, 17, 18, 19, 20]
    assert page.frontier == 20
    assert [move.sequence for move in feed.next_page().moves][-1] == 30


def test_a_look_back_stays_within_what_was_asked_for() -> None:
    """``run --once`` reads a page to its end and moves only what was there when it began."""
    client = StoreClient(feed_of(*range(1, 21)))
    feed = follow(client, until=17)
    feed.next_page()
    page = feed.look_back()
    assert [move.sequence for move in page.moves] == [16, 17]
    assert page.frontier == 17


def test_a_look_back_sees_an_empty_source() -> None:
    client = StoreClient(feed_of(*range(1, 21)))
    feed = follow(client)
    feed.next_page()
    client.store = feed_of()
    with pytest.raises(FeedWentBackwards, match="ends at 0"):
        feed.look_back()


def test_a_look_back_bears_deleted_rows() -> None:
    client = StoreClient(feed_of(*range(1, 21)))
    feed = follow(client)
    feed.next_page()
    client.store = feed_of(1, 2, counter=20)
    assert not feed.look_back().moves
