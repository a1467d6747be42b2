"""Is the delivered instance the one that the source held? Pixels, labels, identity, elements.

Elements are compared as bytes in little endian, so that not even the spelling of a number may
change. Problems name tags, counts and sizes, never a value.

This file must not know: bridge.dicom.transcode, bridge.dicom.codecs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from bridge.demo.expected_samples import Candidate, Truth, expected_samples
from bridge.demo.instances import Sample
from bridge.demo.native_reference import Samples, native_samples, native_size
from bridge.dicom.syntaxes import syntax_of

PROBLEMS_SHOWN_MAX = 5

PIXEL_DATA = 0x7FE00010
PIXEL_CODING = frozenset(
    (
        PIXEL_DATA,
        0x7FE00001,  # Extended Offset Table
        0x7FE00002,  # Extended Offset Table Lengths
        0x7FE00003,  # Encapsulated Pixel Data Value Total Length
        0x00280004,  # Photometric Interpretation, compared with the truth instead
        0x00280006,  # Planar Configuration, taken into account when pixels are read
    )
)
"""Elements that a change of syntax may change, and that are judged by themselves."""
LOSSY = 0x00282110
LOSSY_MARKS = frozenset((LOSSY, 0x00282112, 0x00282114))
"""Lossy Image Compression, its ratio and method: may be added where a lossy image lacked them
(PS3.3 C.7.6.1.1.5), never changed."""
DATA_SET_TRAILING_PADDING = 0xFFFCFFFC
ICON_IMAGE_SEQUENCE = 0x00880200

WORD_BYTES = {
    **dict.fromkeys(("US", "SS", "OW", "AT"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), 4),
    **dict.fromkeys(("FD", "SV", "UV", "OD", "OV"), 8),
}
"""VRs whose value depends on the byte order (PS3.5 7.3)."""

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SampleComparison:
    """What was found. ``pixels_equal`` is None for an instance without pixel data.

    ``how`` says what the pixels were compared with, ``largest_difference`` by how much a sample
    differs from it; equal means within the tolerance of the truth. ``syntax`` is the transfer
    syntax that the delivered file claims.
    """

    problems: tuple[str, ...]
    pixels_equal: bool | None
    how: str
    largest_difference: int = 0
    syntax: str = ""

    @property
    def right(self) -> bool:
        """True when nothing is wrong at all."""
        return not self.problems and self.pixels_equal is not False


def compare_instance(
    sample: Sample, delivered: bytes, *, wanted_syntax: str = ExplicitVRLittleEndian
) -> SampleComparison:
    """Compare a delivered file with its sample.

    ``wanted_syntax`` is the native syntax that the bridge was asked for. An instance that was in
    it already must arrive byte for byte.
    """
    if sample.syntax == wanted_syntax and delivered == sample.data:
        has_pixels = PIXEL_DATA in dcmread(BytesIO(delivered))
        return SampleComparison(
            (), True if has_pixels else None, "the same bytes", syntax=wanted_syntax
        )
    try:
        dataset = dcmread(BytesIO(delivered))
    except InvalidDicomError:
        return SampleComparison(("not a DICOM file",), False, "nothing")
    source = dcmread(BytesIO(sample.data))
    truth = expected_samples(sample)
    problems = list(_identity_problems(source, dataset, wanted_syntax))
    if sample.syntax == wanted_syntax:
        problems.append("was in the wanted syntax already, and its bytes changed")
    may_be_added = frozenset() if syntax_of(sample.syntax).lossless else LOSSY_MARKS
    problems += _element_problems(source, dataset, truth, may_be_added)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if not truth.candidates:
        return SampleComparison(tuple(problems), None, "no pixel data", syntax=syntax)
    pixels = _compare_pixels(dataset, truth.candidates, _size_max(source))
    return replace(pixels, problems=(*problems, *pixels.problems), syntax=syntax)


def _identity_problems(source: Dataset, dataset: Dataset, wanted_syntax: str) -> Iterator[str]:
    """File meta information and the UIDs that make the Orthanc ID (G1)."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID"))
    if syntax != wanted_syntax:
        yield f"transfer syntax is {syntax}, not {wanted_syntax}"
    uid = source.get("SOPInstanceUID")
    if dataset.get("SOPInstanceUID") != uid:
        yield "SOP Instance UID changed"
    allowed = (uid, source.file_meta.get("MediaStorageSOPInstanceUID"))
    if dataset.file_meta.get("MediaStorageSOPInstanceUID") not in allowed:
        yield "SOP Instance UID of the file meta information is another"


def _size_max(source: Dataset) -> int:
    """Bytes that the pixel data may have: what the description asks, or what was there before."""
    native = native_size(source)
    element = source["PixelData"]
    return max(native + native % 2, 0 if element.is_undefined_length else len(element.value))


