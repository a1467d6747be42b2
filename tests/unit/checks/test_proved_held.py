"""What a replay may leave out: never what is not proved to be at the target as a delivery is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest

from bridge.checks.proved_held import ProvedHeld
from bridge.errors import InstanceError, TargetError
from bridge.ledger.records import DeliveryRecord, Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason, SideProblem

NAMES = [f"{number:08x}-00000000-00000000-00000000-00000000" for number in range(9)]
MD5 = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


class Held:
    def __init__(self, *names: str) -> None:
        self.names = names

    def among(self, instance_ids: Sequence[str]) -> Collection[str]:
        return set(instance_ids) & set(self.names)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        yield ledger


def proved(ledger: Ledger, *names: str, md5: Callable[[str], str] | None = None) -> ProvedHeld:
    return ProvedHeld(Held(*names), state_path=ledger.path, stored_md5=md5)


def delivered(name: str, md5: str, *, outdated: bool = False) -> DeliveryRecord:
    return DeliveryRecord(name, MD5, md5, 1.0, outdated=outdated)


def test_what_the_target_names_is_proved_as_an_answer_is(ledger: Ledger) -> None:
    there = proved(ledger, NAMES[0], NAMES[4], NAMES[8])
    assert there.among(NAMES) == {NAMES[0], NAMES[4], NAMES[8]}
    assert there.among(NAMES[1:4]) == set()


@pytest.mark.parametrize("md5", [None, lambda _: MD5], ids=["answer", "stored"])
def test_what_is_parked_or_was_dropped_is_delivered_again(
    ledger: Ledger, md5: Callable[[str], str] | None
) -> None:
    parked = [
        Parked(Move(name), Reason.UNDECODABLE, "", 1, 1.0, 1.0) for name in (NAMES[0], NAMES[4])
    ]
    records = tuple(delivered(name, MD5) for name in NAMES)
    ledger.commit(Entry(parked=tuple(parked), delivered=records))
    ledger.commit(Entry(dropped=(NAMES[4],), dropped_at=2.0))
    assert proved(ledger, *NAMES, md5=md5).among(NAMES) == set(NAMES) - {NAMES[0], NAMES[4]}


def test_where_the_files_are_compared_the_one_on_record_must_be_there(ledger: Ledger) -> None:
    ledger.commit(
        Entry(
            delivered=(
                delivered(NAMES[0], MD5),
                delivered(NAMES[1], OTHER),
                delivered(NAMES[2], ""),
                delivered(NAMES[3], MD5),
                delivered(NAMES[8], MD5),
            )
        )
    )
    ledger.commit(Entry(outdated=(NAMES[3],)))
    asked: list[str] = []

    def md5(name: str) -> str:
        asked.append(name)
        if name == NAMES[8]:
            raise InstanceError(Reason.PROOF_MISMATCH, "it is not there any more", final=False)
        return MD5

    assert proved(ledger, *NAMES, md5=md5).among(NAMES) == {NAMES[0]}
    assert asked == [NAMES[0], NAMES[1], NAMES[8]], "there is nothing to compare the others with"


def test_a_target_that_fails_is_not_asked_again_for_what_it_told(ledger: Ledger) -> None:
    ledger.commit(Entry(delivered=tuple(delivered(name, MD5) for name in NAMES)))
    asked: list[str] = []

    def md5(name: str) -> str:
        asked.append(name)
        if len(asked) % 2 == 0:
            raise TargetError(SideProblem.UNREACHABLE, "down")
        return MD5

    there = proved(ledger, *NAMES, md5=md5)
    failures = 0
    while True:
        try:
            told = there.among(NAMES)
        except TargetError:
            failures += 1
        else:
            break
    assert told == set(NAMES)
    assert failures == len(NAMES) - 1
    assert len(asked) == 2 * len(NAMES) - 1
