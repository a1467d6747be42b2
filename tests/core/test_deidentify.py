"""Reproducers: nothing that identifies is left, and the pixel data is there byte for byte."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pydicom.data
import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from bridge.core.confidentiality import PROTECTIONS, Protection
from bridge.core.deidentify import deidentify
from bridge.core.errors import InstanceError
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset

SECRET = b"a secret for tests"
MARK = "QQMARKQQ"
"""In every identifying value of a test file; must not be anywhere in the result."""
MARKED_UID = "1.2.999.31415926535"

TEXTS = {
    "PN": f"{MARK}^X", "LO": MARK, "SH": MARK, "LT": MARK, "ST": MARK, "UT": MARK, "UC": MARK,
    "UR": f"http://{MARK}", "AE": MARK, "CS": MARK, "DA": "19771231", "TM": "235958",
    "DT": "19771231235958", "AS": "077Y", "UI": MARKED_UID, "IS": "31415926", "DS": "31415926",
    "OB": MARK.encode(), "OW": MARK.encode(), "UN": MARK.encode(),
}  # fmt: skip


def value_for(tag: int) -> object | None:
    """Return a value that marks the element, or None where a text cannot mark it."""
    return TEXTS.get(dictionary_VR(tag).split(" ")[0])


def marked(syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Return a CT with every markable element of the table, at the top and inside a sequence."""
    dataset = small_ct_dataset(patient_id=MARK)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.SourceApplicationEntityTitle = MARK
    inside = Dataset()
    for tag in PROTECTIONS:
        if not dictionary_has_tag(tag) or tag >> 16 in (0x0000, 0x0002, 0xFFFA, 0xFFFC):
            continue
        value = value_for(tag)
        if value is not None and tag != 0x00080018:
            vr = dictionary_VR(tag).split(" ")[0]
            dataset.add_new(tag, vr, value)
            inside.add_new(tag, vr, value)
    dataset.SOPInstanceUID = MARKED_UID
    dataset.StudyInstanceUID = MARKED_UID
    dataset.SeriesInstanceUID = MARKED_UID
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(MARKED_UID)
    block = dataset.private_block(0x0009, MARK, create=True)
    block.add_new(0x01, "LO", MARK)
    dataset.add_new(0x60003000, "OW", MARK.encode())
    dataset.add_new(0x50003000, "OW", MARK.encode())
    inside.private_block(0x0011, MARK, create=True).add_new(0x02, "UN", MARK.encode())
    dataset.SharedFunctionalGroupsSequence = Sequence([inside])
    return dataset


def read(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data))


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_nothing_that_the_table_names_is_left(syntax: str) -> None:
    before = marked(syntax)
    done = deidentify(file_bytes(before), secret=SECRET)
    after = read(done.data)
    assert after.file_meta.TransferSyntaxUID == syntax
    everything = repr(after) + repr(after.file_meta)
    for secret in (MARK, MARKED_UID, "19771231", "235958", "077Y", "31415926"):
        assert secret not in everything, secret
    if syntax != DeflatedExplicitVRLittleEndian:
        assert MARK.encode() not in done.data
    for element in after.iterall():
        protection = PROTECTIONS.get(int(element.tag))
        if element.tag in (0x00120062, 0x00120063):
            continue
        assert protection is not Protection.REMOVE, element.tag
        assert not element.tag.is_private, element.tag
    assert after.PixelData == before.PixelData
    assert after.PatientIdentityRemoved == "YES"


def test_uids_are_new_the_same_everywhere_and_different_with_another_secret() -> None:
    first, again, other = (
        read(deidentify(file_bytes(marked()), secret=secret).data)
        for secret in (SECRET, SECRET, b"another")
    )
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
    assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID
    assert first.StudyInstanceUID == first.SOPInstanceUID, "one UID was used for both"
    assert str(first.SOPInstanceUID).startswith("2.25.")
    assert first.SOPClassUID == read(small_ct()).SOPClassUID


def test_what_decoding_needs_is_kept() -> None:
    before = small_ct_dataset()
    before.Manufacturer = "Maker"
    before.WindowCenter = "40"
    after = read(deidentify(file_bytes(before), secret=SECRET).data)
    for name in (
        "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
        "SamplesPerPixel", "PhotometricInterpretation", "Modality", "Manufacturer",
        "WindowCenter",
    ):  # fmt: skip
        assert getattr(after, name) == getattr(before, name), name
    assert "PatientName" in after
    assert after.PatientName == ""


REFUSED = {"rtplan_truncated.dcm", "no_meta.dcm", "meta_missing_tsyntax.dcm"}
"""Cut in the middle of an element, or without anything that shows the encoding."""
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def wheel_files() -> list[Path]:
    root = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(p for p in root.glob("*.dcm") if p.stat().st_size < 1_000_000)


@pytest.mark.parametrize("path", wheel_files(), ids=lambda path: path.name)
def test_real_files_keep_their_pixel_data_byte_for_byte(path: Path) -> None:
    if path.name in REFUSED:
        with pytest.raises(InstanceError):
            deidentify(path.read_bytes(), secret=SECRET)
        return
    done = deidentify(path.read_bytes(), secret=SECRET)
    before, after = dcmread(path, force=True), dcmread(io.BytesIO(done.data), force=True)
    for name in PIXELS:
        assert after.get_item(name) == before.get_item(name) or (
            after[name].value == before[name].value
        ), name
    for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "InstitutionName"):
        assert str(after.get(name) or "") in ("", "REMOVED", "19000101"), name
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert after.get(name) is None or after[name].value != before[name].value, name


def test_pixel_data_that_runs_past_the_end_is_kept_as_it_is() -> None:
    cut = small_ct(rows=64, columns=64)[:-1000]
    done = deidentify(cut, secret=SECRET)
    assert done.data.endswith(cut[-3000:])


def test_what_cannot_be_walked_is_refused() -> None:
    data = small_ct()
    at = data.index(b"\x08\x00\x16\x00")  # SOP Class UID: its length now runs past the end
    broken = data[: at + 6] + b"\xff\xff" + data[at + 8 :]
    with pytest.raises(InstanceError, match="past the end"):
        deidentify(broken, secret=SECRET)
    with pytest.raises(InstanceError):
        deidentify(b"not DICOM at all" * 20, secret=SECRET)


def test_a_wrong_label_stays_wrong() -> None:
    data = small_ct()
    implicit = data.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2\x00\x00\x00")
    done = deidentify(implicit, secret=SECRET)
    assert done.syntax == ImplicitVRLittleEndian
    assert b"Bridge^Test" not in done.data
    assert done.data.endswith(data[-512:])


@pytest.mark.parametrize("seed", range(40))
def test_hostile_files_end_in_an_instance_error_or_a_result(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(file_bytes(marked()))
    for _ in range(chance.choice([1, 3, 10])):
        at = chance.randrange(len(data))
        if chance.random() < 0.8:
            data[at] = chance.randrange(256)
        else:
            del data[at : at + chance.randrange(1, 9)]
    try:
        done = deidentify(bytes(data), secret=SECRET)
    except InstanceError as exc:
        assert MARK not in exc.message  # noqa: PT017 (either way is right)
    else:
        assert done.data
