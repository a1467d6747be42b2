"""Fragments of encapsulated Pixel Data, and which of them make which frame.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 Annex A.4 (fragments, Basic Offset Table), PS3.3 C.7.6.3.1.8 (Extended Offset Table).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import pack, unpack_from

from bridge.dicom.elements import ITEM, SEQUENCE_ITEMS_MAX, Element, damaged
from bridge.errors import InstanceError
from bridge.model import Reason

_ITEM_HEADER = 8
_SPIFF_END = bytes.fromhex("ffe8000800000001")
"""What the SOI in the last entry of a SPIFF header follows: JPEG-LS may have such a header."""
HEAD_BYTES = 32
"""Enough of a code stream to know it by: a signature, or the size in a JPEG XL header."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """The fragments of one Pixel Data element.

    ``spans``: (start, stop) of each fragment's bytes. ``offsets``: of each fragment's item tag,
    counted as the Basic Offset Table counts (0 = first item after the table). ``table``: the
    Basic Offset Table's values. ``whole``: False where the last fragment or the sequence
    delimiter was cut off. ``data``: the buffer that all positions are in.
    """

    spans: list[tuple[int, int]]
    offsets: list[int]
    table: tuple[int, ...]
    whole: bool
    data: memoryview

    def head(self, index: int) -> bytes:
        """Return the first HEAD_BYTES of a code stream that begins with fragment ``index``.

        A fragment may be shorter than a signature (PS3.5 A.4 sets no least length): then the
        stream goes on in the next one. An empty fragment begins nothing.
        """
        start, stop = self.spans[index]
        head = bytes(self.data[start : min(stop, start + HEAD_BYTES)])
        while head and len(head) < HEAD_BYTES and index + 1 < len(self.spans):
            index += 1
            start, stop = self.spans[index]
            head += self.data[start : min(stop, start + HEAD_BYTES - len(head))]
        return head

    def ends_spiff(self, index: int) -> bool:
        """True if the end of a SPIFF header stands before fragment ``index``.

        Its last entry holds an SOI by definition (ISO/IEC 10918-3 Annex F), which begins no frame.
        """
        before = b""
        while index and len(before) < len(_SPIFF_END):
            index -= 1
            start, stop = self.spans[index]
            before = self.data[max(start, stop - len(_SPIFF_END)) : stop].tobytes() + before
        return before.endswith(_SPIFF_END)

    def empty(self, count: int) -> bool:
        """True if the first ``count`` fragments hold no byte at all."""
        return all(start == stop for start, stop in self.spans[:count])


def read_fragments(data: memoryview, element: Element) -> Fragments:
    """Return the fragments of an encapsulated Pixel Data element. Raises InstanceError."""
    pos, end = element.value, element.stop
    spans: list[tuple[int, int]] = []
    whole = element.end > element.stop
    while end - pos >= _ITEM_HEADER:
        group, number, length = unpack_from("<HHI", data, pos)
        if group << 16 | number != ITEM:
            damaged(pos, "no fragment where one should begin")
        value = pos + _ITEM_HEADER
        if value + length > end:
            whole = False
            length = end - value
        spans.append((value, value + length))
        pos = value + length
        if len(spans) > SEQUENCE_ITEMS_MAX:
            raise InstanceError(Reason.TOO_LARGE, "Pixel Data has too many fragments.")
    if not spans:
        damaged(element.value, "encapsulated pixel data without a single item")
    (table_start, table_stop), rest = spans[0], spans[1:]
    count = (table_stop - table_start) // 4
    table = unpack_from(f"<{count}I", data, table_start)
    offsets = [start - _ITEM_HEADER - table_stop for start, _ in rest]
    return Fragments(rest, offsets, table, whole, data)


def group_frames(
    fragments: Fragments,
    frame_count: int,
    *,
    extended_table: Sequence[int],
    begins_frame: Callable[[bytes], bool],
    marked: bool,
) -> list[list[tuple[int, int]]]:
    """Return the spans of each of ``frame_count`` frames.

    ``begins_frame(head)`` says whether a code stream begins with these bytes; ``marked``: its
    answer rests on a signature that cannot occur inside a code stream. Offset tables are believed
    only when every frame that they make begins with a code stream, and no other fragment does;
    otherwise one fragment is one frame, otherwise the code streams' own beginnings decide. When
    none of these gives exactly ``frame_count`` frames, the file is contradictory: InstanceError.
    """
    spans = fragments.spans
    begun = [
        i
        for i in range(len(spans))
        if marked and begins_frame(fragments.head(i)) and not fragments.ends_spiff(i)
    ]
    if frame_count == 1:
        if len(begun) > 1:
            raise InstanceError(
                Reason.UNDECODABLE,
                f"The data set says one frame, but {len(begun)} code streams are there.",
            )
        return [list(spans)] if spans else _cannot_group(0, 1)
    for table in (extended_table, fragments.table):
        _refuse_another_order(table, fragments.offsets, frame_count)
        index = _fragment_index(table, fragments.offsets, frame_count)
        if index and (
            begun == index if marked else all(begins_frame(fragments.head(i)) for i in index)
        ):
            return _split(spans, index)
    if len(spans) == frame_count:
        return [[span] for span in spans]
    if len(begun) == frame_count and fragments.empty(begun[0]):
        return _split(spans, begun)
    return _cannot_group(len(spans), frame_count)


def _cannot_group(fragment_count: int, frame_count: int) -> list[list[tuple[int, int]]]:
    raise InstanceError(
        Reason.UNDECODABLE,
        f"{fragment_count} fragments cannot be assigned to {frame_count} frames with certainty.",
    )


def _fragment_index(table: Sequence[int], offsets: list[int], frame_count: int) -> list[int] | None:
    """Return the first fragment of each frame, or None where the table does not fit."""
    if len(table) != frame_count or not table or table[0] != 0:
        return None
    index = _indices(table, offsets)
    rising = all(a < b for a, b in pairwise(index))
    return index if rising else None


def _indices(table: Sequence[int], offsets: list[int]) -> list[int]:
    """Return which fragment begins at each offset of the table; -1 where none does."""
    where = {offset: i for i, offset in enumerate(offsets)}
    return [where.get(offset, -1) for offset in table]


def _refuse_another_order(table: Sequence[int], offsets: list[int], frame_count: int) -> None:
    """Refuse a table in which frames do not lie in their order.

    Each of its offsets is a fragment's and none is there twice, so it is no table of zeros or of
    another file. Readers that follow it and readers that count fragments see other frames.
    """
    if len(table) != frame_count or all(a < b for a, b in pairwise(table)):
        return
    if len(set(table)) == frame_count and -1 not in _indices(table, offsets):
        raise InstanceError(
            Reason.UNDECODABLE, "The offset table lists the frames in another order than the file."
        )


def _split(spans: list[tuple[int, int]], index: list[int]) -> list[list[tuple[int, int]]]:
    ends = [*index[1:], len(spans)]
    return [spans[a:b] for a, b in zip(index, ends, strict=True)]


def offset_table(frame_bytes: Sequence[int] | None) -> bytes:
    """Return the item with the Basic Offset Table for frames of these lengths, one fragment each.

    An empty table where the lengths are unknown or do not fit in 32 bits (PS3.5 A.4).
    """
    offsets = [0]
    for length in frame_bytes or ():
        offsets.append(offsets[-1] + length + _ITEM_HEADER)
    if not frame_bytes or offsets[-1] > 0xFFFFFFFF:
        return pack("<HHI", 0xFFFE, 0xE000, 0)
    table = pack(f"<{len(offsets) - 1}I", *offsets[:-1])
    return pack("<HHI", 0xFFFE, 0xE000, len(table)) + table


def fragment_header(length: int) -> bytes:
    """Return the item header of a fragment of ``length`` (even) bytes."""
    return pack("<HHI", 0xFFFE, 0xE000, length)


SEQUENCE_DELIMITER = pack("<HHI", 0xFFFE, 0xE0DD, 0)
