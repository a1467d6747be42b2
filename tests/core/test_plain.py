"""Tasks and outcomes as JSON and back; anything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bridge.core.model import (
    Action,
    Delivered,
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
    Task,
    TranscodeOptions,
)
from bridge.core.plain import from_plain, outcome_from_plain, outcome_to_plain, to_plain
from bridge.core.rules import Rule, RuleAction

TASK = Task(
    Move("abc", 7, "20260101T000000"),
    Job(
        source=Endpoint(SideName.SOURCE, "http://a", ca_file="/ca.pem", timeout_s=5.0),
        target=Endpoint(SideName.TARGET, "http://b"),
        wanted_syntax="1.2.840.10008.1.2.1",
        rules=(Rule(3, RuleAction.SKIP, "", (("modality", ("SR", "PR*")),)),),
        transcode=TranscodeOptions(verify="sample:5"),
    ),
    12,
)
OUTCOMES: list[Outcome] = [
    Delivered(
        status="Success",
        action=Action.TRANSCODED,
        source_syntax="1.2",
        target_syntax="1.3",
        sop_instance_uid="1.2.3",
        source_bytes=1,
        target_bytes=2,
        stages=StageTimes(0.1, 0.2, 0.3, 0.0),
        fallbacks=("a", "b"),
        differing=True,
    ),
    Skipped(Reason.GONE, "gone"),
    InstanceFailed(Reason.WORKER_DIED, "died", final=True),
    SideFailed(SideName.TARGET, SideProblem.TLS, "no", begun=True),
    ExecutorFailed("lost"),
]


def through_json(value: object) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("move", [TASK.move, Move("abc")])
def test_a_task_comes_back_equal(move: Move) -> None:
    task = replace(TASK, move=move)
    assert from_plain(Task, through_json(to_plain(task))) == task


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
def test_an_outcome_comes_back_equal(outcome: Outcome) -> None:
    back = outcome_from_plain(through_json(outcome_to_plain(outcome)))
    assert back == outcome
    assert type(back) is type(outcome)


@pytest.mark.parametrize(
    "change",
    [
        {"status": 1},
        {"action": "exploded"},
        {"source_bytes": "1"},
        {"source_bytes": True},
        {"stages": None},
        {"stages": {"fetch_s": 0.0}},
        {"fallbacks": "ab"},
        {"unknown": 1},
        {"kind": "Endpoint"},
        {"kind": ["Delivered"]},
    ],
)
def test_what_is_not_of_the_right_form_is_refused(change: dict[str, Any]) -> None:
    plain = through_json(outcome_to_plain(OUTCOMES[0]))
    with pytest.raises((ValueError, TypeError)):
        outcome_from_plain(plain | change)


def test_a_field_that_is_missing_is_refused() -> None:
    plain = through_json(to_plain(TASK))
    del plain["job"]["proof"]
    with pytest.raises(ValueError, match="not a Job"):
        from_plain(Task, plain)


@pytest.mark.parametrize("plain", [None, 3, "Delivered", [], {}])
def test_what_is_no_outcome_at_all_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="not an outcome"):
        outcome_from_plain(plain)
