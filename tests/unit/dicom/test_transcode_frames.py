"""Fragments and frames: offset tables, delimiters, end markers; repaired only when whole."""

from __future__ import annotations

import functools
from dataclasses import replace
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pytest

from bridge.errors import InstanceError
from bridge.model import Reason
from tests.transcode_cases import (
    ENCODE,
    HTJ2K,
    J2K,
    JPEG_BASELINE,
    JPEG_LS,
    JPEG_SV1,
    JPEG_XL,
    RLE,
    Image,
    compressed_file,
    encoded_file,
    item,
    run,
    samples,
)

IMAGE = Image(rows=40, columns=36, stored=12, frames=3)
ONE = Image(rows=40, columns=36, stored=12)
DELIMITER = pack("<HHI", 0xFFFE, 0xE0DD, 0)
MARKED = [JPEG_SV1, JPEG_LS, J2K]


def streams(syntax: str, image: Image = IMAGE) -> list[bytes]:
    """Code streams of even length."""
    packed = [ENCODE[syntax](image, frame) for frame in image.array()]
    return [stream + b"\0" * (len(stream) & 1) for stream in packed]


def halves(stream: bytes) -> list[bytes]:
    middle = len(stream) // 4 * 2
    return [stream[:middle], stream[middle:]]


def table(*offsets: int) -> bytes:
    return item(pack(f"<{len(offsets)}I", *offsets))


def delivered(pixel_data: bytes, syntax: str, image: Image = IMAGE, **elements: Any) -> bool:
    """True if all samples are right; raises what the transcoder raises."""
    source = compressed_file(image, syntax, [], pixel_data=pixel_data, **elements)
    return np.array_equal(samples(run(source)[0]), image.array())


def refused(pixel_data: bytes, syntax: str, image: Image = IMAGE, **elements: Any) -> str:
    with pytest.raises(InstanceError) as caught:
        delivered(pixel_data, syntax, image, **elements)
    assert caught.value.reason is Reason.UNDECODABLE
    return caught.value.message


@pytest.mark.parametrize("syntax", [*MARKED, RLE])
@pytest.mark.parametrize("has_bot", [True, False])
def test_with_and_without_a_basic_offset_table(syntax: str, has_bot: bool) -> None:
    source = encoded_file(IMAGE, syntax, has_bot=has_bot)

    assert np.array_equal(samples(run(source)[0]), IMAGE.array())


@pytest.mark.parametrize("syntax", [*MARKED, RLE])
@pytest.mark.parametrize(
    "offsets", [(1, 2, 3), (0, 0, 0), (0, 8, 16), (0,), (9, 8, 7), (0, 99999, 999999)]
)
def test_a_wrong_table_is_ignored_when_one_fragment_is_one_frame(
    syntax: str, offsets: tuple[int, ...]
) -> None:
    assert delivered(table(*offsets) + b"".join(map(item, streams(syntax))), syntax)


@pytest.mark.parametrize("syntax", MARKED)
def test_frames_in_several_fragments_found_by_their_beginnings(syntax: str) -> None:
    fragments = [part for stream in streams(syntax) for part in halves(stream)]

    assert delivered(item(b"") + b"".join(map(item, fragments)), syntax)
    assert delivered(table(0, 4, 8) + b"".join(map(item, fragments)), syntax)


@pytest.mark.parametrize("syntax", [*MARKED, RLE])
def test_frames_in_several_fragments_found_by_the_table(syntax: str) -> None:
    fragments, offsets, position = [], [], 0
    for stream in streams(syntax):
        offsets.append(position)
        for part in halves(stream):
            fragments.append(part)
            position += 8 + len(part)

    assert delivered(table(*offsets) + b"".join(map(item, fragments)), syntax)


@pytest.mark.parametrize("syntax", MARKED)
def test_frames_found_by_the_extended_offset_table(syntax: str) -> None:
    packed = streams(syntax)
    offsets = np.cumsum([0, *(8 + len(stream) for stream in packed[:-1])])
    lengths = [len(stream) for stream in packed]

    assert delivered(
        item(b"") + b"".join(map(item, packed)),
        syntax,
        ExtendedOffsetTable=offsets.astype("<u8").tobytes(),
        ExtendedOffsetTableLengths=np.array(lengths, "<u8").tobytes(),
    )


