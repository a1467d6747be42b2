"""What a journal has noted and not written yet."""

from __future__ import annotations

from bridge.core.model import Move
from bridge.entry import Attempts, Entry, Kept, Parked
from bridge.witnesses import REMEMBERED


class Notes:
    """What is noted and not written yet."""

    def __init__(self) -> None:
        self.settled: list[int] = []
        self.parked: dict[str, Parked] = {}
        self.unparked: dict[str, None] = {}
        self.attempts: dict[str, Attempts] = {}
        self.finished: dict[str, None] = {}
        self.recent: list[tuple[int, str]] = []
        self.kept: dict[str, Kept] = {}

    def finish(self, move: Move, parked: Parked | None, kept: Kept | None) -> None:
        """Note that a move is finished: parked, or delivered and ``kept`` by the source."""
        self.attempts.pop(move.instance_id, None)
        self.finished[move.instance_id] = None
        if kept is not None:
            self.kept[move.instance_id] = kept
        if parked is None:
            self.parked.pop(move.instance_id, None)
            self.unparked[move.instance_id] = None
        else:
            # Delivered before, and perhaps wrongly: that is no proof any more.
            self.kept.pop(move.instance_id, None)
            self.unparked.pop(move.instance_id, None)
            self.parked[move.instance_id] = parked

    def entry(self, *, checkpoint: int | None = None, recent_from: int | None = None) -> Entry:
        """Return all of it as one transaction of the ledger."""
        above = checkpoint if checkpoint is not None else -1
        return Entry(
            checkpoint=checkpoint,
            settled=tuple(sequence for sequence in self.settled if sequence > above),
            parked=tuple(self.parked.values()),
            unparked=tuple(self.unparked),
            attempts=self.attempts,
            finished=tuple(self.finished),
            recent=tuple(row for row in self.recent if row[0] >= (recent_from or 0))
            or tuple(self.recent[-REMEMBERED:]),
            recent_from=recent_from,
            kept=tuple(self.kept.values()),
        )

    def any(self) -> bool:
        """Tell whether anything is noted."""
        return bool(self.finished or self.attempts or self.recent)
