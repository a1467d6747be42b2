"""A sequential DCT JPEG decoder written from ITU-T T.81, for comparison only.

It shares nothing with the codecs that the bridge uses: entropy decoding in Python, the inverse
DCT of T.81 A.3.3 in double precision. Baseline and extended sequential (SOF0, SOF1; 8 and 12 bit)
with Huffman coding, which is what DICOM allows under .50 and .51 (PS3.5 8.2.1). Chrominance is
enlarged with the centred triangle filter (JFIF 1.02 places the samples so), colour is converted
as JFIF says. An integer decoder may differ from it by 1 in a component (T.83).

This file must not know: DICOM, the bridge's transcoder.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridge.demo.jpeg_entropy import (
    BLOCK,
    DHT,
    DQT,
    DRI,
    EOI,
    SOS,
    ZIGZAG,
    Component,
    Frame,
    ReferenceDecodeError,
    ceil_divide,
    decode_scan,
    frame_header,
    huffman_tables,
    scan_end,
)

SOF_SEQUENTIAL = (0xC0, 0xC1)
TIES = {1: (0, 0), 4: (1, 2), 16: (8, 7)}
"""Added before the division when chrominance is enlarged: even and odd columns."""

_ANGLE = (2 * np.arange(8)[None, :] + 1) * np.arange(8)[:, None] * np.pi / 16
_COSINES: NDArray[np.float64] = np.cos(_ANGLE) / 2
_COSINES[0] /= np.sqrt(2)


def decode_sequential_jpeg(data: bytes) -> NDArray[np.uint8 | np.uint16]:
    """Decode one frame to (rows, columns, components), 8 bit in uint8 and 12 bit in uint16.

    Components come as they are coded, without a colour transform. Raises ReferenceDecodeError.
    """
    frame: Frame | None = None
    quantization: dict[int, NDArray[np.int64]] = {}
    huffman: dict[int, list[int]] = {}
    restart = 0
    at = 2
    while data[at : at + 2] != bytes((0xFF, EOI)) and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker in SOF_SEQUENTIAL:
            frame = frame_header(body)
        elif 0xC0 <= marker <= 0xCF and marker != DHT:
            raise ReferenceDecodeError(f"Not a sequential Huffman JPEG: marker {marker:02X}.")
        elif marker == DQT:
            quantization.update(_quantization_tables(body))
        elif marker == DHT:
            huffman.update(huffman_tables(body))
        elif marker == DRI:
            restart = int.from_bytes(body[:2], "big")
        elif marker == SOS:
            if frame is None:
                raise ReferenceDecodeError("A scan comes before the frame header.")
            end = scan_end(data, at)
            decode_scan(frame, body, data[at:end], huffman, restart)
            at = end
    if frame is None:
        raise ReferenceDecodeError("No frame header.")
    planes = [_plane(frame, c, quantization) for c in frame.components]
    image = np.stack([_enlarge(frame, c, p) for c, p in zip(frame.components, planes, strict=True)])
    samples = np.moveaxis(image, 0, -1)
    return samples.astype(np.uint8 if frame.precision == 8 else np.uint16)


def ycbcr_to_rgb(samples: NDArray[np.uint8 | np.uint16]) -> NDArray[np.uint8]:
    """Convert full range 8-bit YCbCr (..., 3) to RGB (JFIF 1.02; PS3.3 C.7.6.3.1.2)."""
    luma, blue, red = (samples[..., i].astype(np.float64) for i in range(3))
    rgb = (
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    )
    return np.clip(np.rint(np.stack(rgb, axis=-1)), 0, 255).astype(np.uint8)


def _quantization_tables(body: bytes) -> dict[int, NDArray[np.int64]]:
    tables = {}
    at = 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        size = BLOCK * (1 + wide)
        values = np.frombuffer(body[at + 1 : at + 1 + size], ">u2" if wide else "u1")
        table = np.zeros(BLOCK, np.int64)
        table[list(ZIGZAG)] = values
        tables[number] = table
        at += 1 + size
    return tables


def _plane(
    frame: Frame, component: Component, quantization: dict[int, NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Inverse quantization, inverse DCT and level shift of a component (T.81 A.3)."""
    high, wide = component.blocks_high, component.blocks_wide
    coefficients = np.zeros(high * wide * BLOCK, np.int64)
    coefficients[component.positions] = component.values
    blocks = coefficients.reshape(-1, BLOCK) * quantization[component.quantization]
    samples = _COSINES.T @ blocks.reshape(-1, 8, 8).astype(np.float64) @ _COSINES
    plane = samples.reshape(high, wide, 8, 8).swapaxes(1, 2).reshape(high * 8, wide * 8)
    middle = 1 << (frame.precision - 1)
    levels: NDArray[np.int64] = np.clip(np.rint(plane) + middle, 0, 2 * middle - 1).astype(np.int64)
    rows = ceil_divide(frame.rows * component.vertical, frame.vertical_max)
    columns = ceil_divide(frame.columns * component.horizontal, frame.horizontal_max)
    return levels[:rows, :columns]


def _enlarge(frame: Frame, component: Component, plane: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bring a component to the size of the image; factors 1 and 2 only."""
    scale = 1
    for axis, factor in (
        (0, frame.vertical_max // component.vertical),
        (1, frame.horizontal_max // component.horizontal),
    ):
        if factor == 2:
            plane, scale = _double(plane, axis), scale * 4
        elif factor != 1:
            raise ReferenceDecodeError(f"Subsampling by {factor} is not covered.")
    # Ties alternate by column, as in the decoders in use; always up would be a bias.
    bias = np.resize(np.array(TIES[scale]), plane.shape[1])
    rounded: NDArray[np.int64] = (plane + bias) // scale
    return rounded[: frame.rows, : frame.columns]


def _double(plane: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Twice as many samples along ``axis``, each 3/4 the nearer and 1/4 the further, times 4."""
    lines = np.moveaxis(plane, axis, 0)
    before = np.concatenate([lines[:1], lines[:-1]])
    after = np.concatenate([lines[1:], lines[-1:]])
    doubled = np.stack([3 * lines + before, 3 * lines + after], axis=1)
    return np.moveaxis(doubled.reshape(-1, *lines.shape[1:]), 0, axis)
