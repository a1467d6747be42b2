"""A thread beside the bridge that does a part of its work again and again, until it is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from bridge.errors import BridgeError
from bridge.events import Event, Observer
from bridge.ledger.store import Ledger
from bridge.log import log

IDLE_S = 2.0
"""Between two looks when there is nothing to do."""
PAUSE_S = 5.0
"""After a failure; ten times as long at most."""
FAILURES_MAX = 10


class BesideThread:
    """Works until it is stopped.

    ``work`` does a part and tells whether more may be left; it raises BridgeError, OSError (TMPDIR
    is full), and is called again then. ``release`` is called
    before, and at the end. ``stopped`` makes the
    event for a failure, ``works`` the one after a part that was done. ``says``: the name of the
    line in the log, and how it begins.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Ledger], bool],
        *,
        state_path: Path,
        observer: Observer,
        stop: threading.Event,
        stopped: Callable[[str], Event],
        works: Callable[[], Event],
        says: tuple[str, str],
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._do = work
        self._state_path = state_path
        self._observer = observer
        self._stop = stop
        self._stopped, self._works = stopped, works
        self._says = says
        self._release = release
        self._failures = 0
        self._said = ""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Work from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the present part and end."""
        self._stop.set()
        self._thread.join(timeout=timeout_s)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._stop.wait(self.turn())
        finally:
            self._release()
            if not self._stop.is_set():
                # A bug in the bridge: the log tells where. Nobody would notice otherwise.
                self._observer.on_event(self._stopped("its thread has ended; restart the bridge"))

    def turn(self) -> float:
        """Do a part; returns for how long to wait then, seconds."""
        try:
            with Ledger(self._state_path, create=False) as ledger:
                busy = self._do(ledger)
        except (BridgeError, OSError) as exc:
            self._release()
            self._failures = min(self._failures + 1, FAILURES_MAX)
            said = exc.message if isinstance(exc, BridgeError) else f"TMPDIR: {exc.strerror}"
            self._observer.on_event(self._stopped(said))
            if said != self._said:
                self._said = said
                event, begins = self._says
                log(logging.WARNING, event, f"{begins}: {said}")
            return PAUSE_S * self._failures
        self._failures, self._said = 0, ""
        self._observer.on_event(self._works())
        return 0.0 if busy else IDLE_S
