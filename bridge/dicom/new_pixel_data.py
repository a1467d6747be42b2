"""Pixel plans: what the Pixel Data element of the output holds.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 8.1 (native), 8.2 and A.4 (encapsulated). changed_elements.py has what group 0028 says then.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from bridge.dicom.changed_elements import decoded_changes, encoded_changes, widened_changes
from bridge.dicom.codecs import DECODERS, Decoder, Encoder
from bridge.dicom.codestream import StreamError, StreamInfo, inspect
from bridge.dicom.colour import decoded_photometric
from bridge.dicom.decoders import DECODE_FAULTS
from bridge.dicom.description import PHOTOMETRIC, Description, NewValue
from bridge.dicom.elements import PIXEL_DATA, UNDEFINED
from bridge.dicom.encapsulation import SEQUENCE_DELIMITER, fragment_header, offset_table
from bridge.dicom.file_meta import PREAMBLE_BYTES, looks_packed
from bridge.dicom.frames import CompressedFrames, FrameSource
from bridge.dicom.rewrite import Chunk, element_header
from bridge.dicom.samples import Array, BitPacker, SamplesError, little_endian_bytes
from bridge.errors import InstanceError
from bridge.model import Reason

NATIVE_BYTES_MAX = 0xFFFFFFFE


def pixel_vr(d: Description) -> bytes:
    """OW above eight bits allocated, else OB (PS3.5 A.2)."""
    return b"OW" if d.allocated > 8 else b"OB"


def refuse_above_32_bits(d: Description) -> None:
    """Raise InstanceError where the length of native pixel data would not fit (PS3.5 7.1.1)."""
    if d.native_bytes > NATIVE_BYTES_MAX:
        raise InstanceError(
            Reason.TOO_LARGE,
            f"{d.native_bytes} bytes of pixels are too large for the wanted syntax.",
        )


class NativePlan:
    """Decoded frames as native pixel data."""

    def __init__(self, frames: FrameSource, *, implicit: bool) -> None:
        d = frames.d
        self._frames = frames
        self._length = d.native_bytes + (d.native_bytes & 1)
        self._header = element_header(PIXEL_DATA, pixel_vr(d), self._length, implicit=implicit)
        self.body_bytes: int | None = len(self._header) + self._length

    def chunks(self) -> Iterator[Chunk]:
        """Yield the Pixel Data element. Raises InstanceError."""
        yield self._header
        yield from native_value(self._frames)


def native_value(frames: FrameSource) -> Iterator[Chunk]:
    """Yield the value of native Pixel Data, padded to even length."""
    d = frames.d
    if d.allocated == 1:
        packer = BitPacker()
        for array in frames:
            try:
                yield packer.add(array)
            except SamplesError as exc:
                raise InstanceError(Reason.UNDECODABLE, f"{exc}.") from exc
        yield packer.finish()
    else:
        for array in frames:
            yield little_endian_bytes(array)
    if d.native_bytes & 1:
        yield b"\0"


class EncodedPlan:
    """Frames compressed without loss, each decoded again and compared before it is yielded."""

    def __init__(
        self, frames: FrameSource, d: Description, encoder: Encoder, *, hold: bool
    ) -> None:
        self._frames = frames
        self._d = d
        self._encoder = encoder
        self._checker = self._independent()
        self._header = element_header(PIXEL_DATA, b"OB", UNDEFINED, implicit=False)
        self._held = list(self._encoded()) if hold else None
        self.body_bytes: int | None = None
        if self._held is not None:
            self.body_bytes = sum(len(chunk) for chunk in self.chunks())

    def _independent(self) -> Decoder:
        """The decoder for the comparison: of another library than the encoder if there is one."""
        table = DECODERS[self._encoder.family]
        return next((c for c in table if c.library != self._encoder.library), table[0])

    def chunks(self) -> Iterator[Chunk]:
        """Yield the Pixel Data element. Raises InstanceError."""
        yield self._header
        held = self._held
        yield offset_table(None if held is None else [len(stream) for stream in held])
        for stream in self._encoded() if held is None else held:
            yield fragment_header(len(stream))
            yield stream
        yield SEQUENCE_DELIMITER

    def _encoded(self) -> Iterator[bytes]:
        for index, array in enumerate(self._frames):
            yield self._encode(index, array)

    def _encode(self, index: int, array: Array) -> bytes:
        d, encoder = self._d, self._encoder
        where = f"Frame {index + 1} of {d.frames}, {encoder.name} as {encoder.family.value}"
        try:
            stream = encoder.encode(array, d)
        except DECODE_FAULTS as exc:
            raise InstanceError(
                Reason.UNSUPPORTED_SYNTAX,
                f"{where}: cannot be encoded ({type(exc).__name__}: {exc}).",
            ) from exc
        try:
            info = inspect(stream, encoder.family)
            same = np.array_equal(self._checker.decode(stream, info, d), array)
        except (StreamError, *DECODE_FAULTS) as exc:
            raise InstanceError(
                Reason.VERIFICATION_FAILED,
                f"{where}: {self._checker.name} refuses the result ({type(exc).__name__}).",
            ) from exc
        if not same or not self._label_holds(info):
            raise InstanceError(
                Reason.VERIFICATION_FAILED,
                f"{where}: {self._checker.name} decodes it to other samples.",
            )
        return stream + b"\0" * (len(stream) & 1)

    def _label_holds(self, info: StreamInfo) -> bool:
        """Whether the label that is written is right for this code stream, as others read it."""
        change = encoded_changes(self._d, self._encoder).get(PHOTOMETRIC)
        written = change.value.decode().strip() if change else self._d.photometric
        try:
            again = decoded_photometric(replace(self._d, photometric=written), info)
        except InstanceError:
            return False
        return again == self._d.photometric


def icon_changes(frames: CompressedFrames) -> dict[int, NewValue | None]:
    """Return the changes that make an icon's item native, its Pixel Data included."""
    changes = decoded_changes(frames, top=False)
    value = b"".join(native_value(frames))
    changes |= widened_changes(frames)
    return {**changes, PIXEL_DATA: NewValue(pixel_vr(frames.d), value)}