@pytest.mark.parametrize("with_table", [True, False])
@pytest.mark.parametrize("first", [0, 1, 2, 3, 5, 11, 15])
@pytest.mark.parametrize("syntax", [*MARKED, HTJ2K])
def test_a_first_fragment_shorter_than_a_signature(
    syntax: str, first: int, with_table: bool
) -> None:
    """PS3.5 A.4 sets no least length of a fragment; an empty one belongs to the next frame."""
    fragments: list[bytes] = []
    offsets: list[int] = []
    for stream in streams(syntax):
        offsets.append(sum(len(f) + 8 for f in fragments))
        fragments += [stream[:first], stream[first : first + 1], stream[first + 1 :]]
    bot = table(*offsets) if with_table else item(b"")
    assert delivered(bot + b"".join(map(item, fragments)), syntax)


@pytest.mark.parametrize("begins", [b"\xff\xd8", b"\xff\xd9", b"\xff", b"\0" * 20])
@pytest.mark.parametrize("bot", [item(b""), table(28, 1000, 2000)])
@pytest.mark.parametrize("syntax", MARKED)
def test_a_leading_fragment_that_belongs_to_no_frame_is_not_dropped(
    syntax: str, bot: bytes, begins: bytes
) -> None:
    """Three frames and a fragment before them: what it is nobody can tell."""
    lead = begins + b"\1" * (20 - len(begins))
    fragments = [lead, *(half for s in streams(syntax) for half in halves(s))]
    assert "cannot be assigned" in refused(bot + b"".join(map(item, fragments)), syntax)


@pytest.mark.parametrize("syntax", [*MARKED, RLE])
def test_a_table_that_begins_behind_the_first_fragment_is_not_believed(syntax: str) -> None:
    packed = streams(syntax)
    lead = packed[0]
    offsets, at = [], len(lead) + 8
    for stream in packed:
        offsets.append(at)
        at += len(stream) + 8
    refused(table(*offsets) + b"".join(map(item, [lead, *packed])), syntax)


def test_rle_fragments_without_a_table_are_not_guessed() -> None:
    fragments = [part for stream in streams(RLE) for part in halves(stream)]

    assert "cannot be assigned" in refused(item(b"") + b"".join(map(item, fragments)), RLE)


@pytest.mark.parametrize("syntax", [*MARKED, RLE])
@pytest.mark.parametrize("frames", [2, 4])
def test_a_number_of_frames_that_does_not_fit_is_refused(syntax: str, frames: int) -> None:
    refused(item(b"") + b"".join(map(item, streams(syntax))), syntax, NumberOfFrames=frames)


@pytest.mark.parametrize("syntax", MARKED)
def test_more_code_streams_than_the_one_frame_announced_are_refused(syntax: str) -> None:
    message = refused(item(b"") + b"".join(map(item, streams(syntax))), syntax, NumberOfFrames=1)

    assert message == "The data set says one frame, but 3 code streams are there."


@pytest.mark.parametrize("syntax", [*MARKED, RLE])
def test_a_single_frame_in_many_fragments(syntax: str) -> None:
    (stream,) = streams(syntax, ONE)
    fragments = [stream[i : i + 50] for i in range(0, len(stream), 50)]

    assert delivered(item(b"") + b"".join(map(item, fragments)), syntax, ONE)


def test_a_code_stream_that_contains_the_delimiter() -> None:
    (stream,) = streams(JPEG_SV1, ONE)
    comment = b"\xff\xfe" + pack(">H", 2 + 2 * len(DELIMITER)) + DELIMITER * 2
    with_delimiter = stream[:2] + comment + stream[2:]

    assert delivered(item(b"") + item(with_delimiter), JPEG_SV1, ONE)


@pytest.mark.parametrize("syntax", [*MARKED, RLE, HTJ2K])
def test_a_missing_sequence_delimiter_is_repaired(syntax: str) -> None:
    source = encoded_file(ONE, syntax)
    assert source.endswith(DELIMITER)

    assert np.array_equal(samples(run(source[:-8])[0]), ONE.array())


@pytest.mark.parametrize("syntax", [*MARKED, RLE, HTJ2K])
@pytest.mark.parametrize("missing", [4, 40, 400])
def test_a_file_cut_inside_the_last_frame_is_refused(syntax: str, missing: int) -> None:
    source = encoded_file(IMAGE, syntax)

    with pytest.raises(InstanceError) as caught:
        run(source[: -8 - missing])

    assert caught.value.reason is Reason.UNDECODABLE


def without_end(stream: bytes) -> bytes:
    end = stream.rindex(b"\xff\xd9")
    return stream[:end] + b"\0" * (end & 1)


