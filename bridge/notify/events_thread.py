"""Tells and sends events beside the bridge, in two threads of their own.

A receiver that hangs delays no telling, and neither delays a delivery.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from bridge.errors import StateError
from bridge.events import Observer, TellingFailed
from bridge.ledger.outbox import EventLedger
from bridge.log import log
from bridge.notify.sending import Sender
from bridge.notify.telling import StudyWatch, Teller, Troubles

TELL_EVERY_S = 1.0
STATE_PAUSE_S = 10.0
"""After the state file could not be used; the pipeline reports that."""
STOP_S = 3.0
"""So long a stop waits for the threads: what they leave undone is done after the next start."""


class Repeating:
    """A thread that does something again and again with a ledger of its own.

    ``turn`` returns for how long to wait then, seconds. A StateError puts it off.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[EventLedger], float],
        *,
        state_path: Path,
        observer: Observer,
        stop: threading.Event,
    ) -> None:
        self._name = name
        self._turn = turn
        self._state_path = state_path
        self._observer = observer
        self._stop = stop
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; False when it did not come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._stop.wait(self._once())
        finally:
            if not self._stop.is_set():
                # A bug in the bridge: the log tells where. Nobody would notice otherwise.
                text = f"the thread {self._name!r} has ended; restart the bridge"
                self._observer.on_event(TellingFailed(text))

    def _once(self) -> float:
        try:
            with EventLedger(self._state_path, create=False) as ledger:
                return self._turn(ledger)
        except StateError as exc:
            log(logging.DEBUG, "events_wait", f"events wait for the state file: {exc.message}")
            return STATE_PAUSE_S


class EventsThread:
    """Both threads. ``watch`` None: no study is judged (BRIDGE_KEEP_STUDIES_DAYS=0)."""

    def __init__(
        self,
        teller: Teller,
        sender: Sender,
        watch: StudyWatch | None,
        *,
        state_path: Path,
        observer: Observer,
        source_up: Callable[[], bool],
        steady_s: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._teller = teller
        self._sender = sender
        self._watch = watch
        self._troubles = Troubles(observer, steady_s=steady_s)
        self._source_up = source_up
        self._state_path = state_path
        self._stop = stop
        self._begun = False
        self._threads = [
            Repeating(name, turn, state_path=state_path, observer=observer, stop=stop)
            for name, turn in (("events", self.tell), ("outbox", sender.turn))
        ]

    def start(self) -> None:
        """Tell and send from now on."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, finish: bool) -> None:
        """End both. ``finish``: a command has ended; tell and send what is left, once."""
        self._stop.set()
        ended = [thread.join(STOP_S) for thread in self._threads]
        if not finish or not all(ended):
            return
        try:
            with EventLedger(self._state_path, create=False) as ledger:
                self.tell(ledger, at_once=True)
                self._sender.turn(ledger, last=True)
        except StateError as exc:
            log(logging.WARNING, "events_wait", f"events wait for the next start: {exc.message}")

    def tell(self, ledger: EventLedger, *, at_once: bool = False) -> float:
        """Tell what is to be told; returns for how long to wait then. Raises StateError."""
        if not self._begun:
            self._teller.begin(ledger)
            self._begun = True
        self._teller.turn(ledger, at_once=at_once)
        watch = self._watch
        if watch is not None and self._source_up():
            self._troubles.try_to(lambda: watch.turn(ledger))
        return TELL_EVERY_S
