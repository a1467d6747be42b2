"""A source's feed in memory, with the semantics that tests/contract holds the fake to."""

from __future__ import annotations

from collections.abc import Callable

from bridge.core.model import Change, Page, ServerInfo
from tests.fake_store import FakeStore, FeedRow

NEW = "NewInstance"


class StoreClient:
    """What the feed and listings need of a source, over a FakeStore. Remembers what was asked."""

    def __init__(self, store: FakeStore, *, extended: bool = False) -> None:
        self.store = store
        self.extended = extended
        self.asked: list[tuple[int, int, bool]] = []
        self.before_answer: Callable[[], None] = lambda: None
        """Called before each answer; may change the store or raise SideError."""

    def system(self) -> ServerInfo:
        self.before_answer()
        return ServerInfo("1.0", 1, has_extended_changes=self.extended)

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        self.before_answer()
        self.asked.append((since, limit, only_new_instances))
        types = frozenset({NEW}) if only_new_instances and self.extended else None
        rows, done, last = self.store.page(since, limit, types=types)
        return Page(tuple(map(_change, rows)), done, last)

    def last_change(self) -> Page:
        self.before_answer()
        with self.store.lock:
            rows = list(self.store.rows)[-1:]
            return Page(
                tuple(map(_change, rows)), True, rows[0].seq if rows else self.store.counter
            )

    def has_instance(self, instance_id: str) -> bool:
        self.before_answer()
        return instance_id in self.store.instances

    def list_instances(self, since: int, limit: int) -> list[str]:
        self.before_answer()
        return list(self.store.instances)[since : since + limit]


def feed_of(*sequences: int, counter: int | None = None) -> FakeStore:
    """Return a store whose feed has one new instance ``i<sequence>`` at each sequence."""
    store = FakeStore()
    store.script_feed([FeedRow(s, NEW, f"i{s}") for s in sequences], counter=counter)
    return store


def _change(row: FeedRow) -> Change:
    return Change(row.seq, row.change_type, row.resource_id, row.date)
