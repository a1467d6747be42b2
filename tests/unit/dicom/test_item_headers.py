"""Item headers and delimiters: whatever their length spells, and where nobody needs them."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.dicom.elements import ITEM, ITEM_END, KNOWN_VRS, SEQUENCE_END, UNDEFINED, Reader
from bridge.dicom.facts import facts_of_file
from bridge.dicom.file_meta import read_file_meta
from bridge.dicom.fingerprint import fingerprint
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.transcode_cases import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    RAW,
    RLE,
    Image,
    compressed_file,
    encoded_file,
    item,
    native_bytes,
    native_file,
    read,
    relabelled,
    run,
    samples,
)

SPELLED = sorted({vr[0] | vr[1] << 8 for vr in KNOWN_VRS})
"""Lengths whose low 16 bits read like a value representation in explicit VR little endian."""
GREY = Image(rows=6, columns=4, allocated=8, stored=8)
END_OF_ITEM = pack("<HHI", 0xFFFE, 0xE00D, 0)
END_OF_SEQUENCE = pack("<HHI", 0xFFFE, 0xE0DD, 0)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return pack("<HH2sH", group, number, vr, len(value)) + value


def long_element(group: int, number: int, vr: bytes, value: bytes, length: int = -1) -> bytes:
    length = len(value) if length < 0 else length
    return pack("<HH2sHI", group, number, vr, 0, length) + value


def sequence(*items: bytes, end: bytes = b"", undefined: bool = False) -> bytes:
    value = b"".join(items) + end
    return long_element(0x0008, 0x1140, b"SQ", value, UNDEFINED if undefined else -1)


def with_elements(added: bytes, data: bytes | None = None) -> bytes:
    """A native file with elements put before Patient's Name."""
    data = native_file(GREY) if data is None else data
    at = data.index(b"\x10\0\x10\0PN")
    return data[:at] + added + data[at:]


UID_ELEMENT = element(0x0008, 0x1155, b"UI", b"1.2.3\0")


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("tag", [ITEM, ITEM_END, SEQUENCE_END])
def test_no_length_of_an_item_header_is_a_value_representation(tag: int, big_endian: bool) -> None:
    mark = ">" if big_endian else "<"
    data = bytearray(pack(mark + "HHI", tag >> 16, tag & 0xFFFF, 0) + bytes(4))
    reader = Reader(memoryview(data), implicit=False, big_endian=big_endian)
    for low in range(0x10000):
        length = 0xA5 << 16 | low
        data[4:8] = length.to_bytes(4, "big" if big_endian else "little")
        assert reader.header(0, 12) == (tag, b"", 8, length)


@pytest.mark.parametrize("length", [n for n in SPELLED if n % 2 == 0])
def test_a_fragment_of_such_a_length_is_one_fragment(length: int) -> None:
    image = Image(rows=1, columns=length, allocated=8, stored=8, frames=3)
    source = compressed_file(
        image, RAW, [native_bytes(image, frame[None]) for frame in image.array()]
    )
    body, _ = run(source)
    assert (samples(body) == image.array()).all()
    assert fingerprint(source).samples_sha256 == fingerprint(body).samples_sha256


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("length", SPELLED)
def test_an_item_of_such_a_length_is_one_item(length: int, undefined: bool) -> None:
    # An odd length: the content is odd too, and is padded when it is written again.
    filler = long_element(0x0009, 0x1001, b"OB", bytes(length - len(UID_ELEMENT) - 12))
    end = END_OF_SEQUENCE if undefined else b""
    items = [item(UID_ELEMENT + filler)] * 3
    source = with_elements(sequence(*items, end=end, undefined=undefined))
    assert facts_of_file(memoryview(source))["modality"] == "OT"
    for wanted in (IMPLICIT, RLE):
        ds = read(run(source, wanted)[0])
        assert [i.ReferencedSOPInstanceUID for i in ds[0x00081140].value] == ["1.2.3"] * 3
        found = [len(i[0x00091001].value) for i in ds[0x00081140].value]
        assert set(found) <= {length - len(UID_ELEMENT) - 12 + length % 2}


@pytest.mark.parametrize("wanted", [IMPLICIT, RLE, "DeflatedExplicitVRLittleEndian"])
@pytest.mark.parametrize("undefined", [False, True])
def test_a_delimiter_at_the_end_of_an_item_of_given_length_says_nothing(
    undefined: bool, wanted: str
) -> None:
    inner = sequence(item(UID_ELEMENT + END_OF_ITEM), end=END_OF_SEQUENCE)
    end = END_OF_SEQUENCE if undefined else b""
    items = [item(UID_ELEMENT), item(inner + END_OF_ITEM), item(END_OF_ITEM)]
    source = with_elements(sequence(*items, end=end, undefined=undefined))
    body, _ = run(source, wanted)
    ds = read(body)
    first, second, third = ds[0x00081140].value
    assert first.ReferencedSOPInstanceUID == "1.2.3"
    assert second[0x00081140].value[0].ReferencedSOPInstanceUID == "1.2.3"
    assert len(third) == 0
    if wanted == RLE:
        assert END_OF_ITEM not in body, "what is written has no delimiter without need"
    assert (samples(run(body)[0]) == GREY.array()).all()


