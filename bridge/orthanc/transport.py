"""The way to one server: kept connections, trust that we set, and deadlines that hold.

Time-outs of sockets are per read and per write: a server that sends one byte every few seconds
never meets them. Here each read and write gets no more time than what the whole call has left.
An httpx transport over Python's own ``http.client``: half the CPU of httpx's default one, and one
copy of a body instead of four (docs/decisions/0003-speed.md).
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from bridge.core.errors import ConfigurationError
from bridge.core.model import Endpoint
from bridge.orthanc.connection import Answer, Connection

CONNECTIONS_MAX = 4  # one at a time is the rule; an answer may be open beside it
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


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

    def allowed(self, timeout_s: float) -> float:
        """Return the seconds that one operation may take: 0 or less when time is up."""
        if self._deadline is None:
            return timeout_s
        return min(timeout_s, self._deadline - time.monotonic())


class Transport(httpx.BaseTransport):
    """An httpx transport that obeys a Line. Raises httpx's exceptions.

    Every request must be for the endpoint's own server: connections are kept by nothing else. It
    has the extensions ``timeout`` (seconds by phase) and ``target`` (path and query, quoted).
    """

    def __init__(self, endpoint: Endpoint, line: Line) -> None:
        self._context = tls_context(endpoint)
        self._line = line
        self._idle: list[Connection] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the head of its answer. The body is read from the response."""
        timeouts = request.extensions["timeout"]
        connection = self._connection(request, timeouts["connect"])
        try:
            answer = _exchange(connection, request, timeouts)
        except BaseException:
            connection.close()
            raise
        body = _Body(answer, lambda: self._release(connection, answer))
        return httpx.Response(answer.status, headers=answer.headers, stream=body)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _connection(self, request: httpx.Request, timeout_s: float) -> Connection:
        while self._idle:
            kept = self._idle.pop()
            if kept.is_fresh:
                return kept
            kept.close()
        return Connection.open(request.url, self._context, self._line, timeout_s)

    def _release(self, connection: Connection, answer: Answer) -> None:
        if answer.is_over and len(self._idle) < CONNECTIONS_MAX:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer; its connection is released once."""

    def __init__(self, answer: Answer, release: Callable[[], None]) -> None:
        self._answer = answer
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.pieces()

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


def _exchange(
    connection: Connection, request: httpx.Request, timeouts: Mapping[str, float]
) -> Answer:
    headers = request.headers.raw
    stream = request.stream
    if not isinstance(stream, httpx.SyncByteStream):
        raise TypeError("the body of a request is read synchronously")
    # A server may answer and hang up before it has read everything (401, 413, a TLS alert): what
    # it says, or how it ended, tells more than that we could not write.
    unsent: httpx.WriteError | None = None
    try:
        connection.send(
            _head(request, headers),
            stream,
            chunked="transfer-encoding" in request.headers,
            timeout_s=timeouts["write"],
        )
    except httpx.WriteError as exc:
        unsent = exc
    answer = connection.receive(request.method, timeout_s=timeouts["read"])
    if unsent is not None and answer.status < 300:
        raise unsent  # nobody can have done what was not sent
    return answer


def _head(request: httpx.Request, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the request line and the header fields (RFC 9112)."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.extensions["target"])]
    lines += [b"%s: %s" % field for field in headers]
    if any(map(_CONTROL.search, lines)):
        raise httpx.LocalProtocolError("a control character in the head of a request")
    return b"\r\n".join([*lines, b"", b""])


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
    except OSError as exc:  # SSLError is one; others when the file goes right now
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
    except OSError as exc:
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
