"""Headers of code streams, marker by marker: nothing in these streams can be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

import pytest

from bridge.dicom import codestream
from bridge.dicom.codestream import (
    StreamError,
    StreamInfo,
    another_follows,
    bare_code_stream,
    bare_jpeg_xl,
    holds_jpeg,
    inspect,
    looks_like_rle,
    sniff_family,
    tile_parts_end,
)
from bridge.dicom.jpeg_xl_header import JpegXlHeader, jpeg_xl_size, read_jpeg_xl_header
from bridge.dicom.syntaxes import Family

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
CODED = b"\x12\xff\0\x34"
"""Entropy-coded bytes of DCT and lossless; in JPEG-LS a zero bit follows FF."""
DCT, LOSSLESS, LS = 0xC0, 0xC3, 0xF7


def segment(marker: int, body: bytes = b"") -> bytes:
    return pack(">BBH", 0xFF, marker, len(body) + 2) + body


def sof(
    marker: int, names: Sequence[int] = (1,), *, precision: int = 8, sampling: Sequence[int] = ()
) -> bytes:
    """A frame of 7 rows and 5 columns."""
    body = pack(">BHHB", precision, 7, 5, len(names))
    for i, name in enumerate(names):
        body += bytes([name, sampling[i] if sampling else 0x11, 0])
    return segment(marker, body)


def sos(
    names: Sequence[int] = (1,),
    *,
    tables: Sequence[int] = (),
    first: int = 1,
    stop: int = 0,
    last: int = 0,
) -> bytes:
    """A scan. ``first``: predictor, NEAR, or the first coefficient of a progressive DCT, which
    goes to ``stop``; ``last``: Ah and Al, or the point transform."""
    body = bytes([len(names)])
    for i, name in enumerate(names):
        body += bytes([name, tables[i] if tables else 0])
    return segment(0xDA, body + bytes([first, stop, last])) + CODED


def passes(
    names: Sequence[int] = (1,), *, first: int = 0, stop: int = 63, bits: Sequence[int] = (0,)
) -> bytes:
    """Scans of a progressive DCT, one for each component and each of ``bits`` (Ah and Al)."""
    return b"".join(sos((n,), first=first, stop=stop, last=b) for b in bits for n in names)


def told(stream: bytes) -> StreamInfo:
    return inspect(stream, Family.JPEG_DCT)


def refusal(stream: bytes, family: Family = Family.JPEG_DCT) -> str:
    with pytest.raises(StreamError) as caught:
        inspect(stream, family)
    return str(caught.value)


# --- JPEG: which process ---


@pytest.mark.parametrize(
    ("marker", "family", "progressive", "lossy"),
    [
        (0xC0, Family.JPEG_DCT, False, True),
        (0xC1, Family.JPEG_DCT, False, True),
        (0xC2, Family.JPEG_DCT, True, True),
        (0xC3, Family.JPEG_LOSSLESS, False, False),
        (0xF7, Family.JPEG_LS, False, False),
    ],
)
def test_processes(marker: int, family: Family, progressive: bool, lossy: bool) -> None:
    near = 0 if marker == LS else 1
    scan = passes() if progressive else sos(first=near)
    info = told(SOI + sof(marker, precision=12) + scan + EOI)

    assert (info.family, info.progressive, info.lossy) == (family, progressive, lossy)
    assert (info.rows, info.columns, info.samples, info.precision) == (7, 5, 1, 12)
    assert info.header_at == 2
    assert info.complete
    assert not any((info.subsampled, info.restarts, info.several_tables, info.followed))
    assert info.colour == ""


@pytest.mark.parametrize("marker", [0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_processes_that_are_not_decoded(marker: int) -> None:
    """Hierarchical and arithmetic (ISO 10918-1 table B.1)."""
    assert f"FF{marker:02X} " in refusal(SOI + sof(marker) + sos() + EOI)


def test_headers_that_contradict() -> None:
    assert "second JPEG frame header" in refusal(SOI + sof(DCT) + sof(LOSSLESS) + sos())
    assert "without a frame header" in refusal(SOI + sos())
    assert "end before a scan begins" in refusal(SOI + sof(DCT))
    assert "end before a scan begins" in refusal(SOI + sof(DCT) + b"\0\0\0\0\0")
    assert "without components" in refusal(SOI + sof(DCT, ()) + sos())
    assert "mrfx" in refusal(SOI + segment(0xE8, b"mrfx\1") + sof(LS) + sos(first=0))
    assert told(SOI + segment(0xE8, b"mrfx\0") + sof(LS) + sos(first=0) + EOI).samples == 1
    assert told(SOI + segment(0xE8, b"mrfx") + sof(LS) + sos(first=0) + EOI).samples == 1


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_frame_header_that_is_cut_off(cut: int) -> None:
    body = sof(DCT)[4:-cut]
    assert "frame header is cut off" in refusal(SOI + segment(DCT, body) + sos())


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_scan_header_that_is_cut_off(cut: int) -> None:
    body = bytes([1, 1, 0, 1, 0, 0])[:-cut]
    assert "scan header is cut off" in refusal(SOI + sof(DCT) + segment(0xDA, body))


# --- JPEG: several scans ---

NAMES = (1, 2, 3)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_largest_loss_of_three_scans_counts(at: int) -> None:
    values = [2 if i == at else 0 for i in range(3)]
    ls = SOI + sof(LS, NAMES) + b"".join(
        sos((n,), first=v) for n, v in zip(NAMES, values, strict=True)
    ) + EOI  # fmt: skip
    assert told(ls).lossy
    assert told(ls).point_transform == 0
    lossless = SOI + sof(LOSSLESS, NAMES) + b"".join(
        sos((n,), last=v) for n, v in zip(NAMES, values, strict=True)
    ) + EOI  # fmt: skip
    info = told(lossless)
    assert (info.lossy, info.point_transform) == (True, 2)
    dct = SOI + sof(0xC2, NAMES) + b"".join(
        passes((n,), bits=(v, v << 4)) for n, v in zip(NAMES, values, strict=True)
    ) + EOI  # fmt: skip
    assert told(dct).point_transform == 0  # there it is a pass of the progression


def test_only_the_low_half_is_a_point_transform() -> None:
    assert told(SOI + sof(LOSSLESS) + sos(last=0x30) + EOI).point_transform == 0
    assert told(SOI + sof(LOSSLESS) + sos(last=0x0F) + EOI).point_transform == 15


@pytest.mark.parametrize("tables", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_tables_of_one_scan(tables: tuple[int, ...]) -> None:
    tables = tuple(t << 4 for t in tables)
    mixed = len(set(tables)) > 1
    stream = SOI + sof(LOSSLESS, NAMES) + sos(NAMES, tables=tables) + EOI
    assert told(stream).several_tables is mixed
    alone = SOI + sof(LOSSLESS, NAMES) + b"".join(
        sos((n,), tables=(t,)) for n, t in zip(NAMES, tables, strict=True)
    ) + EOI  # fmt: skip
    assert not told(alone).several_tables
    assert not told(SOI + sof(DCT, NAMES) + sos(NAMES, tables=tables) + EOI).several_tables


BETWEEN = (0xC4, 0xDB, 0xDC, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0))


@pytest.mark.parametrize("marker", [*BETWEEN, 0xC0, 0xC8, 0xF0, 0xD8, 0xD9])
def test_what_may_lie_between_scans(marker: int) -> None:
    """Tables, restart intervals, comments and application data; anything else ends the image."""
    stream = SOI + sof(LOSSLESS, NAMES) + sos((1,)) + segment(marker, b"\0\0")
    first = len(stream) - 6
    middle = stream + sos((2,))
    stream = middle + sos((3,)) + EOI
    if marker in BETWEEN:
        assert told(stream).scan_ends == (first, len(middle), len(stream) - 2)
    else:
        assert "each component once" in refusal(stream)


def test_scans_are_bounded() -> None:
    head = SOI + sof(0xC2)
    assert len(told(head + passes() * 1024 + EOI).scan_ends) == 1024
    assert "more than 1024 JPEG scans" in refusal(head + passes() * 1025 + EOI)


THREE_SCANS = [sos((n,), first=0) for n in NAMES]


@pytest.mark.parametrize("marker", [DCT, LOSSLESS, LS])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_component_without_a_scan_or_with_two(marker: int, at: int) -> None:
    """libjpeg makes grey of a component that no scan holds, CharLS takes scans as they come."""
    head = SOI + sof(marker, NAMES)
    assert told(head + b"".join(THREE_SCANS) + EOI).samples == 3
    without = [scan for i, scan in enumerate(THREE_SCANS) if i != at]
    assert "each component once" in refusal(head + b"".join(without) + EOI)
    twice = [*THREE_SCANS, THREE_SCANS[at]]
    assert "each component once" in refusal(head + b"".join(twice) + EOI)
    instead = list(THREE_SCANS)
    instead[at] = THREE_SCANS[at - 1]
    assert "each component once" in refusal(head + b"".join(instead) + EOI)


@pytest.mark.parametrize("marker", [DCT, LOSSLESS, LS])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_scan_of_a_component_that_is_not_there(marker: int, at: int) -> None:
    names = [9 if i == at else n for i, n in enumerate(NAMES)]
    scans = b"".join(sos((n,), first=0) for n in names)
    assert "does not name" in refusal(SOI + sof(marker, NAMES) + scans + EOI)
    assert "does not name" in refusal(SOI + sof(marker, NAMES) + sos(names, first=0) + EOI)


@pytest.mark.parametrize("names", [(2, 1, 3), (1, 3, 2), (3, 2, 1)])
def test_components_in_another_order(names: Sequence[int]) -> None:
    """libjpeg looks at the component that a scan names, CharLS does not."""
    alone = b"".join(sos((n,), first=0) for n in names) + EOI
    together = sos(names, first=0) + EOI
    for scans in (alone, together):
        assert "another order" in refusal(SOI + sof(LS, NAMES) + scans)
        assert told(SOI + sof(LOSSLESS, NAMES) + scans).samples == 3
        assert told(SOI + sof(DCT, NAMES) + scans).samples == 3


@pytest.mark.parametrize("marker", [DCT, LOSSLESS])
def test_components_of_one_identifier(marker: int) -> None:
    """One scan can hold them only in their order. For several, libjpeg fills the first only."""
    names = (7, 7, 7)
    head = SOI + sof(marker, names)
    assert told(head + sos(names, first=0) + EOI).samples == 3
    scans = b"".join(sos((7,), first=0) for _ in names)
    assert "one identifier" in refusal(head + scans + EOI)
    assert told(SOI + sof(LS, names) + scans + EOI).samples == 3  # CharLS counts them


@pytest.mark.parametrize("name", NAMES)
def test_the_passes_of_a_progressive_jpeg_are_complete(name: int) -> None:
    """A last pass that is missing was cut off: the samples of the others are only near."""
    head = SOI + sof(0xC2, NAMES) + sos(NAMES, first=0, last=1)
    others = tuple(n for n in NAMES if n != name)
    rest = passes(others, first=1, bits=(2, 0x21, 0x10)) + passes(others, stop=0, bits=(0x10,))
    low, high = passes((name,), first=1, stop=5), passes((name,), first=6)
    dc = passes((name,), stop=0, bits=(0x10,))
    assert told(head + rest + dc + low + high + EOI).progressive
    for lacking in (dc + low, dc + high, low + high, dc + passes((name,), first=1, bits=(1,))):
        assert "last passes" in refusal(head + rest + lacking + EOI)
    assert "each component once" in refusal(SOI + sof(0xC2, NAMES) + passes(others) + EOI)


@pytest.mark.parametrize("marker", [0x01, *range(0xD0, 0xD8)])
@pytest.mark.parametrize("fill", [0, 1, 3])
def test_markers_without_a_length(marker: int, fill: int) -> None:
    between = b"\xff" * fill + bytes([0xFF, marker])
    stream = SOI + between + sof(LOSSLESS) + between + sos() + EOI
    info = told(stream)
    assert info.header_at == 2 + fill + 2
    assert info.scan_ends == (len(stream) - 2,)


def intervals(count: int) -> bytes:
    """What follows the first of that many restart intervals."""
    return b"".join(bytes([0xFF, 0xD0 + i % 8, 0x12]) for i in range(count - 1))


@pytest.mark.parametrize(("interval", "count"), [(0, 1), (1, 35), (4, 9), (35, 1), (256, 1)])
def test_restart_intervals(interval: int, count: int) -> None:
    """The frame has 35 samples; in a scan of one component each is a unit."""
    dri, restarts = segment(0xDD, pack(">H", interval)), interval > 0
    scan = sos() + intervals(count)
    stream = SOI + sof(LOSSLESS) + dri + scan + EOI
    assert told(stream).restarts is restarts
    assert told(stream).scan_ends == (len(stream) - 2,)
    off = segment(0xDD, b"\0\0")
    two = SOI + sof(LOSSLESS, (1, 2)) + dri + scan + off + sos((2,)) + EOI
    assert told(two).restarts is restarts
    wrong = SOI + sof(LOSSLESS) + dri + sos() + intervals(count + 1) + EOI
    assert f"{count + 1} JPEG restart intervals, not {count}" in refusal(wrong)
    # Some writers put a marker behind the last one.
    assert told(stream[:-2] + bytes([0xFF, 0xD0 + (count - 1) % 8]) + EOI).complete
    if count > 1:
        ls = SOI + sof(LS) + dri + sos(first=0) + intervals(count) + EOI
        assert told(ls).scan_ends == (len(ls) - 2,)


def test_what_ends_a_scan_of_jpeg_ls() -> None:
    """A byte below 80 behind FF is coded data there, and a marker in the others."""
    data = b"\xff\x7f\x01\xff\x01"
    for marker, end in ((LS, len(data)), (LOSSLESS, 0), (DCT, 0)):
        head = SOI + sof(marker) + sos(first=0)
        assert told(head + data + EOI).scan_ends[0] == len(head) + end


@pytest.mark.parametrize("marker", [DCT, LOSSLESS, LS])
def test_the_end_marker_and_what_follows(marker: int) -> None:
    stream = SOI + sof(marker) + sos(first=0)
    assert not told(stream).complete
    assert told(stream + EOI).complete
    assert not told(stream + EOI + b"\0\0\0\0").followed
    assert told(stream + EOI + b"\0" + SOI + b"\xff").followed
    assert not told(stream + EOI + b"\0" + SOI + b"\0").followed
    assert another_follows(b"", told(stream + EOI + SOI + b"\xff"))
    # In a comment before the scan it is none.
    inside = SOI + segment(0xFE, EOI) + sof(marker) + sos(first=0)
    assert not told(inside).complete


# --- JPEG: colour ---

JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
RGB = (82, 71, 66)


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + pack(">HHHB", 100, 0, 0, transform))


@pytest.mark.parametrize(
    ("marker", "markers", "names", "sampling", "colour"),
    [
        (DCT, b"", NAMES, (), ""),
        (DCT, JFIF, NAMES, (), "ybr"),
        (DCT, adobe(0), NAMES, (), "rgb"),
        (DCT, adobe(1), NAMES, (), "ybr"),
        (DCT, adobe(2), NAMES, (), "conflict"),
        (DCT, adobe(0) + adobe(1), NAMES, (), "conflict"),
        (DCT, adobe(1) + adobe(0), NAMES, (), "conflict"),
        (DCT, adobe(1) + adobe(1), NAMES, (), "ybr"),
        (DCT, b"", RGB, (), "rgb"),
        (DCT, b"", RGB[::-1], (), ""),
        (DCT, JFIF, RGB, (), "conflict"),
        (DCT, JFIF + adobe(0), NAMES, (), "conflict"),
        (DCT, JFIF + adobe(1), NAMES, (), "ybr"),
        (DCT, adobe(1), RGB, (), "conflict"),
        (DCT, adobe(0), RGB, (), "rgb"),
        (DCT, b"", NAMES, (0x21, 0x11, 0x11), "ybr"),
        (DCT, adobe(0), NAMES, (0x21, 0x11, 0x11), "rgb"),
        (DCT, segment(0xE0, b"JFXX\0"), NAMES, (), ""),
        (DCT, segment(0xEE, b"Adobe" + bytes(6)), NAMES, (), ""),  # a byte too short
        (DCT, segment(0xEE, b"Adobf" + bytes(7)), NAMES, (), ""),
        (LOSSLESS, JFIF, NAMES, (), ""),
        (LS, JFIF, NAMES, (), ""),
        (LOSSLESS, adobe(1), NAMES, (), "ybr"),
        (LOSSLESS, adobe(0), NAMES, (), "rgb"),
        (DCT, JFIF, (1,), (), ""),
        (DCT, adobe(2), (1, 2, 3, 4), (), ""),
    ],
)
def test_what_markers_say_of_colour(
    *, marker: int, markers: bytes, names: tuple[int, ...], sampling: tuple[int, ...], colour: str
) -> None:
    info = told(SOI + markers + sof(marker, names, sampling=sampling) + sos(names, first=0) + EOI)
    assert info.colour == colour
    assert info.subsampled is bool(sampling)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_any_component_may_be_subsampled(at: int) -> None:
    sampling = tuple(0x12 if i == at else 0x11 for i in range(3))
    assert told(SOI + sof(DCT, NAMES, sampling=sampling) + sos(NAMES) + EOI).subsampled


# --- JPEG 2000 ---


def j2k(
    count: int = 3,
    *,
    depths: Sequence[int] = (),
    sampling: Sequence[tuple[int, int]] = (),
    transform: int = 0,
    kernel: int = 1,
    extra: bytes = b"",
    parts: Sequence[bytes] = (b"",),
) -> bytes:
    """A code stream of 5 columns and 7 rows with ``extra`` in its header, and its tile parts."""
    components = b"".join(
        bytes([depths[i] if depths else 7, *(sampling[i] if sampling else (1, 1))])
        for i in range(count)
    )
    size = pack(">HIIIIIIII", 0, 15, 27, 10, 20, 15, 27, 10, 20) + pack(">H", count) + components
    style = bytes([0, 0, 0, 1, transform, 0, 4, 4, 0, kernel])
    out = b"\xff\x4f" + segment(0x51, size) + segment(0x52, style) + extra
    for number, header in enumerate(parts):
        body = header + b"\xff\x93" + b"packets"
        out += pack(">HHHIBB", 0xFF90, 10, 0, 12 + len(body), number, len(parts)) + body
    return out + EOI


def described(stream: bytes) -> StreamInfo:
    return inspect(stream, Family.J2K)


def test_a_jpeg_2000_header() -> None:
    info = described(j2k())
    assert (info.family, info.rows, info.columns, info.samples) == (Family.J2K, 7, 5, 3)
    assert (info.precision, info.signed, info.lossy) == (8, False, None)
    assert (info.subsampled, info.transformed, info.complete) == (False, False, True)
    assert info.header_at == len(j2k(parts=())) - 2
    assert described(j2k(depths=(0x8B,) * 3)).signed
    assert described(j2k(depths=(0x8B,) * 3)).precision == 12


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("pair", [(2, 1), (1, 2), (2, 2)])
def test_a_component_of_another_size(at: int, pair: tuple[int, int]) -> None:
    sampling = [pair if i == at else (1, 1) for i in range(3)]
    assert described(j2k(sampling=sampling)).subsampled


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("depth", [8, 0x87])
def test_a_component_of_another_precision_or_sign(at: int, depth: int) -> None:
    depths = [depth if i == at else 7 for i in range(3)]
    assert "different precision or sign" in refusal(j2k(depths=depths), Family.J2K)


@pytest.mark.parametrize("kernel", [0, 1])
def test_the_kernel(kernel: int) -> None:
    assert described(j2k(kernel=kernel)).lossy is (None if kernel else True)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_component_transform(count: int) -> None:
    """Of three components or more."""
    assert described(j2k(count, transform=1)).transformed is (count >= 3)
    assert "Part 2" in refusal(j2k(count, transform=2), Family.J2K)


@pytest.mark.parametrize("count", [255, 256, 257, 300])
@pytest.mark.parametrize("kernel", [0, 1])
def test_the_kernel_of_one_component(count: int, kernel: int) -> None:
    """Its number has two bytes from 257 components on (15444-1 A.6.2)."""
    name = pack(">H", 5) if count > 256 else b"\5"
    style = bytes([0, 4, 4, 4, 0, kernel])  # Scoc, then what COD says of a component
    # The byte behind the kernel, and the one before it, are the other kernel's number.
    coc = segment(0x53, name + style + bytes([1 - kernel]))
    assert described(j2k(count, extra=coc)).lossy is (None if kernel else True)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_tile_part_of_three_with_a_style_of_its_own(at: int) -> None:
    style = segment(0x52, bytes([0, 0, 0, 1, 0, 0, 4, 4, 0, 0]))
    comment = segment(0x64, b"\0\1hello")
    parts = [comment + style if i == at else comment for i in range(3)]
    assert described(j2k(parts=parts)).lossy
    other = segment(0x52, bytes([0, 0, 0, 1, 1, 0, 4, 4, 0, 1]))
    parts = [other if i == at else b"" for i in range(3)]
    assert "with and without a component transform" in refusal(j2k(parts=parts), Family.J2K)


def test_tile_parts_that_are_missing() -> None:
    """OpenJPEG fills a tile that is missing with black."""
    stream = j2k(parts=(b"",) * 3)
    first = described(stream).header_at
    size = (len(stream) - 2 - first) // 3
    parts = [stream[first + i * size :][:size] for i in range(3)]

    def of(*chosen: bytes) -> bytes:
        return stream[:first] + b"".join(chosen) + EOI

    assert described(of(*parts)).complete
    for i, what in enumerate(("follow each other", "follow each other", "not all of their parts")):
        assert what in refusal(of(*parts[:i], *parts[i + 1 :]), Family.J2K)
    assert "follow each other" in refusal(of(parts[0], *parts), Family.J2K)
    # How many there are may not be said, or be said wrongly.
    for said in (0, 1, 2):
        assert described(of(*(part[:11] + bytes([said]) + part[12:] for part in parts))).complete
    another = b"\xff\x90\0\x0a\0\1"
    assert "2 JPEG 2000 tiles, not 1" in refusal(of(*parts, another + parts[0][6:]), Family.J2K)
    assert "0 JPEG 2000 tiles" in refusal(j2k(parts=()), Family.J2K)
    for at, value in ((24, 0), (28, 0), (32, 15), (36, 27)):  # the tiles' size and place
        odd = stream[:at] + pack(">I", value) + stream[at + 4 :]
        assert "without tiles" in refusal(odd, Family.J2K)


@pytest.mark.parametrize("marker", range(0x6F, 0x7B))
def test_marker_segments_of_part_2(marker: int) -> None:
    """FF70 to FF79, in the header and in any tile part."""
    added = segment(marker, b"\0\0")
    streams = [j2k(extra=added)]
    streams += [j2k(parts=[added if i == at else b"" for i in range(3)]) for at in range(3)]
    for stream in streams:
        if 0x70 <= marker <= 0x79:
            assert f"Part 2 (FF{marker:02X})" in refusal(stream, Family.J2K)
        else:
            assert described(stream).samples == 3


@pytest.mark.parametrize(("bits", "high"), [(0x20000, True), (0x1FFFF, False), (0xFFFFFFFF, True)])
def test_high_throughput(bits: int, high: bool) -> None:
    """Bit 14 of Pcap, counted from the left: Part 15."""
    info = described(j2k(extra=segment(0x50, pack(">I", bits) + b"\0\0")))
    assert info.family is (Family.HTJ2K if high else Family.J2K)


def test_headers_of_jpeg_2000_that_are_cut_off() -> None:
    stream = j2k()
    assert "no JPEG 2000 code stream" in refusal(stream[:41], Family.J2K)
    assert "image header is cut off" in refusal(stream[:50], Family.J2K)
    assert "image header is cut off" in refusal(j2k(0) + bytes(100), Family.J2K)
    plain = stream.replace(segment(0x52, stream[stream.index(b"\xff\x52") + 4 :][:10]), b"")
    assert "without coding style" in refusal(plain, Family.J2K)


def test_where_tile_parts_end() -> None:
    parts = (b"", segment(0x64, b"\0\1hello"), b"")
    stream = j2k(parts=parts)
    start = described(stream).header_at
    assert tile_parts_end(stream, start) == len(stream) - 2
    assert tile_parts_end(stream + bytes(50), start) == len(stream) - 2
    for cut in (3, 4, 9):
        with pytest.raises(StreamError, match="cut short"):
            tile_parts_end(stream[:-cut], start)
    for length in (0, 11):
        broken = stream[: start + 6] + pack(">I", length) + stream[start + 10 :]
        with pytest.raises(StreamError, match="without length"):
            tile_parts_end(broken, start)


def test_a_second_jpeg_2000_image() -> None:
    stream = j2k()
    info = described(stream)
    assert not another_follows(stream, info)
    assert another_follows(stream + stream, info)
    assert not another_follows(stream + stream[:39], info)
    assert not another_follows(stream + b"\xff\x4f\xff\x51" + bytes(60), info)
    boxed = b"\0\0\0\x0cjP  \r\n\x87\n" + stream
    info = described(boxed)
    assert info.box
    assert info.header_at == 12 + described(stream).header_at
    assert not another_follows(boxed, info)
    assert another_follows(boxed + boxed, info)
    assert bare_code_stream(boxed) == stream
    assert bare_code_stream(stream) == stream
    assert bare_code_stream(b"neither") == b"neither"


# --- signatures ---


@pytest.mark.parametrize(
    ("head", "family"),
    [
        (b"\xff\xd8\xff", Family.JPEG_DCT),
        (b"\xff\xd8\0", Family.NONE),
        (b"\xff\x4f\xff\x51", Family.J2K),
        (b"\xff\x4f\xff\x52", Family.NONE),
        (b"\0\0\0\x0cjP  \r\n\x87\n", Family.J2K),
        (b"\0\0\0\x0cjP  \r\n\x87\r", Family.NONE),
        (b"\xff\x0a", Family.JPEG_XL),
        (b"\0\0\0\x0cJXL \r\n\x87\n", Family.JPEG_XL),
        (b"\0\0\0\x0cJXL \r\n\x87\r", Family.NONE),
        (pack("<II", 1, 64), Family.RLE),
        (b"", Family.NONE),
    ],
)
def test_signatures(head: bytes, family: Family) -> None:
    assert sniff_family(head + bytes(4)) is family
    assert bare_jpeg_xl(head) is (head == b"\xff\x0a")


def test_headers_of_rle() -> None:
    for count in range(18):
        assert looks_like_rle(pack("<II", count, 64)) is (1 <= count <= 15)
    assert not looks_like_rle(pack("<II", 257, 64))
    assert not looks_like_rle(pack("<II", 1, 65))
    assert not looks_like_rle(pack("<II", 1, 64 + 256))
    assert not looks_like_rle(pack("<II", 1, 64)[:7])


# --- JPEG XL ---

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"


def box(name: bytes, body: bytes) -> bytes:
    return pack(">I4s", 8 + len(body), name) + body


@pytest.mark.parametrize("at", [0, 1, 2, None])
def test_a_box_with_what_restores_a_jpeg(at: int | None) -> None:
    boxes = [box(b"jbrd" if i == at else b"jxlc", b"a" * i) for i in range(3)]
    assert holds_jpeg(CONTAINER + b"".join(boxes)) is (at is not None)
    assert not holds_jpeg(b"\xff\x0a" + b"".join(boxes))
    assert not holds_jpeg(CONTAINER + pack(">I4s", 0, b"jxlc") + box(b"jbrd", b""))


def bits(*fields: tuple[int, int]) -> bytes:
    """Values and their widths, lowest bit first, as JPEG XL packs them (18181-1 B.2)."""
    value, at = 0, 0
    for number, width in fields:
        value |= number << at
        at += width
    return value.to_bytes((at + 7) // 8 + 2, "little")


@pytest.mark.parametrize(
    ("ratio", "columns"),
    [(1, 120), (2, 144), (3, 160), (4, 180), (5, 213), (6, 150), (7, 240)],
)
def test_columns_by_their_ratio_to_the_rows(ratio: int, columns: int) -> None:
    """18181-1 table D.2, of 120 rows."""
    for size in (((1, 1), (14, 5)), ((0, 1), (0, 2), (119, 9))):
        head = b"\xff\x0a" + bits(*size, (ratio, 3), (1, 1))
        assert jpeg_xl_size(head) == (120, columns)
        assert read_jpeg_xl_header(head) == JpegXlHeader(120, columns, 1, xyb=True)


@pytest.mark.parametrize(("selector", "width"), [(0, 9), (1, 13), (2, 18), (3, 30)])
def test_sides_of_each_width(selector: int, width: int) -> None:
    for side in (1, 1 << width):
        head = b"\xff\x0a" + bits(
            (0, 1), (selector, 2), (side - 1, width), (0, 3), (selector, 2), (4, width), (1, 1)
        )
        assert jpeg_xl_size(head) == (side, 5)
    assert jpeg_xl_size(b"\xff\x0a" + bits((1, 1), (31, 5), (0, 3), (0, 5))) == (256, 8)
    assert jpeg_xl_size(b"\xff\x0a" + b"\xff") is None


SIZE = ((1, 1), (0, 5), (0, 3), (1, 5))
"""8 rows, 16 columns."""
DEPTH = ((0, 1), (0, 2))
"""Whole numbers of 8 bits."""


@pytest.mark.parametrize("xyb", [0, 1])
@pytest.mark.parametrize(
    "depth",
    [
        DEPTH,
        ((0, 1), (1, 2)),
        ((0, 1), (2, 2)),
        ((0, 1), (3, 2), (15, 6)),
        ((1, 1), (0, 2), (7, 4)),
        ((1, 1), (3, 2), (15, 6), (7, 4)),
    ],
)
def test_whether_colour_is_in_xyb(xyb: int, depth: tuple[tuple[int, int], ...]) -> None:
    start = (*SIZE, (0, 1))
    end = ((1, 1), (0, 2), (xyb, 1))
    plain = bits(*start, (0, 1), *depth, *end)
    assert read_jpeg_xl_header(b"\xff\x0a" + plain) == JpegXlHeader(8, 16, 1, xyb=bool(xyb))
    for orientation in range(1, 9):
        turned = bits(*start, (1, 1), (orientation - 1, 3), (0, 3), *depth, *end)
        sized = bits(*start, (1, 1), (orientation - 1, 3), (1, 1), *SIZE, (0, 2), *depth, *end)
        for head in (turned, sized):
            found = read_jpeg_xl_header(b"\xff\x0a" + head)
            assert found == JpegXlHeader(8, 16, orientation, xyb=bool(xyb))
    for turned_by, shape in ((4, (8, 16)), (5, (16, 8))):
        head = bits(*start, (1, 1), (turned_by - 1, 3), (0, 3), *depth, *end)
        info = inspect(b"\xff\x0a" + head + bytes(16), Family.JPEG_XL)
        assert (info.rows, info.columns) == shape
        assert (info.transformed, info.lossy) == (bool(xyb), bool(xyb) or None)


@pytest.mark.parametrize("flags", [(1, 0), (0, 1)])
def test_what_is_not_read_further(flags: tuple[int, int]) -> None:
    """A preview, an animation, extra channels: whether colour is in XYB is not known."""
    used = [(flag, 1) for flag in flags][: 1 if flags[0] else 2]
    head = bits(*SIZE, (0, 1), (1, 1), (2, 3), (0, 1), *used)
    assert read_jpeg_xl_header(b"\xff\x0a" + head) == JpegXlHeader(8, 16, 3)
    channels = bits(*SIZE, (0, 1), (0, 1), *DEPTH, (1, 1), (1, 2), (1, 1))
    assert read_jpeg_xl_header(b"\xff\x0a" + channels) == JpegXlHeader(8, 16, 1)


def test_a_code_stream_in_boxes() -> None:
    stream = b"\xff\x0a" + bits(*SIZE, (1, 1)) + bytes(100)
    wanted = JpegXlHeader(8, 16, 1, xyb=True)
    long_box = pack(">I4sQ", 1, b"jxlc", 16 + len(stream)) + stream
    parts = [box(b"jxlp", pack(">I", i) + stream[i : i + 1]) for i in range(3)]
    for boxes in (
        box(b"jxlc", stream),
        box(b"Exif", bytes(40)) + box(b"jxlc", stream),
        long_box,
        box(b"Exif", bytes(40)) + long_box,
        pack(">I4s", 0, b"jxlc") + stream,
        b"".join(parts) + box(b"jxlp", pack(">I", 0x80000003) + stream[3:]),
    ):
        assert read_jpeg_xl_header(CONTAINER + boxes) == wanted
    assert read_jpeg_xl_header(CONTAINER + pack(">I4s", 7, b"jxlc") + stream) is None
    assert read_jpeg_xl_header(CONTAINER) is None
    assert "cut off" in refusal(b"\xff\x0a\xff", Family.JPEG_XL)


def test_the_bounds() -> None:
    assert codestream._SCANS_MAX == 1024
    assert codestream._SEGMENTS_MAX == 100_000
    assert codestream._JP2_HEADER_MAX == 1 << 20
