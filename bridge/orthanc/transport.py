"""The way to one server: httpx's transport, with trust that we set and deadlines that hold.

httpx's time-outs are per read and per write: a server that sends one byte every few seconds never
meets them. Here each read and write gets no more time than what the whole call has left.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import httpx

from bridge.core.errors import ConfigurationError
from bridge.core.model import Endpoint

KEEPALIVE_S = 0.7  # Orthanc closes idle connections after one second
CONNECTIONS_MAX = 4  # one at a time is the rule; an answer may be open beside it


class Line:
    """What the current call may still take, and what its current attempt has seen."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self.opened = False
        """The attempt opened a connection (it did not reuse one)."""
        self.received = 0
        """Bytes received since the attempt began, TLS removed."""

    @contextmanager
    def within(self, seconds: float | None) -> Iterator[None]:
        """Bound everything in this block; an inner block never extends an outer one."""
        outer = self._deadline
        inner = None if seconds is None else time.monotonic() + seconds
        self._deadline = min((d for d in (outer, inner) if d is not None), default=None)
        try:
            yield
        finally:
            self._deadline = outer

    def begin_attempt(self) -> None:
        """Forget what the attempt before has seen."""
        self.opened = False
        self.received = 0

    @property
    def is_over(self) -> bool:
        """True when the deadline has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def allowed(self, timeout_s: float | None) -> float | None:
        """Return the seconds that one operation may take: 0 or less when time is up."""
        if self._deadline is None:
            return timeout_s
        left_s = self._deadline - time.monotonic()
        return left_s if timeout_s is None else min(timeout_s, left_s)


class Transport(httpx.HTTPTransport):
    """httpx's transport over a pool that obeys a Line. Raises httpx's exceptions."""

    def __init__(self, endpoint: Endpoint, line: Line) -> None:
        context = tls_context(endpoint)
        super().__init__(verify=context, trust_env=False)
        # httpx does not pass a network backend on; its transport only needs a pool of this kind.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_MAX,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=DeadlineBackend(line),
        )


class DeadlineBackend(httpcore.SyncBackend):
    """httpcore's own backend, with every operation bounded by a Line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Open a connection within the time left."""
        allowed_s = _positive(self._line.allowed(timeout), httpcore.ConnectTimeout)
        self._line.opened = True
        stream = super().connect_tcp(host, port, allowed_s, local_address, socket_options)
        return _Stream(stream, self._line)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, line: Line) -> None:
        self._stream = stream
        self._line = line

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        allowed_s = _positive(self._line.allowed(timeout), httpcore.ReadTimeout)
        data = self._stream.read(max_bytes, allowed_s)
        self._line.received += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        allowed_s = _positive(self._line.allowed(timeout), httpcore.WriteTimeout)
        self._stream.write(buffer, allowed_s)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        allowed_s = _positive(self._line.allowed(timeout), httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, allowed_s), self._line)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  (httpcore's signature)
        return self._stream.get_extra_info(info)


def _positive(allowed_s: float | None, time_is_up: type[Exception]) -> float | None:
    if allowed_s is not None and allowed_s <= 0:
        raise time_is_up
    return allowed_s


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Build what we trust, and show, as the endpoint says.

    ``ca_file`` replaces the system's authorities; the host name is always checked.
    Raises ConfigurationError naming the setting whose file cannot be used.
    """
    prefix = f"BRIDGE_{endpoint.side.name}_"
    if not endpoint.url.startswith("https://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is never asked
    _must_be_readable(f"{prefix}CA_FILE", endpoint.ca_file)
    _must_be_readable(f"{prefix}CLIENT_CERT_FILE", endpoint.client_cert_file)
    _must_be_readable(f"{prefix}CLIENT_KEY_FILE", endpoint.client_key_file)
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
    except ssl.SSLError as exc:
        raise ConfigurationError(
            f"The file that {prefix}CA_FILE names holds no certificate in PEM form.",
            advice="Name the certificate of the authority that signed the server's.",
        ) from exc
    if endpoint.client_cert_file is None:
        return context
    try:
        # An encrypted key must fail, not ask for its password on a terminal.
        context.load_cert_chain(
            endpoint.client_cert_file, endpoint.client_key_file, password=lambda: b""
        )
    except ssl.SSLError as exc:
        raise ConfigurationError(
            f"The files that {prefix}CLIENT_CERT_FILE and {prefix}CLIENT_KEY_FILE name are not "
            "a certificate and its key, unencrypted, in PEM form.",
            advice="Check that the key belongs to the certificate.",
        ) from exc
    return context


def _must_be_readable(setting: str, file: str | None) -> None:
    if file is None:
        return
    try:
        Path(file).open("rb").close()
    except OSError as exc:
        raise ConfigurationError(
            f"The file that {setting} names cannot be read: {exc.strerror}.",
            advice="Check the path and its permissions.",
        ) from exc
