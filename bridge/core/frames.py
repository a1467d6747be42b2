"""Frames out of compressed pixel data, one at a time: find, inspect, decode, repair, check.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 sections 8.2 and A.4. Nothing is guessed: what does not fit raises InstanceError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from bridge.core.codecs import DECODERS, Decoder
from bridge.core.codestream import (
    StreamError,
    StreamInfo,
    another_follows,
    holds_jpeg,
    inspect,
    looks_like_rle,
    sniff_family,
    tile_parts_end,
)
from bridge.core.decoders import DECODE_FAULTS, may_be_cut, restored_jpeg
from bridge.core.encapsulation import Fragments, group_frames
from bridge.core.errors import InstanceError
from bridge.core.evidence import Evidence
from bridge.core.model import Reason
from bridge.core.pixels import Description
from bridge.core.samples import Array, fits, little_endian_bytes
from bridge.core.syntaxes import Family, Syntax

_JPEG_2000 = frozenset([Family.J2K, Family.HTJ2K])
_JPEG_HUFFMAN = frozenset([Family.JPEG_DCT, Family.JPEG_LOSSLESS])
_MARKED = frozenset(
    [
        Family.JPEG_DCT,
        Family.JPEG_LOSSLESS,
        Family.JPEG_LS,
        Family.J2K,
        Family.HTJ2K,
        Family.JPEG_XL,
    ]
)
_EOI = b"\xff\xd9"
_PROBES = (b"\x55" * 64, b"\xaa" * 64)


class CompressedFrames:
    """The frames of one encapsulated Pixel Data element.

    ``first`` is the header of frame 0: colour and loss are the same for all frames, or the
    instance is refused. ``bits_stored`` is Bits Stored for the frames decoded so far: it grows
    to the code stream's precision where lossy samples pass it, until ``header_is_final``.
    """

    def __init__(
        self,
        data: memoryview,
        fragments: Fragments,
        d: Description,
        syntax: Syntax,
        *,
        extended_table: Sequence[int] = (),
        verify: bool = False,
        hash_samples: bool = False,
    ) -> None:
        self.d = d
        self._data = data
        self._syntax = syntax
        self._verify = verify
        self._hash_samples = hash_samples
        self._hasher = hashlib.sha256()
        self.spans = group_frames(
            fragments,
            d.frames,
            extended_table=extended_table,
            begins_frame=self._begins_frame,
            marked=syntax.family in _MARKED,
        )
        self.evidence = Evidence()
        self.bits_stored = d.stored
        self.header_is_final = False
        self._ahead: tuple[bytes, StreamInfo] | None = self._opened(0)
        self.first = self._ahead[1]

    def _begins_frame(self, start: int, stop: int) -> bool:
        head = bytes(self._data[start : min(stop, start + 16)])
        if self._syntax.family in _MARKED:
            return sniff_family(head) not in (Family.NONE, Family.RLE)
        return self._syntax.family is not Family.RLE or looks_like_rle(head)

    def frame(self, index: int) -> bytes:
        """Return the code stream of frame ``index``, its fragments joined."""
        spans = self.spans[index]
        if len(spans) == 1:
            return bytes(self._data[spans[0][0] : spans[0][1]])
        return b"".join(self._data[start:stop] for start, stop in spans)

    @property
    def compressed_bytes(self) -> int:
        """Bytes of all code streams."""
        return sum(stop - start for spans in self.spans for start, stop in spans)

    def _fault(self, index: int, what: str, reason: Reason = Reason.UNDECODABLE) -> InstanceError:
        return InstanceError(
            reason,
            f"Frame {index + 1} of {self.d.frames} ({self._syntax.keyword}): {what}.",
            source_syntax=self._syntax.uid,
        )

    def _opened(self, index: int) -> tuple[bytes, StreamInfo]:
        """Return the code stream that is to be decoded, and its header.

        A JPEG that was recompressed as JPEG XL is restored first: decoded as JPEG its samples
        are those of the original, libjxl's own differ by rounding and are colour converted.
        """
        frame = self.frame(index)
        info = self._inspect(index, frame, self._syntax.family)
        if info.family is Family.JPEG_XL and holds_jpeg(frame):
            try:
                frame = restored_jpeg(frame)
            except DECODE_FAULTS as exc:
                raise self._fault(index, f"libjxl refused ({exc})") from exc
            return frame, self._inspect(index, frame, Family.JPEG_DCT)
        return frame, info

    def _inspect(self, index: int, frame: bytes, family: Family) -> StreamInfo:
        """Read the frame's header and compare it with the data set's."""
        if family is Family.RAW or family is Family.DEFLATE:
            info = StreamInfo(family, lossy=False)
        else:
            try:
                info = inspect(frame, family)
            except StreamError as exc:
                raise self._fault(index, str(exc)) from exc
        if info.family is not family:
            raise self._fault(
                index, f"the code stream is {info.family.value}", Reason.WRONG_SYNTAX_LABEL
            )
        if info.rows and (info.rows, info.columns, info.samples or self.d.samples) != (
            self.d.rows,
            self.d.columns,
            self.d.samples,
        ):
            raise self._fault(
                index,
                f"the code stream has {info.rows} rows, {info.columns} columns, "
                f"{info.samples or self.d.samples} samples; "
                f"the data set {self.d.rows}, {self.d.columns}, {self.d.samples}",
            )
        if info.family in _MARKED and another_follows(frame, info):
            raise self._fault(index, "another code stream follows in it")
        return info

    def __iter__(self) -> Iterator[Array]:
        """Yield every frame decoded. Raises InstanceError."""
        for index in range(self.d.frames):
            yield self.decode(index)

    def decode(self, index: int) -> Array:
        """Return frame ``index`` decoded. Raises InstanceError.

        The evidence is complete when the last frame was decoded after all others.
        """
        ahead, self._ahead = self._ahead, None
        frame, info = ahead if ahead is not None and index == 0 else self._opened(index)
        if (info.colour, info.transformed, info.lossy) != (
            self.first.colour,
            self.first.transformed,
            self.first.lossy,
        ):
            raise self._fault(index, "colour or loss differ from the first frame's")
        array = self._decode(index, frame, info)
        self._hash(index, array)
        return array

    def _hash(self, index: int, array: Array) -> None:
        if not self._hash_samples:
            return
        if index == 0:
            self._hasher = hashlib.sha256()
        self._hasher.update(little_endian_bytes(array))
        if index == self.d.frames - 1:
            self.evidence.samples_sha256 = self._hasher.hexdigest()

    def _decode(self, index: int, frame: bytes, info: StreamInfo) -> Array:
        if index == 0:
            self.evidence.verified_frames = 0
        frame, info = self._completed(index, frame, info)
        decoders = DECODERS[info.family]
        refusals: list[str] = []
        for position, decoder in enumerate(decoders):
            if position and not (
                decoder.fallback and not (decoder.lossless_only and self._lossy(info))
            ):
                continue
            try:
                array = decoder.decode(frame, info, self.d)
            except DECODE_FAULTS as exc:
                refusals.append(f"{decoder.name} refused ({type(exc).__name__}: {exc})")
                continue
            if refusals and not self._confirmed(position, frame, info, array):
                refusals.append(f"{decoder.name} is alone with its result")
                continue
            if info.family in _JPEG_HUFFMAN and not refusals and may_be_cut(frame, info, array):
                # rstrip: the end marker may have fill bytes before it.
                self._refuse_cut(index, frame[: frame.rfind(_EOI)].rstrip(b"\xff"), info, array)
            if self._lossy(info) and info.precision > self.bits_stored:
                self._widen(index, array, info)
            self._note(decoder, index, refused=bool(refusals))
            if self._verify and not self._lossy(info):
                self._check(index, frame, info, array, decoder)
            return array
        raise self._fault(index, "; ".join(refusals)[:500])

    def _widen(self, index: int, array: Array, info: StreamInfo) -> None:
        """Let Bits Stored be the code stream's where lossy samples need it and have no sign."""
        described = replace(self.d, stored=self.bits_stored)
        if fits(array, described, stream_signed=info.signed):
            return
        if self.header_is_final or self.d.signed or info.signed:
            raise self._fault(index, f"lossy samples beyond the {self.bits_stored} bits stored")
        self.bits_stored = info.precision

    def _confirmed(self, position: int, frame: bytes, info: StreamInfo, array: Array) -> bool:
        """True if the next decoder after a fallback agrees with it, or there is none.

        The preferred decoder refuses damage that some others decode to something.
        """
        for other in DECODERS[info.family][position + 1 :]:
            try:
                return np.array_equal(other.decode(frame, info, self.d), array)
            except DECODE_FAULTS:
                return False
        return True

    def _lossy(self, info: StreamInfo) -> bool:
        return info.lossy is True or (info.lossy is None and not self._syntax.lossless)

    def _note(self, decoder: Decoder, index: int, *, refused: bool) -> None:
        if refused and decoder.name not in self.evidence.fallbacks:
            self.evidence.fallbacks.append(decoder.name)
        if not self.evidence.decoder or (index == 0 and refused):
            restored = self._syntax.family is Family.JPEG_XL and decoder.name != "libjxl"
            self.evidence.decoder = ("libjxl, " if restored else "") + decoder.name

    def _check(
        self, index: int, frame: bytes, info: StreamInfo, array: Array, used: Decoder
    ) -> None:
        """Decode again with an independent decoder; disagreement is an InstanceError."""
        for checker in DECODERS[info.family]:
            if not checker.checks or checker.name == used.name:
                continue
            try:
                again = checker.decode(frame, info, self.d)
            except DECODE_FAULTS:
                continue  # its refusal says nothing about the frame: another may check
            if not np.array_equal(again, array):
                raise self._fault(
                    index,
                    f"{used.name} and {checker.name} decode it differently",
                    Reason.VERIFICATION_FAILED,
                )
            self.evidence.checker = checker.name
            self.evidence.verified_frames += 1
            return

    def _completed(self, index: int, frame: bytes, info: StreamInfo) -> tuple[bytes, StreamInfo]:
        """Add a missing end marker where the frame is whole without it; else raise.

        libjpeg fills what is missing with grey and says nothing, so a Huffman-coded frame is
        decoded with two different tails: only where neither changes a sample is it whole.
        JPEG 2000 tile parts know their length; the JPEG-LS decoder refuses a short frame itself.
        """
        if info.complete:
            return frame, info
        if info.family in _JPEG_2000:
            try:
                frame = frame[: tile_parts_end(frame, info.header_at)]
            except StreamError as exc:
                raise self._fault(index, f"no end marker, and {exc}") from exc
        elif info.family in _JPEG_HUFFMAN:
            self._refuse_cut(index, frame, info, self._probe(index, frame + _EOI, info))
        return frame + _EOI, replace(info, complete=True)

    def _refuse_cut(self, index: int, scan: bytes, info: StreamInfo, array: Array) -> None:
        """Refuse a JPEG whose samples depend on what is put between ``scan`` and its end marker."""
        for tail in _PROBES:
            if not np.array_equal(self._probe(index, scan + tail + _EOI, info), array):
                raise self._fault(index, "it is cut short")

    def _probe(self, index: int, frame: bytes, info: StreamInfo) -> Array:
        try:
            return DECODERS[info.family][0].decode(frame, info, self.d)
        except DECODE_FAULTS as exc:
            raise self._fault(index, f"no end marker, and {type(exc).__name__}") from exc
