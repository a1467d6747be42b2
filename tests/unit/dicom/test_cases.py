"""The small files on which the first version was wrong: what is right for each of them.

They stand for kinds, which other tests here make by themselves; this is the last look at the files.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bridge.dicom.fingerprint import fingerprint
from bridge.dicom.transcode import Transcoded
from bridge.errors import InstanceError
from bridge.model import Action, Reason
from tests.absent import absent
from tests.shared_samples import CASES
from tests.transcode_cases import EXPLICIT, IMPLICIT, RLE, read, run, samples

pytestmark = pytest.mark.cases

PARKED = {
    "damaged-jpeg-lossless-1": Reason.UNDECODABLE,
    "damaged-jpeg-lossless-2": Reason.UNDECODABLE,
    "j2k-420-labelled-ybr-full": Reason.UNDECODABLE,
    "no-transfer-syntax-encapsulated": Reason.WRONG_SYNTAX_LABEL,
    "ybr-ict-without-component-transform": Reason.UNDECODABLE,
}
DECODED = {
    "first-fragment-of-two-bytes": "dcmdjpls",
    "fragment-length-spells-a-vr": "dcmdjpeg",
    "item-delimiter-in-defined-length-item": "dcmdrle",
    "jpeg-lossless-point-transform-in-later-scans": "dcmdjpeg",
    "jpeg-lossless-restart-intervals": "dcmdjpeg",
}
PASSED_ON = ("preamble-and-archive-behind-the-data-set", "preamble-begins-like-a-zip")
SWAPPED = "big-endian-32bit-written-by-orthanc"


def case(name: str) -> bytes:
    return (CASES / f"{name}.dcm").read_bytes()


def dcmtk(source: bytes, directory: Path, *command: str) -> bytes:
    """What a tool of DCMTK makes of the file."""
    if shutil.which(command[0]) is None:
        absent(f"{command[0]} of dcmtk is not installed")
    before, after = directory / "before.dcm", directory / "after.dcm"
    before.write_bytes(source)
    subprocess.run([*command, before, after], check=True, capture_output=True)
    return after.read_bytes()


def test_each_file_is_looked_at() -> None:
    known = {*PARKED, *DECODED, *PASSED_ON, SWAPPED}
    assert {path.stem for path in CASES.glob("*.dcm")} == known


@pytest.mark.parametrize("verify", ["off", "all"])
@pytest.mark.parametrize("wanted", [EXPLICIT, IMPLICIT, RLE])
@pytest.mark.parametrize("name", PARKED)
def test_what_is_parked(name: str, wanted: str, verify: str) -> None:
    with pytest.raises(InstanceError) as caught:
        run(case(name), wanted, verify=verify)
    assert caught.value.reason is PARKED[name]
    assert caught.value.final


@pytest.mark.parametrize("verify", ["off", "all"])
@pytest.mark.parametrize("name", DECODED)
def test_what_is_decoded_as_dcmtk_decodes_it(name: str, verify: str, tmp_path: Path) -> None:
    source = case(name)
    as_coded = ("+cn",) if DECODED[name] == "dcmdjpeg" else ()
    theirs = dcmtk(source, tmp_path, DECODED[name], *as_coded)
    result: Transcoded
    for wanted in (EXPLICIT, IMPLICIT):
        body, result = run(source, wanted, verify=verify)
        assert result.action is Action.TRANSCODED
        assert (samples(body) == samples(theirs)).all()
        assert fingerprint(source).same_image(fingerprint(body))
    lossy = "point-transform" in name or (DECODED[name] == "dcmdjpeg" and "fragment" in name)
    assert read(body).get("LossyImageCompression", "00") == ("01" if lossy else "00")


def test_what_can_be_verified_is() -> None:
    _, result = run(case("jpeg-lossless-restart-intervals"), verify="all")
    assert result.verified


@pytest.mark.parametrize("name", PASSED_ON)
def test_what_is_passed_on_without_its_preamble(name: str) -> None:
    source = case(name)
    body, result = run(source)
    assert body == bytes(128) + source[128:]
    assert result.action is Action.UNCHANGED
    for wanted in (IMPLICIT, RLE):
        assert run(source, wanted)[0][:128] == bytes(128)
    assert (samples(run(run(source, RLE)[0])[0]) == samples(body)).all()


def test_big_endian_words_are_as_dcmtk_reads_them_or_parked(tmp_path: Path) -> None:
    source = case(SWAPPED)
    theirs = dcmtk(source, tmp_path, "dcmconv", "+te")
    try:
        body, _ = run(source)
    except InstanceError as exc:
        assert exc.reason is Reason.UNDECODABLE  # noqa: PT017 (parked is right as well)
        return
    assert (samples(body) == samples(theirs)).all()
