"""Listings: nothing is passed over while instances are deleted and added between the pages."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import FeedWentBackwards, SourceError, TargetError
from bridge.feed.identity import KnownPlace, Place
from bridge.feed.listing import (
    BACK_MAX,
    BEGINNINGS_MAX,
    LISTING_OVERLAP,
    ConfirmedListing,
    Lacking,
    Listing,
)
from bridge.feed.pages import MovePage
from bridge.feed.sources import FeedEnd, GivenMoves, MoveSource, ReplayRange
from bridge.model import Move, Page, ServerInfo, SideProblem
from tests.fake_store import FeedRow
from tests.feed_client import NEW, StoreClient, feed_of


def identifier(number: int) -> str:
    """Return an ID in no order, as Orthanc's are."""
    return hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()


class Held:
    """A server that lists in the order of arrival; its instances come and go between the pages."""

    def __init__(self, count: int) -> None:
        self.instances = [identifier(number) for number in range(count)]
        self.between: list[int] = []
        """How many of the first instances to delete before each answer."""

    def list_instances(self, since: int, limit: int) -> list[str]:
        if self.between:
            del self.instances[: self.between.pop(0)]
        return self.instances[since : since + limit]


def everything(moves: MoveSource, *, pages_max: int = 10_000) -> list[str]:
    found: list[str] = []
    for _ in range(pages_max):
        page = moves.next_page()
        found += [move.instance_id for move in page.moves]
        if page.ended:
            return found
    raise AssertionError("it never ends")


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 299, 300, 301, 1000])
def test_everything_is_listed_once(count: int) -> None:
    held = Held(count)
    assert everything(Listing(held, page_size=1)) == held.instances


@pytest.mark.parametrize("deleted", [1, LISTING_OVERLAP - 1, LISTING_OVERLAP, 150, 5000])
def test_deletions_of_any_size_pass_nothing_over(deleted: int) -> None:
    held = Held(2000)
    held.between = [0, 0, deleted]
    found = set(everything(Listing(held, page_size=250)))
    assert found >= set(held.instances)


@given(
    count=st.integers(0, 1500),
    deletions=st.lists(st.integers(0, 400), max_size=8),
    page_size=st.integers(1, 400),
    seed=st.integers(0, 1000),
)
def test_whatever_stays_is_listed(
    count: int, deletions: list[int], page_size: int, seed: int
) -> None:
    chance = random.Random(seed)

    class Shrinking(Held):
        def list_instances(self, since: int, limit: int) -> list[str]:
            if deletions:
                for _ in range(min(deletions.pop(), len(self.instances))):
                    self.instances.pop(chance.randrange(len(self.instances)))
                self.instances.append(f"new-{len(deletions)}")
            return self.instances[since : since + limit]

    held = Shrinking(count)
    found = set(everything(Listing(held, page_size=page_size)))
    stayed = {name for name in held.instances if not name.startswith("new")}
    assert found >= stayed


@pytest.mark.parametrize(
    ("total", "page_size", "begin"),
    [(700, 1, 50), (1200, 500, 350), (2000, 1000, 850), (2000, 1000, 1040), (52_000, 1000, 50_850)],
)
def test_a_study_sent_anew_between_two_pages_hides_nothing(
    total: int, page_size: int, begin: int
) -> None:
    """It goes to the end of the list, in order, the end of the page before with it."""
    held = Held(total)
    untouched = held.instances[:begin] + held.instances[begin + 300 :]
    asked = 0
    answer = held.list_instances

    def list_instances(since: int, limit: int) -> list[str]:
        nonlocal asked
        asked += 1
        if asked == (2 if total < 3000 else 51):
            again = held.instances[begin : begin + 300]
            held.instances[begin : begin + 300] = []
            held.instances += again
        return answer(since, limit)

    held.list_instances = list_instances  # type: ignore[method-assign]
    found = everything(Listing(held, page_size=page_size))
    assert set(untouched) <= set(found)


def test_a_series_deleted_at_the_end_of_a_page_costs_pages_of_bounded_size() -> None:
    held = Held(30_000)
    sizes: list[int] = []
    answer = held.list_instances

    def list_instances(since: int, limit: int) -> list[str]:
        if len(sizes) == 20:
            del held.instances[since : since + LISTING_OVERLAP]
        listed = answer(since, limit)
        sizes.append(len(listed))
        return listed

    held.list_instances = list_instances  # type: ignore[method-assign]
    found = everything(Listing(held, page_size=1000))
    assert set(held.instances) <= set(found)
    assert max(sizes) <= 1000 + BACK_MAX
    assert len(sizes) < 100


