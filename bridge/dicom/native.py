"""Native pixel data as frames, and its byte order.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section 8.1 (native encoding), Annex A.3 (big endian); PS3.3 C.7.6.3.1.2 (YBR_FULL_422).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from bridge.dicom.description import ALLOCATED, Description, number_of
from bridge.dicom.elements import Element, Reader
from bridge.dicom.frames import Evidence
from bridge.dicom.rewrite import Chunk, element_header
from bridge.dicom.samples import Array, frame_array
from bridge.dicom.vrs import sample_word_bytes, shown, swapped
from bridge.errors import InstanceError
from bridge.model import Reason


def pixel_word_bytes(vr: bytes, allocated: int) -> int:
    """Return the unit of byte order of big endian Pixel Data in bytes (1: none).

    Raises InstanceError where two readings are in use.
    """
    unit = sample_word_bytes(vr, allocated)
    if unit is None:
        raise InstanceError(
            Reason.UNDECODABLE,
            f"Big endian samples of {allocated} bits in {shown(vr)} can be read in two ways.",
        )
    return unit


_BLOCK_BYTES = 1 << 20


class SwappedPlan:
    """Big endian native Pixel Data as little endian, a block at a time."""

    def __init__(
        self, reader: Reader, elements: Iterable[Element], pixel: Element, *, implicit: bool
    ) -> None:
        allocated = next((number_of(reader, e) for e in elements if e.tag == ALLOCATED), None)
        self._value = reader.data[pixel.value : pixel.stop]
        self._word_bytes = pixel_word_bytes(pixel.vr, allocated or 0)
        odd = len(self._value) & 1
        self._padding = bytes(odd)
        length = len(self._value) + odd
        self._header = element_header(pixel.tag, pixel.vr, length, implicit=implicit)
        self.body_bytes: int | None = len(self._header) + length

    def chunks(self) -> Iterator[Chunk]:
        """Yield the Pixel Data element."""
        yield self._header
        for start in range(0, len(self._value), _BLOCK_BYTES):
            block = self._value[start : start + _BLOCK_BYTES]
            yield block if self._word_bytes == 1 else swapped(block, self._word_bytes)
        yield self._padding


class NativeFrames:
    """Frames of native Pixel Data, colour by pixel, chroma at full resolution.

    ``d`` describes what is yielded: YBR_FULL_422 (two bytes a pixel) becomes YBR_FULL by
    repeating each chroma sample, which loses nothing. ``as_stored`` leaves unused bits alone.
    """

    def __init__(
        self,
        data: memoryview,
        element: Element,
        d: Description,
        *,
        big_endian: bool,
        as_stored: bool = False,
    ) -> None:
        self.evidence = Evidence(decoder="native")
        self._as_stored = as_stored
        self._value = data[element.value : element.stop]
        self._stored = d
        self._word_bytes = pixel_word_bytes(element.vr, d.allocated) if big_endian else 1
        if self._word_bytes > 1 and d.allocated < 16:  # bytes in OW: swapped in pairs
            self._value = memoryview(swapped(self._value, self._word_bytes))
            self._word_bytes = 1
        self._subsampled = d.photometric == "YBR_FULL_422" and d.samples == 3
        self._check()
        self.d = replace(d, photometric="YBR_FULL") if self._subsampled else d

    def _check(self) -> None:
        d = self._stored
        if d.allocated not in (1, 8, 16, 32):
            self._refuse(f"{d.allocated} bits allocated")
        if "_4" in d.photometric and (not self._subsampled or d.columns % 2 or d.allocated != 8):
            self._refuse("a subsampled colour layout")
        if self._subsampled:
            self._frame_bytes = d.rows * d.columns * 2
            total = self._frame_bytes * d.frames
        else:
            self._frame_bytes = d.frame_array_bytes
            total = d.native_bytes
        surplus = len(self._value) - total
        # Less than a frame: what is longer is not looked at, it may be all of a large file.
        padding = surplus * d.frames < total and not bytes(self._value[total:]).strip(b"\0")
        if surplus < 0 or (surplus > 1 and not padding):
            raise InstanceError(
                Reason.UNDECODABLE, f"{len(self._value)} bytes of pixels, {total} expected."
            )

    @staticmethod
    def _refuse(what: str) -> None:
        raise InstanceError(
            Reason.UNSUPPORTED_SYNTAX, f"Native pixel data with {what} cannot be compressed here."
        )

    def __iter__(self) -> Iterator[Array]:
        """Yield every frame."""
        for index in range(self._stored.frames):
            if self._stored.allocated == 1:
                yield self._bits(index)
            else:
                frame = self._frame(index)
                yield frame if self._as_stored else with_sign(frame, self._stored)

    def _frame(self, index: int) -> Array:
        d, size = self._stored, self._frame_bytes
        frame = self._value[index * size : (index + 1) * size]
        if self._subsampled:
            pairs = np.frombuffer(frame, dtype=np.uint8).reshape(d.rows, d.columns // 2, 4)
            first = pairs[..., (0, 2, 3)]
            second = pairs[..., (1, 2, 3)]
            return np.stack([first, second], axis=2).reshape(d.rows, d.columns, 3)
        if d.samples > 1 and d.planar == 1:
            planes = frame_array(
                frame,
                replace(d, rows=d.samples * d.rows, samples=1),
                big_endian=self._word_bytes > 1,
            )
            by_plane = planes.reshape(d.samples, d.rows, d.columns)
            return np.ascontiguousarray(np.moveaxis(by_plane, 0, -1))
        return frame_array(frame, d, big_endian=self._word_bytes > 1)

    def _bits(self, index: int) -> Array:
        d = self._stored
        start = index * d.frame_samples
        first, skip = divmod(start, 8)
        packed = self._value[first : (start + d.frame_samples + 7) // 8]
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
        shape = (d.rows, d.columns) if d.samples == 1 else (d.rows, d.columns, d.samples)
        return np.ascontiguousarray(bits[skip : skip + d.frame_samples].reshape(shape))


def with_sign(array: Array, d: Description) -> Array:
    """Widen two's complement of Bits Stored to the container where the unused bits are zero.

    The sample is the same (PS3.5 8.1.1), but readers of compressed data take what the decoder
    returns for the sample. Unused bits that are in use (overlays, retired) stay.
    """
    shift = d.allocated - d.stored
    if not d.signed or not shift or d.spare_bits_used:
        return array
    if bool((array.view(f"u{d.container_bytes}") >> d.stored).any()):
        return array
    return np.ascontiguousarray((array << shift) >> shift)
