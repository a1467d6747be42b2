"""Native pixels and words of bytes: small arrays, laid out by hand, in both byte orders."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import numpy as np
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom._private_dict import private_dictionaries
from pydicom.valuerep import STR_VR

from bridge.dicom import native
from bridge.dicom.description import Description
from bridge.dicom.elements import PIXEL_DATA, Element, Reader
from bridge.dicom.native import NativeFrames, SwappedPlan, with_sign
from bridge.dicom.samples import Array
from bridge.dicom.vrs import (
    TEXT_VRS,
    WORD_BYTES,
    implicit_vr,
    private_vr,
    public_vr,
    sample_word_bytes,
    shown,
    swapped,
)
from bridge.errors import InstanceError
from bridge.model import Reason

GREY = Description(
    rows=3, columns=5, samples=1, photometric="MONOCHROME2", planar=None, allocated=16, stored=12,
    signed=False, frames=3, lossy="",
)  # fmt: skip


def pixel_element(value: bytes, vr: bytes = b"OW") -> Element:
    return Element(PIXEL_DATA, vr, 0, 0, len(value), len(value), False)


def frames_of(value: bytes, d: Description, *, vr: bytes = b"OW", big_endian: bool) -> list[Array]:
    element = pixel_element(value, vr)
    return list(NativeFrames(memoryview(value), element, d, big_endian=big_endian))


def refusal_of(value: bytes, d: Description, *, big_endian: bool = False) -> InstanceError:
    with pytest.raises(InstanceError) as caught:
        frames_of(value, d, big_endian=big_endian)
    return caught.value


# --- words ---


@pytest.mark.parametrize("word_bytes", [2, 4, 8])
@pytest.mark.parametrize("words", [0, 1, 2, 3])
def test_words_are_reversed_and_a_rest_is_kept(word_bytes: int, words: int) -> None:
    for rest in range(word_bytes):
        value = bytes(range(1, words * word_bytes + rest + 1))
        wanted = b"".join(
            value[at : at + word_bytes][::-1] for at in range(0, words * word_bytes, word_bytes)
        )
        assert swapped(memoryview(value), word_bytes) == wanted + value[words * word_bytes :]


@pytest.mark.parametrize("vr", [b"OB", b"OW", b"UN", b"OF", b"US"])
def test_words_of_big_endian_samples(vr: bytes) -> None:
    """OW to 16 bits in pairs, OB to 8 bits in bytes, nothing else (PS3.5 6.2, A.3)."""
    wanted = {b"OW": dict.fromkeys(range(1, 17), 2), b"OB": dict.fromkeys(range(1, 9), 1)}
    for bits in range(66):
        assert sample_word_bytes(vr, bits) == wanted.get(vr, {}).get(bits)


def test_which_vrs_are_padded_with_a_space() -> None:
    """All that are characters but UI (PS3.5 6.2); pydicom's list is the oracle."""
    assert {vr.decode() for vr in TEXT_VRS} == {str(vr) for vr in STR_VR} - {"UI"}
    assert not TEXT_VRS & WORD_BYTES.keys()


@pytest.mark.parametrize(
    ("vr", "text"),
    [
        (b"OW", "OW"),
        (b"UN", "UN"),
        (b"", "an unknown VR"),
        (b"A", "an unknown VR"),
        (b"??", "an unknown VR"),
        (b"A1", "an unknown VR"),
        (b"\xffA", "an unknown VR"),
        (b"\xc3\xa4", "an unknown VR"),
        (b"ABC", "an unknown VR"),
    ],
)
def test_what_is_said_of_a_vr(vr: bytes, text: str) -> None:
    assert shown(vr) == text


