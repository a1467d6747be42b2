"""The instance between the two servers: fetched into memory or a file, prepared, ready to send."""

from __future__ import annotations

import mmap
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from bridge.dicom.file_meta import PREAMBLE_BYTES, FileMeta, looks_packed
from bridge.dicom.transcode import Transcoded, transcode
from bridge.errors import InstanceError, side_error
from bridge.model import Action, Reason, SideName, SideProblem, TranscodeOptions
from bridge.orthanc import OrthancClient
from bridge.worker.places import SMALL_BYTES, here

JOIN_BYTES_MAX = 8 * 1024 * 1024
"""Bodies up to this size are sent from one buffer; larger ones frame by frame."""
CHUNK_BYTES = 1024 * 1024

Buffer = bytes | mmap.mmap
Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be sent. ``transcoded`` is None when it is the source's own bytes."""

    action: Action
    body: bytes | Iterable[Chunk]
    body_bytes: int
    transcoded: Transcoded | None = None

    def chunks(self) -> Iterable[Chunk]:
        """The body, once more."""
        return (self.body,) if isinstance(self.body, bytes) else self.body


@contextmanager
def fetched(
    source: OrthancClient, instance_id: str, *, spool_above_bytes: int, deadline_s: float
) -> Iterator[Buffer]:
    """Download an instance: in memory when small, mapped from an unnamed file when large.

    Raises SideError, InstanceGone, InstanceError, and OSError when it cannot be spooled.
    """
    begun_s = time.monotonic()
    got = _download(source, instance_id, spool_above_bytes, deadline_s)
    if got is None:
        # The source does not wait for that: it is asked again, within the time of both.
        left_s = deadline_s - (time.monotonic() - begun_s)
        here().take()
        got = _download(source, instance_id, spool_above_bytes, left_s)
    if got is None:
        raise AssertionError("who has a place needs none")
    if isinstance(got, bytes):
        yield got
        return
    with got as spool:
        spool.flush()
        mapped = mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            yield mapped
        finally:
            # Views of it may live on in a traceback; the mapping goes with the last of them.
            with suppress(BufferError):
                mapped.close()


def _download(
    source: OrthancClient, instance_id: str, spool_above_bytes: int, deadline_s: float
) -> bytes | IO[bytes] | None:
    """Return the file: itself, or where it was too large for memory a temporary file with it.

    None for a large one that has no place here yet: nothing of it is read.
    """
    with ExitStack() as stack:
        with (
            _without_its_files_a_source_is_down(source.endpoint.side),
            source.open_instance(instance_id, deadline_s=deadline_s) as body,
        ):
            large = body.content_length is None or body.content_length > SMALL_BYTES
            if large and not here().try_take():
                return None
            if body.content_length is not None and body.content_length <= spool_above_bytes:
                return b"".join(body.chunks)
            spool = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=spool_above_bytes))
            for chunk in body.chunks:
                spool.write(chunk)
        if spool.tell() > spool_above_bytes:
            stack.pop_all()  # whoever gets it closes it
            return spool
        spool.seek(0)
        return spool.read()


@contextmanager
def _without_its_files_a_source_is_down(side: SideName) -> Iterator[None]:
    """One file may be missing, or the disk with all of them: only other instances can tell."""
    try:
        yield
    except InstanceError as exc:
        if exc.reason is not Reason.SERVER_REFUSES_INSTANCE:
            raise
        raise side_error(
            side,
            SideProblem.SERVER_ERROR,
            exc.message,
            advice=f"Make sure that the {side}'s storage is mounted and complete.",
            specific=True,
        ) from exc


def as_it_is(body: Buffer, action: Action) -> Payload:
    """Wrap the source's own bytes, with a preamble that no server takes for an archive's."""
    data = memoryview(body)
    if looks_packed(data):
        return Payload(action, _Cleared(data), len(body))
    return Payload(action, body if isinstance(body, bytes) else _Mapped(body), len(body))


@contextmanager
def transcoded(
    body: Buffer,
    *,
    meta: FileMeta,
    wanted_syntax: str,
    options: TranscodeOptions,
    instance_id: str,
    spool_above_bytes: int,
) -> Iterator[Payload]:
    """Bring an instance, with its file meta information, into the wanted syntax.

    Raises InstanceError. Large native pixel data is decoded while it is sent; an error then comes
    from reading the payload's body, and the cut upload is refused by the target.
    """
    here().take()
    result = transcode(
        body,
        wanted_syntax=wanted_syntax,
        options=options,
        instance_id=instance_id,
        room=FileRoom(spool_above_bytes),
        meta=meta,
    )
    known = result.body.body_bytes
    if known is not None and known > JOIN_BYTES_MAX:
        yield Payload(result.action, result.body, known, result)
    elif known is not None:
        joined = b"".join(result.body)
        if max(len(body), len(joined)) <= SMALL_BYTES:
            here().release()
        yield Payload(result.action, joined, len(joined), result)
    else:
        with tempfile.SpooledTemporaryFile(max_size=spool_above_bytes) as spool:
            for chunk in result.body:
                spool.write(chunk)
            body_bytes = spool.tell()
            yield Payload(result.action, _Spooled(spool), body_bytes, result)


class FileRoom:
    """Room for an inflated data set: in memory when small, mapped from an unnamed file when large.

    The file goes with the last view of it.
    """

    def __init__(self, spool_above_bytes: int) -> None:
        self._spool_above_bytes = spool_above_bytes
        self._held = bytearray()
        self._file: IO[bytes] | None = None

    def append(self, piece: bytes) -> None:
        """Add bytes at the end. Raises OSError when the disk is full."""
        if self._file is not None:
            self._file.write(piece)
            return
        self._held += piece
        if len(self._held) > SMALL_BYTES:
            here().take()
        if len(self._held) > self._spool_above_bytes:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as its views)
            self._file.write(self._held)
            self._held = bytearray()

    def view(self) -> memoryview:
        """All of it."""
        if self._file is None:
            return memoryview(self._held)
        self._file.flush()
        return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))


class _Mapped:
    """A mapped file as chunks, any number of times."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._mapped), CHUNK_BYTES):
            yield self._mapped[start : start + CHUNK_BYTES]


class _Cleared:
    """A file with an empty preamble as chunks, any number of times."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def __iter__(self) -> Iterator[Chunk]:
        yield bytes(PREAMBLE_BYTES)
        for start in range(PREAMBLE_BYTES, len(self._data), CHUNK_BYTES):
            yield self._data[start : start + CHUNK_BYTES]


class _Spooled:
    """A spooled file as chunks, any number of times."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool

    def __iter__(self) -> Iterator[bytes]:
        self._spool.seek(0)
        while chunk := self._spool.read(CHUNK_BYTES):
            yield chunk
