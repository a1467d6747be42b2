"""The running bridge on the same ledger, as commands that work beside it see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

ANSWER_BYTES_MAX = 4 * 1024 * 1024
TIMEOUT_S = 2.0
ASK_EVERY_S = 1.0


def ask_running(url: str | None, cert_file: str | None = None) -> dict[str, Any] | None:
    """Return the status of the running bridge; None where none runs or none answers.

    ``cert_file``: BRIDGE_HEALTH_CERT_FILE. With HTTPS exactly that certificate is believed: it may
    be for another name than the address that we ask.
    """
    # Imported here: the running bridge itself does not use them.
    import json
    import ssl
    from urllib.error import URLError
    from urllib.request import BaseHandler, HTTPSHandler, ProxyHandler, build_opener

    if url is None:
        return None
    address = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    try:
        handlers: list[BaseHandler] = [ProxyHandler({})]
        if address.startswith("https:"):
            tls = ssl.create_default_context(cafile=cert_file)
            tls.check_hostname = False
            tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            handlers.append(HTTPSHandler(context=tls))
        opener = build_opener(*handlers)
        with opener.open(f"{address}/api/status", timeout=TIMEOUT_S) as answer:
            told = json.loads(answer.read(ANSWER_BYTES_MAX))
    except (URLError, OSError, ValueError):
        return None
    return {"monitor_url": address, **told} if isinstance(told, dict) else None


class AskedBridge:
    """Asks, in a thread of its own, whether the running bridge has instances under way.

    A context manager: leaving it ends the thread.
    """

    def __init__(
        self,
        ask: Callable[[str | None], dict[str, Any] | None] = ask_running,
        every_s: float = ASK_EVERY_S,
    ) -> None:
        self._ask = ask
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

    def serves_at(self, url: str | None) -> None:
        """Note where it serves its status; None where no bridge runs. Never blocks."""
        self._url = url
        if url is not None and self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="running-bridge", daemon=True)
            self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether it had instances under way when it was asked last."""
        return self._busy and self._url is not None

    def _watch(self) -> None:
        while True:
            told = self._ask(self._url)
            self._busy = bool(told and told.get("in_flight"))
            if self._ended.wait(self._every_s):
                return