def test_vrs_of_the_dictionaries() -> None:
    """Straight from pydicom's tables; what is not in them is UN."""
    public_vr.cache_clear()
    private_vr.cache_clear()
    tags = sorted(DicomDictionary)
    for tag in (tags[0], tags[len(tags) // 2], tags[-1], 0x00100010, 0x7FE00010):
        assert public_vr(tag) == DicomDictionary[tag][0]
    assert public_vr(0x00100011) == "UN"
    creator = "SIEMENS CSA HEADER"
    assert private_vr(0x00291010, creator) == private_dictionaries[creator]["0029xx10"][0] == "OB"
    assert private_vr(0x00291008, creator) == "CS"
    assert private_vr(0x00291010, "NOBODY") == "UN"
    assert private_vr(0x002910FE, creator) == "UN"


CSA = "SIEMENS CSA HEADER"


@pytest.mark.parametrize(
    ("tag", "creator", "signed", "entries", "vr"),
    [
        (0x00100010, None, False, None, b"PN"),
        (0x00081140, None, False, None, b"SQ"),
        (0x00100011, None, False, None, b"UN"),  # not in the dictionary
        (0x00280106, None, False, None, b"US"),  # US or SS
        (0x00280106, None, True, None, b"SS"),
        (0x7FE00010, None, False, None, b"OW"),  # OB or OW
        (0x7FE00010, None, True, None, b"OW"),
        (0x00283006, None, False, 1, b"US"),  # LUT Data, US or OW: one entry is a number
        (0x00283006, None, True, 1, b"US"),
        (0x00283006, None, False, None, b"OW"),
        (0x00283006, None, False, 0, b"OW"),
        (0x00283006, None, False, 2, b"OW"),
        (0x00283006, None, False, 256, b"OW"),
        (0x00281200, None, False, 1, b"US"),  # US or SS or OW (retired)
        (0x00281200, None, True, 1, b"SS"),
        (0x00281200, None, True, 2, b"OW"),
        (0x00290010, CSA, False, None, b"LO"),  # private creators
        (0x002900FF, CSA, False, None, b"LO"),
        (0x00290010, None, False, None, b"LO"),
        (0x00291010, CSA, False, None, b"OB"),
        (0x00291010, None, False, None, b"UN"),
        (0x00291010, "NOBODY", False, None, b"UN"),
        (0x0029000F, CSA, False, None, b"UN"),  # no creator lies below 10
    ],
)
def test_the_vr_of_an_implicit_element(
    tag: int, creator: str | None, signed: bool, entries: int | None, vr: bytes
) -> None:
    assert implicit_vr(tag, creator=creator, signed=signed, lut_entries=entries) == vr


# --- big endian to little endian, in blocks ---

BLOCK = native._BLOCK_BYTES


def swapped_plan(value: bytes, vr: bytes, allocated: int | None) -> SwappedPlan:
    elements = []
    data = value
    if allocated is not None:
        data += pack(">H", allocated)
        at = len(value)
        elements = [Element(0x00280100, b"US", at, at, at + 2, at + 2, False)]
    reader = Reader(memoryview(data), implicit=False, big_endian=True)
    element = Element(PIXEL_DATA, vr, 0, 0, len(value), len(value), False)
    return SwappedPlan(reader, elements, element, implicit=False)


@pytest.mark.parametrize("surplus", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize(("vr", "allocated"), [(b"OW", 16), (b"OW", 8), (b"OB", 8)])
def test_pixels_are_swapped_across_blocks(
    surplus: int, blocks: int, vr: bytes, allocated: int
) -> None:
    """First, middle and last block; lengths around their edge, odd ones padded."""
    value = np.arange(BLOCK * blocks + surplus, dtype="<u4").astype("u1").tobytes()
    plan = swapped_plan(value, vr, allocated)
    made = b"".join(bytes(chunk) for chunk in plan.chunks())

    even = len(value) // 2 * 2
    wanted = value
    if vr == b"OW":
        wanted = np.frombuffer(value[:even], "u2").byteswap().tobytes() + value[even:]
    wanted += b"\0" * (len(value) & 1)
    head = pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, len(wanted))
    assert made == head + wanted
    assert plan.body_bytes == len(made)


@pytest.mark.parametrize("allocated", [None, 0, 17, 32])
def test_pixels_of_words_that_nobody_knows_are_refused(allocated: int | None) -> None:
    with pytest.raises(InstanceError, match="can be read in two ways") as caught:
        swapped_plan(bytes(8), b"OW", allocated)
    assert caught.value.reason is Reason.UNDECODABLE
    assert f"{allocated or 0} bits in OW" in caught.value.message


# --- frames: three of each, so that the second and the third begin elsewhere ---


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("allocated", [8, 16])
@pytest.mark.parametrize("planar", [None, 0, 1])
@pytest.mark.parametrize("signed", [False, True])
def test_three_frames(big_endian: bool, allocated: int, planar: int | None, signed: bool) -> None:
    samples = 1 if planar is None else 3
    d = replace(
        GREY, samples=samples, photometric="RGB" if samples == 3 else "MONOCHROME2",
        planar=planar, allocated=allocated, stored=allocated, signed=signed,
    )  # fmt: skip
    shape = (3, d.rows, d.columns) if samples == 1 else (3, d.rows, d.columns, 3)
    count = int(np.prod(shape))
    wanted = (np.arange(count) * 331 + 7).astype(f"<{'i' if signed else 'u'}{allocated // 8}")
    wanted = wanted.reshape(shape)
    stored = np.moveaxis(wanted, -1, 1) if planar == 1 else wanted
    value = np.ascontiguousarray(stored).tobytes()
    value += b"\0" * (len(value) & 1)
    if big_endian:
        value = np.frombuffer(value, "u2").byteswap().tobytes()  # OW: words of 16 bits
    found = frames_of(value, d, big_endian=big_endian)

    assert len(found) == 3
    for frame, right in zip(found, wanted, strict=True):
        assert frame.dtype == right.dtype.newbyteorder("=")
        assert np.array_equal(frame, right)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("columns", [5, 8])
def test_three_frames_of_bits(big_endian: bool, samples: int, columns: int) -> None:
    """Frames follow each other without padding: 15 or 24 bits, or three times as many."""
    d = replace(GREY, columns=columns, samples=samples, allocated=1, stored=1, planar=0)
    bits = np.random.default_rng(4).integers(0, 2, 3 * d.frame_samples).astype("u1")
    value = np.packbits(bits, bitorder="little").tobytes()
    value += b"\0" * (len(value) & 1)
    if big_endian:
        value = np.frombuffer(value, "u2").byteswap().tobytes()
    found = frames_of(value, d, big_endian=big_endian)

    shape = (3, 3, columns) if samples == 1 else (3, 3, columns, samples)
    assert np.array_equal(np.stack(found), bits.reshape(shape))


def test_three_frames_with_half_the_chroma() -> None:
    """YBR_FULL_422: Y1 Y2 Cb Cr for two pixels (PS3.3 C.7.6.3.1.2)."""
    d = replace(
        GREY, rows=2, columns=4, samples=3, photometric="YBR_FULL_422", allocated=8, stored=8,
        planar=0,
    )  # fmt: skip
    value = np.arange(3 * 2 * 2 * 4, dtype="u1")
    element = pixel_element(value.tobytes(), b"OB")
    frames = NativeFrames(memoryview(value.tobytes()), element, d, big_endian=False)
    assert frames.d.photometric == "YBR_FULL"
    quads = value.reshape(3, 2, 2, 4)
    for frame, quad in zip(frames, quads, strict=True):
        for row in range(2):
            for column in range(4):
                first, second, blue, red = quad[row, column // 2]
                luma = second if column % 2 else first
                assert list(frame[row, column]) == [luma, blue, red]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"allocated": 64, "stored": 64}, "64 bits allocated"),
        ({"samples": 3, "photometric": "YBR_FULL_422", "allocated": 8, "columns": 5}, "subsampled"),
        ({"samples": 3, "photometric": "YBR_FULL_422", "columns": 4}, "subsampled"),
        ({"samples": 3, "photometric": "YBR_PARTIAL_420", "allocated": 8}, "subsampled"),
        ({"samples": 3, "photometric": "YBR_PARTIAL_422", "allocated": 8}, "subsampled"),
        ({"samples": 1, "photometric": "YBR_FULL_422", "allocated": 8, "columns": 4}, "subsampled"),
    ],
)
def test_native_layouts_that_are_not_compressed(changed: dict[str, object], what: str) -> None:
    error = refusal_of(bytes(4000), replace(GREY, **changed))  # type: ignore[arg-type]

    assert error.reason is Reason.UNSUPPORTED_SYNTAX
    assert what in error.message


