"""A lossless JPEG encoder for the tests: every option of ISO/IEC 10918-1 Annex H but arithmetic.

Slow and plain, written from the standard: what the product decodes is known by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

import numpy as np

from tests.transcode_cases import Array

_CODE_BITS = 5
_CATEGORIES = 17


@dataclass(frozen=True)
class Lossless:
    """How to encode. ``point_transforms`` and ``predictors``: of each scan, the last one repeats.

    ``restart_rows``: rows of each restart interval, 0 for none. ``interleaved``: all components
    in one scan. ``adobe``: the transform of an APP14 segment, or None. ``extra``: marker segments
    in front of the frame header. ``tables``: the Huffman table, 0 or 1, of each component.
    """

    precision: int = 12
    predictors: tuple[int, ...] = (1,)
    point_transforms: tuple[int, ...] = (0,)
    restart_rows: int = 0
    interleaved: bool = True
    identifiers: tuple[int, ...] = (1, 2, 3)
    tables: tuple[int, ...] = (0, 0, 0)
    adobe: int | None = None
    extra: bytes = b""


def segment(marker: int, body: bytes) -> bytes:
    """One marker segment."""
    return pack(">BBH", 0xFF, marker, len(body) + 2) + body


def adobe_segment(transform: int) -> bytes:
    """APP14 as Adobe defines it."""
    return segment(0xEE, b"Adobe" + pack(">HHHB", 100, 0, 0, transform))


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def encode(array: Array, how: Lossless) -> bytes:
    """Return the code stream of ``array``, (rows, columns) or (rows, columns, components).

    Samples are shifted right by the point transform of their scan before they are coded.
    """
    planes = [array] if array.ndim == 2 else [array[..., i] for i in range(array.shape[2])]
    rows, columns = array.shape[:2]
    identifiers = how.identifiers[: len(planes)]
    frame = pack(">BHHB", how.precision, rows, columns, len(planes))
    frame += b"".join(bytes([name, 0x11, 0]) for name in identifiers)
    out = b"\xff\xd8" + how.extra
    if how.adobe is not None:
        out += adobe_segment(how.adobe)
    out += segment(0xC3, frame)
    counts = bytes(_CATEGORIES if bits == _CODE_BITS else 0 for bits in range(1, 17))
    for number, values in enumerate([range(_CATEGORIES), reversed(range(_CATEGORIES))]):
        if number in how.tables[: len(planes)]:
            out += segment(0xC4, bytes([number]) + counts + bytes(values))
    if how.restart_rows:
        out += segment(0xDD, pack(">H", how.restart_rows * columns))
    every = list(range(len(planes)))
    for number, scan in enumerate([every] if how.interleaved else [[i] for i in every]):
        predictor = how.predictors[min(number, len(how.predictors) - 1)]
        shift = how.point_transforms[min(number, len(how.point_transforms) - 1)]
        head = bytes([len(scan)]) + b"".join(
            bytes([identifiers[i], how.tables[i] << 4]) for i in scan
        )
        out += segment(0xDA, head + bytes([predictor, 0, shift]))
        out += _scan(
            [planes[i] for i in scan], [how.tables[i] for i in scan], how, predictor, shift
        )
    return out + b"\xff\xd9"


def encode_subsampled(luma: Array, chroma: Sequence[Array], precision: int = 8) -> bytes:
    """Return a stream whose chroma has fewer rows or columns: several luma samples in each MCU."""
    how = Lossless(precision=precision)
    (rows, columns), (high, wide) = luma.shape, chroma[0].shape
    down, across = rows // high, columns // wide
    frame = pack(">BHHB", precision, rows, columns, 3)
    frame += bytes([1, across << 4 | down, 0, 2, 0x11, 0, 3, 0x11, 0])
    counts = bytes(_CATEGORIES if bits == _CODE_BITS else 0 for bits in range(1, 17))
    out = b"\xff\xd8" + segment(0xC3, frame)
    out += segment(0xC4, b"\0" + counts + bytes(range(_CATEGORIES)))
    out += segment(0xDA, b"\3\1\0\2\0\3\0\1\0\0")
    y, cb, cr = (_differences(plane, how, 1, 0) for plane in (luma, *chroma))
    bits = ""
    for r in range(high):
        for c in range(wide):
            unit = y[r * down : (r + 1) * down, c * across : (c + 1) * across].reshape(-1)
            bits += "".join(_code(int(v), 0) for v in (*unit, cb[r, c], cr[r, c]))
    return out + _bits(bits) + b"\xff\xd9"


def _scan(
    planes: Sequence[Array], tables: Sequence[int], how: Lossless, predictor: int, shift: int
) -> bytes:
    coded = [_differences(plane, how, predictor, shift) for plane in planes]
    rows = planes[0].shape[0]
    step = how.restart_rows or rows
    out = b""
    for number, start in enumerate(range(0, rows, step)):
        if number:
            out += bytes([0xFF, 0xD0 + (number - 1) % 8])
        stop = min(start + step, rows)
        out += _bits("".join(
            _code(int(difference), table)
            for row in range(start, stop)
            for column in range(planes[0].shape[1])
            for difference, table in zip([p[row, column] for p in coded], tables, strict=True)
        ))  # fmt: skip
    return out


def _differences(plane: Array, how: Lossless, predictor: int, shift: int) -> Array:
    x = plane.astype(np.int64) >> shift
    a, b, c = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    a[:, 1:], b[1:], c[1:, 1:] = x[:, :-1], x[:-1], x[:-1, :-1]
    predicted = {
        1: a, 2: b, 3: c, 4: a + b - c, 5: a + ((b - c) >> 1), 6: b + ((a - c) >> 1),
        7: (a + b) >> 1,
    }[predictor].copy()  # fmt: skip
    predicted[:, 0] = b[:, 0]
    for start in range(0, x.shape[0], how.restart_rows or x.shape[0]):
        predicted[start] = a[start]
        predicted[start, 0] = 1 << (how.precision - shift - 1)
    wrapped = (x - predicted) & 0xFFFF
    differences: Array = np.where(wrapped > 32768, wrapped - 65536, wrapped)
    return differences


def _code(difference: int, table: int) -> str:
    if difference == 32768:
        return _category(16, table)
    size = abs(difference).bit_length()
    value = difference if difference >= 0 else difference + (1 << size) - 1
    return _category(size, table) + (f"{value:0{size}b}" if size else "")


def _category(size: int, table: int) -> str:
    return f"{_CATEGORIES - 1 - size if table else size:0{_CODE_BITS}b}"


def _bits(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0") if bits else b""
