"""One transcoding, in reading order: open, plan the pixels, write around them.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from struct import unpack_from

from bridge.core.body import Body
from bridge.core.codecs import ENCODERS
from bridge.core.elements import PIXEL_DATA, Element, Reader
from bridge.core.encapsulation import read_fragments
from bridge.core.errors import InstanceError
from bridge.core.evidence import Evidence
from bridge.core.file_meta import FileMeta, sniff_dataset, write_file_meta
from bridge.core.frames import CompressedFrames
from bridge.core.held import held_frames
from bridge.core.inflate import Room, inflated_dataset
from bridge.core.model import Action, Reason, TranscodeOptions
from bridge.core.native import NativeFrames, SwappedPlan
from bridge.core.pixels import REPRESENTATION, Change, describe
from bridge.core.plans import (
    EncodedPlan,
    NativePlan,
    Plan,
    decoded_changes,
    decoded_photometric,
    encoded_changes,
    icon_changes,
    refuse_above_32_bits,
    widened_changes,
)
from bridge.core.rewrite import Changes, Pieces, Rewriter
from bridge.core.syntaxes import EXPLICIT_LE, SYNTAXES, Kind, Syntax, syntax_of

_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_UID_BYTES_MAX = 1024  # PS3.5 9.1 allows 64, but longer ones exist and must not change
_OFFSETS = 0x7FE00001
_ENCAPSULATED_ONLY = (_OFFSETS, 0x7FE00002, 0x7FE00003)


def _refuse_kind(syntax: Syntax) -> None:
    if syntax.kind is Kind.VIDEO:
        raise InstanceError(
            Reason.VIDEO, f"{syntax.keyword} ({syntax.uid}): video or referenced pixel data."
        )
    if syntax.kind is Kind.UNSUPPORTED:
        raise InstanceError(
            Reason.UNSUPPORTED_SYNTAX, f"{syntax.keyword} ({syntax.uid}) is not supported."
        )


def _wrong_label(what: str) -> InstanceError:
    return InstanceError(Reason.WRONG_SYNTAX_LABEL, f"The transfer syntax label is wrong: {what}.")


def _inflated(data: memoryview, offset: int, room: Room | None) -> memoryview:
    """Return the data set of a deflated file."""
    packed = data[offset:]
    try:
        return inflated_dataset(packed, room)
    except InstanceError as exc:
        if exc.reason is Reason.UNDECODABLE and sniff_dataset(packed[:16]):
            raise _wrong_label("the data set is not deflated") from exc
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


class Job:
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
        _refuse_kind(self.syntax)
        self._data, start = data, meta.dataset_offset
        if self.syntax.deflated:
            self._data, start = _inflated(data, start, room), 0
        self._check_label(start)
        self._reader = Reader(
            self._data, implicit=self.syntax.implicit, big_endian=self.syntax.big_endian
        )
        self._elements = self._reader.level(start, len(self._data))
        if not self._elements:
            raise InstanceError(Reason.NOT_DICOM, "Not a DICOM file: it has no data set.")
        self._by_tag = {e.tag: e for e in self._elements}
        self.uid = self._uid(_SOP_INSTANCE) or meta.text(0x0003)
        self._verify = verification_chosen(options.verify, instance_id or self.uid)

    def _check_label(self, start: int) -> None:
        seen = sniff_dataset(self._data[start : start + 16])
        if not seen:
            return
        shape = SYNTAXES[seen]
        if (shape.implicit, shape.big_endian) != (self.syntax.implicit, self.syntax.big_endian):
            raise _wrong_label(f"{self.syntax.keyword}, but the data set is {shape.keyword}")

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
            pixel = None  # empty: there are no pixels to speak of
        if pixel is not None and pixel.undefined != self.syntax.encapsulated:
            kind = "encapsulated" if pixel.undefined else "native"
            raise _wrong_label(f"{self.syntax.keyword}, but the pixel data is {kind}")
        if pixel is None:
            return self._without_pixels(), 0
        twice = len(self._by_tag) < len(self._elements)
        if twice and sum(e.tag == PIXEL_DATA for e in self._elements) > 1:
            raise InstanceError(Reason.UNDECODABLE, "Pixel Data is there twice.")
        if self.syntax.encapsulated:
            return self._from_compressed(pixel)
        if self.target.encapsulated:
            return self._from_native(pixel)
        plan: Plan | None = None
        if self.syntax.big_endian:
            plan = SwappedPlan(self._reader, self._elements, pixel, implicit=self.target.implicit)
        return self._body({}, plan), 0

    def _without_pixels(self) -> Body:
        """No integer pixel data: the data set is re-encoded, and never labelled as compressed."""
        if self.target.encapsulated:
            self.target = SYNTAXES[EXPLICIT_LE]
            if self.syntax is self.target:
                self.action = Action.UNCHANGED
                return Body(self._file, [], None, [])
        changes = dict.fromkeys(_ENCAPSULATED_ONLY) if self.syntax.encapsulated else {}
        return self._body(changes, None)

    def _from_compressed(self, pixel: Element) -> tuple[Body, int]:
        self.action = Action.TRANSCODED
        frames = self._compressed(self._reader, self._elements, pixel, top=True)
        self.evidence = frames.evidence
        changes = decoded_changes(frames.d, frames.first, frames.compressed_bytes, top=True)
        plan: Plan
        if self.target.encapsulated:
            decoded = replace(
                frames.d,
                photometric=decoded_photometric(frames.d, frames.first),
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
        )

    def _extended_table(self, frame_count: int) -> tuple[int, ...]:
        e = self._by_tag.get(_OFFSETS)
        if e is None or e.undefined or e.stop - e.value != 8 * frame_count:
            return ()
        return unpack_from(f"<{frame_count}Q", self._data, e.value)

    def _icon(
        self, reader: Reader, elements: Sequence[Element], pixel: Element
    ) -> dict[int, Change | None]:
        return icon_changes(self._compressed(reader, elements, pixel, top=False))

    def _body(self, changes: Changes, plan: Plan | None) -> Body:
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

    def _estimated_bytes(self, plan: Plan | None) -> int:
        return max(len(self._data), (plan.body_bytes or 0) if plan else 0)
