"""Frames out of compressed pixel data, one at a time: find, inspect, decode, repair, check.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 sections 8.2 and A.4. Nothing is guessed: what does not fit raises InstanceError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from bridge.dicom.codecs import DECODERS, Decoder, DecoderRole, StreamKind, kinds_of
from bridge.dicom.codestream import (
    StreamError,
    StreamInfo,
    another_follows,
    bare_jpeg_xl,
    holds_jpeg,
    inspect,
    looks_like_rle,
    sniff_family,
    tile_parts_end,
)
from bridge.dicom.colour import JPEG, decoded_photometric, trusted_photometric
from bridge.dicom.decoders import DECODE_FAULTS, may_be_cut, restored_jpeg
from bridge.dicom.description import Description
from bridge.dicom.encapsulation import Fragments, group_frames
from bridge.dicom.jpeg_xl_header import jpeg_xl_size
from bridge.dicom.samples import Array, fits, little_endian_bytes
from bridge.dicom.syntaxes import Family, Syntax
from bridge.errors import InstanceError
from bridge.model import Reason

# What was used to decode an instance.


@dataclass(slots=True)
class Evidence:
    """What was used to decode an instance; it grows while frames are decoded.

    ``trusted``: where the code stream was believed and not its label (BRIDGE_ON_WRONG_LABEL).
    """

    decoder: str = ""
    fallbacks: list[str] = field(default_factory=list)
    verified_frames: int = 0
    checker: str = ""
    samples_sha256: str = ""
    trusted: str = ""


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
_MAY_LOSE = frozenset([Family.JPEG_LOSSLESS, Family.JPEG_LS])


@dataclass(frozen=True, slots=True)
class _Stream:
    """One code stream, its header, and which kinds of stream it is."""

    frame: bytes
    info: StreamInfo
    kinds: tuple[StreamKind, ...]

    def decoders(self) -> Iterator[Decoder]:
        """Yield the decoders that are known to be right for it, in order of preference."""
        for one in DECODERS[self.info.family]:
            if one.role(self.kinds) is DecoderRole.DECODES:
                yield one

    def confirming(self, used: Decoder) -> Iterator[Decoder]:
        """Yield the decoders that may confirm what ``used`` made of it."""
        for one in DECODERS[self.info.family]:
            if one.name != used.name and one.role(self.kinds) is not DecoderRole.NEITHER:
                yield one

    def unsure(self) -> str:
        """Say for which kind no decoder is known to be right, and what the first one does."""
        for kind in self.kinds:
            uses = [one.uses[kind] for one in DECODERS[self.info.family]]
            if all(use.role is not DecoderRole.DECODES for use in uses):
                return f"no decoder is known to be right for {kind.value} ({uses[0].why})"
        return "no decoder is known to be right for it"


class CompressedFrames:
    """The frames of one encapsulated Pixel Data element.

    ``first`` is the header of frame 0: the kind of code stream and colour are the same for all
    frames, or the instance is refused.
    ``lossy``: a code stream of any frame says that it is. ``bits_stored`` is Bits Stored for the
    frames decoded so far: it grows to the code stream's precision where lossy samples pass it,
    until ``header_is_final``. ``trusts_stream``: where the label of a JPEG contradicts its code
    stream, the code stream is believed, and the evidence says so.
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
        trusts_stream: bool = False,
    ) -> None:
        self.d = d
        self._data = data
        self._syntax = syntax
        self._verify = verify
        self._trusts_stream = trusts_stream
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
        self.evidence.trusted = self._trusted() if trusts_stream else ""
        self.lossy = bool(self.first.lossy) or self._later_frames_are_lossy()

    def _later_frames_are_lossy(self) -> bool:
        """Read the headers of all frames, in families whose frames may differ in being lossy."""
        if self.first.lossy is False and self.first.family not in _MAY_LOSE:
            return False
        lossy = False
        for index in range(1, self.d.frames):
            _, info = self._opened(index)
            self._refuse_a_mixture(index, info)
            lossy = lossy or bool(info.lossy)
        return lossy

    @property
    def photometric(self) -> str:
        """What the decoded samples are called. Raises InstanceError where no name is certain."""
        return decoded_photometric(self.d, self.first, trusts_stream=self._trusts_stream)

    def _trusted(self) -> str:
        """Say where the code stream is believed and not the label."""
        said = []
        if self.first.family is not self._syntax.family and self._syntax.family in JPEG:
            said.append(f"{self.first.family.value} under {self._syntax.keyword}")
        believed = trusted_photometric(self.d, self.first)
        if believed:
            said.append(f"{believed} samples labelled {self.d.photometric}")
        return ", ".join(said)

    def _begins_frame(self, head: bytes) -> bool:
        family = self._syntax.family
        if family not in _MARKED:
            return family is not Family.RLE or looks_like_rle(head)
        if bare_jpeg_xl(head):
            # A signature of two bytes: coded data of any kind may hold it by chance.
            return family is Family.JPEG_XL and self._has_our_size(head)
        return sniff_family(head) not in (Family.NONE, Family.RLE)

    def _has_our_size(self, head: bytes) -> bool:
        size = (self.d.rows, self.d.columns)
        return jpeg_xl_size(head) in (size, size[::-1])  # reversed where the image is turned

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
        if info.family is not family and not (
            self._trusts_stream and family in JPEG and info.family in JPEG
        ):
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
        self._refuse_a_mixture(index, info)
        array = self._decode(index, frame, info)
        self._hash(index, array)
        return array

    def _refuse_a_mixture(self, index: int, info: StreamInfo) -> None:
        """Refuse a frame of another kind than the first: there is one label for all frames."""
        first = self.first
        if (info.family, info.colour, info.transformed) != (
            first.family,
            first.colour,
            first.transformed,
        ):
            raise self._fault(index, "kind or colour differ from the first frame's")

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
        stream = _Stream(frame, info, kinds_of(info, lossy=self._lossy(info)))
        refusals: list[str] = []
        for decoder in stream.decoders():
            try:
                array = decoder.decode(frame, info, self.d)
            except DECODE_FAULTS as exc:
                refusals.append(f"{decoder.name} refused ({type(exc).__name__}: {exc})")
                continue
            if refusals and not self._confirmed(stream, array, decoder):
                refusals.append(f"no independent decoder confirms {decoder.name}")
                continue
            if info.family in _JPEG_HUFFMAN and not refusals and may_be_cut(info, array):
                self._refuse_cut(index, frame, info, array)
            if self._lossy(info) and info.precision > self.bits_stored:
                self._widen(index, array, info)
            self._note(decoder, index, refused=bool(refusals))
            if self._verify and not self._lossy(info):
                self._check(index, stream, array, decoder)
            return array
        raise self._fault(index, "; ".join(refusals)[:500] or stream.unsure())

    def _widen(self, index: int, array: Array, info: StreamInfo) -> None:
        """Let Bits Stored be the code stream's where lossy samples need it and have no sign."""
        described = replace(self.d, stored=self.bits_stored)
        if fits(array, described, stream_signed=info.signed):
            return
        if self.header_is_final or self.d.signed or info.signed:
            raise self._fault(index, f"lossy samples beyond the {self.bits_stored} bits stored")
        self.bits_stored = info.precision

    def _confirmed(self, stream: _Stream, array: Array, used: Decoder) -> bool:
        """True if an independent decoder, right for such streams, agrees with one that stands in.

        The preferred decoder refuses damage that some others decode to something.
        """
        others = (one for one in stream.confirming(used) if one.engine != used.engine)
        return any(self._agrees(one, stream, array) for one in others)

    def _agrees(self, other: Decoder, stream: _Stream, array: Array) -> bool | None:
        """Whether ``other`` decodes the frame to the same samples; None where it refuses it."""
        try:
            return np.array_equal(other.decode(stream.frame, stream.info, self.d), array)
        except DECODE_FAULTS:
            return None

    def _lossy(self, info: StreamInfo) -> bool:
        """Whether decoders may differ in the last bit, or overshoot.

        Not of a lossless JPEG: one that has dropped bits (point transform) is decoded by all alike.
        """
        if info.family is Family.JPEG_LOSSLESS:
            return False
        return info.lossy is True or (info.lossy is None and not self._syntax.lossless)

    def _note(self, decoder: Decoder, index: int, *, refused: bool) -> None:
        if refused and decoder.name not in self.evidence.fallbacks:
            self.evidence.fallbacks.append(decoder.name)
        if not self.evidence.decoder or (index == 0 and refused):
            restored = self._syntax.family is Family.JPEG_XL and decoder.name != "libjxl"
            self.evidence.decoder = ("libjxl, " if restored else "") + decoder.name

    def _check(self, index: int, stream: _Stream, array: Array, used: Decoder) -> None:
        """Decode again with a decoder that is right for such streams; disagreement is an error."""
        for checker in stream.confirming(used):
            agrees = self._agrees(checker, stream, array)
            if agrees is None:
                continue  # it refuses the frame, which proves nothing: the next one may confirm
            if not agrees:
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

        libjpeg fills what is missing with grey and reports no error. So a Huffman-coded frame is
        decoded with two different tails behind it: it is whole when neither changes a sample.
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
            self._refuse_cut(
                index, frame + _EOI, info, self._decoded_by_first(index, frame + _EOI, info)
            )
        return frame + _EOI, replace(info, complete=True)

    def _refuse_cut(self, index: int, frame: bytes, info: StreamInfo, array: Array) -> None:
        """Refuse a JPEG whose samples depend on what is put behind its coded data.

        Each scan is tried, but of a progressive JPEG only the last: a cut in another one shows
        there as well.
        """
        ends = info.scan_ends if not info.progressive else ()
        for at in {*ends[:-1], frame.rfind(_EOI)}:
            scan, rest = (
                frame[:at].rstrip(b"\xff"),
                frame[at:],
            )  # fill bytes may stand before a marker
            for tail in _PROBES:
                if not np.array_equal(
                    self._decoded_by_first(index, scan + tail + rest, info), array
                ):
                    raise self._fault(index, "it is cut short")

    def _decoded_by_first(self, index: int, frame: bytes, info: StreamInfo) -> Array:
        try:
            return DECODERS[info.family][0].decode(frame, info, self.d)
        except DECODE_FAULTS as exc:
            raise self._fault(index, f"no end marker, and {type(exc).__name__}") from exc


