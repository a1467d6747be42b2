"""What was put off while the machine's clock was ahead waits no longer than a pause lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.ledger.records import DeliveryRecord, Entry
from bridge.ledger.store import Ledger
from bridge.mirror.beside_files import INTERVALS_S, LONGEST_S, retry_after_s, waits_still

NOW = 1e9
AHEAD = [LONGEST_S + 1.0, 365 * 86_400.0, 10 * 365 * 86_400.0]
IDS = [f"{number:08x}-00000000-00000000-00000000-00000000" for number in range(3)]


@pytest.mark.parametrize("ahead_s", AHEAD)
def test_resources_and_signs_are_due(tmp_path: Path, ahead_s: float) -> None:
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        for one in IDS:
            ledger.set_carry_waiting(one, now=NOW + ahead_s, next_at=NOW + ahead_s + INTERVALS_S[0])
            record = DeliveryRecord(one, "a" * 32, "a" * 32, NOW + ahead_s, to_sign=True)
            ledger.commit(Entry(delivered=(record,)))
        for due in ledger.signs_due(NOW + ahead_s, 9, longest_s=LONGEST_S):
            ledger.postpone_sign(due, next_at=NOW + ahead_s + INTERVALS_S[0])
        assert ledger.carry_due(NOW, 9, longest_s=LONGEST_S) == IDS
        signs = ledger.signs_due(NOW, 9, longest_s=LONGEST_S)
        assert [due.instance_id for due in signs] == IDS
        assert ledger.carry_due(NOW + ahead_s, 9, longest_s=LONGEST_S) == [], "it is a pause"
        assert ledger.signs_due(NOW + ahead_s, 9, longest_s=LONGEST_S) == []


@pytest.mark.parametrize("tries", [1, 2, len(INTERVALS_S), 50])
def test_a_pause_holds_no_longer_than_its_own_length(tries: int) -> None:
    pause_s = retry_after_s(tries - 1)
    assert waits_still(tries, NOW + pause_s, now=NOW)
    assert waits_still(tries, NOW + 1.0, now=NOW)
    assert not waits_still(tries, NOW, now=NOW)
    for ahead_s in (1.0, *AHEAD):
        assert not waits_still(tries, NOW + ahead_s + pause_s, now=NOW)
