"""``rules test``: which rule decides, for files and for instances of the source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.cli import exit_code_of
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc

RULES = """
[[rule]]
PatientID = "QA-*"
action = "skip"

[[rule]]
Rows = "*"
modality = ["MR", "CT"]
action = "transcode"
to = "RLELossless"
"""


@pytest.fixture
def source(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeOrthanc:
    source, target = fake_orthanc(), fake_orthanc()
    (tmp_path / "rules.toml").write_text(RULES)
    monkeypatch.setenv("BRIDGE_SOURCE_URL", source.url)
    monkeypatch.setenv("BRIDGE_TARGET_URL", target.url)
    monkeypatch.setenv("BRIDGE_RULES_FILE", str(tmp_path / "rules.toml"))
    return source


def test_a_file_and_an_instance_are_judged_alike(
    source: FakeOrthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(small_ct())
    instance = source.put(small_ct())
    assert exit_code_of(["rules", "test", str(path), instance, "--json"]) == 0
    of_file, of_instance = json.loads(capsys.readouterr().out)
    assert of_file.pop("what") == str(path)
    assert of_instance.pop("what") == instance
    assert of_file == of_instance
    assert of_file["rule_at_line"] == 6
    assert of_file["treatment"] == "transcode"
    assert of_file["target_syntax"] == "RLELossless"
    assert of_file["passed_over"] == [{"line": 2, "does_not_hold": 'PatientID = "QA-*"'}]
    assert len(of_file["rules"]) == 12
    assert not [line for line in source.requests if line.startswith(("PUT", "DELETE"))]


def test_it_is_told_in_words_without_a_value_of_the_instance(
    source: FakeOrthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(small_ct())
    assert exit_code_of(["rules", "test", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: the rule at line 6 decides: transcode, "
        "ExplicitVRLittleEndian -> RLELossless\n"
        '  line 2 does not: PatientID = "QA-*"\n'
    )
    assert source.requests == []


def test_what_cannot_be_judged_is_said(
    source: FakeOrthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert source.url
    path = tmp_path / "text"
    path.write_text("no image")
    assert exit_code_of(["rules", "test", str(path)]) == 3
    assert "cannot be decided (not_dicom)" in capsys.readouterr().out
    assert exit_code_of(["rules", "test", "nothing-of-that-name"]) == 2
    assert "neither a file nor the ID" in capsys.readouterr().err
