"""What a JPEG XL code stream says about itself: size, precision and colour encoding.

This file must not know: sockets, files, clocks, logging, settings.
ISO/IEC 18181-1 sections 9.2 (U32), D.2 (size header), D.3 (image metadata); 18181-2 (boxes).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack_from

_STREAM = b"\xff\x0a"
_HEADER_BYTES_MAX = 64
_SIZE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


@dataclass(frozen=True, slots=True)
class JpegXlHeader:
    """Rows and columns as coded.

    ``xyb``: colour was converted to XYB, which always rounds; None where it was not read.
    ``orientation``: 1 to 8 as in EXIF; above 4 the decoder exchanges rows and columns.
    """

    rows: int
    columns: int
    orientation: int = 1
    xyb: bool | None = None


class _Bits:
    """Bits of the code stream, lowest first. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError("the JPEG XL header is cut off")
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return taken

    def u32(self, *choices: tuple[int, int]) -> int:
        """Return base + that many bits, by a selector of two bits."""
        base, bits = choices[self.take(2)]
        return base + self.take(bits)


def _beginning(frame: bytes) -> bytes:
    """Return the first bytes of the code stream, which may be cut into boxes."""
    if frame[:2] == _STREAM:
        return frame[:_HEADER_BYTES_MAX]
    found, pos = b"", 0
    while pos + 16 <= len(frame) and len(found) < _HEADER_BYTES_MAX:
        length, name = unpack_from(">I4s", frame, pos)
        head = 8
        if length == 1:
            length, head = unpack_from(">Q", frame, pos + 8)[0], 16
        stop = pos + length if length else len(frame)
        if stop < pos + head:
            break
        if name in (b"jxlc", b"jxlp"):
            found += frame[pos + head + 4 * (name == b"jxlp") : stop][:_HEADER_BYTES_MAX]
        pos = stop
    return found


def read_jpeg_xl_header(frame: bytes) -> JpegXlHeader | None:
    """Read the header, or return None where there is none or it is cut off."""
    head = _beginning(frame)
    if head[:2] != _STREAM:
        return None
    bits = _Bits(head[2:])
    try:
        rows, columns = _size(bits)
        if bits.take(1):  # everything has its default
            return JpegXlHeader(rows, columns, 1, True)
        return _metadata(bits, rows, columns)
    except IndexError:
        return None


def jpeg_xl_size(head: bytes) -> tuple[int, int] | None:
    """Return rows and columns as coded in a bare code stream, or None where it is cut off."""
    try:
        return _size(_Bits(head[len(_STREAM) :]))
    except IndexError:
        return None


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else 1 + bits.take(_SIZE_BITS[bits.take(2)])

    rows = side()
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        return rows, rows * across // down
    return rows, side()


def _metadata(bits: _Bits, rows: int, columns: int) -> JpegXlHeader:
    orientation = 1
    if bits.take(1):  # extra fields
        orientation = 1 + bits.take(3)
        if bits.take(1):  # an intrinsic size
            _size(bits)
        if bits.take(1) or bits.take(1):  # a preview or an animation: not read further
            return JpegXlHeader(rows, columns, orientation)
    if bits.take(1):  # floating point samples
        bits.u32((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        bits.u32((8, 0), (10, 0), (12, 0), (1, 6))
    bits.take(1)  # 16-bit buffers suffice
    if bits.u32((0, 0), (1, 0), (2, 4), (1, 12)):  # extra channels
        return JpegXlHeader(rows, columns, orientation)
    return JpegXlHeader(rows, columns, orientation, bool(bits.take(1)))
