"""JPEG 2000 code streams that no encoder here writes: components of different size.

Each component is encoded alone, and the packets are joined under the progression order CPRL
(ISO/IEC 15444-1 B.12.1.5): with one precinct for each resolution, all packets of a component
follow each other, so the joined stream holds exactly the samples that were encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack, unpack_from
from typing import Any

import imagecodecs
import numpy as np

from tests.transcode_cases import Array

_CPRL = 4


def joined(planes: Sequence[Array], sampling: Sequence[tuple[int, int]], *, high: bool) -> bytes:
    """Return one code stream of ``planes`` whose component i has the sampling (dx, dy).

    ``high``: HTJ2K. Component 0 must have the sampling 1 x 1 or the reference grid is derived
    from it: plane size times its sampling.
    """
    streams = [_single(np.ascontiguousarray(plane), high=high) for plane in planes]
    main, _ = _split(streams[0])
    rows, columns = planes[0].shape
    dx, dy = sampling[0]
    size = pack(">HIIIIIIII", 0x4000 if high else 0, columns * dx, rows * dy, 0, 0,
                columns * dx, rows * dy, 0, 0)  # fmt: skip
    size += pack(">H", len(planes))
    depth = main[42]
    size += b"".join(bytes([depth, x, y]) for x, y in sampling)
    head = b"\xff\x4f\xff\x51" + pack(">H", len(size) + 2) + size
    (old,) = unpack_from(">H", main, 4)
    rest = bytearray(main[4 + old :])
    at = _segment(rest, 0xFF52)
    rest[at + 5] = _CPRL
    rest[at + 8] = 0  # no component transform
    packets = b"".join(_split(stream)[1] for stream in streams)
    tile = pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(packets), 0, 1) + b"\xff\x93" + packets
    return head + bytes(rest) + tile + b"\xff\xd9"


def tiled(array: Array, side: int, *, mct: bool) -> bytes:
    """Return a code stream of square tiles, each encoded alone; ``side`` a power of two."""
    rows, columns = array.shape[0] // side, array.shape[1] // side
    options: dict[str, Any] = {"codecformat": "j2k", "reversible": True, "resolutions": 3}
    streams = [
        bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(tile), 0, mct=mct, **options))
        for row in np.split(array, rows)
        for tile in np.split(row, columns, axis=1)
    ]
    main = bytearray(_split(streams[0])[0])
    main[8:16] = pack(">II", array.shape[1], array.shape[0])
    parts = b""
    for number, stream in enumerate(streams):
        packets = _split(stream)[1]
        parts += pack(">HHHIBB", 0xFF90, 10, number, 14 + len(packets), 0, 1)
        parts += b"\xff\x93" + packets
    return bytes(main) + parts + b"\xff\xd9"


def _single(plane: Array, *, high: bool) -> bytes:
    levels: dict[str, Any] = {"resolutions": 2}
    if high:
        return bytes(imagecodecs.htj2k_encode(plane, reversible=True, **levels))
    return bytes(
        imagecodecs.jpeg2k_encode(plane, level=0, reversible=True, codecformat="j2k", **levels)
    )


def _segment(main: bytearray, wanted: int, pos: int = 0) -> int:
    while True:
        marker, length = unpack_from(">HH", main, pos)
        if marker == wanted:
            return pos
        pos += 2 + length


def _split(stream: bytes) -> tuple[bytes, bytes]:
    """Main header, and the packets of all tile parts."""
    pos = 4 + unpack_from(">H", stream, 4)[0]
    while unpack_from(">H", stream, pos)[0] != 0xFF90:
        pos += 2 + unpack_from(">H", stream, pos + 2)[0]
    main, packets = stream[:pos], b""
    while stream[pos : pos + 2] == b"\xff\x90":
        (length,) = unpack_from(">I", stream, pos + 6)
        stop = pos + length if length else len(stream) - 2
        data = stream.index(b"\xff\x93", pos) + 2
        packets += stream[data:stop]
        pos = stop
    return main, packets
