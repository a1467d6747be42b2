"""The tokenizer, element by element: each sample is laid out by hand, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from bridge.dicom import elements
from bridge.dicom.elements import (
    KNOWN_VRS,
    LONG_VRS,
    NESTING_MAX,
    SHORT_VRS,
    TRAILING_PADDING,
    UNDEFINED,
    Element,
    Reader,
)
from bridge.errors import InstanceError
from bridge.model import Reason

ITEM_START = pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
ITEM_STOP = pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_STOP = pack("<HHI", 0xFFFE, 0xE0DD, 0)


def short(tag: int, vr: bytes, value: bytes = b"") -> bytes:
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def long(tag: int, vr: bytes, value: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, size) + value


def implicit(tag: int, value: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return pack("<HHI", tag >> 16, tag & 0xFFFF, size) + value


def item(value: bytes, *, length: int | None = None) -> bytes:
    return implicit(0xFFFEE000, value, length=length)


def level(data: bytes, *, is_implicit: bool = False) -> list[Element]:
    return Reader(memoryview(data), implicit=is_implicit).level(0, len(data))


def refused(data: bytes, *, is_implicit: bool = False) -> InstanceError:
    with pytest.raises(InstanceError) as caught:
        level(data, is_implicit=is_implicit)
    return caught.value


def test_the_length_field_of_each_vr() -> None:
    """pydicom's tables are the oracle: a VR in the wrong set shifts the whole data set."""
    assert {vr.decode() for vr in LONG_VRS} == {str(vr) for vr in EXPLICIT_VR_LENGTH_32}
    assert {vr.decode() for vr in SHORT_VRS} == {
        str(vr) for vr in EXPLICIT_VR_LENGTH_16 if len(vr) == 2
    }


@pytest.mark.parametrize("vr", sorted(KNOWN_VRS))
@pytest.mark.parametrize("big_endian", [False, True])
def test_a_header_of_each_vr(vr: bytes, big_endian: bool) -> None:
    """Three in a row, so that a header of the wrong length shows in the next element."""
    mark = ">" if big_endian else "<"
    data = b""
    for number in (1, 2, 3):
        head = pack(f"{mark}HH2s", 0x0009, number, vr)
        tail = pack(f"{mark}HI", 0, 4) if vr in LONG_VRS else pack(f"{mark}H", 4)
        # of a sequence: no items
        data += (head + tail + b"abcd") if vr != b"SQ" else head + pack(f"{mark}HI", 0, 0)
    found = Reader(memoryview(data), implicit=False, big_endian=big_endian).level(0, len(data))

    assert [(e.tag, e.vr) for e in found] == [(0x00090000 | n, vr) for n in (1, 2, 3)]
    wanted = b"" if vr == b"SQ" else b"abcd"
    assert [data[e.value : e.stop] for e in found] == [wanted] * 3
    assert found[-1].end == len(data)
    assert not any(e.irregular or e.undefined for e in found)


# --- a VR that is not in the standard: the one reading that fits ---

LAST = short(0x00990020, b"LO", b"XY")
ODD = 0x00990010


@pytest.mark.parametrize("after", [LAST, b""], ids=["another follows", "the last one"])
@pytest.mark.parametrize(
    ("data", "vr", "header_bytes", "value"),
    [
        pytest.param(short(ODD, b"??", b"abcd"), b"??", 8, b"abcd", id="16-bit length"),
        pytest.param(short(ODD, b"??"), b"??", 8, b"", id="16-bit length, empty"),
        pytest.param(long(ODD, b"ZZ", b"ab" * 9), b"ZZ", 12, b"ab" * 9, id="32-bit length"),
        pytest.param(implicit(ODD, b"ab" * 9), b"", 8, b"ab" * 9, id="implicit"),
    ],
)
def test_a_vr_that_is_not_in_the_standard(
    data: bytes, vr: bytes, header_bytes: int, value: bytes, after: bytes
) -> None:
    """In front of it an element, so that positions are not offsets; behind it one, or the end."""
    before = short(0x00990008, b"LO", b"first ")
    found = level(before + data + after)

    odd = found[1]
    assert (odd.tag, odd.vr) == (ODD, vr)
    assert (odd.start, odd.value) == (len(before), len(before) + header_bytes)
    assert (before + data)[odd.value : odd.stop] == value
    assert odd.irregular
    assert not found[0].irregular
    assert [e.tag for e in found[2:]] == ([0x00990020] if after else [])
    assert not any(e.irregular for e in found[2:])


