"""Rows that become visible late: none is lost, whatever the order, the crashes and the pauses.

The source is a database where each transaction takes its sequences when it begins and shows its
rows when it commits, or never.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge.commands.status import _gaps
from bridge.errors import FeedWentBackwards
from bridge.feed.follow import FollowFeed, _fills
from bridge.feed.gaps import Ask, GapLimits, Gaps, page_gaps_of
from bridge.feed.identity import KnownPlace, Place, check_reached
from bridge.feed.pages import MovePage, filters_on_server
from bridge.feed.sources import FeedEnd, ReplayRange
from bridge.ledger.records import Entry
from bridge.ledger.store import Ledger
from bridge.model import Change, CounterLag, Gap, Move, Page, ServerInfo
from bridge.pipeline.journal import FollowJournal, ReplayJournal
from tests.feed_client import NEW

POSTGRESQL = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"
OVERLAP = 30


@dataclass
class Database:
    """A source whose rows become visible late. A row: sequence -> (type, ID, date)."""

    rows: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    taken: int = 0
    counter: int | None = None
    backend: str | None = POSTGRESQL
    held: set[str] = field(default_factory=set)
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    other: Database | None = None
    """Answers in place of this one, while it is set."""

    def take(self, count: int = 1) -> list[int]:
        self.taken += count
        return list(range(self.taken - count + 1, self.taken + 1))

    def show(self, *sequences: int, kind: str = NEW, date: str = "") -> None:
        for sequence in sequences:
            self.rows[sequence] = (kind, f"i{sequence}", date)
            self.held.add(f"i{sequence}")

    def system(self) -> ServerInfo:
        self.requests.append(("system", 0, 0))
        return ServerInfo("1.13.0", 27, has_extended_changes=True, database_backend=self.backend)

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        if self.other is not None:
            return self.other.changes(since, limit, only_new_instances=only_new_instances)
        self.requests.append(("changes", since, limit))
        assert not (only_new_instances and self.backend), "type= hides gaps"
        found = sorted(s for s in self.rows if s > since)
        if only_new_instances:
            found = [s for s in found if self.rows[s][0] == NEW]
        page = [Change(s, *self.rows[s]) for s in found[:limit]]
        end = max(self.rows, default=0) if self.counter is None else self.counter
        return Page(tuple(page), len(found) <= limit, page[-1].sequence if page else end)

    def last_change(self) -> Page:
        if self.other is not None:
            return self.other.last_change()
        self.requests.append(("last", 0, 0))
        newest = max(self.rows, default=0)
        page = [Change(newest, *self.rows[newest])] if newest else []
        return Page(tuple(page), True, newest or self.counter or 0)

    def has_instance(self, instance_id: str) -> bool:
        return instance_id in (self.other or self).held


class Clock:
    def __init__(self) -> None:
        self.at = 1_000_000.0

    def now_s(self) -> float:
        return self.at

    def steady_s(self) -> float:
        return self.at


class Follower:
    """A bridge that follows, as far as the feed is concerned. ``moved``: what was settled."""

    def __init__(self, database: Database, path: Path, **limits: float) -> None:
        self.database = database
        self.path = path
        self.clock = Clock()
        self.limits = GapLimits(**limits)  # type: ignore[arg-type]
        self.moved: list[int] = []
        self.closed = {"filled": 0, "expired": 0, "missing": 0, "given_up": 0}
        with Ledger(path) as ledger:
            if ledger.checkpoint() is None:
                ledger.restart_at(0)
        self.start()

    def start(self) -> None:
        self.ledger = Ledger(self.path)
        self.journal = FollowJournal(
            self.ledger, overlap=OVERLAP, clock=self.clock, gap_limits=self.limits
        )
        self.feed = FollowFeed(
            self.database,
            position=self.journal.checkpoint or 0,
            page_size=50,
            overlap=OVERLAP,
            memory=self.journal.memory,
            lag=self.ledger.counter_lag(),
            look_back_every_s=5.0,
            steady_s=self.clock.steady_s,
        )

    def crash(self) -> None:
        """Only the ledger is left."""
        self.ledger.close()
        self.start()

    def look(self, *, settle: bool = True, flush: bool = True) -> list[int]:
        pages = [self.feed.next_page()]
        found: list[Move] = []
        while pages:
            admission = self.journal.admit(pages.pop())
            found += admission.moves
            for name in self.closed:
                self.closed[name] += getattr(admission.closed, name)
            question = self.journal.ask()
            if question is not None:
                pages.append(self.feed.ask_again(question))
        for move in found if settle else ():
            self.journal.settle(move, None)
            self.moved.append(move.sequence or 0)
        if flush:
            self.journal.flush()
        self.clock.at += 1.0
        return sorted(move.sequence or 0 for move in found)

    def wait(self, seconds: float) -> list[int]:
        found: list[int] = []
        end = self.clock.at + seconds
        while self.clock.at < end:
            found += self.look()
            due_s = self.journal.ask_due_s()
            self.clock.at = min(end, max(self.clock.at, due_s or end))
        return found


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def follower(database: Database, tmp_path: Path) -> Follower:
    return Follower(database, tmp_path / "state.sqlite3")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 10.0, 3600.0, 5.9 * 3600])
def test_a_row_that_is_thousands_of_sequences_late_is_moved(
    follower: Follower, database: Database, after_s: float, restart: bool
) -> None:
    late = [1, 40, 77]
    database.show(*(s for s in database.take(5000) if s not in late))
    for _ in range(150):
        follower.look()
    assert follower.journal.checkpoint == 5000
    assert follower.ledger.open_gaps().sequences == 3
    follower.wait(after_s)
    if restart:
        follower.crash()
    database.show(*late)
    follower.wait(3 * 3600.0)
    assert sorted(follower.moved) == list(range(1, 5001))
    assert len(follower.moved) == 5000, "once each"
    assert follower.closed["filled"] == 3, "and counted once"
    assert follower.ledger.gaps() == ()


def test_a_row_of_another_type_closes_its_gap(follower: Follower, database: Database) -> None:
    database.take(10)
    database.show(1, 2, 3, 5, 10)
    follower.look()
    database.show(4, 6, 7, 8, 9, kind="NewSeries")
    follower.wait(30.0)
    assert follower.moved == [1, 2, 3, 5, 10]
    assert follower.ledger.gaps() == ()
    assert follower.closed == {"filled": 5, "expired": 0, "missing": 0, "given_up": 0}


def test_a_late_row_without_an_identifier_is_refused_and_told(
    follower: Follower, database: Database
) -> None:
    database.take(5)
    database.show(1, 2, 4, 5)
    follower.look()
    database.rows[3] = (NEW, "", "")
    follower.clock.at += 60.0
    question = follower.journal.ask()
    assert question is not None
    page = follower.feed.ask_again(question)
    assert page.refused == 1
    assert follower.journal.admit(page).moves == ()


@pytest.mark.parametrize(
    ("gaps", "text"),
    [
        ({}, "none"),
        ({"open": 0, "sequences": 0, "oldest_s": None, "given_up": 0}, "none"),
        (
            {"open": 2, "sequences": 7, "oldest_s": 3.5, "given_up": 0},
            "7 sequences have no row yet, the oldest for 3.5 s "
            "(orthanc-bridge docs operations gaps)",
        ),
        (
            {"open": 0, "sequences": 0, "oldest_s": None, "given_up": 4},
            "4 DROPPED unseen: run orthanc-bridge check --fix",
        ),
    ],
)
def test_what_status_says(gaps: dict[str, object], text: str) -> None:
    assert _gaps(gaps) == text


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_order_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    """Writers that overtake each other, transactions undone, crashes at any moment."""
    chance = random.Random(seed)
    database = Database()
    follower = Follower(database, tmp_path / "state.sqlite3")
    wanted: set[int] = set()
    pending: list[tuple[float, list[int], bool]] = []
    end = follower.clock.at + 30
    while follower.clock.at < end or pending:
        if follower.clock.at < end:
            for _ in range(chance.randrange(12)):
                sequences = database.take(chance.choice([1, 1, 2, 4]))
                wait_s = chance.choice([0, 0, 0.3, 2, 20]) * chance.random()
                pending.append((follower.clock.at + wait_s, sequences, chance.random() < 0.05))
        for commit in [p for p in pending if p[0] <= follower.clock.at]:
            pending.remove(commit)
            _, sequences, undone = commit
            if undone:
                continue
            database.show(sequences[0])
            database.show(*sequences[1:], kind="NewSeries")
            wanted.add(sequences[0])
            if chance.random() < 0.3:  # the last transaction to commit need not be the newest
                database.counter = sequences[-1]
            else:
                database.counter = None
        done = follower.look(settle=chance.random() < 0.8, flush=chance.random() < 0.9)
        follower.clock.at -= 1.0 - chance.random()
        if chance.random() < 0.15 or (done and chance.random() < 0.1):
            follower.crash()
    follower.crash()
    follower.wait(120.0)
    assert set(follower.moved) == wanted
    checkpoint = follower.journal.checkpoint or 0
    on_record = {s for gap in follower.ledger.gaps() for s in range(gap.first, gap.last + 1)}
    assert on_record == set(range(1, checkpoint + 1)) - set(database.rows)


def test_undone_uploads_alarm_nobody_hold_nothing_and_cost_little(
    follower: Follower, database: Database
) -> None:
    shown = [s for s in database.take(1000) if s % 50]
    database.show(*shown)
    for _ in range(30):
        follower.look()
    database.requests.clear()
    follower.wait(7 * 3600.0)
    assert follower.journal.checkpoint == 999
    assert follower.closed == {"filled": 0, "expired": 19, "missing": 0, "given_up": 0}
    assert follower.ledger.gaps() == ()
    questions = [r for r in database.requests if r[0] == "changes" and r[2] < 600]
    looks = 2 * 40
    assert len(questions) < 19 * 32 + looks


def test_what_vanished_at_once_is_one_gap_and_counted_when_it_stayed(
    follower: Follower, database: Database
) -> None:
    database.show(*database.take(10))
    follower.look()
    database.take(100_000)
    database.show(*database.take(3))
    follower.wait(5.0)
    assert [(g.first, g.last) for g in follower.ledger.gaps()] == [(11, 100_010)]
    database.requests.clear()
    follower.wait(5 * 3600.0)
    assert len(database.requests) < 500
    assert follower.closed["missing"] == 0, "nobody knows yet"
    follower.wait(2 * 3600.0)
    assert follower.closed["missing"] == follower.closed["expired"] == 100_000
    assert follower.ledger.gaps() == ()


def test_a_stopped_bridge_asks_before_it_lets_go(follower: Follower, database: Database) -> None:
    database.take(5)
    database.show(1, 2, 4, 5)
    follower.look()
    follower.clock.at += 48 * 3600
    database.show(3)
    follower.crash()
    follower.wait(60.0)
    assert sorted(follower.moved) == [1, 2, 3, 4, 5]


def test_too_many_gaps_are_given_up_and_told(database: Database, tmp_path: Path) -> None:
    follower = Follower(database, tmp_path / "s", count=10)
    database.show(*(s for s in database.take(200) if s % 2))
    for _ in range(8):
        follower.look()
    assert follower.journal.gaps.gaps == 10
    assert follower.closed["given_up"] == 89
    assert follower.ledger.gaps_given_up() == 89
    follower.ledger.answer_given_up(80)
    assert follower.ledger.gaps_given_up() == 9


def test_those_that_are_old_go_first_and_alarm_nobody(database: Database, tmp_path: Path) -> None:
    follower = Follower(database, tmp_path / "s", count=10)
    database.show(*(s for s in database.take(20) if s % 2))
    follower.look()
    follower.wait(700.0)
    database.show(*(s for s in database.take(20) if s % 2))
    follower.wait(3.0)
    assert follower.closed["given_up"] == 0
    assert follower.closed["expired"] == 9
    assert [gap.first for gap in follower.ledger.gaps()][-1] == 38


def test_old_gaps_of_a_backlog_are_not_recorded(follower: Follower, database: Database) -> None:
    database.show(*(s for s in database.take(100) if s % 2), date="20240101T000000")
    follower.clock.at = 1_800_000_000.0
    database.show(*(s for s in database.take(50) if s % 2), date="20270115T080000")
    for _ in range(10):
        follower.look()
    assert min(gap.first for gap in follower.ledger.gaps()) == 100
    assert follower.closed["missing"] == 0


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (0, 864_000), (-864_000, 0), (864_000, 0)])
def test_a_clock_that_is_wrong_makes_nothing_old(
    follower: Follower, database: Database, ours: int, theirs: int
) -> None:
    """One server of two on the database is ten days ahead, or the bridge is, or behind."""
    follower.clock.at = 1_800_000_000.0 + ours
    late = 2
    database.show(*(s for s in database.take(40) if s != late), date="20270115T080000")
    if theirs:
        database.show(*database.take(1), date="20270125T080000")
    follower.look()
    assert late in {gap.first for gap in follower.ledger.gaps()}


@pytest.mark.parametrize("settled", [False, True])
def test_a_late_row_is_on_record_until_it_is_settled(
    follower: Follower, database: Database, settled: bool
) -> None:
    database.take(400)
    database.show(*(s for s in range(1, 401) if s != 7))
    for _ in range(20):
        follower.look()
    database.show(7)
    follower.clock.at += 60
    assert follower.look(settle=settled) == [7]
    assert [gap.first for gap in follower.ledger.gaps()] == ([] if settled else [7])
    follower.crash()
    follower.wait(60.0)
    assert follower.moved.count(7) == 1


@pytest.mark.parametrize("bug", ["released at once", "gap forgotten", "counted again"])
def test_a_planted_bug_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    open_late, gaps, begin_move = FollowJournal._open_late, Ledger.gaps, Gaps.begin_move

    def released(self: FollowJournal, move: Move) -> bool:
        opened = open_late(self, move)
        self._watched.open.end_move(move.sequence or 0)
        return opened

    def again(self: Gaps, sequence: int, *, now_s: float, now_at: float) -> bool:
        self._closed.filled += 1
        return begin_move(self, sequence, now_s=now_s, now_at=now_at)

    match bug:
        case "released at once":
            monkeypatch.setattr(FollowJournal, "_open_late", released)
        case "gap forgotten":
            monkeypatch.setattr(Ledger, "gaps", lambda self: gaps(self)[1:])
        case _:
            monkeypatch.setattr(Gaps, "begin_move", again)
    tried: tuple[tuple[Callable[..., None], tuple[object, ...]], ...] = (
        (test_a_late_row_is_on_record_until_it_is_settled, (False,)),
        (test_a_row_that_is_thousands_of_sequences_late_is_moved, (10.0, True)),
    )
    noticed = 0
    for number, (test, arguments) in enumerate(tried):
        database = Database()
        follower = Follower(database, tmp_path / str(number))
        try:
            test(follower, database, *arguments)
        except AssertionError:
            noticed += 1
    assert noticed


def test_another_server_for_a_moment_closes_no_gap(follower: Follower, database: Database) -> None:
    database.take(400)
    late = [7, 300, 395]
    database.show(*(s for s in range(1, 401) if s not in late))
    for _ in range(20):
        follower.look()
    other = Database()
    other.show(*late, kind="NewSeries")
    other.counter = 10_000
    follower.clock.at += 60
    question = follower.journal.ask()
    while question is not None:
        database.other = other
        page = follower.feed._reader.ask(question)
        database.other = None
        follower.journal.admit(page)
        question = follower.journal.ask()
    follower.journal.flush()
    assert [gap.first for gap in follower.ledger.gaps()] == late
    database.show(*late)
    follower.wait(120.0)
    assert sorted(follower.moved) == list(range(1, 401))


# The counter


def read_to_1080(follower: Follower, database: Database) -> None:
    """Have a feed of 1080 rows read to its end."""
    database.show(*database.take(1080))
    for _ in range(40):
        follower.look()


def counter_stays_at_1070(follower: Follower, database: Database) -> None:
    """Have it read, and its counter met below its end until that is remembered."""
    read_to_1080(follower, database)
    database.counter = 1070
    for _ in range(6):
        follower.look()
    assert follower.ledger.counter_lag() == CounterLag(1070, 1080)


@pytest.mark.parametrize("newest_goes", [False, True])
def test_a_counter_below_our_position_proves_nothing(
    follower: Follower, database: Database, newest_goes: bool
) -> None:
    read_to_1080(follower, database)
    database.counter = 1070
    if newest_goes:
        del database.rows[1080]
    for _ in range(20):
        assert follower.look() == []
    check_reached(database, 1080)
    place = Place(1080, tuple((s, f"i{s}") for s in range(1060, 1081)))
    KnownPlace(database, place, overlap=OVERLAP).look()
    follower.crash()
    assert follower.look() == []
    assert follower.journal.checkpoint == 1080


@pytest.mark.parametrize("left", [1064, 1069, 0])
@pytest.mark.parametrize("pause_s", [0.0, 30.0])
def test_the_last_resources_may_be_deleted_while_the_counter_lags(
    follower: Follower, database: Database, left: int, pause_s: float
) -> None:
    read_to_1080(follower, database)
    database.counter = 1070
    for _ in range(6):
        follower.look()
        follower.clock.at += pause_s
    for sequence in range(left + 1, 1081):
        del database.rows[sequence]
        database.held.discard(f"i{sequence}")
    for _ in range(20):
        assert follower.look() == []
    lag = follower.ledger.counter_lag()
    assert lag is not None
    check_reached(database, 1080, lag=lag)
    place = Place(1080, tuple((s, f"i{s}") for s in range(1060, 1081)), lag=lag)
    KnownPlace(database, place, overlap=OVERLAP).look()
    follower.crash()
    assert follower.look() == []
    database.counter = None
    database.show(*database.take(5))
    assert sorted(follower.look() + follower.look()) == [1081, 1082, 1083, 1084, 1085]


@pytest.mark.parametrize("counter", [1069, 1071])
def test_a_counter_elsewhere_than_where_it_stayed_is_another_feed(
    follower: Follower, database: Database, counter: int
) -> None:
    counter_stays_at_1070(follower, database)
    for sequence in range(1065, 1081):
        del database.rows[sequence]
    database.counter = counter
    with pytest.raises(FeedWentBackwards):
        follower.look()


def test_a_copy_of_the_source_from_when_its_counter_lagged_is_another_feed(
    follower: Follower, database: Database
) -> None:
    counter_stays_at_1070(follower, database)
    database.counter = None
    database.show(*database.take(20))
    follower.look()
    for sequence in range(1061, 1101):
        del database.rows[sequence]
    database.counter = 1070
    with pytest.raises(FeedWentBackwards):
        follower.look()
    follower.crash()
    with pytest.raises(FeedWentBackwards):
        follower.look()
    with pytest.raises(FeedWentBackwards):
        check_reached(database, 1100, lag=follower.ledger.counter_lag())


def test_a_lag_of_another_history_is_forgotten(tmp_path: Path) -> None:
    with Ledger(tmp_path / "s") as ledger:
        ledger.commit(Entry(lag=CounterLag(7, 9)))
        assert ledger.counter_lag() == CounterLag(7, 9)
        ledger.restart_at(3)
        assert ledger.counter_lag() is None


def test_the_end_of_a_command_notes_where_the_counter_stays(
    database: Database, tmp_path: Path
) -> None:
    database.show(*database.take(10))
    database.counter = 8
    follower = Follower(database, tmp_path / "s")
    follower.feed = FollowFeed(
        database,
        position=0,
        page_size=50,
        overlap=OVERLAP,
        memory=follower.journal.memory,
        until=10,
    )
    follower.look()
    assert follower.ledger.counter_lag() == CounterLag(8, 10)
    database.rows.clear()
    database.held.clear()
    follower.crash()
    assert follower.look() == []


def test_a_feed_that_went_backwards_is_noticed_at_once(
    follower: Follower, database: Database
) -> None:
    read_to_1080(follower, database)
    for sequence in range(1071, 1081):
        del database.rows[sequence]
    with pytest.raises(FeedWentBackwards, match="ends at 1070"):
        follower.look()
    with pytest.raises(FeedWentBackwards):
        check_reached(database, 1080)


def test_a_feed_that_grows_while_it_is_judged_is_no_counter_that_lags(
    database: Database,
) -> None:
    database.show(*database.take(50))
    answer = database.last_change

    def grown() -> Page:
        database.show(*database.take(1))
        return answer()

    database.last_change = grown  # type: ignore[method-assign]
    with pytest.raises(FeedWentBackwards):
        check_reached(database, 100)


# What it costs where nothing can be late


def test_sqlite_costs_what_it_did(database: Database, tmp_path: Path) -> None:
    database.backend = None
    database.show(*database.take(20))
    follower = Follower(database, tmp_path / "s")
    follower.wait(10.0)
    del database.rows[7]
    database.take(5)
    database.show(*database.take(1))
    follower.wait(10.0)
    assert follower.ledger.gaps() == ()
    assert follower.journal.ask_due_s() is None
    follower.look()
    database.requests.clear()
    for _ in range(4):
        follower.clock.at -= 0.9
        follower.look()
    assert database.requests == [("changes", 26, 50)] * 4


def test_a_source_whose_rows_come_late_is_not_asked_to_filter() -> None:
    info = ServerInfo("1.13.0", 27, has_extended_changes=True)
    assert filters_on_server(info)
    late = ServerInfo("1.13.0", 27, has_extended_changes=True, database_backend=POSTGRESQL)
    assert not filters_on_server(late)


# A beginning in the middle


def test_the_end_of_the_feed_tells_what_may_still_come_before_it(database: Database) -> None:
    database.show(*(s for s in database.take(300) if s not in (5, 299)))
    end = FeedEnd(database, overlap=10, with_gaps=True)
    end.next_page()
    assert end.place is not None
    assert [(gap.first, gap.last) for gap in end.place.gaps] == [(5, 5), (299, 299)]


def test_what_comes_late_before_a_beginning_is_moved(tmp_path: Path) -> None:
    database = Database()
    database.show(*(s for s in database.take(300) if s not in (5, 299)))
    with Ledger(tmp_path / "s") as ledger:
        rows = [(s, f"i{s}") for s in range(290, 301) if s != 299]
        ledger.restart_at(300, recent=rows, gaps=[Gap(s, s, 999_999.0) for s in (5, 299)])
    follower = Follower(database, tmp_path / "s")
    follower.wait(5.0)
    assert follower.moved == []
    database.show(5, 299)
    follower.wait(60.0)
    assert sorted(follower.moved) == [5, 299]


def test_a_command_waits_for_a_gap_until_its_patience_ends(
    database: Database, tmp_path: Path
) -> None:
    follower = Follower(database, tmp_path / "s", patience_s=10.0)
    database.take(5)
    database.show(1, 3, 5)
    follower.look()
    assert follower.journal.waits()
    database.show(2)
    follower.wait(5.0)
    assert follower.journal.waits()
    assert 2 in follower.moved
    follower.wait(8.0)
    assert not follower.journal.waits()
    assert follower.journal.gaps.sequences == 1


def test_a_replay_waits_for_what_may_still_come_in_its_range(
    database: Database, tmp_path: Path
) -> None:
    database.take(9)
    database.show(1, 2, 4, 5, 7, 9)
    clock = Clock()
    with Ledger(tmp_path / "s") as ledger:
        journal = ReplayJournal(ledger, start=2, clock=clock, gap_limits=GapLimits(patience_s=10.0))
        feed = ReplayRange(database, start=2, end=7, page_size=3)
        found: list[int] = []

        def admit(page: object) -> bool:
            admission = journal.admit(page)  # type: ignore[arg-type]
            for move in admission.moves:
                found.append(move.sequence or 0)
                journal.settle(move, None)
            return bool(page.ended)  # type: ignore[attr-defined]

        while not admit(feed.next_page()):
            pass
        assert found == [2, 4, 5, 7]
        assert journal.gaps.sequences == 2
        assert journal.checkpoint == 7
        database.show(6)
        while journal.waits():
            clock.at += 1.0
            question = journal.ask()
            if question is not None:
                admit(feed.ask_again(question))
        assert found == [2, 4, 5, 7, 6]
        assert journal.gaps.sequences == 1


def test_an_answer_fills_a_gap_where_one_of_its_sequences_has_a_row() -> None:
    draw = random.Random(14)
    for _ in range(2000):
        to = draw.randint(1, 12)
        sequences = range(1, to + 1)
        rows = {s for s in sequences if draw.random() < 0.4}
        without = sorted(set(sequences) - {s for s in sequences if draw.random() < 0.3})
        gaps = _ranges(without)
        frontier = draw.choice([to, max(rows, default=to)])
        seen = sorted(s for s in rows if s <= frontier)
        found = page_gaps_of([(s, "") for s in seen], since=0, to=frontier, counts_from=None)
        page = MovePage((), frontier=frontier, gaps=found, again=True)
        expected = any(s in seen for first, last in gaps for s in range(first, last + 1))
        assert _fills(page, Ask(0, to, gaps)) is expected


def _ranges(sequences: list[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for sequence in sequences:
        if found and found[-1][1] == sequence - 1:
            found[-1] = (found[-1][0], sequence)
        else:
            found.append((sequence, sequence))
    return tuple(found)
