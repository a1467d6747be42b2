"""The running bridge on the same state, as commands that work beside it see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

MONITOR_KEY = "monitor_url"
"""Ledger: where the running bridge serves its status."""

ANSWER_BYTES_MAX = 4 * 1024 * 1024
TIMEOUT_S = 2.0
LOOK_EVERY_S = 1.0


def ask(url: str | None) -> dict[str, Any] | None:
    """Return what the running bridge tells of itself; None when there is none."""
    # Imported here: the running bridge itself has no use for them.
    import json
    from urllib.error import URLError
    from urllib.request import ProxyHandler, build_opener

    if url is None:
        return None
    address = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"{address}/api/status", timeout=TIMEOUT_S) as answer:
            told = json.loads(answer.read(ANSWER_BYTES_MAX))
    except (URLError, OSError, ValueError):
        return None
    return {"monitor_url": address, **told} if isinstance(told, dict) else None


class Neighbour:
    """Looks, in a thread of its own, whether the running bridge has instances under way.

    A context manager: leaving it ends the thread.
    """

    def __init__(
        self,
        look: Callable[[str | None], dict[str, Any] | None] = ask,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._url: str | None = None
        self._busy = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_S)

    def at(self, url: str | None) -> None:
        """Say where it is now, or that there is none. Never blocks."""
        self._url = url
        if url is not None and self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="neighbour", daemon=True)
            self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether it had instances under way when last looked at."""
        return self._busy and self._url is not None

    def _watch(self) -> None:
        while True:
            told = self._look(self._url)
            self._busy = bool(told and told.get("in_flight"))
            if self._ended.wait(self._every_s):
                return