@pytest.mark.parametrize(
    "data",
    [
        # 16 bits: 8 bytes, then (0099,0030). 32 bits: 12 bytes, then the same element.
        pytest.param(
            pack("<HH2sHI", 0x0099, 0x0010, b"??", 4, 0) + short(0x00990030, b"LO", b"XY"),
            id="two readings fit",
        ),
        pytest.param(short(ODD, b"??", b"abcd") + b"no element begins here", id="no reading fits"),
        pytest.param(
            short(ODD, b"??", b"abcd") + short(ODD, b"LO", b"XY"), id="the next tag is the same"
        ),
        pytest.param(
            short(ODD, b"??", b"abcd") + short(0x00990008, b"LO", b"XY"), id="tags go down"
        ),
        pytest.param(
            short(ODD, b"??", b"abcd") + short(0x00990020, b"!!", b"XY"), id="the next is odd too"
        ),
        pytest.param(short(ODD, b"??", b"abcd") + LAST[:7], id="too short for another element"),
    ],
)
def test_a_vr_that_is_not_in_the_standard_and_is_not_read_one_way_only(data: bytes) -> None:
    before = short(0x00990008, b"LO", b"first ")
    error = refused(before + data)

    assert error.reason is Reason.UNDECODABLE
    assert f"damaged at byte {len(before)}: " in error.message
    assert "value representation" in error.message


def test_a_delimiter_may_follow_an_odd_vr() -> None:
    inner = short(ODD, b"??", b"abcd")
    data = long(0x00081140, b"SQ", length=UNDEFINED) + ITEM_START + inner + ITEM_STOP
    data += SEQUENCE_STOP + LAST

    sequence, last = level(data)
    assert sequence.irregular
    assert not last.irregular


def test_what_is_irregular_is_counted_for_its_own_element_only() -> None:
    odd, fine = (
        long(0x00081140 + n, b"SQ", item(short(ODD, vr, b"abcd") + short(0x00990020, b"LO", b"XY")))
        for n, vr in ((1, b"??"), (0, b"LO"))
    )
    assert [e.irregular for e in level(fine + odd + LAST)] == [False, True, False]
    odd_length = long(0x00081140, b"SQ", item(short(ODD, b"LO", b"abc")))
    assert [e.irregular for e in level(odd_length + LAST)] == [True, False]


# --- headers that are cut off ---


@pytest.mark.parametrize("kept", range(1, 12))
def test_a_header_that_is_cut_off(kept: int) -> None:
    """The last element needs 12 bytes of header."""
    before = short(0x00080005, b"CS", b"ISO_IR")
    error = refused(before + long(0x00420011, b"OB", b"")[:kept])

    assert error.reason is Reason.UNDECODABLE
    assert f"damaged at byte {len(before)}: an element header is cut off" in error.message


@pytest.mark.parametrize("kept", range(1, 8))
def test_an_implicit_header_that_is_cut_off(kept: int) -> None:
    before = implicit(0x00080005, b"ISO_IR")
    error = refused(before + implicit(0x00420011)[:kept], is_implicit=True)

    assert f"damaged at byte {len(before)}: an element header is cut off" in error.message


def test_a_value_that_runs_past_the_end_by_one_byte() -> None:
    assert len(level(short(0x00080005, b"CS", b"ab"))) == 1
    assert "3 bytes runs past the end" in refused(short(0x00080005, b"CS", b"abc")[:-1]).message


# --- zeros ---


@pytest.mark.parametrize("count", [8, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 16])
def test_something_behind_zeros_is_damage_wherever_it_lies(count: int) -> None:
    """Zeros are looked through in blocks of 64 KiB: the first, the middle and the last one."""
    assert len(level(LAST + bytes(count))) == 1
    error = refused(LAST + bytes(count) + b"\1")
    assert f"damaged at byte {len(LAST)}: an element of tag zero" in error.message


# --- sequences ---


