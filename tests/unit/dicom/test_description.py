"""The pixel description, number by number, and what it refuses."""

from __future__ import annotations

import zlib
from struct import pack

import pytest

from bridge.dicom import description
from bridge.dicom.codestream import StreamInfo
from bridge.dicom.decoders import check_rle, inflate, raw
from bridge.dicom.description import Description, describe, number_of
from bridge.dicom.elements import Reader
from bridge.dicom.samples import SamplesError
from bridge.dicom.syntaxes import Family
from bridge.errors import InstanceError
from bridge.model import Reason

NUMBERS = {
    0x00280002: 3, 0x00280006: 1, 0x00280010: 20, 0x00280011: 14, 0x00280100: 16,
    0x00280101: 12, 0x00280102: 11, 0x00280103: 1,
}  # fmt: skip
TEXTS = {
    0x00280004: b"RGB ", 0x00280008: b"7 ", 0x00282110: b"01", 0x00282112: b"10", 0x00282114: b"X ",
}  # fmt: skip


def data_set(
    numbers: dict[int, int | None], texts: dict[int, bytes], *, big_endian: bool = False
) -> bytes:
    mark = ">" if big_endian else "<"
    out = b""
    for tag in sorted({**numbers, **texts}):
        if tag in texts:
            vr, value = b"CS", texts[tag]
        else:
            number = numbers[tag]
            if number is None:
                continue
            vr, value = b"US", pack(f"{mark}H", number)
        out += pack(f"{mark}HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    return out


def described(data: bytes, *, big_endian: bool = False) -> Description:
    reader = Reader(memoryview(data), implicit=False, big_endian=big_endian)
    return describe(reader, reader.level(0, len(data)))


def refusal(**changed: int | None) -> InstanceError:
    tags = {name: tag for name, tag in vars(description).items() if isinstance(tag, int)}
    numbers = NUMBERS | {tags[name]: number for name, number in changed.items()}
    with pytest.raises(InstanceError) as caught:
        described(data_set(dict(numbers), TEXTS))
    return caught.value


@pytest.mark.parametrize("big_endian", [False, True])
def test_every_number_is_read(big_endian: bool) -> None:
    d = described(data_set(dict(NUMBERS), TEXTS, big_endian=big_endian), big_endian=big_endian)

    assert d == Description(
        rows=20, columns=14, samples=3, photometric="RGB", planar=1, allocated=16, stored=12,
        signed=True, frames=7, lossy="01", has_ratio=True, has_method=True, spare_bits_used=False,
    )  # fmt: skip
    assert d.frame_samples == 840
    assert d.frame_array_bytes == 1680
    assert d.native_bytes == 11_760


def test_what_is_missing_has_its_default() -> None:
    needed = {tag: NUMBERS[tag] for tag in (0x00280010, 0x00280011, 0x00280100)}
    d = described(data_set(dict(needed), {}))

    assert d == Description(
        rows=20, columns=14, samples=1, photometric="", planar=None, allocated=16, stored=16,
        signed=False, frames=1, lossy="",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["ROWS", "COLUMNS", "ALLOCATED"])
@pytest.mark.parametrize("number", [None, 0])
def test_what_must_be_there(name: str, number: int | None) -> None:
    error = refusal(**{name: number})
    tag = getattr(description, name)
    assert error.reason is Reason.UNDECODABLE
    assert f"({tag >> 16:04X},{tag & 0xFFFF:04X}) missing or zero" in error.message


def test_no_samples_a_pixel() -> None:
    assert "(0028,0002) missing or zero" in refusal(SAMPLES=0).message


@pytest.mark.parametrize("allocated", range(66))
def test_bits_allocated(allocated: int) -> None:
    if allocated in (1, 8, 16, 32, 64):
        numbers = NUMBERS | {0x00280100: allocated, 0x00280101: allocated}
        assert described(data_set(dict(numbers), TEXTS)).allocated == allocated
    else:
        refusal(ALLOCATED=allocated, STORED=min(allocated, 1))


@pytest.mark.parametrize("stored", [15, 16, 17])
def test_bits_stored(stored: int) -> None:
    numbers = NUMBERS | {0x00280101: stored}
    if stored <= 16:
        assert described(data_set(dict(numbers), TEXTS)).stored == stored
    else:
        assert "17 bits stored in 16 allocated" in refusal(STORED=17).message


@pytest.mark.parametrize(
    ("text", "frames"),
    [(b"1 ", 1), (b"0 ", 1), (b"", 1), (b"3 ", 3), (b"5000000 ", 5_000_000), (b" 3", 3)],
)
def test_number_of_frames(text: bytes, frames: int) -> None:
    numbers = NUMBERS | {0x00280010: 1, 0x00280011: 1}
    assert described(data_set(dict(numbers), TEXTS | {0x00280008: text})).frames == frames


@pytest.mark.parametrize("text", [b"5000001 ", b"-1", b"many", b"1.5 "])
def test_numbers_of_frames_that_are_refused(text: bytes) -> None:
    with pytest.raises(InstanceError) as caught:
        described(data_set(dict(NUMBERS), TEXTS | {0x00280008: text}))
    assert caught.value.reason is Reason.UNDECODABLE


def test_a_frame_is_bounded_to_the_byte() -> None:
    """32768 x 32767 x 1 byte is below 1 GiB, 32768 x 32768 is 1 GiB."""
    assert description.FRAME_BYTES_MAX == 1 << 30
    edge = NUMBERS | {
        0x00280002: 1, 0x00280010: 32768, 0x00280011: 32768, 0x00280100: 8, 0x00280101: 8,
        0x00280102: 7,
    }  # fmt: skip
    assert described(data_set(dict(edge), TEXTS)).frame_array_bytes == 1 << 30
    error = refusal(SAMPLES=1, ROWS=32769, COLUMNS=32768, ALLOCATED=8, STORED=8)
    assert error.reason is Reason.TOO_LARGE


def overlay(group: int, position: int) -> bytes:
    return pack("<HH2sHH", group, 0x0102, b"US", 2, position)


@pytest.mark.parametrize("group", [0x6000, 0x6002, 0x6010, 0x601E, 0x60FE])
@pytest.mark.parametrize("position", [0, 12, 256])
def test_any_overlay_may_lie_in_the_pixels(group: int, position: int) -> None:
    """Repeating groups: the first, a middle and the last one (PS3.5 7.6)."""
    data = data_set(dict(NUMBERS), TEXTS)
    assert described(data + overlay(group, position)).spare_bits_used is (position > 0)
    both = overlay(0x6000, 0) + overlay(group, position) if group > 0x6000 else b""
    if both:
        assert described(data + both).spare_bits_used is (position > 0)
    assert not described(data + overlay(0x5000, 12)).spare_bits_used


@pytest.mark.parametrize(("high", "used"), [(11, False), (15, True), (12, True), (10, True)])
def test_the_high_bit(high: int, used: bool) -> None:
    numbers = NUMBERS | {0x00280102: high}
    assert described(data_set(dict(numbers), TEXTS)).spare_bits_used is used


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("vr", "form", "number"),
    [
        (b"US", "H", 513), (b"SS", "H", 513), (b"UL", "I", 66_051), (b"SL", "I", 66_051),
        (b"OW", "H", 513), (b"UN", "H", 513),
    ],
)  # fmt: skip
def test_numbers_of_any_vr(big_endian: bool, vr: bytes, form: str, number: int) -> None:
    mark = ">" if big_endian else "<"
    value = pack(mark + form, number)
    long = vr in (b"OW", b"UN")
    head = pack(f"{mark}HH2sH", 0x28, 0x10, vr, 0 if long else len(value))
    data = head + (pack(f"{mark}I", len(value)) if long else b"") + value
    reader = Reader(memoryview(data), implicit=False, big_endian=big_endian)
    (element,) = reader.level(0, len(data))
    assert number_of(reader, element) == number


