"""What a compressed frame says about itself, read from its first markers; nothing is decoded.

This file must not know: sockets, files, clocks, logging, settings.
ISO/IEC 10918-1 Annex B (JPEG), 14495-1 Annex C (JPEG-LS), 15444-1 Annex A (JPEG 2000),
15444-15 (HTJ2K), 18181-2 (JPEG XL signatures); PS3.5 Annex G (RLE header).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import unpack_from

from bridge.core.jpeg_xl_header import read_jpeg_xl_header
from bridge.core.syntaxes import Family

_SOI = b"\xff\xd8"
_JPEG_START = re.compile(_SOI + b"\xff")  # sought twice as fast as by bytes.find
_EOI = b"\xff\xd9"
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_JXL_STREAM = b"\xff\x0a"
_JXL_SIGNATURE = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_JP2_HEADER_MAX = 1 << 20

_SOF_DCT = frozenset([0xC0, 0xC1, 0xC2])
_SOF_LOSSLESS = 0xC3
_SOF_LS = 0xF7
_SOF_OTHER = frozenset([0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
_SOS = 0xDA
_PARAMETERLESS = frozenset([0x01, *range(0xD0, 0xD8)])


class StreamError(ValueError):
    """The frame's own header is unreadable or asks for what no decoder here does."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The header of one frame.

    ``rows``, ``columns``, ``samples``, ``precision`` are 0 where the stream does not say (RLE,
    deflate, raw; JPEG XL tells rows and columns only). ``lossy`` is None where the
    header cannot tell. ``colour`` is what the markers claim about three components: "rgb", "ybr"
    or "". ``transformed``: the decoder undoes a component transform (JPEG 2000 MCT).
    ``complete``: the end marker is there. ``header_at``: position of a JPEG frame header's or of
    the first JPEG 2000 tile part's marker.
    ``point_transform``: bits that a lossless JPEG has dropped from every sample.
    """

    family: Family
    rows: int = 0
    columns: int = 0
    samples: int = 0
    precision: int = 0
    signed: bool = False
    lossy: bool | None = None
    colour: str = ""
    subsampled: bool = False
    transformed: bool = False
    complete: bool = True
    box: bool = False
    header_at: int = 0
    point_transform: int = 0


def sniff_family(head: bytes) -> Family:
    """Return the family whose signature ``head`` (16 bytes or more) carries, or Family.NONE.

    JPEG, JPEG lossless and JPEG-LS share SOI and all return JPEG_DCT; J2K stands for HTJ2K too.
    """
    if head[:3] == _SOI + b"\xff":
        return Family.JPEG_DCT
    if head[:4] == _J2K_START or head[:12] == _JP2_SIGNATURE:
        return Family.J2K
    if head[:2] == _JXL_STREAM or head[:12] == _JXL_SIGNATURE:
        return Family.JPEG_XL
    if looks_like_rle(head):
        return Family.RLE
    return Family.NONE


def holds_jpeg(frame: bytes) -> bool:
    """True if a JPEG XL container says how to restore the JPEG it was made from (box jbrd)."""
    pos = 0
    while frame[:12] == _JXL_SIGNATURE and pos + 8 <= len(frame):
        length, name = unpack_from(">I4s", frame, pos)
        if name == b"jbrd":
            return True
        if length < 8:  # 0: to the end; 1: 64-bit length, not needed for one frame
            break
        pos += length
    return False


def looks_like_rle(head: bytes) -> bool:
    """True if ``head`` begins with a plausible RLE header: 1 to 15 segments, the first at 64."""
    return len(head) >= 8 and 1 <= head[0] <= 15 and head[1:8] == b"\0\0\0\x40\0\0\0"


def inspect(frame: bytes, family: Family) -> StreamInfo:
    """Return what ``frame``, announced as ``family``, says about itself. Raises StreamError."""
    found = sniff_family(frame[:16])
    if found is Family.JPEG_DCT:
        return _inspect_jpeg(frame)
    if found is Family.J2K:
        return _inspect_j2k(frame)
    if found is Family.JPEG_XL:
        return _inspect_jpeg_xl(frame)
    if found is Family.RLE:
        return StreamInfo(Family.RLE, lossy=False)
    raise StreamError(f"no {family.value} code stream")


def _inspect_jpeg(frame: bytes) -> StreamInfo:
    """Walk the marker segments up to the first scan."""
    pos, jfif, adobe, sof, header_at = 2, False, -1, None, 0
    while True:
        if pos + 4 > len(frame) or frame[pos] != 0xFF:
            raise StreamError("JPEG markers end before a scan begins")
        marker = frame[pos + 1]
        if marker == 0xFF or marker in _PARAMETERLESS:
            pos += 1 if marker == 0xFF else 2
            continue
        length = unpack_from(">H", frame, pos + 2)[0]
        body = frame[pos + 4 : pos + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise StreamError("a JPEG marker segment is cut off")
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker in _SOF_DCT or marker in (_SOF_LOSSLESS, _SOF_LS):
            sof, header_at = _start_of_frame(marker, body), pos
        elif marker in _SOF_OTHER:
            raise StreamError(f"JPEG process of marker FF{marker:02X} (hierarchical or arithmetic)")
        elif marker == _SOS:
            break
        pos += 2 + length
    if sof is None:
        raise StreamError("JPEG scan without a frame header")
    family, precision, rows, columns, samples, subsampled = sof
    return StreamInfo(
        family,
        rows,
        columns,
        samples,
        precision,
        lossy=_jpeg_lossy(family, body),
        colour=_jpeg_colour(family, jfif=jfif, adobe=adobe, subsampled=subsampled),
        subsampled=subsampled,
        complete=frame.rfind(_EOI, pos) >= 0,
        header_at=header_at,
        point_transform=body[-1] & 0x0F if family is Family.JPEG_LOSSLESS and body else 0,
    )


def _start_of_frame(marker: int, body: bytes) -> tuple[Family, int, int, int, int, bool]:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise StreamError("a JPEG frame header is cut off")
    precision, rows, columns, samples = unpack_from(">BHHB", body)
    sampling = {body[7 + 3 * i] for i in range(samples)}
    if marker in _SOF_DCT:
        family = Family.JPEG_DCT
    else:
        family = Family.JPEG_LOSSLESS if marker == _SOF_LOSSLESS else Family.JPEG_LS
    return family, precision, rows, columns, samples, len(sampling) > 1


def _jpeg_lossy(family: Family, scan: bytes) -> bool:
    if family is Family.JPEG_LS:
        near = 1 + 2 * scan[0] if scan else 0
        if near >= len(scan):
            raise StreamError("a JPEG-LS scan header is cut off")
        return scan[near] > 0
    return family is Family.JPEG_DCT


def _jpeg_colour(family: Family, *, jfif: bool, adobe: int, subsampled: bool) -> str:
    """Say what the markers claim; only the DCT processes have such a convention."""
    if family is not Family.JPEG_DCT:
        return ""
    if adobe in (0, 1):
        return "rgb" if adobe == 0 and not subsampled else "ybr"
    return "ybr" if jfif or subsampled else ""


def _inspect_jpeg_xl(frame: bytes) -> StreamInfo:
    """Read the size, which bounds what the decoder allocates, and whether colour is XYB."""
    header = read_jpeg_xl_header(frame)
    if header is None:
        raise StreamError("the JPEG XL header is cut off")
    turned = header.orientation > 4  # the decoder turns the image upright
    return StreamInfo(
        Family.JPEG_XL,
        header.columns if turned else header.rows,
        header.rows if turned else header.columns,
        lossy=header.xyb or None,
    )


def _inspect_j2k(frame: bytes) -> StreamInfo:
    """Read SIZ, CAP and COD (15444-1 A.5.1, A.6.1) and the first tile part's length."""
    box = frame[:4] != _J2K_START
    start = frame.find(_J2K_START, 0, _JP2_HEADER_MAX) if box else 0
    if start < 0 or len(frame) < start + 42:
        raise StreamError("no JPEG 2000 code stream")
    right, bottom, left, top = unpack_from(">IIII", frame, start + 8)
    count = unpack_from(">H", frame, start + 40)[0]
    components = frame[start + 42 : start + 42 + 3 * count]
    if not 1 <= count <= 16384 or len(components) != 3 * count:
        raise StreamError("a JPEG 2000 image header is cut off")
    if len(set(components[0::3])) != 1:
        raise StreamError("JPEG 2000 components of different precision or sign")
    high_throughput, transform = False, None  # the profile (Rsiz) is not trusted: it lies
    pos = start + 4 + unpack_from(">H", frame, start + 4)[0]
    while pos + 12 <= len(frame):
        marker, length = unpack_from(">HH", frame, pos)
        if marker == 0xFF50:
            high_throughput = bool(unpack_from(">I", frame, pos + 4)[0] & 0x20000)
        elif marker == 0xFF52 and pos + 14 <= len(frame):
            transform = (frame[pos + 8], frame[pos + 13])
        elif marker == 0xFF90:
            break
        pos += 2 + max(length, 2)
    if transform is None:
        raise StreamError("a JPEG 2000 code stream without coding style")
    depth = components[0]
    return StreamInfo(
        Family.HTJ2K if high_throughput else Family.J2K,
        bottom - top,
        right - left,
        count,
        (depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        lossy=True if transform[1] == 0 else None,
        subsampled=len(set(components[1::3]) | set(components[2::3])) > 1,
        transformed=bool(transform[0]) and count >= 3,
        complete=frame.rfind(_EOI, pos) >= 0,
        colour=_jp2_colour(frame[:start]),
        box=box,
        header_at=pos,
    )


def _jp2_colour(head: bytes) -> str:
    """Return "ybr" if the JP2 boxes before a code stream call it sYCC (15444-1 I.5.3).

    PS3.5 A.4.4 knows the code stream only. Boxes that say that its components are not the
    samples (a palette, an order of their own) are refused: readers differ about them.
    """
    pos, colour = 0, ""
    while pos + 8 <= len(head):
        length, name = unpack_from(">I4s", head, pos)
        body = head[pos + 8 : pos + length]
        if name == b"pclr":
            raise StreamError("a palette in the JP2 header")
        if name == b"cdef" and any(
            unpack_from(">HHH", body, at) != (i, 0, i + 1)
            for i, at in enumerate(range(2, len(body) - 5, 6))
        ):
            raise StreamError("a channel order of its own in the JP2 header")
        if name == b"colr" and body[:1] == b"\1" and body[3:7] == b"\0\0\0\x12":
            colour = "ybr"
        pos += 8 if name == b"jp2h" else max(length, 8)
    return colour


def bare_code_stream(frame: bytes) -> bytes:
    """Return a JPEG 2000 frame without the JP2 boxes around it."""
    return frame[max(frame.find(_J2K_START, 0, _JP2_HEADER_MAX), 0) :]


def another_follows(frame: bytes, info: StreamInfo) -> bool:
    """True if a second code stream begins after the header of the first.

    SOI cannot occur inside a JPEG or JPEG-LS scan. Bytes like SOC can occur inside JPEG 2000
    packets, so a whole image header is sought, or the signature of a JP2 file.
    """
    if info.family in (Family.J2K, Family.HTJ2K):
        return frame.find(frame[: 12 if info.box else 40], info.header_at) >= 0
    return bool(info.header_at) and _JPEG_START.search(frame, info.header_at) is not None


def tile_parts_end(frame: bytes, pos: int) -> int:
    """Return where the JPEG 2000 tile parts that begin at ``pos`` end (15444-1 A.4.2).

    Raises StreamError where one has no length of its own or the frame is shorter.
    """
    while frame[pos : pos + 2] == b"\xff\x90" and pos + 10 <= len(frame):
        length = unpack_from(">I", frame, pos + 6)[0]
        if length < 12:
            raise StreamError("a tile part without length")
        pos += length
    if pos > len(frame):
        raise StreamError("a tile part is cut short")
    return pos
