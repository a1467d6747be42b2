"""What is said of one instance: the whole table, and what no input may ever lead to."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from bridge.ledger.records import DeliveryRecord
from bridge.mirror.judge_copy import (
    DIFFERENCES,
    REPAIRED,
    REPLACED,
    Comparison,
    CopyState,
    CopyView,
    judge_copy,
    learned,
)

RECORD = DeliveryRecord("i", "s", "t", 5.0)
OURS = CopyView("i", True, True, RECORD, "s", "t", readable=True, right_syntax=True)
OUTDATED = replace(RECORD, outdated=True)
LOST_SINCE = replace(RECORD, released=True)
SAME, DIFFERENT, UNDECIDED = Comparison
State = CopyState

TABLE = [
    # Both have it, and it is ours.
    (OURS, State.EQUAL),
    (replace(OURS, readable=None, right_syntax=None), State.EQUAL),
    (replace(OURS, readable=False, has_file=False), State.NO_FILE),
    (replace(OURS, readable=False), State.DAMAGED),
    (replace(OURS, target_md5="x", right_syntax=False), State.SYNTAX),
    (replace(OURS, target_md5="", right_syntax=False), State.SYNTAX),
    (replace(OURS, record=replace(RECORD, target_md5=""), right_syntax=False), State.SYNTAX),
    # The very file that was delivered, under other settings or changed by the target: no loop.
    (replace(OURS, right_syntax=False), State.EQUAL),
    (replace(OURS, record=OUTDATED, right_syntax=False), None),
    (replace(OURS, readable=False, right_syntax=False), State.DAMAGED),
    (replace(OURS, target_md5="x"), None),
    (replace(OURS, source_md5="x"), None),
    (replace(OURS, record=OUTDATED), None),
    (replace(OURS, target_md5="x", comparison=DIFFERENT), State.DAMAGED),
    (replace(OURS, target_md5="x", comparison=SAME), State.REWRITTEN),
    (replace(OURS, target_md5="x", comparison=UNDECIDED), State.UNDECIDED),
    (replace(OURS, source_md5="x", comparison=DIFFERENT), State.OLDER),
    (replace(OURS, source_md5="x", comparison=SAME), State.REWRITTEN),
    (replace(OURS, source_md5="x", comparison=UNDECIDED), State.UNDECIDED),
    (replace(OURS, source_md5="x", target_md5="y", comparison=DIFFERENT), State.DAMAGED),
    (replace(OURS, source_md5="x", target_md5="x"), State.EQUAL),
    (replace(OURS, record=OUTDATED, comparison=DIFFERENT), State.OLDER),
    (replace(OURS, record=OUTDATED, comparison=SAME), State.EQUAL),
    (replace(OURS, record=OUTDATED, source_md5="t"), State.EQUAL),
    (replace(OURS, record=OUTDATED, target_md5="x", comparison=SAME), State.EQUAL),
    (replace(OURS, record=OUTDATED, source_md5="x", comparison=SAME), State.EQUAL),
    # Two sums that are not known are not the same.
    (
        replace(OURS, record=replace(RECORD, target_md5=""), target_md5="", right_syntax=False),
        State.SYNTAX,
    ),
    (replace(OURS, record=OUTDATED, source_md5="", target_md5=""), None),
    # A file that was read is there.
    (replace(OURS, has_file=False), State.EQUAL),
    # The source has lost its history since: what it holds may be older than the copy.
    (replace(OURS, record=LOST_SINCE), State.EQUAL),
    (replace(OURS, record=LOST_SINCE, source_md5="x"), None),
    (replace(OURS, record=LOST_SINCE, source_md5="x", comparison=DIFFERENT), State.NOT_OURS),
    (replace(OURS, record=LOST_SINCE, source_md5="x", comparison=SAME), State.REWRITTEN),
    (replace(OURS, record=LOST_SINCE, source_md5="x", readable=False), State.NOT_OURS),
    (
        replace(OURS, record=LOST_SINCE, source_md5="x", target_md5="y", comparison=DIFFERENT),
        State.NOT_OURS,
    ),
    # It holds the file that was delivered, or its feed has told of another one since.
    (replace(OURS, record=LOST_SINCE, readable=False), State.DAMAGED),
    (replace(OURS, record=LOST_SINCE, target_md5="x", comparison=DIFFERENT), State.DAMAGED),
    (
        replace(
            OURS,
            record=replace(LOST_SINCE, outdated=True),
            source_md5="x",
            comparison=DIFFERENT,
        ),
        State.OLDER,
    ),
    # A sum that is not known is no other one.
    (replace(OURS, target_md5=""), State.EQUAL),
    (replace(OURS, source_md5=""), State.EQUAL),
    (replace(OURS, record=replace(RECORD, source_md5="", target_md5="")), State.EQUAL),
    # Both have it, and there is no record of it.
    (replace(OURS, record=None), State.EQUAL),
    (replace(OURS, record=None, readable=False), State.NOT_OURS),
    (replace(OURS, record=None, readable=False, has_file=False), State.NOT_OURS),
    (replace(OURS, record=None, right_syntax=False), State.NOT_OURS),
    (replace(OURS, readable=None), State.EQUAL),
    (replace(OURS, readable=None, has_file=False), State.UNVERIFIABLE),
    (replace(OURS, readable=None, has_file=False, record=None), State.UNVERIFIABLE),
    (replace(OURS, readable=None, has_file=False, right_syntax=False), State.UNVERIFIABLE),
    (replace(OURS, readable=None, has_file=False, at_source=False), State.LEFT),
    # The source lacks it.
    (replace(OURS, at_source=False), State.LEFT),
    (replace(OURS, at_source=False, readable=None), State.LEFT),
    (replace(OURS, at_source=False, readable=False), State.LOST),
    (replace(OURS, at_source=False, record=None), State.FOREIGN),
    (replace(OURS, at_source=False, record=None, readable=False), State.FOREIGN),
    (replace(OURS, at_source=False, at_target=False), State.GONE),
    (replace(OURS, at_source=False, at_target=False, record=None), State.GONE),
    # Neither has it, and nobody has wished it away from the source.
    (replace(OURS, at_source=False, at_target=False, record=LOST_SINCE), State.LOST),
    (
        replace(OURS, at_source=False, at_target=False, record=LOST_SINCE, may_vanish=True),
        State.GONE,
    ),
    # The target lacks it.
    (replace(OURS, at_target=False), State.MISSING),
    (replace(OURS, at_target=False, record=None), State.MISSING),
    (replace(OURS, at_target=False, waiting=True), State.WAITING),
    (replace(OURS, at_target=False, parked=True), State.PARKED),
    (replace(OURS, at_target=False, skipped=True), State.SKIPPED),
    (replace(OURS, at_target=False, skipped=True, waiting=True), State.SKIPPED),
    (replace(OURS, at_target=False, waiting=True, parked=True), State.WAITING),
]


@pytest.mark.parametrize(("view", "state"), TABLE)
def test_table(view: CopyView, state: CopyState | None) -> None:
    assert judge_copy(view) is state


SAMPLED = [
    (OURS, None),
    (replace(OURS, record=None), None),
    (replace(OURS, comparison=SAME), State.EQUAL),
    (replace(OURS, comparison=DIFFERENT), State.DAMAGED),
    (replace(OURS, comparison=UNDECIDED), State.UNDECIDED),
    (replace(OURS, record=None, comparison=DIFFERENT), State.NOT_OURS),
    (replace(OURS, source_md5="x", target_md5="x"), None),
    (replace(OURS, source_md5="x", target_md5="x", comparison=SAME), State.REWRITTEN),
    (replace(OURS, source_md5="t", target_md5="t", comparison=DIFFERENT), State.OLDER),
    (replace(OURS, target_md5="x", right_syntax=False), State.SYNTAX),
    (replace(OURS, right_syntax=False), None),
    # The source's own file.
    (replace(OURS, source_readable=True), None),
    (replace(OURS, source_readable=False), State.SOURCE_DAMAGED),
    (replace(OURS, source_readable=False, record=None), State.SOURCE_DAMAGED),
    (
        replace(OURS, source_readable=False, right_syntax=False, target_md5="x"),
        State.SOURCE_DAMAGED,
    ),
    (replace(OURS, source_readable=False, readable=False), State.DAMAGED),
    (replace(OURS, source_readable=False, comparison=DIFFERENT), State.SOURCE_DAMAGED),
    (replace(OURS, source_readable=False, comparison=SAME), State.SOURCE_DAMAGED),
    (replace(OURS, source_readable=True, comparison=SAME, fetched_md5="s"), State.EQUAL),
    (replace(OURS, source_readable=True, comparison=DIFFERENT, fetched_md5="s"), State.DAMAGED),
    # It does not say, and gave another file than it notes.
    (replace(OURS, comparison=DIFFERENT, fetched_md5="x"), State.SOURCE_DAMAGED),
    (replace(OURS, comparison=UNDECIDED, fetched_md5="x"), State.SOURCE_DAMAGED),
    (replace(OURS, comparison=SAME, fetched_md5="x"), State.SOURCE_DAMAGED),
    (replace(OURS, comparison=UNDECIDED, fetched_md5="s"), State.UNDECIDED),
    # It can read its file: something on the way has changed what came.
    (
        replace(OURS, comparison=DIFFERENT, fetched_md5="x", source_readable=True),
        State.UNDECIDED,
    ),
    # It notes no sum: what was delivered tells, unless there is a newer version.
    (replace(OURS, source_md5="", comparison=DIFFERENT, fetched_md5="x"), State.SOURCE_DAMAGED),
    (replace(OURS, source_md5="", comparison=UNDECIDED, fetched_md5="x"), State.SOURCE_DAMAGED),
    (replace(OURS, source_md5="", comparison=SAME, fetched_md5="x"), State.EQUAL),
    (replace(OURS, source_md5="", comparison=DIFFERENT, fetched_md5="s"), State.DAMAGED),
    (
        replace(OURS, record=OUTDATED, source_md5="", comparison=DIFFERENT, fetched_md5="x"),
        State.OLDER,
    ),
    (
        replace(OURS, record=None, source_md5="", comparison=DIFFERENT, fetched_md5="x"),
        State.NOT_OURS,
    ),
    (replace(OURS, at_target=False), State.MISSING),
]


@pytest.mark.parametrize(("view", "state"), SAMPLED)
def test_a_sample_is_compared_whatever_the_sums_say(
    view: CopyView, state: CopyState | None
) -> None:
    assert judge_copy(view, sampled=True) is state


def every_view() -> list[CopyView]:
    flags = (False, True)
    records = (None, RECORD, OUTDATED, replace(RECORD, source_md5="", target_md5=""))
    return [
        CopyView("i", *at, record, *sums, readable, has_file, right, *why, comparison)
        for at in itertools.product(flags, flags)
        for record in records
        for sums in itertools.product(("", "s", "x"), ("", "t", "x"))
        for readable in (None, False, True)
        for has_file in flags
        for right in (None, False, True)
        for why in itertools.product(flags, flags, flags)
        for comparison in (None, *Comparison)
    ]


def test_a_damaged_source_never_leads_to_a_repair_of_a_copy_that_can_be_read() -> None:
    for view in every_view():
        if view.readable is False or not (view.at_source and view.at_target):
            continue
        for sampled in (False, True):
            damaged = replace(view, source_readable=False)
            state = judge_copy(damaged, sampled=sampled)
            assert state in {State.SOURCE_DAMAGED, State.UNVERIFIABLE}
            came = replace(view, source_md5="s", fetched_md5="x")
            if came.comparison is not None and (sampled or came.target_md5 not in ("", "t")):
                assert judge_copy(came, sampled=sampled) not in REPLACED - {State.SYNTAX}


def test_what_nothing_may_lead_to() -> None:
    for view in every_view():
        for sampled in (False, True):
            state = judge_copy(view, sampled=sampled)
            if state in REPLACED:
                # Never what the source lacks, never what is not ours, never what is equal.
                assert view.at_source
                assert view.at_target
                assert view.record is not None
                assert view.readable is not None or view.has_file, "a right is missing"
                assert (
                    view.comparison is not Comparison.SAME
                    or view.readable is False
                    or (view.right_syntax is False)
                )
            if state is State.MISSING:
                assert view.at_source
                assert not any((view.at_target, view.waiting, view.parked, view.skipped))
            if state is None:
                assert view.at_source
                assert view.at_target
                assert view.comparison is None
            if view.readable is False and view.at_target and view.record is not None:
                assert state in {State.NO_FILE, State.DAMAGED, State.LOST}


def test_the_sets_of_states() -> None:
    assert REPLACED < REPAIRED < DIFFERENCES < set(State)
    assert {State.REWRITTEN, State.LEFT, State.FOREIGN, State.WAITING}.isdisjoint(DIFFERENCES)


@pytest.mark.parametrize(
    ("view", "state", "after"),
    [
        (OURS, State.EQUAL, None),
        (replace(OURS, target_md5="x"), State.REWRITTEN, ("s", "x")),
        (replace(OURS, source_md5="x"), State.REWRITTEN, ("x", "t")),
        (replace(OURS, source_md5="", target_md5="x"), State.REWRITTEN, ("s", "x")),
        (replace(OURS, record=OUTDATED), State.EQUAL, ("s", "t")),
        (replace(OURS, record=replace(RECORD, lacking_since=3.0)), State.EQUAL, ("s", "t")),
        (
            replace(OURS, record=replace(RECORD, source_md5="", target_md5="")),
            State.EQUAL,
            ("s", "t"),
        ),
        (replace(OURS, record=None), State.EQUAL, None),
        (replace(OURS, target_md5="x"), State.DAMAGED, None),
        (replace(OURS, target_md5="x"), State.UNDECIDED, None),
        (replace(OURS, at_source=False), State.LEFT, None),
    ],
)
def test_what_is_found_equal_is_compared_with_the_next_time(
    view: CopyView, state: CopyState, after: tuple[str, str] | None
) -> None:
    record = learned(view, state)
    if after is None:
        assert record is None
        return
    assert record is not None
    assert (record.source_md5, record.target_md5) == after
    assert (record.outdated, record.lacking_since, record.delivered_at) == (False, None, 5.0)
