"""What a comparison of the two servers found: kept on disk, so that there may be any number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

from bridge.checks.disk_lists import Spool
from bridge.model import Move


class State(StrEnum):
    """How an instance differs. The names are part of the contract."""

    MISSING = "missing"
    """At the source, not at the target, and nobody says why."""
    WAITING = "waiting"
    """Not at the target yet: the follower has not come to it."""
    PARKED = "parked"
    """Not at the target because it is parked."""
    EXTRA = "extra"
    """At the target, not at the source."""
    SYNTAX = "syntax"
    """At the target in another syntax than the bridge would send."""
    PIXELS = "pixels"
    """The target's image is another one than the source's."""
    UNREADABLE = "unreadable"
    """The images cannot be compared: no decoder reads the source's."""
    SOURCE_DAMAGED = "source_damaged"
    """The source's own file is not the one that it notes: damaged on its disk."""
    LOST = "lost"
    """Neither server holds it, and the source's copy has gone by the bridge's doing."""
    FIXED = "fixed"
    """Was missing or waiting, and was brought to the target by --fix."""


MOVABLE = (State.MISSING, State.WAITING)
"""What can be brought to the target. Parked ones have a command of their own."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One instance that differs."""

    instance_id: str
    state: State
    source_syntax: str = ""
    target_syntax: str = ""
    detail: str = ""


class Differences:
    """Differences in the order they were added; read as often as wanted. A context manager."""

    def __init__(self) -> None:
        self.counts: Counter[State] = Counter()
        self._rows = Spool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._rows.close()

    def add(self, difference: Difference) -> None:
        """Add one."""
        self.counts[difference.state] += 1
        self._rows.add(asdict(difference))

    def __iter__(self) -> Iterator[Difference]:
        """Yield all. One reader at a time, and none while adding."""
        for row in self._rows:
            yield Difference(**{**row, "state": State(row["state"])})

    def moves(self) -> Iterator[Move]:
        """Yield what is to be moved to bring the servers together."""
        return (Move(difference.instance_id) for difference in self if difference.state in MOVABLE)
