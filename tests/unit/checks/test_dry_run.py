"""A dry run says what would be done and moves nothing."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bridge.checks.dry_run import DryRunExecutor
from bridge.model import Endpoint, Job, Move, Outcome, Reason, SideFailed, SideName, Skipped, Task
from bridge.rules import parse_rules
from tests.dicom_samples import small_ct

if TYPE_CHECKING:
    from tests.fake_orthanc import FakeOrthanc

NATIVE = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def _look(
    url: str,
    instance_id: str,
    rules: str = "",
    wanted: str = NATIVE,
    would: Counter[str] | None = None,
) -> Outcome:
    job = Job(
        Endpoint(SideName.SOURCE, url, timeout_s=2.0),
        Endpoint(SideName.TARGET, "http://target.invalid"),
        wanted_syntax=wanted,
        rules=parse_rules(rules) if rules else (),
    )
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    executor = DryRunExecutor(
        lambda _task, outcome: outcomes.put(outcome), job, Counter() if would is None else would
    )
    executor.submit(Task(Move(instance_id, 1), job))
    try:
        return outcomes.get(timeout=20)
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("rules", "wanted", "said"),
    [
        ("", NATIVE, "would be sent unchanged (ExplicitVRLittleEndian -> ExplicitVRLittleEndian)"),
        ("", IMPLICIT, "would be transcoded (ExplicitVRLittleEndian -> ImplicitVRLittleEndian)"),
        ("[[rule]]\naction = 'skip'", NATIVE, "would be skipped ("),
        ("[[rule]]\naction = 'forward'", IMPLICIT, "would be forwarded as it is ("),
        ("[[rule]]\naction = 'transcode'\nto = 'RLELossless'", NATIVE,
         "-> RLELossless, rule at line 1)"),
        ("[[rule]]\nmodality = 'CT'\naction = 'skip'", NATIVE, "would be skipped ("),
    ],
)  # fmt: skip
def test_what_would_be_done(
    rules: str, wanted: str, said: str, fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    source = fake_orthanc()
    outcome = _look(source.url, source.put(small_ct()), rules, wanted)
    assert isinstance(outcome, Skipped)
    assert outcome.reason is Reason.DRY_RUN
    assert said in outcome.message
    assert not [one for one in source.requests if one.startswith("POST")]


def test_what_would_be_done_is_counted_by_kind(fake_orthanc: Callable[..., FakeOrthanc]) -> None:
    source, would = fake_orthanc(), Counter[str]()
    instance_id = source.put(small_ct())
    for wanted in (NATIVE, NATIVE, IMPLICIT):
        _look(source.url, instance_id, wanted=wanted, would=would)
    _look(source.url, "5b0ad3a6-1b7e8a5c-5f0a9a3e-0d6f7c11-00000001", would=would)
    assert would == {"sent unchanged": 2, "transcoded": 1}


def test_an_instance_that_is_gone(fake_orthanc: Callable[..., FakeOrthanc]) -> None:
    outcome = _look(fake_orthanc().url, "5b0ad3a6-1b7e8a5c-5f0a9a3e-0d6f7c11-00000001")
    assert isinstance(outcome, Skipped)
    assert outcome.reason is Reason.GONE


def test_a_source_that_is_down() -> None:
    outcome = _look("http://127.0.0.1:1", "5b0ad3a6-1b7e8a5c-5f0a9a3e-0d6f7c11-00000001")
    assert isinstance(outcome, SideFailed)
    assert outcome.side is SideName.SOURCE