@pytest.mark.parametrize("syntax", MARKED)
def test_a_missing_end_marker_is_repaired(syntax: str) -> None:
    fragments = [item(without_end(stream)) for stream in streams(syntax)]

    assert delivered(item(b"") + b"".join(fragments), syntax)


@pytest.mark.parametrize("syntax", MARKED)
@pytest.mark.parametrize("missing", [6, 20, 200])
def test_a_missing_end_marker_of_a_frame_cut_short_is_refused(syntax: str, missing: int) -> None:
    (stream,) = streams(syntax, ONE)
    cut = without_end(stream)[: -missing - 1]

    refused(item(b"") + item(cut + b"\0" * (len(cut) & 1)), syntax, ONE)


@pytest.mark.parametrize("missing", [0, 4, 30])
def test_baseline_without_end_marker_only_when_whole(missing: int) -> None:
    image = Image(rows=40, columns=36, allocated=8, stored=8)
    whole = bytes(imagecodecs.jpeg8_encode(image.array()[0], 90))
    cut = whole[: len(whole) - 2 - missing]
    source = compressed_file(image, JPEG_BASELINE, [cut])

    if missing:
        with pytest.raises(InstanceError, match="cut short"):
            run(source)
    else:
        expected = imagecodecs.jpeg8_decode(whole)
        assert np.array_equal(samples(run(source)[0])[0], expected)


@pytest.mark.parametrize(
    "pad", [b"\0\0", b"\xff\xff", b"\0" * 40, b"\0\xff\xfe\0\1garbage.."], ids=bytes.hex
)
@pytest.mark.parametrize("syntax", MARKED)
def test_bytes_after_the_end_marker_do_not_matter(syntax: str, pad: bytes) -> None:
    (stream,) = streams(syntax, ONE)
    padded = stream + pad

    assert delivered(item(b"") + item(padded + b"\0" * (len(padded) & 1)), syntax, ONE)


# --- RLE (PS3.5 Annex G) ---


@pytest.mark.parametrize("extra", [b"\0\0", b"\x80\x80", b"\0\5"])
def test_rle_with_bytes_after_the_last_segment(extra: bytes) -> None:
    (stream,) = streams(RLE, ONE)

    assert delivered(item(b"") + item(stream + extra), RLE, ONE)


def rle_stream(segments: list[bytes], *, offsets: list[int] | None = None) -> bytes:
    starts, position = [], 64
    for segment in segments:
        starts.append(position)
        position += len(segment)
    header = [len(segments), *(offsets or starts)]
    return pack("<16I", *header, *[0] * (16 - len(header))) + b"".join(segments)


def literal(plane: bytes) -> bytes:
    runs = [plane[i : i + 128] for i in range(0, len(plane), 128)]
    return b"".join(bytes([len(run_) - 1]) + run_ for run_ in runs)


def planes(image: Image) -> list[bytes]:
    words = image.array()[0].reshape(-1)
    return [(words >> 8).astype("u1").tobytes(), (words & 255).astype("u1").tobytes()]


def test_rle_with_odd_segments() -> None:
    small = Image(rows=3, columns=3, stored=12)
    stream = rle_stream([literal(plane) + b"\x80" for plane in planes(small)])

    assert delivered(item(b"") + item(stream + b"\0" * (len(stream) & 1)), RLE, small)


@pytest.mark.parametrize("verify", ["off", "all"])
@pytest.mark.parametrize("pad", [0x00, 0x20, 0x7F, 0x80, 0xFE])
def test_the_byte_that_makes_a_segment_even_need_not_be_a_run(pad: int, verify: str) -> None:
    odd = Image(rows=2, columns=5, stored=12)
    stream = rle_stream([literal(plane) + bytes([pad]) for plane in planes(odd)])

    body, _ = run(compressed_file(odd, RLE, [stream]), verify=verify)

    assert np.array_equal(samples(body), odd.array())


def test_a_segment_is_whole_only_if_its_padding_is_not_needed() -> None:
    odd = Image(rows=2, columns=5, stored=12)
    high, low = (literal(plane) for plane in planes(odd))
    short = bytes([low[0] - 1]) + low[1:-1] + b"\x20\x20"

    refused(item(b"") + item(rle_stream([high + b"\x20", short])), RLE, odd)


