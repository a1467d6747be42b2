"""Lossless encoder functions: one array in, one code stream out, or an exception.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section 8.2 says what each code stream may carry. Nothing here is trusted: the caller
decodes every frame again and compares.
"""

from __future__ import annotations

from struct import unpack_from

import imagecodecs
import numpy as np
from rle.utils import encode_pixel_data

from bridge.dicom.description import Description
from bridge.dicom.samples import Array, SamplesError, little_endian_bytes

_J2K_BITS_MAX = 24
_APP8 = 0xE8


def rle(array: Array, d: Description) -> bytes:
    """RLE of 8, 16 or 32 bits allocated (PS3.5 Annex G)."""
    if d.allocated not in (8, 16, 32):
        raise SamplesError(f"RLE of {d.allocated} bits allocated is not defined")
    return encode_pixel_data(
        bytes(little_endian_bytes(array)),
        byteorder="<",
        rows=d.rows,
        columns=d.columns,
        samples_per_pixel=d.samples,
        bits_allocated=d.allocated,
    )


def precision_of(array: Array, d: Description) -> int:
    """Return the bits a code stream needs: Bits Stored, or all where values do not fit in them.

    Values above Bits Stored are legal: overlays in unused bits (retired, PS3.5 8.1.2), and
    signed samples whose unused bits are not a sign.
    """
    if not array.size:
        return d.allocated
    low, high = int(array.min()), int(array.max())
    limit = 1 << (d.stored - (1 if d.signed else 0))
    fits = high < limit and low >= (-limit if d.signed else 0)
    return d.stored if fits else d.allocated


def jpeg_2000(array: Array, d: Description) -> bytes:
    """JPEG 2000 reversible, one tile, one layer; RGB with the reversible component transform."""
    precision = 1 if d.allocated == 1 else precision_of(array, d)
    if precision > _J2K_BITS_MAX:
        raise SamplesError(f"JPEG 2000 of {precision} bits is beyond the encoder")
    rgb = d.photometric == "RGB" and d.samples == 3
    # imagecodecs' wrapper: pylibjpeg-openjpeg's refuses images smaller than 32 pixels a side.
    return bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(array),
            level=0,
            reversible=True,
            codecformat="j2k",
            bitspersample=precision,
            mct=rgb,
            numthreads=1,
        )
    )


def htj2k(array: Array, d: Description) -> bytes:
    """HTJ2K reversible; RGB with the reversible component transform. Precision = Allocated."""
    if d.allocated not in (8, 16):
        raise SamplesError(f"HTJ2K of {d.allocated} bits allocated is beyond the encoder")
    rgb = d.photometric == "RGB" and d.samples == 3
    return bytes(imagecodecs.htj2k_encode(np.ascontiguousarray(array), reversible=True, rgb=rgb))


def jpeg_ls(array: Array, d: Description) -> bytes:
    """JPEG-LS, NEAR=0, without the SPIFF header that CharLS' C interface puts in front."""
    stream = bytes(imagecodecs.jpegls_encode(_unsigned(array, d)))
    return _without_app8(stream)


def jpeg_lossless_sv1(array: Array, d: Description) -> bytes:
    """JPEG process 14, selection value 1, point transform 0. No colour transform.

    Adobe's transform 0 says RGB; without a marker nothing is said of the colour. (JFIF would say
    YCbCr, but libjpeg-turbo then writes scan headers that name wrong Huffman tables.)
    """
    samples = _unsigned(array, d)
    precision = d.allocated if d.signed else max(2, precision_of(array, d))
    if d.samples == 1:
        return bytes(
            imagecodecs.jpeg8_encode(samples, lossless=True, predictor=1, bitspersample=precision)
        )
    space = "RGB" if d.photometric == "RGB" else "UNKNOWN"
    return bytes(
        imagecodecs.jpeg8_encode(
            samples,
            lossless=True,
            predictor=1,
            bitspersample=precision,
            colorspace=space,
            outcolorspace=space,  # equal: nothing is converted
        )
    )


def _unsigned(array: Array, d: Description) -> Array:
    """View as unsigned: JPEG and JPEG-LS carry no sign, the container's bits are coded."""
    if d.allocated not in (8, 16):
        raise SamplesError(f"{d.allocated} bits allocated are beyond this code stream")
    return np.ascontiguousarray(array).view(f"u{d.container_bytes}")


def _without_app8(stream: bytes) -> bytes:
    """Drop the APP8 segments between SOI and the first other marker."""
    pos = 2
    while stream[pos] == 0xFF and stream[pos + 1] == _APP8:
        pos += 2 + unpack_from(">H", stream, pos + 2)[0]
    return stream[:2] + stream[pos:]
