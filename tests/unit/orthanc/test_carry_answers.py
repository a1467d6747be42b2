"""What lies beside the files, as servers tell it: bounded, and in no message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.model import Endpoint, ResourceKind, SideName, SideProblem
from bridge.orthanc.answers import (
    LABELS_MAX,
    METADATA_MAX,
    WrongAnswer,
    parse_resources,
    parse_system,
)
from bridge.orthanc.fault_table import Request

ID = "-".join(["0123abcd"] * 5)
ROW: dict[str, Any] = {"ID": ID, "Type": "Study", "Metadata": {"1024": "x"}, "Labels": ["b", "a"]}


def parsed(**changed: object) -> Any:
    return parse_resources(json.dumps([ROW | changed]).encode())[0]


def test_labels_and_metadata_are_told_whole() -> None:
    long = "x" * 100_000
    found = parsed(Metadata={"1024": long})
    assert (found.kind, found.resource_id, found.labels) == (ResourceKind.STUDY, ID, ("a", "b"))
    assert found.metadata == {"1024": long}
    assert long not in repr(found), "nobody logs it by mistake"
    kinds = [parsed(Type=kind).kind for kind in ("Patient", "Study", "Series", "Instance")]
    assert kinds == list(ResourceKind)


def test_a_server_before_1_12_has_no_labels() -> None:
    row = {name: value for name, value in ROW.items() if name != "Labels"}
    assert parse_resources(json.dumps([row]).encode())[0].labels is None


def test_what_is_no_label_is_left_out() -> None:
    assert parsed(Labels=["a", "../x", "", "x" * 65, 5, "b c"]).labels == ("a",)


@pytest.mark.parametrize(
    "changed",
    [
        {"Type": "Job"},
        {"ID": "x"},
        {"Metadata": {"1024": 5}},
        {"Metadata": None},
        {"Metadata": {str(n): "" for n in range(METADATA_MAX + 1)}},
        {"Labels": ["a"] * (LABELS_MAX + 1)},
    ],
)
def test_anything_else_is_no_answer_and_quotes_nothing(changed: dict[str, object]) -> None:
    with pytest.raises(WrongAnswer) as caught:
        parsed(**changed)
    assert "1024" not in str(caught.value)


def test_names_of_metadata_are_known_from_1_12_on() -> None:
    told = {"Version": "1.12.7", "ApiVersion": 1, "UserMetadata": {"Project": 1024, "x": "y"}}
    assert parse_system(json.dumps(told).encode()).user_metadata == {"Project": 1024}
    assert parse_system(b'{"Version": "1.10.1", "ApiVersion": 1}').user_metadata == {}


def test_a_label_is_in_no_message() -> None:
    endpoint = Endpoint(SideName.TARGET, "http://target:8042")
    request = Request(endpoint, "PUT", f"/studies/{ID}/labels/Doe-John", hidden=len("Doe-John"))
    error = request.fails(SideProblem.SERVER_ERROR, "failed at this request", "")
    assert f"/studies/{ID}/labels/..." in error.message
    assert "Doe" not in error.message
