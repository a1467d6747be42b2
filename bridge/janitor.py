"""Lets the source go of what is old enough, in a thread beside the bridge or at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bridge.age_clock import AgeClock, boot_time_s
from bridge.brake import PAUSED_KEY
from bridge.core.errors import BridgeError
from bridge.core.events import Observer, SourceSwept, SweepFailed, SweepWorks
from bridge.ledger import Ledger
from bridge.log_lines import log
from bridge.retention import HoldingServer, KeepingServer, Sweep, Sweeper

PAUSE_S = 30.0
"""Between sweeps that found nothing to do; a server that is down is left alone so long too."""


class Janitor:
    """Sweeps in a thread of its own while the bridge runs."""

    def __init__(
        self,
        *,
        state_path: Path,
        source: KeepingServer,
        target: HoldingServer,
        retention_s: float,
        observer: Observer,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = boot_time_s,
    ) -> None:
        self._state_path = state_path
        self._retention_s = retention_s
        self._observer = observer
        self._clock = AgeClock(retention_s, now_s=now_s, steady_s=steady_s)
        self._stop = threading.Event()
        self._sweeper = Sweeper(source, target, stopping=self._stop.is_set)
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)
        self._said = ""

    def start(self) -> None:
        """Sweep from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the present instance and end."""
        self._stop.set()
        self._thread.join(timeout=timeout_s)

    def sweep_once(self) -> Sweep:
        """Do one batch and report it; nothing while the operator has paused the bridge.

        Raises as ``Sweeper.sweep`` does.
        """
        done = Sweep()
        delivered_before = self._clock.now_s() - self._retention_s
        try:
            with Ledger(self._state_path, create=False) as ledger:
                if ledger.meta(PAUSED_KEY) is None:
                    self._sweeper.sweep(ledger, delivered_before=delivered_before, done=done)
        finally:
            if done.deleted or done.spared:
                self._observer.on_event(SourceSwept(done.deleted, done.spared))
        return done

    def _work(self) -> None:
        try:
            self._sweep_on()
        finally:
            if not self._stop.is_set():
                # A bug in the bridge: the log tells where. Nobody would notice otherwise.
                self._observer.on_event(SweepFailed("its thread has ended; restart the bridge"))

    def _sweep_on(self) -> None:
        while not self._stop.is_set():
            try:
                more = self.sweep_once().more
                self._said = ""
                self._observer.on_event(SweepWorks())
            except BridgeError as exc:
                # Not always met by the pipeline too: a login may read and not delete.
                more = False
                self._observer.on_event(SweepFailed(str(exc)))
                if str(exc) != self._said:
                    self._said = str(exc)
                    log(logging.ERROR, "sweep_failed", f"nothing is deleted at present: {exc}")
            if not more:
                self._stop.wait(min(PAUSE_S, max(1.0, self._retention_s / 4)))
