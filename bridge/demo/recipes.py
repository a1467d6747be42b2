"""What the demo encodes itself: a table of image, transfer syntax and encoder.

The encoders are imagecodecs' (libjpeg-turbo, CharLS, OpenJPEG, OpenJPH, libjxl), zlib and
pydicom's RLE. A lossless entry keeps its original, which is then the truth that no decoder had a
hand in. Signed samples go to codecs without a notion of sign as the words that they are
(PS3.5 8.2.1: the sign is in the data set, not in the codestream).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.encoders.base import RLELosslessEncoder

from bridge.demo import images
from bridge.demo.images import Image
from bridge.dicom import syntaxes

Frame = NDArray[Any]
Encoder = Callable[[Frame], bytes]


class Layout(Enum):
    """How frames lie in fragments (PS3.5 A.4)."""

    TABLE = auto()
    """One fragment a frame and a basic offset table."""
    EMPTY_TABLE = auto()
    """One fragment a frame, the basic offset table empty."""
    FRAGMENTS = auto()
    """Three fragments a frame and a basic offset table."""
    EXTENDED_TABLE = auto()
    """One fragment a frame and an extended offset table."""


class Icon(Enum):
    """How the pixel data of an icon image is stored beside that of the image."""

    NATIVE = auto()
    ENCAPSULATED = auto()


@dataclass(frozen=True, slots=True)
class Recipe:
    """One instance to encode. ``encode`` is None for native pixel data.

    ``lossy`` is the compression method (0028,2114) of an irreversible encoding, else "".
    ``photometric`` is what the encoded image is labelled, where that differs from the original.
    """

    name: str
    syntax: str
    image: Callable[[], Image]
    encode: Encoder | None = None
    photometric: str = ""
    lossy: str = ""
    layout: Layout = Layout.TABLE
    icon: Icon | None = None


def _words(frame: Frame) -> Frame:
    """Return the same bits as unsigned integers."""
    return np.ascontiguousarray(frame).view(f"u{frame.dtype.itemsize}")


def _jpeg(frame: Frame, **options: Any) -> bytes:  # noqa: ANN401  (the codec's own options)
    return bytes(imagecodecs.jpeg8_encode(_words(frame), **options))


def _jpeg_lossless(predictor: int, bits: int) -> Encoder:
    return partial(_jpeg, lossless=True, predictor=predictor, bitspersample=bits)


def _jpeg_ls(frame: Frame, near: int = 0) -> bytes:
    return bytes(imagecodecs.jpegls_encode(_words(frame), level=near))


def _jpeg_2000(frame: Frame, **options: Any) -> bytes:  # noqa: ANN401
    return bytes(imagecodecs.jpeg2k_encode(frame, codecformat="J2K", numthreads=1, **options))


def _jpeg_2000_lossless(bits: int) -> Encoder:
    return partial(_jpeg_2000, level=0, reversible=True, bitspersample=bits)


def _htj2k(frame: Frame, **options: Any) -> bytes:  # noqa: ANN401
    return bytes(imagecodecs.htj2k_encode(frame, **options))


def _jpeg_xl(frame: Frame, **options: Any) -> bytes:  # noqa: ANN401
    return bytes(imagecodecs.jpegxl_encode(_words(frame), effort=3, numthreads=1, **options))


def _jpeg_xl_of_jpeg(frame: Frame, **options: Any) -> bytes:  # noqa: ANN401
    return bytes(imagecodecs.jpegxl_encode_jpeg(_jpeg(frame, **options), numthreads=1))


def _deflate(frame: Frame) -> bytes:
    """Raw deflate of the native frame (PS3.5 8.2.16)."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(frame.tobytes()) + compressor.flush()


def _rle(frame: Frame) -> bytes:
    samples = frame.shape[2] if frame.ndim == 3 else 1
    return RLELosslessEncoder.encode(
        frame,
        encoding_plugin="pydicom",
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=samples,
        number_of_frames=1,
        bits_allocated=frame.dtype.itemsize * 8,
        bits_stored=frame.dtype.itemsize * 8,
        pixel_representation=int(frame.dtype.kind == "i"),
        photometric_interpretation="RGB" if samples == 3 else "MONOCHROME2",
    )


def _as_is(frame: Frame) -> bytes:
    return frame.tobytes()


_HTJ2K_LOSSLESS = partial(_htj2k, reversible=True)
_JPEG_XL_LOSSLESS = partial(_jpeg_xl, lossless=True)
_J2K_16 = _jpeg_2000_lossless(16)
_RGB_J2K = _jpeg_2000_lossless(8)

_JPEG, _JLS, _J2K, _HTJ2K, _JXL = (
    "ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_15444_15", "ISO_18181_1",
)  # fmt: skip