def test_such_a_delimiter_is_not_copied() -> None:
    source = with_elements(sequence(*[item(UID_ELEMENT + END_OF_ITEM)] * 3))
    body, _ = run(source, RLE)
    assert END_OF_ITEM not in body
    source = with_elements(sequence(*[item(UID_ELEMENT)] * 3, end=END_OF_SEQUENCE))
    body, _ = run(source, RLE)
    assert body.count(END_OF_SEQUENCE) == 1, "that of the pixel data"


@pytest.mark.parametrize("syntax", [BIG_ENDIAN, IMPLICIT])
def test_such_a_delimiter_in_big_endian_and_in_implicit_vr(syntax: str) -> None:
    mark = ">" if syntax == BIG_ENDIAN else "<"

    def written(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        head = pack(mark + "HH", group, number)
        if syntax == IMPLICIT:
            return head + pack("<I", len(value)) + value
        if vr in (b"SQ", b"OB"):
            return head + vr + pack(">HI", 0, len(value)) + value
        return head + vr + pack(">H", len(value)) + value

    inner = written(0x0008, 0x1155, b"UI", b"1.2.3\0") + pack(mark + "HHI", 0xFFFE, 0xE00D, 0)
    one = pack(mark + "HHI", 0xFFFE, 0xE000, len(inner)) + inner
    plain = native_file(GREY)
    start = read_file_meta(memoryview(plain)).dataset_offset
    source = relabelled(plain[:start], syntax) + b"".join(
        written(*e)
        for e in (
            (0x0008, 0x0018, b"UI", b"1.2.3.4\0"),
            (0x0008, 0x1140, b"SQ", one * 3),
            (0x0010, 0x0010, b"PN", b"Test^One"),
        )
    )
    found = read(run(source)[0])
    assert [i.ReferencedSOPInstanceUID for i in found[0x00081140].value] == ["1.2.3"] * 3
    assert found.PatientName == "Test^One"


@pytest.mark.parametrize(
    "items",
    [
        [item(UID_ELEMENT) + END_OF_ITEM, item(UID_ELEMENT)],
        [item(UID_ELEMENT + END_OF_ITEM + element(0x0008, 0x1160, b"IS", b"1 "))],
        [item(UID_ELEMENT + END_OF_ITEM * 2)],
        [item(UID_ELEMENT) + END_OF_SEQUENCE, item(UID_ELEMENT)],
        [item(UID_ELEMENT + pack("<HHI", 0xFFFE, 0xE00D, 2) + b"\0\0")],
    ],
    ids=["behind the item", "in its middle", "twice", "items behind the end", "not empty"],
)
def test_a_delimiter_that_can_be_read_in_two_ways_is_refused(items: list[bytes]) -> None:
    source = with_elements(sequence(*items))
    for wanted in (IMPLICIT, RLE):
        with pytest.raises(InstanceError) as caught:
            run(source, wanted)
        assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("behind", [b"", long_element(0xFFFC, 0xFFFC, b"OB", bytes(64))])
def test_a_sequence_delimiter_that_is_repeated_behind_pixel_data(count: int, behind: bytes) -> None:
    source = encoded_file(GREY, RLE) + END_OF_SEQUENCE * (count - 1) + behind
    body, _ = run(source)
    assert (samples(body) == GREY.array()).all()
    assert END_OF_SEQUENCE not in body
    assert fingerprint(source).same_image(fingerprint(body))
    again, _ = run(source, "JPEGLSLossless")
    assert again.count(END_OF_SEQUENCE) == 1


def test_a_repeated_delimiter_of_another_sequence_is_refused() -> None:
    source = with_elements(sequence(item(UID_ELEMENT), end=END_OF_SEQUENCE * 2, undefined=True))
    with pytest.raises(InstanceError) as caught:
        run(source, IMPLICIT)
    assert caught.value.reason is Reason.UNDECODABLE


def test_what_is_irregular_two_levels_down_is_written_anew() -> None:
    # Even in sum, odd in its parts: the middle sequence shows nothing of it.
    odd = element(0x0008, 0x0104, b"LO", b"abc") + element(0x0008, 0x0105, b"LO", b"def")
    inner = sequence(item(odd))
    source = with_elements(sequence(item(sequence(item(inner)))))
    body, _ = run(source, "DeflatedExplicitVRLittleEndian")
    plain, _ = run(body)
    assert element(0x0008, 0x0104, b"LO", b"abc ") in plain
    assert element(0x0008, 0x0105, b"LO", b"def ") in plain
    assert run(plain, EXPLICIT)[0] == plain
