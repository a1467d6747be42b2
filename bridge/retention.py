"""The source as a transient buffer: lets go of what was delivered, proved and is old enough.

Nothing is deleted on memory alone: right before each deletion the target must still hold the
bytes that were sent, and the source those that were fetched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bridge.core.errors import InstanceError, SideError, StateError
from bridge.core.events import Observer, SourceSwept
from bridge.ledger import Entry, Ledger

BATCH = 100
"""Deletions between two looks at the ledger and at the wish to stop."""
PAUSE_S = 30.0
"""Between sweeps that found nothing to do; a server that is down is left alone so long too."""


class HoldingServer(Protocol):
    """What is needed of a server here."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 of an instance's file. Raises InstanceGone, InstanceError."""

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one batch did. ``more``: another batch is due at once."""

    deleted: int
    differing: int
    more: bool


def sweep(
    ledger: Ledger, source: HoldingServer, target: HoldingServer, *, delivered_before: float
) -> Sweep:
    """Delete one batch of what was delivered before that time, epoch seconds.

    Raises SideError and StateError; what was deleted until then is simply found gone next time.
    """
    due = ledger.kept(delivered_before=delivered_before, limit=BATCH)
    done: list[str] = []
    deleted = differing = 0
    for kept in due:
        same = _same(source, kept.instance_id, kept.source_md5)
        if same and _same(target, kept.instance_id, kept.target_md5):
            deleted += source.delete_instance(kept.instance_id)
        elif same is not None:
            differing += 1
        done.append(kept.instance_id)
    if done:
        ledger.commit(Entry(not_kept=tuple(done)))
    return Sweep(deleted, differing, more=len(due) == BATCH)


def _same(server: HoldingServer, instance_id: str, md5: str) -> bool | None:
    """Whether the server holds these bytes; None when it does not have the instance."""
    try:
        return server.stored_md5(instance_id) == md5
    except InstanceError:
        return None


class Janitor:
    """Sweeps in a thread of its own while the bridge runs."""

    def __init__(
        self,
        *,
        state_path: Path,
        source: HoldingServer,
        target: HoldingServer,
        retention_s: float,
        observer: Observer,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._state_path = state_path
        self._source = source
        self._target = target
        self._retention_s = retention_s
        self._observer = observer
        self._now_s = now_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)

    def start(self) -> None:
        """Sweep from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the present instance and end."""
        self._stop.set()
        self._thread.join(timeout=timeout_s)

    def sweep_once(self) -> Sweep:
        """Do one batch and report it. Raises SideError, StateError."""
        with Ledger(self._state_path, create=False) as ledger:
            done = sweep(
                ledger,
                self._source,
                self._target,
                delivered_before=self._now_s() - self._retention_s,
            )
        if done.deleted or done.differing:
            self._observer.on_event(SourceSwept(done.deleted, done.differing))
        return done

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                more = self.sweep_once().more
            except (SideError, StateError):
                # The pipeline meets the same trouble and reports it; here it only means later.
                more = False
            if not more:
                self._stop.wait(min(PAUSE_S, max(1.0, self._retention_s / 4)))
