"""Transcode one DICOM file: bytes in one transfer syntax in, chunks in another out.

This file must not know: sockets, files, clocks, logging, settings.
The rules are in docs/reference/transfer-syntaxes.md; why it is built so, in docs/decisions/0002.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from struct import unpack_from

from bridge.dicom.changed_elements import (
    EXTENDED_OFFSETS,
    EXTENDED_TABLES,
    NewValues,
    decoded_changes,
    encoded_changes,
    widened_changes,
)
from bridge.dicom.codecs import ENCODERS
from bridge.dicom.codestream import StreamInfo
from bridge.dicom.colour import decoded_photometric
from bridge.dicom.description import REPRESENTATION, NewValue, describe
from bridge.dicom.elements import PIXEL_DATA, Element, Reader
from bridge.dicom.encapsulation import read_fragments
from bridge.dicom.file_meta import FileMeta, read_file_meta, sniff_dataset, write_file_meta
from bridge.dicom.frames import CompressedFrames, Evidence, held_frames
from bridge.dicom.inflate import Room, inflated_dataset
from bridge.dicom.native import NativeFrames, SwappedPlan
from bridge.dicom.new_pixel_data import (
    Body,
    EncodedPlan,
    NativePlan,
    PixelPlan,
    icon_changes,
    refuse_above_32_bits,
    unchanged,
)
from bridge.dicom.rewrite import Pieces, Rewriter
from bridge.dicom.syntax_label import (
    check_encoding,
    check_label_of_file,
    check_levels,
    check_meta,
    wrong_label,
)
from bridge.dicom.syntaxes import (
    EXPLICIT_LE,
    OFFERED_TARGETS,
    SYNTAXES,
    Family,
    Syntax,
    syntax_of,
    syntax_refusal,
    target_syntax_uid,
)
from bridge.errors import InstanceError
from bridge.model import Action, Reason, TranscodeOptions

__all__ = ["Body", "Buffer", "Transcoded", "peek_syntax", "transcode"]

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass
class Transcoded:
    """What became of an instance. The evidence is complete when ``body`` was read to its end.

    ``target_syntax`` is the syntax of ``body``: the wanted one, except that an object without
    integer pixel data is Explicit VR Little Endian where a compressed one was wanted.
    """

    action: Action
    source_syntax: str
    target_syntax: str
    sop_instance_uid: str
    body: Body
    frames: int = 0
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def decoder(self) -> str:
        """The decoder that was used, or ""."""
        return self.evidence.decoder

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Decoders that had to stand in for a preferred one that refused."""
        return tuple(self.evidence.fallbacks)

    @property
    def verified(self) -> bool:
        """True when every frame was decoded by a second decoder with the same result."""
        return 0 < self.frames <= self.evidence.verified_frames

    @property
    def samples_sha256(self) -> str:
        """SHA-256 of the decoded samples (``options.hash_samples``), or ""."""
        return self.evidence.samples_sha256


def peek_syntax(head: Buffer) -> str:
    """Return the transfer syntax UID of a file from its first bytes (64 KiB are enough).

    Raises InstanceError(NOT_DICOM).
    """
    return read_file_meta(memoryview(head).cast("B")).syntax


def transcode(
    source: Buffer,
    *,
    wanted_syntax: str,
    options: TranscodeOptions,
    instance_id: str = "",
    room: Room | None = None,
    meta: FileMeta | None = None,
) -> Transcoded:
    """Return ``source`` (a whole DICOM file) in ``wanted_syntax`` (keyword or UID).

    Nothing of ``source`` is copied that need not be: it must stay as it is while the body is
    in use. Where the decoded pixels need at most ``options.hold_bytes_max`` bytes every fault
    is raised here, otherwise possibly while the body is read. ``room``: where the data set of a
    deflated source is put; in memory without one. ``meta``: what ``read_file_meta`` made of it.
    Raises InstanceError with a Reason; ValueError for a syntax that is not offered.
    """
    target = OFFERED_TARGETS[target_syntax_uid(wanted_syntax)]
    data = memoryview(source).cast("B")
    meta = meta or read_file_meta(data)
    if meta.syntax == target.uid:
        check_label_of_file(data, meta, room)
        body = unchanged(data)
        uid = meta.text(0x0003)
        return Transcoded(Action.UNCHANGED, meta.syntax, meta.syntax, uid, body)
    try:
        job = Transcoding(data, meta, target, options, instance_id, room=room)
        body, frames = job.run()
        return Transcoded(
            job.action, meta.syntax, job.target.uid, job.uid, body, frames, job.evidence
        )
    except InstanceError as exc:
        exc.source_syntax = exc.source_syntax or meta.syntax
        raise


# One transcoding, in reading order: open, plan the pixels, write around them.

