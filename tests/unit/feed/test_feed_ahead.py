"""Fresh arrivals before a long backlog."""

from __future__ import annotations

from pathlib import Path

from bridge.feed.follow import FollowFeed
from bridge.feed.pages import MovePage
from bridge.ledger.store import Ledger
from bridge.model import Change, Page, ServerInfo
from bridge.pipeline.journal import FollowJournal
from tests.feed_client import JudgedFeed

PAGE_SIZE = 10


class GrowingFeed:
    """A feed whose end can be moved."""

    def __init__(self, last: int) -> None:
        self.last = last

    def system(self) -> ServerInfo:
        return ServerInfo("1", 1, has_extended_changes=True)

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        assert only_new_instances
        end = min(since + limit, self.last)
        rows = tuple(Change(s, "NewInstance", f"i{s}", "") for s in range(since + 1, end + 1))
        return Page(rows, end == self.last, end)

    def last_change(self) -> Page:
        return Page((), True, self.last)

    def has_instance(self, _instance_id: str) -> bool:
        return True


def _feed(client: GrowingFeed, *, until: int | None = None) -> FollowFeed:
    return JudgedFeed(client, position=0, page_size=PAGE_SIZE, overlap=5, until=until)


def _sequences(page: MovePage) -> list[int]:
    return [move.sequence or 0 for move in page.moves]


def test_a_short_way_behind_everything_comes_in_order() -> None:
    feed = _feed(GrowingFeed(30))
    read: list[int] = []
    for _ in range(3):
        page = feed.next_page()
        assert not page.ahead
        read += [sequence for sequence in _sequences(page) if sequence not in read]
    assert read == list(range(1, 31))


def test_far_behind_what_arrives_now_is_read_between_the_pages_of_the_backlog() -> None:
    client = GrowingFeed(1000)
    feed = _feed(client)
    assert _sequences(feed.next_page()) == list(range(1, 11))
    client.last = 1003
    fresh = feed.next_page()
    assert fresh.ahead
    assert _sequences(fresh) == [1001, 1002, 1003]
    assert _sequences(feed.next_page())[-10:] == list(range(11, 21))
    client.last = 1004
    assert _sequences(feed.next_page()) == [1004]
    # Nothing fresh: straight on with the backlog.
    assert _sequences(feed.next_page())[-10:] == list(range(21, 31))
    assert _sequences(feed.next_page())[-10:] == list(range(31, 41))


def test_a_bounded_run_is_not_distracted() -> None:
    client = GrowingFeed(1000)
    feed = _feed(client, until=1000)
    client.last = 1100
    pages = [feed.next_page() for _ in range(5)]
    assert not any(page.ahead for page in pages)


def test_every_change_is_admitted_exactly_once_and_the_checkpoint_waits(tmp_path: Path) -> None:
    client = GrowingFeed(200)
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        ledger.restart_at(0)
        journal = FollowJournal(ledger, overlap=5)
        feed = FollowFeed(client, position=0, page_size=PAGE_SIZE, overlap=5, memory=journal.memory)
        admitted: list[int] = []
        for turn in range(60):
            client.last += turn < 20
            for move in journal.admit(feed.next_page()).moves:
                admitted.append(move.sequence or 0)
                journal.settle(move, None)
            journal.flush()
            checkpoint = ledger.checkpoint() or 0
            assert set(range(1, checkpoint + 1)) <= set(admitted)
        assert sorted(admitted) == list(range(1, 221))
        assert admitted.index(205) < admitted.index(150)
        assert ledger.checkpoint() == 220
        assert ledger.settled_above() == []
