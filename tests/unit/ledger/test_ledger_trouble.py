"""The ledger: older and newer schemas, unusable places, damage, full disks, many processes."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridge.errors import StateError
from bridge.ledger.records import Entry
from bridge.ledger.store import SCHEMA_VERSION, Ledger
from tests.bridge_process import process_environment
from tests.ledger_rows import parked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "down" / "state.sqlite3"


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
    from bridge.ledger.store import _statements

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
        assert "Move it away" in refused.value.advice
    assert path.read_text() == "no database " * 100


def test_a_damaged_database_is_explained(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.commit(Entry(parked=tuple(parked(f"i{n:04}") for n in range(500))))
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StateError, match="malformed") as damaged, Ledger(path) as ledger:
        list(ledger.parked())
    assert "Move it away" in damaged.value.advice


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


def test_a_disk_that_has_no_room_for_the_lock_is_explained(path: Path) -> None:
    path.parent.mkdir(parents=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(StateError) as full:
            Ledger(path, follow=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert full.value.exit_code == 12
    assert "BRIDGE_STATE_PATH" in full.value.advice
    Ledger(path, follow=True).close()  # nothing holds the lock


WRITER = """
import sys, pathlib
from bridge.model import Move, Reason
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger

with Ledger(pathlib.Path(sys.argv[1])) as ledger:
    for number in range(100):
        row = Parked(Move(f"{sys.argv[2]}-{number}"), Reason.VIDEO, "", 1, 1.0, 1.0)
        ledger.commit(Entry(parked=(row,)))
"""


def test_a_second_bridge_is_refused_by_whatever_name(path: Path, tmp_path: Path) -> None:
    link, directory = tmp_path / "linked.sqlite3", tmp_path / "elsewhere"
    with Ledger(path, follow=True):
        link.symlink_to(path)
        directory.symlink_to(path.parent)
        for name in (path, link, directory / path.name, path.parent / ".." / "down" / path.name):
            with pytest.raises(StateError, match="in use by another bridge"):
                Ledger(name, follow=True)
    Ledger(link, follow=True).close()


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
