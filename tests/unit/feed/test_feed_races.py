"""What happens at the source while it is looked at: nothing is lost, and nothing is invented.

The late rows here become visible in time, which is before the feed is an overlap beyond them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import SideError, side_error
from bridge.model import Page, SideName, SideProblem
from tests.fake_store import FakeStore, FeedRow, StoredInstance
from tests.feed_client import NEW, feed_of
from tests.unit.feed.test_feed_short_looks import OVERLAP, Follower, add


def add_others(store: FakeStore, *sequences: int) -> None:
    """Rows that name no instance."""
    rows = [*store.rows, *(FeedRow(s, "StableSeries", "x") for s in sequences)]
    store.script_feed(sorted(rows, key=lambda row: row.seq))


def before_last_change(
    follower: Follower, happens: Callable[[], None], *, only_after_a_page: bool
) -> None:
    """Let something happen, once, before the newest row is told."""
    answer = follower.client.last_change
    waits = True

    def told() -> Page:
        nonlocal waits
        if waits and (follower.client.asked or not only_after_a_page):
            waits = False
            happens()
        return answer()

    follower.client.last_change = told  # type: ignore[method-assign]


def rest_of(follower: Follower) -> list[int]:
    """What the looks of the next minutes bring."""
    seen: list[int] = []
    for _ in range(40):
        follower.now_s += 6
        seen += follower.look()
    return seen


def test_a_burst_before_the_end_of_the_feed_is_asked_for(tmp_path: Path) -> None:
    late, page, newest = 1870, 1930, 1950
    store = feed_of(*(s for s in range(1, newest + 1) if s != late))
    follower = Follower(store, tmp_path / "s", page_size=page)
    before_last_change(
        follower, lambda: add(store, late, *range(newest + 1, 2301)), only_after_a_page=True
    )
    seen = follower.look()
    assert seen[-1] == page + 1, (
        "the feed does not end with the page, and the late row is not there"
    )
    assert late not in seen
    assert sorted([*seen, *rest_of(follower)]) == [*range(1, 2301)]


@pytest.mark.parametrize("only_after_a_page", [False, True])
def test_rows_of_other_types_that_carry_the_position_on(
    tmp_path: Path, *, only_after_a_page: bool
) -> None:
    late = 150
    store = feed_of(*(s for s in range(1, 201) if s != late))
    add_others(store, 201)
    follower = Follower(store, tmp_path / "s", extended=True)
    seen = follower.look()

    def happens() -> None:
        add(store, late)
        add_others(store, *range(202, 402))

    follower.client.asked.clear()
    follower.now_s += 6
    before_last_change(follower, happens, only_after_a_page=only_after_a_page)
    seen += follower.look()
    seen += rest_of(follower)
    assert late in seen
    assert follower.journal.checkpoint == 401


def test_a_look_back_that_failed_is_none(tmp_path: Path) -> None:
    late = 200 - OVERLAP + 1
    store = feed_of(*(s for s in range(1, 201) if s != late))
    follower = Follower(store, tmp_path / "s", extended=True)
    seen = follower.look() + follower.look()
    add(store, late, *range(201, 221))
    seen += follower.look()
    assert seen[-20:] == [*range(201, 221)], "a few are passed on at once"
    add_others(store, 221)

    def fails() -> None:
        raise side_error(SideName.SOURCE, SideProblem.UNREACHABLE, "simulated")

    before_last_change(follower, fails, only_after_a_page=False)
    with pytest.raises(SideError):
        follower.look()
    add(store, *range(222, 241))
    seen += rest_of(follower)
    assert late in seen


@pytest.mark.parametrize("restart", [False, True])
def test_rows_of_other_types_between_two_looks_back(tmp_path: Path, *, restart: bool) -> None:
    late = 200 - OVERLAP + 1
    store = feed_of(*(s for s in range(1, 201) if s != late))
    follower = Follower(store, tmp_path / "s", extended=True)
    follower.look()
    seen: list[int] = []
    for begin in range(201, 401, 10):
        add_others(store, *range(begin, begin + 10))
        if begin == 201:
            add(store, late)
        seen += follower.look()
        if restart:
            follower.ledger.close()
            follower = Follower(store, tmp_path / "s", extended=True)
    seen += rest_of(follower)
    assert seen == [late]
    assert follower.journal.checkpoint == 400
    assert NEW not in {row.change_type for row in store.rows if row.seq > 200}


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("first", "last"), [(975, 1100), (400, 1100), (1, 3000)])
def test_a_study_sent_anew_while_a_page_ended_in_it_is_no_emptied_feed(
    tmp_path: Path, *, extended: bool, restart: bool, first: int, last: int
) -> None:
    newest = 5000
    store = feed_of(*range(1, newest + 1))
    nothing = StoredInstance(b"", ("", "", ""), {})
    store.instances = {f"i{s}": nothing for s in range(1, newest + 1)}
    follower = Follower(store, tmp_path / "s", extended=extended, overlap=500, page_size=1000)
    seen = follower.look()
    assert max(seen) < last
    anew = range(first, last + 1)
    rows = [row for row in store.rows if row.seq not in anew]
    rows += [FeedRow(newest + k, NEW, f"i{s}") for k, s in enumerate(anew, start=1)]
    store.script_feed(rows)
    if restart:
        follower.ledger.close()
        follower = Follower(store, tmp_path / "s", extended=extended, overlap=500, page_size=1000)
    for _ in range(12):
        seen += follower.look()
    assert {row.seq for row in rows} <= set(seen)
