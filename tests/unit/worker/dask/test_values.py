"""Tasks and outcomes as JSON and back; anything else is refused."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import (
    Action,
    Delivered,
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Move,
    Outcome,
    Reason,
    Rule,
    RuleAction,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
    Task,
    TranscodeOptions,
)
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX
from bridge.worker.dask.values import (
    ITEMS_MAX,
    TEXT_MAX,
    from_plain,
    outcome_from_plain,
    outcome_to_plain,
    to_plain,
)

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
        trusted="jpeg-dct under JPEGLosslessSV1",
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


ANY: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 2**31, 2**63, 10**30, float("nan"), float("inf"), 1e308])
    | st.sampled_from(["", "Delivered", "success", "x" * 70_000, "\ud800", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(OUTCOMES), st.data())
def test_whatever_a_worker_says_is_an_outcome_within_bounds_or_refused(
    outcome: Outcome, data: st.DataObject
) -> None:
    plain = through_json(outcome_to_plain(outcome))
    name = data.draw(st.sampled_from(sorted(plain)))
    inner = plain[name]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(ANY)
    else:
        plain[name] = data.draw(ANY)
    try:
        made = outcome_from_plain(json.loads(json.dumps(plain)))
    except ValueError:
        return
    for value in through_json(outcome_to_plain(made)).values():
        for one in value.values() if isinstance(value, dict) else [value]:
            if isinstance(one, str):
                one.encode("utf-8")
                assert len(one) <= MESSAGE_CHARACTERS_MAX
            elif isinstance(one, int | float):
                assert math.isfinite(one)
                assert abs(one) < 2**63 or isinstance(one, float)


@given(ANY)
def test_any_json_is_an_outcome_or_refused(value: object) -> None:
    with contextlib.suppress(ValueError):
        outcome_from_plain(value)
    with contextlib.suppress(ValueError):
        from_plain(Task, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source_bytes", 2**63),
        ("source_bytes", -(2**63)),
        ("source_bytes", 1.0),
        ("source_bytes", True),
        ("source_syntax", "\ud800"),
        ("decoder", None),
        ("fallbacks", ["a"] * (ITEMS_MAX + 1)),
        ("fallbacks", ["x" * (TEXT_MAX + 1)]),
        ("stages", {"fetch_s": float("nan")}),
        ("stages", {"fetch_s": float("inf")}),
        ("stages", {"fetch_s": "1"}),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: object) -> None:
    plain = through_json(outcome_to_plain(OUTCOMES[0]))
    plain[name] = plain[name] | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=r"^not a"):
        outcome_from_plain(plain)


def test_a_message_is_cut() -> None:
    plain = through_json(outcome_to_plain(ExecutorFailed("x" * 100_000)))
    made = outcome_from_plain(plain)
    assert isinstance(made, ExecutorFailed)
    assert len(made.message) == MESSAGE_CHARACTERS_MAX
