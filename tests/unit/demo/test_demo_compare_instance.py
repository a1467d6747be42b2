"""The demo's judgement: right deliveries pass, each kind of damage is noticed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from bridge.demo.build_file import WORD_BYTES, file_bytes
from bridge.demo.compare_instance import compare_instance
from bridge.demo.expected_samples import expected_samples
from bridge.demo.instances import Sample, sample_names, sample_set

ALREADY_WANTED = "examples_palette"


def sample_of(name: str) -> Sample:
    return next(sample_set([name]))


def delivered_dataset(sample: Sample) -> Dataset:
    """What a correct bridge leaves: the truth, put where the source's pixel data was."""
    dataset = dcmread(BytesIO(sample.data))
    big_endian = not dataset.original_encoding[1]
    for element in dataset.iterall() if big_endian else ():
        if element.VR in WORD_BYTES:
            words = np.frombuffer(element.value, f"u{WORD_BYTES[element.VR]}")
            element.value = words.byteswap().tobytes()
    truth = expected_samples(sample)
    if truth.candidates:
        right = truth.candidates[0]
        if dataset.BitsAllocated == 1:
            value = np.packbits(right.samples.reshape(-1), bitorder="little").tobytes()
        else:
            value = right.samples.astype(right.samples.dtype.newbyteorder("<")).tobytes()
        dataset.PhotometricInterpretation = right.photometric
        if right.samples.shape[-1] == 3:
            dataset.PlanarConfiguration = 0
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 else "OW"
        dataset["PixelData"].value = value + b"\x00" * (len(value) % 2)
        dataset["PixelData"].is_undefined_length = False
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]
    if truth.icon is not None:
        icon = dataset.IconImageSequence[0]["PixelData"]
        icon.value = truth.icon + b"\x00" * (len(truth.icon) % 2)
        icon.is_undefined_length = False
    return dataset


@cache
def right_delivery(name: str) -> bytes:
    sample = sample_of(name)
    if sample.syntax == ExplicitVRLittleEndian:
        return sample.data
    return file_bytes(delivered_dataset(sample), ExplicitVRLittleEndian)


def damaged(name: str, damage: Callable[[Dataset], None]) -> bytes:
    dataset = delivered_dataset(sample_of(name))
    damage(dataset)
    return file_bytes(dataset, ExplicitVRLittleEndian)


@pytest.mark.slow
@pytest.mark.parametrize("name", sample_names())
def test_a_right_delivery_is_right(name: str) -> None:
    verdict = compare_instance(sample_of(name), right_delivery(name))
    assert verdict.problems == ()
    assert verdict.right
    has_pixels = "PixelData" in dcmread(BytesIO(sample_of(name).data))
    assert verdict.pixels_equal is (True if has_pixels else None)
    assert verdict.syntax == ExplicitVRLittleEndian


@pytest.mark.parametrize(
    "name", ["ct512-j2k", "mr8-lossless", "rgb-frames-j2k", "seg1-frame-deflated", "rtdose_rle"]
)
def test_one_changed_sample_is_noticed(name: str) -> None:
    def change_last(dataset: Dataset) -> None:
        value = bytearray(dataset.PixelData)
        value[-2] ^= 1
        dataset["PixelData"].value = bytes(value)

    verdict = compare_instance(sample_of(name), damaged(name, change_last))
    assert verdict.pixels_equal is False
    assert any(p.startswith("1 of ") and "samples differ" in p for p in verdict.problems)


def test_lossy_dct_may_differ_by_one_and_not_by_two() -> None:
    name = "mr8-jpeg"

    def change_by(amount: int) -> Callable[[Dataset], None]:
        def change(dataset: Dataset) -> None:
            value = bytearray(dataset.PixelData)
            value[1000] += amount if value[1000] < 128 else -amount
            dataset["PixelData"].value = bytes(value)

        return change

    near = compare_instance(sample_of(name), damaged(name, change_by(1)))
    assert near.right
    assert near.largest_difference == 1
    assert "within 1" in near.how
    assert compare_instance(sample_of(name), damaged(name, change_by(2))).pixels_equal is False


def relabel_photometric(dataset: Dataset) -> None:
    dataset.PhotometricInterpretation = "YBR_FULL_422"


def new_uid(dataset: Dataset) -> None:
    dataset.SOPInstanceUID = generate_uid()


def drop_private(dataset: Dataset) -> None:
    del dataset[0x00111001]


def change_inside_private_sequence(dataset: Dataset) -> None:
    dataset[0x00111004].value[0].CodeValue = "T-2"


def add_element(dataset: Dataset) -> None:
    dataset.AcquisitionComments = "added"


def respell_number(dataset: Dataset) -> None:
    dataset.RescaleSlope = "1.000"


def shorten_pixels(dataset: Dataset) -> None:
    dataset["PixelData"].value = dataset.PixelData[:-2]


def lengthen_pixels(dataset: Dataset) -> None:
    dataset["PixelData"].value = dataset.PixelData + b"\x00\x00"


def drop_pixels(dataset: Dataset) -> None:
    del dataset["PixelData"]


