"""Which frames are decoded before the first byte leaves, and kept until they do.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from bridge.core.evidence import Evidence
from bridge.core.frames import CompressedFrames
from bridge.core.pixels import Description
from bridge.core.samples import Array


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
    """Too much to hold: only the first frame is decoded early, most faults show in it.

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
