"""Studies in the ledger: how many of their instances ended in which way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bridge.ledger.outbox import EventLedger
from bridge.ledger.records import EndedAs, Entry, Parked, StudyNote, StudyRecord, StudyTold
from bridge.ledger.store import STUDIES_FORGOTTEN_MAX, Ledger
from bridge.model import Move, Reason, Study
from bridge.monitoring.studies import PAGE_STUDIES, NoSuchPage, studies_page
from bridge.pipeline.journal import CommandJournal

A, B, C = (Study(f"1.2.{n}", identifier) for n, identifier in enumerate("abc"))


def identifier(number: int) -> str:
    text = f"{number:040x}"
    return "-".join(text[start : start + 8] for start in range(0, 40, 8))


def note(
    study: Study, instance: int, ended: EndedAs = EndedAs.DELIVERED, *, at: float = 100.0
) -> StudyNote:
    return StudyNote(study, identifier(instance), ended, at, 0.0)


def parked(instance: int) -> Parked:
    return Parked(Move(identifier(instance), instance), Reason.UNDECODABLE, "why", 1, 1.0, 2.0)


def counts(ledger: Ledger, study: Study) -> tuple[int, int, int]:
    (found,) = ledger.find_studies(study.uid, limit=2)
    return found.delivered, found.parked, found.skipped


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state.sqlite3")


def test_a_study_is_complete_when_it_is_stable_and_lacks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    with EventLedger(path) as ledger:
        ledger.commit(Entry(studies=(note(A, 1), note(B, 2), note(C, 3, EndedAs.PARKED))))
        for changed in ledger.changed_studies(after=0, limit=9, quiet_since=200.0, now=200.0):
            if changed.record.study != A:
                ledger.judged(changed, StudyTold(1), stable_at=200.0, notices=())
    page = studies_page(path)["studies"]
    assert isinstance(page, list)
    told = {one["uid"]: (one["stable"], one["complete"]) for one in page}
    assert told == {A.uid: (False, False), B.uid: (True, True), C.uid: (True, False)}


def test_each_instance_counts_once_as_it_ended_last(ledger: Ledger) -> None:
    ledger.commit(
        Entry(studies=(note(A, 1), note(A, 2, EndedAs.PARKED), note(A, 3, EndedAs.SKIPPED)))
    )
    assert counts(ledger, A) == (1, 1, 1)
    again = (note(A, 1), note(A, 2, at=120.0), note(A, 3), note(B, 4, EndedAs.PARKED, at=110.0))
    ledger.commit(Entry(studies=again))
    assert counts(ledger, A) == (3, 0, 0)
    ledger.commit(Entry(studies=(note(A, 1, EndedAs.PARKED),)))
    assert counts(ledger, A) == (2, 1, 0)
    (found,) = ledger.find_studies(A.uid, limit=2)
    assert found == StudyRecord(A, 100.0, 120.0, 2, 1, 0)
    assert found.seen == 3


def test_a_parked_one_that_is_gone_from_the_source_is_not_waited_for(ledger: Ledger) -> None:
    """Its file could not be read any more, so that no study comes with its end."""
    ended = tuple(note(A, n, EndedAs.PARKED) for n in (1, 2, 3))
    ledger.commit(Entry(studies=ended, parked=tuple(parked(n) for n in (1, 2, 3))))
    ledger.commit(Entry(unparked=(identifier(2),)))
    assert counts(ledger, A) == (0, 2, 1)
    ledger.commit(Entry(unparked=(identifier(1),), studies=(note(A, 1),)))
    assert counts(ledger, A) == (1, 1, 1)
    # One that a person drops has not arrived.
    ledger.commit(Entry(dropped=(identifier(3),), dropped_at=5.0))
    assert counts(ledger, A) == (1, 1, 1)
    assert list(ledger.parked_of_study(A.uid)) == []
    assert list(ledger.lacking_of_study(A.uid)) == [identifier(3)]


def test_the_identifier_of_the_target_is_learned_later_and_never_unlearned(ledger: Ledger) -> None:
    for told in ("", identifier(7), ""):
        ledger.commit(Entry(studies=(note(Study("1.2", told), 1),)))
    (found,) = ledger.find_studies(identifier(7), limit=2)
    assert found.study == Study("1.2", identifier(7))


def test_a_study_is_found_by_its_names_and_by_a_parked_instance(ledger: Ledger) -> None:
    ledger.commit(Entry(studies=(note(A, 1), note(B, 2, EndedAs.PARKED), note(C, 3))))
    for name, study in ((A.uid, A), (B.orthanc_id, B), (identifier(2), B), (C.uid, C)):
        assert [one.study for one in ledger.find_studies(name, limit=5)] == [study]
    for name in ("", "1.2", "%", identifier(9), identifier(1)):
        assert ledger.find_studies(name, limit=5) == []


def test_what_is_no_identifier_of_orthancs_is_not_kept(ledger: Ledger) -> None:
    strange = StudyNote(A, "../x", EndedAs.DELIVERED, 100.0, 0.0)
    ledger.commit(Entry(studies=(strange,), unparked=("../x",)))
    assert ledger.find_studies(A.uid, limit=1) == []


def test_the_newest_come_first_in_pages(tmp_path: Path) -> None:
    many = [Study(f"1.{n}", "") for n in range(PAGE_STUDIES * 2 + 3)]
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        for number, study in enumerate(many):
            # Three of each time: a page may end between two of the same time.
            ended = EndedAs.PARKED if number % 50 == 1 else EndedAs.DELIVERED
            ledger.commit(Entry(studies=(note(study, number, ended, at=100.0 + number // 3),)))
    seen: list[str] = []
    after = ""
    for size in (PAGE_STUDIES, PAGE_STUDIES, 3):
        page = studies_page(tmp_path / "state.sqlite3", after=after)
        found = page["studies"]
        assert isinstance(found, list)
        assert len(found) == size
        seen += [one["uid"] for one in found]
        after = str(page["older"])
    assert after == ""
    assert seen == [study.uid for study in reversed(many)]
    lacking = studies_page(tmp_path / "state.sqlite3", incomplete=True)["studies"]
    assert isinstance(lacking, list)
    assert [one["uid"] for one in lacking] == ["1.101", "1.51", "1.1"]


@pytest.mark.parametrize("after", ["x", "%", "1.2.999", "1" * 65, identifier(77), "1.1' OR 1"])
def test_a_page_that_there_is_none_of_is_refused(tmp_path: Path, after: str) -> None:
    """Not the first one again: whoever follows the pages would never come to an end."""
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(studies=(note(A, 1), note(B, 2))))
    with pytest.raises(NoSuchPage, match="Begin with the first page") as caught:
        studies_page(tmp_path / "state.sqlite3", after=after)
    assert after not in str(caught.value) or after == "x"


def test_studies_are_forgotten_by_age_and_a_few_at_a_time(ledger: Ledger) -> None:
    old = STUDIES_FORGOTTEN_MAX + 5
    for n in range(old):
        ledger.commit(Entry(studies=(note(Study(f"1.{n}", ""), n, at=float(n)),)))
    now = StudyNote(A, identifier(900), EndedAs.DELIVERED, 1000.0, float(old))
    ledger.commit(Entry(studies=(now,)))
    left = [one.study.uid for one in ledger.studies(limit=100)]
    assert left == [A.uid, *(f"1.{n}" for n in range(old - 1, STUDIES_FORGOTTEN_MAX - 1, -1))]
    ledger.commit(Entry(studies=(now,)))
    assert [one.study for one in ledger.studies(limit=100)] == [A]
    # What came again is young.
    assert counts(ledger, A) == (1, 0, 0)


def test_a_commands_journal_notes_them_too(ledger: Ledger) -> None:
    journal = CommandJournal(ledger)
    for n in (1, 2, 3):
        journal.settle(Move(identifier(n)), None, None, None, note(A, n))
    journal.flush()
    assert counts(ledger, A) == (3, 0, 0)


@pytest.mark.slow
def test_a_page_of_many_studies_takes_little_time_and_room(tmp_path: Path) -> None:
    """A twentieth of the bounds; python -m tests.benchmarks.studies measures the whole."""
    path = tmp_path / "state.sqlite3"
    studies, instances = 1000, 50
    with Ledger(path) as ledger:
        for s in range(studies):
            ended = [EndedAs.PARKED if s % 100 == 0 and i == 0 else EndedAs.DELIVERED
                     for i in range(instances)]  # fmt: skip
            notes = [
                StudyNote(
                    Study(f"1.2.840.99999.2026.{s:08}", identifier(s)),
                    identifier(((s * instances + i) * 2654435761) % 2**160),
                    ended[i],
                    1e9 + s,
                    0.0,
                )
                for i in range(instances)
            ]
            ledger.commit(Entry(studies=tuple(notes)))
    assert path.stat().st_size < 100e6 / 20
    fastest_s = float("inf")
    for _ in range(5):
        begun_s = time.perf_counter()
        page = studies_page(path)
        lacking = studies_page(path, incomplete=True)
        fastest_s = min(fastest_s, time.perf_counter() - begun_s)
    assert isinstance(page["studies"], list)
    assert isinstance(lacking["studies"], list)
    assert (len(page["studies"]), len(lacking["studies"])) == (PAGE_STUDIES, 10)
    assert fastest_s < 0.1


def test_it_is_on_record_up_to_when_studies_were_forgotten(ledger: Ledger) -> None:
    """It never goes back: a clock that is behind for a while changes nothing.

    Planted, seen to fail: not written; the last one counts.
    """
    assert ledger.studies_forgotten_before() is None
    for before, known in ((50.0, 50.0), (70.0, 70.0), (-1e9, 70.0)):
        told = StudyNote(A, identifier(1), EndedAs.DELIVERED, 100.0, before)
        ledger.commit(Entry(studies=(told,)))
        assert ledger.studies_forgotten_before() == known


@pytest.mark.parametrize(
    ("at", "last_at"), [(1e6 + 5, 1e6 + 5), (1e6 - 3000, 1e6), (1e6 - 4000, 1e6 - 4000)]
)
def test_the_last_arrival_comes_back_from_a_clock_that_was_ahead(
    ledger: Ledger, at: float, last_at: float
) -> None:
    """Planted, seen to fail: the latest moment stays for good."""
    ledger.commit(Entry(studies=(note(A, 1, at=1e6),)))
    ledger.commit(Entry(studies=(note(A, 2, at=at),)))
    (found,) = ledger.find_studies(A.uid, limit=2)
    assert found.last_at == last_at
    assert found.first_at == min(1e6, at)
