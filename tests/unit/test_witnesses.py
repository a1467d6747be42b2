"""Rows that were deleted before anybody had read them are noticed; other gaps are no alarm."""

from __future__ import annotations

import pytest

from bridge.core.errors import FeedWentBackwards
from bridge.feed import FollowFeed
from tests.dicom_samples import small_series
from tests.fake_store import FakeStore
from tests.feed_client import StoreClient


class Source:
    """A source with real instances in it, and a follower that has read their rows."""

    def __init__(self, instances: int = 4, *, extended: bool = False) -> None:
        self.store = FakeStore()
        self.files = small_series(40)
        self.extended = extended
        self.send(instances)
        self.feed = self.follower(0)
        while not self.feed.next_page().done:
            pass
        self.position = self.store.counter

    def send(self, count: int) -> None:
        for _ in range(count):
            self.store.put(self.files.pop())

    def empty_feed(self) -> None:
        """DELETE /changes: the counter goes on, the instances stay."""
        self.store.clear_changes()

    def delete_everything(self) -> None:
        for instance_id in list(self.store.instances):
            self.store.delete(instance_id)

    def follower(
        self,
        position: int,
        recent: dict[int, str] | None = None,
        *,
        look_back_every_s: float = 0.0,
    ) -> FollowFeed:
        return FollowFeed(
            StoreClient(self.store, extended=self.extended),
            position=position,
            page_size=100,
            overlap=50,
            recent=recent,
            look_back_every_s=look_back_every_s,
        )

    def rows(self) -> dict[int, str]:
        return {r.seq: r.resource_id for r in self.store.rows if r.change_type == "NewInstance"}


@pytest.fixture(params=[False, True], ids=["1.10", "1.12"])
def source(request: pytest.FixtureRequest) -> Source:
    return Source(extended=request.param)


def test_unread_rows_that_were_deleted_are_noticed(source: Source) -> None:
    source.send(3)
    source.empty_feed()
    with pytest.raises(FeedWentBackwards, match=f"changes {source.position + 1} to ") as caught:
        source.feed.next_page()
    assert "BRIDGE_ON_FEED_RESET=snapshot" in caught.value.advice


def test_they_are_noticed_although_new_ones_came_since(source: Source) -> None:
    source.send(3)
    source.empty_feed()
    source.send(2)
    with pytest.raises(FeedWentBackwards, match="were deleted before they were read"):
        source.feed.next_page()


def test_a_restart_knows_it_by_the_rows_of_the_ledger(source: Source) -> None:
    recent = source.rows()
    source.send(3)
    source.empty_feed()
    feed = source.follower(source.position, recent)
    with pytest.raises(FeedWentBackwards, match="was emptied"):
        feed.next_page()


def test_a_restart_with_work_unfinished_knows_it_by_what_was_finished_beyond(
    source: Source,
) -> None:
    """The checkpoint is at 0: only rows above it are remembered."""
    recent = source.rows()
    source.send(3)
    source.empty_feed()
    feed = source.follower(0, recent)
    with pytest.raises(FeedWentBackwards, match="changes 1 to "):
        feed.next_page()


def test_a_row_that_was_read_out_of_turn_since_hides_nothing_from_a_restart(
    source: Source,
) -> None:
    """Far behind, the newest rows are read first: the alarm was raised after that, and once."""
    recent = source.rows()
    source.send(3)
    source.empty_feed()
    source.send(2)
    newest = max(source.rows())
    feed = source.follower(source.position, recent | {newest: source.rows()[newest]})
    with pytest.raises(FeedWentBackwards, match=f"changes {source.position + 1} to "):
        feed.next_page()


def test_rows_that_come_and_go_between_two_cheap_looks_are_noticed(source: Source) -> None:
    feed = source.follower(source.position, source.rows(), look_back_every_s=3600.0)
    assert feed.next_page().done
    source.send(3)
    source.empty_feed()
    with pytest.raises(FeedWentBackwards, match=f"changes {source.position + 1} to "):
        feed.next_page()


def test_an_emptied_feed_of_which_all_was_read_is_no_loss(source: Source) -> None:
    source.empty_feed()
    assert source.feed.next_page().done
    source.send(2)
    assert len(source.feed.next_page().moves) == 2


def test_rows_that_went_with_their_instances_are_no_loss(source: Source) -> None:
    source.send(3)
    source.delete_everything()
    assert source.feed.next_page().done
    source.send(2)
    assert len(source.feed.next_page().moves) == 2


def test_instances_that_were_all_sent_anew_are_no_loss() -> None:
    source = Source(instances=1)
    (sent,) = [stored.data for stored in source.store.instances.values()]
    source.delete_everything()
    source.send(1)
    source.store.put(sent)
    assert len(source.feed.next_page().moves) == 2
