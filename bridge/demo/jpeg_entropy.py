"""The entropy-coded half of the reference JPEG decoder: from bytes to coefficients.

Huffman decoding of sequential DCT scans, written from ITU-T T.81 (B.2, F.2), for comparison only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

DHT, EOI, SOS, DQT, DRI = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD
RST = range(0xD0, 0xD8)
BLOCK = 64

ZIGZAG = tuple(
    row * 8 + column
    for row, column in sorted(
        ((r, c) for r in range(8) for c in range(8)),
        key=lambda rc: (rc[0] + rc[1], rc[0] if (rc[0] + rc[1]) % 2 else rc[1]),
    )
)
"""Position in a block of the k-th coefficient (T.81 figure 5)."""


class ReferenceDecodeError(ValueError):
    """The codestream is not one that this decoder covers, or it is damaged."""


@dataclass(slots=True)
class Component:
    """One component of the frame header and what has been decoded of it."""

    identifier: int
    horizontal: int
    vertical: int
    quantization: int
    blocks_wide: int = 0
    blocks_high: int = 0
    positions: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    predictor: int = 0


@dataclass(slots=True)
class Frame:
    """The frame header (T.81 B.2.2)."""

    precision: int
    rows: int
    columns: int
    components: list[Component]

    @property
    def horizontal_max(self) -> int:
        """Largest horizontal sampling factor."""
        return max(c.horizontal for c in self.components)

    @property
    def vertical_max(self) -> int:
        """Largest vertical sampling factor."""
        return max(c.vertical for c in self.components)


def frame_header(body: bytes) -> Frame:
    """Read a SOF segment after its length (T.81 B.2.2) and size the components (A.1.1, A.2.4)."""
    rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    components = [
        Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2])
        for i in range(6, 6 + 3 * body[5], 3)
    ]
    frame = Frame(body[0], rows, columns, components)
    for component in components:
        component.blocks_wide = (
            ceil_divide(columns, 8 * frame.horizontal_max) * component.horizontal
        )
        component.blocks_high = ceil_divide(rows, 8 * frame.vertical_max) * component.vertical
    return frame


def huffman_tables(body: bytes) -> dict[int, list[int]]:
    """Read a DHT segment after its length (T.81 B.2.4.2): lookup tables by class and number."""
    tables = {}
    at = 0
    while at < len(body):
        count = sum(body[at + 1 : at + 17])
        tables[body[at]] = _lookup(body[at + 1 : at + 17 + count])
        at += 17 + count
    return tables


@lru_cache(maxsize=16)
def _lookup(table: bytes) -> list[int]:
    """From the next 16 bits to ``length << 8 | symbol``; 0 where there is no such code."""
    lookup = [0] * 65536
    code, symbol = 0, 16
    for length in range(1, 17):
        for _ in range(table[length - 1]):
            first, span = code << (16 - length), 1 << (16 - length)
            lookup[first : first + span] = [length << 8 | table[symbol]] * span
            code, symbol = code + 1, symbol + 1
        code <<= 1
    return lookup


def scan_end(data: bytes, start: int) -> int:
    """Position of the first marker after ``start`` that is neither stuffing nor RSTn."""
    at = data.find(b"\xff", start)
    while 0 <= at < len(data) - 1 and (data[at + 1] in (0, 0xFF) or data[at + 1] in RST):
        at = data.find(b"\xff", at + 1)
    return at if 0 <= at < len(data) - 1 else len(data)


def decode_scan(
    frame: Frame, header: bytes, coded: bytes, huffman: dict[int, list[int]], restart: int
) -> None:
    """Decode the coefficients of one scan into its components (T.81 F.2)."""
    chosen: list[tuple[Component, list[int], list[int]]] = []
    for i in range(1, 1 + 2 * header[0], 2):
        component = next(c for c in frame.components if c.identifier == header[i])
        tables = header[i + 1]
        chosen.append((component, huffman[tables >> 4], huffman[0x10 | tables & 15]))
    units = _units(frame, [c for c, _, _ in chosen])
    per_interval = restart or len(units)
    intervals = _split_at_restarts(coded)
    if len(intervals) < ceil_divide(len(units), per_interval):
        raise ReferenceDecodeError("A restart interval is missing.")
    for number in range(ceil_divide(len(units), per_interval)):
        bits = np.frombuffer(intervals[number] + b"\xff" * 8, np.uint8).astype(np.int64)
        windows: list[int] = (bits[:-2] << 16 | bits[1:-1] << 8 | bits[2:]).tolist()
        for component, _, _ in chosen:
            component.predictor = 0
        at = 0
        for unit in units[number * per_interval : (number + 1) * per_interval]:
            for index, block in unit:
                at = _block(windows, at, chosen[index], block * BLOCK)


def _units(frame: Frame, components: list[Component]) -> list[list[tuple[int, int]]]:
    """Minimum coded units in order: lists of (component in the scan, its block number)."""
    if len(components) == 1:  # not interleaved: only the blocks that hold image (T.81 A.2.2)
        only = components[0]
        wide = ceil_divide(ceil_divide(frame.columns * only.horizontal, frame.horizontal_max), 8)
        high = ceil_divide(ceil_divide(frame.rows * only.vertical, frame.vertical_max), 8)
        return [[(0, y * only.blocks_wide + x)] for y in range(high) for x in range(wide)]
    wide = ceil_divide(frame.columns, 8 * frame.horizontal_max)
    high = ceil_divide(frame.rows, 8 * frame.vertical_max)
    return [
        [
            (i, (y * c.vertical + v) * c.blocks_wide + x * c.horizontal + h)
            for i, c in enumerate(components)
            for v in range(c.vertical)
            for h in range(c.horizontal)
        ]
        for y in range(high)
        for x in range(wide)
    ]


def _split_at_restarts(coded: bytes) -> list[bytes]:
    """Entropy-coded segments without the stuffed zero bytes (T.81 B.1.1.5)."""
    parts, start = [], 0
    at = coded.find(b"\xff")
    while 0 <= at < len(coded) - 1:
        if coded[at + 1] in RST:
            parts.append(coded[start:at])
            start = at + 2
        at = coded.find(b"\xff", at + 2)
    parts.append(coded[start:])
    return [part.replace(b"\xff\x00", b"\xff") for part in parts]


def _block(
    windows: list[int], at: int, tables: tuple[Component, list[int], list[int]], base: int
) -> int:
    """Decode one block whose first bit is ``at``; return the position after it (T.81 F.2.2)."""
    component, dc_table, ac_table = tables
    positions, values = component.positions, component.values
    k, table = 0, dc_table
    while k < BLOCK:
        if at >> 3 >= len(windows):
            raise ReferenceDecodeError("The entropy-coded data ends early.")
        entry = table[windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF]
        if entry == 0:
            raise ReferenceDecodeError("No such Huffman code.")
        at += entry >> 8
        run, size = (entry & 0xFF) >> 4, entry & 15
        value = 0
        if size:
            value = (windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF) >> (16 - size)
            at += size
            if value < 1 << (size - 1):
                value -= (1 << size) - 1
        if k == 0:
            component.predictor += value
            value, run, table = component.predictor, 0, ac_table
        elif size == 0 and run != 15:  # end of block
            break
        k += run
        if value:
            positions.append(base + ZIGZAG[k])
            values.append(value)
        k += 1
    return at


def ceil_divide(number: int, divisor: int) -> int:
    """Return ``number / divisor``, rounded up."""
    return -(-number // divisor)