def sequences(depth: int, *, undefined: bool) -> bytes:
    content = short(0x00080050, b"SH", b"ab")
    for _ in range(depth):
        if undefined:
            wrapped = ITEM_START + content + ITEM_STOP + SEQUENCE_STOP
            content = long(0x00081140, b"SQ", wrapped, length=UNDEFINED)
        else:
            content = long(0x00081140, b"SQ", item(content))
    return content


@pytest.mark.parametrize("undefined", [False, True])
def test_nesting_is_bounded(undefined: bool) -> None:
    assert NESTING_MAX == 64
    assert len(level(sequences(NESTING_MAX, undefined=undefined))) == 1
    error = refused(sequences(NESTING_MAX + 1, undefined=undefined))
    assert error.reason is Reason.NOT_DICOM
    assert f"more than {NESTING_MAX} deep" in error.message


def test_elements_of_a_level_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert elements.LEVEL_ELEMENTS_MAX == 200_000
    monkeypatch.setattr(elements, "LEVEL_ELEMENTS_MAX", 3)
    many = [short(0x00090010 + n, b"LO", b"ab") for n in range(4)]

    assert len(level(b"".join(many[:3]))) == 3
    assert refused(b"".join(many)).reason is Reason.TOO_LARGE


def fragments(count: int) -> bytes:
    return long(0x7FE00010, b"OB", item(b"ab") * count + SEQUENCE_STOP, length=UNDEFINED)


def items_of_undefined_length(count: int) -> bytes:
    content = (ITEM_START + ITEM_STOP) * count + SEQUENCE_STOP
    return long(0x00081140, b"SQ", content, length=UNDEFINED)


@pytest.mark.parametrize("made", [fragments, items_of_undefined_length])
def test_items_are_bounded(monkeypatch: pytest.MonkeyPatch, made: Callable[[int], bytes]) -> None:
    assert elements.SEQUENCE_ITEMS_MAX == 5_000_000
    monkeypatch.setattr(elements, "SEQUENCE_ITEMS_MAX", 3)

    assert len(level(made(3))) == 1
    error = refused(made(4))
    assert error.reason is Reason.TOO_LARGE
    assert "too many items" in error.message


def test_a_sequence_of_three_items_of_each_kind() -> None:
    """Empty, of known length, of unknown length: in each place."""
    kinds = {
        "empty": item(b""),
        "known": item(short(0x00080050, b"SH", b"ab")),
        "open": ITEM_START + short(0x00080050, b"SH", b"cd") + ITEM_STOP,
    }
    lengths = {"empty": 0, "known": 10, "open": 10}
    names = list(kinds)
    for turn in range(3):
        order = names[turn:] + names[:turn]
        content = b"".join(kinds[name] for name in order)
        for data in (
            long(0x00081140, b"SQ", content) + LAST,
            long(0x00081140, b"SQ", content + SEQUENCE_STOP, length=UNDEFINED) + LAST,
        ):
            reader = Reader(memoryview(data), implicit=False)
            sequence, last = reader.level(0, len(data))
            assert last.tag == 0x00990020
            found = list(reader.items(sequence, 1))
            assert [i.stop - i.start for i in found] == [lengths[name] for name in order]
            assert [i.undefined for i in found] == [name == "open" for name in order]
            assert found[-1].end == sequence.stop


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_delimiter_behind_pixel_data_may_be_repeated(count: int) -> None:
    data = long(0x7FE00010, b"OB", item(b"ab") + SEQUENCE_STOP * count, length=UNDEFINED)
    trailer = long(TRAILING_PADDING, b"OB", b"\0\0")

    pixels, last = level(data + trailer)
    assert (pixels.stop, pixels.end) == (len(data) - 8 * count, len(data))
    assert last.tag == TRAILING_PADDING


def test_a_repeated_delimiter_in_a_sequence_is_damage() -> None:
    data = long(0x00081140, b"SQ", ITEM_START + ITEM_STOP + SEQUENCE_STOP * 2, length=UNDEFINED)
    assert "delimiter outside a sequence" in refused(data + LAST).message


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
def test_what_is_in_un_of_undefined_length(syntax: str) -> None:
    """Implicit VR little endian, whatever the file is (PS3.5 6.2.2 note 4)."""
    big_endian = syntax == "big endian"
    reader = Reader(memoryview(b""), implicit=syntax == "implicit", big_endian=big_endian)

    inner = reader.nested(b"UN")
    assert (inner.implicit, inner.big_endian) == (True, False)
    assert reader.nested(b"SQ") is reader
    assert reader.nested(b"") is reader


