"""What is written down and when: restarts in every state, late rows, a disk that is full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards, StateError
from bridge.feed.pages import MovePage
from bridge.ledger.records import Attempts, Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import REMEMBERED, Move, Reason
from bridge.pipeline.journal import CommandJournal, DryRunLedger, FollowJournal, ReplayJournal

OVERLAP = 10


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "state.sqlite3") as opened:
        opened.restart_at(0)
        yield opened


def page(*sequences: int, since: int = 0, frontier: int | None = None) -> MovePage:
    moves = tuple(Move(f"i{s}", s) for s in sorted(sequences))
    return MovePage(moves, since, max(sequences, default=0) if frontier is None else frontier)


def started(ledger: Ledger) -> FollowJournal:
    """Begin as after a restart: only the ledger is left."""
    return FollowJournal(ledger, overlap=OVERLAP)


def admitted(journal: FollowJournal, *sequences: int, since: int = 0) -> list[int]:
    return [move.sequence or 0 for move in journal.admit(page(*sequences, since=since)).moves]


def settle(journal: FollowJournal, *sequences: int) -> None:
    for sequence in sequences:
        journal.settle(Move(f"i{sequence}", sequence), None)


def parked(sequence: int) -> Parked:
    return Parked(Move(f"i{sequence}", sequence), Reason.VIDEO, "", 1, 1.0, 1.0)


def test_a_restart_after_nothing_was_settled_does_everything_again(ledger: Ledger) -> None:
    journal = started(ledger)
    assert admitted(journal, 1, 2, 3) == [1, 2, 3]
    journal.flush()
    assert admitted(started(ledger), 1, 2, 3) == [1, 2, 3]
    assert ledger.checkpoint() == 0


@pytest.mark.parametrize("end", [30, 100])
def test_a_look_back_beside_a_page_that_is_held_back_passes_none_of_its_rows(
    ledger: Ledger, end: int
) -> None:
    """A page waits until two servers are shown; a deletion is to be confirmed meanwhile."""
    journal = started(ledger)
    beginning = end - OVERLAP
    looked_back = page(*range(beginning + 1, end + 1), since=beginning)
    found = [move.sequence or 0 for move in journal.admit(looked_back).moves]
    assert found == [*range(beginning + 1, end + 1)]
    settle(journal, *found)
    journal.flush()
    assert ledger.checkpoint() == 0
    held_back = admitted(journal, *range(1, end + 1))
    assert held_back == [*range(1, beginning + 1)]
    settle(journal, *held_back)
    assert journal.checkpoint == end


def test_a_late_row_above_the_checkpoint_is_moved_once(ledger: Ledger) -> None:
    journal = started(ledger)
    assert admitted(journal, 1, 2, 4, 5) == [1, 2, 4, 5]
    assert admitted(journal, 1, 2, 3, 4, 5) == [3]
    settle(journal, 1, 2, 3, 4, 5)
    assert journal.checkpoint == 5
    assert admitted(journal, 1, 2, 3, 4, 5) == []


def test_a_restart_does_not_redo_what_was_settled_above_the_checkpoint(ledger: Ledger) -> None:
    journal = started(ledger)
    admitted(journal, 1, 2, 3, 4, 5)
    settle(journal, 1, 3, 5)
    assert journal.checkpoint == 1
    journal.flush()
    again = started(ledger)
    assert again.checkpoint == 1
    assert admitted(again, 1, 2, 3, 4, 5) == [2, 4]
    settle(again, 4, 2)
    assert again.checkpoint == 5
    again.flush()
    assert (ledger.checkpoint(), ledger.settled_above()) == (5, [])


def test_what_was_settled_but_not_flushed_is_done_again(ledger: Ledger) -> None:
    journal = started(ledger)
    admitted(journal, 1, 2)
    settle(journal, 1, 2)
    assert admitted(started(ledger), 1, 2) == [1, 2]


def test_attempts_survive_a_restart_and_end_with_the_instance(ledger: Ledger) -> None:
    journal = started(ledger)
    admitted(journal, 1, 2)
    journal.spend(Move("i1", 1), Attempts(1, 5.0))
    journal.spend(Move("i2", 2), Attempts(2, 6.0))
    journal.flush()
    again = started(ledger)
    assert again.attempts() == {"i1": Attempts(1, 5.0), "i2": Attempts(2, 6.0)}
    admitted(again, 1, 2)
    settle(again, 1)
    again.settle(Move("i2", 2), parked(2))
    again.flush()
    assert started(ledger).attempts() == {}


def test_an_instance_that_arrives_is_parked_no_more(ledger: Ledger) -> None:
    ledger.commit(Entry(parked=(parked(1),)))
    journal = started(ledger)
    admitted(journal, 1)
    settle(journal, 1)
    journal.flush()
    assert ledger.parked_by_reason() == {}


@pytest.mark.parametrize("last_is_parked", [True, False])
def test_of_two_ends_in_one_flush_the_last_counts(ledger: Ledger, last_is_parked: bool) -> None:
    """The same instance is in the feed twice: deleted, and sent again."""
    journal = started(ledger)
    journal.admit(MovePage((Move("same", 1), Move("same", 2)), 0, 2))
    ends = [None, Parked(Move("same", 2), Reason.VIDEO, "", 1, 1.0, 1.0)]
    for sequence, end in zip((1, 2), ends if last_is_parked else reversed(ends), strict=True):
        journal.settle(Move("same", sequence), end)
    journal.flush()
    assert bool(ledger.parked_by_reason()) is last_is_parked
    assert ledger.checkpoint() == 2


def test_a_late_row_is_done_and_does_not_move_the_checkpoint_back(ledger: Ledger) -> None:
    journal = started(ledger)
    admitted(journal, 1, 2, 5)
    settle(journal, 1, 2, 5)
    admission = journal.admit(page(1, 2, 4, 5))
    assert [move.sequence for move in admission.moves] == [4]
    assert admission.late == 1
    assert journal.oldest_open() == 4
    assert journal.checkpoint == 5
    assert journal.admit(page(1, 2, 4, 5)).moves == (), "under way already"
    settle(journal, 4)
    journal.flush()
    assert journal.oldest_open() is None
    assert ledger.checkpoint() == 5
    assert admitted(started(ledger), 1, 2, 4, 5) == [], "and is not late once more"


def test_a_late_row_that_was_under_way_in_a_crash_is_late_again(ledger: Ledger) -> None:
    journal = started(ledger)
    admitted(journal, 1, 5)
    settle(journal, 1, 5)
    journal.admit(page(1, 4, 5))
    journal.flush()
    assert admitted(started(ledger), 1, 4, 5) == [4]


def test_an_unfinished_late_row_is_asked_for_after_a_crash(ledger: Ledger) -> None:
    rest = range(5, 60)
    journal = started(ledger)
    admitted(journal, 1, 2, 4)
    settle(journal, 1, 2, 4)
    assert admitted(journal, 1, 2, 3, 4) == [3]
    admitted(journal, *rest, since=4)
    settle(journal, *rest)
    journal.flush()
    assert journal.checkpoint == 59
    assert journal.spread() == 0, "it is on record: it holds nothing back"
    again = started(ledger)
    question = again.ask()
    assert question is not None
    assert question.gaps == ((3, 3),)
    there = replace(page(3, *dict(question.known), since=question.since), again=True)
    assert [move.sequence for move in again.admit(there).moves] == [3], "and redoes nothing else"
    settle(again, 3)
    again.flush()
    assert ledger.checkpoint() == 59
    assert ledger.settled_above() == []
    assert ledger.gaps() == ()


def test_a_late_row_above_the_checkpoint_holds_it_back(ledger: Ledger) -> None:
    journal = started(ledger)
    admitted(journal, 1, 3, 6)
    settle(journal, 6)
    assert admitted(journal, 1, 3, 5, 6) == [5]
    settle(journal, 1, 3)
    assert journal.checkpoint == 4
    settle(journal, 5)
    assert journal.checkpoint == 6


def test_rows_below_the_floor_are_never_late(ledger: Ledger) -> None:
    ledger.restart_at(100)
    journal = started(ledger)
    assert admitted(journal, 95, 99, 100, 101, since=90) == [101]


def unfinished(ledger: Ledger, *sequences: int, finished: tuple[int, ...] = ()) -> FollowJournal:
    """Restart when these have been read and only some of them were finished."""
    journal = started(ledger)
    admitted(journal, *sequences)
    settle(journal, *finished)
    journal.flush()
    return started(ledger)


def test_what_was_unfinished_at_a_crash_is_done_although_its_row_is_gone(ledger: Ledger) -> None:
    journal = unfinished(ledger, 1, 2, 3, 4, finished=(1, 3))
    assert admitted(journal, 3, 5) == [5, 2, 4]
    settle(journal, 2, 4, 5)
    journal.flush()
    assert ledger.checkpoint() == 5


def test_what_was_unfinished_waits_for_the_page_that_should_have_its_row(ledger: Ledger) -> None:
    journal = unfinished(ledger, 1, 4, 8)
    assert admitted(journal, 2, 3) == [2, 3, 1]
    assert [m.sequence for m in journal.admit(page(6, since=3)).moves] == [6, 4]
    assert [m.sequence for m in journal.admit(page(8, since=6)).moves] == [8]


def test_at_the_end_of_an_emptied_feed_its_counter_tells_how_far_it_goes(ledger: Ledger) -> None:
    journal = unfinished(ledger, 1, 4)
    empty = MovePage((), since=0, frontier=0, done=True, last=1)
    assert [m.sequence for m in journal.admit(empty).moves] == [1]
    farther = MovePage((), since=0, frontier=0, done=True, last=7)
    assert [m.sequence for m in journal.admit(farther).moves] == [4]


def test_another_instance_behind_an_unfinished_sequence_is_another_history(ledger: Ledger) -> None:
    journal = unfinished(ledger, 1, 2)
    with pytest.raises(FeedWentBackwards, match="change 2 was instance i2, it is other now"):
        journal.admit(MovePage((Move("i1", 1), Move("other", 2)), 0, 2))


def test_another_instance_behind_a_known_sequence_is_another_history(ledger: Ledger) -> None:
    journal = started(ledger)
    admitted(journal, 1, 2)
    settle(journal, 2)
    journal.flush()
    for each in (journal, started(ledger)):
        with pytest.raises(FeedWentBackwards, match="change 2 was instance i2"):
            each.admit(MovePage((Move("other", 2),), 0, 2))


def test_a_flush_that_fails_loses_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = started(ledger)
    admitted(journal, 1, 2, 3, 5)
    commit = Ledger.commit

    def full(_ledger: Ledger, _entry: Entry) -> None:
        raise StateError("The disk is full.")

    monkeypatch.setattr(Ledger, "commit", full)
    settle(journal, 1, 3)
    journal.spend(Move("i2", 2), Attempts(1, 7.0))
    with pytest.raises(StateError):
        journal.flush()
    journal.settle(Move("i5", 5), parked(5))
    with pytest.raises(StateError):
        journal.flush()
    monkeypatch.setattr(Ledger, "commit", commit)
    journal.flush()
    assert ledger.checkpoint() == 1
    assert ledger.settled_above() == [3, 5]
    assert ledger.attempts() == {"i2": Attempts(1, 7.0)}
    assert ledger.parked_by_reason() == {"video": 1}
    assert admitted(started(ledger), 1, 2, 3, 5) == [2]


def test_a_flush_without_news_writes_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = started(ledger)
    admitted(journal, 1)
    settle(journal, 1)
    journal.flush()
    monkeypatch.setattr(Ledger, "commit", lambda *_: pytest.fail("it wrote"))
    journal.flush()


def test_reading_on_without_instances_moves_the_checkpoint(ledger: Ledger) -> None:
    journal = started(ledger)
    journal.admit(page(frontier=40))
    journal.flush()
    assert ledger.checkpoint() == 40


def test_what_is_remembered_of_the_feed_is_bounded(ledger: Ledger) -> None:
    journal = started(ledger)
    for first in range(1, 2001, 10):
        rows = range(first, first + 10)
        admitted(journal, *rows, since=first - 1)
        settle(journal, *rows)
        journal.flush()
    assert len(ledger.recent()) <= max(4 * OVERLAP, REMEMBERED)
    assert ledger.settled_above() == []


def test_a_ledger_without_a_checkpoint_cannot_be_followed(tmp_path: Path) -> None:
    with Ledger(tmp_path / "new.sqlite3") as fresh, pytest.raises(ValueError, match="checkpoint"):
        FollowJournal(fresh, overlap=OVERLAP)


def test_a_command_parks_and_unparks_and_leaves_the_checkpoint(ledger: Ledger) -> None:
    ledger.commit(Entry(checkpoint=7, parked=(parked(1), parked(2)), settled=(9,)))
    journal = CommandJournal(ledger)
    journal.admit(MovePage((Move("i1", 1), Move("i3", 3))))
    journal.spend(Move("i1", 1), Attempts(1, 1.0))
    journal.settle(Move("i1", 1), None)
    journal.settle(Move("i3", 3), parked(3))
    journal.flush()
    assert [p.move.instance_id for p in ledger.parked()] == ["i2", "i3"]
    assert (ledger.checkpoint(), ledger.settled_above()) == (7, [9])
    assert ledger.attempts() == {}, "the follower's attempts are its own"
    assert journal.checkpoint is None


def test_a_replay_knows_how_far_it_is_and_writes_no_checkpoint(ledger: Ledger) -> None:
    ledger.commit(Entry(checkpoint=7))
    journal = ReplayJournal(ledger, start=2)
    journal.admit(page(2, 3, 5, since=1))
    assert journal.checkpoint == 1
    journal.settle(Move("i3", 3), None)
    assert (journal.checkpoint, journal.oldest_open(), journal.spread() > 0) == (1, 2, True)
    journal.settle(Move("i2", 2), None)
    assert journal.checkpoint == 4
    journal.settle(Move("i5", 5), parked(5))
    assert journal.checkpoint == 5
    journal.flush()
    assert ledger.checkpoint() == 7
    assert ledger.parked_by_reason() == {"video": 1}


def test_a_rehearsal_writes_nothing() -> None:
    journal = ReplayJournal(DryRunLedger(), start=1)
    journal.admit(page(1))
    journal.settle(Move("i1", 1), parked(1))
    journal.flush()
    assert journal.checkpoint == 1