@pytest.mark.parametrize(
    ("surplus", "fine"),
    [
        (b"", True),
        (b"\0", True),
        (b"\1", True),  # one byte makes an odd length even, whatever it is
        (b"\0\0", True),
        (bytes(29), True),
        (bytes(30), False),  # a frame
        (bytes(31), False),
        (b"\0\1", False),
        (b"\1\0", False),
        (bytes(28) + b"\1", False),
    ],
)
def test_what_may_follow_the_last_of_three_frames(surplus: bytes, fine: bool) -> None:
    value = bytes(GREY.native_bytes) + surplus
    if fine:
        assert len(frames_of(value, GREY, big_endian=False)) == 3
        return
    error = refusal_of(value, GREY)
    assert error.reason is Reason.UNDECODABLE
    assert f"{len(value)} bytes of pixels, 90 expected" in error.message


def test_a_byte_less_than_three_frames() -> None:
    assert "89 bytes of pixels, 90 expected" in refusal_of(bytes(89), GREY).message


# --- the sign of 12 bits in 16 ---

SIGNED = replace(GREY, signed=True)


@pytest.mark.parametrize(
    ("d", "raw", "value"),
    [
        (SIGNED, 0x0800, -2048),
        (SIGNED, 0x0FFF, -1),
        (SIGNED, 0x07FF, 2047),
        (SIGNED, 0x0001, 1),
        (SIGNED, 0xF800, -2048),  # widened already
        (SIGNED, 0x1800, 0x1800),  # something lies in the unused bits: it stays
        (replace(SIGNED, spare_bits_used=True), 0x0800, 0x0800),
        (replace(SIGNED, stored=16), 0x0800, 0x0800),
        (GREY, 0x0800, 0x0800),
    ],
)
def test_the_sign_is_widened_over_unused_bits(d: Description, raw: int, value: int) -> None:
    """At the first, a middle and the last sample."""
    for at in (0, 7, 14):
        flat = np.zeros(15, "<u2")
        flat[at] = raw
        array = flat.view("<i2" if d.signed else "<u2").reshape(3, 5)
        made = with_sign(array, d)
        assert made.dtype == array.dtype
        assert int(made.reshape(-1)[at]) == value
        assert int(np.count_nonzero(made)) == 1


def test_one_used_bit_keeps_the_frame_as_it_is() -> None:
    array = np.array([[0x0800, 0x0800, 0x1000]], "<u2").view("<i2")
    assert with_sign(array, SIGNED) is array


def test_frames_are_widened_unless_they_are_wanted_as_stored() -> None:
    value = np.full(45, 0x0800, "<u2").tobytes()
    element, data = pixel_element(value), memoryview(value)
    for as_stored, sample in ((False, -2048), (True, 0x0800)):
        frames = NativeFrames(data, element, SIGNED, big_endian=False, as_stored=as_stored)
        assert [int(frame.min()) for frame in frames] == [sample] * 3


@pytest.mark.parametrize("planar", [None, 0, 1])
def test_grey_samples_lie_as_they_do_whatever_planar_configuration_says(planar: int | None) -> None:
    """It is for samples of several kinds only (PS3.3 C.7.6.3.1.3)."""
    value = np.arange(3 * 3 * 5, dtype="<u2")
    d = replace(GREY, planar=planar, frames=3)
    frames = frames_of(value.tobytes(), d, big_endian=False)
    assert np.array_equal(frames, value.reshape(3, 3, 5))
