"""``try``: each file of a folder is judged, and what takes its process down is one line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import imagecodecs
import pytest

from bridge.cli import exit_code_of
from bridge.demo.try_folder import (
    NAMED_MAX,
    Judgement,
    Tally,
    Tried,
    files_in,
    try_file,
    try_folder,
)
from bridge.dicom.transcode import transcode
from tests.transcode_cases import (
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    JPEG_LS,
    RLE,
    Image,
    compressed_file,
    encoded_file,
    native_file,
    relabelled,
)

GREY = Image(rows=40, columns=36, allocated=8, stored=8)
LOSSY_HTJ2K = "1.2.840.10008.1.2.4.203"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    below = tmp_path / "images" / "deeper"
    below.mkdir(parents=True)
    (below / "1-rle.dcm").write_bytes(encoded_file(GREY, RLE))
    (below / "2-native").write_bytes(b"PK\3\4".ljust(128, b"x") + native_file(GREY)[128:])
    (below / "3-cut.dcm").write_bytes(compressed_file(GREY, JPEG_LS, [b"\xff\xd8\xff\xf7"]))
    (below / "4-label.dcm").write_bytes(relabelled(encoded_file(GREY, RLE), EXPLICIT))
    (below / "5-text.txt").write_text("no DICOM at all")
    return tmp_path / "images"


@pytest.mark.slow
def test_each_file_is_judged(folder: Path) -> None:
    found = list(try_folder(folder, files_in(folder), wanted_syntax=EXPLICIT, workers=2))
    assert [(Path(one.name).name[0], one.judgement) for one in found] == [
        ("1", Judgement.RIGHT),
        ("2", Judgement.RIGHT),
        ("3", Judgement.PARKED),
        ("4", Judgement.PARKED),
        ("5", Judgement.OTHER),
    ]
    assert found[2].why.startswith("undecodable: ")
    assert found[3].why.startswith("wrong_syntax_label: ")
    assert not any(isinstance(one.name, Path) for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_tells_and_ends_with_3(
    folder: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(["try", str(folder), *(["--json"] if as_json else [])]) == 3
    printed = capsys.readouterr().out
    if as_json:
        files = json.loads(printed)["files"]
        assert files == {
            "right": 2, "parked": 2, "cannot be judged": 0, "wrong": 0, "no DICOM file": 1,
        }  # fmt: skip
        return
    for text in ("RLELossless", "parked: undecodable", "parked: wrong_syntax_label", "4-label.dcm"):
        assert text in printed


@pytest.mark.slow
def test_a_folder_where_all_is_right_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(encoded_file(GREY, RLE))
    assert exit_code_of(["try", str(tmp_path), "--to", "ImplicitVRLittleEndian"]) == 0


@pytest.mark.parametrize(
    "arguments", [["nowhere"], [".", "--to", "RLELossless"], [".", "--to", "x"]]
)
def test_what_cannot_be_tried_ends_with_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code_of(["try", *arguments]) == 2


@pytest.mark.slow
def test_a_folder_without_a_dicom_file_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(["try", str(tmp_path)]) == 2
    (tmp_path / "notes.txt").write_text("nothing")
    assert exit_code_of(["try", str(tmp_path)]) == 2
    assert "contains no DICOM file" in capsys.readouterr().err


def test_a_wrong_image_is_told_as_our_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*_: object, **__: object) -> list[Tried]:
        return [Tried("one.dcm", Judgement.WRONG, RLE, "3 of 9 samples differ, by up to 4", "x")]

    monkeypatch.setattr("bridge.demo.try_folder.try_folder", wrong)
    assert exit_code_of(["try", str(tmp_path)]) == 1
    assert "3 of 9 samples differ" in capsys.readouterr().out


def test_other_samples_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the transcoder delivers another image of the same size."""
    path = tmp_path / "one.dcm"
    path.write_bytes(encoded_file(GREY, RLE))

    def other(_: bytes, **options: Any) -> Any:
        return transcode(encoded_file(GREY, RLE, seed=8), **options)

    monkeypatch.setattr("bridge.demo.try_folder.transcode", other)
    tried = try_file(path, "one.dcm", EXPLICIT)
    assert tried.judgement is Judgement.WRONG
    assert "samples differ" in tried.why


def test_a_judge_that_is_known_to_be_wrong_does_not_condemn(tmp_path: Path) -> None:
    """OpenJPH wraps what overshoots on lossy streams."""
    image = Image(rows=64, columns=64, allocated=8, stored=8)
    frame = image.array()[0]
    frame[:] = 255
    frame[::7, ::3] = 0
    stream = bytes(imagecodecs.htj2k_encode(frame, reversible=False, level=0.2))
    path = tmp_path / "one.dcm"
    path.write_bytes(compressed_file(image, LOSSY_HTJ2K, [stream]))
    tried = try_file(path, "one.dcm", EXPLICIT)
    assert tried.judgement in (Judgement.RIGHT, Judgement.UNJUDGED)
    path.write_bytes(encoded_file(image, HTJ2K))
    assert try_file(path, "one.dcm", IMPLICIT).judgement is Judgement.RIGHT


def _sleeps(path: Path, name: str, wanted_syntax: str) -> Tried:
    if name.endswith("2"):
        time.sleep(60)
    if name.endswith("3"):
        import os

        os._exit(7)
    return Tried(name, Judgement.RIGHT, wanted_syntax, how=str(path))


@pytest.mark.slow
def test_a_file_that_hangs_or_kills_costs_only_itself(tmp_path: Path) -> None:
    for number in range(1, 5):
        (tmp_path / f"{number}").write_bytes(b"x")
    found = list(
        try_folder(
            tmp_path,
            files_in(tmp_path),
            wanted_syntax=EXPLICIT,
            workers=1,
            timeout_s=3.0,
            function=_sleeps,
        )
    )
    assert [one.judgement for one in found] == [
        Judgement.RIGHT,
        Judgement.UNJUDGED,
        Judgement.UNJUDGED,
        Judgement.RIGHT,
    ]
    assert "did not return" in found[1].why
    assert "7" in found[2].why


def test_what_is_named_is_bounded_and_all_is_counted() -> None:
    tally = Tally()
    for number in range(NAMED_MAX + 3):
        tally.add(Tried(f"{number}", Judgement.PARKED, RLE, "undecodable: x"))
        tally.add(Tried(f"{number}", Judgement.WRONG, RLE, "x"))
    assert len(tally.named) == 2 * NAMED_MAX
    assert tally.left_out == 6
    assert tally.count(Judgement.PARKED) == tally.count(Judgement.WRONG) == NAMED_MAX + 3
