"""From decoded samples to those that are described: numbers at the edges of their range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bridge.dicom.description import Description
from bridge.dicom.encoders import precision_of
from bridge.dicom.samples import (
    BitPacker,
    SamplesError,
    fits,
    frame_array,
    little_endian_bytes,
    to_container,
)

D = Description(
    rows=2, columns=3, samples=1, photometric="MONOCHROME2", planar=None, allocated=16, stored=12,
    signed=False, frames=1, lossy="",
)  # fmt: skip
SIGNED = replace(D, signed=True)


def of(*values: int, dtype: str = "u2") -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([*values, *[0] * (6 - len(values))], dtype).reshape(2, 3)


# --- the container ---


@pytest.mark.parametrize(
    ("d", "values", "dtype", "precision", "stream_signed", "wanted"),
    [
        (D, (0, 4095), "u2", 12, False, (0, 4095)),
        (D, (0, 255), "u1", 8, False, (0, 255)),
        (SIGNED, (-2048, 2047), "i2", 12, True, (-2048, 2047)),
        (SIGNED, (0x800, 0xFFF, 0x7FF), "u2", 12, False, (-2048, -1, 2047)),  # a JPEG has no sign
        (SIGNED, (0x8000, 0xFFFF), "u2", 16, False, (-32768, -1)),
        (SIGNED, (0x2000, 0x1FFF), "u2", 14, False, (-8192, 8191)),
        (SIGNED, (0x3FF,), "u2", 11, False, (0x3FF,)),  # below its sign bit in a narrower stream
        (D, (0, 2047), "i2", 12, True, (0, 2047)),  # labelled as signed, nothing negative
        (D, (-1, -2048, 2047), "i2", 12, True, (0xFFF, 0x800, 2047)),
        (D, (-1, 1), "i4", 16, True, (0xFFFF, 1)),
    ],
)
def test_samples_in_their_container(
    *,
    d: Description,
    values: tuple[int, ...],
    dtype: str,
    precision: int,
    stream_signed: bool,
    wanted: tuple[int, ...],
) -> None:
    made = to_container(
        of(*values, dtype=dtype), d, precision=precision, stream_signed=stream_signed
    )

    assert made.dtype == np.dtype("i2" if d.signed else "u2")
    assert made.reshape(-1)[: len(wanted)].tolist() == list(wanted)
    assert made.flags.c_contiguous


@pytest.mark.parametrize(
    ("d", "values", "dtype", "precision", "stream_signed", "what"),
    [
        (SIGNED, (0x400,), "u2", 11, False, "signed samples in an unsigned stream of 11 bits"),
        (SIGNED, (0, 0, 0, 0, 0, 0x400), "u2", 11, False, "signed samples"),
        (D, (-1,), "i2", 11, True, "unsigned samples in a signed stream of 11 bits"),
        (D, (1,), "u4", 17, False, "17 bits decoded, 16 allocated"),
    ],
)
def test_samples_that_would_be_a_guess(
    *,
    d: Description,
    values: tuple[int, ...],
    dtype: str,
    precision: int,
    stream_signed: bool,
    what: str,
) -> None:
    with pytest.raises(SamplesError, match=what):
        to_container(of(*values, dtype=dtype), d, precision=precision, stream_signed=stream_signed)


def test_shapes() -> None:
    colour = replace(D, samples=3, allocated=8, stored=8)
    right = np.arange(18, dtype="u1").reshape(2, 3, 3)
    for array in (right, right[..., None]):
        made = to_container(array, colour, precision=8, stream_signed=False)
        assert np.array_equal(made, right)
    one = right[..., 0][..., None]
    grey = replace(D, allocated=8, stored=8)
    assert to_container(one, grey, precision=8, stream_signed=False).shape == (2, 3)
    for wrong in (right.reshape(3, 2, 3), right.reshape(18), np.zeros((2, 3, 4), "u1")):
        with pytest.raises(SamplesError, match="expected"):
            to_container(wrong, colour, precision=8, stream_signed=False)


# --- what fits in Bits Stored ---


@pytest.mark.parametrize(
    ("d", "value", "stream_signed", "inside"),
    [
        (D, 4095, False, True),
        (D, 4096, False, False),
        (SIGNED, 2047, True, True),
        (SIGNED, 2048, True, False),
        (SIGNED, -2048, True, True),
        (SIGNED, -2049, True, False),
        (SIGNED, 4095, False, True),  # two's complement that is not widened
        (SIGNED, 4096, False, False),
        (replace(D, spare_bits_used=True), 4096, False, True),
    ],
)
def test_what_fits(d: Description, value: int, stream_signed: bool, inside: bool) -> None:
    for at in (0, 3, 5):
        flat = np.zeros(6, "i4")
        flat[at] = value
        assert fits(flat.reshape(2, 3), d, stream_signed=stream_signed) is inside


def test_a_negative_sample_makes_all_of_them_signed() -> None:
    assert not fits(of(-1, 2048, dtype="i2"), SIGNED, stream_signed=False)
    assert fits(of(-1, 2047, dtype="i2"), SIGNED, stream_signed=False)
    assert fits(np.zeros((0, 3), "u2"), D, stream_signed=False)


@pytest.mark.parametrize(
    ("d", "values", "precision"),
    [
        (D, (0, 4095), 12),
        (D, (0, 4096), 16),
        (SIGNED, (-2048, 2047), 12),
        (SIGNED, (0, 2048), 16),
        (SIGNED, (-2049, 0), 16),
    ],
)
def test_the_precision_that_is_encoded(
    d: Description, values: tuple[int, ...], precision: int
) -> None:
    assert precision_of(of(*values, dtype="i2"), d) == precision
    assert precision_of(np.zeros((0, 3), "u2"), d) == 16


# --- bytes of a frame ---


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("allocated", "kind"), [(8, "u1"), (16, "u2"), (32, "u4")])
@pytest.mark.parametrize("signed", [False, True])
def test_a_native_frame(big_endian: bool, allocated: int, kind: str, signed: bool) -> None:
    d = replace(D, allocated=allocated, stored=allocated, signed=signed, samples=3)
    dtype = np.dtype(f"{'>' if big_endian else '<'}{'i' if signed else 'u'}{kind[1]}")
    values = (np.arange(18) * 40_503).astype(dtype)
    made = frame_array(values.tobytes(), d, big_endian=big_endian)

    assert made.shape == (2, 3, 3)
    assert made.dtype == dtype.newbyteorder("=")
    assert np.array_equal(made.reshape(-1), values)
    assert bytes(little_endian_bytes(made)) == values.astype(dtype.newbyteorder("<")).tobytes()


def test_bytes_of_an_array_that_is_not_contiguous() -> None:
    array = np.arange(24, dtype=">u2").reshape(4, 6)[::2, ::3]
    assert bytes(little_endian_bytes(array)) == np.array([0, 3, 12, 15], "<u2").tobytes()


# --- one bit a sample ---


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_frames_of_bits_follow_each_other_without_padding(count: int, frames: int) -> None:
    bits = np.random.default_rng(count).integers(0, 2, (frames, 1, count)).astype("u1")
    bits[:, 0, -1] = 1
    packer = BitPacker()
    made = b"".join(packer.add(frame) for frame in bits) + packer.finish()

    assert made == np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    assert packer.finish() == b""


def test_a_value_above_one_is_no_bit() -> None:
    for at in (0, 4, 8):
        frame = np.zeros(9, "u1")
        frame[at] = 2
        with pytest.raises(SamplesError, match="above 1"):
            BitPacker().add(frame)
