"""What is downloaded and uploaded: DICOM files in pieces, of certain ends and bounded sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bridge.errors import InstanceError, SideError
from bridge.model import Reason, SideProblem
from bridge.orthanc.fault_table import Request
from bridge.orthanc.faults import is_page, not_orthanc

PAGES = ("text/", "application/json", "application/xml")
"""What people are shown, or an error in disguise: a file is none of these."""
INSTANCE_BYTES_MAX = 64 * 1024**3
LENGTH_DIGITS_MAX = 18
"""Of a Content-Length: more is no length of anything."""


@dataclass(frozen=True, slots=True)
class InstanceBody:
    """A DICOM file on its way to us: its length if the server said it, and its pieces, once."""

    content_length: int | None
    chunks: Iterator[bytes]


def content_length(headers: Mapping[str, str], request: Request, bytes_max: int) -> int | None:
    """Return the announced length, or None for a chunked answer, which has an end of its own.

    Raises SideError NOT_ORTHANC without either (such a body could end early unseen) and for an
    empty file, and InstanceError TOO_LARGE above ``bytes_max``.
    """
    if headers.get("content-type", "").strip().lower().startswith(PAGES):
        raise not_orthanc(request, "it sent a page instead of a file", page=is_page(headers))
    if "transfer-encoding" in headers:
        return None
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) <= LENGTH_DIGITS_MAX):
        raise not_orthanc(request, "it sent a file without saying how long it is")
    length = int(text)
    if length == 0:
        raise _empty(request)
    if length > bytes_max:
        raise _too_large(request, bytes_max)
    return length


def bounded_body(pieces: Iterator[bytes], request: Request, bytes_max: int) -> Iterator[bytes]:
    """Pass the pieces on; raises InstanceError TOO_LARGE above ``bytes_max``, SideError if none."""
    received = 0
    for piece in pieces:
        received += len(piece)
        if received > bytes_max:
            raise _too_large(request, bytes_max)
        yield piece
    if not received:
        raise _empty(request)


def _empty(request: Request) -> SideError:
    # Orthanc does so with a file that is empty on its disk.
    return request.fails(
        SideProblem.NOT_ORTHANC,
        "sent an empty file",
        "If it is empty in the server's storage, restore it there or send the instance again.",
        specific=True,
    )


def _too_large(request: Request, bytes_max: int) -> InstanceError:
    return InstanceError(
        Reason.TOO_LARGE,
        f"The {request.side} sends more than {bytes_max} bytes for {request.shown}.",
    )


# What is uploaded: one buffer or many pieces, of a length known or not.

PIECE_BYTES_MAX = 1024 * 1024
"""What is not bytes yet is copied, for httpx: in pieces of this size, never as a whole."""

Buffer = bytes | bytearray | memoryview


class Upload:
    """A request body for DICOM, with its headers."""

    def __init__(self, body: Buffer | Iterable[Buffer], body_bytes: int | None) -> None:
        self.content: bytes | Iterable[bytes]
        if isinstance(body, bytes | bytearray | memoryview):
            length = memoryview(body).nbytes
            if body_bytes not in {None, length}:
                raise ValueError(f"the body has {length} bytes, not {body_bytes}")
            body_bytes = length
            self.can_be_resent = True
            self.content = body if isinstance(body, bytes) else _Pieces([body], length)
        else:
            # An iterator is its own iterator, and is used up after one attempt.
            self.can_be_resent = iter(body) is not body
            self.content = _Pieces(body, body_bytes)
        self.headers = [("Content-Type", "application/dicom")]
        if body_bytes is not None:
            self.headers.append(("Content-Length", str(body_bytes)))


class _Pieces:
    """Buffers as bytes, in pieces where they are not, counted against the announced length."""

    def __init__(self, buffers: Iterable[Buffer], announced_bytes: int | None) -> None:
        self._buffers = buffers
        self._announced_bytes = announced_bytes

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for buffer in self._buffers:
            view = memoryview(buffer).cast("B")
            sent += len(view)
            if self._announced_bytes is not None and sent > self._announced_bytes:
                raise self._wrong_length(f"more than {self._announced_bytes}")
            if isinstance(buffer, bytes):
                if buffer:  # an empty chunk would end a chunked body
                    yield buffer
                continue
            for start in range(0, len(view), PIECE_BYTES_MAX):
                yield bytes(view[start : start + PIECE_BYTES_MAX])
        if self._announced_bytes is not None and sent < self._announced_bytes:
            raise self._wrong_length(f"only {sent} of {self._announced_bytes}")

    def _wrong_length(self, seen: str) -> InstanceError:
        return InstanceError(Reason.INTERNAL, f"The file to send had {seen} bytes.", final=False)
