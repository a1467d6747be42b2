"""What a data set says beside its image: the same in every syntax."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from bridge.dicom.content_sum import BLOCK_BYTES, ICON_IMAGE_SEQUENCE, content_sum, counts
from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import TranscodeOptions
from bridge.worker.payload import FileRoom
from tests.dicom_samples import file_bytes, small_ct_dataset

FILES = sorted(Path(pydicom.__path__[0], "data/test_files").glob("*.dcm"))
LARGE = 3 * BLOCK_BYTES + 10


def sample() -> Dataset:
    dataset = small_ct_dataset()
    dataset.InstitutionName = "odd"
    dataset.RescaleSlope = "1"
    items = []
    for number in (1, 2, 3):
        item = Dataset()
        item.CodeValue = f"T-{number}"
        item.CodeMeaning = "inner"
        inner = Dataset()
        inner.CodeValue = f"nested {number}"
        item.PurposeOfReferenceCodeSequence = Sequence([inner])
        items.append(item)
    dataset.AnatomicRegionSequence = Sequence(items)
    dataset.EncapsulatedDocument = b"\1\2" * (LARGE // 2)
    block = dataset.private_block(0x0019, "OURS", create=True)
    block.add_new(1, "US", 256)
    block.add_new(2, "UN", b"\5\0\0\6")
    return dataset


def written(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    copy = dcmread(io.BytesIO(file_bytes(dataset)))
    if syntax == RLELossless:
        copy.compress(RLELossless, generate_instance_uid=False)
        return file_bytes(copy)
    copy.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    # Value by value, so that each is written anew in the other byte order.
    for element in copy.iterall():
        assert element.VR
    dcmwrite(
        buffer,
        copy,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
    ],
)
def test_the_syntax_does_not_count(syntax: UID) -> None:
    dataset = sample()
    if syntax == ExplicitVRBigEndian:
        del dataset[0x0019, 0x1002]  # a UN cannot be swapped, by anybody
    assert content_sum(written(dataset, syntax)) == content_sum(written(dataset))


def last(dataset: Dataset) -> Dataset:
    items = dataset.AnatomicRegionSequence
    assert isinstance(items[2], Dataset)
    return items[2]


def set_to(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def nested(dataset: Dataset) -> None:
    last(dataset).PurposeOfReferenceCodeSequence[0].CodeValue = "changed"


def in_the_last_item(dataset: Dataset) -> None:
    last(dataset).CodeMeaning = "changed"


def another_item(dataset: Dataset) -> None:
    dataset.AnatomicRegionSequence.append(Dataset())


def private(dataset: Dataset) -> None:
    dataset[0x0019, 0x1001].value = 257


def private_unknown(dataset: Dataset) -> None:
    dataset[0x0019, 0x1002].value = b"\5\0\0\7"


def end_of_a_large_value(dataset: Dataset) -> None:
    dataset.EncapsulatedDocument = dataset.EncapsulatedDocument[:-1] + b"\3"


CHANGES = [
    set_to("InstitutionName", "other"),
    set_to("PatientName", "OTHER^NAME"),
    set_to("RescaleSlope", "2"),
    set_to("StudyDescription", "added"),
    lambda dataset: delattr(dataset, "Modality"),
    nested,
    in_the_last_item,
    another_item,
    private,
    private_unknown,
    end_of_a_large_value,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_every_change_of_a_value_counts(change: Callable[[Dataset], None], syntax: UID) -> None:
    before = sample()
    after = deepcopy(before)
    change(after)
    assert content_sum(written(after, syntax)) != content_sum(written(before))


UNSEEN = [
    set_to("PhotometricInterpretation", "MONOCHROME1"),
    set_to("BitsStored", 11),
    set_to("LossyImageCompression", "01"),
    set_to("LossyImageCompressionRatio", "3"),
    set_to("NumberOfFrames", "1"),
    lambda dataset: setattr(dataset, "PixelData", bytes(len(dataset.PixelData))),
    lambda dataset: dataset.add_new(0x00080000, "UL", 4),
    lambda dataset: dataset.add_new(0xFFFCFFFC, "OB", b"\1\1"),
    lambda dataset: dataset.add_new(ICON_IMAGE_SEQUENCE, "SQ", [Dataset()]),
]


@pytest.mark.parametrize("change", UNSEEN)
def test_how_pixels_are_coded_does_not_count(change: Callable[[Dataset], None]) -> None:
    before = sample()
    after = deepcopy(before)
    change(after)
    assert content_sum(written(after)) == content_sum(written(before))
    assert counts(0x00281052)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_the_transcoder_writes_says_the_same(path: Path) -> None:
    data = path.read_bytes()
    for wanted in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        try:
            result = transcode(
                data,
                wanted_syntax=str(wanted),
                options=TranscodeOptions(),
                instance_id="i",
                room=FileRoom(1 << 30),
            )
            moved = b"".join(result.body)
            before = content_sum(data)
        except InstanceError:
            continue  # it is parked, or cannot be walked: it is never compared
        assert content_sum(moved) == before
