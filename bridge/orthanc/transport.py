"""The way to one server: kept connections, trust that we set, and deadlines that hold.

Time-outs of sockets are per read and per write: a server that sends one byte every few seconds
never meets them. Here each read and write gets no more time than what the whole call has left.
An httpx transport over Python's own ``http.client``: half the CPU of httpx's default one, and one
copy of a body instead of four (docs/decisions/0003-speed.md).
"""

from __future__ import annotations

import http.client
import io
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import httpx

from bridge.credentials import must_be_meant
from bridge.errors import ConfigurationError
from bridge.model import Endpoint
from bridge.own_files import open_named

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

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

    def _release(self, connection: Connection, answer: Response) -> None:
        if answer.is_over and len(self._idle) < CONNECTIONS_MAX:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer; its connection is released once."""

    def __init__(self, answer: Response, release: Callable[[], None]) -> None:
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
) -> Response:
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
    return tls_context_of(
        endpoint.url,
        f"BRIDGE_{endpoint.side.name}_",
        ca_file=endpoint.ca_file,
        client_cert_file=endpoint.client_cert_file,
        client_key_file=endpoint.client_key_file,
    )


def tls_context_of(
    url: str,
    prefix: str,
    *,
    ca_file: str | None,
    client_cert_file: str | None,
    client_key_file: str | None,
) -> ssl.SSLContext:
    """Build what we trust, and show, at an address. ``prefix``: of the settings that say so."""
    if not url.startswith("https://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is never asked
    _must_be_readable(f"{prefix}CA_FILE", ca_file)
    _must_be_readable(f"{prefix}CLIENT_CERT_FILE", client_cert_file)
    _must_be_readable(f"{prefix}CLIENT_KEY_FILE", client_key_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # SSLError is one; others when the file goes right now
        raise ConfigurationError(
            f"The file that {prefix}CA_FILE names holds no certificate in PEM form.",
            advice="Name the certificate of the authority that signed the server's.",
        ) from exc
    if client_cert_file is None:
        return context
    try:
        # An encrypted key must fail, not ask for its password on a terminal.
        context.load_cert_chain(client_cert_file, client_key_file, password=lambda: b"")
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
    must_be_meant(setting, Path(file))
    try:
        os.close(open_named(Path(file)))
    except OSError as exc:
        raise ConfigurationError(
            f"The file that {setting} names cannot be read: {exc.strerror}.",
            advice="Check the path and its permissions.",
        ) from exc


# One HTTP/1.1 connection: a socket with deadlines, and Python's ``http.client`` to read answers.
#
# Raises httpx's exceptions: they are the vocabulary of the fault tables.
#
# ``http.client.HTTPResponse`` is used here and nowhere else as its documentation does not describe:
# made from anything that has ``makefile``, with ``begin``, ``chunked``, ``length`` and
# ``will_close``. ``tests/unit/orthanc/test_orthanc_framing.py`` holds the installed version to
# that.

KEEPALIVE_S = 0.7  # Orthanc closes idle connections after one second
PIECE_BYTES = 1024 * 1024
HEAD_BYTES = 16 * 1024
"""Read at once while an answer's head is sought; the body goes where it belongs uncopied."""

Headers = list[tuple[bytes, bytes]]
_Read = TypeVar("_Read")


class Connection:
    """A connection, used by one request at a time."""

    def __init__(self, sock: socket.socket, line: Line) -> None:
        self._socket = sock
        self._line = line
        self._idle_since_s = time.monotonic()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @classmethod
    def open(
        cls, url: httpx.URL, context: ssl.SSLContext, line: Line, timeout_s: float
    ) -> Connection:
        """Connect, with TLS for https. Raises ConnectTimeout, ConnectError."""
        host = url.raw_host.decode("ascii")
        tls = url.scheme == "https"
        line.opened = True
        try:
            address = (host, url.port or (443 if tls else 80))
            sock = socket.create_connection(address, _left(line, timeout_s))
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls:
                    sock.settimeout(_left(line, timeout_s))
                    sock = context.wrap_socket(sock, server_hostname=host)
            except BaseException:
                sock.close()
                raise
        except TimeoutError as exc:
            raise httpx.ConnectTimeout("no connection in time") from exc
        except OSError as exc:
            raise httpx.ConnectError("no connection") from exc
        return cls(sock, line)

    @property
    def is_fresh(self) -> bool:
        """Whether it may be used again: not idle for long, and not closed by the server."""
        kept_s = time.monotonic() - self._idle_since_s
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False  # decrypted already: poll does not see it
        return kept_s < KEEPALIVE_S and not self._poll.poll(0)

    def rest(self) -> None:
        """Note that the connection is idle from now on."""
        self._idle_since_s = time.monotonic()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(
        self, head: bytes, pieces: Iterable[bytes], *, chunked: bool, timeout_s: float
    ) -> None:
        """Send a request. Raises WriteTimeout, WriteError, and what ``pieces`` raises."""
        self._write(head, timeout_s)
        for piece in pieces:
            if chunked and piece:
                self._write(b"%X\r\n" % len(piece), timeout_s)
                self._write(piece, timeout_s)
                self._write(b"\r\n", timeout_s)
            else:
                self._write(piece, timeout_s)
        if chunked:
            self._write(b"0\r\n\r\n", timeout_s)

    def receive(self, method: str, *, timeout_s: float) -> Response:
        """Read the head of the answer. Raises ReadTimeout, ReadError, RemoteProtocolError."""
        return Response(_Readable(self._socket, self._line, timeout_s), method)

    def _write(self, data: bytes, timeout_s: float) -> None:
        view = memoryview(data)
        try:
            while view:
                self._socket.settimeout(_left(self._line, timeout_s))
                view = view[self._socket.send(view) :]
        except TimeoutError as exc:
            raise httpx.WriteTimeout("not sent in time") from exc
        except OSError as exc:
            raise httpx.WriteError("not sent") from exc


