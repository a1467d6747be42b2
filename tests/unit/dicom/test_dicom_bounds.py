"""Bounds of files, each at its edge: exactly so much is taken, one more is not."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from bridge.dicom import facts
from bridge.dicom.description import Description
from bridge.dicom.encoders import _J2K_BITS_MAX, jpeg_2000
from bridge.dicom.facts import HEAD_BYTES, HEAD_GROWS, facts_of_file
from bridge.dicom.file_meta import _META_ELEMENTS_MAX, _UID_CHARACTERS_MAX, read_file_meta
from bridge.dicom.new_pixel_data import NATIVE_BYTES_MAX, refuse_above_32_bits
from bridge.dicom.rewrite import _SMALL_BYTES, Pieces
from bridge.dicom.samples import SamplesError
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.dicom_samples import file_bytes, small_ct_dataset

D = Description(
    rows=2, columns=3, samples=1, photometric="MONOCHROME2", planar=None, allocated=8, stored=8,
    signed=False, frames=1, lossy="",
)  # fmt: skip
DATASET = pack("<HH2sH", 8, 5, b"CS", 10) + b"ISO_IR 100"
COMMENTS = 0x00204000


def meta_of(*members: tuple[int, bytes]) -> memoryview:
    elements = (pack("<HH2sH", 2, number, b"UI", len(v)) + v for number, v in members)
    return memoryview(bytes(128) + b"DICM" + b"".join(elements) + DATASET)


def test_file_meta_information_of_so_many_elements_ends() -> None:
    members = [(number, b"1.2 ") for number in range(0x10, 0x10 + _META_ELEMENTS_MAX)]
    read = read_file_meta(meta_of(*members))
    assert (read.syntax, len(read.values)) == ("1.2", 100)
    with pytest.raises(InstanceError, match="does not end") as caught:
        read_file_meta(meta_of(*members, (0x900, b"1.2 ")))
    assert caught.value.reason is Reason.NOT_DICOM


def test_a_transfer_syntax_is_no_longer_than_a_uid() -> None:
    longest = "1." + "2" * (_UID_CHARACTERS_MAX - 2)
    assert read_file_meta(meta_of((0x10, longest.encode()))).syntax == longest
    longer = read_file_meta(meta_of((0x10, longest.encode() + b"34")))
    assert longer.syntax == longest
    both = read_file_meta(meta_of((0x10, b"1.2 "), (0x10, longest.encode() + b"34")))
    assert both.syntaxes == ("1.2", longest)


@pytest.mark.parametrize(
    ("rows", "columns", "frames", "fits"),
    [(1, 2, 2**31 - 1, True), (65535, 1, 65537, False), (65535, 2, 32767, True)],
)
def test_native_pixel_data_has_a_length_of_32_bits(
    rows: int, columns: int, frames: int, *, fits: bool
) -> None:
    """FFFFFFFF means an undefined length (PS3.5 7.1.1), so one less is the longest."""
    d = replace(D, rows=rows, columns=columns, frames=frames)
    assert NATIVE_BYTES_MAX == 2**32 - 2
    if fits:
        refuse_above_32_bits(d)
        return
    assert d.native_bytes == NATIVE_BYTES_MAX + 1
    with pytest.raises(InstanceError) as caught:
        refuse_above_32_bits(d)
    assert caught.value.reason is Reason.TOO_LARGE


def test_small_chunks_are_gathered_and_large_ones_stay_views() -> None:
    small, large = bytes([1]) * _SMALL_BYTES, bytes([2]) * (_SMALL_BYTES + 1)
    pieces = Pieces()
    for chunk in (small, small, large, small, b"end"):
        pieces.add(chunk)
    chunks = pieces.chunks()
    assert [bytes(chunk) for chunk in chunks] == [small * 2, large, small + b"end"]
    assert chunks[1] is large, "not copied"
    assert pieces.length == sum(map(len, chunks))


@pytest.mark.parametrize("precision", [16, 23, _J2K_BITS_MAX])
def test_jpeg_2000_up_to_24_bits_comes_back_as_it_was(precision: int) -> None:
    """The oracle is arithmetic: each power of two, and what lies below it, up to the last bit."""
    array = np.array([1 << bit for bit in range(precision)] * 2, "u4").reshape(2, precision)
    array[1] = 2 * array[1] - 1
    d = replace(D, allocated=32, stored=precision, columns=precision)
    assert np.array_equal(imagecodecs.jpeg2k_decode(jpeg_2000(array, d)), array)


def test_jpeg_2000_beyond_24_bits_is_not_encoded() -> None:
    """From 28 bits on OpenJPEG gives back other samples, and does not tell."""
    with pytest.raises(SamplesError, match="25 bits"):
        jpeg_2000(np.full((2, 3), 1 << _J2K_BITS_MAX, "u4"), replace(D, allocated=32, stored=25))


@pytest.mark.parametrize(("times", "found"), [(1, True), (2, True), (20, False)])
def test_a_deflated_data_set_is_inflated_so_far_for_a_rule(
    monkeypatch: pytest.MonkeyPatch, times: int, *, found: bool
) -> None:
    """Nothing of a file decides how much memory it takes: in small, 1 MiB instead of 1 GiB."""
    monkeypatch.setattr(facts, "INFLATED_MAX", HEAD_BYTES * HEAD_GROWS)
    dataset = small_ct_dataset()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.add_new(0x00091001, "OB", bytes(HEAD_BYTES * times))
    dataset.ImageComments = "far"
    data = memoryview(file_bytes(dataset))
    if found:
        assert facts_of_file(data, {COMMENTS})["00204000"] == "far"
        return
    with pytest.raises(InstanceError) as caught:
        facts_of_file(data, {COMMENTS})
    assert caught.value.reason is Reason.TOO_LARGE
