"""What the feed never told of is found by the source's own count, and by nothing more than needed.

The feed here is a table of pages that a test fills by hand: what it leaves out was missed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import InstanceError, SideError, side_error
from bridge.events import (
    Event,
    InstanceParked,
    MissedFound,
    Progress,
    Recounted,
    RecountFailed,
    Settled,
)
from bridge.feed.gaps import Ask
from bridge.feed.pages import MovePage
from bridge.feed.sequences import Sequences
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import (
    Action,
    Delivered,
    Move,
    Outcome,
    Page,
    Reason,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
)
from bridge.pipeline import missed_instances as recount_module
from bridge.pipeline.journal import FollowJournal
from bridge.pipeline.missed_instances import (
    FOUND_MAX,
    RECOUNT_KEY,
    Beginning,
    JournalOfFound,
    LastRecount,
    Recount,
    load_last_recount,
)
from tests.fake_store import FeedRow, StoredInstance
from tests.feed_client import NEW, StoreClient, feed_of

EVERY_S = 1800.0
HOUR_S = 3600.0
LOOK_EVERY_S = 10.0
THERE = StoredInstance(b"", ("", "", ""), {})
DELIVERED = Delivered("Success", Action.UNCHANGED, "1", "1", "1", 1, 1, StageTimes())


class CountedClient(StoreClient):
    """A source that counts; ``counted`` is how often it was asked."""

    counted = 0

    def count_instances(self) -> int:
        self.before_answer()
        self.counted += 1
        return len(self.store.instances)


class Told:
    """A feed that tells what it is given, and nothing else."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.pages: list[MovePage] = []
        self.ahead: MovePage | None = None

    def next_page(self) -> MovePage:
        if self.pages:
            page = self.pages.pop(0)
            self.position = max(self.position, page.frontier)
            return page
        return MovePage((), since=self.position, frontier=self.position, done=True)

    def look_back(self) -> MovePage:
        return MovePage(())

    def newest(self, *, ahead: bool) -> MovePage:
        return self.ahead if ahead and self.ahead else MovePage((), last=self.position)

    def ask_again(self, ask: Ask) -> MovePage:
        raise NotImplementedError(ask)


class Scene:
    """A source with instances ``i1`` to ``i<n>`` at the sequences 1 to n, a target and a bridge.

    ``position``: what was read before this process began. The target holds all of that.
    """

    def __init__(self, path: Path, *, held: int = 10, position: int = 0, floor: int = 0) -> None:
        self.now = 1_000_000.0
        self.source = CountedClient(feed_of(*range(1, held + 1)), extended=True)
        self.source.store.instances = {f"i{n}": THERE for n in range(1, held + 1)}
        self.target = {f"i{n}" for n in range(1, position + 1)}
        self.asked_target: list[str] = []
        self.target_error: SideError | None = None
        self.events: list[Event] = []
        self.path = path
        with Ledger(path) as ledger:
            ledger.set_meta(RECOUNT_KEY, LastRecount(floor, None if floor else 0).text())
        self.begin(position, floor=floor)

    def begin(self, position: int, *, floor: int = 0, once: bool = False) -> None:
        """Begin, or begin again: what this process has seen is forgotten."""
        self.feed = Told(position)
        with Ledger(self.path) as ledger:
            record = load_last_recount(ledger)
        self.recount = Recount(
            self.feed,
            source=self.source,
            target=self,
            state_path=self.path,
            record=record,
            beginning=Beginning(position, floor),
            every_s=EVERY_S,
            once=once,
            observer=self,
            now_s=lambda: self.now,
            steady_s=lambda: self.now,
            slice_s=1e9,
        )

    def tell(self, *sequences: int, done: bool = True) -> None:
        """Let the feed tell of rows, and have them delivered."""
        moves = tuple(Move(f"i{s}", s) for s in sequences)
        self.feed.pages.append(MovePage(moves, frontier=max(sequences), done=done))
        self.target |= {move.instance_id for move in moves}

    def arrive(self, sequence: int) -> None:
        """An instance comes to the source; nobody has told of it."""
        store = self.source.store
        rows = [*store.rows, FeedRow(sequence, NEW, f"i{sequence}")]
        store.instances[f"i{sequence}"] = THERE
        store.script_feed(sorted(rows), counter=max(row.seq for row in rows))

    def vanish(self, sequence: int) -> None:
        self.source.store.delete(f"i{sequence}")

    def look(self, seconds: float = 0.0, *, settle: bool = True) -> list[str]:
        """Look at the feed now and then for so long; return what was found."""
        found: list[str] = []
        for _ in range(int(seconds / LOOK_EVERY_S) + 1):
            page = self.recount.next_page()
            for move in page.moves:
                if move.sequence is None:
                    found.append(move.instance_id)
                    if settle:
                        self.settle(move)
            self.now += LOOK_EVERY_S
        return found

    def settle(self, move: Move, outcome: Outcome = DELIVERED) -> None:
        if isinstance(outcome, Delivered):
            self.target.add(move.instance_id)
        self.recount.on_event(Settled(move, outcome, 1))

    def happened(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def record(self) -> LastRecount | None:
        with Ledger(self.path) as ledger:
            return load_last_recount(ledger)

    # What the recount sees

    def has_instance(self, instance_id: str) -> bool:
        if self.target_error is not None:
            raise self.target_error
        self.asked_target.append(instance_id)
        return instance_id in self.target

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: Progress) -> None: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def counted_once(scene: Scene, sequences: Iterable[int]) -> None:
    """Let the feed tell of these and the first recount be over."""
    scene.tell(*sequences)
    scene.look(2 * 60)
    assert scene.record() is not None
    scene.asked_target.clear()
    scene.events.clear()
    scene.source.counted = 0
    scene.source.asked.clear()


