"""From what a decoder returns to the samples that the pixel description asks for.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section 8.1.1 (native encoding, one-bit packing) and 8.2 (what each codec can carry).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.dicom.description import Description

Array = NDArray[Any]


class SamplesError(ValueError):
    """The decoded samples contradict the pixel description."""


def to_container(array: Array, d: Description, *, precision: int, stream_signed: bool) -> Array:
    """Return ``array`` as contiguous samples of Bits Allocated and Pixel Representation.

    ``array``: one frame, (rows, columns) or (rows, columns, samples), integers of ``precision``
    significant bits. Values never change; where the code stream cannot carry a sign (JPEG,
    JPEG-LS) or carries the wrong one, two's complement of ``precision`` bits is widened.
    Raises SamplesError where that would be a guess.
    """
    shape = (d.rows, d.columns) if d.samples == 1 else (d.rows, d.columns, d.samples)
    if array.shape != shape:
        if array.size != d.frame_samples or array.shape[:2] != shape[:2]:
            raise SamplesError(f"decoded shape {array.shape}, expected {shape}")
        array = array.reshape(shape)
    if precision > d.allocated:
        raise SamplesError(f"{precision} bits decoded, {d.allocated} allocated")
    container = np.dtype(f"{'i' if d.signed else 'u'}{d.container_bytes}")
    if d.signed == stream_signed:
        return np.ascontiguousarray(array, dtype=container)
    bits = 8 * d.container_bytes
    if not d.signed:
        return _drop_sign(array, container, precision, d)
    if precision < d.stored and bool((array >> (precision - 1)).any()):
        raise SamplesError(f"signed samples in an unsigned stream of {precision} bits")
    widened = np.ascontiguousarray(array, dtype=f"u{d.container_bytes}").view(container)
    if precision == bits:
        return widened
    shift = bits - precision
    return np.ascontiguousarray((widened << shift) >> shift)


def _drop_sign(array: Array, container: np.dtype[Any], precision: int, d: Description) -> Array:
    """Unsigned samples that a code stream labelled as signed: the same bits, no sign."""
    if int(array.min()) >= 0:
        return np.ascontiguousarray(array, dtype=container)
    if precision < d.stored:
        raise SamplesError(f"unsigned samples in a signed stream of {precision} bits")
    mask = (1 << precision) - 1
    return np.ascontiguousarray(array.astype(np.int64) & mask, dtype=container)


def fits(array: Array, d: Description, *, stream_signed: bool) -> bool:
    """True if every sample is within Bits Stored, or the bits above are known to be in use.

    Readers of native pixel data cut off what is above Bits Stored: a lossy decoder's overshoot
    would turn white into black. Where the code stream carries no sign, two's complement of Bits
    Stored that is not widened fits too.
    """
    if d.spare_bits_used or not array.size:
        return True
    low, high = int(array.min()), int(array.max())
    least = -(1 << (d.stored - 1)) if d.signed else 0
    has_sign = d.signed and (low < 0 or stream_signed)
    most = 1 << (d.stored - 1 if has_sign else d.stored)
    return least <= low and high < most


def frame_array(
    frame: bytes | bytearray | memoryview, d: Description, *, big_endian: bool = False
) -> Array:
    """View the bytes of one native frame, colour by pixel, as an array."""
    mark = ">" if big_endian else "<"
    kind = "i" if d.signed else "u"
    shape = (d.rows, d.columns) if d.samples == 1 else (d.rows, d.columns, d.samples)
    flat = np.frombuffer(frame, dtype=f"{mark}{kind}{d.container_bytes}")
    return flat.reshape(shape).astype(flat.dtype.newbyteorder("="), copy=False)


def little_endian_bytes(array: Array) -> memoryview:
    """Return the array's samples as little endian bytes, without a copy on such a machine."""
    ordered = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return ordered.reshape(-1).view(np.uint8).data


class BitPacker:
    """Packs one-bit frames, eight pixels a byte, first pixel in the lowest bit.

    Frames follow each other without padding between them (PS3.5 8.1.1), so up to seven pixels
    of a frame wait for the next.
    """

    def __init__(self) -> None:
        self._rest = np.empty(0, dtype=np.uint8)

    def add(self, frame: Array) -> bytes:
        """Return the bytes completed by ``frame``. Raises SamplesError on a value over 1."""
        flat = frame.reshape(-1)
        if flat.size and int(flat.max()) > 1:
            raise SamplesError("a value above 1 in one-bit pixel data")
        bits = np.concatenate([self._rest, flat.astype(np.uint8)])
        whole = bits.size - bits.size % 8
        self._rest = bits[whole:]
        return np.packbits(bits[:whole], bitorder="little").tobytes()

    def finish(self) -> bytes:
        """Return the last byte, filled with zero bits, or nothing."""
        rest, self._rest = self._rest, self._rest[:0]
        return np.packbits(rest, bitorder="little").tobytes()
