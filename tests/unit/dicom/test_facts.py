"""Attributes of a file that a rule can look at, in every encoding, near its head and far behind."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from bridge.dicom.facts import HEAD_BYTES, VALUE_BYTES_MAX, facts_of_file
from tests.dicom_samples import file_bytes, small_ct_dataset

STATION, ROWS, TYPE, WINDOW, COMMENTS = 0x00081010, 0x00280010, 0x00080008, 0x00281050, 0x00204000
NUMBERS = {
    "SimpleFrameList": (0x00081161, [7, 8]),  # UL
    "Rows": (ROWS, 4),
    "PixelPaddingRangeLimit": (0x00280121, None),
    "RecommendedDisplayFrameRateInFloat": (0x00089459, 12.5),  # FL
    "ReferencePixelPhysicalValueX": (0x00186028, 2.25),  # FD
    "FrameIncrementPointer": (0x00280009, 0x00181063),  # AT
}
ENCODINGS = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
]


def dataset_in(syntax: str) -> Dataset:
    dataset = small_ct_dataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.StationName = "MR-7 "
    dataset.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    for name, (_, value) in NUMBERS.items():
        if value is not None and name != "Rows":
            setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize("syntax", ENCODINGS)
def test_values_are_text_in_every_encoding(syntax: str) -> None:
    data = file_bytes(dataset_in(syntax))
    tags = {tag for tag, _ in NUMBERS.values()} | {STATION, TYPE}
    facts = facts_of_file(memoryview(data), tags)
    rows = str(small_ct_dataset().Rows)
    assert facts["00081010"] == "MR-7"
    assert facts["00080008"] == "DERIVED\\SECONDARY\\MPR"
    assert facts["00081161"] == "7\\8"
    assert facts["00280010"] == rows
    assert facts["00089459"] == "12.5"
    assert facts["00186028"] == "2.25"
    assert facts["00280009"] == "0018,1063"
    assert facts["00280121"] == "", "what is not there is known to be empty"
    assert facts["modality"] == "CT"


@pytest.mark.parametrize("syntax", ENCODINGS)
def test_what_lies_far_behind_the_head_is_found(syntax: str) -> None:
    dataset = dataset_in(syntax)
    dataset.add_new(0x00091001, "OB", bytes(range(256)) * (3 * HEAD_BYTES // 256))
    dataset.ImageComments = "far"
    data = memoryview(file_bytes(dataset))
    assert facts_of_file(data, {COMMENTS})["00204000"] == "far"
    head = facts_of_file(data[:HEAD_BYTES], {COMMENTS, STATION}, whole=False)
    assert "00204000" not in head, "it is not known yet"
    assert head["00081010"] == "MR-7"
    assert head["modality"] == "CT"


@pytest.mark.parametrize("cut", range(0, 600, 7))
def test_a_head_that_ends_anywhere_says_nothing_wrong(cut: int) -> None:
    dataset = small_ct_dataset()
    dataset.StationName = "MR-7"
    item = Dataset()
    item.StationName = "inside"
    dataset.ReferencedStudySequence = Sequence([item])
    dataset.ReferencedStudySequence.is_undefined_length = True
    dataset["ReferencedStudySequence"].is_undefined_length = True
    data = memoryview(file_bytes(dataset))
    complete = facts_of_file(data, {STATION, ROWS, 0x00081030})
    head = facts_of_file(data[: 400 + cut], {STATION, ROWS, 0x00081030}, whole=False)
    assert head.items() <= complete.items()
    assert complete["00081010"] == "MR-7", "of the data set itself, and not of an item"


def test_private_tags_and_bytes_and_long_values() -> None:
    dataset = small_ct_dataset()
    block = dataset.private_block(0x0019, "ACME", create=True)
    block.add_new(0x10, "LO", "special")
    block.add_new(0x11, "OB", b"\0\1")
    dataset.ImageComments = "x" * 5000
    data = memoryview(file_bytes(dataset))
    facts = facts_of_file(data, {0x00191010, 0x00191011, COMMENTS})
    assert facts["00191010"] == "special"
    assert facts["00191011"] == ""
    assert facts["00204000"] == "x" * VALUE_BYTES_MAX


@pytest.mark.parametrize(
    ("charset", "raw", "told"),
    [
        ("ISO_IR 192", "Müller".encode(), "Müller"),
        ("ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
    ],
)
def test_letters_beyond_ascii(charset: str, raw: bytes, told: str) -> None:
    dataset = small_ct_dataset()
    dataset.SpecificCharacterSet = charset
    dataset.InstitutionName = "XXXXXXXX"
    data = file_bytes(dataset).replace(b"XXXXXXXX", raw.ljust(8))
    assert facts_of_file(memoryview(data), {0x00080080})["00080080"] == told