@pytest.mark.parametrize(
    "fault",
    ["one segment", "three segments", "short segment", "offsets swapped", "offset beyond", "cut"],
)
def test_rle_that_is_not_whole_is_refused(fault: str) -> None:
    first, second = (literal(plane) for plane in planes(ONE))
    stream = {
        "one segment": lambda: rle_stream([first]),
        "three segments": lambda: rle_stream([first, second, second]),
        "short segment": lambda: rle_stream([first, second[:-65] + bytes([15]) + bytes(16)]),
        "offsets swapped": lambda: rle_stream([first, second], offsets=[64 + len(first), 64]),
        "offset beyond": lambda: rle_stream([first, second], offsets=[64, 999999]),
        "cut": lambda: rle_stream([first, second])[:-300],
    }[fault]()

    refused(item(b"") + item(stream + b"\0" * (len(stream) & 1)), RLE, ONE)


def test_one_bit_rle_is_defined_nowhere_and_refused() -> None:
    bits = Image(rows=8, columns=8, allocated=1, stored=1)
    packed = np.packbits(bits.array()[0].reshape(-1)).tobytes()

    message = refused(item(b"") + item(rle_stream([literal(packed) + b"\0"])), RLE, bits)

    assert "RLE with 1 bits allocated" in message


def test_pixel_data_without_any_fragment_is_refused() -> None:
    assert "0 fragments" in refused(item(b""), JPEG_LS, ONE)


# --- bytes inside a code stream that another family begins with ---

NOISE = Image(rows=48, columns=40, stored=13)
NOISY: dict[str, Any] = {
    J2K: lambda a: imagecodecs.jpeg2k_encode(a, 0, codecformat="j2k", reversible=True),
    JPEG_LS: imagecodecs.jpegls_encode,
    JPEG_XL: lambda a: imagecodecs.jpegxl_encode(a, lossless=True, effort=1),
}


@functools.cache
def holding_the_two_bytes(syntax: str) -> tuple[Any, bytes, int]:
    """A frame, its code stream of even length, and where in it FF 0A stands (at an even place)."""
    shape = (NOISE.rows, NOISE.columns)
    for seed in range(2000):
        frame = np.random.default_rng(seed).integers(0, 1 << NOISE.stored, shape, dtype=np.uint16)
        stream = bytes(NOISY[syntax](frame))
        stream += b"\0" * (len(stream) & 1)
        at = next((i for i in range(64, len(stream), 2) if stream[i : i + 2] == b"\xff\x0a"), 0)
        if at:
            return frame, stream, at
    raise AssertionError("no seed gives the bytes that are sought")


@pytest.mark.parametrize("with_table", [True, False])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("syntax", NOISY)
def test_a_fragment_that_begins_with_the_two_bytes_of_jpeg_xl(
    syntax: str, frames: int, with_table: bool
) -> None:
    """FF 0A may stand in the coded data of JPEG 2000, JPEG-LS and JPEG XL: it begins no frame."""
    image = replace(NOISE, frames=frames)
    frame, stream, at = holding_the_two_bytes(syntax)
    offsets = [(len(stream) + 16) * number for number in range(frames)]
    head = table(*offsets) if with_table else item(b"")
    pixel_data = head + (item(stream[:at]) + item(stream[at:])) * frames + DELIMITER

    source = compressed_file(image, syntax, [], pixel_data=pixel_data)

    assert np.array_equal(samples(run(source)[0]), np.stack([frame] * frames))


def test_jpeg_xl_frames_are_told_by_their_size() -> None:
    """What follows the two bytes spells rows and columns."""
    image = Image(rows=300, columns=277, allocated=8, stored=8, frames=3)
    packed = streams(JPEG_XL, image)
    parts = b"".join(item(part) for stream in packed for part in halves(stream))
    assert delivered(item(b"") + parts + DELIMITER, JPEG_XL, image)
    whole = item(b"") + b"".join(map(item, packed)) + DELIMITER
    assert "3 code streams" in refused(whole, JPEG_XL, replace(image, frames=1))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_extended_table_counts_only_with_an_entry_for_each_frame(count: int) -> None:
    """Four fragments of three frames: with another number of entries nothing tells which."""
    first, second, third = streams(RLE)
    packed = [first, second, *halves(third)]
    offsets = np.cumsum([0, *(8 + len(part) for part in packed[:-1])])
    told = offsets[[0, 1, 2, 3][:count]].astype("<u8").tobytes()
    pixel_data = item(b"") + b"".join(map(item, packed))
    if count == 3:
        assert delivered(pixel_data, RLE, ExtendedOffsetTable=told)
    else:
        message = refused(pixel_data, RLE, ExtendedOffsetTable=told)
        assert "4 fragments cannot be assigned to 3 frames" in message