def test_an_idle_source_is_asked_for_one_count_in_each_interval(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    assert scene.look(24 * HOUR_S) == []
    assert scene.source.counted == 48
    assert scene.source.asked == []
    assert scene.asked_target == []


@pytest.mark.parametrize("missed", [1, 5, 10, 11, 20])
def test_what_the_feed_never_told_of_is_found_within_an_hour(path: Path, missed: int) -> None:
    """The first, one in the middle, the last of an old interval and of a new one."""
    scene = Scene(path, held=0)
    for sequence in range(1, 11):
        if sequence != missed:
            scene.arrive(sequence)
    counted_once(scene, [s for s in range(1, 11) if s != missed])
    for sequence in {*range(11, 21), missed}:
        scene.arrive(sequence)
    scene.tell(*(s for s in range(11, 21) if s != missed))
    assert scene.look(HOUR_S) == [f"i{missed}"]
    assert scene.happened(MissedFound) == 1
    assert scene.look(5 * HOUR_S) == []
    assert scene.happened(MissedFound) == 1
    assert scene.source.counted < 20


def test_a_row_that_names_nothing_stops_no_recount(path: Path) -> None:
    """A proxy may spoil an ID. Seen to fail where the row was asked for: the bridge ended."""
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    for sequence in (11, 12, 13):
        scene.arrive(sequence)
    changes, has = scene.source.changes, scene.source.has_instance

    def spoiled(since: int, limit: int, *, only_new_instances: bool) -> Page:
        page = changes(since, limit, only_new_instances=only_new_instances)
        rows = tuple(replace(r, resource_id="") if r.sequence == 12 else r for r in page.changes)
        return replace(page, changes=rows)

    def strict(instance_id: str) -> bool:
        if not instance_id:
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "'' is not an identifier")
        return has(instance_id)

    vars(scene.source)["changes"], vars(scene.source)["has_instance"] = spoiled, strict
    scene.tell(11)
    assert scene.look(2 * HOUR_S) == ["i12", "i13"], "the list has both"