class Sorted(Held):
    """A server that lists by identifier, as Orthanc 1.12 does."""

    def __init__(self, count: int, *, arrivals: int, deletions: int) -> None:
        super().__init__(count)
        self.asked = 0
        self._arrivals, self._deletions = arrivals, deletions

    def list_instances(self, since: int, limit: int) -> list[str]:
        self.asked += 1
        first = 10**6 + self.asked * self._arrivals
        self.instances += [identifier(number) for number in range(first, first + self._arrivals)]
        self.instances.sort()
        del self.instances[: self._deletions]
        return self.instances[since : since + limit]


@pytest.mark.slow
@pytest.mark.parametrize("arrivals", [0, 1, 30, 300])
@pytest.mark.parametrize("deletions", [0, 1, 60, 300])
def test_a_list_by_identifier_is_read_to_its_end_whatever_comes_and_goes(
    arrivals: int, deletions: int
) -> None:
    held = Sorted(20_000, arrivals=arrivals, deletions=deletions)
    found = everything(Listing(held, page_size=1000))
    assert {identifier(number) for number in range(20_000)} & set(held.instances) <= set(found)
    assert held.asked < 100


def test_many_arrivals_between_two_pages_do_not_begin_a_list_by_identifier_anew() -> None:
    """They come before and among those that were listed last, which no page then ends with."""
    rows = feed_of(1, 2)

    class Busy(Sorted):
        def list_instances(self, since: int, limit: int) -> list[str]:
            if self.asked == 10:
                names = [identifier(10**6 + number) for number in range(3000)]
                self.instances += names
                rows.script_feed([FeedRow(n, NEW, i) for n, i in enumerate(names, 3)])
            return super().list_instances(since, limit)

    held = Busy(20_000, arrivals=0, deletions=0)
    before = set(held.instances)
    assert set(everything(Listing(held, page_size=1000, feed=StoreClient(rows)))) >= before
    assert held.asked <= 24  # 23,000 in pages of 1,000


@pytest.mark.parametrize("deletions", [60, 300])
def test_deletions_all_the_while_do_not_begin_it_anew_for_ever(deletions: int) -> None:
    held = Held(30_000)
    held.between = [deletions, 0, 0, 0, 0] * 100
    found = everything(Listing(held, page_size=1000))
    assert set(held.instances) <= set(found)


@pytest.mark.parametrize("by_id", [False, True], ids=["by arrival", "by identifier"])
@pytest.mark.parametrize("arrivals", [1, 30, 60])
def test_it_ends_while_instances_never_cease_to_arrive(by_id: bool, arrivals: int) -> None:
    class Busy(Held):
        def list_instances(self, since: int, limit: int) -> list[str]:
            at = len(self.instances)
            self.instances += [identifier(10**6 + number) for number in range(at, at + arrivals)]
            if by_id:
                self.instances.sort()
            return super().list_instances(since, limit)

    held = Busy(1000)
    before = set(held.instances)
    known = KnownPlace(StoreClient(feed_of(1, 2)), Place(0), overlap=10)
    lacking = Lacking(ConfirmedListing(Listing(held, page_size=200), known), Target())
    assert set(everything(lacking, pages_max=100)) >= before


@pytest.mark.parametrize("hidden", [2, 3, 50, 1000])
def test_a_list_with_hidden_instances_is_told_and_not_believed(hidden: int) -> None:
    """A plugin takes instances out of each page, so that none is full: none is the last either."""

    class Filtered(Held):
        def list_instances(self, since: int, limit: int) -> list[str]:
            places = range(since, min(since + limit, len(self.instances)))
            return [self.instances[place] for place in places if place % hidden]

    with pytest.raises(SourceError, match="do not fit together"):
        everything(Listing(Filtered(5000), page_size=1000))


@pytest.mark.parametrize("most", [1, 100])
def test_a_server_that_caps_its_pages_is_told_and_not_believed(most: int) -> None:
    class Capped(Held):
        def list_instances(self, since: int, limit: int) -> list[str]:
            return super().list_instances(since, min(limit, most))

    with pytest.raises(SourceError, match="do not fit together"):
        everything(Listing(Capped(5000), page_size=1000))


def _other_order(held: list[str]) -> list[str]:
    """Send the last study of the first page anew, its second series first."""
    first, second = held[950:980], held[980:1100]
    return [*held[:950], *held[1100:], *second, *first]


def _and_deletions(held: list[str]) -> list[str]:
    return [*held[30:950], *held[1100:], *held[950:1100]]