@pytest.mark.parametrize(
    ("value", "is_sequence"),
    [
        (item(b"") * 3, True),
        (item(implicit(0x00080050, b"ab")) * 3, True),
        (b"", True),
        (item(b"") * 2 + b"no item here", False),
        (item(implicit(0x00080050, b"ab")[:-1], length=10), False),
        (b"abcdefgh", False),
    ],
)
def test_whether_a_value_is_a_sequence(value: bytes, is_sequence: bool) -> None:
    data = implicit(0x00081140, value)
    reader = Reader(memoryview(data), implicit=True)
    (element,) = reader.level(0, len(data))

    assert reader.walks(element) is is_sequence


@pytest.mark.parametrize("excess", [0, 1])
def test_a_value_may_nest_as_deeply_as_a_sequence_may(excess: int) -> None:
    """One that nests deeper is refused, whatever it is."""
    content = implicit(0x00080050, b"ab")
    for _ in range(NESTING_MAX - 1 + excess):
        content = implicit(
            0x00081140, ITEM_START + content + ITEM_STOP + SEQUENCE_STOP, length=UNDEFINED
        )
    data = implicit(0x00081140, item(content))
    reader = Reader(memoryview(data), implicit=True)
    (element,) = reader.level(0, len(data))

    if not excess:
        assert reader.walks(element)
        return
    with pytest.raises(InstanceError, match="deep") as caught:
        reader.walks(element)
    assert caught.value.reason is Reason.NOT_DICOM


NAME = short(0x00080050, b"SH", b"ab")


@pytest.mark.parametrize(
    ("inside", "offset", "what"),
    [
        # Behind the headers of the sequence (12 bytes) and of its item (8 bytes).
        (ITEM_START + NAME + SEQUENCE_STOP, 30, "a sequence ends inside an item"),
        (ITEM_START + NAME + short(0x00080060, b"CS", b"CT")[:-1], 40, "runs past the end of"),
        (item(NAME + NAME[:-1]), 38, "runs past the end of its item"),
        (item(NAME) + NAME, 30, "no sequence item where one should begin"),
        (item(NAME, length=11), 12, "a sequence item runs past the end"),
    ],
)
@pytest.mark.parametrize("before", [b"", LAST, LAST + LAST])
def test_it_is_said_where_a_data_set_is_damaged(
    before: bytes, inside: bytes, offset: int, what: str
) -> None:
    data = before + long(0x00081140, b"SQ", inside, length=UNDEFINED)
    message = refused(data).message
    assert f"at byte {len(before) + offset}: " in message
    assert what in message


def test_a_sequence_inside_an_item_of_unknown_length_is_walked_too() -> None:
    """In the first, a middle and the last place; what cannot be walked cannot be written anew."""
    whole = long(0x00081115, b"SQ", item(NAME))
    broken = long(0x00081115, b"SQ", item(NAME, length=12) + b"\0\0")
    for place in range(3):
        for inner, damage in ((whole, False), (broken, True)):
            members = [whole] * 3
            members[place] = inner
            content = ITEM_START + b"".join(members) + ITEM_STOP
            data = long(0x00081140, b"SQ", content + SEQUENCE_STOP, length=UNDEFINED) + LAST
            if damage:
                refused(data)
            else:
                assert len(level(data)) == 2


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_a_last_fragment_that_is_cut_short_is_left_to_its_frame(missing: int) -> None:
    """At the end of a file, of pixel data only: it may be whole but for the padding."""
    stream = item(b"") + item(b"abcd") + item(b"efghij")[:-missing]
    (pixels,) = level(long(0x7FE00010, b"OB", stream, length=UNDEFINED))
    assert (pixels.stop, pixels.end) == (12 + len(stream), 12 + len(stream))
    inside = ITEM_START + long(0x7FE00010, b"OB", stream, length=UNDEFINED)
    assert "runs past the end" in refused(long(0x00880200, b"SQ", inside, length=UNDEFINED)).message