def _compare_pixels(
    dataset: Dataset, candidates: tuple[Candidate, ...], size_max: int
) -> SampleComparison:
    """Compare native pixel data with the right answers, the nearest of which counts."""
    nothing = "nothing"
    if "PixelData" not in dataset:
        return SampleComparison(("pixel data missing",), False, nothing)
    element = dataset["PixelData"]
    if element.is_undefined_length:
        return SampleComparison(("pixel data still encapsulated",), False, nothing)
    label = str(dataset.get("PhotometricInterpretation"))
    same_label = [c for c in candidates if c.photometric == label]
    if not same_label:
        expected = " or ".join(sorted({c.photometric for c in candidates}))
        return SampleComparison((f"labelled {label}, not {expected}",), False, nothing)
    size = native_size(dataset)
    if not size <= len(element.value) <= max(size_max, size + size % 2) or len(element.value) % 2:
        return SampleComparison(
            (f"pixel data of {len(element.value)} bytes for {size}",), False, nothing
        )
    got = native_samples(element.value, dataset)
    return min((_difference(got, c) for c in same_label), key=lambda v: v.largest_difference)


def _difference(got: Samples, candidate: Candidate) -> SampleComparison:
    how = candidate.how + (f", within {candidate.tolerance}" if candidate.tolerance else "")
    wanted = candidate.samples
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        problem = f"samples are {got.dtype} {got.shape}, not {wanted.dtype} {wanted.shape}"
        return SampleComparison((problem,), False, how, np.iinfo(np.int64).max)
    distance = np.abs(got.astype(np.int64) - wanted.astype(np.int64))
    largest = int(distance.max(initial=0))
    wrong = int(np.count_nonzero(distance > candidate.tolerance))
    if wrong:
        problem = f"{wrong} of {distance.size} samples differ, by up to {largest}"
        return SampleComparison((problem,), False, how, largest)
    return SampleComparison((), True, how, largest)


def _element_problems(
    source: Dataset, dataset: Dataset, truth: Truth, may_be_added: frozenset[int]
) -> list[str]:
    big_endian = source.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    before = dict(_flatten(source, big_endian))
    after = dict(_flatten(dataset, False))
    if truth.icon is not None:
        before[ICON_IMAGE_SEQUENCE, 0, PIXEL_DATA] = truth.icon
        padded = truth.icon + b"\x00" * (len(truth.icon) % 2)
        if after.get((ICON_IMAGE_SEQUENCE, 0, PIXEL_DATA)) == padded:
            before[ICON_IMAGE_SEQUENCE, 0, PIXEL_DATA] = padded
    problems = [f"{_name(path)} missing" for path in before if path not in after]
    problems += [
        f"{_name(path)} added"
        for path in after
        if path not in before and not (len(path) == 1 and path[0] in may_be_added)
    ]
    if after.get((LOSSY,), b"01").rstrip() != b"01" and (LOSSY,) not in before:
        problems.append(f"{_name((LOSSY,))} added with a wrong value")
    problems += [
        f"{_name(path)} changed" for path in before if after.get(path, before[path]) != before[path]
    ]
    if len(problems) > PROBLEMS_SHOWN_MAX:
        more = len(problems) - PROBLEMS_SHOWN_MAX
        return [*problems[:PROBLEMS_SHOWN_MAX], f"{more} more elements differ"]
    return problems


def _flatten(dataset: Dataset, swapped: bool, above: Path = ()) -> Iterator[tuple[Path, bytes]]:
    """Yield (path, value in little endian bytes) of every element that must stay.

    ``swapped``: values are big endian. A path is tags and item numbers in turn. Left out: group
    lengths (retired, and stale by nature), padding, and the coding of the image's own pixels.
    """
    for tag in dataset.keys():  # noqa: SIM118  (iterating a Dataset parses its elements)
        if tag.element == 0 or tag == DATA_SET_TRAILING_PADDING:
            continue
        if not above and tag in PIXEL_CODING:
            continue
        element = dataset.get_item(tag)
        path = (*above, int(tag))
        if _is_sequence(tag, element):
            items = dataset[tag].value
            yield path, b"%d items" % len(items)
            for number, item in enumerate(items):
                yield from _flatten(item, swapped, (*path, number))
        else:
            yield path, _value_bytes(element, swapped)


def _is_sequence(tag: BaseTag, element: DataElement | RawDataElement) -> bool:
    if element.VR is None:  # implicit VR
        return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
    return element.VR == "SQ"


def _value_bytes(element: DataElement | RawDataElement, swapped: bool) -> bytes:
    """Return a value as little endian bytes, or a text that stands for it."""
    if not isinstance(element, RawDataElement):
        # pydicom has read it already: Specific Character Set, and empty values in implicit VR.
        if element.is_empty:
            return b""
        value = element.value
        return value if isinstance(value, bytes) else repr(value).encode()
    raw = element.value or b""
    size = WORD_BYTES.get(element.VR or "", 1) if swapped else 1
    if size == 1 or len(raw) % size:
        return raw
    return np.frombuffer(raw, f">u{size}").byteswap().tobytes()


def _name(path: Path) -> str:
    """``(gggg,eeee)[item](gggg,eeee)``; tags and item numbers alternate."""
    parts = [
        f"[{number}]" if at % 2 else f"({number >> 16:04X},{number & 0xFFFF:04X})"
        for at, number in enumerate(path)
    ]
    return "".join(parts)
