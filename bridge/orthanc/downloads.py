"""What is downloaded: a DICOM file in pieces, whose end is certain and whose size is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bridge.core.errors import InstanceError
from bridge.core.model import Reason
from bridge.orthanc.faults import not_orthanc
from bridge.orthanc.tables import Request

PAGES = ("text/html", "application/json")
"""What people are shown, or an error in disguise: a file is none of these."""
INSTANCE_BYTES_MAX = 64 * 1024**3


@dataclass(frozen=True, slots=True)
class InstanceBody:
    """A DICOM file on its way to us: its length if the server said it, and its pieces, once."""

    content_length: int | None
    chunks: Iterator[bytes]


def content_length(headers: Mapping[str, str], request: Request, bytes_max: int) -> int | None:
    """Return the announced length, or None for a chunked answer, which has an end of its own.

    Raises SideError NOT_ORTHANC without either (such a body could end early unseen), and
    InstanceError TOO_LARGE above ``bytes_max``.
    """
    if headers.get("content-type", "").startswith(PAGES):
        raise not_orthanc(request, "it sent a page instead of a file")
    if "transfer-encoding" in headers:
        return None
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdigit()):
        raise not_orthanc(request, "it sent a file without saying how long it is")
    length = int(text)
    if length == 0:
        raise not_orthanc(request, "it sent an empty file")
    if length > bytes_max:
        raise _too_large(request, bytes_max)
    return length


def bounded(pieces: Iterator[bytes], request: Request, bytes_max: int) -> Iterator[bytes]:
    """Pass the pieces on; raises InstanceError TOO_LARGE above ``bytes_max``."""
    received = 0
    for piece in pieces:
        received += len(piece)
        if received > bytes_max:
            raise _too_large(request, bytes_max)
        yield piece


def _too_large(request: Request, bytes_max: int) -> InstanceError:
    return InstanceError(
        Reason.TOO_LARGE,
        f"The {request.side} sends more than {bytes_max} bytes for {request.path}.",
    )