@pytest.mark.parametrize("vr", [b"IS", b"DS"])
@pytest.mark.parametrize(("text", "number"), [(b"12", 12), (b"1234", 1234), (b"", None)])
def test_numbers_as_text(vr: bytes, text: bytes, number: int | None) -> None:
    data = pack("<HH2sH", 0x28, 0x10, vr, len(text)) + text
    reader = Reader(memoryview(data), implicit=False)
    (element,) = reader.level(0, len(data))
    assert number_of(reader, element) == number


# --- RLE, and frames whose length is what is checked ---

TWO = Description(
    rows=4, columns=4, samples=1, photometric="MONOCHROME2", planar=None, allocated=16, stored=16,
    signed=False, frames=1, lossy="",
)  # fmt: skip


def rle_header(count: int, *offsets: int, size: int = 100) -> bytes:
    return pack("<16I", count, *offsets, *[0] * (15 - len(offsets))).ljust(size, b"\0")


def test_segments_of_rle() -> None:
    assert check_rle(rle_header(2, 64, 80), TWO) == (64, 80)
    assert check_rle(rle_header(2, 64, 99), TWO) == (64, 99)


@pytest.mark.parametrize(
    "frame",
    [
        rle_header(2, 64, 80)[:63],
        rle_header(1, 64),
        rle_header(3, 64, 70, 80),
        rle_header(2, 65, 80),
        rle_header(2, 66, 80),
        rle_header(2, 0, 80),
        rle_header(2, 64, 64),
        rle_header(2, 64, 63),
        rle_header(2, 64, 100),
        rle_header(2, 64, 101),
    ],
)
def test_segments_of_rle_that_are_out_of_order(frame: bytes) -> None:
    with pytest.raises(SamplesError):
        check_rle(frame, TWO)


