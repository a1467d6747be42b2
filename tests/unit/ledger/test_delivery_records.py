"""Records of deliveries: what the mirror may touch at the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.ledger.records import DeliveryRecord, Entry
from bridge.ledger.store import Ledger
from bridge.model import Move
from bridge.pipeline.journal import CommandJournal, Notes

RECORDS = [DeliveryRecord(f"i{n}", f"s{n}", f"t{n}", 100.0 + n) for n in (1, 2, 3)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "state" / "bridge.sqlite3")
    made.restart_at(0)
    return made


def test_records_are_kept_and_replaced(ledger: Ledger) -> None:
    ledger.commit(Entry(delivered=tuple(RECORDS)))
    assert [ledger.delivery_of(record.instance_id) for record in RECORDS] == RECORDS
    assert ledger.delivered_count() == 3
    assert ledger.delivery_of("i4") is None
    lacking = [replace(record, source_md5="new", lacking_since=7.5) for record in RECORDS]
    ledger.commit(Entry(delivered=tuple(lacking)))
    assert [ledger.delivery_of(record.instance_id) for record in RECORDS] == lacking
    assert (ledger.delivered_count(), ledger.lacking_count()) == (3, 3)
    ledger.forget_delivery("i2")
    assert (ledger.delivered_count(), ledger.delivery_of("i2")) == (2, None)


def test_an_outdated_instance_keeps_its_sums(ledger: Ledger) -> None:
    ledger.commit(Entry(delivered=tuple(RECORDS)))
    ledger.commit(Entry(outdated=("i1", "i2", "i3", "i4")))
    found = [ledger.delivery_of(record.instance_id) for record in RECORDS]
    assert found == [replace(record, outdated=True) for record in RECORDS]
    # Nothing was delivered of it: there is no record that it is ours.
    assert ledger.delivery_of("i4") is None


def test_records_are_about_one_target(ledger: Ledger) -> None:
    """Seen to fail where another target left them as they were."""
    ledger.commit(Entry(delivered=tuple(RECORDS)))
    assert ledger.bind_deliveries("http://target:8042") == 0, "nobody has said otherwise so far"
    assert ledger.bind_deliveries("http://target:8042") == 0
    assert ledger.delivered_count() == 3
    assert ledger.bind_deliveries("http://another:8042") == 3
    assert ledger.delivered_count() == 0
    ledger.commit(Entry(delivered=tuple(RECORDS[:2])))
    assert ledger.bind_deliveries("http://another:8042") == 0
    assert ledger.delivered_count() == 2
    assert ledger.bind_deliveries("http://target:8042") == 2, "and back"


def test_what_retention_took_stays_released_until_it_is_delivered_anew(ledger: Ledger) -> None:
    """A look that began before it must not take it back. Seen to fail without the condition."""
    ledger.commit(Entry(delivered=tuple(RECORDS)))
    for record in RECORDS:
        ledger.release_delivery(record.instance_id)
    ledger.commit(Entry(delivered=tuple(replace(r, lacking_since=7.5) for r in RECORDS)))
    found = [ledger.delivery_of(record.instance_id) for record in RECORDS]
    assert [one is not None and one.released for one in found] == [True] * 3
    ledger.commit(Entry(delivered=(replace(RECORDS[1], delivered_at=999.0),)))
    again = ledger.delivery_of("i2")
    assert again is not None
    assert not again.released


def test_after_the_source_lost_its_history_nothing_is_followed_until_it_is_delivered_anew(
    ledger: Ledger,
) -> None:
    """Seen to fail where the records stayed as they were."""
    lacking = [replace(record, lacking_since=7.5) for record in RECORDS]
    ledger.commit(Entry(delivered=tuple(lacking)))
    assert ledger.lacking_count() == 3
    ledger.commit(Entry(outdated=("i1", "i3")))
    ledger.release_all_deliveries()
    assert ledger.lacking_count() == 0
    one = ledger.delivery_of("i1")
    assert one is not None
    assert not one.outdated, "which of the two versions is the newer one is not known any more"
    assert ledger.delivered_count() == 3, "they are ours as before: what is damaged is repaired"
    ledger.commit(Entry(delivered=tuple(lacking)))
    found = [ledger.delivery_of(record.instance_id) for record in RECORDS]
    assert [one is not None and one.released for one in found] == [True] * 3
    ledger.commit(Entry(delivered=(replace(RECORDS[1], delivered_at=999.0),)))
    again = ledger.delivery_of("i2")
    assert again is not None
    assert not again.released


class FollowersNotes:
    """What a follower's journal notes, without the feed that it follows."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._notes = Notes()

    def settle(self, move: Move, parked: None, kept: None, record: DeliveryRecord) -> None:
        self._notes.finish(move, parked, kept, record)

    def flush(self) -> None:
        self._ledger.commit(self._notes.entry(checkpoint=7, recent_from=1))
        self._notes = Notes()


def journal_of(ledger: Ledger, kind: str) -> CommandJournal | FollowersNotes:
    return CommandJournal(ledger) if kind == "command" else FollowersNotes(ledger)


@pytest.mark.parametrize("kind", ["command", "follow"])
def test_a_journal_writes_records_with_what_is_settled(ledger: Ledger, kind: str) -> None:
    journal = journal_of(ledger, kind)
    for record in RECORDS:
        journal.settle(Move(record.instance_id), None, None, record)
    journal.flush()
    assert [ledger.delivery_of(record.instance_id) for record in RECORDS] == RECORDS


@pytest.mark.parametrize("kind", ["command", "follow"])
def test_an_instance_that_is_delivered_and_outdated_in_one_turn(ledger: Ledger, kind: str) -> None:
    journal = journal_of(ledger, kind)
    outdated = [replace(record, source_md5="", target_md5="", outdated=True) for record in RECORDS]
    for record, later in zip(RECORDS, outdated, strict=True):
        journal.settle(Move(record.instance_id), None, None, record)
        journal.settle(Move(record.instance_id), None, None, later)
    journal.flush()
    found = [ledger.delivery_of(record.instance_id) for record in RECORDS]
    assert found == [replace(record, outdated=True) for record in RECORDS]
    for record in RECORDS:
        journal.settle(Move(record.instance_id), None, None, record)
    journal.flush()
    assert [ledger.delivery_of(record.instance_id) for record in RECORDS] == RECORDS