RECIPES = (
    Recipe("ct512-implicit", syntaxes.IMPLICIT_LE, images.ct_large),
    Recipe("ct512-explicit", syntaxes.EXPLICIT_LE, images.ct_large),
    Recipe("ct512-big-endian", syntaxes.EXPLICIT_BE, images.ct_large),
    Recipe("palette-big-endian", syntaxes.EXPLICIT_BE, images.palette),
    Recipe("dose32-explicit", syntaxes.EXPLICIT_LE, images.dose),
    Recipe("ct512-deflated", syntaxes.DEFLATED_LE, images.ct_large),
    Recipe("palette-deflated", syntaxes.DEFLATED_LE, images.palette),
    Recipe("mr16s-encapsulated", syntaxes.ENCAPSULATED_UNCOMPRESSED, images.mr_small, _as_is),
    Recipe("ct-frames-encapsulated", syntaxes.ENCAPSULATED_UNCOMPRESSED, images.ct_frames, _as_is,
           layout=Layout.EMPTY_TABLE),
    Recipe("rgb-encapsulated", syntaxes.ENCAPSULATED_UNCOMPRESSED, images.colour, _as_is),
    Recipe("seg1-frame-deflated", syntaxes.DEFLATED_FRAME, images.segments, _deflate),
    Recipe("ct512-frame-deflated", syntaxes.DEFLATED_FRAME, images.ct_large, _deflate),
    Recipe("rgb-frames-frame-deflated", syntaxes.DEFLATED_FRAME, images.colour_frames, _deflate),
    Recipe("mr8-jpeg", syntaxes.JPEG_BASELINE, images.mr_8bit, partial(_jpeg, level=90),
           lossy=_JPEG),
    Recipe("rgb-jpeg-422", syntaxes.JPEG_BASELINE, images.colour,
           partial(_jpeg, level=90, subsampling="422"), "YBR_FULL_422", _JPEG),
    Recipe("rgb-jpeg-444", syntaxes.JPEG_BASELINE, images.colour,
           partial(_jpeg, level=90, subsampling="444"), "YBR_FULL", _JPEG),
    Recipe("rgb-jpeg-rgb", syntaxes.JPEG_BASELINE, images.colour,
           partial(_jpeg, level=90, colorspace="RGB", outcolorspace="RGB"), "RGB", _JPEG),
    Recipe("rgb-frames-jpeg", syntaxes.JPEG_BASELINE, images.colour_frames,
           partial(_jpeg, level=80, subsampling="422"), "YBR_FULL_422", _JPEG,
           Layout.EMPTY_TABLE),
    Recipe("mr12-jpeg-extended", syntaxes.JPEG_EXTENDED, images.mr_12bit,
           partial(_jpeg, level=90, bitspersample=12), lossy=_JPEG),
    Recipe("mr8-jpeg-extended", syntaxes.JPEG_EXTENDED, images.mr_8bit, partial(_jpeg, level=90),
           lossy=_JPEG),
    Recipe("mr8-lossless-p4", syntaxes.JPEG_LOSSLESS, images.mr_8bit, _jpeg_lossless(4, 8)),
    Recipe("mr12-lossless-p6", syntaxes.JPEG_LOSSLESS, images.mr_12bit, _jpeg_lossless(6, 12)),
    Recipe("ct512-lossless-p7", syntaxes.JPEG_LOSSLESS, images.ct_large, _jpeg_lossless(7, 16)),
    Recipe("mr8-lossless", syntaxes.JPEG_LOSSLESS_SV1, images.mr_8bit, _jpeg_lossless(1, 8)),
    Recipe("mr12-lossless", syntaxes.JPEG_LOSSLESS_SV1, images.mr_12bit, _jpeg_lossless(1, 12)),
    Recipe("mr16-lossless", syntaxes.JPEG_LOSSLESS_SV1, images.mr_16bit, _jpeg_lossless(1, 16)),
    Recipe("ct512-lossless", syntaxes.JPEG_LOSSLESS_SV1, images.ct_large, _jpeg_lossless(1, 16)),
    Recipe("rgb-lossless", syntaxes.JPEG_LOSSLESS_SV1, images.colour, _jpeg_lossless(1, 8)),
    Recipe("mr8-lossless-icon", syntaxes.JPEG_LOSSLESS_SV1, images.mr_8bit, _jpeg_lossless(1, 8),
           icon=Icon.ENCAPSULATED),
    Recipe("mr8-jpegls", syntaxes.JPEG_LS_LOSSLESS, images.mr_8bit, _jpeg_ls),
    Recipe("mr12-jpegls", syntaxes.JPEG_LS_LOSSLESS, images.mr_12bit, _jpeg_ls),
    Recipe("ct512-jpegls", syntaxes.JPEG_LS_LOSSLESS, images.ct_large, _jpeg_ls),
    Recipe("rgb-jpegls", syntaxes.JPEG_LS_LOSSLESS, images.colour, _jpeg_ls),
    Recipe("palette-jpegls", syntaxes.JPEG_LS_LOSSLESS, images.palette, _jpeg_ls),
    Recipe("ct-frames-jpegls", syntaxes.JPEG_LS_LOSSLESS, images.ct_frames, _jpeg_ls,
           layout=Layout.EMPTY_TABLE),
    Recipe("mr12-jpegls-near", syntaxes.JPEG_LS_NEAR, images.mr_12bit, partial(_jpeg_ls, near=2),
           lossy=_JLS),
    Recipe("mr16s-j2k", syntaxes.JPEG_2000_LOSSLESS, images.mr_small, _J2K_16),
    Recipe("mr12-j2k", syntaxes.JPEG_2000_LOSSLESS, images.mr_12bit, _jpeg_2000_lossless(12)),
    Recipe("ct512-j2k", syntaxes.JPEG_2000_LOSSLESS, images.ct_large, _J2K_16),
    Recipe("rgb-j2k", syntaxes.JPEG_2000_LOSSLESS, images.colour, _RGB_J2K, "YBR_RCT"),
    Recipe("ct-frames-j2k", syntaxes.JPEG_2000_LOSSLESS, images.ct_frames, _J2K_16,
           layout=Layout.EXTENDED_TABLE),
    Recipe("rgb-frames-j2k", syntaxes.JPEG_2000_LOSSLESS, images.colour_frames, _RGB_J2K,
           "YBR_RCT", layout=Layout.FRAGMENTS),
    Recipe("mr12-j2k-lossy", syntaxes.JPEG_2000, images.mr_12bit,
           partial(_jpeg_2000, level=70, reversible=False, bitspersample=12), lossy=_J2K),
    Recipe("rgb-j2k-lossy", syntaxes.JPEG_2000, images.colour,
           partial(_jpeg_2000, level=45, reversible=False), "YBR_ICT", _J2K),
    Recipe("ct-j2k-reversible", syntaxes.JPEG_2000, images.ct_small, _J2K_16),
    Recipe("ct512-htj2k", syntaxes.HTJ2K_LOSSLESS, images.ct_large, _HTJ2K_LOSSLESS),
    Recipe("rgb-htj2k", syntaxes.HTJ2K_LOSSLESS, images.colour, _HTJ2K_LOSSLESS,
           "YBR_RCT"),
    Recipe("ct-frames-htj2k-rpcl", syntaxes.HTJ2K_LOSSLESS_RPCL, images.ct_frames,
           partial(_htj2k, reversible=True, tlm=True)),
    Recipe("mr8-htj2k-rpcl", syntaxes.HTJ2K_LOSSLESS_RPCL, images.mr_8bit,
           partial(_htj2k, reversible=True, tlm=True)),
    Recipe("mr8-htj2k-lossy", syntaxes.HTJ2K, images.mr_8bit,
           partial(_htj2k, level=0.01, reversible=False), lossy=_HTJ2K),
    Recipe("ct-htj2k-reversible", syntaxes.HTJ2K, images.ct_small,
           _HTJ2K_LOSSLESS),
    Recipe("mr8-jpegxl", syntaxes.JPEG_XL_LOSSLESS, images.mr_8bit, _JPEG_XL_LOSSLESS),
    Recipe("mr12-jpegxl", syntaxes.JPEG_XL_LOSSLESS, images.mr_12bit,
           partial(_jpeg_xl, lossless=True, bitspersample=12)),
    Recipe("mr16-jpegxl", syntaxes.JPEG_XL_LOSSLESS, images.mr_16bit, _JPEG_XL_LOSSLESS),
    Recipe("rgb-frames-jpegxl", syntaxes.JPEG_XL_LOSSLESS, images.colour_frames,
           _JPEG_XL_LOSSLESS),
    Recipe("mr8-jpegxl-of-jpeg", syntaxes.JPEG_XL_RECOMPRESSION, images.mr_8bit,
           partial(_jpeg_xl_of_jpeg, level=90), lossy=_JPEG),
    Recipe("rgb-jpegxl-of-jpeg", syntaxes.JPEG_XL_RECOMPRESSION, images.colour,
           partial(_jpeg_xl_of_jpeg, level=90, colorspace="RGB", outcolorspace="RGB"), "RGB",
           _JPEG),
    Recipe("mr8-jpegxl-lossy", syntaxes.JPEG_XL, images.mr_8bit, partial(_jpeg_xl, distance=1.0),
           lossy=_JXL),
    Recipe("mr12-rle", syntaxes.RLE, images.mr_12bit, _rle),
    Recipe("palette-rle", syntaxes.RLE, images.palette, _rle),
    Recipe("ct-frames-rle", syntaxes.RLE, images.ct_frames, _rle, layout=Layout.EMPTY_TABLE),
    Recipe("mr8-rle-icon", syntaxes.RLE, images.mr_8bit, _rle, icon=Icon.NATIVE),
)  # fmt: skip
