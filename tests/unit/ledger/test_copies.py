"""Copies of the state file: made beside a running bridge, proved before they are put back."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError, StateError
from bridge.ledger import copies
from bridge.ledger.copies import back_up, look_at, restore
from bridge.ledger.records import Attempts, DeliveryRecord, Entry
from bridge.ledger.store import PAGE_ROWS_MAX, SCHEMA_VERSION, Ledger, _steps, schema_of
from tests.ledger_rows import parked

MANY = 5_000
"""Rows: many pages of SQLite."""
DELIVERED = 1000 + 3 * PAGE_ROWS_MAX - 7
"""With four digits each: the last one is in the last of several pages."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "state" / "bridge.sqlite3"
    with Ledger(found) as ledger:
        fill(ledger, checkpoint=5)
    return found


def fill(ledger: Ledger, *, checkpoint: int) -> None:
    ledger.commit(
        Entry(
            checkpoint=checkpoint,
            settled=tuple(range(checkpoint + 2, checkpoint + MANY)),
            parked=tuple(parked(f"p{number}") for number in range(3)),
            attempts={"a": Attempts(1, 1.0)},
            delivered=tuple(
                DeliveryRecord(f"d{number}", "1" * 32, "2" * 32, 1.0)
                for number in range(1000, DELIVERED)
            ),
        )
    )


