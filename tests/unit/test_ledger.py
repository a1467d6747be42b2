"""The ledger: fresh and reopened, shared and locked, migrated and refused, damaged and full."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridge.core.errors import EXIT_STATE, StateError
from bridge.core.model import Move, Reason
from bridge.ledger import PAGE_ROWS_MAX, SCHEMA_VERSION, Attempts, Entry, Ledger, Parked
from tests.bridge_process import process_environment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "down" / "state.sqlite3"


def parked(
    instance: str,
    *,
    reason: Reason = Reason.UNDECODABLE,
    attempts: int = 1,
    parked_at: float = 100.0,
    sequence: int | None = 7,
) -> Parked:
    return Parked(
        Move(instance, sequence, "20200101T120000"),
        reason,
        "cannot be decoded",
        attempts,
        first_failed_at=50.0,
        parked_at=parked_at,
        source_syntax="1.2.840.10008.1.2.4.90",
        sop_instance_uid="1.2.3",
    )


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
        ledger.commit(Entry(checkpoint=0, settled=(3, 5, 9), recent=((3, "a"), (9, "b"))))
        ledger.commit(Entry(checkpoint=5, recent_from=4))
        assert ledger.settled_above() == [9]
        assert ledger.recent() == {9: "b"}


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
        "import sys, pathlib, bridge.ledger as l\n"
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


def test_a_newer_schema_is_refused_untouched(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    for follow in (False, True):
        with pytest.raises(StateError, match=f"schema {SCHEMA_VERSION + 1}"):
            Ledger(path, follow=follow)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.close()
    Ledger(path, follow=True).close()  # the refusal gave the lock back


@pytest.mark.parametrize("version", range(SCHEMA_VERSION))
def test_an_older_schema_is_brought_up_to_date_with_its_content(path: Path, version: int) -> None:
    from bridge.ledger import _statements

    path.parent.mkdir(parents=True)
    db = sqlite3.connect(path)
    for step in range(1, version + 1):
        db.executescript(_statements()[f"schema_{step}"])
    if version:
        db.execute("INSERT INTO meta VALUES ('checkpoint', '41')")
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()
    with Ledger(path) as ledger:
        assert ledger.checkpoint() == (41 if version else None)
        ledger.commit(Entry(checkpoint=42, settled=(50,), parked=(parked("p"),)))
    fresh = path.with_name("fresh.sqlite3")
    Ledger(fresh).close()
    assert _schema(path) == _schema(fresh)


def _schema(path: Path) -> list[tuple[str, str]]:
    db = sqlite3.connect(path)
    rows = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return [*rows, ("version", str(version))]


def test_a_file_that_is_no_database(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("no database " * 100)
    for follow in (True, False):
        with pytest.raises(StateError, match="not a database") as refused:
            Ledger(path, follow=follow)
        assert "Keep it aside" in refused.value.advice
    assert path.read_text() == "no database " * 100


def test_a_damaged_database_is_explained(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=tuple(parked(f"i{n:04}") for n in range(500))))
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StateError, match="malformed") as damaged, Ledger(path) as ledger:
        list(ledger.parked())
    assert "Keep it aside" in damaged.value.advice


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    "where",
    ["/proc/nowhere/state.sqlite3", "/dev/null/state.sqlite3", "/proc/state.sqlite3", "/", "."],
)
def test_a_place_that_cannot_be_written(where: str, follow: bool) -> None:
    with pytest.raises(StateError) as refused:
        Ledger(Path(where), follow=follow)
    assert refused.value.exit_code == 12
    assert "BRIDGE_STATE_PATH" in str(refused.value)


@pytest.mark.parametrize("follow", [True, False])
def test_a_directory_in_the_place_of_the_file(tmp_path: Path, follow: bool) -> None:
    with pytest.raises(StateError, match="BRIDGE_STATE_PATH"):
        Ledger(tmp_path, follow=follow)


@pytest.mark.parametrize("create", [True, False])
def test_a_name_that_is_too_long(tmp_path: Path, create: bool) -> None:
    with pytest.raises(StateError, match="BRIDGE_STATE_PATH"):
        Ledger(tmp_path / ("x" * 300), create=create)


def test_a_file_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="BRIDGE_STATE_PATH"):
        Ledger(tmp_path / "file" / "state.sqlite3", follow=True)


def test_a_full_disk_is_explained_and_passes(path: Path) -> None:
    """A limit on the size of files does to SQLite what a full disk does."""
    rows = tuple(parked(f"i{n:05}") for n in range(3000))
    with Ledger(path) as ledger:
        ledger.commit(Entry(checkpoint=1))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(StateError) as full:
                ledger.commit(Entry(checkpoint=2, parked=rows))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert full.value.exit_code == 12
        assert full.value.advice
        assert ledger.checkpoint() == 1
        assert ledger.parked_by_reason() == {}
        ledger.commit(Entry(checkpoint=2, parked=rows))
        assert ledger.checkpoint() == 2
        assert ledger.parked_by_reason() == {"undecodable": 3000}


WRITER = """
import sys, pathlib
from bridge.core.model import Move, Reason
from bridge.ledger import Entry, Ledger, Parked

with Ledger(pathlib.Path(sys.argv[1])) as ledger:
    for number in range(100):
        row = Parked(Move(f"{sys.argv[2]}-{number}"), Reason.VIDEO, "", 1, 1.0, 1.0)
        ledger.commit(Entry(parked=(row,)))
"""


def test_several_processes_write_at_once(path: Path) -> None:
    with Ledger(path, follow=True) as ledger:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), name], env=process_environment({})
            )
            for name in ("replay", "retry")
        ]
        checkpoint = 0
        while any(writer.poll() is None for writer in writers):
            checkpoint += 1
            ledger.commit(Entry(checkpoint=checkpoint))
        assert [writer.returncode for writer in writers] == [0, 0]
        assert ledger.parked_by_reason() == {"video": 200}
        assert ledger.checkpoint() == checkpoint > 1


def test_several_processes_create_it_at_once(path: Path) -> None:
    path.parent.mkdir(parents=True)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"w{number}"], env=process_environment({})
        )
        for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    with Ledger(path, create=False) as ledger:
        assert ledger.parked_by_reason() == {"video": 400}


def test_a_reader_in_another_thread_sees_whole_transactions(path: Path) -> None:
    Ledger(path).close()
    over = threading.Event()
    torn: list[tuple[int, int]] = []

    def read() -> None:
        with Ledger(path, create=False) as reader:
            while not over.is_set():
                count = sum(reader.parked_by_reason().values())
                if count % 10:
                    torn.append((count, 0))

    thread = threading.Thread(target=read)
    thread.start()
    with Ledger(path) as ledger:
        for number in range(50):
            rows = tuple(parked(f"{number}-{n}") for n in range(10))
            ledger.commit(Entry(parked=rows))
    over.set()
    thread.join()
    assert torn == []
