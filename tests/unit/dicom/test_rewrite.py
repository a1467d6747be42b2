"""Elements written anew, laid out by hand; pydicom reads them back and has the dictionaries."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from struct import pack

import pytest
from pydicom._private_dict import private_dictionaries
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from bridge.dicom.description import NewValue
from bridge.dicom.elements import UNDEFINED, Element, Reader
from bridge.dicom.rewrite import Pieces, Rewriter
from bridge.errors import InstanceError

ITEM_STOP = pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_STOP = pack("<HHI", 0xFFFE, 0xE0DD, 0)
SEQUENCE = 0x00081140
SMALLEST = 0x00280106
"""Smallest Image Pixel Value: US or SS, as Pixel Representation says."""
REPRESENTATION = 0x00280103


def implicit(tag: int, value: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return pack("<HHI", tag >> 16, tag & 0xFFFF, size) + value


def explicit(tag: int, vr: bytes, value: bytes = b"") -> bytes:
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def long(tag: int, vr: bytes, value: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, size) + value


def item(value: bytes, *, length: int | None = None) -> bytes:
    return implicit(0xFFFEE000, value, length=length)


def rewritten(
    data: bytes,
    *,
    is_implicit: bool = False,
    signed: bool = False,
    icon: Callable[[Reader, list[Element], Element], dict[int, NewValue | None]] | None = None,
) -> bytes:
    """Write a level in explicit VR little endian."""
    reader = Reader(memoryview(data), implicit=is_implicit)
    out = Pieces()
    rewriter = Rewriter(reader, target_implicit=False, icon=icon)
    rewriter.level(reader.level(0, len(data)), {}, out, signed=signed)
    return b"".join(map(bytes, out.chunks()))


def read(data: bytes) -> Dataset:
    return read_dataset(io.BytesIO(data), is_implicit_VR=False, is_little_endian=True)


def known_elements() -> list[tuple[str, int, int, str]]:
    """Creator, group, number and VR of published private elements, three of each creator."""
    found: list[tuple[str, int, int, str]] = []
    longest = 64  # PS3.5 6.2: of LO
    for creator, entries in private_dictionaries.items():
        plain = [
            (creator, int(name[:4], 16), int(name[-2:], 16), entry[0])
            for name, entry in entries.items()
            if re.fullmatch("[0-9A-F]{4}xx[0-9A-F]{2}", name)
            and len(entry[0]) == 2
            and entry[0] not in ("SQ", "UN")
        ]
        found += plain[:3] if len(creator) <= longest else []
    return found


@pytest.mark.parametrize("padding", [b"", b" ", b"\0"])
def test_private_elements_get_the_vr_that_their_creator_has_published(padding: bytes) -> None:
    """Each in the second of three blocks of its group: the creator of its own block counts."""
    known = known_elements()
    assert len({vr for *_, vr in known}) > 15
    for creator, group, number, vr in known:
        tag = group << 16 | 0x1100 | number
        data = (
            implicit(group << 16 | 0x10, b"NOBODY")
            + implicit(group << 16 | 0x11, creator.encode() + padding)
            + implicit(group << 16 | 0x12, b"NOBODY ELSE ")
            + implicit(tag - 0x100, b"\0" * 8)
            + implicit(tag, b"\0" * 8)
            + implicit(tag + 0x100, b"\0" * 8)
        )
        found = read(rewritten(data, is_implicit=True))
        vrs = [str(found.get_item(one).VR) for one in (tag - 0x100, tag, tag + 0x100)]
        assert vrs == ["UN", vr, "UN"], (creator, hex(tag))


@pytest.mark.parametrize("signed", [False, True])
def test_a_sign_is_that_of_the_item_or_of_what_is_around_it(*, signed: bool) -> None:
    """An item with an empty Pixel Representation has none of its own."""
    number = implicit(SMALLEST, pack("<H", 0xFFF0))
    items = (
        item(implicit(REPRESENTATION, pack("<H", 1)) + number)
        + item(implicit(REPRESENTATION) + number)
        + item(number)
        + item(implicit(REPRESENTATION, pack("<H", 0)) + number)
    )
    found = read(rewritten(implicit(SEQUENCE, items), is_implicit=True, signed=signed))
    around = "SS" if signed else "US"
    vrs = [str(one[SMALLEST].VR) for one in found[SEQUENCE].value]
    assert vrs == ["SS", around, around, "US"]


def test_implicit_elements_inside_an_explicit_data_set_get_their_vr() -> None:
    data = (
        explicit(0x00080060, b"CS", b"CT")
        + implicit(0x00091001, b"\1\2\3\4")
        + explicit(0x00100005, b"LO", b"AB")
        + implicit(0x00100010, b"AB^CDE")
        + explicit(0x00100020, b"LO", b"AB")
        + implicit(0x00280010, pack("<H", 512))
        + explicit(0x00280011, b"US", pack("<H", 512))
    )
    found = read(rewritten(data))
    vrs = {int(one.tag): str(one.VR) for one in found}
    assert vrs == {
        0x00080060: "CS",
        0x00091001: "UN",
        0x00100005: "LO",
        0x00100010: "PN",
        0x00100020: "LO",
        0x00280010: "US",
        0x00280011: "US",
    }
    assert (found.PatientName, found.Rows, found.Columns) == ("AB^CDE", 512, 512)


def no_change(
    _reader: Reader, _level: list[Element], _pixels: Element
) -> dict[int, NewValue | None]:
    return {}


def encapsulated(tag: int, *fragments: bytes) -> bytes:
    return long(tag, b"OB", b"".join(map(item, fragments)) + SEQUENCE_STOP, length=UNDEFINED)


def test_encapsulated_data_beside_pixel_data_is_carried_as_it_is() -> None:
    """Its fragments may hold the bytes of a Pixel Data tag: an icon is looked for, and is none."""
    data = (
        explicit(0x00090010, b"LO", b"ACME")
        + encapsulated(0x00091001, b"", b"ab\xe0\x7f\x10\0cd", b"ef", b"ghij")
        + encapsulated(0x00091002, b"\xe0\x7f\x10\0")
        + explicit(0x00100010, b"PN", b"AB")
    )
    assert rewritten(data, icon=no_change) == data


def test_compressed_pixels_inside_a_data_set_that_is_not_compressed_are_refused() -> None:
    """What they are compressed with is not said anywhere (PS3.5 A.4)."""
    inside = explicit(0x00280010, b"US", b"\1\0") + encapsulated(0x7FE00010, b"", b"\xff\xd8")
    for content in (
        item(inside, length=UNDEFINED) + ITEM_STOP,
        item(explicit(0x00080060, b"CS", b"CT")) + item(inside),
    ):
        # Of another VR than any of the standard's, so that the sequence is not copied as it lies.
        odd = explicit(0x00080005, b"CS", b"I")
        data = long(0x00880200, b"SQ", item(odd) + content + SEQUENCE_STOP, length=UNDEFINED)
        with pytest.raises(InstanceError, match="in an uncompressed data set"):
            rewritten(data)


def test_elements_that_stay_as_they_are_are_copied_in_one_piece() -> None:
    """Not one by one: most of most files. Sequences and large values among them."""
    data = (
        explicit(0x00080060, b"CS", b"CT")
        + long(SEQUENCE, b"SQ", item(explicit(0x00080060, b"CS", b"CT")))
        + long(0x00081115, b"SQ", item(b"", length=UNDEFINED) + ITEM_STOP + SEQUENCE_STOP,
               length=UNDEFINED)
        + long(0x00420011, b"OB", b"ab" * 10_000)
        + explicit(0x00420012, b"LO", b"text")
    )  # fmt: skip
    reader = Reader(memoryview(data), implicit=False)
    out = Pieces()
    rewriter = Rewriter(reader, target_implicit=False)
    rewriter.level(reader.level(0, len(data)), {}, out, signed=False)
    assert out.chunks() == [data]
