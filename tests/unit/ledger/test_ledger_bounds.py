"""Bounds of what the ledger holds and gives, each at its edge."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import StateError
from bridge.ledger import copies
from bridge.ledger.copies import ASIDE, back_up, restore
from bridge.ledger.records import Entry
from bridge.ledger.store import CELL_CHARACTERS_MAX, METAS_MAX, MOMENT_MAX, Ledger
from tests.ledger_rows import parked


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "state") as made:
        yield made


def test_so_many_remembered_texts_are_listed(ledger: Ledger) -> None:
    with ledger._transaction():
        for number in range(METAS_MAX):
            ledger._set_meta(f"mark:{number:05}", f"text {number}")
    assert len(ledger.metas("mark:")) == METAS_MAX
    ledger.set_meta("mark:99999", "one more")
    found = ledger.metas("mark:")
    assert (found[0], found[-1]) == ("text 0", f"text {METAS_MAX - 1}")


def test_a_text_longer_than_any_of_ours_was_not_written_by_us(ledger: Ledger) -> None:
    longest = "x" * CELL_CHARACTERS_MAX
    ledger.set_meta("a", longest)
    assert ledger.meta("a") == longest
    ledger.set_meta("a", longest + "x")
    with pytest.raises(StateError):
        ledger.meta("a")


def test_the_last_moment_is_the_last_one_of_which_a_date_can_be_made(ledger: Ledger) -> None:
    ledger.commit(Entry(parked=(parked("a", parked_at=MOMENT_MAX),)))
    assert [one.parked_at for one in ledger.newest_parked(3)] == [MOMENT_MAX]
    ledger.commit(Entry(parked=(parked("b", parked_at=MOMENT_MAX + 1),)))
    with pytest.raises(StateError):
        ledger.newest_parked(3)


def test_no_state_that_was_put_aside_is_ever_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restoring again and again within one second: each keeps its name, or nothing is restored."""
    monkeypatch.setattr(copies, "ASIDE_MAX", 3)

    class Still(copies.datetime):  # type: ignore[name-defined,misc]
        @classmethod
        def now(cls, tz: object = None) -> Still:
            return cls(2026, 11, 30, tzinfo=tz)

    monkeypatch.setattr(copies, "datetime", Still)
    path, copy = tmp_path / "state", tmp_path / "copy"
    Ledger(path).close()
    back_up(path, copy)

    def aside() -> dict[str, bytes]:
        found = tmp_path.glob(f"state{ASIDE}*")
        return {one.name: one.read_bytes() for one in found}

    for number in range(3):
        with Ledger(path) as ledger:
            ledger.set_meta("which", f"number {number}")
        restore(copy, path, adopt=lambda _before, _restored: None)
    kept = aside()
    assert [int(re.findall(rb"number (\d)", kept[name])[0]) for name in sorted(kept)] == [0, 1, 2]
    with Ledger(path) as ledger:
        ledger.set_meta("which", "number 3")
    with pytest.raises(StateError, match="too many files were restored within this second"):
        restore(copy, path, adopt=lambda _before, _restored: None)
    assert aside() == kept
    with Ledger(path) as ledger:
        assert ledger.meta("which") == "number 3", "it is still the one in use"
