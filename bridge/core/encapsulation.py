"""Fragments of encapsulated Pixel Data, and which of them make which frame.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 Annex A.4 (fragments, Basic Offset Table), PS3.3 C.7.6.3.1.8 (Extended Offset Table).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import pack, unpack_from

from bridge.core.elements import ITEM, SEQUENCE_END, SEQUENCE_ITEMS_MAX, Element, damaged
from bridge.core.errors import InstanceError
from bridge.core.model import Reason

_ITEM_HEADER = 8


@dataclass(frozen=True, slots=True)
class Fragments:
    """The fragments of one Pixel Data element.

    ``spans``: (start, stop) of each fragment's bytes. ``offsets``: of each fragment's item tag,
    counted as the Basic Offset Table counts (0 = first item after the table). ``table``: the
    Basic Offset Table's values. ``whole``: False where the last fragment or the sequence
    delimiter was cut off.
    """

    spans: list[tuple[int, int]]
    offsets: list[int]
    table: tuple[int, ...]
    whole: bool


def read_fragments(data: memoryview, element: Element) -> Fragments:
    """Return the fragments of an encapsulated Pixel Data element. Raises InstanceError."""
    pos, end = element.value, element.stop
    spans: list[tuple[int, int]] = []
    whole = element.end > element.stop
    while end - pos >= _ITEM_HEADER:
        group, number, length = unpack_from("<HHI", data, pos)
        tag = group << 16 | number
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
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
    return Fragments(rest, offsets, table, whole)


def group_frames(
    fragments: Fragments,
    frame_count: int,
    *,
    extended_table: Sequence[int],
    begins_frame: Callable[[int, int], bool],
    marked: bool,
) -> list[list[tuple[int, int]]]:
    """Return the spans of each of ``frame_count`` frames.

    ``begins_frame(start, stop)`` says whether a code stream begins there; ``marked``: its answer
    rests on a signature that cannot occur inside a code stream. Offset tables are believed only
    when every frame that they make begins with a code stream, and no other fragment does;
    otherwise one fragment is one frame, otherwise the code streams' own beginnings decide. When
    none of these gives exactly ``frame_count`` frames, the file is contradictory: InstanceError.
    """
    spans = fragments.spans
    begun = [i for i, span in enumerate(spans) if marked and begins_frame(*span)]
    if frame_count == 1:
        if len(begun) > 1:
            raise InstanceError(
                Reason.UNDECODABLE, f"One frame is announced, {len(begun)} code streams are there."
            )
        return [list(spans)] if spans else _cannot_group(0, 1)
    for table in (extended_table, fragments.table):
        index = _fragment_index(table, fragments.offsets, frame_count)
        if index and (begun == index if marked else all(begins_frame(*spans[i]) for i in index)):
            return _split(spans, index)
    if len(spans) == frame_count:
        return [[span] for span in spans]
    if len(begun) == frame_count and begun[0] == 0:
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
    where = {offset: i for i, offset in enumerate(offsets)}
    index = [where.get(offset, -1) for offset in table]
    rising = all(a < b for a, b in pairwise(index))
    return index if rising and index[0] == 0 else None


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
