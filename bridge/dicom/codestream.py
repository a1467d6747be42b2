"""What a compressed frame says about itself, read from its first markers; nothing is decoded.

This file must not know: sockets, files, clocks, logging, settings.
ISO/IEC 10918-1 Annex B (JPEG), 14495-1 Annex C (JPEG-LS), 15444-1 Annex A (JPEG 2000),
15444-15 (HTJ2K), 18181-2 (JPEG XL signatures); PS3.5 Annex G (RLE header).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import pack, unpack_from
from typing import NamedTuple

from bridge.dicom.jpeg_xl_header import read_jpeg_xl_header
from bridge.dicom.syntaxes import Family

_SOI = b"\xff\xd8"
_JPEG_START = re.compile(_SOI + b"\xff")  # twice as fast as bytes.find
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker behind Huffman-coded data. In the data a zero byte follows FF (ISO 10918-1 B.1.1.5)."""
_LS_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""A marker behind JPEG-LS data. In the data a zero bit follows FF (ISO 14495-1 A.1)."""
_EOI = b"\xff\xd9"
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_JXL_STREAM = b"\xff\x0a"
_JXL_SIGNATURE = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_JP2_HEADER_MAX = 1 << 20
_COD, _COC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF90, 0xFF93
_PART_2 = range(0xFF70, 0xFF7A)
"""Markers DCO to ATK (15444-2 Annex A). They announce offsets, transforms and curves, which a
decoder of Part 1 ignores."""

_SOF_DCT = frozenset([0xC0, 0xC1, 0xC2])
_SOF_LOSSLESS = 0xC3
_SOF_LS = 0xF7
_SOF_PROGRESSIVE = 0xC2
_SOF_OTHER = frozenset([0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
_SOS, _DRI, _DHT, _LSE, _APP8 = 0xDA, 0xDD, 0xC4, 0xF8, 0xE8
_BETWEEN_SCANS = frozenset([_SOS, _DRI, _DHT, 0xDB, 0xDC, _LSE, 0xFE, *range(0xE0, 0xF0)])
_SCANS_MAX = 1024
_COEFFICIENTS = 64
"""Of a block of 8 x 8 samples."""
_SEGMENTS_MAX = 100_000
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_LETTERS = (82, 71, 66)  # component identifiers "R", "G", "B"
_ADOBE_CONFLICT = 256  # no value of one byte: two APP14 segments contradict each other
_PARAMETERLESS = frozenset([0x01, *range(0xD0, 0xD8)])


class StreamError(ValueError):
    """The frame's own header is unreadable or asks for what no decoder here does."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The header of one frame.

    ``rows``, ``columns``, ``samples``, ``precision`` are 0 where the stream does not say (RLE,
    deflate, raw; JPEG XL tells rows and columns only). ``lossy`` is None where the
    header cannot tell; every scan of a JPEG is asked. ``colour`` is what the markers claim about
    three components: "rgb", "ybr", "conflict" where they contradict each other, or "".
    ``subsampled``: components are not all coded at full resolution.
    ``transformed``: the decoder undoes a component transform (JPEG 2000 MCT, JPEG XL in XYB);
    None where the header cannot tell.
    ``complete``: the end marker is there. ``header_at``: position of a JPEG frame header's or of
    the first JPEG 2000 tile part's marker.
    ``scan_ends``: where the coded data of each JPEG scan ends. ``restarts``: there are restart
    intervals. ``point_transform``: the most bits that a scan of a lossless JPEG has dropped from
    its samples. ``progressive``: a DCT in several passes over the same samples.
    ``several_tables``: components of one lossless scan have different Huffman tables.
    ``followed``: another JPEG code stream begins behind the header of this one.
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
    transformed: bool | None = False
    complete: bool = True
    box: bool = False
    header_at: int = 0
    point_transform: int = 0
    scan_ends: tuple[int, ...] = ()
    restarts: bool = False
    progressive: bool = False
    several_tables: bool = False
    followed: bool = False


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


