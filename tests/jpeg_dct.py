"""A DCT JPEG encoder for the tests: every block is flat, so every sample is known.

With a quantization step of 8 the DC coefficient of a block is its value less the middle of the
range (ISO/IEC 10918-1 A.3.3), and the inverse transform gives that value back exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

import numpy as np

from tests.jpeg_lossless import JFIF, adobe_segment, segment
from tests.transcode_cases import Array

__all__ = ["JFIF", "Flat", "adobe_segment", "encode_flat", "segment"]


@dataclass(frozen=True)
class Flat:
    """How to encode. ``sampling``: of each component, as in SOF (0x21 is 2 x 1).

    ``restart_mcus``: MCUs of each restart interval, 0 for none. ``markers``: segments in front.
    """

    precision: int = 8
    sampling: tuple[int, ...] = (0x11, 0x11, 0x11, 0x11)
    identifiers: tuple[int, ...] = (1, 2, 3, 4)
    restart_mcus: int = 0
    interleaved: bool = True
    progressive: bool = False
    markers: bytes = b""


def encode_flat(planes: Sequence[Array], rows: int, columns: int, how: Flat) -> bytes:
    """Return the code stream of ``planes``, one value for each 8 x 8 block of a component."""
    count = len(planes)
    sof = 0xC2 if how.progressive else 0xC0 if how.precision == 8 else 0xC1
    frame = pack(">BHHB", how.precision, rows, columns, count)
    frame += b"".join(bytes([how.identifiers[i], how.sampling[i], 0]) for i in range(count))
    out = b"\xff\xd8" + how.markers + segment(0xDB, b"\0" + bytes([8] * 64))
    out += segment(sof, frame)
    lengths = bytes(13 if bits == 4 else 0 for bits in range(1, 17))
    out += segment(0xC4, b"\0" + lengths + bytes(range(13)))  # DC: categories 0 to 12
    out += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")  # AC: the end of a block only
    if how.restart_mcus:
        out += segment(0xDD, pack(">H", how.restart_mcus))
    every = list(range(count))
    for scan in [every] if how.interleaved else [[i] for i in every]:
        head = bytes([len(scan)]) + b"".join(bytes([how.identifiers[i], 0]) for i in scan)
        out += segment(0xDA, head + bytes([0, 0 if how.progressive else 63, 0]))
        out += _scan([planes[i] for i in scan], [how.sampling[i] for i in scan], how)
    for i in every if how.progressive else ():  # every AC coefficient is zero
        out += segment(0xDA, bytes([1, how.identifiers[i], 0, 1, 63, 0]))
        step = how.restart_mcus or planes[i].size
        for number, start in enumerate(range(0, planes[i].size, step)):
            out += bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b""
            out += _padded("0" * min(step, planes[i].size - start))
    return out + b"\xff\xd9"


def _scan(planes: Sequence[Array], sampling: Sequence[int], how: Flat) -> bytes:
    steps = [(s & 15, s >> 4) if len(planes) > 1 else (1, 1) for s in sampling]
    high, wide = planes[0].shape[0] // steps[0][0], planes[0].shape[1] // steps[0][1]
    middle = 1 << (how.precision - 1)
    out, bits, before = b"", "", [0] * len(planes)
    for mcu in range(high * wide):
        if how.restart_mcus and mcu and not mcu % how.restart_mcus:
            out += _padded(bits) + bytes([0xFF, 0xD0 + (mcu // how.restart_mcus - 1) % 8])
            bits, before = "", [0] * len(planes)
        row, column = divmod(mcu, wide)
        for i, (down, across) in enumerate(steps):
            for y in range(down):
                for x in range(across):
                    value = int(planes[i][row * down + y, column * across + x]) - middle
                    bits += _difference(value - before[i]) + ("" if how.progressive else "0")
                    before[i] = value
    return out + _padded(bits)


def _difference(value: int) -> str:
    size = abs(value).bit_length()
    coded = value if value >= 0 else value + (1 << size) - 1
    return f"{size:04b}" + (f"{coded:0{size}b}" if size else "")


def _padded(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")


def blocks(values: Array) -> Array:
    """The samples that blocks of these values are."""
    expanded: Array = np.kron(values, np.ones((8, 8), values.dtype))
    return expanded
