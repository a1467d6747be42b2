"""The data set of a deflated file, bounded in size and held once.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section A.5: one raw deflate stream after the file meta information.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from bridge.errors import InstanceError
from bridge.model import Reason

INFLATED_BYTES_MAX = 1 << 30
_INPUT_BYTES = 1 << 16
_OUTPUT_BYTES = 1 << 20


class Room(Protocol):
    """Where an inflated data set is put: in memory, or in a file that the caller brings."""

    def append(self, piece: bytes) -> None:
        """Add bytes at the end."""

    def view(self) -> memoryview:
        """All of it, to be read; nothing is added afterwards."""


class MemoryRoom:
    """Room in memory, grown in place: zlib's own buffer would be held twice when joined."""

    def __init__(self) -> None:
        self._held = bytearray()

    def append(self, piece: bytes) -> None:
        """Add bytes at the end."""
        self._held += piece

    def view(self) -> memoryview:
        """All of it."""
        return memoryview(self._held)


def inflated_head(packed: memoryview, bytes_max: int) -> tuple[memoryview, bool]:
    """Return the first bytes of a deflated data set, and whether they are all of it.

    No more than ``bytes_max`` are read or returned: zlib would copy what it leaves of its input.
    Raises zlib.error where they are damaged.
    """
    engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    head = engine.decompress(packed[:bytes_max], bytes_max)
    return memoryview(head), engine.eof


def inflated_dataset(packed: memoryview, room: Room | None = None) -> memoryview:
    """Return the data set in ``packed``. Raises InstanceError (damaged, cut short, too large)."""
    engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    kept = MemoryRoom() if room is None else room
    inflated_bytes = 0
    try:
        for start in range(0, len(packed), _INPUT_BYTES):
            rest: bytes | memoryview = packed[start : start + _INPUT_BYTES]
            while rest and not engine.eof:
                piece = engine.decompress(rest, _OUTPUT_BYTES)
                inflated_bytes += len(piece)
                _check_size(inflated_bytes)
                kept.append(piece)
                rest = engine.unconsumed_tail
            if engine.eof:
                return kept.view()
        piece = engine.flush()
        kept.append(piece)
    except zlib.error as exc:
        raise InstanceError(Reason.UNDECODABLE, "The deflated data set is damaged.") from exc
    _check_size(inflated_bytes + len(piece))
    if not engine.eof:
        raise InstanceError(Reason.UNDECODABLE, "The deflated data set is cut short.")
    return kept.view()


def _check_size(inflated_bytes: int) -> None:
    if inflated_bytes > INFLATED_BYTES_MAX:
        raise InstanceError(
            Reason.TOO_LARGE, f"The data set inflates to over {INFLATED_BYTES_MAX} bytes."
        )
