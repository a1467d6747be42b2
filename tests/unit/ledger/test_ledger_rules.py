"""Each statement of the ledger at its edges: what it forgets, keeps, replaces and counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import bridge.ledger.store
from bridge.errors import StateError
from bridge.ledger.lock import locked
from bridge.ledger.records import Attempts, Entry, Kept, MissedAt
from bridge.ledger.store import Ledger
from bridge.model import REMEMBERED, CounterLag, Gap, Move, OpenGaps, Reason
from tests.ledger_rows import parked


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "state") as made:
        yield made


def kept(name: str, *, delivered_at: float = 5.0, aged_from: float | None = 5.0) -> Kept:
    return Kept(name, "a", "b", delivered_at, source_file="s", target_file="t", aged_from=aged_from)


def names(ledger: Ledger, *, aged_before: float = 1e9, limit: int = 100) -> list[str]:
    return [one.instance_id for one in ledger.kept(aged_before=aged_before, limit=limit)]


# The feed


def test_rows_at_the_bound_stay_and_of_those_below_the_last_ones(ledger: Ledger) -> None:
    rows = tuple((sequence, f"i{sequence}") for sequence in range(1, REMEMBERED + 11))
    ledger.commit(Entry(recent=rows))
    ledger.commit(Entry(recent_from=REMEMBERED + 9))
    assert sorted(ledger.recent()) == list(range(11, REMEMBERED + 11)), "the last ones"
    ledger.commit(Entry(recent=((11, "another"), (500, "x"), (501, "y")), recent_from=13))
    assert sorted(ledger.recent())[:3] == [13, 14, 15], "11 and 12 are below, and not the last"
    ledger.commit(Entry(recent_from=0))
    assert len(ledger.recent()) == REMEMBERED


def test_a_checkpoint_covers_its_own_sequence(ledger: Ledger) -> None:
    ledger.commit(Entry(checkpoint=0, settled=(4, 5, 6, 6)))
    ledger.commit(Entry(checkpoint=5, settled=(9,), newest_date="2"))
    assert ledger.settled_above() == [6, 9]
    ledger.commit(Entry(settled=(1,)))
    assert ledger.settled_above() == [1, 6, 9], "only a checkpoint forgets"


def test_a_gap_is_replaced_and_one_that_is_closed_and_noted_anew_is_there(ledger: Ledger) -> None:
    ledger.commit(Entry(gaps=(Gap(1, 9, 5.0), Gap(20, 29, 6.0, counted=False), Gap(40, 40, 4.0))))
    assert ledger.open_gaps() == OpenGaps(3, 9 + 10 + 1, 4.0)
    ledger.commit(Entry(gaps=(Gap(1, 3, 5.0), Gap(20, 22, 6.0)), gaps_closed=(20, 40, 41)))
    assert ledger.gaps() == (Gap(1, 3, 5.0), Gap(20, 22, 6.0))
    assert ledger.open_gaps() == OpenGaps(2, 6, 5.0)


def test_what_was_given_up_adds_up_and_is_answered_down_to_nothing(ledger: Ledger) -> None:
    assert ledger.gaps_given_up() == 0
    ledger.answer_given_up(3)
    for count in (5, 0, 7):
        ledger.commit(Entry(gaps_given_up=count))
    assert ledger.gaps_given_up() == 12
    ledger.answer_given_up(4)
    assert ledger.gaps_given_up() == 8
    ledger.answer_given_up(9)
    assert ledger.gaps_given_up() == 0


def test_a_new_history_forgets_all_of_the_old_one(ledger: Ledger) -> None:
    ledger.commit(
        Entry(
            checkpoint=3,
            settled=(7,),
            recent=((3, "a"),),
            gaps=(Gap(1, 2, 5.0),),
            lag=CounterLag(2, 3),
            newest_date="2",
            gaps_given_up=4,
            parked=(parked("p"),),
            kept=(kept("k"),),
        )
    )
    ledger.restart_at(100, recent=[(99, "y"), (98, "x")], ours_from=90, gaps=[Gap(95, 96, 1.0)])
    assert (ledger.checkpoint(), ledger.settled_above()) == (100, [])
    assert ledger.recent() == {98: "x", 99: "y"}
    assert ledger.gaps() == (Gap(95, 96, 1.0),)
    assert ledger.counter_lag() is None
    assert ledger.meta("newest_change_at") is None
    assert ledger.meta("history_from") == "90"
    assert ledger.gaps_given_up() == 4, "nobody has compared the servers since"
    assert [one.move.instance_id for one in ledger.parked()] == ["p"]
    assert names(ledger) == ["k"]
    ledger.restart_at(200, newest_date="3")
    assert (ledger.meta("history_from"), ledger.meta("newest_change_at")) == ("200", "3")


# Parked, dropped, unfinished


def test_parked_again_it_keeps_its_sequence_and_beginning_and_tells_the_rest_anew(
    ledger: Ledger,
) -> None:
    first = parked("p", attempts=3)
    anew = replace(
        first,
        move=Move("p", None, "20260101T000000"),
        reason=Reason.PROOF_MISMATCH,
        message="otherwise",
        attempts=2,
        first_failed_at=70.0,
        parked_at=200.0,
        source_syntax="1.2",
        sop_instance_uid="1.2.4",
    )
    ledger.commit(Entry(parked=(first,)))
    ledger.commit(Entry(parked=(anew,)))
    expected = replace(anew, move=Move("p", 7, "20260101T000000"), attempts=5, first_failed_at=50.0)
    assert ledger.parked_one("p") == expected
    ledger.commit(Entry(parked=(replace(anew, move=Move("p", 9, "")),)))
    one = ledger.parked_one("p")
    assert one is not None
    assert (one.move.sequence, one.attempts) == (9, 7)


def test_what_is_dropped_stays_on_record_until_it_arrives_or_is_parked_again(
    ledger: Ledger,
) -> None:
    everybody = tuple(parked(name) for name in ("a", "b", "c"))
    ledger.commit(Entry(parked=everybody))
    ledger.commit(Entry(dropped=("a", "b", "c", "nobody"), dropped_at=500.0))
    assert list(ledger.parked()) == []
    assert list(ledger.parked(dropped=True)) == list(everybody)
    assert ledger.dropped_count() == 3
    ledger.commit(Entry(unparked=("a",)))
    ledger.commit(Entry(parked=(parked("c"),)))
    assert [one.move.instance_id for one in ledger.parked(dropped=True)] == ["b"]
    assert [ledger.is_put_aside(name) for name in ("a", "b", "c")] == [False, True, True]
    assert [ledger.may_go(name) for name in ("a", "b", "c")] == [True, True, False]


def test_what_is_finished_is_not_unfinished(ledger: Ledger) -> None:
    ledger.commit(Entry(attempts={"a": Attempts(1, 5.0), "b": Attempts(2, 6.0)}))
    assert not ledger.may_go("b")
    ledger.commit(Entry(attempts={"b": Attempts(3, 9.0)}, finished=("a", "x")))
    assert ledger.attempts() == {"b": Attempts(3, 6.0)}
    assert ledger.may_go("a")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6])
def test_pages_of_everything_pass_nobody_over(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(bridge.ledger.store, "PAGE_ROWS_MAX", 2)
    those = [f"i{number}" for number in range(count)]
    ledger.commit(Entry(parked=tuple(map(parked, those)), kept=tuple(map(kept, those[::-1]))))
    assert [one.move.instance_id for one in ledger.parked()] == those
    # What is parked is no proof, whatever was delivered before.
    ledger.commit(Entry(unparked=tuple(those), kept=tuple(map(kept, those[::-1]))))
    assert [one.instance_id for one in ledger.all_kept()] == those
    ledger.commit(Entry(parked=tuple(map(parked, those))))
    ledger.commit(Entry(dropped=tuple(those), dropped_at=1.0))
    assert [one.move.instance_id for one in ledger.parked(dropped=True)] == those


# What was delivered and is still at the source


def test_an_age_is_reached_to_the_second_and_the_oldest_come_first(ledger: Ledger) -> None:
    ledger.commit(
        Entry(
            kept=(
                kept("late", delivered_at=1.0, aged_from=30.0),
                kept("second", delivered_at=8.0, aged_from=10.0),
                kept("first", delivered_at=7.0, aged_from=10.0),
                kept("young", delivered_at=0.0, aged_from=30.1),
                kept("new", delivered_at=0.0, aged_from=None),
            )
        )
    )
    assert names(ledger, aged_before=30.0) == ["first", "second", "late"]
    assert names(ledger, aged_before=9.9) == []
    assert names(ledger, limit=2) == ["first", "second"]
    ledger.begin_ages(20.0)
    assert names(ledger, aged_before=20.0) == ["first", "second", "new"]
    ledger.begin_ages(5.0)
    assert names(ledger, aged_before=19.0) == ["first", "second"], "an age begins once"


def test_parked_or_unfinished_ones_are_not_listed(ledger: Ledger) -> None:
    ledger.commit(Entry(kept=(kept("a"), kept("b"), kept("c"))))
    ledger.commit(Entry(parked=(parked("a"),), attempts={"b": Attempts(1, 1.0)}))
    assert names(ledger) == ["c"]
    ledger.commit(Entry(unparked=("a",), finished=("b",)))
    assert names(ledger) == ["b", "c"], "what was parked is no proof any more"


def test_what_was_delivered_anew_is_neither_forgotten_nor_changed_with_the_old(
    ledger: Ledger,
) -> None:
    old = kept("a", delivered_at=1.0)
    new = replace(old, delivered_at=2.0, source_md5="c")
    ledger.commit(Entry(kept=(old,)))
    ledger.commit(Entry(kept=(new,)))
    ledger.commit(Entry(not_kept=(old,)))
    ledger.postpone(old, 99.0, missed=MissedAt.SOURCE)
    ledger.note_files(replace(old, source_file="x", target_file="y", aged_from=99.0))
    ledger.deleted(old, now=0.0)
    assert list(ledger.all_kept()) == [new]
    ledger.postpone(new, 99.0, missed=MissedAt.SOURCE)
    assert list(ledger.all_kept()) == [replace(new, aged_from=99.0, missed=MissedAt.SOURCE)]
    ledger.note_files(replace(new, source_file="x", target_file="y", aged_from=88.0))
    ledger.postpone(new, 77.0)
    (one,) = ledger.all_kept()
    assert one == replace(new, source_file="x", target_file="y", aged_from=77.0)
    ledger.deleted(new, now=0.0)
    assert list(ledger.all_kept()) == []


def test_evidence_that_comes_with_what_takes_it_away_stays(ledger: Ledger) -> None:
    """Parked and delivered in one transaction: the delivery was the last."""
    old = kept("a", delivered_at=1.0)
    new = replace(old, delivered_at=2.0)
    ledger.commit(Entry(kept=(old,)))
    ledger.commit(Entry(parked=(parked("a"),), not_kept=(old,), kept=(new,)))
    assert list(ledger.all_kept()) == [new]


def test_deletions_are_counted_by_the_minute_for_two_days(ledger: Ledger) -> None:
    two_days_s = 2 * 24 * 3600.0
    for now in (0.0, 59.9, 60.0, two_days_s):
        ledger.deleted(kept("a"), now=now)
    assert ledger.deletions_since(0.0) == 4
    assert ledger.deletions_since(59.0) == 4, "a minute too many"
    assert ledger.deletions_since(60.0) == 2
    assert ledger.deletions_since(two_days_s + 60.0) == 0
    ledger.deleted(kept("a"), now=two_days_s + 60.0)
    assert ledger.deletions_since(0.0) == 3, "what is older than two days is forgotten"


# Transactions, and the file


def test_after_an_error_of_ours_the_next_transaction_begins(ledger: Ledger) -> None:
    for _ in range(3):
        with pytest.raises(StateError):
            ledger.commit(Entry(settled=(5,), recent=((1, "a"), (object(), "b"))))  # type: ignore[arg-type]
    assert ledger.settled_above() == []
    ledger.commit(Entry(settled=(6,)))
    assert ledger.settled_above() == [6]


def test_a_texts_is_remembered_replaced_and_forgotten(ledger: Ledger) -> None:
    for value in ("one", "two", None, None, ""):
        ledger.set_meta("key", value)
        assert ledger.meta("key") == value


def test_a_power_cut_costs_no_more_than_the_last_transactions(ledger: Ledger) -> None:
    """NORMAL: with OFF it may cost the whole file."""
    assert ledger._db.execute("PRAGMA synchronous").fetchone()[0] == 1
    assert ledger._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_whoever_finds_the_file_busy_waits(ledger: Ledger) -> None:
    waits_ms = ledger._db.execute("PRAGMA busy_timeout").fetchone()[0]
    assert waits_ms == 1000 * bridge.ledger.store.BUSY_TIMEOUT_S == 10_000


def test_the_lock_names_its_holder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    (tmp_path / "state.lock").write_text("123456789012345678 and more\n")
    with locked(path):
        assert (tmp_path / "state.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(StateError, match=rf"another bridge \(process {os.getpid()}\)"):
            locked(path)
    with locked(path):
        pass


def test_who_cannot_open_the_file_gives_the_lock_up(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"no database at all".ljust(5000, b"."))
    with pytest.raises(StateError) as caught:
        Ledger(path, follow=True)
    path.unlink()
    Ledger(path, follow=True).close()
    assert caught.tb is not None, "whoever keeps the error keeps nothing locked"
