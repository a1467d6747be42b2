"""A source's feed in memory, with the semantics that tests/contract holds the fake to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from bridge.feed.follow import FollowedClient, FollowFeed
from bridge.feed.identity import FeedMemory
from bridge.feed.pages import MovePage
from bridge.model import Change, Page, ServerInfo
from tests.fake_store import FakeStore, FeedRow

NEW = "NewInstance"


class StoreClient:
    """What the feed and listings need of a source, over a FakeStore. Remembers what was asked."""

    def __init__(
        self, store: FakeStore, *, extended: bool = False, backend: str | None = None
    ) -> None:
        self.store = store
        self.extended = extended
        self.backend = backend
        self.asked: list[tuple[int, int, bool]] = []
        self.before_answer: Callable[[], None] = lambda: None
        """Called before each answer; may change the store or raise SideError."""

    def system(self) -> ServerInfo:
        self.before_answer()
        return ServerInfo(
            "1.0", 1, has_extended_changes=self.extended, database_backend=self.backend
        )

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        self.before_answer()
        self.asked.append((since, limit, only_new_instances))
        types = frozenset({NEW}) if only_new_instances and self.extended else None
        rows, done, last = self.store.page(since, limit, types=types)
        return Page(tuple(map(_change, rows)), done, last)

    def last_change(self) -> Page:
        self.before_answer()
        row, last = self.store.last()
        return Page((_change(row),) if row else (), True, last)

    def has_instance(self, instance_id: str) -> bool:
        self.before_answer()
        return instance_id in self.store.instances

    def list_instances(self, since: int, limit: int) -> list[str]:
        self.before_answer()
        return self.store.listing()[since : since + limit]


class JudgedFeed(FollowFeed):
    """A feed whose pages are judged and remembered as they come, as a journal does.

    ``recent``: rows that are known already.
    """

    def __init__(
        self,
        client: FollowedClient,
        *,
        position: int,
        page_size: int,
        overlap: int,
        recent: Mapping[int, str] | None = None,
        until: int | None = None,
        look_back_every_s: float = 0.0,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = FeedMemory(recent, overlap=overlap)
        self._judged_to = position
        super().__init__(
            client,
            position=position,
            page_size=page_size,
            overlap=overlap,
            memory=self._memory,
            until=until,
            look_back_every_s=look_back_every_s,
            steady_s=steady_s,
        )

    def next_page(self) -> MovePage:
        page = super().next_page()
        self._memory.judge(page, read_to=self._judged_to)
        if not page.ahead:
            self._judged_to = max(self._judged_to, page.frontier)
        return page


def feed_of(*sequences: int, counter: int | None = None) -> FakeStore:
    """Return a store whose feed has one new instance ``i<sequence>`` at each sequence."""
    store = FakeStore()
    store.script_feed([FeedRow(s, NEW, f"i{s}") for s in sequences], counter=counter)
    return store


def _change(row: FeedRow) -> Change:
    return Change(row.seq, row.change_type, row.resource_id, row.date)
