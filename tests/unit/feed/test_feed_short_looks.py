"""The short look back, before new rows are passed on, hides nothing that a long one shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards
from bridge.feed.follow import FollowFeed
from bridge.ledger.store import Ledger
from bridge.pipeline.journal import FollowJournal
from tests.dicom_samples import small_series
from tests.fake_store import FakeStore, FeedRow
from tests.feed_client import NEW, StoreClient, feed_of

OVERLAP = 100


@dataclass
class FakeClock:
    """Both clocks of a pipeline, moved by hand."""

    at_s: float = 100.0

    def now_s(self) -> float:
        return self.at_s

    def steady_s(self) -> float:
        return self.at_s


class Follower:
    """A follower at the end of a feed, between two looks back."""

    def __init__(
        self,
        store: FakeStore,
        state: Path,
        *,
        extended: bool = False,
        overlap: int = OVERLAP,
        page_size: int = 1000,
        backend: str | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.client = StoreClient(store, extended=extended, backend=backend)
        self.ledger = Ledger(state)
        if self.ledger.checkpoint() is None:
            self.ledger.restart_at(0)
        self.journal = FollowJournal(self.ledger, overlap=overlap, clock=self.clock)
        self.feed = FollowFeed(
            self.client,
            position=self.journal.checkpoint or 0,
            page_size=page_size,
            overlap=overlap,
            memory=self.journal.memory,
            look_back_every_s=5.0,
            steady_s=lambda: self.now_s,
        )

    @property
    def now_s(self) -> float:
        return self.clock.at_s

    @now_s.setter
    def now_s(self, at_s: float) -> None:
        self.clock.at_s = at_s

    def look(self, *, settle: bool = True) -> list[int]:
        self.now_s += 0.1
        moves = self.journal.admit(self.feed.next_page()).moves
        while (question := self.journal.ask()) is not None:
            moves += self.journal.admit(self.feed.ask_again(question)).moves
        for move in moves if settle else ():
            self.journal.settle(move, None)
        self.journal.flush()
        return sorted(move.sequence or 0 for move in moves)


def add(store: FakeStore, *sequences: int) -> None:
    rows = [*store.rows, *(FeedRow(s, NEW, f"i{s}") for s in sequences)]
    store.script_feed(sorted(rows, key=lambda row: row.seq))


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("how", ["deleted", "sent anew"])
def test_emptied_with_unread_rows_behind_a_last_instance_that_is_gone(
    tmp_path: Path, extended: bool, how: str
) -> None:
    store = FakeStore(overwrite=True)
    files = small_series(40)
    for _ in range(8):
        store.put(files.pop())
    for _ in range(30):
        store.add_change("UpdatedMetadata", "x")
    last = files.pop()
    last_id, _ = store.put(last)
    follower = Follower(store, tmp_path / "s", extended=extended)
    while follower.look():
        pass
    for _ in range(3):
        store.put(files.pop())
    store.clear_changes()
    if how == "deleted":
        store.delete(last_id)
        store.put(files.pop())
    else:
        store.put(last)
    with pytest.raises(FeedWentBackwards, match="were deleted before the bridge read them"):
        follower.look()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("new", [1, 15, 20, 21, 60, 99, 100, 101])
@pytest.mark.parametrize("overlap", [1, 5, 20, 21, 40, 100])
def test_a_late_row_within_the_overlap_is_found_when_new_ones_come_with_it(
    tmp_path: Path, overlap: int, new: int, restart: bool
) -> None:
    late = 200 - overlap + 1
    store = feed_of(*(s for s in range(1, 201) if s != late))
    follower = Follower(store, tmp_path / "s", overlap=overlap)
    follower.look()
    follower.look()
    add(store, late, *range(201, 201 + new))
    seen = follower.look()
    if restart:
        follower.ledger.close()
        follower = Follower(store, tmp_path / "s", overlap=overlap)
    for _ in range(3):
        seen += follower.look()
    assert seen.count(late) == 1


def test_it_is_found_again_after_a_crash_before_it_was_moved(tmp_path: Path) -> None:
    late = 200 - OVERLAP + 1
    store = feed_of(*(s for s in range(1, 201) if s != late))
    follower = Follower(store, tmp_path / "s")
    follower.look()
    add(store, late, *range(201, 221))
    assert follower.look() == [*range(201, 221)]
    assert follower.look(settle=False) == [late]
    add(store, *range(221, 241))
    follower.look()
    follower.ledger.close()
    assert Follower(store, tmp_path / "s").look()[0] == late


def test_rows_that_come_in_the_middle_of_a_look_do_not_put_a_late_one_out_of_reach(
    tmp_path: Path,
) -> None:
    late = 200 - OVERLAP + 1
    store = feed_of(*(s for s in range(1, 201) if s != late))
    follower = Follower(store, tmp_path / "s")
    follower.look()

    def arrive() -> None:
        if follower.client.asked and store.counter == 201:
            add(store, late, *range(202, 300))

    add(store, 201)
    follower.client.asked.clear()
    follower.client.before_answer = arrive
    assert follower.look()[0] == late


@pytest.mark.parametrize("backlog", [False, True])
def test_a_burst_does_not_put_a_late_row_out_of_reach_before_the_end_is_reached(
    tmp_path: Path, *, backlog: bool
) -> None:
    page, growth, late = 25, 30, 1020
    store = feed_of(*range(1, 1001 if backlog else 11))
    follower = Follower(store, tmp_path / "s", page_size=page)
    while 1000 not in follower.look() and backlog:
        pass
    seen: list[int] = []
    for begin in range(1001, 1301, growth):
        # More comes with each look than it reads; the late row is there, as was promised, before
        # the feed is more than an overlap beyond it.
        rows = range(begin, begin + growth)
        add(store, *(s for s in rows if s != late), *([late] if late + OVERLAP in rows else []))
        seen += follower.look()
    for _ in range(30):
        seen += follower.look()
    assert sorted(seen) == [*range(1001, 1301)]
