"""A state file in which somebody has written: what no bridge writes there is refused, not used."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import StateError
from bridge.ledger.records import Attempts, Entry, Kept
from bridge.ledger.store import Ledger
from bridge.model import Gap
from tests.ledger_rows import parked

STRANGE = (
    None,
    "",
    "x" * 70_000,
    "9" * 5_000,
    "\x1b[2J",
    b"\xff\xfe",
    b"",
    -1,
    2**63 - 1,
    1e308,
    -1e308,
    float("inf"),
    float("nan"),
    1.5,
)

READERS: dict[str, Callable[[Ledger], object]] = {
    "checkpoint": lambda ledger: ledger.checkpoint(),
    "settled": lambda ledger: ledger.settled_above(),
    "recent": lambda ledger: ledger.recent(),
    "attempts": lambda ledger: ledger.attempts(),
    "parked": lambda ledger: list(ledger.parked()),
    "parked_one": lambda ledger: ledger.parked_one("p"),
    "by_reason": lambda ledger: ledger.parked_by_reason(),
    "kept": lambda ledger: ledger.kept(aged_before=1e12, limit=10),
    "gaps": lambda ledger: ledger.gaps(),
    "dropped": lambda ledger: list(ledger.parked(dropped=True)),
    "given_up": lambda ledger: ledger.gaps_given_up(),
    "meta": lambda ledger: ledger.meta("history_from"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "state.sqlite3"
    with Ledger(made) as ledger:
        ledger.restart_at(1, recent=[(1, "a")], newest_date="20200101T000000")
        ledger.commit(
            Entry(
                checkpoint=1,
                settled=(5,),
                parked=(parked("p"),),
                gaps=(Gap(3, 4, 5.0),),
                gaps_given_up=1,
                attempts={"b": Attempts(1, 5.0)},
                kept=(Kept("k", "m", "m", 5.0, aged_from=5.0),),
            )
        )
    return made


def cells(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        return [(t, row[1]) for t in tables for row in db.execute(f"PRAGMA table_info({t})")]


def write(path: Path, table: str, column: str, value: object) -> bool:
    """Put a value into every row of a column; False where the schema does not have it."""
    db = sqlite3.connect(path)
    try:
        with db:
            db.execute(f"UPDATE {table} SET {column} = ?", (value,))  # noqa: S608
    except sqlite3.IntegrityError:
        return False
    finally:
        db.close()
    return True


def told_by(read: Callable[[Ledger], object], ledger: Ledger) -> str:
    try:
        return repr(read(ledger))
    except StateError as exc:
        return str(exc)


@pytest.mark.slow
def test_any_value_in_any_cell_is_read_within_bounds_or_refused(path: Path) -> None:
    whole = path.read_bytes()
    tried = 0
    for table, column in cells(path):
        for value in STRANGE:
            path.write_bytes(whole)
            tried += write(path, table, column, value)
            with Ledger(path) as ledger:
                for read in READERS.values():
                    assert len(told_by(read, ledger)) < 80_000
    assert tried > 200


@pytest.mark.parametrize(
    ("table", "column", "value", "reader"),
    [
        ("meta", "value", "x", "checkpoint"),
        ("meta", "value", "9" * 5_000, "checkpoint"),
        ("meta", "value", "-1", "checkpoint"),
        ("recent", "instance_id", b"\xff", "recent"),
        ("settled", "sequence", -1, "settled"),
        ("attempt", "attempts", "many", "attempts"),
        ("attempt", "first_failed_at", float("inf"), "attempts"),
        ("parked", "reason", "bored", "parked"),
        ("parked", "parked_at", 1e308, "parked"),
        ("parked", "parked_at", -1.0, "parked_one"),
        ("parked", "source_syntax", "1" * 70_000, "parked"),
        ("parked", "sequence", 1.5, "parked"),
        ("kept", "source_md5", b"x", "kept"),
        ("gap", "noted_at", "soon", "gaps"),
        ("meta", "value", "x", "given_up"),
        ("kept", "delivered_at", -1.0, "kept"),
    ],
)
def test_what_no_bridge_writes(
    path: Path, table: str, column: str, value: object, reader: str
) -> None:
    assert write(path, table, column, value)
    with Ledger(path) as ledger, pytest.raises(StateError, match="no bridge writes"):
        READERS[reader](ledger)


def test_a_value_that_the_database_does_not_take_ends_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        for entry in (
            Entry(settled=(2**63,)),
            Entry(recent=((7, "\ud800"),)),
            Entry(checkpoint=7, newest_date="\ud800"),
        ):
            with pytest.raises(StateError):
                ledger.commit(entry)
        assert ledger.checkpoint() == 1, "and nothing of it is written"
        ledger.commit(Entry(checkpoint=8))
        assert ledger.checkpoint() == 8