@pytest.mark.parametrize("anew", [_other_order, _and_deletions])
def test_what_follows_a_study_that_is_sent_anew_is_not_passed_over(
    anew: Callable[[list[str]], list[str]],
) -> None:
    """What ended the first page is then at the end of the list, behind what was not listed yet."""

    class SentAnew(Held):
        asked = 0

        def list_instances(self, since: int, limit: int) -> list[str]:
            self.asked += 1
            if self.asked == 2:
                study = self.instances[950:1100]
                self.instances = anew(self.instances)
                rows.script_feed([FeedRow(n, NEW, i) for n, i in enumerate(study, 3)])
            return super().list_instances(since, limit)

    held = SentAnew(1120)
    rows = feed_of(1, 2)
    untouched = held.instances[1100:]
    found = everything(Listing(held, page_size=1000, feed=StoreClient(rows)))
    assert set(found) >= set(untouched)


@pytest.mark.parametrize("with_feed", [True, False], ids=["with a feed", "without a feed"])
@pytest.mark.parametrize("last", ["new", "sent anew"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_archive_that_was_filled_by_identifier_is_not_taken_for_a_list_by_identifier(
    *, last: str, count: int, with_feed: bool
) -> None:
    """It is listed in the order of arrival, and so many are deleted that a page has the last only.

    These ascend by chance, and are below the end of the page before: what was not listed yet is
    above them, and before them in the list.
    """
    archive = sorted(identifier(number) for number in range(2000))
    arrivals = archive[1097 : 1097 + count] if last == "sent anew" else ["0", "00", "000"][:count]
    rows = feed_of(1, 2)

    class Filled(Held):
        asked = 0

        def list_instances(self, since: int, limit: int) -> list[str]:
            self.asked += 1
            if self.asked == 2:
                kept = [i for i in self.instances if i not in arrivals]
                rest = 1000  # as many as are before the second page
                self.instances = [*kept[len(kept) - rest :], *arrivals]
                rows.script_feed([FeedRow(n, NEW, i) for n, i in enumerate(arrivals, 3)])
            return super().list_instances(since, limit)

    held = Filled(0)
    held.instances = archive
    feed = StoreClient(rows) if with_feed else None
    found = everything(Listing(held, page_size=1000, feed=feed))
    assert set(found) >= set(held.instances)


class Changing(Held):
    """A server of which instances are deleted, sent and sent anew before each answer."""

    def __init__(self, names: list[str], chance: random.Random, *, by_id: bool) -> None:
        super().__init__(0)
        self.instances = names
        self.rows = feed_of(1, 2)
        self.with_rows: set[str] = set()
        """What came or came again since: whoever follows the feed learns of it."""
        self._chance, self._by_id = chance, by_id
        self._changes = 60

    def list_instances(self, since: int, limit: int) -> list[str]:
        for _ in range(self._chance.choice([0, 0, 0, 1, 3, 12])):
            if self._changes:
                self._changes -= 1
                self._change()
        listed = sorted(self.instances) if self._by_id else self.instances
        return listed[since : since + limit]

    def _change(self) -> None:
        what = self._chance.choice(["delete", "delete", "delete", "send", "send anew"])
        name = identifier(self._chance.randrange(10**6))
        if what != "send" and self.instances:
            name = self._chance.choice(self.instances)
            self.instances.remove(name)
        if what != "delete":
            self.instances.append(name)
            self.with_rows.add(name)
            self.rows.add_change(NEW, name)


@pytest.mark.parametrize("by_id", [False, True], ids=["by arrival", "by identifier"])
@pytest.mark.parametrize("filled", ["as it came", "by identifier"])
@pytest.mark.parametrize("overlap", [1, 2, 5])
def test_what_the_feed_does_not_tell_of_is_listed_in_either_order(
    overlap: int, filled: str, monkeypatch: pytest.MonkeyPatch, *, by_id: bool
) -> None:
    """In small pages, so that single changes between two of them matter."""
    monkeypatch.setattr("bridge.feed.listing.LISTING_OVERLAP", overlap)
    monkeypatch.setattr("bridge.feed.listing.BACK_MAX", 16 * overlap)
    for seed in range(300):
        chance = random.Random(seed)
        names = [identifier(1000 * seed + number) for number in range(chance.randrange(60))]
        held = Changing(sorted(names) if filled == "by identifier" else names, chance, by_id=by_id)
        found = everything(Listing(held, page_size=1, feed=StoreClient(held.rows)))
        untold = set(held.instances) - held.with_rows
        assert untold <= set(found), f"seed {seed}"


@pytest.mark.parametrize("by_id", [False, True], ids=["by arrival", "by identifier"])
@pytest.mark.parametrize("pace", [0.5, 0.9])
def test_it_ends_where_instances_arrive_more_slowly_than_they_are_moved(
    by_id: bool, pace: float
) -> None:
    rows = feed_of(*range(1, 1001))
    held = Held(3000)
    before = set(held.instances)
    client = StoreClient(rows)
    listing = Listing(held, page_size=300, feed=client)
    known = KnownPlace(client, Place(0), overlap=10)
    lacking = Lacking(ConfirmedListing(listing, known), Target())
    found: set[str] = set()
    for _ in range(600):
        page = lacking.next_page()
        found |= {move.instance_id for move in page.moves}
        if page.ended:
            break
        for _ in range(int(pace * len(page.moves))):
            name = identifier(len(held.instances))
            held.instances.append(name)
            rows.add_change(NEW, name)
        if by_id:
            held.instances.sort()
    assert page.ended
    assert found >= before


@pytest.mark.parametrize("by_id", [False, True], ids=["by arrival", "by identifier"])
@pytest.mark.parametrize("seed", range(5))
def test_what_fails_is_asked_again_and_nothing_is_passed_over(by_id: bool, seed: int) -> None:
    chance = random.Random(seed)

    def may_fail() -> None:
        if chance.random() < 0.2:
            raise SourceError(SideProblem.UNREACHABLE, "down")

    class Flaky(Held):
        def list_instances(self, since: int, limit: int) -> list[str]:
            may_fail()
            listed = sorted(self.instances) if by_id else self.instances
            return listed[since : since + limit]

    class FlakyFeed(StoreClient):
        def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
            may_fail()
            return super().changes(since, limit, only_new_instances=only_new_instances)

        def last_change(self) -> Page:
            may_fail()
            return super().last_change()

    held, rows = Flaky(1500), feed_of(*range(1, 11))
    before, found = set(held.instances), set[str]()
    listing = Listing(held, page_size=200, feed=FlakyFeed(rows))
    for _ in range(1000):
        try:
            page = listing.next_page()
        except SourceError:
            continue
        found |= {move.instance_id for move in page.moves}
        if page.ended:
            break
        held.instances.append(identifier(len(held.instances)))
        rows.add_change(NEW, held.instances[-1])
    assert page.ended
    assert found >= before


@pytest.mark.slow
def test_a_list_that_never_holds_together_is_given_up_for_now() -> None:
    class Shuffled(Held):
        def list_instances(self, since: int, limit: int) -> list[str]:
            random.Random(since).shuffle(self.instances)
            return super().list_instances(since, limit)

    listing = Listing(Shuffled(20_000), page_size=200)
    with pytest.raises(SourceError, match="do not fit together"):
        everything(listing)


def test_each_time_that_a_list_is_tried_again_it_has_all_its_beginnings() -> None:
    class Strangers:
        """A server whose pages have nothing in common. ``asked``: how often it was."""

        asked = 0

        def list_instances(self, _since: int, limit: int) -> list[str]:
            self.asked += 1
            return [identifier(1000 * self.asked + number) for number in range(limit)]

    server = Strangers()
    listing = Listing(server, page_size=200)
    asked = []
    for _ in range(3):
        before = server.asked
        with pytest.raises(SourceError, match="do not fit together"):
            everything(listing)
        asked.append(server.asked - before)
    assert asked == [2 * (BEGINNINGS_MAX + 1)] * 3


def test_the_end_of_the_feed_is_the_servers_counter() -> None:
    end = FeedEnd(StoreClient(feed_of(1, 2, counter=2)), overlap=5)
    assert end.next_page() == MovePage((), done=True, ended=True, last=2)
    cleared = FeedEnd(StoreClient(feed_of(counter=17)), overlap=5)
    cleared.next_page()
    assert cleared.place == Place(17)


def test_the_rows_before_the_end_are_noted_to_know_the_feed_again_by() -> None:
    end = FeedEnd(StoreClient(feed_of(*range(1, 21))), overlap=3)
    end.next_page()
    assert end.place is not None
    assert end.place.recent == ((18, "i18"), (19, "i19"), (20, "i20"))
    middle = FeedEnd(StoreClient(feed_of(*range(1, 21))), overlap=3, wanted=10)
    middle.next_page()
    assert middle.place is not None
    assert middle.place.recent == ((8, "i8"), (9, "i9"), (10, "i10"))
    assert middle.last == 20


def test_a_place_after_deleted_rows_is_not_beyond_the_end() -> None:
    end = FeedEnd(StoreClient(feed_of(1, 2, counter=17)), overlap=3, wanted=16)
    end.next_page()
    assert end.last == 17


class Target:
    """What is known of what the target holds."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.failures = 0

    def among(self, instance_ids: Sequence[str]) -> set[str]:
        if self.failures:
            self.failures -= 1
            raise TargetError(SideProblem.UNREACHABLE, "down")
        return self.held & set(instance_ids)


def test_only_what_the_target_lacks_is_moved() -> None:
    given_moves = GivenMoves([Move(name) for name in "abcd"], page_size=2)
    assert everything(Lacking(given_moves, Target("b", "c"))) == ["a", "d"]


def test_what_is_left_out_is_told() -> None:
    told: list[tuple[int, int]] = []
    given_moves = GivenMoves([Move(name) for name in "abcd"], page_size=3)
    everything(Lacking(given_moves, Target("b", "c", "d"), lambda *page: told.append(page)))
    assert told == [(3, 1), (1, 0)]


def test_a_failure_of_the_target_loses_no_page() -> None:
    target = Target("b")
    lacking = Lacking(GivenMoves([Move(name) for name in "abc"], page_size=10), target)
    for _ in range(3):
        target.failures = 1
        with pytest.raises(TargetError):
            lacking.next_page()
    assert everything(lacking) == ["a", "c"]


class ArchiveOnADisk:
    """A source whose disk is not there at some requests: an empty Orthanc answers those."""

    def __init__(self) -> None:
        self.there = StoreClient(feed_of(*range(1, 11)))
        self.away_at: set[int] = set()
        self.asked = 0

    def system(self) -> ServerInfo:
        return self.there.system()

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        if self._away():
            return Page((), True, 0)
        return self.there.changes(since, limit, only_new_instances=only_new_instances)

    def last_change(self) -> Page:
        return Page((), True, 0) if self._away() else self.there.last_change()

    def list_instances(self, since: int, limit: int) -> list[str]:
        if self._away():
            return []
        return [f"i{number}" for number in range(1, 11)][since : since + limit]

    def _away(self) -> bool:
        self.asked += 1
        return self.asked in self.away_at


@pytest.mark.parametrize("length", [1, 2, 3, 20])
@pytest.mark.parametrize("begin", range(1, 8))
def test_a_source_that_is_empty_for_a_while_does_not_end_a_snapshot(
    begin: int, length: int
) -> None:
    source = ArchiveOnADisk()
    end = FeedEnd(source, overlap=5)
    end.next_page()
    assert end.place is not None
    source.asked, source.away_at = 0, set(range(begin, begin + length))
    known = KnownPlace(source, end.place, overlap=5)
    lacking = Lacking(ConfirmedListing(Listing(source, page_size=1), known), Target())
    try:
        found = everything(lacking)
    except FeedWentBackwards:
        return  # it is noticed, and the snapshot is begun again
    assert list(dict.fromkeys(found)) == [f"i{number}" for number in range(1, 11)]


def test_what_a_snapshot_misses_is_not_believed_of_another_source() -> None:
    source = ArchiveOnADisk()
    end = FeedEnd(source, overlap=5)
    end.next_page()
    assert end.place is not None
    known = KnownPlace(source, end.place, overlap=5)
    lacking = Lacking(ConfirmedListing(Listing(source, page_size=1), known), Target())
    assert lacking.look_back().moves == ()
    source.there.store.script_feed([FeedRow(s, NEW, f"other{s}") for s in range(1, 40)])
    with pytest.raises(FeedWentBackwards, match="not the one that was followed"):
        lacking.look_back()


def test_a_place_is_known_again_behind_many_rows_of_other_types() -> None:
    others = [FeedRow(s, "StableStudy", "x") for s in range(21, 700)]
    store, other = feed_of(*range(1, 21)), feed_of()
    store.script_feed([*store.rows, *others])
    other.script_feed([*(FeedRow(s, NEW, f"other{s}") for s in range(1, 21)), *others], counter=999)
    client = StoreClient(store)
    end = FeedEnd(client, overlap=50)
    end.next_page()
    place = end.place
    assert place is not None
    assert (20, "i20") in place.recent
    known = KnownPlace(client, place, overlap=50)
    known.look()
    client.store = other
    with pytest.raises(FeedWentBackwards, match="not the one that was followed"):
        known.look()


def test_a_range_ends_below_its_end_only_when_it_does_so_twice() -> None:
    store, blank = feed_of(*range(1, 11)), feed_of(counter=10)
    client = StoreClient(blank)
    moves = ReplayRange(client, start=1, end=10, page_size=100)
    assert not moves.next_page().ended
    client.store = store
    assert everything(moves) == [f"i{s}" for s in range(1, 11)]
    client.store = feed_of(counter=3)
    with pytest.raises(FeedWentBackwards):
        ReplayRange(client, start=1, end=10, page_size=100).next_page()
