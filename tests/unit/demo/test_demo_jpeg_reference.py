"""The reference JPEG decoder against libjpeg-turbo, and on what it must refuse."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from bridge.demo import images
from bridge.demo.jpeg_entropy import ZIGZAG, ReferenceDecodeError
from bridge.demo.jpeg_reference import decode_sequential_jpeg, ycbcr_to_rgb

RGB = images.colour().samples[0]
GREY = images.mr_8bit().samples[0, ..., 0]
WORDS = images.mr_12bit().samples[0, ..., 0]


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.reshape(one.shape).astype(int)).max())


def test_zigzag_order_is_that_of_t81_figure_5() -> None:
    assert ZIGZAG[:10] == (0, 1, 8, 16, 9, 2, 3, 10, 17, 24)
    assert ZIGZAG[-4:] == (47, 55, 62, 63)
    assert sorted(ZIGZAG) == list(range(64))


@pytest.mark.parametrize(("bits", "image"), [(8, GREY), (12, WORDS)])
def test_grey_agrees_within_one(bits: int, image: np.ndarray) -> None:
    codestream = bytes(imagecodecs.jpeg8_encode(image, 90, bitspersample=bits))
    decoded = decode_sequential_jpeg(codestream)
    assert decoded.shape == (*image.shape, 1)
    assert decoded.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert distance(decoded, imagecodecs.jpeg8_decode(codestream)) <= 1
    assert decoded.std() > 10


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_colour_agrees_within_one_in_each_component(subsampling: str) -> None:
    codestream = bytes(imagecodecs.jpeg8_encode(RGB, 90, subsampling=subsampling))
    components = decode_sequential_jpeg(codestream)
    as_components = imagecodecs.jpeg8_decode(codestream, colorspace="YCBCR", outcolorspace="YCBCR")
    assert distance(components, as_components) <= 1
    assert distance(ycbcr_to_rgb(components), imagecodecs.jpeg8_decode(codestream)) <= 3


def test_sizes_that_are_no_multiple_of_a_block() -> None:
    for rows, columns in ((1, 1), (7, 17), (9, 8), (33, 31)):
        image = RGB[100 : 100 + rows, 100 : 100 + columns]
        codestream = bytes(imagecodecs.jpeg8_encode(image, 95, subsampling="420"))
        decoded = ycbcr_to_rgb(decode_sequential_jpeg(codestream))
        assert decoded.shape == image.shape
        assert distance(decoded, imagecodecs.jpeg8_decode(codestream)) <= 3


def test_lossless_jpeg_is_refused() -> None:
    codestream = bytes(imagecodecs.jpeg8_encode(GREY, lossless=True))
    with pytest.raises(ReferenceDecodeError, match="marker C3"):
        decode_sequential_jpeg(codestream)


def test_a_codestream_cut_short_is_refused() -> None:
    codestream = bytes(imagecodecs.jpeg8_encode(GREY, 90))
    with pytest.raises(ReferenceDecodeError):
        decode_sequential_jpeg(codestream[: len(codestream) // 2])


def test_no_frame_is_refused() -> None:
    with pytest.raises(ReferenceDecodeError, match="No frame header"):
        decode_sequential_jpeg(b"\xff\xd8\xff\xd9")
