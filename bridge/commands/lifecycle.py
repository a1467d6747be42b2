"""What every command that moves or compares instances shares: the beginning, and signals."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bridge.config import Settings
from bridge.errors import EXIT_INTERRUPTED, BridgeError
from bridge.log import set_up_logging
from bridge.model import SideName
from bridge.orthanc import tls_context
from bridge.orthanc.session import ONE_TRY, connect


def begin(settings: Settings, *, level: str | None = None) -> None:
    """Set up the logs and look at the certificates.

    Raises ConfigurationError for a certificate that cannot be used: at the start that is a mistake;
    later it is being renewed, and waited for (bridge.orthanc.session).
    """
    level = level or settings.log_level
    set_up_logging(log_format=settings.log_format, level=level, bridge=settings.name)
    for side in SideName:
        tls_context(settings.endpoint(side))


def count_at_source(settings: Settings) -> int | None:
    """Return how many instances the source holds, for a bar; None where it does not say."""
    try:
        with connect(settings.endpoint(SideName.SOURCE), retries=ONE_TRY) as client:
            return client.statistics().instances
    except BridgeError:
        return None


class Interruption:
    """Which signal asked for the end, if one did."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def by_keyboard(self) -> bool:
        """Whether a person pressed Ctrl-C."""
        return self.signal_number == signal.SIGINT


@contextmanager
def draining_on_signals(stop: Callable[[], None]) -> Iterator[Interruption]:
    """The first SIGTERM or SIGINT drains, the second leaves at once.

    Leaving at once loses nothing: what is not settled is done again after the restart, and
    workers end with this process.

    ``stop`` is called in a thread of its own: a handler runs between two steps of the main thread,
    which may hold the very lock that ``stop`` takes.
    """
    interruption = Interruption()
    stops: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if interruption.signal_number is not None:
            os._exit(EXIT_INTERRUPTED)
        interruption.signal_number = number
        stops.put(True)

    def stop_when_asked() -> None:
        if stops.get():
            stop()

    stopper = threading.Thread(target=stop_when_asked, name="stop-on-signal", daemon=True)
    stopper.start()
    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stops.put(False)
        stopper.join()


SIGNALS = (signal.SIGTERM, signal.SIGINT)
