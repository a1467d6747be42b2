"""Rules through the real transfer, against a fake Orthanc on each side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bridge.dicom.transcode import peek_syntax
from bridge.model import (
    Action,
    Delivered,
    Endpoint,
    Job,
    Move,
    Outcome,
    Reason,
    SideName,
    Skipped,
    Task,
)
from bridge.rules import parse_rules
from bridge.worker.transfer import move, process_client
from tests.dicom_samples import small_ct

if TYPE_CHECKING:
    from tests.fake_orthanc import FakeOrthanc

NATIVE = "1.2.840.10008.1.2.1"
RLE = "1.2.840.10008.1.2.5"


@pytest.fixture
def moved(
    fake_orthanc: Callable[..., FakeOrthanc],
) -> Callable[[str, bytes], tuple[Outcome, FakeOrthanc, FakeOrthanc]]:
    source, target = fake_orthanc(), fake_orthanc()

    def run(rules: str, data: bytes) -> tuple[Outcome, FakeOrthanc, FakeOrthanc]:
        process_client.cache_clear()
        instance_id = source.put(data)
        job = Job(
            Endpoint(SideName.SOURCE, source.url),
            Endpoint(SideName.TARGET, target.url),
            wanted_syntax=NATIVE,
            rules=parse_rules(rules),
        )
        outcome = move(Task(Move(instance_id, 1), job))
        return outcome, source, target

    return run


Moved = Callable[[str, bytes], tuple[Outcome, "FakeOrthanc", "FakeOrthanc"]]


def test_a_skipped_instance_is_not_downloaded_when_metadata_is_enough(moved: Moved) -> None:
    rules = f"[[rule]]\nsyntax = '{NATIVE}'\naction = 'skip'"
    outcome, source, target = moved(rules, small_ct())
    assert isinstance(outcome, Skipped)
    assert (outcome.reason, outcome.source_syntax) == (Reason.RULE, NATIVE)
    assert not [request for request in source.requests if "/file" in request]
    assert not target.requests


def test_modality_is_read_from_the_file(moved: Moved) -> None:
    outcome, source, _ = moved("[[rule]]\nmodality = 'CT'\naction = 'skip'", small_ct())
    assert isinstance(outcome, Skipped)
    assert [request for request in source.requests if "/file" in request]


def test_a_rule_chooses_another_syntax(moved: Moved) -> None:
    rules = "[[rule]]\nmodality = 'C?'\naction = 'transcode'\nto = 'RLELossless'"
    outcome, _, target = moved(rules, small_ct(rows=64, columns=64))
    assert isinstance(outcome, Delivered)
    assert (outcome.action, outcome.target_syntax) == (Action.TRANSCODED, RLE)
    assert [peek_syntax(held.data) for held in target.store.instances.values()] == [RLE]


def test_forward_sends_the_same_bytes(moved: Moved) -> None:
    data = small_ct()
    outcome, _, target = moved("[[rule]]\naction = 'forward'", data)
    assert isinstance(outcome, Delivered)
    assert outcome.action is Action.FORWARDED
    assert [held.data for held in target.store.instances.values()] == [data]


def test_an_instance_that_no_rule_is_about_goes_the_usual_way(moved: Moved) -> None:
    rules = "[[rule]]\nremote_aet = 'SOMEONE'\naction = 'skip'"
    outcome, _, _ = moved(rules, small_ct())
    assert isinstance(outcome, Delivered)
    assert outcome.action is Action.UNCHANGED
