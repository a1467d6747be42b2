"""When parked instances are tried again: one table, and it never says two things."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.ledger.records import Due, Entry, Parked, TriedBy
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason
from bridge.pipeline.parked_policy import (
    DAY_S,
    HOUR_S,
    RETRIES,
    Retry,
    Trigger,
    due_kinds,
    next_retry,
)

NOW = 1_000_000_000.0
OLD, NEW = TriedBy("1.0", "codecs 1"), TriedBy("2.0", "codecs 2")
PARKED = Parked(
    Move("i", 1), Reason.FILTERED_OUT, "no", 1, NOW, NOW, tried_at=NOW, tried_by=OLD
)  # fmt: skip
DOCS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"


def test_the_table_has_every_reason() -> None:
    assert set(RETRIES) == set(Reason)
    timed = {r for r, policy in RETRIES.items() if policy.trigger is Trigger.TIME}
    assert {str(reason) for reason in timed} == {
        "filtered_out",
        "rejected_by_target",
        "server_refuses_instance",
        "target_died",
    }
    for reason in timed:
        intervals = RETRIES[reason].intervals_s
        assert list(intervals) == sorted(set(intervals)), "they grow"
        assert intervals[0] >= HOUR_S
        assert intervals[-1] == 7 * DAY_S


def test_intervals_grow_and_the_last_one_is_repeated() -> None:
    waits = []
    for retries in (0, 1, 2, 3, 4, 5, 6, 100):
        told = next_retry(replace(PARKED, retries=retries), OLD, now=NOW)
        assert told.at is not None
        waits.append((told.at - NOW) / HOUR_S)
    assert waits == [1, 4, 12, 24, 72, 168, 168, 168]


def test_what_brings_the_target_down_is_tried_alone_and_not_for_ever() -> None:
    parked = replace(PARKED, reason=Reason.TARGET_DIED)
    assert RETRIES[Reason.TARGET_DIED].alone
    assert next_retry(parked, OLD, now=NOW).at == NOW + DAY_S
    assert next_retry(replace(parked, retries=2), OLD, now=NOW).at == NOW + 7 * DAY_S
    told = next_retry(replace(parked, retries=3), OLD, now=NOW)
    assert (told.trigger, told.at, told.why) == (Trigger.NONE, None, "it was tried again 3 times")


@pytest.mark.parametrize("reason", [Reason.UNDECODABLE, Reason.UNSUPPORTED_SYNTAX, Reason.INTERNAL])
def test_what_cannot_be_done_waits_for_another_version(reason: Reason) -> None:
    parked = replace(PARKED, reason=reason)
    same, other = next_retry(parked, OLD, now=NOW), next_retry(parked, NEW, now=NOW)
    assert same.at is None
    assert other.at == NOW
    assert same.trigger is other.trigger
    assert next_retry(replace(parked, retries=1), NEW, now=NOW).at == NOW + HOUR_S


def test_codecs_and_the_bridge_are_told_apart() -> None:
    mended, rebuilt = replace(OLD, bridge="2.0"), replace(OLD, codecs="codecs 2")
    undecodable = replace(PARKED, reason=Reason.UNDECODABLE)
    assert next_retry(undecodable, mended, now=NOW).at is None
    assert next_retry(undecodable, rebuilt, now=NOW).at == NOW
    internal = replace(PARKED, reason=Reason.INTERNAL)
    assert next_retry(internal, mended, now=NOW).at == NOW
    assert next_retry(internal, rebuilt, now=NOW).at is None


def _is_due(parked: Parked, now: float, now_with: TriedBy) -> bool:
    def holds(due: Due) -> bool:
        return (
            due.reason is parked.reason
            and due.retries_min <= parked.retries <= due.retries_max
            and due.tried_after < parked.tried_at <= due.tried_before
            and due.other_bridge != parked.tried_by.bridge
            and due.other_codecs != parked.tried_by.codecs
        )

    return any(holds(due) for due in due_kinds(now, now_with))


@pytest.mark.slow
@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("retries", [0, 1, 2, 3, 5, 6, 1000])
@pytest.mark.parametrize("now_with", [OLD, NEW])
def test_what_is_asked_of_the_ledger_is_what_is_told(
    reason: Reason, retries: int, now_with: TriedBy, tmp_path: Path
) -> None:
    parked = replace(PARKED, reason=reason, retries=retries)
    told = next_retry(parked, now_with, now=NOW)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(parked=(replace(parked, retries=0),)))
        ledger._db.execute("UPDATE parked SET retries = ?", (retries,))
        for after_s in (0.0, HOUR_S, 1.5 * HOUR_S, 25 * HOUR_S, 8 * DAY_S):
            now = NOW + after_s
            due = told.at is not None and told.at <= now
            assert _is_due(parked, now, now_with) is due
            found = [ledger.first_due(kind) for kind in due_kinds(now, now_with)]
            assert ([one for one in found if one is not None] == [parked]) is due


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("ahead_s", [0.1, HOUR_S, 10 * 365 * DAY_S])
@pytest.mark.parametrize("retries", [0, 1, 5])
def test_what_was_tried_while_the_clock_was_ahead_is_due_and_said_to_be(
    reason: Reason, ahead_s: float, retries: int, tmp_path: Path
) -> None:
    parked = replace(PARKED, reason=reason, retries=retries, tried_at=NOW + ahead_s)
    told = next_retry(parked, NEW, now=NOW)
    assert told.at in (None, NOW)
    timed = next_retry(replace(parked, tried_at=NOW), NEW, now=NOW).at is not None
    assert (told.at == NOW) is timed, "what is never tried again is not for this"
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(parked=(replace(parked, retries=0),)))
        ledger._db.execute("UPDATE parked SET retries = ?", (retries,))
        found = [ledger.first_due(kind) for kind in due_kinds(NOW, NEW)]
        assert ([one for one in found if one is not None] == [parked]) is timed
        if timed:
            assert ledger.begin_retry(parked, now=NOW)
            again = replace(parked, retries=retries + 1, tried_at=NOW)
            assert [ledger.first_due(kind) for kind in due_kinds(NOW, NEW)].count(again) == 0


def _told(policy: Retry) -> str:
    def span(seconds: float) -> str:
        return f"{seconds / HOUR_S:g} h" if seconds < DAY_S else f"{seconds / DAY_S:g} d"

    if policy.trigger is Trigger.TIME:
        steps = ", ".join(map(span, policy.intervals_s))
        then = "never" if policy.ends else f"every {span(policy.intervals_s[-1])}"
        return f"after {steps}, then {then}: {policy.why}"
    when = {Trigger.CODECS: "when the codecs change", Trigger.BRIDGE: "when the bridge changes"}
    return f"{when.get(policy.trigger, 'never')}: {policy.why}"


def test_the_documentation_has_the_table() -> None:
    parked = DOCS.read_text("utf-8").partition("## Something is parked")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|$", parked, re.M))
    assert rows == {name: _told(RETRIES[Reason(name)]) for name in rows}
