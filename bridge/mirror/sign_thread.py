"""Signs at the source what was delivered, beside the bridge (BRIDGE_DELIVERED_SIGN).

What is to be signed is on record with the delivery, in one transaction: a kill loses none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from bridge.events import Observer, SignStopped, SignWorks
from bridge.ledger.store import Ledger
from bridge.mirror.beside_files import LONGEST_S
from bridge.mirror.beside_thread import BesideThread
from bridge.mirror.delivered_sign import Signer
from bridge.mirror.verify import VerificationPace

BATCH = 100
"""Instances that are looked at together."""
SIGN_RATE_S = 200.0
"""Instances a second at most; less while instances are delivered (OperatorsPace)."""


class SignThread(BesideThread):
    """Signs until it is stopped."""

    def __init__(
        self,
        signer: Signer,
        *,
        state_path: Path,
        pace: VerificationPace,
        observer: Observer,
        stop: threading.Event,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            "sign",
            self.sign_some,
            state_path=state_path,
            observer=observer,
            stop=stop,
            stopped=SignStopped,
            works=SignWorks,
            says=("sign_stopped", "nothing is signed at the source"),
        )
        self._signer = signer
        self._pace = pace
        self._now_s = now_s

    def sign_some(self, ledger: Ledger) -> bool:
        """Sign a part of what is due; False where nothing is. Raises SideError, StateError."""
        due = ledger.signs_due(self._now_s(), BATCH, longest_s=LONGEST_S)
        if not due:
            return False
        if self._pace.take(ledger, len(due)):
            self._signer.sign(ledger, due)
        return True