def bare_jpeg_xl(head: bytes) -> bool:
    """True for the two bytes that begin a JPEG XL code stream without a container."""
    return head[:2] == _JXL_STREAM


def holds_jpeg(frame: bytes) -> bool:
    """True if a JPEG XL container says how to restore the JPEG it was made from (box jbrd)."""
    pos = 0
    while frame[:12] == _JXL_SIGNATURE and pos + 8 <= len(frame):
        length, name = unpack_from(">I4s", frame, pos)
        if name == b"jbrd":
            return True
        if length < 8:  # 0: to the end; 1: a length of 64 bits, which no frame needs
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


@dataclass(slots=True)
class _Passes:
    """Which components the scans of one JPEG hold, and how much of them (10918-1 B.2.3, G.1.1).

    Decoders fill what no scan holds with something and report no error.
    """

    order: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    """The components of the scan that was noted last."""
    scans: int = 0
    low_bits: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of each component and coefficient of a progressive DCT: the bits still to come."""

    def take(self, sof: _FrameHeader, body: bytes) -> None:
        """Note one scan. Raises StreamError where it does not say of which components it is."""
        self.scans += 1
        names = [body[1 + 2 * i] for i in range(body[0])]
        first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
        here: list[int] = []
        for name in names:
            same = [i for i, one in enumerate(sof.identifiers) if one == name and i not in here]
            if not same:
                raise StreamError("a JPEG scan of a component that the frame header does not name")
            fresh = [i for i in same if i not in self.order]
            here.append((fresh or same)[0])
        self.last = list(here)
        if sof.marker == _SOF_PROGRESSIVE:
            for i in here:
                for k in range(first, min(last, _COEFFICIENTS - 1) + 1):
                    self.low_bits[i, k] = bits & 0x0F
            here = [i for i in here if i not in self.order]
        self.order += here

    def check(self, sof: _FrameHeader) -> None:
        """Raise StreamError unless each component is there once, and to its last bit."""
        count = len(sof.identifiers)
        if sorted(self.order) != list(range(count)):
            raise StreamError("JPEG scans that do not hold each component once")
        if sof.marker == _SOF_PROGRESSIVE:
            wanted = ((i, k) for i in range(count) for k in range(_COEFFICIENTS))
            if any(self.low_bits.get(one, 1) for one in wanted):
                raise StreamError("a progressive JPEG whose last passes are missing")
        if sof.family is Family.JPEG_LS:
            if self.order != sorted(self.order):
                # CharLS does not look at which component a scan names.
                raise StreamError("JPEG-LS components in another order than the frame header's")
        elif self.scans > 1 and len(set(sof.identifiers)) < count:
            raise StreamError("several JPEG scans of components that have one identifier")


@dataclass(slots=True)
class _Markers:
    """What the segments of one JPEG say, gathered on the way."""

    sof: _FrameHeader | None = None
    header_at: int = 0
    jfif: bool = False
    adobe: int = -1
    restarts: bool = False
    interval: int = 0
    point_transform: int = 0
    near: int = 0
    several_tables: bool = False
    scan_ends: list[int] = field(default_factory=list)
    passes: _Passes = field(default_factory=_Passes)

    def take(self, marker: int, body: bytes, pos: int) -> None:
        """Note what one segment says. Raises StreamError."""
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            self.jfif = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            self.adobe = body[11] if self.adobe in (-1, body[11]) else _ADOBE_CONFLICT
        elif marker == _APP8 and body[:4] == b"mrfx" and body[4:5] not in (b"", b"\0"):
            raise StreamError("a colour transform that JPEG-LS does not have (HP, mrfx)")
        elif marker in _SOF_DCT or marker in (_SOF_LOSSLESS, _SOF_LS):
            if self.sof is not None:
                raise StreamError("a second JPEG frame header")
            self.sof, self.header_at = _frame_header(marker, body), pos
        elif marker in _SOF_OTHER:
            raise StreamError(f"JPEG process of marker FF{marker:02X} (hierarchical or arithmetic)")
        elif marker == _DRI:
            self.restarts = self.restarts or any(body)
            self.interval = int.from_bytes(body[:4])

    def scan(self, body: bytes) -> None:
        """Note the parameters of one scan. In JPEG-LS Ss is NEAR; the low half of Al is Pt."""
        if self.sof is None:
            raise StreamError("JPEG scan without a frame header")
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            raise StreamError("a JPEG scan header is cut off")
        if self.sof.family is not Family.JPEG_DCT:  # there Al is a pass of the progression
            self.point_transform = max(self.point_transform, body[3 + 2 * count] & 0x0F)
        if self.sof.family is Family.JPEG_LS:
            self.near = max(self.near, body[1 + 2 * count])
        if self.sof.family is Family.JPEG_LOSSLESS:
            self.several_tables |= len({body[2 + 2 * i] for i in range(count)}) > 1
        self.passes.take(self.sof, body)


def _inspect_jpeg(frame: bytes) -> StreamInfo:
    """Walk the marker segments and over the scans, to the end marker or what is no segment."""
    seen, pos = _Markers(), 2
    while True:
        if pos + 4 > len(frame) or frame[pos] != 0xFF:
            if seen.scan_ends:
                break
            raise StreamError("JPEG markers end before a scan begins")
        marker = frame[pos + 1]
        if seen.scan_ends and marker not in _BETWEEN_SCANS and marker != 0xFF:
            break
        if marker == 0xFF or marker in _PARAMETERLESS:
            pos += 1 if marker == 0xFF else 2
            continue
        length = unpack_from(">H", frame, pos + 2)[0]
        body = frame[pos + 4 : pos + 2 + length]
        if length < 2 or len(body) != length - 2:
            if seen.scan_ends:
                break
            raise StreamError("a JPEG marker segment is cut off")
        if marker == _SOS:
            seen.scan(body)
            pos = _scan_end(frame, pos + 2 + length, seen)
            continue
        seen.take(marker, body, pos)
        pos += 2 + length
    return _jpeg_info(frame, pos, seen)


def _scan_end(frame: bytes, start: int, seen: _Markers) -> int:
    """Return where the coded data from ``start`` on ends."""
    is_ls = seen.sof is not None and seen.sof.family is Family.JPEG_LS
    found = (_LS_MARKER if is_ls else _MARKER).search(frame, start)
    stop = found.start() if found else len(frame)
    seen.scan_ends.append(stop)
    if len(seen.scan_ends) > _SCANS_MAX:
        raise StreamError(f"more than {_SCANS_MAX} JPEG scans")
    if seen.sof is not None and not is_ls:  # CharLS looks for each of them itself
        units = _units(seen.sof, seen.passes.last)
        intervals = -(-units // seen.interval) if seen.interval else 1
        _check_restarts(frame, start, stop, intervals)
    return stop


def _units(sof: _FrameHeader, components: Sequence[int]) -> int:
    """Return how many MCUs a scan of these components has (10918-1 A.2)."""
    side = 8 if sof.family is Family.JPEG_DCT else 1
    most = [max((s >> 4 * up) & 15 for s in sof.sampling) for up in (1, 0)]
    across, down = (side * m for m in most)
    columns, rows = sof.columns, sof.rows
    if len(components) == 1:  # then it is blocks of this component alone
        own = sof.sampling[components[0]]
        columns = -(-columns * (own >> 4) // most[0])
        rows = -(-rows * (own & 15) // most[1])
        across = down = side
    return -(-columns // across) * -(-rows // down)


def _check_restarts(frame: bytes, start: int, stop: int, intervals: int) -> None:
    """Refuse a scan in which restart intervals are missing or exchanged.

    libjpeg fills them or goes on with the next, and reports no error. Their markers count modulo 8
    (10918-1 B.2.1). Some writers put one more behind the last interval.
    """
    found = [at.end() for at in _RESTART.finditer(frame, start, stop)]
    if len(found) == intervals and not frame[found[-1] : stop].strip(b"\xff"):
        found.pop()
    if len(found) != intervals - 1:
        raise StreamError(f"{len(found) + 1} JPEG restart intervals, not {intervals}")
    if any(frame[at - 1] & 7 != i & 7 for i, at in enumerate(found)):
        raise StreamError("JPEG restart intervals that do not follow each other")


def _jpeg_info(frame: bytes, pos: int, seen: _Markers) -> StreamInfo:
    sof = seen.sof
    if sof is None:
        raise StreamError("JPEG scan without a frame header")
    seen.passes.check(sof)
    return StreamInfo(
        sof.family,
        sof.rows,
        sof.columns,
        len(sof.identifiers),
        sof.precision,
        lossy=sof.family is Family.JPEG_DCT or seen.point_transform > 0 or seen.near > 0,
        colour=_jpeg_colour(sof, jfif=seen.jfif, adobe=seen.adobe),
        subsampled=sof.subsampled,
        complete=frame.rfind(_EOI, seen.scan_ends[0]) >= 0,
        header_at=seen.header_at,
        point_transform=seen.point_transform,
        scan_ends=tuple(seen.scan_ends),
        restarts=seen.restarts,
        several_tables=seen.several_tables,
        progressive=sof.marker == _SOF_PROGRESSIVE,
        followed=_JPEG_START.search(frame, pos) is not None,
    )


@dataclass(frozen=True, slots=True)
class _FrameHeader:
    """SOF: ISO 10918-1 B.2.2."""

    marker: int
    family: Family
    precision: int
    rows: int
    columns: int
    identifiers: tuple[int, ...]
    sampling: tuple[int, ...]

    @property
    def subsampled(self) -> bool:
        """True if components differ in their sampling factors."""
        return len(set(self.sampling)) > 1


def _frame_header(marker: int, body: bytes) -> _FrameHeader:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise StreamError("a JPEG frame header is cut off")
    precision, rows, columns, samples = unpack_from(">BHHB", body)
    if not samples:
        raise StreamError("a JPEG frame without components")
    sampling = tuple(body[7 + 3 * i] for i in range(samples))
    if not all(s >> 4 and s & 15 for s in sampling):
        raise StreamError("a JPEG component that is sampled nowhere")
    identifiers = tuple(body[6 + 3 * i] for i in range(samples))
    if marker in _SOF_DCT:
        family = Family.JPEG_DCT
    else:
        family = Family.JPEG_LOSSLESS if marker == _SOF_LOSSLESS else Family.JPEG_LS
    return _FrameHeader(marker, family, precision, rows, columns, identifiers, sampling)


def _jpeg_colour(sof: _FrameHeader, *, jfif: bool, adobe: int) -> str:
    """Say what the markers claim about three components.

    JFIF means YCbCr in a DCT process. Writers of lossless JPEG put it before any colour, so it
    says nothing there. Subsampled components mean YCbCr, unless other markers say RGB.
    """
    if len(sof.identifiers) != 3:
        return ""
    is_dct = sof.family is Family.JPEG_DCT
    claims = {
        name
        for name, holds in (
            ("ybr", jfif and is_dct),
            ("ybr", adobe == 1),
            ("rgb", adobe == 0),
            ("conflict", adobe > 1),
            ("rgb", sof.identifiers == _LETTERS),
        )
        if holds
    }
    if not claims:
        return "ybr" if sof.subsampled else ""
    return claims.pop() if len(claims) == 1 else "conflict"


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
        transformed=header.xyb,
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
    # The profile (Rsiz) is not read: some writers set it wrongly.
    high_throughput, main = False, _CodingStyle()
    pos = start + 4 + unpack_from(">H", frame, start + 4)[0]
    while pos + 12 <= len(frame):
        marker, length = unpack_from(">HH", frame, pos)
        if marker == 0xFF50:
            high_throughput = bool(unpack_from(">I", frame, pos + 4)[0] & 0x20000)
        elif marker == _SOT:
            break
        main.take(marker, frame[pos + 4 : pos + 2 + length], count)
        pos += 2 + max(length, 2)
    if not main.transforms:
        raise StreamError("a JPEG 2000 code stream without coding style")
    tiles = _tile_styles(frame, pos, main, count)
    _check_tiles(tiles, unpack_from(">8I", frame, start + 8))
    if len(main.transforms) > 1:
        raise StreamError("JPEG 2000 tiles with and without a component transform")
    transform = main.transforms.pop()
    if transform > 1:
        raise StreamError("a component transform of JPEG 2000 Part 2")
    depth = components[0]
    return StreamInfo(
        Family.HTJ2K if high_throughput else Family.J2K,
        bottom - top,
        right - left,
        count,
        (depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        lossy=True if 0 in main.kernels else None,
        subsampled=set(components[1::3]) | set(components[2::3]) != {1},
        transformed=bool(transform) and count >= 3,
        complete=frame.rfind(_EOI, pos) >= 0,
        colour=_jp2_colour(frame[:start]),
        box=box,
        header_at=pos,
    )


@dataclass(slots=True)
class _CodingStyle:
    """Component transforms and wavelet kernels (0: irreversible) that COD and COC name."""

    transforms: set[int] = field(default_factory=set)
    kernels: set[int] = field(default_factory=set)

    def take(self, marker: int, body: bytes, components: int) -> None:
        """Note what a COD or COC segment says (15444-1 A.6.1, A.6.2).

        Raises StreamError for a segment of Part 2 that changes what samples mean. OpenJPEG ignores
        NLT, which OpenJPH writes and follows: it returns other samples and no error.
        """
        if marker in _PART_2:
            raise StreamError(f"a marker segment of JPEG 2000 Part 2 ({marker:04X})")
        if marker == _COD and len(body) >= 10:
            self.transforms.add(body[4])
            self.kernels.add(body[9])
        elif marker == _COC:
            wide = components > 256
            if len(body) >= 7 + wide:
                self.kernels.add(body[6 + wide])


def _tile_styles(
    frame: bytes, pos: int, style: _CodingStyle, components: int
) -> dict[int, tuple[int, int]]:
    """Note the coding styles in tile-part headers, which override those of the main header.

    Returns for each tile how many parts it has and how many are announced (0: it is not said).
    Raises StreamError where a part is missing or stands in another place.
    """
    tiles: dict[int, tuple[int, int]] = {}
    while frame[pos : pos + 2] == b"\xff\x90" and pos + 12 <= len(frame):
        tile, length, part, parts = unpack_from(">HIBB", frame, pos + 4)
        seen, announced = tiles.get(tile, (0, 0))
        if part != seen:
            raise StreamError("JPEG 2000 tile parts that do not follow each other")
        tiles[tile] = seen + 1, max(announced, parts)
        at, stop = pos + 12, pos + length if length >= 14 else len(frame)
        while at + 4 <= min(stop, len(frame)):
            marker, size = unpack_from(">HH", frame, at)
            if marker == _SOD or marker <= 0xFF00:
                break
            style.take(marker, frame[at + 4 : at + 2 + size], components)
            at += 2 + max(size, 2)
        pos = stop
    return tiles


def _check_tiles(tiles: Mapping[int, tuple[int, int]], size: Sequence[int]) -> None:
    """Raise StreamError unless every tile is there with all its parts (15444-1 A.4.2, B.3).

    OpenJPEG fills a tile that is missing with black and reports no error. ``size``: Xsiz, Ysiz,
    XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz.
    """
    right, bottom, _, _, wide, high, left, top = size
    if not wide or not high or left >= right or top >= bottom:
        raise StreamError("a JPEG 2000 image header without tiles")
    count = -(-(right - left) // wide) * -(-(bottom - top) // high)
    # A number in a tile part that is too small is common; one that is too large is not.
    if len(tiles) != count or any(seen < announced for seen, announced in tiles.values()):
        raise StreamError(f"{len(tiles)} JPEG 2000 tiles, not {count}, or not all of their parts")


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
    return info.followed


class LosslessPart(NamedTuple):
    """One scan's restart interval as a lossless JPEG of its own: what is in it, and where.

    ``components``: which of the frame's it holds. ``shift``: the point transform of the scan,
    which this stream no longer has.
    """

    stream: bytes
    row: int
    rows: int
    components: tuple[int, ...]
    shift: int


def lossless_parts(frame: bytes, info: StreamInfo) -> Iterator[LosslessPart]:
    """Yield every restart interval of every scan of a lossless JPEG as a code stream of its own.

    In it, component 0 has Huffman table 0, component 1 table 1 and so on.
    A restart interval is whole rows and predicts from nothing before it (ISO 10918-1 H.1.1,
    H.1.2.1), a point transform only lowers the precision of what is coded (H.1.2.1): so each
    begins as a whole frame would. Raises StreamError where intervals are no whole rows.
    """
    pos, interval, ends = 2, 0, iter(info.scan_ends)
    tables: dict[int, bytes] = {}
    identifiers: tuple[int, ...] = ()
    for _ in range(_SEGMENTS_MAX):
        if pos + 4 > len(frame) or frame[pos] != 0xFF:
            return
        marker, length = frame[pos + 1], unpack_from(">H", frame, pos + 2)[0]
        if marker == 0xFF or marker in _PARAMETERLESS:
            pos += 1 if marker == 0xFF else 2
            continue
        body = frame[pos + 4 : pos + 2 + length]
        pos += 2 + length
        if marker == _DHT:
            tables |= _huffman_tables(body)
        elif marker == _DRI and len(body) >= 2:
            interval = unpack_from(">H", body)[0]
        elif marker == _SOF_LOSSLESS:
            identifiers = _frame_header(marker, body).identifiers
        elif marker == _SOS:
            start, pos = pos, next(ends)
            if interval % info.columns:
                raise StreamError("restart intervals that are no whole rows")
            rows = interval // info.columns or info.rows
            data = _RESTART.split(frame[start:pos])
            yield from _intervals(data, body, info, step=rows, tables=tables, names=identifiers)
        elif marker not in _BETWEEN_SCANS:
            return
    raise StreamError("too many JPEG marker segments")


def _huffman_tables(body: bytes) -> dict[int, bytes]:
    """Return the tables of one DHT segment by their number, without it (10918-1 B.2.4.2)."""
    found, at = {}, 0
    while at + 17 <= len(body):
        stop = at + 17 + sum(body[at + 1 : at + 17])
        found[body[at]] = body[at + 1 : stop]
        at = stop
    return found


def _intervals(
    data: Sequence[bytes],
    scan: bytes,
    info: StreamInfo,
    *,
    step: int,
    tables: Mapping[int, bytes],
    names: tuple[int, ...],
) -> Iterator[LosslessPart]:
    """Yield the restart intervals of one scan, ``step`` rows each. ``names``: the frame's."""
    count = scan[0]
    chosen = [scan[1 + 2 * i] for i in range(count)]
    if len(data) != -(-info.rows // step) or not set(chosen) <= set(names):
        raise StreamError("a scan that does not fit its frame header")
    shift = scan[3 + 2 * count] & 0x0F
    numbers = [scan[2 + 2 * i] >> 4 for i in range(count)]
    if not set(numbers) <= tables.keys():
        raise StreamError("a scan whose Huffman table is missing")
    begin = _SOI + b"".join(
        _segment(_DHT, bytes([i]) + tables[number]) for i, number in enumerate(numbers)
    )
    head = bytes([count]) + b"".join(bytes([name, i << 4]) for i, name in enumerate(chosen))
    head += scan[1 + 2 * count : 3 + 2 * count] + b"\0"  # no point transform any more
    components = b"".join(bytes([name, 0x11, 0]) for name in chosen)
    for number, coded in enumerate(data):
        rows = min(step, info.rows - number * step)
        size = pack(">BHHB", info.precision - shift, rows, info.columns, count) + components
        stream = begin + _segment(_SOF_LOSSLESS, size) + _segment(_SOS, head)
        places = tuple(names.index(name) for name in chosen)
        yield LosslessPart(stream + coded + _EOI, number * step, rows, places, shift)


def _segment(marker: int, body: bytes) -> bytes:
    return pack(">BBH", 0xFF, marker, len(body) + 2) + body


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