class Response:
    """An answer whose head has been read. The body is complete or raises."""

    def __init__(self, readable: _Readable, method: str) -> None:
        self._raw = readable.raw
        self._response = _reading(lambda: _begun(readable, method))
        codings = self._response.headers.get_all("transfer-encoding")
        if codings and not (self._response.chunked and len(codings) == 1):
            raise httpx.RemoteProtocolError("a transfer coding other than chunked")
        if readable.raw.ended:
            # http.client takes the end of the connection for the end of the headers.
            raise httpx.RemoteProtocolError("closed connection within the head of an answer")
        self.status = self._response.status

    @property
    def headers(self) -> Headers:
        """The header fields as they came."""
        return [
            (name.encode("latin-1"), str(value).encode("latin-1", "replace"))
            for name, value in self._response.headers.items()
        ]

    @property
    def is_over(self) -> bool:
        """Whether the body has been read to its end and the connection can go on."""
        over = self._response.isclosed() and not self._response.will_close
        return over and not self._raw.is_left

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Yield the body. Raises ReadTimeout, ReadError, RemoteProtocolError."""
        while True:
            missing = self._response.length
            piece, cut = _reading(lambda: self._next_piece(piece_bytes))
            if piece:
                yield piece
            if cut or (not piece and (missing or (self._response.chunked and self._raw.ended))):
                raise httpx.RemoteProtocolError("closed connection before the end of the body")
            if not piece:
                return

    def _next_piece(self, piece_bytes: int) -> tuple[bytes, bool]:
        """Read on; True when the body is known to have been cut short."""
        try:
            return self._response.read(piece_bytes), False
        except http.client.IncompleteRead as exc:
            return exc.partial, True


def _begun(readable: _Readable, method: str) -> http.client.HTTPResponse:
    """Read heads up to that of the answer itself.

    ``http.client`` passes over ``100 Continue``; a server may send others first (RFC 9110 15.2).
    """
    while True:
        # Of a socket, http.client needs no more than makefile.
        response = http.client.HTTPResponse(cast(socket.socket, readable), method=method)
        response.begin()
        if response.status == 101 or not 100 <= response.status < 200:
            return response
        with readable.reader.kept_open():
            response.close()  # or it would close the reader when it is collected


class _Readable:
    """What ``http.client`` sees of a socket."""

    def __init__(self, sock: socket.socket, line: Line, timeout_s: float) -> None:
        self.raw = _Raw(sock, line, timeout_s)
        self.reader = _Reader(self.raw)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self.reader


class _Raw(io.RawIOBase):
    """The receiving half of a socket, every read bounded by the line; does not close it."""

    def __init__(self, sock: socket.socket, line: Line, timeout_s: float) -> None:
        self._socket = sock
        self._line = line
        self._timeout_s = timeout_s
        self.ended = False
        self.is_left = False
        """Bytes followed an answer: they are no answer to whatever is asked next."""
        self.is_dry = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self.is_dry:
            return None
        self._socket.settimeout(_left(self._line, self._timeout_s))
        received = self._socket.recv_into(buffer)
        self._line.received += received
        self.ended = received == 0
        return received


class _Reader(io.BufferedReader):
    def __init__(self, raw: _Raw) -> None:
        super().__init__(raw, HEAD_BYTES)
        self._bytes = raw
        self._is_kept_open = False

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Let ``close`` do nothing in this block: the next answer is read from here."""
        self._is_kept_open = True
        yield
        self._is_kept_open = False

    def close(self) -> None:
        if self._is_kept_open:
            return
        if not self.closed:
            self._bytes.is_dry = True
            self._bytes.is_left = bool(self.peek(1))
        super().close()

    def read(self, size: int | None = -1, /) -> bytes:
        # A chunk of a negative size would be read without end.
        if size is None or size < 0:
            raise ValueError("a size below zero")
        return super().read(size)


def _left(line: Line, timeout_s: float) -> float:
    """Return the seconds that one operation may take. Raises TimeoutError when time is up."""
    allowed_s = line.allowed(timeout_s)
    if allowed_s <= 0:
        raise TimeoutError
    return allowed_s


def _reading(read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except http.client.RemoteDisconnected as exc:
        raise httpx.RemoteProtocolError("disconnected without sending an answer") from exc
    except (http.client.HTTPException, ValueError) as exc:
        raise httpx.RemoteProtocolError("not HTTP") from exc
    except TimeoutError as exc:
        raise httpx.ReadTimeout("no answer in time") from exc
    except OSError as exc:
        raise httpx.ReadError("the connection broke") from exc
