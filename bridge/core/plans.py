"""Pixel plans: what the Pixel Data element of the output holds, and what group 0028 must say.

This file must not know: sockets, files, clocks, logging, settings.
PS3.3 C.7.6.3.1 (photometric interpretation, planar configuration), C.7.6.1.1.5 (lossy);
PS3.5 8.1 (native), 8.2 and A.4 (encapsulated).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from bridge.core.codecs import DECODERS, Decoder, Encoder
from bridge.core.codestream import StreamError, StreamInfo, inspect
from bridge.core.decoders import DECODE_FAULTS
from bridge.core.elements import PIXEL_DATA, UNDEFINED
from bridge.core.encapsulation import SEQUENCE_DELIMITER, fragment_header, offset_table
from bridge.core.errors import InstanceError
from bridge.core.frames import CompressedFrames
from bridge.core.held import FrameSource
from bridge.core.model import Reason
from bridge.core.pixels import (
    HIGH_BIT,
    LOSSY,
    LOSSY_METHOD,
    LOSSY_RATIO,
    PHOTOMETRIC,
    PLANAR,
    STORED,
    Change,
    Description,
    number_change,
    text_change,
)
from bridge.core.rewrite import Chunk, element_header
from bridge.core.samples import Array, BitPacker, SamplesError, little_endian_bytes
from bridge.core.syntaxes import Family

NATIVE_BYTES_MAX = 0xFFFFFFFE
_EXTENDED_TABLES = (0x7FE00001, 0x7FE00002, 0x7FE00003)
_METHODS = {
    Family.JPEG_DCT: "ISO_10918_1",
    Family.JPEG_LS: "ISO_14495_1",
    Family.J2K: "ISO_15444_1",
    Family.HTJ2K: "ISO_15444_15",
    Family.JPEG_XL: "ISO_18181_1",
}


def decoded_photometric(d: Description, info: StreamInfo) -> str:
    """Return the Photometric Interpretation of the samples that decoding yields.

    Samples are never colour converted, only what the code stream itself defines is undone
    (JPEG 2000 component transforms, JPEG XL). So YBR_FULL_422 becomes YBR_FULL (the decoder
    has brought chroma to full resolution), YBR_RCT, YBR_ICT and XYB become RGB, the rest keeps
    its name, unless a JPEG's markers say otherwise. Raises InstanceError where no name is right.
    """
    name = d.photometric
    if d.samples != 3:
        return name
    full = name in ("YBR_FULL", "YBR_FULL_422")
    if info.family is Family.JPEG_DCT:
        if name in ("RGB", "YBR_RCT", "YBR_ICT") or full:
            claimed = {"rgb": "RGB", "ybr": "YBR_FULL"}.get(info.colour)
            if claimed or name == "RGB" or full:
                return claimed or ("YBR_FULL" if full else "RGB")
    elif info.family in (Family.J2K, Family.HTJ2K):
        contradicted = info.colour == "ybr" and (info.transformed or not full)  # by JP2 boxes
        if (name in ("RGB", "YBR_RCT", "YBR_ICT") or full) and not contradicted:
            return "YBR_FULL" if full and not info.transformed else "RGB"
    elif info.family is Family.JPEG_XL:
        if name in ("RGB", "XYB", "YBR_RCT", "YBR_ICT"):
            return "RGB"
    elif name == "RGB" or full:
        return "YBR_FULL" if full else "RGB"
    raise InstanceError(
        Reason.UNDECODABLE,
        f"Photometric Interpretation cannot hold for three components of {info.family.value}.",
    )


def decoded_changes(
    d: Description, info: StreamInfo, compressed_bytes: int, *, top: bool
) -> dict[int, Change | None]:
    """Return what group 0028 (and the offset tables) must say after decoding.

    Lossy Image Compression is never taken back; where a lossy code stream came without it, it
    is set, with its ratio and method. ``top``: False inside an icon, which has no such elements.
    """
    changes: dict[int, Change | None] = dict.fromkeys(_EXTENDED_TABLES)
    photometric = decoded_photometric(d, info)
    if photometric != d.photometric:
        changes[PHOTOMETRIC] = text_change(photometric)
    if d.samples > 1 and d.planar != 0:
        changes[PLANAR] = number_change(0)
    if top and info.lossy and not d.lossy:
        changes[LOSSY] = text_change("01")
        if not d.has_ratio:
            ratio = text_change(f"{d.native_bytes / max(compressed_bytes, 1):.2f}"[:16])
            changes[LOSSY_RATIO] = Change(b"DS", ratio.value)
        if not d.has_method:
            changes[LOSSY_METHOD] = text_change(_METHODS[info.family])
    return changes


def widened_changes(frames: CompressedFrames) -> dict[int, Change | None]:
    """Return what Bits Stored and High Bit must say once all frames that are held were decoded.

    What is decoded later must fit in it, for the header has been written.
    """
    frames.header_is_final = True
    if frames.bits_stored == frames.d.stored:
        return {}
    return {
        STORED: number_change(frames.bits_stored),
        HIGH_BIT: number_change(frames.bits_stored - 1),
    }


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
        expected = encoder.colour_transform and d.samples == 3 and d.photometric == "RGB"
        if not same or info.transformed != expected:
            raise InstanceError(
                Reason.VERIFICATION_FAILED, f"{where}: {self._checker.name} reads it differently."
            )
        return stream + b"\0" * (len(stream) & 1)


def encoded_changes(
    d: Description, encoder: Encoder, *, stored: Description | None = None
) -> dict[int, Change | None]:
    """Return what group 0028 must say beside losslessly compressed pixels (PS3.5 8.2).

    ``d`` describes the samples that are encoded, ``stored`` the source if that is another.
    """
    changes: dict[int, Change | None] = {}
    if stored is not None and stored.photometric != d.photometric:
        changes[PHOTOMETRIC] = text_change(d.photometric)
    if encoder.colour_transform and d.samples == 3 and d.photometric == "RGB":
        changes[PHOTOMETRIC] = text_change("YBR_RCT")
    if d.samples > 1 and d.planar != 0:
        changes[PLANAR] = number_change(0)
    return changes


def icon_changes(frames: CompressedFrames) -> dict[int, Change | None]:
    """Return the changes that make an icon's item native, its Pixel Data included."""
    changes = decoded_changes(frames.d, frames.first, frames.compressed_bytes, top=False)
    value = b"".join(native_value(frames))
    changes |= widened_changes(frames)
    return {**changes, PIXEL_DATA: Change(pixel_vr(frames.d), value)}


class Plan(Protocol):
    """The Pixel Data element of the output. ``body_bytes``: its length with header, or None."""

    body_bytes: int | None

    def chunks(self) -> Iterator[Chunk]:
        """Yield the element, made again at each call. Raises InstanceError."""
        ...
