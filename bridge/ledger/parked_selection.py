"""Which of the parked instances a person means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bridge.ledger.records import Parked
from bridge.ledger.store import Ledger
from bridge.model import Reason


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters, all of which must hold. Ages in hours, sequences inclusive, syntax as UID."""

    reason: Reason | None = None
    older_than_h: float | None = None
    newer_than_h: float | None = None
    first: int | None = None
    last: int | None = None
    syntax: str | None = None
    study: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is filtered."""
        return self == Selection()

    def chosen(
        self, ledger: Ledger, *, dropped: bool = False, now_s: Callable[[], float] = time.time
    ) -> Iterator[Parked]:
        """Iterate over what is meant of what is parked, or was dropped. Raises StateError."""
        now = now_s()
        before = None if self.older_than_h is None else now - self.older_than_h * 3600
        after = None if self.newer_than_h is None else now - self.newer_than_h * 3600
        of_study = None if self.study is None else _instances_of(ledger, self.study)
        for parked in ledger.parked(reason=self.reason, parked_before=before, dropped=dropped):
            if of_study is not None and parked.move.instance_id not in of_study:
                continue
            if (after is None or parked.parked_at >= after) and self._matches(parked):
                yield parked

    def _matches(self, parked: Parked) -> bool:
        sequence = parked.move.sequence
        if self.first is not None and (sequence is None or sequence < self.first):
            return False
        if self.last is not None and (sequence is None or sequence > self.last):
            return False
        return self.syntax is None or parked.source_syntax == self.syntax


def _instances_of(ledger: Ledger, study: str) -> frozenset[str]:
    """Return the instances of a study that are parked or were dropped."""
    return frozenset(
        instance_id
        for record in ledger.find_studies(study, limit=1)
        for instance_id in ledger.lacking_of_study(record.study.uid)
    )
