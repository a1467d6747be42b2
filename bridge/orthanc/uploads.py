"""What is uploaded: one buffer or many pieces, of a length known or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bridge.core.errors import InstanceError
from bridge.core.model import Reason

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
        return InstanceError(
            Reason.INTERNAL, f"The file to send came out with {seen} bytes.", final=False
        )
