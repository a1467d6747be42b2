"""The ledger: fresh and reopened, its transactions, its pages, its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import EXIT_STATE, StateError
from bridge.ledger.records import UNKNOWN_VERSIONS, Attempts, Entry, Parked
from bridge.ledger.store import PAGE_ROWS_MAX, Ledger
from bridge.model import Move, Reason
from tests.bridge_process import process_environment
from tests.ledger_rows import parked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "down" / "state.sqlite3"


def test_a_fresh_ledger_is_empty_and_makes_its_directory(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.checkpoint() is None
        assert ledger.settled_above() == []
        assert ledger.recent() == {}
        assert ledger.attempts() == {}
        assert list(ledger.parked()) == []
        assert ledger.parked_by_reason() == {}
        assert ledger.meta("anything") is None


def test_everything_survives_a_restart(path: Path) -> None:
    entry = Entry(
        checkpoint=5,
        settled=(7, 9),
        parked=(parked("p"),),
        attempts={"a": Attempts(2, 33.5)},
        recent=((5, "i5"), (7, "i7")),
    )
    with Ledger(path, follow=True) as ledger:
        ledger.commit(entry)
        ledger.set_meta("note", "kept")
    with Ledger(path, follow=True) as ledger:
        assert ledger.checkpoint() == 5
        assert ledger.settled_above() == [7, 9]
        assert ledger.recent() == {5: "i5", 7: "i7"}
        assert ledger.attempts() == {"a": Attempts(2, 33.5)}
        assert list(ledger.parked()) == [parked("p")]
        assert ledger.meta("note") == "kept"


def test_a_checkpoint_forgets_what_lies_below(path: Path) -> None:
    with Ledger(path) as ledger:
        recent = tuple((sequence, f"i{sequence}") for sequence in range(3, 100))
        ledger.commit(Entry(checkpoint=0, settled=(3, 5, 9), recent=recent))
        ledger.commit(Entry(checkpoint=5, recent_from=4))
        assert ledger.settled_above() == [9]
        assert ledger.recent() == dict(recent[1:])


def test_the_last_instances_are_remembered_however_far_the_checkpoint_is_beyond(path: Path) -> None:
    with Ledger(path) as ledger:
        recent = tuple((sequence, f"i{sequence}") for sequence in range(3, 100))
        ledger.commit(Entry(checkpoint=99, recent=recent))
        ledger.commit(Entry(checkpoint=5000, recent_from=4000))
        assert ledger.recent() == dict(recent[-64:])


def test_an_entry_without_a_checkpoint_leaves_it(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(checkpoint=5))
        ledger.commit(Entry(settled=(8,)))
        assert ledger.checkpoint() == 5


def test_a_new_history_keeps_parked_and_attempts(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(
            Entry(
                checkpoint=5,
                settled=(7,),
                recent=((5, "i"),),
                parked=(parked("p"),),
                attempts={"a": Attempts(1, 1.0)},
            )
        )
        ledger.restart_at(3)
        assert ledger.checkpoint() == 3
        assert ledger.settled_above() == []
        assert ledger.recent() == {}
        assert ledger.meta("history_from") == "3"
        assert ledger.parked_one("p") is not None
        assert ledger.attempts() == {"a": Attempts(1, 1.0)}


def test_attempts_are_counted_from_the_first_failure_until_the_end(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(attempts={"a": Attempts(1, 10.0), "b": Attempts(1, 10.0)}))
        ledger.commit(Entry(attempts={"a": Attempts(2, 99.0)}, finished=("b",)))
        assert ledger.attempts() == {"a": Attempts(2, 10.0)}


def test_parking_again_adds_up_and_keeps_what_it_knew(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=(parked("p", attempts=3, parked_at=100.0),)))
        again = Parked(Move("p"), Reason.TIMED_OUT, "too slow", 2, 150.0, 200.0)
        ledger.commit(Entry(parked=(again,)))
        known = ledger.parked_one("p")
    assert known is not None
    assert known.attempts == 5
    assert (known.reason, known.message, known.parked_at) == (Reason.TIMED_OUT, "too slow", 200.0)
    assert known.first_failed_at == 50.0
    assert known.move.sequence == 7, "a retry does not know the sequence, the first time did"


def test_unparked_is_gone(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=(parked("p"), parked("q"))))
        ledger.commit(Entry(unparked=("p", "never-parked")))
        assert [p.move.instance_id for p in ledger.parked()] == ["q"]
        assert ledger.parked_one("p") is None


def test_parked_are_filtered_by_reason_and_age(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(
            Entry(
                parked=(
                    parked("old", parked_at=10.0),
                    parked("new", parked_at=20.0),
                    parked("video", parked_at=10.0, reason=Reason.VIDEO),
                )
            )
        )

        def names(reason: Reason | None = None, before: float | None = None) -> list[str]:
            return [p.move.instance_id for p in ledger.parked(reason=reason, parked_before=before)]

        assert names() == ["new", "old", "video"]
        assert names(Reason.UNDECODABLE) == ["new", "old"]
        assert names(before=10.0) == ["old", "video"]
        assert names(Reason.VIDEO, 9.9) == []
        assert ledger.parked_by_reason() == {"undecodable": 2, "video": 1}


@pytest.mark.parametrize("count", [PAGE_ROWS_MAX - 1, PAGE_ROWS_MAX, 2 * PAGE_ROWS_MAX + 3])
def test_pages_of_parked_pass_nobody_over(path: Path, count: int) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=tuple(parked(f"i{number:05}") for number in range(count))))
        names = [p.move.instance_id for p in ledger.parked()]
        assert names == [f"i{number:05}" for number in range(count)]
        unparked_meanwhile = ledger.parked()
        first = next(unparked_meanwhile).move.instance_id
        ledger.commit(Entry(unparked=(first,)))
        assert len(list(unparked_meanwhile)) == count - 1


def test_a_transaction_is_written_as_a_whole_or_not_at_all(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(checkpoint=1))
        bad = Entry(checkpoint=9, settled=(12,), recent=((3, None),))  # type: ignore[arg-type]
        with pytest.raises(StateError):
            ledger.commit(bad)
        assert ledger.checkpoint() == 1
        assert ledger.settled_above() == []
        ledger.commit(Entry(checkpoint=2))
        assert ledger.checkpoint() == 2


def test_a_second_follower_is_refused_and_others_are_not(path: Path) -> None:
    with Ledger(path, follow=True) as follower:
        follower.commit(Entry(checkpoint=4))
        with pytest.raises(StateError) as refused:
            Ledger(path, follow=True)
        assert refused.value.exit_code == EXIT_STATE == 12
        assert f"process {os.getpid()}" in str(refused.value)
        assert "BRIDGE_STATE_PATH" in str(refused.value)
        with Ledger(path) as beside:  # replay
            assert beside.checkpoint() == 4
            beside.commit(Entry(parked=(parked("p"),)))
        with Ledger(path, create=False) as beside:  # status
            assert beside.parked_one("p") is not None
        assert follower.parked_one("p") is not None
        follower.commit(Entry(checkpoint=5))
    with Ledger(path, follow=True) as next_one:
        assert next_one.checkpoint() == 5


def test_the_lock_goes_with_the_process_however_it_ends(path: Path) -> None:
    script = (
        "import sys, pathlib, bridge.ledger.store as l\n"
        "held = l.Ledger(pathlib.Path(sys.argv[1]), follow=True)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        env=process_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(StateError, match=f"process {holder.pid}"):
        Ledger(path, follow=True)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    Ledger(path, follow=True).close()


def test_closing_twice_is_harmless(path: Path) -> None:
    ledger = Ledger(path, follow=True)
    ledger.close()
    ledger.close()
    Ledger(path, follow=True).close()


def test_without_a_file_create_false_says_what_to_do(path: Path) -> None:
    with pytest.raises(StateError, match="no state file at BRIDGE_STATE_PATH") as refused:
        Ledger(path, create=False)
    assert "orthanc-bridge run" in str(refused.value)
    assert not path.parent.exists()


def _parked_rows(ledger: Ledger) -> dict[str, tuple[int, int, float]]:
    return {p.move.instance_id: (p.retries, p.attempts, p.parked_at) for p in ledger.parked()}


def test_a_retry_is_noted_before_it_begins_and_once(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=(parked("p"), parked("q"))))
        known = ledger.parked_one("p")
        assert known is not None
        assert ledger.begin_retry(known, now=500.0, meta=("key", "value"))
        assert ledger.meta("key") == "value"
        assert not ledger.begin_retry(known, now=501.0, meta=("key", "other")), "it has begun"
        assert ledger.meta("key") == "value"
        begun = ledger.parked_one("p")
        assert begun == replace(known, retries=1, tried_at=500.0)
        ledger.commit(Entry(unparked=("q",)))
        assert not ledger.begin_retry(replace(known, move=Move("q")), now=502.0)


def test_what_a_retry_has_brought_changes_only_what_was_tried(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=tuple(parked(name, attempts=3) for name in "abc")))
        before = {name: ledger.parked_one(name) for name in "abc"}
        for known in before.values():
            assert known is not None
            assert ledger.begin_retry(known, now=500.0)
        ledger.commit(Entry(dropped=("a",), dropped_at=600.0))
        ledger.commit(Entry(parked=(parked("b", attempts=2, parked_at=700.0),)))
        ledger.commit(
            Entry(parked=tuple(replace(parked(name, attempts=1), retries=1) for name in "abc"))
        )
        rows = _parked_rows(ledger)
        assert sorted(rows) == ["b", "c"], "a was dropped"
        assert rows["b"] == (0, 5, 700.0), "b was parked anew"
        assert rows["c"][:2] == (1, 4)
        assert [p.move.instance_id for p in ledger.parked(dropped=True)] == ["a"]


def test_what_was_parked_by_an_older_bridge_was_tried_when_it_was_parked(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=(parked("p", parked_at=100.0),)))
        ledger._db.execute("DROP INDEX parked_to_retry")
        ledger._db.execute("DROP INDEX parked_untold")
        ledger._db.execute("DROP INDEX kept_missed_at_target")
        for column in ("retries", "tried_at", "bridge_version", "codec_versions", "told"):
            ledger._db.execute(f"ALTER TABLE parked DROP COLUMN {column}")
        # Of later steps.
        for table in ("study_instance", "study", "carried", "carry_waiting", "outbox", "sign_due"):
            ledger._db.execute(f"DROP TABLE {table}")
        ledger._db.execute("PRAGMA user_version = 7")
    with Ledger(path) as ledger:
        known = ledger.parked_one("p")
        assert known is not None
        assert (known.retries, known.tried_at) == (0, 100.0)
        assert known.tried_by == UNKNOWN_VERSIONS
