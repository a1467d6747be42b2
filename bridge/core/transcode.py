"""Transcode one DICOM file: bytes in one transfer syntax in, chunks in another out.

This file must not know: sockets, files, clocks, logging, settings.
The rules are in docs/transfer-syntaxes.md; why it is built so, in docs/decisions/0002.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

from bridge.core.body import Body
from bridge.core.errors import InstanceError
from bridge.core.evidence import Evidence
from bridge.core.file_meta import FileMeta, read_file_meta
from bridge.core.inflate import Room
from bridge.core.job import Job
from bridge.core.model import Action, TranscodeOptions
from bridge.core.syntaxes import OFFERED_TARGETS, target_syntax_uid

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
        body = Body(data, [], None, [])
        uid = meta.text(0x0003)
        return Transcoded(Action.UNCHANGED, meta.syntax, meta.syntax, uid, body)
    try:
        job = Job(data, meta, target, options, instance_id, room=room)
        body, frames = job.run()
        return Transcoded(
            job.action, meta.syntax, job.target.uid, job.uid, body, frames, job.evidence
        )
    except InstanceError as exc:
        exc.source_syntax = exc.source_syntax or meta.syntax
        raise
