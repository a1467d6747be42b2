"""Reproducers: nothing that identifies is left, and the pixel data is there byte for byte."""

from __future__ import annotations

import hashlib
import io
import random
import zlib
from pathlib import Path
from struct import pack, unpack

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

from bridge.dicom.confidentiality import PROTECTIONS, Protection
from bridge.dicom.deidentify import deidentify
from bridge.dicom.elements import LONG_VRS
from bridge.dicom.file_meta import FileMeta, read_file_meta, write_file_meta
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.dicom_strategies import SOP, Made, Writer
from tests.transcode_cases import DEFLATED

SECRET = b"a secret for tests"
MARK = "QQMARKQQ"
"""In every identifying value of a test file; must not be anywhere in the result."""
MARKED_UID = "1.2.999.31415926535"
TABLE_SHA256 = "5b5783e8a3192d9b81d0cc67a9051312688d603f325d8dd0d3c3cfcb59b23e45"

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
    for repeat in (0x00, 0x02, 0x10, 0xFE):  # PS3.5 7.6: repeating groups, the first to the last
        dataset.add_new((0x6000 + repeat) << 16 | 0x3000, "OW", MARK.encode())
        dataset.add_new((0x6000 + repeat) << 16 | 0x0022, "LO", MARK)
        dataset.add_new((0x6000 + repeat) << 16 | 0x0010, "US", 512)
        dataset.add_new((0x6000 + repeat) << 16 | 0x0040, "CS", "G")
        dataset.add_new((0x5000 + repeat) << 16 | 0x3000, "OW", MARK.encode())
        inside.add_new((0x6000 + repeat) << 16 | 0x3000, "OW", MARK.encode())
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
        assert element.tag.group & 0xFF00 not in (0x5000, 0x6000), element.tag
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


# --- each row of each table: what is kept is as important as what goes ---


def raw(tag: int, vr: bytes, value: bytes) -> bytes:
    head = pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    size = pack("<HI", 0, len(value)) if vr in LONG_VRS else pack("<H", len(value))
    return head + size + value


def cleaned(*elements: bytes, nested: bool = False) -> bytes:
    """What becomes of a data set of these elements, at the top or in a sequence of three items."""
    content = b"".join(elements)
    if nested:
        item = pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        content = raw(0x00081115, b"SQ", item * 3)
    start = raw(0x00080005, b"CS", b"ISO_IR") + raw(0x00080016, b"UI", b"1.2.840.10008.1")
    head = write_file_meta(
        FileMeta("", 0, {}), syntax=ExplicitVRLittleEndian, sop_class_uid="1.2",
        sop_instance_uid="1.3",
    )  # fmt: skip
    return deidentify(head + start + content, secret=SECRET).data


def test_the_table_is_that_of_the_standard() -> None:
    """PS3.15 table E.1-1, edition 2024e. No library has it: its rows are counted and summed.

    Where a row is changed, compare it with the standard and write the new sum here.
    """
    counts = {p: sum(q is p for q in PROTECTIONS.values()) for p in Protection}
    assert counts == {
        Protection.REMOVE: 423,
        Protection.EMPTY: 42,
        Protection.DUMMY: 98,
        Protection.NEW_UID: 54,
    }
    rows = "".join(f"{tag:08X}{PROTECTIONS[tag].value}" for tag in sorted(PROTECTIONS))
    assert (
        hashlib.sha256(rows.encode()).hexdigest()
        == "5b5783e8a3192d9b81d0cc67a9051312688d603f325d8dd0d3c3cfcb59b23e45"
    )


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("group", [0x0004, 0x0010, 0x0012, 0x0032, 0x0038, 0x4008])
def test_groups_of_patients_are_left_out(group: int, nested: bool) -> None:
    """Whatever is in them: a code is kept in others."""
    assert MARK.encode() not in cleaned(
        raw(group << 16 | 0x00F2, b"CS", b"QQMARKQQ"), nested=nested
    )
    assert MARK.encode() in cleaned(raw(0x001800F2, b"CS", b"QQMARKQQ"), nested=nested)


FREE = ["PN", "LO", "SH", "LT", "ST", "UT", "UC", "UR", "AE", "AS", "DA", "DT", "TM"]
BINARY = ["OB", "OW", "OF", "OD", "OL", "OV"]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "vr", [*FREE, *BINARY, "UN", "CS", "DS", "IS", "US", "FD", "SV", "UV", "AT"]
)
def test_what_no_table_names_goes_by_its_vr(vr: str, nested: bool) -> None:
    """Free text, dates and binary data may hold anything; codes and numbers may not."""
    goes = vr in (*FREE, *BINARY, "UN")
    data = cleaned(raw(0x001800F2, vr.encode(), b"QQMARKQQ"), nested=nested)
    assert (MARK.encode() not in data) is goes


@pytest.mark.parametrize("vr", BINARY)
@pytest.mark.parametrize("group", [0x0028, 0x5600, 0x7FE0])
def test_binary_data_that_decoding_needs_is_kept(vr: str, group: int) -> None:
    assert MARK.encode() in cleaned(raw(group << 16 | 0x00F2, vr.encode(), b"QQMARKQQ"))


