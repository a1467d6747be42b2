"""What becomes of one metadata or attachment that is carried to the target: a pure function.

This file must not know: sockets, files, clocks, logging, settings.

The source wins, and only for the names that an operator has listed. What the target lacks is
written. What it holds is replaced only where it is the very value that this bridge has written
there. Whatever else is there is somebody else's: it stays, and is told. Nothing is ever deleted at
the target: neither what the source has deleted, nor what it has never had.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum


class Carrying(Enum):
    """What is to be done. Values are compared by digests."""

    NOTHING = "nothing"
    """Both hold the same, or the source holds none."""
    WRITE = "write"
    """The target lacks it."""
    REPLACE = "replace"
    """The source has changed it since this bridge wrote it."""
    LEAVE = "leave"
    """Somebody else has written another value at the target."""


def carrying_of(source: str | None, target: str | None, ours: Collection[str]) -> Carrying:
    """Decide. ``source``, ``target``: digests, None for no value. ``ours``: what we wrote."""
    if source is None or source == target:
        return Carrying.NOTHING
    if target is None:
        return Carrying.WRITE
    return Carrying.REPLACE if target in ours else Carrying.LEAVE
