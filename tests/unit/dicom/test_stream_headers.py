"""What code stream headers say where they contradict each other or stand in a later place."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from struct import pack, unpack_from

import imagecodecs
import numpy as np
import pytest

from bridge.dicom.codestream import StreamError, inspect, lossless_parts
from bridge.dicom.syntaxes import Family
from bridge.errors import InstanceError
from tests.jpeg_2000 import joined, tiled
from tests.jpeg_dct import Flat, blocks, encode_flat
from tests.jpeg_lossless import Lossless, encode, segment
from tests.jpeg_ls import separate_scans
from tests.transcode_cases import (
    HTJ2K,
    J2K,
    JPEG_BASELINE,
    JPEG_LS,
    JPEG_SV1,
    Image,
    compressed_file,
    read,
    run,
)

COLOUR = Image(rows=64, columns=64, samples=3, allocated=8, stored=8, photometric="RGB")
GREY = Image(rows=48, columns=48, allocated=8, stored=8)


def even(stream: bytes) -> bytes:
    return stream + b"\0" * (len(stream) & 1)


def segment_at(stream: bytes, wanted: int) -> tuple[int, int]:
    """Start and end of a segment in the main header of a JPEG 2000 code stream."""
    pos = 2
    while True:
        marker, length = unpack_from(">HH", stream, pos)
        if marker == wanted:
            return pos, pos + 2 + length
        pos += 2 + length


def four_tiles(*, mct: bool) -> bytes:
    """Four tiles, so four tile parts."""
    return tiled(COLOUR.array()[0], 32, mct=mct)


def in_tile(stream: bytes, tile: int, added: bytes) -> bytes:
    """Put a marker segment into the header of one tile part."""
    pos = 0
    for _ in range(tile + 1):
        pos = stream.index(b"\xff\x90\0\x0a", pos + 1)
    (length,) = unpack_from(">I", stream, pos + 6)
    head = stream[: pos + 6] + pack(">I", length + len(added)) + stream[pos + 10 : pos + 12]
    return head + added + stream[pos + 12 :]


def tiles_of(stream: bytes) -> int:
    return stream.count(b"\xff\x90\0\x0a")


def coding_style(stream: bytes, **changes: int) -> bytes:
    start, stop = segment_at(stream, 0xFF52)
    cod = bytearray(stream[start:stop])
    for name, value in changes.items():
        cod[{"transform": 8, "kernel": 13}[name]] = value
    return bytes(cod)


@pytest.mark.parametrize("tile", [0, 1, 3])
@pytest.mark.parametrize("mct", [False, True])
def test_a_tile_with_a_component_transform_of_its_own_is_refused(tile: int, mct: bool) -> None:
    stream = four_tiles(mct=mct)
    assert tiles_of(stream) == 4
    odd = in_tile(stream, tile, coding_style(stream, transform=int(not mct)))

    with pytest.raises(StreamError, match="tiles with and without a component transform"):
        inspect(odd, Family.J2K)
    with pytest.raises(InstanceError):
        run(compressed_file(COLOUR, J2K, [even(odd)]))
    same = in_tile(stream, tile, coding_style(stream))
    assert read(run(compressed_file(COLOUR, J2K, [even(same)]))[0]).PixelData == (
        COLOUR.array().tobytes()
    )
    assert inspect(same, Family.J2K).transformed is mct


@pytest.mark.parametrize("tile", [0, 1, 3])
def test_a_tile_that_is_coded_irreversibly_is_lossy(tile: int) -> None:
    stream = four_tiles(mct=True)
    assert inspect(stream, Family.J2K).lossy is None
    assert inspect(in_tile(stream, tile, coding_style(stream, kernel=0)), Family.J2K).lossy is True
    component = pack(">HHBBBBBBB", 0xFF53, 9, 2, 0, 5, 4, 4, 0, 0)
    assert inspect(in_tile(stream, tile, component), Family.J2K).lossy is True


def test_a_component_that_is_coded_irreversibly_is_lossy() -> None:
    stream = joined([np.ones((48, 48), "u1")] * 3, [(1, 1)] * 3, high=False)
    _, stop = segment_at(stream, 0xFF52)
    component = pack(">HHBBBBBBB", 0xFF53, 9, 1, 0, 5, 4, 4, 0, 0)
    assert inspect(stream[:stop] + component + stream[stop:], Family.J2K).lossy is True
    assert inspect(stream, Family.J2K).lossy is None


@pytest.mark.parametrize("marker", [0xFF70, 0xFF76, 0xFF79])
@pytest.mark.parametrize("tile", [None, 0, 1, 3])
def test_a_marker_segment_of_part_2_is_refused(marker: int, tile: int | None) -> None:
    """DCO, NLT (a curve that OpenJPH obeys and OpenJPEG ignores), ATK."""
    stream = four_tiles(mct=True)
    added = pack(">HHHBB", marker, 6, 0xFFFF, 0x87, 3)
    start, _ = segment_at(stream, 0xFF52)
    main = stream[:start] + added + stream[start:]
    odd = main if tile is None else in_tile(stream, tile, added)
    with pytest.raises(StreamError, match="of JPEG 2000 Part 2"):
        inspect(odd, Family.J2K)
    with pytest.raises(InstanceError):
        run(compressed_file(COLOUR, J2K, [even(odd)]))


def test_the_curve_of_part_2_is_why() -> None:
    """Two decoders read the same stream differently, the deciding one wrongly."""
    signed = np.arange(-800, 800, dtype="<i2").reshape(40, 40)
    stream = bytes(imagecodecs.htj2k_encode(signed))
    start, _ = segment_at(stream, 0xFF52)
    odd = stream[:start] + pack(">HHHBB", 0xFF76, 6, 0xFFFF, 0x8F, 3) + stream[start:]
    assert np.array_equal(imagecodecs.htj2k_decode(stream), signed)
    assert not np.array_equal(imagecodecs.htj2k_decode(odd), signed)
    image = Image(rows=40, columns=40, stored=16, signed=True)
    with pytest.raises(InstanceError, match="Part 2"):
        run(compressed_file(image, HTJ2K, [even(odd)]))


def test_a_component_transform_of_part_2_is_refused() -> None:
    stream = four_tiles(mct=True)
    start, stop = segment_at(stream, 0xFF52)
    odd = stream[:start] + coding_style(stream, transform=2) + stream[stop:]
    with pytest.raises(InstanceError, match="Part 2"):
        run(compressed_file(COLOUR, J2K, [even(odd)]))


def test_a_colour_transform_that_jpeg_ls_does_not_have_is_refused() -> None:
    """HP's, which CharLS undoes and others do not."""
    array = COLOUR.array()[0]
    stream = separate_scans([np.ascontiguousarray(array[..., i]) for i in range(3)], 8)
    for transform in (0, 1, 2, 3):
        odd = stream[:2] + segment(0xE8, b"mrfx" + bytes([transform])) + stream[2:]
        source = compressed_file(COLOUR, JPEG_LS, [even(odd)])
        if transform:
            with pytest.raises(InstanceError, match="mrfx"):
                run(source)
        else:
            assert read(run(source)[0]).PixelData == array.tobytes()


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_scans_in_another_order_exchange_no_colours(order: tuple[int, ...]) -> None:
    """CharLS takes the scans as they come, whichever component they name; libjpeg looks."""
    array = COLOUR.array()[0]
    planes = [np.ascontiguousarray(array[..., i]) for i in range(3)]
    stream = separate_scans(planes, 8, order=order)
    exchanged = np.asarray(imagecodecs.jpegls_decode(stream))
    assert np.array_equal(exchanged, array[..., list(order)])  # when this fails, decode them
    with pytest.raises(InstanceError, match="another order"):
        run(compressed_file(COLOUR, JPEG_LS, [even(stream)]))
    lossless = encode(array, Lossless(precision=8, interleaved=False))
    at = [i for i in range(len(lossless)) if lossless[i : i + 2] == b"\xff\xda"]
    scans = [lossless[a:b] for a, b in pairwise([*at, len(lossless) - 2])]
    moved = lossless[: at[0]] + b"".join(scans[i] for i in order) + b"\xff\xd9"
    body, _ = run(compressed_file(COLOUR, JPEG_SV1, [even(moved)]))
    assert read(body).PixelData == array.tobytes()