_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_UID_BYTES_MAX = 1024  # PS3.5 9.1 allows 64, but longer ones exist and must not change
STAYING = frozenset([Family.J2K, Family.HTJ2K, Family.JPEG_LS])


def _inflated(data: memoryview, offset: int, room: Room | None) -> memoryview:
    """Return the data set of a deflated file."""
    packed = data[offset:]
    try:
        return inflated_dataset(packed, room)
    except InstanceError as exc:
        if exc.reason is Reason.UNDECODABLE and sniff_dataset(packed[:16]):
            raise wrong_label("the data set is not deflated") from exc
        raise


def verification_chosen(verify: str, identifier: str) -> bool:
    """Return whether this instance is verified: ``off``, ``all`` or ``sample:N``.

    One in N by a hash of ``identifier``, so that a repeated attempt decides the same way.
    Raises ValueError for anything else.
    """
    if verify in ("off", "all"):
        return verify == "all"
    kind, _, count = verify.partition(":")
    if kind != "sample" or not count.isdigit() or int(count) < 1:
        raise ValueError(f"verify must be off, all or sample:N, not {verify!r}")
    digest = hashlib.sha256(identifier.encode()).digest()
    return int.from_bytes(digest[:8]) % int(count) == 0


class Transcoding:
    """One transcoding. ``action``, ``target`` and ``evidence`` are final after run()."""

    def __init__(
        self,
        data: memoryview,
        meta: FileMeta,
        target: Syntax,
        options: TranscodeOptions,
        instance_id: str,
        *,
        room: Room | None,
    ) -> None:
        self.target = target
        self.syntax = syntax_of(meta.syntax)
        self.action = Action.RELABELLED
        self.evidence = Evidence()
        self._meta = meta
        self._file = data
        self._options = options
        if (refused := syntax_refusal(self.syntax)) is not None:
            raise refused
        check_meta(data, meta)
        self._data, start = data, meta.dataset_offset
        if self.syntax.deflated:
            self._data, start = _inflated(data, start, room), 0
        check_encoding(self._data[start : start + 16], self.syntax)
        self._reader = Reader(
            self._data, implicit=self.syntax.implicit, big_endian=self.syntax.big_endian
        )
        self._elements = self._reader.level(start, len(self._data))
        if not self._elements:
            raise InstanceError(Reason.NOT_DICOM, "Not a DICOM file: it has no data set.")
        # Of an element that is there twice the first counts, as it does for DCMTK and Orthanc.
        self._by_tag = {e.tag: e for e in reversed(self._elements)}
        self.uid = self._uid(_SOP_INSTANCE) or meta.text(0x0003)
        self._verify = verification_chosen(options.verify, instance_id or self.uid)

    def _uid(self, tag: int) -> str:
        e = self._by_tag.get(tag)
        if e is None:
            return ""
        raw = bytes(self._data[e.value : e.stop][:_UID_BYTES_MAX])
        return raw.strip(b"\0 ").decode("ascii", "replace")

    def run(self) -> tuple[Body, int]:
        """Return the body and the number of frames that were decoded. Raises InstanceError."""
        pixel = self._by_tag.get(PIXEL_DATA)
        if pixel is not None and pixel.end == pixel.value:
            pixel = None  # empty: there are no pixels
        check_levels(self._reader, self._elements, self._meta)
        if pixel is None:
            return self._without_pixels(), 0
        twice = len(self._by_tag) < len(self._elements)
        if twice and sum(e.tag == PIXEL_DATA for e in self._elements) > 1:
            raise InstanceError(Reason.UNDECODABLE, "The data set contains Pixel Data twice.")
        if self.syntax.encapsulated:
            return self._from_compressed(pixel)
        if self.target.encapsulated:
            return self._from_native(pixel)
        plan: PixelPlan | None = None
        if self.syntax.big_endian:
            plan = SwappedPlan(self._reader, self._elements, pixel, implicit=self.target.implicit)
        return self._body({}, plan), 0

    def _without_pixels(self) -> Body:
        """No integer pixel data: the data set is re-encoded, and never labelled as compressed."""
        if self.target.encapsulated:
            self.target = SYNTAXES[EXPLICIT_LE]
            if self.syntax is self.target:
                self.action = Action.UNCHANGED
                return unchanged(self._file)
        changes = dict.fromkeys(EXTENDED_TABLES) if self.syntax.encapsulated else {}
        return self._body(changes, None)

    def _from_compressed(self, pixel: Element) -> tuple[Body, int]:
        self.action = Action.TRANSCODED
        frames = self._compressed(self._reader, self._elements, pixel, top=True)
        self.evidence = frames.evidence
        changes = decoded_changes(frames, top=True)
        plan: PixelPlan
        if self.target.encapsulated:
            decoded = replace(
                frames.d,
                photometric=frames.photometric,
                planar=0 if frames.d.samples > 1 else frames.d.planar,
            )
            encoder = ENCODERS[self.target.uid]
            changes |= encoded_changes(decoded, encoder)
            hold = frames.d.native_bytes <= self._options.hold_bytes_max
            plan = EncodedPlan(frames, decoded, encoder, hold=hold)
        else:
            refuse_above_32_bits(frames.d)
            held = held_frames(frames, self._options.hold_bytes_max)
            plan = NativePlan(held, implicit=self.target.implicit)
        changes |= widened_changes(frames)
        return self._body(changes, plan), frames.d.frames

    def _from_native(self, pixel: Element) -> tuple[Body, int]:
        self.action = Action.TRANSCODED
        encoder = ENCODERS[self.target.uid]
        d = describe(self._reader, self._elements)
        frames = NativeFrames(self._data, pixel, d, big_endian=self.syntax.big_endian)
        self.evidence = frames.evidence
        decoded_photometric(frames.d, StreamInfo(Family.NONE))  # a label that holds, or no copy
        changes = encoded_changes(frames.d, encoder, stored=d)
        hold = d.native_bytes <= self._options.hold_bytes_max
        return self._body(changes, EncodedPlan(frames, frames.d, encoder, hold=hold)), d.frames

    def _compressed(
        self, reader: Reader, elements: Sequence[Element], pixel: Element, *, top: bool
    ) -> CompressedFrames:
        d = describe(reader, elements)
        return CompressedFrames(
            self._data,
            read_fragments(self._data, pixel),
            d,
            self.syntax,
            extended_table=self._extended_table(d.frames) if top else (),
            verify=self._verify,
            hash_samples=self._options.hash_samples and top,
            trusts_stream=self._options.on_wrong_label == "decode",
        )

    def _extended_table(self, frame_count: int) -> tuple[int, ...]:
        e = self._by_tag.get(EXTENDED_OFFSETS)
        if e is None or e.undefined or e.stop - e.value != 8 * frame_count:
            return ()
        return unpack_from(f"<{frame_count}Q", self._data, e.value)

    def _icon(
        self, reader: Reader, elements: Sequence[Element], pixel: Element
    ) -> dict[int, NewValue | None]:
        frames = self._compressed(reader, elements, pixel, top=False)
        try:
            changes = icon_changes(frames)
        except InstanceError:
            if self._may_stay(frames):
                return {}
            raise
        if frames.evidence.trusted:
            said = (self.evidence.trusted, f"icon: {frames.evidence.trusted}")
            self.evidence.trusted = ", ".join(filter(None, said))
        return changes

    def _may_stay(self, frames: CompressedFrames) -> bool:
        """True if the wanted syntax allows an icon as it is coded (PS3.5 A.4).

        Under an encapsulated syntax an icon is native or in that syntax: so in the same family,
        and without loss, as all that are offered. JPEG lossless has more than that to say
        (the predictor), RLE and deflate are in one syntax only.
        """
        if self.target.family is not self.syntax.family or self.target.family not in STAYING:
            return False
        lossy = not self.syntax.lossless if frames.first.lossy is None else frames.first.lossy
        return not lossy and frames.d.frames == 1

    def _body(self, changes: NewValues, plan: PixelPlan | None) -> Body:
        """Write everything around the pixels (``plan``, or as they are where that is None)."""
        meta = write_file_meta(
            self._meta,
            syntax=self.target.uid,
            sop_class_uid=self._uid(_SOP_CLASS),
            sop_instance_uid=self._uid(_SOP_INSTANCE),
        )
        rewriter = Rewriter(
            self._reader,
            target_implicit=self.target.implicit,
            icon=self._icon if self.syntax.encapsulated else None,
        )
        e = self._by_tag.get(REPRESENTATION)
        signed = e is not None and e.stop > e.value and 1 in self._data[e.value : e.stop]
        before, after = Pieces(), Pieces()
        if plan is None:
            rewriter.level(self._elements, changes, before, signed=signed)
        else:
            head = [e for e in self._elements if e.tag < PIXEL_DATA]
            tail = [e for e in self._elements if e.tag > PIXEL_DATA]
            rewriter.level(head, changes, before, signed=signed)
            rewriter.level(tail, {}, after, signed=signed)
        body = Body(meta, before.chunks(), plan, after.chunks(), deflated=self.target.deflated)
        if self.target.deflated and self._estimated_bytes(plan) <= self._options.hold_bytes_max:
            return body.held()
        return body

    def _estimated_bytes(self, plan: PixelPlan | None) -> int:
        return max(len(self._data), (plan.body_bytes or 0) if plan else 0)
