"""What a pipeline did, for the person who started it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Summary:
    """Counts of finished moves; several phases of one command add to the same."""

    delivered: int = 0
    already_there: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    late: int = 0
    missing: int = 0
    abandoned: int = 0
    stopped: bool = False

    @property
    def settled(self) -> int:
        """How many moves were finished, in whatever way."""
        done = self.delivered + self.already_there
        return done + self.skipped.total() + self.parked.total()