@pytest.mark.parametrize("progressive", [False, True])
def test_scans_that_were_lost_make_no_grey(progressive: bool) -> None:
    """Cut at the end of a scan, an end marker put behind it: libjpeg tells of nothing."""
    planes = [np.arange(64, dtype=np.uint8).reshape(8, 8) * (i + 1) for i in range(3)]
    stream = encode_flat(planes, 64, 64, Flat(interleaved=False, progressive=progressive))
    image = replace(COLOUR, photometric="YBR_FULL")
    whole = np.stack([blocks(plane) for plane in planes], axis=-1).tobytes()
    assert read(run(compressed_file(image, JPEG_BASELINE, [even(stream)]))[0]).PixelData == whole
    at = [i for i in range(len(stream)) if stream[i : i + 2] == b"\xff\xda"]
    assert len(at) == (6 if progressive else 3)
    for stop in at[1:]:
        cut = stream[:stop] + b"\xff\xd9"
        assert imagecodecs.jpeg8_decode(cut).shape == (64, 64, 3)
        with pytest.raises(InstanceError, match=r"each component once|last passes"):
            run(compressed_file(image, JPEG_BASELINE, [even(cut)]))


@pytest.mark.parametrize("lossless", [False, True])
def test_restart_intervals_that_were_lost_or_exchanged(lossless: bool) -> None:
    """libjpeg goes on with the next one it finds and fills the rest, and tells of nothing."""
    image = Image(rows=96, columns=64, allocated=8, stored=8)
    if lossless:
        array = image.array()[0]
        stream = encode(array, Lossless(precision=8, restart_rows=8))
    else:
        values = image.array()[0][:12, :8]
        array, stream = blocks(values), encode_flat([values], 96, 64, Flat(restart_mcus=8))
    syntax = JPEG_SV1 if lossless else JPEG_BASELINE
    scan = stream.index(b"\xff\xda")
    at = [i for i in range(scan, len(stream)) if stream[i] == 0xFF and 0xD0 <= stream[i + 1] < 0xD8]
    assert len(at) == 11  # twelve intervals: the numbers begin again at 0
    parts = [stream[a:b] for a, b in pairwise([*at, len(stream) - 2])]
    head, end = stream[: at[0]], b"\xff\xd9"
    body, _ = run(compressed_file(image, syntax, [even(stream)]))
    assert read(body).PixelData == array.tobytes()
    one_more = head + b"".join(parts) + b"\xff\xd3" + end
    body, _ = run(compressed_file(image, syntax, [even(one_more)]))
    assert read(body).PixelData == array.tobytes()
    for i in (0, 5, 10):
        lost = head + b"".join([*parts[:i], *parts[i + 1 :]]) + end
        twice = head + b"".join([*parts[: i + 1], *parts[i:]]) + end
        unmarked = head + b"".join([*parts[:i], parts[i][2:], *parts[i + 1 :]]) + end
        for odd in (lost, twice, unmarked):
            assert imagecodecs.jpeg8_decode(odd).shape == (96, 64)
            with pytest.raises(InstanceError, match="restart intervals, not 12"):
                run(compressed_file(image, syntax, [even(odd)]))
    for i in (0, 5, 9):
        swapped = head + b"".join([*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]]) + end
        with pytest.raises(InstanceError, match="do not follow each other"):
            run(compressed_file(image, syntax, [even(swapped)]))
    eight = head + b"".join(parts[8:]) + end
    with pytest.raises(InstanceError, match="4 JPEG restart intervals, not 12"):
        run(compressed_file(image, syntax, [even(eight)]))


