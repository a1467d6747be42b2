"""Decode a built-in sample with every decoder of a family: a check of the libraries."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np

from bridge.dicom import encoders
from bridge.dicom.codecs import DECODERS
from bridge.dicom.codestream import StreamInfo, inspect
from bridge.dicom.decoders import DECODE_FAULTS
from bridge.dicom.description import Description
from bridge.dicom.samples import Array
from bridge.dicom.syntaxes import Family
from bridge.errors import InstanceError
from bridge.model import Reason

SIDE = 32
LOSSY_TOLERANCE = 8
"""Grey levels by which a lossy JPEG of a smooth ramp may differ."""

HEADERLESS = (Family.RAW, Family.DEFLATE)

_DESCRIPTION = Description(
    rows=SIDE,
    columns=SIDE,
    samples=1,
    photometric="MONOCHROME2",
    planar=None,
    allocated=8,
    stored=8,
    signed=False,
    frames=1,
    lossy="",
)


def _raw_deflate(sample: Array, _: Description) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(sample.tobytes()) + engine.flush()


_ENCODE: dict[Family, Callable[[Array, Description], bytes]] = {
    Family.RAW: lambda sample, _: sample.tobytes(),
    Family.DEFLATE: _raw_deflate,
    Family.RLE: encoders.rle,
    Family.JPEG_DCT: lambda sample, _: bytes(imagecodecs.jpeg8_encode(sample, level=95)),
    Family.JPEG_LOSSLESS: encoders.jpeg_lossless_sv1,
    Family.JPEG_LS: encoders.jpeg_ls,
    Family.J2K: encoders.jpeg_2000,
    Family.HTJ2K: encoders.htj2k,
    Family.JPEG_XL: lambda sample, _: bytes(imagecodecs.jpegxl_encode(sample, lossless=True)),
}


def decode_sample(family: Family) -> None:
    """Decode the sample with every decoder of ``family``.

    Raises InstanceError(UNDECODABLE) that names the decoder that is missing or wrong.
    """
    sample = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    sample = (sample // 5).astype(np.uint8)
    frame = _ENCODE[family](sample, _DESCRIPTION)
    # Raw and deflated frames have no header that could be inspected.
    info = inspect(frame, family) if family not in HEADERLESS else StreamInfo(family)
    tolerance = LOSSY_TOLERANCE if family is Family.JPEG_DCT else 0
    for decoder in DECODERS[family]:
        try:
            decoded = decoder.decode(frame, info, _DESCRIPTION).reshape(SIDE, SIDE)
        except DECODE_FAULTS as exc:
            raise _broken(decoder.name, type(exc).__name__) from exc
        if np.abs(decoded.astype(np.int32) - sample).max() > tolerance:
            raise _broken(decoder.name, "wrong pixels")


def _broken(name: str, how: str) -> InstanceError:
    return InstanceError(Reason.UNDECODABLE, f"{name} fails on the built-in sample ({how}).")
