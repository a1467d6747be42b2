"""Native pixel data to samples, by the book: byte order, bit packing, planes (PS3.5 8.1, 8.2).

For the demo's truth and its comparison. Must not know the bridge's transcoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

Samples = NDArray[Any]


def frame_count(dataset: Dataset) -> int:
    """Return Number of Frames (0028,0008), 1 where it is absent or empty."""
    return int(dataset.get("NumberOfFrames") or 1)


def samples_per_pixel(dataset: Dataset) -> int:
    """Return the samples stored for one pixel: 2 in native YBR_FULL_422 (PS3.3 C.7.6.3.1.2)."""
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        return 2
    return int(dataset.SamplesPerPixel)


def sample_type(dataset: Dataset) -> np.dtype[Any]:
    """Little endian type of one sample."""
    if dataset.BitsAllocated == 1:
        return np.dtype("u1")
    kind = "i" if dataset.PixelRepresentation else "u"
    return np.dtype(f"<{kind}{dataset.BitsAllocated // 8}")


def native_size(dataset: Dataset) -> int:
    """Bytes of native pixel data without the pad byte; frames of 1 bit follow without a gap."""
    count = frame_count(dataset) * dataset.Rows * dataset.Columns * samples_per_pixel(dataset)
    return -(-int(count) * int(dataset.BitsAllocated) // 8)


def little_endian(value: bytes, vr: str, bits_allocated: int) -> bytes:
    """Big endian native pixel data in little endian: samples, or the words of 8-bit OW."""
    size = max(bits_allocated // 8, 2 if vr == "OW" else 1)
    if size == 1:
        return value
    return np.frombuffer(value, f">u{size}").astype(f"<u{size}").tobytes()


def native_samples(value: bytes, dataset: Dataset) -> Samples:
    """Return little endian native pixel data as (frames, rows, columns, samples per pixel).

    1-bit pixels become 0 and 1; YBR_FULL_422 keeps its two stored bytes a pixel. ``dataset``
    lends its description only. Raises ValueError when ``value`` is too short.
    """
    frames, samples = frame_count(dataset), samples_per_pixel(dataset)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    count = frames * rows * columns * samples
    if dataset.BitsAllocated == 1:
        packed = np.frombuffer(value, np.uint8)
        flat: Samples = np.unpackbits(packed, bitorder="little")[:count]
    else:
        flat = np.frombuffer(value, sample_type(dataset), count=count)
    if samples == 3 and dataset.get("PlanarConfiguration") == 1:
        return np.moveaxis(flat.reshape(frames, samples, rows, columns), 1, -1)
    return flat.reshape(frames, rows, columns, samples)