@pytest.mark.parametrize("sampling", [(0x22, 0x11, 0x11), (0x21, 0x11, 0x11), (0x12, 0x12, 0x11)])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("size", [(33, 47), (64, 64), (16, 16), (17, 9)])
def test_restart_intervals_of_every_sampling(
    sampling: tuple[int, ...], interleaved: bool, size: tuple[int, int]
) -> None:
    """How many there are follows from the blocks of the scan (10918-1 A.2)."""
    rows, columns = size
    high, wide = max(s & 15 for s in sampling), max(s >> 4 for s in sampling)
    units = blocks_of(rows, high), blocks_of(columns, wide)
    planes = []
    for i, s in enumerate(sampling):
        down, across = s & 15, s >> 4
        alone = blocks_of(rows * down, high), blocks_of(columns * across, wide)
        together = units[0] * down, units[1] * across
        planes.append(np.full(together if interleaved else alone, 70 + i, dtype=np.uint8))
    image = Image(rows, columns, 3, 8, 8, photometric="YBR_FULL")
    for interval in (1, 2, 3, 1000):
        how = Flat(sampling=sampling, restart_mcus=interval, interleaved=interleaved)
        stream = encode_flat(planes, rows, columns, how)
        body, _ = run(compressed_file(image, JPEG_BASELINE, [even(stream)]))
        assert read(body).PixelData[: 3 * rows * columns] == bytes([70, 71, 72]) * rows * columns