def change_bits_stored(dataset: Dataset) -> None:
    dataset.BitsStored = 12


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("rgb-jpeg-422", relabel_photometric, "labelled YBR_FULL_422, not RGB or YBR_FULL"),
        ("ct512-j2k", new_uid, "SOP Instance UID changed"),
        ("ct512-j2k", drop_private, "(0011,1001) missing"),
        ("ct512-big-endian", drop_private, "(0011,1001) missing"),
        ("report-jpeg-lossless", drop_private, "(0011,1001) missing"),
        ("ct512-j2k", change_inside_private_sequence, "(0011,1004)[0](0008,0100) changed"),
        ("ct512-j2k", add_element, "(0018,4000) added"),
        ("ct512-j2k", respell_number, "(0028,1053) changed"),
        ("ct512-j2k", shorten_pixels, "pixel data of 524286 bytes for 524288"),
        ("ct512-j2k", lengthen_pixels, "pixel data of 524290 bytes for 524288"),
        ("ct512-j2k", drop_pixels, "pixel data missing"),
        ("ct512-j2k", change_bits_stored, "(0028,0101) changed"),
    ],
)
def test_damage_is_noticed(name: str, damage: Callable[[Dataset], None], problem: str) -> None:
    verdict = compare_instance(sample_of(name), damaged(name, damage))
    assert problem in verdict.problems
    assert not verdict.right


def test_wrong_transfer_syntax_label_is_noticed() -> None:
    sample = sample_of("ct512-j2k")
    verdict = compare_instance(sample, file_bytes(delivered_dataset(sample), sample.syntax))
    assert verdict.problems[0].startswith("transfer syntax is 1.2.840.10008.1.2.4.90, not")
    assert not verdict.right


def test_an_unchanged_compressed_file_is_noticed() -> None:
    sample = sample_of("ct512-j2k")
    verdict = compare_instance(sample, sample.data)
    assert "pixel data still encapsulated" in verdict.problems
    assert verdict.pixels_equal is False


def test_compressed_pixels_under_a_native_label_are_noticed() -> None:
    sample = sample_of("ct512-j2k")
    verdict = compare_instance(
        sample, file_bytes(dcmread(BytesIO(sample.data)), ExplicitVRLittleEndian)
    )
    assert verdict.problems == ("pixel data still encapsulated",)


def test_an_icon_left_compressed_is_noticed() -> None:
    sample = sample_of("mr8-lossless-icon")
    dataset = delivered_dataset(sample)
    dataset.IconImageSequence = dcmread(BytesIO(sample.data)).IconImageSequence
    verdict = compare_instance(sample, file_bytes(dataset, ExplicitVRLittleEndian))
    assert verdict.problems == ("(0088,0200)[0](7FE0,0010) changed",)


def test_big_endian_words_left_unswapped_are_noticed() -> None:
    sample = sample_of("palette-big-endian")
    dataset = delivered_dataset(sample)
    table = dataset["RedPaletteColorLookupTableData"]
    table.value = np.frombuffer(table.value, "u2").byteswap().tobytes()
    verdict = compare_instance(sample, file_bytes(dataset, ExplicitVRLittleEndian))
    assert verdict.problems == ("(0028,1201) changed",)


def test_an_instance_in_the_wanted_syntax_must_arrive_byte_for_byte() -> None:
    sample = sample_of(ALREADY_WANTED)
    assert compare_instance(sample, sample.data).how == "the same bytes"
    rewritten = file_bytes(dcmread(BytesIO(sample.data)), ExplicitVRLittleEndian)
    assert rewritten != sample.data
    verdict = compare_instance(sample, rewritten)
    assert "was in the wanted syntax already, and its bytes changed" in verdict.problems


def test_what_is_no_dicom_file_is_said_to_be_none() -> None:
    verdict = compare_instance(sample_of("ct512-j2k"), b"<html>not found</html>")
    assert verdict.problems == ("not a DICOM file",)
    assert verdict.pixels_equal is False


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("JPEGLSNearLossless_08", "01", True),
        ("JPEGLSNearLossless_08", "00", False),
        ("MR_small_jpeg_ls_lossless", "01", False),
    ],
)
def test_a_lossy_image_without_the_mark_may_get_it(name: str, value: str, right: bool) -> None:
    def mark(dataset: Dataset) -> None:
        assert "LossyImageCompression" not in dataset
        dataset.LossyImageCompression = value
        dataset.LossyImageCompressionMethod = "ISO_14495_1"

    assert compare_instance(sample_of(name), damaged(name, mark)).right is right


def test_a_lossy_mark_is_never_taken_back() -> None:
    def take_back(dataset: Dataset) -> None:
        dataset.LossyImageCompression = "00"

    verdict = compare_instance(sample_of("mr8-jpeg"), damaged("mr8-jpeg", take_back))
    assert verdict.problems == ("(0028,2110) changed",)


def test_many_differences_are_counted_not_listed() -> None:
    sample = sample_of("mr16s-j2k")
    other = delivered_dataset(sample_of("ct512-j2k"))
    verdict = compare_instance(sample, file_bytes(other, ExplicitVRLittleEndian))
    assert any(problem.endswith("more elements differ") for problem in verdict.problems)
    assert len(verdict.problems) < 10