class PixelPlan(Protocol):
    """The Pixel Data element of the output. ``body_bytes``: its length with header, or None."""

    body_bytes: int | None

    def chunks(self) -> Iterator[Chunk]:
        """Yield the element, made again at each call. Raises InstanceError."""
        ...


# The output of a transcoding as chunks, and the deflated form of it.


class Body:
    """File meta information, data set up to the pixels, pixels, the rest.

    Iterate as often as needed: what was not held is decoded again. ``body_bytes``: exact length
    in bytes, or None where it is known only at the end.
    """

    def __init__(
        self,
        meta: Chunk,
        before: Sequence[Chunk],
        plan: PixelPlan | None,
        after: Sequence[Chunk],
        *,
        deflated: bool = False,
    ) -> None:
        self._meta = meta
        self._before = before
        self._plan = plan
        self._after = after
        self._deflated = deflated
        self.body_bytes: int | None = None
        if not deflated and (plan is None or plan.body_bytes is not None):
            fixed = sum(len(chunk) for chunk in (meta, *before, *after))
            self.body_bytes = fixed + ((plan.body_bytes or 0) if plan else 0)

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks, none empty. Raises InstanceError where a frame is at fault."""
        yield self._meta
        chunks = self._dataset()
        for chunk in _deflate(chunks) if self._deflated else chunks:
            if len(chunk):
                yield chunk

    def _dataset(self) -> Iterator[Chunk]:
        yield from self._before
        if self._plan is not None:
            yield from self._plan.chunks()
        yield from self._after

    def held(self) -> Body:
        """Return the same body with everything made now, so that its length is known."""
        meta, *rest = list(self)
        return Body(meta, rest, None, [])


def unchanged(data: memoryview) -> Body:
    """Return a whole file as it is, but for a preamble that makes it look like an archive.

    Nothing is copied.
    """
    if looks_packed(data):
        return Body(bytes(PREAMBLE_BYTES), [data[PREAMBLE_BYTES:]], None, [])
    return Body(data, [], None, [])


def _deflate(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """Compress as one raw deflate stream of even length (PS3.5 A.5)."""
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    written = 0
    for chunk in chunks:
        packed = engine.compress(chunk)
        written += len(packed)
        yield packed
    rest = engine.flush()
    yield rest + b"\0" * ((written + len(rest)) & 1)