def test_what_the_feed_tells_of_late_is_not_found_beside(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    scene.arrive(12)
    scene.tell(12)
    scene.look(EVERY_S + 60)
    scene.tell(11)
    assert scene.look(4 * HOUR_S) == []
    assert scene.happened(MissedFound) == 0


def test_what_is_told_behind_a_backlog_is_not_found_beside(path: Path) -> None:
    """Planted: what comes with the newest sequence is not noted. It is found beside, and told."""
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    for sequence in (11, 12, 13):
        scene.arrive(sequence)
        scene.feed.ahead = MovePage((Move(f"i{sequence}", sequence),), ahead=True)
        assert scene.recount.newest(ahead=True).moves
        scene.target.add(f"i{sequence}")
    scene.feed.ahead = None
    assert scene.look(4 * HOUR_S) == []
    assert scene.happened(MissedFound) == 0
    assert [one for one in scene.events if getattr(one, "unexplained", 0)] == []


def test_deletions_cost_a_look_at_what_is_new_and_hide_nothing(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    for sequence in (11, 12, 13):
        scene.arrive(sequence)
    scene.tell(11, 13)
    for gone in (1, 2, 3):
        scene.vanish(gone)
    assert scene.look(HOUR_S) == ["i12"]
    assert min(since for since, _, _ in scene.source.asked) == 10
    assert scene.asked_target == []


def test_a_source_that_deletes_all_the_time_is_not_listed(path: Path) -> None:
    scene = Scene(path, held=100)
    counted_once(scene, range(1, 101))
    for hour in range(24):
        scene.vanish(hour + 1)
        scene.look(HOUR_S)
    assert scene.asked_target == []
    assert all(since == 100 for since, _, _ in scene.source.asked)
    assert len(scene.source.asked) <= 48
    assert scene.look(HOUR_S) == []


def test_a_row_from_before_the_last_recount_is_found_by_its_number(path: Path) -> None:
    """Not by reading all: the search ends where the count is explained."""
    held = [s for s in range(1, 20_001) if s != 17_500]
    scene = Scene(path, held=0)
    scene.source.store.script_feed([FeedRow(s, NEW, f"i{s}") for s in held])
    scene.source.store.instances = {f"i{s}": THERE for s in held}
    counted_once(scene, held)
    scene.arrive(17_500)
    assert scene.look(HOUR_S) == ["i17500"]
    assert 16_000 <= min(since for since, _, _ in scene.source.asked) <= 17_500
    assert scene.asked_target == []


def test_an_instance_without_a_row_is_found_in_the_list_if_all_is_expected(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.source.store.clear_changes()
    scene.source.store.instances["unrowed"] = THERE
    assert scene.look(HOUR_S) == ["unrowed"]


def test_what_a_feed_had_lost_before_its_beginning_is_told_and_not_moved(path: Path) -> None:
    """Somebody had emptied the feed years ago: the archive is not ours to move unasked."""
    scene = Scene(path, held=3)
    scene.source.store.instances |= {f"old{n}": THERE for n in range(100)}
    scene.tell(1, 2, 3)
    assert scene.look(4 * HOUR_S) == []
    told = [event.unexplained for event in scene.events if isinstance(event, Recounted)]
    assert (told[0], sum(told)) == (100, 100)
    assert scene.asked_target == []
    scene.arrive(4)
    scene.arrive(5)
    scene.tell(5)
    assert scene.look(HOUR_S) == ["i4"]


def test_what_was_there_before_a_beginning_in_the_middle_is_not_expected(path: Path) -> None:
    scene = Scene(path, held=100, position=60, floor=60)
    scene.target.clear()
    scene.tell(*range(61, 101))
    assert scene.look(4 * HOUR_S) == []
    scene.arrive(101)
    scene.arrive(102)
    scene.tell(102)
    scene.source.store.instances["unrowed"] = THERE
    assert scene.look(HOUR_S) == ["i101"]
    assert scene.look(HOUR_S) == []
    told = [event.unexplained for event in scene.events if isinstance(event, Recounted)]
    assert sum(told) == 1
    assert scene.asked_target == []


def test_after_a_restart_only_what_came_since_the_last_recount_is_asked_for(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    for sequence in (11, 12, 13):
        scene.arrive(sequence)
    scene.target |= {"i11", "i13"}  # by the process before, which missed 12
    scene.begin(13)
    assert scene.look(HOUR_S) == ["i12"]
    assert set(scene.asked_target) == {"i11", "i12", "i13"}


def test_an_idle_source_costs_one_request_after_a_restart(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.begin(10)
    scene.look(EVERY_S + 60)
    assert (scene.source.counted, scene.source.asked, scene.asked_target) == (1, [], [])


def test_restarts_in_short_succession_do_not_put_it_off(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    found = []
    for _ in range(6):
        scene.begin(11)
        found += scene.look(600)
    assert found == ["i11"]


def test_a_crash_before_the_end_of_what_was_found_finds_it_again(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    scene.feed.position = 11
    assert scene.look(HOUR_S, settle=False) == ["i11"]
    scene.begin(11)
    assert scene.look(HOUR_S) == ["i11"]
    assert scene.look(HOUR_S) == []


@pytest.mark.parametrize("parked", [False, True])
def test_what_ends_otherwise_than_in_the_target_is_not_found_for_ever(
    path: Path, parked: bool
) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    assert scene.look(HOUR_S, settle=False) == ["i11"]
    move = Move("i11")
    if parked:
        scene.recount.on_event(InstanceParked(move, Reason.UNDECODABLE, "No.", 1))
    else:
        scene.settle(move, Skipped(Reason.RULE))
    assert scene.happened(MissedFound) == parked
    assert scene.look(10 * HOUR_S) == []


@pytest.mark.parametrize("dropped", [False, True])
def test_what_is_parked_or_was_dropped_is_not_lacking(path: Path, dropped: bool) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    with Ledger(path) as ledger:
        parked = Parked(Move("i11", 11), Reason.UNDECODABLE, "No.", 1, 1.0, 1.0)
        ledger.commit(Entry(parked=(parked,)))
        if dropped:
            ledger.commit(Entry(dropped=("i11",), dropped_at=2.0))
    assert scene.look(4 * HOUR_S) == []


def test_a_busy_source_is_looked_at_all_the_same(path: Path) -> None:
    """Nothing can be counted while more comes with each look."""
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    found: list[str] = []
    for sequence in range(12, 12 + int(1.5 * HOUR_S / LOOK_EVERY_S)):
        scene.arrive(sequence)
        scene.tell(sequence)
        found += scene.look()
    assert found == ["i11"]


@pytest.mark.parametrize("restarted", [False, True])
def test_one_that_is_refused_for_ever_does_not_keep_others_from_being_found(
    path: Path, restarted: bool
) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    scene.feed.pages.append(MovePage((), frontier=11, done=True))
    assert scene.look(2 * HOUR_S, settle=False) == ["i11"]
    for sequence in (12, 13, 14):
        scene.arrive(sequence)
        scene.feed.pages.append(MovePage((), frontier=sequence, done=True))
        found = scene.look(2 * HOUR_S)
        assert found == [f"i{sequence}"], "and not what is under way"
    if restarted:
        scene.begin(14)
        assert scene.look(2 * HOUR_S) == ["i11"]
    else:
        scene.settle(Move("i11"))
    assert scene.look(2 * HOUR_S) == []
    record = scene.record()
    assert record is not None
    assert (record.sequence, record.count) == (14, 14)


def test_no_more_than_a_bound_is_remembered_of_what_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recount_module, "ENDED_MAX", 3)
    scene = Scene(path)
    for number in range(10):
        scene.recount._open[f"e{number}"] = None
        scene.settle(Move(f"e{number}"))
        scene.settle(Move(f"other{number}"))  # what the policy tries again is none of its finds
    assert list(scene.recount._ended) == ["e7", "e8", "e9"]


def test_more_than_a_window_and_more_than_is_moved_at_once(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    missed = range(11, 11 + 2 * FOUND_MAX + 500)
    store = scene.source.store
    store.script_feed([FeedRow(s, NEW, f"i{s}") for s in range(1, missed[-1] + 1)])
    store.instances |= {f"i{s}": THERE for s in missed}
    scene.feed.pages.append(MovePage((), frontier=missed[-1], done=True))
    assert scene.look(3 * HOUR_S) == [f"i{s}" for s in missed]


@pytest.mark.parametrize("side", list(SideName))
def test_a_server_that_cannot_be_asked_harms_nothing_and_is_told_once(
    path: Path, side: SideName
) -> None:
    scene = Scene(path, held=12)
    counted_once(scene, range(1, 11))
    scene.vanish(3)
    scene.begin(12)
    error = side_error(side, SideProblem.FORBIDDEN, "It says 403.")
    if side is SideName.TARGET:
        scene.target_error = error
    else:

        def refuse() -> int:
            raise error

        scene.source.count_instances = refuse  # type: ignore[method-assign]
    assert scene.look(5 * HOUR_S) == []
    assert scene.happened(RecountFailed) == 1
    scene.target_error = None
    if side is SideName.SOURCE:
        del scene.source.count_instances
    assert scene.look(HOUR_S) == ["i11", "i12"]


@pytest.mark.parametrize("known", [True, False])
def test_gaps_that_were_given_up_are_answered_by_two_counts(path: Path, known: bool) -> None:
    """One count alone knows nothing of what was there before it."""
    scene = Scene(path, position=0 if known else 10, floor=0 if known else 5)
    with Ledger(path) as ledger:
        ledger.commit(Entry(gaps_given_up=7))
    scene.tell(*range(1 if known else 11, 11 if known else 12))
    scene.look(2 * 60)
    with Ledger(path) as ledger:
        assert ledger.gaps_given_up() == (0 if known else 7)
    scene.look(EVERY_S + 60)
    with Ledger(path) as ledger:
        assert ledger.gaps_given_up() == 0


def test_another_server_that_answers_for_a_moment_is_not_noted(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    before = scene.record()
    held = dict(scene.source.store.instances)
    answers = iter([0, 10, 10, 10, 10])
    scene.source.count_instances = lambda: next(answers)  # type: ignore[method-assign]
    scene.look(EVERY_S + 120)
    after = scene.record()
    assert before is not None
    assert after is not None
    assert (after.count, after.sequence) == (len(held), 10)
    assert scene.happened(MissedFound) == 0


def test_once_counts_at_its_end_when_it_is_due(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    scene.arrive(11)
    scene.begin(11, once=True)
    scene.feed.pages = [MovePage((), frontier=11, done=True, ended=True)]
    assert scene.look() == []  # not due yet
    scene.now += EVERY_S
    scene.begin(11, once=True)
    scene.feed.pages = [MovePage((), frontier=11, done=True, ended=True)]
    assert scene.look() == ["i11"]
    scene.begin(11, once=True)
    scene.feed.pages = [MovePage((), frontier=11, done=True, ended=True)]
    assert scene.look() == []
    record = scene.record()
    assert record is not None
    assert record.sequence == 11


def test_what_was_found_is_settled_beside_the_follower(path: Path) -> None:
    recount = Scene(path).recount
    with Ledger(path) as ledger:
        ledger.restart_at(0)
        journal = JournalOfFound(FollowJournal(ledger, overlap=5), ledger, recount)
        page = MovePage((Move("a", 1), Move("found")), frontier=1, done=True)
        admission = journal.admit(page)
        assert [move.instance_id for move in admission.moves] == ["a", "found"]
        parked = Parked(Move("found"), Reason.UNDECODABLE, "No.", 1, 1.0, 1.0)
        journal.settle(Move("found"), parked)
        journal.flush()
        assert ledger.parked_one("found") is not None
        assert (journal.checkpoint, journal.oldest_open()) == (0, 1)
        journal.settle(Move("a", 1), None)
        journal.settle(Move("found"), None)
        journal.flush()
        assert ledger.parked_one("found") is None
        assert ledger.checkpoint() == 1


@pytest.mark.parametrize("noted", ["", "{", "[]", "null", '{"sequence": "x"}', '{"count": 1}', "3"])
def test_a_record_that_makes_no_sense_is_none(path: Path, noted: str) -> None:
    with Ledger(path) as ledger:
        ledger.set_meta(RECOUNT_KEY, noted)
        assert load_last_recount(ledger) is None


def test_a_record_is_read_as_it_was_written(path: Path) -> None:
    scene = Scene(path)
    counted_once(scene, range(1, 11))
    record = scene.record()
    assert record is not None
    assert dataclasses.astuple(record)[:2] == (10, 10)


@pytest.mark.parametrize("sequence", [0, 1, 1023, 1024, 5_000_000_000])
def test_sequences(sequence: int) -> None:
    seen = Sequences()
    assert sequence not in seen
    assert seen.add(sequence)
    assert not seen.add(sequence)
    assert sequence in seen
    assert sequence + 1 not in seen
    seen.forget_below(sequence)
    assert sequence in seen
    seen.forget_below(sequence + 1024)
    assert sequence not in seen