RAW = StreamInfo(Family.RAW, lossy=False)


@pytest.mark.parametrize("columns", [4, 5])
@pytest.mark.parametrize("surplus", [-1, 0, 1, 2])
def test_a_fragment_of_plain_bytes(columns: int, surplus: int) -> None:
    """A byte more than a frame only where it makes the length even."""
    d = Description(
        rows=1, columns=columns, samples=1, photometric="MONOCHROME2", planar=None, allocated=8,
        stored=8, signed=False, frames=1, lossy="",
    )  # fmt: skip
    value = bytes(range(1, columns + surplus + 1))
    fine = surplus == 0 or (surplus == 1 and columns == 5)
    engine = zlib.compressobj(wbits=-15)
    packed = engine.compress(value) + engine.flush()
    if fine:
        for array in (raw(value, RAW, d), inflate(packed, RAW, d)):
            assert array.reshape(-1).tolist() == list(value[:columns])
        assert inflate(packed + b"\0", RAW, d).size == columns
        with pytest.raises(SamplesError, match="something follows"):
            inflate(packed + b"\1", RAW, d)
        return
    with pytest.raises(SamplesError):
        raw(value, RAW, d)
    with pytest.raises(SamplesError):
        inflate(packed, RAW, d)


@pytest.mark.parametrize("tag", [*NUMBERS, *TEXTS])
@pytest.mark.parametrize("first", [False, True])
def test_an_element_that_is_there_twice(tag: int, first: bool) -> None:
    """DCMTK, and so Orthanc, reads the first of two, pydicom the last."""
    whole = data_set(dict(NUMBERS), TEXTS)
    texts = {tag: TEXTS[tag]} if tag in TEXTS else {}
    same = data_set({} if texts else {tag: NUMBERS[tag]}, texts)
    at = whole.index(same)
    assert described(whole[:at] + same + whole[at:]) == described(whole)
    other = same[:-1] + bytes([same[-1] ^ 1])
    empty = same[:6] + b"\0\0"
    for another in (other, empty):
        two = another + same if first else same + another
        with pytest.raises(InstanceError, match="in the data set twice, with two values"):
            described(whole[:at] + two + whole[at + len(same) :])