def nothing(before: Ledger | None, restored: Ledger) -> None:
    """Adopt nothing."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def beside(path: Path) -> set[str]:
    return {one.name for one in path.parent.iterdir()}


def test_a_copy_is_one_private_file_with_everything(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    out.touch(0o666)
    found = back_up(path, out)
    assert found.rows["settled"] == MANY - 2
    assert (found.rows["parked"], found.rows["attempt"], found.meta["checkpoint"]) == (3, 1, "5")
    assert found.schema == SCHEMA_VERSION
    assert mode(out) == 0o600
    assert beside(out) == {"copy", "state"}


def test_a_running_bridge_is_copied_and_goes_on(path: Path, tmp_path: Path) -> None:
    """What is committed is in the copy, what is not is not; the next copy has it."""
    out = tmp_path / "copy"
    with Ledger(path, follow=True) as ledger:
        with ledger._transaction():
            ledger._db.execute("INSERT INTO settled VALUES (999999)")
            back_up(path, out)
        assert back_up(path, tmp_path / "later").rows["settled"] == MANY - 1
        ledger.commit(Entry(checkpoint=6))
        assert ledger.checkpoint() == 6
    with Ledger(out) as copy:
        assert 999999 not in copy.settled_above()
        assert copy.checkpoint() == 5


def test_a_copy_takes_the_place_of_an_older_one_when_it_is_whole(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "copy"
    out.write_text("the older one")

    def damaged(*_: object) -> None:
        raise StateError("damaged")

    monkeypatch.setattr(copies, "_check_pages", damaged)
    with pytest.raises(StateError):
        back_up(path, out)
    assert out.read_text() == "the older one"
    monkeypatch.undo()
    back_up(path, out)
    assert look_at(out).rows["parked"] == 3
    assert beside(out) == {"copy", "state"}


def test_a_copy_never_goes_through_a_link(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's")
    for name in ("copy", "copy.part"):
        (tmp_path / name).symlink_to(other)
    back_up(path, tmp_path / "copy")
    assert other.read_text() == "somebody's"
    assert not (tmp_path / "copy").is_symlink()


def test_the_state_file_is_no_place_for_its_copy(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        back_up(path, path)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        back_up(path, tmp_path / "nowhere" / "copy")
    with pytest.raises(StateError, match="no state file"):
        back_up(tmp_path / "none", tmp_path / "copy")


def test_what_is_restored_is_what_was_copied_and_the_one_before_is_kept(
    path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    back_up(path, out)
    with Ledger(path) as ledger:
        ledger.commit(Entry(checkpoint=4000, unparked=("p0", "p1")))
    aside = restore(out, path, adopt=nothing)
    assert aside is not None
    with Ledger(path) as ledger:
        assert ledger.checkpoint() == 5
        assert ledger.parked_by_reason() == {"undecodable": 3}
        assert len(ledger.settled_above()) == MANY - 2
    with Ledger(aside) as before:
        assert before.checkpoint() == 4000
    assert mode(path) == mode(aside) == 0o600
    assert out.exists(), "the copy stays"
    assert beside(path) == {path.name, f"{path.name}.lock", aside.name}


def test_two_restores_in_a_second_keep_both(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    back_up(path, out)
    kept = [restore(out, path, adopt=nothing) for _ in range(3)]
    assert len(set(kept)) == 3
    assert all(one is not None and one.exists() for one in kept)


def test_it_is_restored_where_nothing_was(path: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "copy", tmp_path / "new" / "state.sqlite3"
    back_up(path, out)
    assert restore(out, new, adopt=nothing) is None
    assert look_at(new).rows["parked"] == 3


def test_a_running_bridge_is_not_robbed_of_its_state(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    back_up(path, out)
    with Ledger(path, follow=True), pytest.raises(StateError, match="in use by another bridge"):
        restore(out, path, adopt=nothing)
    with Ledger(path), pytest.raises(StateError, match="in use by a command"):
        restore(out, path, adopt=nothing)
    restore(out, path, adopt=nothing)


def _no_database(copy: Path) -> None:
    copy.write_bytes(b"not a database" * 1000)


def _empty(copy: Path) -> None:
    copy.write_bytes(b"")


def _cut(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])


def _flipped(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    for place in range(8192, len(content), 4096):
        content[place : place + 64] = b"\xff" * 64
    copy.write_bytes(content)


def _newer(copy: Path) -> None:
    _run(copy, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def _other_program(copy: Path) -> None:
    copy.unlink()
    _run(copy, "CREATE TABLE theirs (x)", "PRAGMA user_version = 3")


def _lacking(copy: Path) -> None:
    _run(copy, "DROP TABLE attempt")


def _strange(copy: Path) -> None:
    _run(copy, "UPDATE parked SET reason = 'whatever' WHERE instance_id = 'p2'")


def _strange_delivery(copy: Path) -> None:
    """In the last of many records, pages behind the first ones."""
    _run(
        copy,
        """
        UPDATE delivered SET delivered_at = 'soon'
        WHERE instance_id = (SELECT max(instance_id) FROM delivered)
        """,
    )


def _run(copy: Path, *statements: str) -> None:
    db = sqlite3.connect(copy)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "spoil",
    [
        _no_database,
        _empty,
        _cut,
        _flipped,
        _newer,
        _other_program,
        _lacking,
        _strange,
        _strange_delivery,
    ],
)
def test_what_is_no_whole_state_file_is_refused_and_nothing_changes(
    path: Path, tmp_path: Path, spoil: object
) -> None:
    out = tmp_path / "copy"
    back_up(path, out)
    assert callable(spoil)
    spoil(out)
    content, names = path.read_bytes(), beside(path)
    with pytest.raises(StateError) as refused:
        restore(out, path, adopt=nothing)
    assert str(out) in refused.value.message
    assert ".part" not in str(refused.value)
    assert path.read_bytes() == content
    assert beside(path) - {f"{path.name}.lock"} == names


def test_a_link_and_a_directory_are_no_copies(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    back_up(path, out)
    (tmp_path / "link").symlink_to(out)
    for name in ("link", "state", "nothing"):
        with pytest.raises(StateError, match="is not a file"):
            restore(tmp_path / name, path, adopt=nothing)


@pytest.mark.parametrize("version", [1, 4, 6])
def test_an_older_copy_is_brought_up_to_date(path: Path, tmp_path: Path, version: int) -> None:
    out = tmp_path / "old"
    db = sqlite3.connect(out)
    for step in range(1, version + 1):
        for statement in _steps(step):
            db.execute(statement)
    db.execute("INSERT INTO meta VALUES ('checkpoint', '77')")
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()
    assert look_at(out).schema == version
    restore(out, path, adopt=nothing)
    with Ledger(path) as ledger:
        assert ledger.checkpoint() == 77
    assert look_at(path).schema == SCHEMA_VERSION
    assert look_at(out).schema == version, "the copy is as it was"


def test_a_damaged_state_file_is_kept_as_it_is_with_what_lies_beside_it(
    path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    back_up(path, out)
    path.write_bytes(b"damaged" * 100)
    path.with_name(f"{path.name}-wal").write_bytes(b"its log")
    asked: list[object] = []
    aside = restore(out, path, adopt=lambda before, _: asked.append(before))
    assert asked == [None]
    assert aside is not None
    assert aside.read_bytes() == b"damaged" * 100
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == b"its log"
    assert look_at(path).rows["parked"] == 3


@pytest.mark.parametrize("dies_at", ["_put_aside", "_sync", "_fold"])
def test_a_crash_leaves_one_of_both(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    """Without a state file at its place the next start would begin at BRIDGE_START."""
    out = tmp_path / "copy"
    back_up(path, out)
    with Ledger(path) as ledger:
        ledger.commit(Entry(checkpoint=4000))
    real = getattr(copies, dies_at)

    def dies(*arguments: object, **more: object) -> None:
        real(*arguments, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(copies, dies_at, dies)
    with pytest.raises(KeyboardInterrupt):
        restore(out, path, adopt=nothing)
    monkeypatch.undo()
    with Ledger(path, create=False) as ledger:
        assert ledger.checkpoint() in (5, 4000)
    restore(out, path, adopt=nothing)
    with Ledger(path, create=False) as ledger:
        assert ledger.checkpoint() == 5


def test_where_files_have_one_name_only_it_is_moved_aside(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    out = tmp_path / "copy"
    back_up(path, out)
    monkeypatch.setattr(os, "link", refuse)
    aside = restore(out, path, adopt=nothing)
    assert aside is not None
    assert look_at(aside).rows == look_at(path).rows


def test_to_look_at_a_file_writes_nothing(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    back_up(path, out)
    before = {one: one.stat().st_mtime_ns for one in (out, path)}
    for one in (out, path):
        look_at(one)
    assert {one: one.stat().st_mtime_ns for one in (out, path)} == before
    assert beside(out) == {"copy", "state"}
    with Ledger(path, follow=True) as ledger:
        ledger.commit(Entry(checkpoint=7))
        assert look_at(path).meta["checkpoint"] == "7", "what a bridge has written a moment ago"


def test_the_schema_of_every_version_is_known() -> None:
    assert ("table", "parked") in schema_of(1)
    assert ("table", "dropped") not in schema_of(5)
    assert schema_of(SCHEMA_VERSION) > schema_of(1) - {("index", "kept_by_age")}
