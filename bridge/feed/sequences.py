"""A set of sequences that takes an eighth of a byte for each, and little more where some lack.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

BLOCK = 1024
"""Sequences in one block: one integer, a bit for each."""


class Sequences:
    """Sequences that have been seen."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}

    def add(self, sequence: int) -> bool:
        """Add a sequence; False when it was there already."""
        block, place = divmod(sequence, BLOCK)
        known, bit = self._blocks.get(block, 0), 1 << place
        self._blocks[block] = known | bit
        return not known & bit

    def __contains__(self, sequence: int) -> bool:
        block, place = divmod(sequence, BLOCK)
        return bool(self._blocks.get(block, 0) >> place & 1)

    def forget_below(self, sequence: int) -> None:
        """Forget the blocks that lie wholly below a sequence."""
        first = sequence // BLOCK
        if self._blocks and min(self._blocks) < first:
            self._blocks = {block: bits for block, bits in self._blocks.items() if block >= first}
