"""Fragments and frames: pixel data laid out item by item."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from struct import pack

import pytest

from bridge.dicom import encapsulation
from bridge.dicom.elements import PIXEL_DATA, Element
from bridge.dicom.encapsulation import (
    HEAD_BYTES,
    SEQUENCE_DELIMITER,
    Fragments,
    fragment_header,
    group_frames,
    offset_table,
    read_fragments,
)
from bridge.errors import InstanceError
from bridge.model import Reason

BEFORE = b"before"
MARK = b"!"
"""How a code stream begins in these tests."""


def item(value: bytes, *, length: int | None = None) -> bytes:
    return pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


def fragments_of(
    pieces: Sequence[bytes], table: bytes = b"", *, delimiter: bool = True, cut: int = 0
) -> Fragments:
    content = item(table) + b"".join(item(piece) for piece in pieces)
    content = content[: len(content) - cut]
    start, stop = len(BEFORE), len(BEFORE) + len(content)
    data = BEFORE + content + (SEQUENCE_DELIMITER if delimiter else b"")
    end = stop + 8 * delimiter
    element = Element(PIXEL_DATA, b"OB", 0, start, stop, end, True)
    return read_fragments(memoryview(data), element)


def contents(found: Fragments) -> list[bytes]:
    return [bytes(found.data[start:stop]) for start, stop in found.spans]


def begins(head: bytes) -> bool:
    return head.startswith(MARK)


def grouped(
    found: Fragments, count: int, *, extended: Sequence[int] = (), marked: bool = True
) -> list[bytes]:
    frames = group_frames(found, count, extended_table=extended, begins_frame=begins, marked=marked)
    return [b"".join(found.data[start:stop] for start, stop in spans) for spans in frames]


def refusal(found: Fragments, count: int, *, marked: bool = True) -> InstanceError:
    with pytest.raises(InstanceError) as caught:
        grouped(found, count, marked=marked)
    assert caught.value.reason is Reason.UNDECODABLE
    return caught.value


PIECES = (b"!first", b"", b"!second...", b"!third")


def test_fragments_with_an_empty_one_between() -> None:
    found = fragments_of(PIECES)

    assert contents(found) == list(PIECES)
    assert found.offsets == [0, 14, 22, 40]
    assert found.table == ()
    assert found.whole


def test_a_table_of_three() -> None:
    found = fragments_of(PIECES, pack("<3I", 0, 22, 40))

    assert contents(found) == list(PIECES)
    assert found.offsets == [0, 14, 22, 40]
    assert found.table == (0, 22, 40)


def test_a_table_with_a_rest() -> None:
    assert fragments_of(PIECES, pack("<3I", 0, 22, 40) + b"\1\2\3").table == (0, 22, 40)


@pytest.mark.parametrize(
    ("cut", "delimiter", "whole"),
    [(0, True, True), (0, False, False), (1, False, False), (3, False, False), (1, True, False)],
)
def test_whether_the_last_fragment_is_whole(cut: int, delimiter: bool, whole: bool) -> None:
    found = fragments_of([b"!first", b"!second", b"!third"], delimiter=delimiter, cut=cut)

    assert contents(found) == [b"!first", b"!second", b"!third"[: 6 - cut]]
    assert found.whole is whole


def test_fewer_than_eight_bytes_of_an_item_are_none() -> None:
    found = fragments_of([b"!first", b"!second", b""], delimiter=False, cut=1)

    assert contents(found) == [b"!first", b"!second"]


def test_what_is_no_item_is_damage() -> None:
    content = item(b"") + item(b"!first") + pack("<HHI", 0xFFFE, 0xE00D, 0)
    data = BEFORE + content
    element = Element(PIXEL_DATA, b"OB", 0, len(BEFORE), len(data), len(data), True)
    with pytest.raises(InstanceError, match=f"byte {len(data) - 8}: no fragment"):
        read_fragments(memoryview(data), element)


def test_no_item_at_all() -> None:
    element = Element(PIXEL_DATA, b"OB", 0, len(BEFORE), len(BEFORE), len(BEFORE), True)
    with pytest.raises(InstanceError, match=f"byte {len(BEFORE)}: .* without a single item"):
        read_fragments(memoryview(BEFORE), element)


def test_fragments_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encapsulation, "SEQUENCE_ITEMS_MAX", 4)
    assert len(fragments_of([b"ab"] * 3).spans) == 3  # and the table
    with pytest.raises(InstanceError, match="too many fragments") as caught:
        fragments_of([b"ab"] * 4)
    assert caught.value.reason is Reason.TOO_LARGE


# --- the beginning of a code stream ---


def test_a_head_is_gathered_from_as_many_fragments_as_it_takes() -> None:
    text = bytes(range(1, 41))
    for sizes in ((40,), (32, 8), (31, 9), (1, 39), (1, 1, 38), (10, 10, 10, 10), (4,) * 10):
        pieces, at = [], 0
        for size in sizes:
            pieces.append(text[at : at + size])
            at += size
        assert fragments_of(pieces).head(0) == text[:HEAD_BYTES]
    found = fragments_of([b"ab", b"", b"cd", b"ef"])
    assert [found.head(i) for i in range(4)] == [b"abcdef", b"", b"cdef", b"ef"]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_whether_the_first_fragments_are_empty(count: int) -> None:
    for filled in range(4):
        pieces = [b"" if i != filled else b"ab" for i in range(4)]
        assert fragments_of(pieces).empty(count) is (filled >= count)


# --- which fragment belongs to which frame ---


def test_one_frame_takes_every_fragment() -> None:
    for count in (1, 2, 3, 4):
        pieces = [b"!" + b"a" * 3, b"b", b"c", b"d"][:count]
        assert grouped(fragments_of(pieces), 1) == [b"".join(pieces)]
    assert grouped(fragments_of([b"lead", b"!second", b"third"]), 1) == [b"lead!secondthird"]


def test_one_frame_and_two_streams() -> None:
    error = refusal(fragments_of([b"!a", b"b", b"!c"]), 1)
    assert "The data set says one frame, but 2 code streams are there" in error.message


@pytest.mark.parametrize("count", [1, 3])
def test_no_fragment(count: int) -> None:
    assert f"0 fragments cannot be assigned to {count} " in refusal(fragments_of([]), count).message


LAYOUTS = [
    (b"!one",),
    (b"!o", b"ne"),
    (b"!o", b"n", b"e"),
]


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("middle", LAYOUTS)
@pytest.mark.parametrize("last", LAYOUTS)
@pytest.mark.parametrize("how", ["basic table", "extended table", "marks"])
def test_three_frames_of_one_to_three_fragments(
    first: tuple[bytes, ...], middle: tuple[bytes, ...], last: tuple[bytes, ...], how: str
) -> None:
    pieces = [*first, *middle, *last]
    starts = (0, len(first), len(first) + len(middle))
    plain = fragments_of(pieces)
    offsets = [plain.offsets[i] for i in starts]
    table = pack("<3I", *offsets) if how == "basic table" else b""
    extended = offsets if how == "extended table" else ()

    wanted = [b"!one"] * 3
    assert grouped(fragments_of(pieces, table), 3, extended=extended) == wanted
    if how != "marks":
        assert grouped(fragments_of(pieces, table), 3, extended=extended, marked=False) == wanted


def test_the_extended_table_goes_before_the_basic_one() -> None:
    """Both fit a stream that has no marks: the one of 64 bits is the later addition."""
    pieces = [b"!a", b"!b", b"!c", b"!d"]
    offsets = fragments_of(pieces).offsets
    found = fragments_of(pieces, pack("<3I", *offsets[:3]))

    extended = [offsets[0], offsets[2], offsets[3]]
    assert grouped(found, 3, extended=extended, marked=False) == [b"!a!b", b"!c", b"!d"]
    assert grouped(found, 3, marked=False) == [b"!a", b"!b", b"!c!d"]


@pytest.mark.parametrize(
    "table",
    [
        (8, 16, 24),  # does not begin with 0
        (0, 10, 10),
        (0, 11, 20),
        (0, 10, 999),
        (0, 10),
        (0, 10, 20, 30),
        (0, 10, 20, 30, 40),
    ],
)
def test_a_table_that_does_not_fit(table: tuple[int, ...]) -> None:
    """Four fragments of which the last two are one frame: only the marks tell."""
    found = fragments_of([b"!a", b"!b", b"!c", b"dd"], pack(f"<{len(table)}I", *table))
    assert found.offsets == [0, 10, 20, 30]
    assert grouped(found, 3) == [b"!a", b"!b", b"!cdd"]
    if table != (0, 10, 20):
        assert "4 fragments" in refusal(found, 3, marked=False).message


@pytest.mark.parametrize("index", list(combinations(range(1, 4), 2)))
def test_a_table_is_believed_only_where_streams_begin(index: tuple[int, ...]) -> None:
    pieces = [b"!a", b"b?", b"!c", b"!d"]
    offsets = fragments_of(pieces).offsets
    table = pack("<3I", 0, *(offsets[i] for i in index))
    wanted = [b"!ab?", b"!c", b"!d"]
    assert grouped(fragments_of(pieces, table), 3) == wanted
    if index == (2, 3):
        assert grouped(fragments_of(pieces, table), 3, marked=False) == wanted
    else:
        refusal(fragments_of(pieces, table), 3, marked=False)


def test_one_fragment_is_one_frame_without_marks() -> None:
    assert grouped(fragments_of([b"a", b"b", b"c"]), 3, marked=False) == [b"a", b"b", b"c"]
    refusal(fragments_of([b"a", b"b", b"c", b"d"]), 3, marked=False)
    refusal(fragments_of([b"a", b"b"]), 3, marked=False)


@pytest.mark.parametrize("lead", [[b""], [b"", b""], [b"", b"x"], [b"x"], [b"x", b""]])
def test_what_lies_before_the_first_stream(lead: list[bytes]) -> None:
    """Empty fragments begin nothing; bytes that belong to no frame are not dropped."""
    found = fragments_of([*lead, b"!a", b"1", b"!b", b"!c"])
    if any(lead):
        assert "cannot be assigned to 3 frames" in refusal(found, 3).message
    else:
        assert grouped(found, 3) == [b"!a1", b"!b", b"!c"]


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("lead", [[b"x"], [b"!x"], [b"x", b""]])
def test_a_table_that_begins_behind_the_first_fragment_drops_nothing(
    lead: list[bytes], *, marked: bool
) -> None:
    """Its frames all begin with a code stream; what lies before them belongs to one as well."""
    pieces = [*lead, b"!a", b"!b", b"!c"]
    first = len(lead)
    offsets = fragments_of(pieces).offsets
    table = pack("<3I", *offsets[first:])
    refusal(fragments_of(pieces, table), 3, marked=marked)
    found = fragments_of(pieces)
    with pytest.raises(InstanceError):
        grouped(found, 3, extended=offsets[first:], marked=marked)


def test_a_table_between_whose_frames_another_stream_begins_is_not_believed() -> None:
    """Two streams in one frame: one of them would be lost."""
    pieces = [b"!a", b"!b", b"!c"]
    offsets = fragments_of(pieces).offsets
    for last in (1, 2):
        table = pack("<2I", 0, offsets[last])
        refusal(fragments_of(pieces, table), 2)
    assert grouped(fragments_of(pieces, pack("<3I", *offsets)), 3) == pieces


# --- what is written ---


@pytest.mark.parametrize("lengths", [(6,), (6, 10), (6, 10, 2), (0, 2, 4)])
def test_the_written_table_is_that_of_the_fragments(lengths: tuple[int, ...]) -> None:
    pieces = [b"!" * length for length in lengths]
    written = offset_table(lengths)
    content = written + b"".join(fragment_header(len(p)) + p for p in pieces)
    element = Element(PIXEL_DATA, b"OB", 0, 0, len(content), len(content) + 8, True)
    found = read_fragments(memoryview(content + SEQUENCE_DELIMITER), element)

    assert contents(found) == pieces
    assert list(found.table) == found.offsets
    assert found.offsets[0] == 0
    assert all(b - a == length + 8 for (a, b), length in zip(
        pairwise(found.offsets), lengths, strict=False
    ))  # fmt: skip


EMPTY_TABLE = item(b"")


@pytest.mark.parametrize(
    ("lengths", "has_table"),
    [
        (None, False),
        ((), False),
        ((2,), True),
        ((0x7FFFFFF0, 0x7FFFFFF7), True),  # the end lies at FFFFFFF7
        ((0x7FFFFFF0, 0x7FFFFFFF), True),  # at FFFFFFFF
        ((0x7FFFFFF0, 0x80000000), False),
        ((0xFFFFFFF0, 0xFFFFFFF0, 2), False),
    ],
)
def test_offsets_that_do_not_fit_in_32_bits(
    lengths: tuple[int, ...] | None, has_table: bool
) -> None:
    written = offset_table(lengths)
    assert (written != EMPTY_TABLE) is has_table
    if has_table:
        assert len(written) == 8 + 4 * len(lengths or ())


SPIFF_END = bytes.fromhex("ffe8000800000001")


@pytest.mark.parametrize("cut", range(len(SPIFF_END) + 1))
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_soi_at_the_end_of_a_spiff_header_begins_no_frame(frames: int, cut: int) -> None:
    """Found by the generator: a JPEG-LS frame that was cut right there was parked."""
    header, rest = MARK + b"header" + SPIFF_END, MARK + b"frame"
    split = len(header) - cut
    pieces = [header[:split], header[split:], rest] * frames
    found = fragments_of([piece for piece in pieces if piece])
    assert grouped(found, frames) == [header + rest] * frames


def test_two_frames_are_two_though_one_ends_in_a_part_of_such_a_header() -> None:
    found = fragments_of([MARK + SPIFF_END[1:], MARK + b"two", MARK + b"three"])
    assert len(grouped(found, 3)) == 3
    with pytest.raises(InstanceError):
        grouped(found, 1)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1)])
@pytest.mark.parametrize("extended", [False, True])
def test_a_table_that_has_the_frames_in_another_order(
    order: tuple[int, int, int], extended: bool, marked: bool
) -> None:
    """pydicom follows such a table, DCMTK counts fragments: two images."""
    pieces = [MARK + bytes(2 * i + 1) for i in range(3)]
    offsets = fragments_of(pieces).offsets
    table = [offsets[i] for i in order]
    found = fragments_of(pieces, b"" if extended else pack("<3I", *table))
    with pytest.raises(InstanceError, match="in another order") as caught:
        grouped(found, 3, extended=table if extended else (), marked=marked)
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("table", [(0, 0, 0), (0, 30, 10), (10, 0, 1 << 31), (20, 10)])
def test_a_table_that_is_no_table_of_these_fragments(table: tuple[int, ...]) -> None:
    """It says nothing of an order: one fragment is one frame."""
    pieces = [MARK + bytes(1) for _ in range(3)]
    found = fragments_of(pieces, pack(f"<{len(table)}I", *table))
    assert found.offsets == [0, 10, 20]
    assert grouped(found, 3) == pieces
