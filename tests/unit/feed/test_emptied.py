"""Rows that were deleted before anybody had read them are noticed; other gaps are no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards
from bridge.feed.follow import FollowFeed
from bridge.feed.identity import FeedIdentity, FeedMemory
from bridge.ledger.store import Ledger
from bridge.pipeline.journal import FollowJournal
from tests.dicom_samples import small_series
from tests.fake_store import FakeStore, FeedRow
from tests.feed_client import JudgedFeed, StoreClient


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
        journal: FollowJournal | None = None,
    ) -> FollowFeed:
        client = StoreClient(self.store, extended=self.extended)
        if journal is None:
            return JudgedFeed(
                client,
                position=position,
                page_size=100,
                overlap=50,
                recent=recent,
                look_back_every_s=look_back_every_s,
            )
        return FollowFeed(
            client,
            position=position,
            page_size=100,
            overlap=50,
            memory=journal.memory,
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
    with pytest.raises(FeedWentBackwards, match="were deleted before the bridge read them"):
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


OTHERS = 80
"""Rows of other types: more than these followers read again, and than the overlap's double if
there are three times as many."""


@pytest.mark.parametrize("restart", [False, True])
def test_an_emptied_feed_is_noticed_far_behind_the_last_instance(
    source: Source, restart: bool, tmp_path: Path
) -> None:
    """A script that sets a metadata of each instance, say."""
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.restart_at(0)
        journal = FollowJournal(ledger, overlap=50)
        feed = source.follower(0, look_back_every_s=3600.0, journal=journal)
        page = feed.next_page()
        for move in journal.admit(page).moves:
            journal.settle(move, None)
        journal.flush()
        for _ in range(3 * OTHERS):
            source.store.add_change("UpdatedMetadata", "x")
        for _ in range(3):
            journal.admit(feed.next_page())
        journal.flush()
        position = journal.checkpoint
        assert position == source.store.counter
        if restart:
            feed = source.follower(position, ledger.recent(), look_back_every_s=3600.0)
        assert feed.next_page().done, "nothing is wrong yet"
        source.send(3)
        source.empty_feed()
        with pytest.raises(FeedWentBackwards, match=f"changes {position + 1} to "):
            feed.next_page()


def test_a_deletion_far_behind_beside_a_gap_is_no_alarm(source: Source) -> None:
    rows = source.rows()
    for _ in range(OTHERS):
        source.store.add_change("UpdatedMetadata", "x")
    feed = source.follower(source.store.counter, rows)
    assert feed.next_page().done
    source.store.delete(rows[max(rows)])
    source.send(1)
    for instance_id in set(source.rows().values()) - set(rows.values()):
        source.store.delete(instance_id)  # sent and deleted between two looks
    source.store.add_change("UpdatedMetadata", "x")
    assert feed.next_page().done


def test_another_source_is_noticed_far_behind_the_last_instance(source: Source) -> None:
    for _ in range(OTHERS):
        source.store.add_change("UpdatedMetadata", "x")
    position = source.store.counter
    feed = source.follower(position, source.rows())
    assert feed.next_page().done
    other = [FeedRow(s, "NewInstance", f"other{s}", "") for s in range(1, position - 70)]
    source.store.script_feed([*other, FeedRow(position + 9, "UpdatedMetadata", "x", "")])
    with pytest.raises(FeedWentBackwards, match="not the one that was followed"):
        feed.next_page()


@pytest.mark.parametrize(
    ("older", "noticed"),
    [("held", True), ("deleted", False), ("sent anew", False), ("there", False)],
)
@pytest.mark.parametrize("can_be_late", [False, True])
def test_where_the_last_instances_were_deleted_those_before_tell_of_an_emptied_feed(
    older: str, noticed: bool, can_be_late: bool
) -> None:
    source = Source()
    store, last = source.store, source.files.pop()
    store.put(last)
    rows = source.rows()
    identity = FeedIdentity(StoreClient(store, extended=True), FeedMemory(rows, overlap=50))
    read_to, newest = store.counter, max(rows)
    store.delete(rows[newest])
    source.send(1)  # unread
    if older != "there":
        source.empty_feed()
    if older == "deleted":
        source.delete_everything()
    if older == "sent anew":
        for instance_id, stored in list(store.instances.items()):
            store.delete(instance_id)
            store.put(stored.data)

    def look() -> bool:
        return identity.was_emptied(
            (), since=newest - 1, covered=None, read_to=read_to, can_be_late=can_be_late
        )

    if noticed and not can_be_late:
        with pytest.raises(FeedWentBackwards, match="emptied"):
            look()
    else:
        assert look() is noticed


def test_a_row_that_comes_in_the_middle_of_a_look_is_not_taken_for_read(source: Source) -> None:
    client = StoreClient(source.store, extended=source.extended)
    recent, position = source.rows(), source.position
    source.store.rows = [row for row in source.store.rows if row.seq < position]
    feed = JudgedFeed(client, position=position, page_size=100, overlap=50, recent=recent)
    sent = False

    def arrive() -> None:
        nonlocal sent
        if len(client.asked) == 1 and not sent:  # after the page, which stops short
            sent = True
            source.send(1)

    client.before_answer = arrive
    assert feed.next_page().moves[-1].sequence != position + 1
    source.empty_feed()
    with pytest.raises(FeedWentBackwards, match=f"changes {position + 1} to "):
        feed.next_page()