@pytest.mark.parametrize("number", [0x01, 0x02, 0x03, 0x08, 0x09, 0x10])
def test_elements_of_the_pixels_are_kept_at_the_top(number: int) -> None:
    element = raw(0x7FE00000 | number, b"OB", b"QQMARKQQ")
    assert element in cleaned(element)


@pytest.mark.parametrize("tag", [0x00080070, 0x00081090, 0x00181020])
def test_text_that_a_report_needs_is_kept(tag: int) -> None:
    element = raw(tag, b"LO", b"QQMARKQQ")
    assert element in cleaned(element)
    assert element in cleaned(element, nested=True)


@pytest.mark.parametrize("tag", [0x0008001A, 0x0008001B, 0x00081150, 0x00080062])
def test_uids_of_classes_are_kept(tag: int) -> None:
    element = raw(tag, b"UI", b"1.2.999.7\0")
    assert element in cleaned(element)


@pytest.mark.parametrize("own", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_three_uids_in_one_element(own: tuple[int, ...]) -> None:
    """Only where each of them is of the standard is the element kept."""
    uids = [b"1.2.999.%d" % i if i in own else b"1.2.840.10008.5.%d" % i for i in range(3)]
    element = raw(0x00880906, b"UI", b"\\".join(uids))
    data = read(cleaned(raw(0x001800F2, b"UI", b"\\".join(uids))))
    value = data.get(0x001800F2).value
    if not own:
        assert [str(uid) for uid in value] == [uid.decode() for uid in uids]
        return
    assert len(value) == 3
    assert len(set(value)) == 3
    assert all(uid.startswith("2.25.") for uid in value)
    assert element not in cleaned(element)


@pytest.mark.parametrize(
    ("vr", "dummy"),
    [
        ("DA", b"19000101"),
        ("TM", b"000000"),
        ("DT", b"19000101000000"),
        ("AS", b"000Y"),
        ("IS", b"0 "),
        ("DS", b"0 "),
        ("LO", b"REMOVED "),
        ("CS", b"REMOVED "),
        ("OB", b""),
        ("US", b""),
        ("SQ", b""),
    ],
)
def test_what_takes_the_place_of_a_value(vr: str, dummy: bytes) -> None:
    """(0008,0106) is one of those that must stay there (D)."""
    assert PROTECTIONS[0x00080106] is Protection.DUMMY
    item = pack("<HHI", 0xFFFE, 0xE000, 0)
    value = item if vr == "SQ" else b"QQMARKQQ"
    assert raw(0x00080106, vr.encode(), dummy) in cleaned(raw(0x00080106, vr.encode(), value))


def test_a_new_uid_is_of_vr_ui_or_nothing() -> None:
    assert PROTECTIONS[0x00080018] is Protection.NEW_UID
    data = cleaned(raw(0x00080018, b"LO", b"1.2.999 "))
    assert b"1.2.999" not in data
    assert 0x00080018 not in read(data)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_added_takes_its_place(at: int) -> None:
    """In order, and instead of what the file says of itself."""
    elements = [raw(0x00100040, b"CS", b"O "), raw(0x00180015, b"CS", b"HEAD"),
                raw(0x00280002, b"US", b"\1\0")]  # fmt: skip
    elements.insert(at, raw(0x00120062, b"CS", b"NO"))
    elements.sort(key=lambda e: unpack("<HH", e[:4]))
    data = read(cleaned(*elements))
    assert data.PatientIdentityRemoved == "YES"
    assert "orthanc-bridge" in str(data.DeidentificationMethod)
    tags = [e.tag for e in data]
    assert tags == sorted(tags)
    empty = read(cleaned())
    assert empty.PatientIdentityRemoved == "YES"


@pytest.mark.parametrize("tag", [0x00000002, 0x00020010, 0x00090010, 0x00180000, 0x00191001])
def test_private_elements_group_lengths_and_commands_go(tag: int) -> None:
    elements = raw(tag, b"CS", b"QQMARKQQ")
    if tag >> 16 == 2:
        return  # it would be file meta information
    assert MARK.encode() not in cleaned(elements)


def test_a_deflated_data_set_that_is_cut_between_two_elements_is_no_clean_file() -> None:
    """What inflates of it would pass for the whole."""
    whole = Made(DEFLATED, SOP, None).data
    head = whole[: read_file_meta(memoryview(whole)).dataset_offset]
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    cut = engine.compress(Writer(implicit=False).elements(SOP)) + engine.flush(zlib.Z_FULL_FLUSH)
    assert deidentify(head + cut + engine.flush(), secret=SECRET).data
    with pytest.raises(InstanceError, match="cut short") as caught:
        deidentify(head + cut, secret=SECRET)
    assert caught.value.reason is Reason.UNDECODABLE


def test_what_tells_whether_text_is_in_the_picture_is_noted() -> None:
    dataset = small_ct_dataset()
    dataset.BurnedInAnnotation = "YES"
    done = deidentify(file_bytes(dataset), secret=SECRET)
    assert (done.modality, done.burned_in) == ("CT", "YES")
    assert done.syntax == ExplicitVRLittleEndian
    del dataset.BurnedInAnnotation
    assert deidentify(file_bytes(dataset), secret=SECRET).burned_in == ""