# Which frames are decoded before the first byte leaves, and kept until they do.


class FrameSource(Protocol):
    """Frames of native samples, re-iterable, one at a time."""

    d: Description
    evidence: Evidence

    def __iter__(self) -> Iterator[Array]: ...


class HeldFrames:
    """Frames decoded once and kept, so that every fault shows before the first byte leaves."""

    def __init__(self, source: FrameSource) -> None:
        self.d = source.d
        self.evidence = source.evidence
        self._frames = list(source)

    def __iter__(self) -> Iterator[Array]:
        return iter(self._frames)


class FirstHeldFrames:
    """Frames that are too many to keep: only the first is decoded early; most faults show in it.

    It is kept until the first reading has used it.
    """

    def __init__(self, source: CompressedFrames) -> None:
        self.d = source.d
        self.evidence = source.evidence
        self._source = source
        self._first: Array | None = source.decode(0)

    def __iter__(self) -> Iterator[Array]:
        first, self._first = self._first, None
        yield self._source.decode(0) if first is None else first
        del first
        for index in range(1, self.d.frames):
            yield self._source.decode(index)


def held_frames(frames: CompressedFrames, bytes_max: int) -> FrameSource:
    """Decode now: everything if it fits in ``bytes_max``, else the first frame."""
    d = frames.d
    if d.frame_array_bytes * d.frames <= bytes_max:
        return HeldFrames(frames)
    return FirstHeldFrames(frames)
