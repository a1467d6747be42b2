"""JPEG-LS code streams that no encoder here writes: separate scans and restart intervals.

Each component, or each band of rows, is encoded alone by CharLS; its scan is taken over as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

import imagecodecs
import numpy as np

from tests.jpeg_lossless import segment
from tests.transcode_cases import Array


def scan_of(plane: Array, near: int = 0) -> bytes:
    """The entropy-coded bytes of one component."""
    stream = bytes(imagecodecs.jpegls_encode(np.ascontiguousarray(plane), level=near))
    start = stream.rindex(b"\xff\xda\0\x08")
    return stream[start + 10 : stream.rindex(b"\xff\xd9")]


def separate_scans(
    planes: Sequence[Array],
    precision: int,
    *,
    near: Sequence[int] = (),
    identifiers: Sequence[int] = (1, 2, 3, 4),
    sampling: int = 0x11,
    restart_rows: int = 0,
    order: Sequence[int] = (),
) -> bytes:
    """One scan for each component (ILV 0), in their order or in another.

    ``near``: the one that each scan announces.
    """
    rows, columns = planes[0].shape
    head = pack(">BHHB", precision, rows, columns, len(planes))
    head += b"".join(bytes([identifiers[i], sampling if not i else 0x11, 0])
                     for i in range(len(planes)))  # fmt: skip
    out = b"\xff\xd8" + segment(0xF7, head)
    if restart_rows:
        out += segment(0xDD, pack(">H", restart_rows))
    for i in order or range(len(planes)):
        plane = planes[i]
        told = near[i] if near else 0
        out += segment(0xDA, bytes([1, identifiers[i], 0, told, 0, 0]))
        step = restart_rows or rows
        for number, start in enumerate(range(0, rows, step)):
            if number:
                out += bytes([0xFF, 0xD0 + (number - 1) % 8])
            out += scan_of(plane[start : start + step], told)
    return out + b"\xff\xd9"
