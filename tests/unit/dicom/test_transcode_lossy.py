"""Lossy samples that pass Bits Stored: a decoder's overshoot, which the header must allow for."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from pydicom.sequence import Sequence

from bridge.dicom.fingerprint import fingerprint
from bridge.errors import InstanceError
from tests.transcode_cases import (
    EXPLICIT,
    IMPLICIT,
    J2K,
    J2K_LOSSY,
    RLE,
    Image,
    compressed_file,
    dataset,
    item,
    read,
    run,
    samples,
)


def even(stream: bytes | bytearray) -> bytes:
    return bytes(stream) + b"\0" * (len(stream) & 1)


def lossy_stream(image: Image, level: int, bump: int) -> bytes:
    """A flat image of 16 bits with a bump in it, as lossy JPEG 2000."""
    array = np.full((image.rows, image.columns), level, image.dtype)
    array[10:20, 10:20] += bump
    return even(
        imagecodecs.jpeg2k_encode(
            array, level=200, codecformat="j2k", reversible=False, bitspersample=16
        )
    )


TWELVE_BITS = Image(rows=40, columns=36, stored=12)


@pytest.mark.parametrize("signed", [False, True])
def test_lossy_samples_within_bits_stored_change_no_header(signed: bool) -> None:
    image = Image(rows=40, columns=36, stored=12, signed=signed)
    level = 2000 if signed else 4000

    body, _ = run(compressed_file(image, J2K_LOSSY, [lossy_stream(image, level, 5)]))

    assert np.abs(samples(body)[0][:5].astype(int) - level).max() <= 1
    assert (read(body).BitsStored, read(body).HighBit) == (12, 11)


@pytest.mark.parametrize("wanted", [EXPLICIT, IMPLICIT, J2K, RLE])
def test_a_lossy_overshoot_makes_bits_stored_the_code_streams(wanted: str) -> None:
    stream = lossy_stream(TWELVE_BITS, 4000, 150)
    coded = imagecodecs.jpeg2k_decode(stream)

    body, _ = run(compressed_file(TWELVE_BITS, J2K_LOSSY, [stream]), wanted)

    native = body if wanted in (EXPLICIT, IMPLICIT) else run(body)[0]
    assert int(samples(native).max()) > 4095
    assert np.array_equal(samples(native)[0], coded)
    for header in (read(body), read(native)):
        assert (header.BitsAllocated, header.BitsStored, header.HighBit) == (16, 16, 15)
        assert header.PixelRepresentation == 0
    assert fingerprint(native).same_image(
        fingerprint(compressed_file(TWELVE_BITS, J2K_LOSSY, [stream]))
    )


def test_an_overshoot_in_any_frame_counts() -> None:
    image = Image(rows=40, columns=36, stored=12, frames=2)
    streams = [lossy_stream(image, 4000, bump) for bump in (0, 150)]

    body, _ = run(compressed_file(image, J2K_LOSSY, streams))

    assert (read(body).BitsStored, read(body).HighBit) == (16, 15)


def test_an_overshoot_that_shows_after_the_header_was_sent_is_refused() -> None:
    image = Image(rows=40, columns=36, stored=12, frames=2)
    early, late = (
        compressed_file(image, J2K_LOSSY, [lossy_stream(image, 4000, b) for b in bumps])
        for bumps in ((150, 150), (0, 150))
    )

    body, _ = run(early, hold_bytes_max=0)
    assert (read(body).BitsStored, read(body).HighBit) == (16, 15)
    with pytest.raises(InstanceError, match="lossy samples beyond the 12 bits stored"):
        run(late, hold_bytes_max=0)


def test_a_signed_lossy_overshoot_is_refused() -> None:
    image = Image(rows=40, columns=36, stored=12, signed=True)

    with pytest.raises(InstanceError, match="lossy samples beyond the 12 bits stored"):
        run(compressed_file(image, J2K_LOSSY, [lossy_stream(image, 2000, 150)]))


def test_an_icon_may_overshoot_too() -> None:
    icon = dataset(TWELVE_BITS)
    icon.PixelData = item(b"") + item(lossy_stream(TWELVE_BITS, 4000, 150))
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True

    body, _ = run(
        compressed_file(
            TWELVE_BITS,
            J2K_LOSSY,
            [lossy_stream(TWELVE_BITS, 4000, 5)],
            IconImageSequence=Sequence([icon]),
        )
    )

    (header,) = read(body).IconImageSequence
    assert (header.BitsStored, header.HighBit, read(body).BitsStored) == (16, 15, 12)
