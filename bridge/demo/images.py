"""Uncompressed images and their headers, from which the demo encodes what the wheel lacks.

Pixels are arrays of shape (frames, rows, columns, samples per pixel); 1-bit images hold 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames

from bridge.demo.pydicom_wheel import wheel_dataset

MULTI_FRAME_WORD_SC = "1.2.840.10008.5.1.4.1.1.7.3"

Samples = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Image:
    """An uncompressed image. ``header`` names the wheel file that lends its other elements."""

    header: str
    samples: Samples
    bits_stored: int
    photometric: str = "MONOCHROME2"
    sop_class: str = ""

    @property
    def bits_allocated(self) -> int:
        """Bits of one sample in native pixel data (0028,0100)."""
        return 1 if self.bits_stored == 1 else self.samples.dtype.itemsize * 8

    @property
    def signed(self) -> bool:
        """Whether samples are two's complement (0028,0103)."""
        return self.samples.dtype.kind == "i"

    def native_frames(self) -> list[bytes]:
        """Each frame as native little endian pixel data, colour by pixel (PS3.5 8.1.1)."""
        if self.bits_allocated == 1:
            flat = self.samples.reshape(len(self.samples), -1).astype(np.uint8)
            return [np.packbits(frame, bitorder="little").tobytes() for frame in flat]
        little = self.samples.astype(self.samples.dtype.newbyteorder("<"))
        return [frame.tobytes() for frame in little]


def _native(name: str, dtype: str, samples: int = 1) -> Samples:
    dataset = wheel_dataset(name)
    shape = (-1, int(dataset.Rows), int(dataset.Columns), samples)
    count = int(dataset.get("NumberOfFrames") or 1) * int(np.prod(shape[1:]))
    return np.frombuffer(dataset.PixelData, dtype, count=count).reshape(shape)


@lru_cache(maxsize=1)
def ct_small() -> Image:
    """Signed 16 bit, 128 x 128."""
    return Image("CT_small.dcm", _native("CT_small.dcm", "<i2"), 16)


@lru_cache(maxsize=1)
def ct_frames() -> Image:
    """Signed 16 bit, 3 different frames of 128 x 128."""
    slice_ = ct_small().samples[0]
    frames = np.stack([slice_, slice_[::-1], slice_.swapaxes(0, 1)])
    return Image("CT_small.dcm", frames, 16, sop_class=MULTI_FRAME_WORD_SC)


@lru_cache(maxsize=1)
def ct_large() -> Image:
    """Signed 16 bit, 512 x 512: what most of a CT archive looks like."""
    dataset = wheel_dataset("J2K_pixelrep_mismatch.dcm")
    codestream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    slice_ = imagecodecs.jpeg2k_decode(codestream).astype(np.int16)
    return Image("J2K_pixelrep_mismatch.dcm", slice_[None, :, :, None], 16)


@lru_cache(maxsize=1)
def mr_small() -> Image:
    """Signed 16 bit, 64 x 64."""
    return Image("MR_small.dcm", _native("MR_small.dcm", "<i2"), 16)


@lru_cache(maxsize=1)
def mr_12bit() -> Image:
    """Unsigned, 12 of 16 bit, 300 x 484, with an overlay in its header."""
    return Image("examples_overlay.dcm", _native("examples_overlay.dcm", "<u2"), 12)


@lru_cache(maxsize=1)
def mr_16bit() -> Image:
    """Unsigned, all 16 bits in use, 300 x 484."""
    return replace(mr_12bit(), samples=mr_12bit().samples * np.uint16(58), bits_stored=16)


@lru_cache(maxsize=1)
def mr_8bit() -> Image:
    """Unsigned 8 bit, 300 x 484."""
    return replace(mr_12bit(), samples=(mr_12bit().samples >> 4).astype(np.uint8), bits_stored=8)


@lru_cache(maxsize=1)
def colour() -> Image:
    """RGB, 8 bit, 240 x 320."""
    return Image("examples_rgb_color.dcm", _native("examples_rgb_color.dcm", "u1", 3), 8, "RGB")


@lru_cache(maxsize=1)
def colour_frames() -> Image:
    """RGB, 8 bit, 3 different frames of 240 x 320."""
    frame = colour().samples[0]
    frames = np.stack([frame, frame[:, ::-1], frame[::-1]])
    return replace(colour(), samples=frames, sop_class="1.2.840.10008.5.1.4.1.1.3.1")


@lru_cache(maxsize=1)
def palette() -> Image:
    """8 bit indices into 16-bit colour tables, 350 x 800."""
    return Image("examples_palette.dcm", _native("examples_palette.dcm", "u1"), 8, "PALETTE COLOR")


@lru_cache(maxsize=1)
def dose() -> Image:
    """Unsigned 32 bit, 15 frames of 10 x 10."""
    return Image("rtdose.dcm", _native("rtdose.dcm", "<u4"), 32)


@lru_cache(maxsize=1)
def segments() -> Image:
    """1 bit, 2 frames of 512 x 512."""
    packed = np.frombuffer(wheel_dataset("liver_1frame.dcm").PixelData, np.uint8)
    bits = np.unpackbits(packed, bitorder="little")[: 512 * 512].reshape(1, 512, 512, 1)
    return Image("liver_1frame.dcm", np.concatenate([bits, bits[:, ::-1]]), 1)
