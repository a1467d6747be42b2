"""Fresh arrivals before a long backlog."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_pages_come_in_order() -> None:
    feed = _feed(GrowingFeed(30))
    read: list[int] = []
    for _ in range(3):
        page = feed.next_page()
        assert not page.ahead
        read += [sequence for sequence in _sequences(page) if sequence not in read]
    assert read == list(range(1, 31))


@pytest.mark.parametrize("backlog", [11, 30, 1000])
def test_behind_the_end_what_arrives_now_is_read_when_the_end_is_asked_for(backlog: int) -> None:
    client = GrowingFeed(backlog)
    feed = _feed(client)
    assert _sequences(feed.next_page()) == list(range(1, 11))
    assert feed.newest(ahead=True) == MovePage((), last=backlog), "nothing has arrived since"
    client.last += 3
    fresh = feed.newest(ahead=True)
    assert (fresh.ahead, fresh.done, fresh.last) == (True, False, backlog + 3)
    assert _sequences(fresh) == [backlog + 1, backlog + 2, backlog + 3]
    client.last += 1
    assert _sequences(feed.newest(ahead=True)) == [backlog + 4], "each of them once"
    in_order = list(range(11, min(21, client.last + 1)))
    assert _sequences(feed.next_page())[-len(in_order) :] == in_order, "pages go on in order"


def test_what_reading_in_order_has_passed_is_not_read_once_more() -> None:
    """Planted, seen to fail: rows that were read are read again, and count to the bound."""
    client = GrowingFeed(30)
    feed = _feed(client)
    feed.next_page()
    feed.newest(ahead=True)  # new arrivals are those above 30
    client.last = 1000
    read = 10
    while read < 60:
        read = max(read, *_sequences(feed.next_page()))
    client.last = 1003
    page = feed.newest(ahead=True)
    assert _sequences(page)[0] == read + 1


def test_what_arrives_now_is_left_where_it_is_not_wanted() -> None:
    client = GrowingFeed(100)
    feed = _feed(client)
    feed.next_page()
    client.last = 103
    assert feed.newest(ahead=False) == MovePage((), last=103)
    assert _sequences(feed.newest(ahead=True)) == [101, 102, 103], "nothing is lost by it"


def test_at_the_end_of_the_feed_there_is_nothing_before_what_arrives() -> None:
    client = GrowingFeed(5)
    feed = _feed(client)
    assert feed.next_page().done
    client.last = 7
    assert feed.newest(ahead=True) == MovePage((), last=7)
    assert _sequences(feed.next_page())[-2:] == [6, 7]


def test_a_page_of_what_arrives_at_a_time() -> None:
    client = GrowingFeed(100)
    feed = _feed(client)
    feed.next_page()
    client.last = 125
    looks = [feed.newest(ahead=True) for _ in range(4)]
    assert [_sequences(page)[:1] for page in looks] == [[101], [111], [121], []]
    assert [page.last for page in looks] == [125] * 4


def test_what_is_read_out_of_turn_in_one_backlog_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FollowFeed, "AHEAD_MAX", 25)
    client = GrowingFeed(1000)
    feed = _feed(client)
    feed.next_page()
    ahead = 0
    for _ in range(60):
        client.last += 10
        ahead += len(feed.newest(ahead=True).moves)
    assert 25 <= ahead < 25 + 10
    while not feed.next_page().done:
        pass
    client.last += 30
    feed.next_page()  # the next backlog
    client.last += 5
    assert len(feed.newest(ahead=True).moves) == 5, "it is one backlog's bound"


def test_a_bounded_run_is_not_distracted() -> None:
    client = GrowingFeed(1000)
    feed = _feed(client, until=1000)
    feed.next_page()
    client.last = 1100
    assert feed.newest(ahead=True) == MovePage((), last=1100)


def test_every_change_is_admitted_exactly_once_and_the_checkpoint_waits(tmp_path: Path) -> None:
    client = GrowingFeed(200)
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        ledger.restart_at(0)
        journal = FollowJournal(ledger, overlap=5)
        feed = FollowFeed(client, position=0, page_size=PAGE_SIZE, overlap=5, memory=journal.memory)
        admitted: list[int] = []
        for turn in range(60):
            client.last += turn < 20
            for page in (feed.next_page(), feed.newest(ahead=True)):
                for move in journal.admit(page).moves if page.moves else ():
                    admitted.append(move.sequence or 0)
                    journal.settle(move, None)
            journal.flush()
            checkpoint = ledger.checkpoint() or 0
            assert set(range(1, checkpoint + 1)) <= set(admitted)
        assert sorted(admitted) == list(range(1, 221))
        assert admitted.index(205) < admitted.index(150)
        assert ledger.checkpoint() == 220
        assert ledger.settled_above() == []
