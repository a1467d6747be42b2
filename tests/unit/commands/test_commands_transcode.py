"""`transcode IN OUT`: no server, OUT whole or not there, nothing else touched."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from bridge.cli import exit_code_of
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    path = tmp_path / "in.dcm"
    path.write_bytes(small_ct())
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    dataset = small_ct_dataset()
    dataset.PatientName = "SOME^PATIENT"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"no codestream at all"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    path = tmp_path / "broken.dcm"
    path.write_bytes(file_bytes(dataset))
    return path


@pytest.mark.parametrize(
    ("to", "uid"),
    [
        ("RLELossless", "1.2.840.10008.1.2.5"),
        ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.5"),
        ("ImplicitVRLittleEndian", "1.2.840.10008.1.2"),
        ("JPEG2000Lossless", "1.2.840.10008.1.2.4.90"),
        ("ExplicitVRLittleEndian", "1.2.840.10008.1.2.1"),
    ],
)
def test_there_and_back(ct: Path, tmp_path: Path, to: str, uid: str, capsys: Capture) -> None:
    out, back = tmp_path / "out.dcm", tmp_path / "back.dcm"
    assert exit_code_of(["transcode", str(ct), str(out), "--to", to, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["target_syntax"] == uid == dcmread(out).file_meta.TransferSyntaxUID
    assert told["target_bytes"] == out.stat().st_size
    assert exit_code_of(["transcode", str(out), str(back), "--verify"]) == 0
    assert (dcmread(back).pixel_array == dcmread(ct).pixel_array).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.dcm", "in.dcm", "out.dcm"]


@pytest.mark.parametrize("syntax", ["nonsense", "1.2.3", "JPEGBaseline8Bit", ""])
def test_a_syntax_that_is_no_target(ct: Path, tmp_path: Path, syntax: str, capsys: Capture) -> None:
    assert exit_code_of(["transcode", str(ct), str(tmp_path / "out"), "--to", syntax]) == 2
    assert "--to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_places_that_do_not_work(ct: Path, tmp_path: Path, capsys: Capture) -> None:
    for source, target, named in (
        (tmp_path / "absent", tmp_path / "out", "absent"),
        (tmp_path, tmp_path / "out", str(tmp_path)),
        (ct, tmp_path / "no" / "such" / "out", "out"),
        (ct, tmp_path, str(tmp_path)),
        (ct, ct / "out", "out"),
    ):
        assert exit_code_of(["transcode", str(source), str(target)]) == 2
        said = capsys.readouterr()
        assert named in said.err
        assert said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["in.dcm"]


def test_what_cannot_be_decoded_leaves_out_alone(
    broken: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.dcm"
    out.write_bytes(b"precious")
    assert exit_code_of(["transcode", str(broken), str(out)]) == 3
    said = capsys.readouterr()
    assert "undecodable" in said.err
    assert "SOME^PATIENT" not in said.err
    assert said.out == ""
    assert out.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.dcm", "out.dcm"]


@pytest.mark.parametrize("content", [b"", b"short", b"no DICOM at all" * 100, bytes(200)])
def test_what_is_no_dicom(tmp_path: Path, content: bytes, capsys: Capture) -> None:
    path = tmp_path / "in"
    path.write_bytes(content)
    assert exit_code_of(["transcode", str(path), str(tmp_path / "out")]) == 3
    assert "not_dicom" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_in_and_out_may_be_the_same_file(ct: Path) -> None:
    before = dcmread(ct).pixel_array
    assert exit_code_of(["transcode", str(ct), str(ct), "--to", "RLELossless"]) == 0
    assert (dcmread(ct).pixel_array == before).all()
    assert dcmread(ct).file_meta.TransferSyntaxUID.name == "RLE Lossless"


def test_a_device_or_a_pipe_is_written_to_and_never_replaced(ct: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert exit_code_of(["transcode", str(ct), str(pipe)]) == 0
        assert os.read(reader, 1 << 20) == ct.read_bytes()
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077])
def test_the_file_has_the_mode_of_this_users_files(ct: Path, tmp_path: Path, umask: int) -> None:
    """It is an image of a patient: who keeps their files to themselves keeps this one too."""
    before = os.umask(umask)
    try:
        assert exit_code_of(["transcode", str(ct), str(tmp_path / "out.dcm")]) == 0
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.dcm").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_another_users_link_is_not_followed(ct: Path, tmp_path: Path, capsys: Capture) -> None:
    """The kernel follows none in /tmp either; to resolve it by hand would go past that."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "precious").write_bytes(b"precious")
    link = shared / "out.dcm"
    link.symlink_to(tmp_path / "precious")
    os.lchown(link, 12345, 12345)
    assert exit_code_of(["transcode", str(ct), str(link)]) == 2
    assert "link that another user" in capsys.readouterr().err
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_link_is_followed_and_kept(ct: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    link = tmp_path / "link.dcm"
    link.symlink_to(place / "real.dcm")
    assert exit_code_of(["transcode", str(ct), str(link)]) == 0
    assert link.is_symlink()
    assert (place / "real.dcm").read_bytes() == ct.read_bytes()


@pytest.mark.parametrize(
    ("encode", "said"),
    [
        (None, "no pixels were decoded"),
        ("RLELossless", "yes"),
        ("JPEGLSLossless", "no: there is no second decoder for it"),
    ],
)
def test_verify_says_whether_a_second_decoder_looked(
    encode: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    source.write_bytes(small_ct())
    if encode:
        assert exit_code_of(["transcode", str(source), str(source), "--to", encode]) == 0
    to = "ExplicitVRLittleEndian" if encode else "ImplicitVRLittleEndian"
    capsys.readouterr()
    arguments = ["transcode", str(source), str(target), "--to", to, "--verify", "--json"]
    assert exit_code_of(arguments) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == said
