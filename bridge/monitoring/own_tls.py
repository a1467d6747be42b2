"""TLS of the monitoring server: its certificate, read again when it is renewed, and the handshake.

A renewed pair is taken with the next connection. One that cannot be used is told, and the one from
before stays: a monitoring server that ends with its certificate would tell of nothing any more.

uvicorn has no bound for the handshake, and counts a connection only after it. So ``TlsDoor`` does
it before uvicorn sees the connection: bounded in time, and in number.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from bridge.credentials import must_be_meant
from bridge.errors import ConfigurationError
from bridge.log import log

CERT_SETTING, KEY_SETTING = "BRIDGE_HEALTH_CERT_FILE", "BRIDGE_HEALTH_KEY_FILE"
LOOK_EVERY_S = 1.0
RENEWAL_S = 5.0
"""Certificate and key are two files: while they are exchanged they do not belong together."""
HANDSHAKE_S = 5.0
HANDSHAKES_MAX = 64

Stamp = tuple[tuple[int, int, int], ...]
"""What two files are known again by."""


def server_context(cert_file: str, key_file: str | None) -> ssl.SSLContext:
    """Build what the server shows. Raises ConfigurationError for a pair that cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for setting, file in ((CERT_SETTING, cert_file), (KEY_SETTING, key_file)):
        if file is not None:
            must_be_meant(setting, Path(file))
    try:
        for file in (cert_file, key_file):
            if file is not None and not stat.S_ISREG(Path(file).stat().st_mode):
                raise OSError("not a file")  # a pipe would hold the server until somebody writes
        # An encrypted key must fail, not ask for its password on a terminal.
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    except OSError as exc:
        raise ConfigurationError(
            f"The files that {CERT_SETTING} and {KEY_SETTING} name are not a certificate and its "
            "key, unencrypted, in PEM form.",
            advice="Check that both can be read, and that the key belongs to the certificate.",
        ) from exc
    return context


class RenewedCertificate:
    """The certificate as it is now. For one thread, that of the server."""

    def __init__(
        self,
        cert_file: str,
        key_file: str | None,
        *,
        refused: Callable[[str], None] = lambda _: None,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = (cert_file, key_file)
        self._refused = refused
        self._steady_s = steady_s
        self._stamp = self._look()
        self._context = server_context(cert_file, key_file)
        self._looked_s = steady_s()
        self._wrong_since_s: float | None = None
        self._told = False

    def context(self) -> ssl.SSLContext:
        """Return what to show now; the files are looked at once a second at most."""
        now_s = self._steady_s()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            stamp = self._look()
            if stamp != self._stamp:
                self._renew(stamp, now_s)
            elif self._wrong_since_s is not None:  # the files from before are there again
                self._well_again()
        return self._context

    def _renew(self, stamp: Stamp, now_s: float) -> None:
        try:
            context = server_context(*self._files)
        except ConfigurationError as exc:
            self._wrong_since_s = since_s = self._wrong_since_s or now_s
            if not self._told and now_s - since_s >= RENEWAL_S:
                self._told = True
                self._refused(exc.message)
                text = f"{exc.message} The monitoring server still uses the previous certificate."
                log(logging.ERROR, "certificate_refused", text)
            return
        self._stamp, self._context = stamp, context
        self._well_again()
        log(logging.INFO, "certificate_renewed", "the monitoring server has a new certificate")

    def _well_again(self) -> None:
        self._wrong_since_s, self._told = None, False
        self._refused("")

    def _look(self) -> Stamp:
        found = []
        for file in self._files:
            with suppress(OSError):
                if file is not None:
                    seen = Path(file).stat()
                    found.append((seen.st_ino, seen.st_size, seen.st_mtime_ns))
        return tuple(found)


class TlsDoors:
    """What the doors of one server share."""

    def __init__(self, certificate: RenewedCertificate) -> None:
        self.certificate = certificate
        self.waiting: dict[TlsDoor, None] = {}
        """Those whose handshake is not over, the oldest first."""


class TlsDoor(asyncio.Protocol):
    """One connection until its handshake is over; then ``inner`` has it."""

    def __init__(self, doors: TlsDoors, inner: asyncio.Protocol) -> None:
        self._doors = doors
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = bytearray()
        """What came with the end of the handshake, before ``inner`` has the connection."""
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, and make room."""
        plain = self._transport = cast("asyncio.Transport", transport)
        plain.pause_reading()  # what comes is for the handshake
        self._doors.waiting[self] = None
        if len(self._doors.waiting) > HANDSHAKES_MAX:
            next(iter(self._doors.waiting)).drop()
        self._task = asyncio.get_running_loop().create_task(self._open(plain))

    def data_received(self, data: bytes) -> None:
        """Keep it for ``inner``: one piece, since ``inner`` takes over in the next turn."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Note that nobody is there any more."""
        self._lost = True

    def drop(self) -> None:
        """Break the connection: others want to be heard."""
        self._doors.waiting.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    async def _open(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            opened = await loop.start_tls(
                transport,
                self,
                self._doors.certificate.context(),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=HANDSHAKE_S,
            )
        except OSError:  # whoever speaks no TLS, too slowly, or is gone
            transport.abort()
            return
        finally:
            self._doors.waiting.pop(self, None)
        if opened is None or self._lost:
            return
        opened.set_protocol(self._inner)
        self._inner.connection_made(opened)
        if self._early:
            self._inner.data_received(bytes(self._early))
