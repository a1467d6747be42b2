"""Which of the parked instances a person means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bridge.core.errors import ConfigurationError
from bridge.core.model import Reason
from bridge.core.syntaxes import SYNTAXES
from bridge.entry import Parked
from bridge.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters, all of which must hold. Ages in hours, sequences inclusive, syntax as UID."""

    reason: Reason | None = None
    older_than_h: float | None = None
    newer_than_h: float | None = None
    first: int | None = None
    last: int | None = None
    syntax: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is filtered."""
        return self == Selection()

    def chosen(self, ledger: Ledger, *, now_s: Callable[[], float] = time.time) -> Iterator[Parked]:
        """Iterate over what is meant. Raises StateError."""
        now = now_s()
        before = None if self.older_than_h is None else now - self.older_than_h * 3600
        after = None if self.newer_than_h is None else now - self.newer_than_h * 3600
        for parked in ledger.parked(reason=self.reason, parked_before=before):
            if (after is None or parked.parked_at >= after) and self._matches(parked):
                yield parked

    def _matches(self, parked: Parked) -> bool:
        sequence = parked.move.sequence
        if self.first is not None and (sequence is None or sequence < self.first):
            return False
        if self.last is not None and (sequence is None or sequence > self.last):
            return False
        return self.syntax is None or parked.source_syntax == self.syntax


def syntax_uid(name_or_uid: str | None) -> str | None:
    """Return the UID of any transfer syntax, given its keyword or UID. Raises ConfigurationError.

    "" asks for instances whose syntax is not known.
    """
    if name_or_uid in (None, ""):
        return name_or_uid
    wanted = str(name_or_uid).strip()
    for uid, syntax in SYNTAXES.items():
        if wanted == uid or wanted.lower() == syntax.keyword.lower():
            return uid
    if all(character in "0123456789." for character in wanted):
        return wanted
    raise ConfigurationError(
        f"--syntax {wanted} is neither a UID nor the keyword of a transfer syntax.",
        advice="For example JPEG2000Lossless or 1.2.840.10008.1.2.4.90.",
    )
