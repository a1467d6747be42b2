"""How long instances of each syntax have taken: measured while moving, kept for ``plan``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bridge.errors import StateError
from bridge.events import Event, Progress, Settled
from bridge.ledger.store import Ledger
from bridge.model import Delivered

THROUGHPUT_KEY = "throughput"
"""Ledger: what was measured, as JSON."""
SAVE_EVERY_S = 60.0
SYNTAXES_MAX = 200
FADE_AT_INSTANCES = 20_000
"""At so many instances both sums are halved: what was long ago counts for less and less."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Instances of one route that were delivered: source bytes and seconds of work together.

    Seconds of work are the four stages of one worker; several workers work at once.
    """

    instances: float = 0.0
    source_bytes: float = 0.0
    work_s: float = 0.0

    def plus(self, done: Delivered) -> Measured:
        """Add a delivery."""
        part = 0.5 if self.instances >= FADE_AT_INSTANCES else 1.0
        return Measured(
            self.instances * part + 1,
            self.source_bytes * part + done.source_bytes,
            self.work_s * part + done.stages.total_s,
        )


Table = Mapping[str, Measured]
"""By route, see ``route_of``."""


def route_of(source_syntax: str, target_syntax: str) -> str:
    """Name what was done to an instance, for the table."""
    return f"{source_syntax} {target_syntax}"


def load_throughput(ledger: Ledger) -> dict[str, Measured]:
    """Read what was measured; empty when nothing was, or when it cannot be understood."""
    try:
        rows = json.loads(ledger.meta(THROUGHPUT_KEY) or "{}")
        return {str(route): Measured(*map(float, row)) for route, row in rows.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


class Throughput:
    """An observer that measures, and keeps what it measured in the ledger now and then."""

    def __init__(self, *, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._steady_s = steady_s
        self._table: dict[str, Measured] = {}
        self._ledger: Ledger | None = None
        self._changed = False
        self._saved_s = steady_s()

    @contextmanager
    def kept_in(self, ledger: Ledger) -> Iterator[None]:
        """Go on from what the ledger has, and save to it, until the block ends."""
        self._table = load_throughput(ledger)
        self._ledger = ledger
        try:
            yield
            self._save()
        finally:
            self._ledger = None

    def on_event(self, event: Event) -> None:
        """Add a delivery; what was already there tells nothing about the target's time."""
        match event:
            case Settled(outcome=Delivered() as done) if not done.already_there:
                route = route_of(done.source_syntax, done.target_syntax)
                if route in self._table or len(self._table) < SYNTAXES_MAX:
                    self._table[route] = self._table.get(route, Measured()).plus(done)
                    self._changed = True
            case _:
                pass

    def on_progress(self, progress: Progress) -> None:  # noqa: ARG002 (an observer's signature)
        """Save now and then."""
        if self._changed and self._steady_s() - self._saved_s >= SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        if self._ledger is None or not self._changed:
            return
        self._saved_s = self._steady_s()
        rows = {
            route: (round(m.instances, 1), round(m.source_bytes), round(m.work_s, 3))
            for route, m in self._table.items()
        }
        # The pipeline meets the same trouble with its own records, and reports it.
        with suppress(StateError):
            self._ledger.set_meta(THROUGHPUT_KEY, json.dumps(rows))
            self._changed = False