def blocks_of(length: int, factor: int) -> int:
    """So many blocks of 8 samples cover ``length`` samples of which each ``factor`` make one."""
    samples = (length + factor - 1) // factor
    return (samples + 7) // 8


@pytest.mark.parametrize("tile", [0, 1, 3])
def test_a_tile_that_was_lost_is_not_black(tile: int) -> None:
    stream = four_tiles(mct=True)
    at = [i for i in range(len(stream)) if stream.startswith(b"\xff\x90\0\x0a", i)]
    stops = [*at[1:], len(stream) - 2]
    assert read(run(compressed_file(COLOUR, J2K, [even(stream)]))[0]).PixelData
    lost = stream[: at[tile]] + stream[stops[tile] :]
    assert not np.asarray(imagecodecs.jpeg2k_decode(lost))[
        32 * (tile // 2) :, 32 * (tile % 2) :
    ][:32, :32].any()  # fmt: skip
    with pytest.raises(InstanceError, match="3 JPEG 2000 tiles, not 4"):
        run(compressed_file(COLOUR, J2K, [even(lost)]))


@pytest.mark.parametrize("family", [Family.JPEG_LOSSLESS, Family.JPEG_LS])
def test_a_code_stream_behind_the_last_scan_is_seen(family: Family) -> None:
    """Also where the first has several scans, comments between them and fill bytes."""
    array = COLOUR.array()[0][:8]
    planes = [np.ascontiguousarray(array[..., i]) for i in range(3)]
    stream = (
        encode(array, Lossless(precision=8, interleaved=False))
        if family is Family.JPEG_LOSSLESS
        else separate_scans(planes, 8)
    )
    second = stream.index(b"\xff\xda", stream.index(b"\xff\xda") + 2)
    comment = segment(0xFE, b"between \xff\xd8\xff scans") + b"\xff\xff"
    commented = stream[:second] + comment + stream[second:]

    alone, twice = (inspect(s, family) for s in (commented, commented + b"\0" + stream))

    assert (len(alone.scan_ends), alone.followed, twice.followed) == (3, False, True)
    image = Image(rows=8, columns=64, samples=3, allocated=8, stored=8, photometric="RGB")
    syntax = JPEG_SV1 if family is Family.JPEG_LOSSLESS else JPEG_LS
    assert read(run(compressed_file(image, syntax, [even(commented)]))[0]).PixelData == (
        array.tobytes()
    )


def test_parts_are_refused_where_they_do_not_fit_the_frame() -> None:
    stream = encode(GREY.array()[0], Lossless(precision=8, restart_rows=2))
    info = inspect(stream, Family.JPEG_LOSSLESS)
    assert [part.row for part in lossless_parts(stream, info)] == list(range(0, 48, 2))
    at = stream.index(b"\xff\xdd") + 4
    for interval, what in ((95, "no whole rows"), (48, "does not fit")):
        odd = stream[:at] + pack(">H", interval) + stream[at + 2 :]
        with pytest.raises(StreamError, match=what):
            list(lossless_parts(odd, info))
    bare = stream.replace(b"\xff\xc4", b"\xff\xfe", 1)
    with pytest.raises(StreamError, match="Huffman table is missing"):
        list(lossless_parts(bare, inspect(bare, Family.JPEG_LOSSLESS)))


@pytest.mark.parametrize("cut", range(1, 60, 3))
def test_a_header_that_is_cut_off_is_a_stream_error(cut: int) -> None:
    for family, stream in (
        (Family.JPEG_LOSSLESS, encode(GREY.array()[0], Lossless(precision=8))),
        (Family.JPEG_LS, separate_scans([GREY.array()[0]], 8)),
        (Family.J2K, four_tiles(mct=True)),
    ):
        try:
            info = inspect(stream[: 16 + cut], family)
        except StreamError:
            continue
        assert not info.complete
