"""urllib3 and pyreqwest as httpx transports: what docs/decisions/0006 measured ours against.

Each obeys a Line as far as its library lets it. ``python -m tests.benchmarks.rival_transports NAME
run`` is ``orthanc-bridge run`` over one of them; as a pytest plugin (``-p``), with the name in
BENCH_TRANSPORT, it lets the transport's own tests run over it. Workers import this module again.
"""

from __future__ import annotations

import http.client
import importlib
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import httpx
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

import bridge.orthanc.transport
import bridge.orthanc.wire
from bridge.model import Endpoint
from bridge.orthanc.transport import CONNECTIONS_MAX, KEEPALIVE_S, PIECE_BYTES, Line, tls_context

VARIABLE = "BENCH_TRANSPORT"
FOR_EVER_S = 86400.0
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Bounded(socket.socket):
    """A socket whose every operation gets no more time than the line has left."""

    line: Line
    wanted_s: float | None = None
    used_s = 0.0
    is_unsent = has_ended = False

    def settimeout(self, value: float | None) -> None:
        self.wanted_s = value
        super().settimeout(value)

    def _bound(self) -> None:
        allowed_s = self.line.allowed(FOR_EVER_S if self.wanted_s is None else self.wanted_s)
        if allowed_s <= 0:
            raise TimeoutError
        super().settimeout(allowed_s)

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        self._bound()
        received = super().recv_into(*arguments, **named)
        self.line.received += received
        self.has_ended = received == 0
        self.used_s = time.monotonic()
        return received

    def sendall(self, data: Any, flags: int = 0) -> None:
        view = memoryview(data)
        try:
            while view:
                self._bound()
                view = view[self.send(view, flags) :]
        except OSError as exc:
            self.is_unsent = not isinstance(exc, TimeoutError)
            raise


class _BoundedTls(_Bounded, ssl.SSLSocket):
    """The same within TLS."""


class Urllib3(httpx.BaseTransport):
    """An httpx transport over urllib3."""

    def __init__(self, endpoint: Endpoint, line: Line) -> None:
        self._line = line
        context = tls_context(endpoint)
        context.sslsocket_class = type("_Tls", (_BoundedTls,), {"line": line})
        url = httpx.URL(endpoint.url)
        pool: type[HTTPConnectionPool] = HTTPConnectionPool
        arguments: dict[str, Any] = {}
        plain: type[HTTPConnection] = HTTPConnection
        if url.scheme == "https":
            pool, plain = HTTPSConnectionPool, HTTPSConnection
            arguments["ssl_context"] = context

        class Connection(plain):  # type: ignore[misc, valid-type]
            sock: Any
            timeout: Any

            def connect(self) -> None:
                line.opened = True
                left_s = line.allowed(float(self.timeout or FOR_EVER_S))
                if left_s <= 0:
                    raise ConnectTimeoutError("no time is left")
                self.timeout = left_s
                super().connect()
                if not isinstance(self.sock, _Bounded):
                    wanted_s = self.sock.gettimeout()
                    self.sock = _Bounded(fileno=self.sock.detach())
                    self.sock.line = line
                    self.sock.settimeout(wanted_s)

            @property
            def is_connected(self) -> bool:
                kept_s = time.monotonic() - self.sock.used_s if self.sock else 0.0
                return kept_s < KEEPALIVE_S and super().is_connected

        self._connection: Any = Connection
        self._pool: Any = pool(url.host, url.port, maxsize=CONNECTIONS_MAX, **arguments)
        self._pool.ConnectionCls = Connection

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        try:
            body: Any = request.content
        except httpx.RequestNotRead:
            body = request.stream
        target = request.extensions["target"].decode("ascii")
        fields = [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw]
        if _CONTROL.search(target) or any(_CONTROL.search(value) for _, value in fields):
            raise httpx.LocalProtocolError("a control character in the head of a request")
        try:
            response = self._pool.urlopen(
                request.method,
                target,
                body=body,
                headers=urllib3.HTTPHeaderDict(fields),
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=timeouts["connect"], read=timeouts["read"]),
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as exc:
            raise _translated(exc) from exc
        sock = response.connection.sock if response.connection else None
        codings = response.headers.getlist("transfer-encoding")
        if codings and [coding.lower() for coding in codings] != ["chunked"]:
            response.close()
            raise httpx.RemoteProtocolError("a transfer coding other than chunked")
        if sock is not None and sock.is_unsent and response.status < 300:
            response.close()
            raise httpx.WriteError("not sent")
        return httpx.Response(
            response.status,
            headers=[(n.encode("latin-1"), v.encode("latin-1")) for n, v in
                     response.headers.iteritems()],
            stream=_Urllib3Body(response, sock if codings else None),
        )  # fmt: skip

    def close(self) -> None:
        self._pool.close()


class _Urllib3Body(httpx.SyncByteStream):
    def __init__(self, response: urllib3.BaseHTTPResponse, chunked: _Bounded | None) -> None:
        self._response, self._chunked = response, chunked
        self._is_over = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._response.read(PIECE_BYTES):
                yield piece
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as exc:
            raise _translated(exc) from exc
        if self._chunked is not None and self._chunked.has_ended:
            raise httpx.RemoteProtocolError("closed connection before the end of the body")
        self._is_over = True

    def close(self) -> None:
        if self._is_over:
            self._response.release_conn()
        else:
            self._response.close()


def _translated(exc: Exception) -> httpx.TransportError:
    cause: BaseException = exc
    if isinstance(exc, ProtocolError) and len(exc.args) > 1 and isinstance(exc.args[1], Exception):
        cause = exc.args[1]
    if isinstance(exc, ProtocolError) and isinstance(cause, OSError):
        is_late = isinstance(cause, TimeoutError)
        return httpx.ReadTimeout("late") if is_late else httpx.ReadError("the connection broke")
    for theirs, ours in (
        (NewConnectionError, httpx.ConnectError("no connection")),
        (SSLError, httpx.ConnectError("no connection")),
        (ConnectTimeoutError, httpx.ConnectTimeout("no connection in time")),
        (ReadTimeoutError, httpx.ReadTimeout("no answer in time")),
        (http.client.RemoteDisconnected, httpx.RemoteProtocolError("without sending an answer")),
        (IncompleteRead, httpx.RemoteProtocolError("closed connection")),
        (http.client.IncompleteRead, httpx.RemoteProtocolError("closed connection")),
        (TimeoutError, httpx.ReadTimeout("no answer in time")),
        (OSError, httpx.ReadError("the connection broke")),
    ):
        if isinstance(cause, theirs):
            return ours
    return httpx.RemoteProtocolError("not HTTP")


class Pyreqwest(httpx.BaseTransport):
    """An httpx transport over pyreqwest, which has no time-out for a single write."""

    def __init__(self, endpoint: Endpoint, line: Line) -> None:
        self._line = line
        tls_context(endpoint)  # the same words for a file that cannot be used
        self._errors: Any = importlib.import_module("pyreqwest.exceptions")
        client: Any = importlib.import_module("pyreqwest.client")
        builder = (
            client.SyncClientBuilder()
            .no_proxy()
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .connect_timeout(timedelta(seconds=5))
            .read_timeout(timedelta(seconds=endpoint.timeout_s))
            .pool_idle_timeout(timedelta(seconds=KEEPALIVE_S))
            .pool_max_idle_per_host(CONNECTIONS_MAX)
        )
        if endpoint.ca_file is not None:
            builder = builder.add_root_certificate_pem(_read(endpoint.ca_file))
        if endpoint.client_cert_file is not None:
            pair = _read(endpoint.client_cert_file) + _read(endpoint.client_key_file or "")
            builder = builder.identity_pem(pair)
        self._client = builder.build()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._line.opened = True  # it does not tell
        left_s = self._line.allowed(FOR_EVER_S)
        if left_s <= 0:
            raise httpx.ConnectTimeout("no time is left")
        url = request.url
        target = request.extensions["target"].decode("ascii")
        fields = [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw]
        stack = ExitStack()
        try:
            builder = self._client.request(
                request.method, f"{url.scheme}://{url.netloc.decode()}{target}"
            )
            builder = builder.headers(fields).timeout(timedelta(seconds=left_s))
            try:
                if request.content:
                    builder = builder.body_bytes(request.content)
            except httpx.RequestNotRead:
                builder = builder.body_stream(request.stream)
            response = stack.enter_context(
                builder.streamed_read_buffer_limit(PIECE_BYTES).build_streamed()
            )
        except self._errors.PyreqwestError as exc:
            stack.close()
            raise self._translated(exc) from exc
        self._line.received += 1
        return httpx.Response(
            response.status,
            headers=list(response.headers.items()),
            stream=_PyreqwestBody(self, response.body_reader, stack),
        )

    def close(self) -> None:
        self._client.close()

    def _translated(self, exc: Any) -> Exception:
        errors = self._errors
        for theirs, ours in (
            (errors.ConnectTimeoutError, httpx.ConnectTimeout),
            (errors.WriteTimeoutError, httpx.WriteTimeout),
            (errors.RequestTimeoutError, httpx.ReadTimeout),
            (errors.ConnectError, httpx.ConnectError),
            (errors.WriteError, httpx.WriteError),
            (errors.ReadError, httpx.ReadError),
            (errors.BuilderError, httpx.LocalProtocolError),
        ):
            if isinstance(exc, theirs):
                return ours(exc.message)
        return httpx.RemoteProtocolError(exc.message)


class _PyreqwestBody(httpx.SyncByteStream):
    def __init__(self, transport: Pyreqwest, reader: Any, stack: ExitStack) -> None:
        self._transport, self._reader, self._stack = transport, reader, stack

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (piece := self._reader.read(PIECE_BYTES)) is not None:
                yield bytes(piece)
        except self._transport._errors.PyreqwestError as exc:
            raise self._transport._translated(exc) from exc

    def close(self) -> None:
        self._stack.close()


def _read(file: str) -> bytes:
    from pathlib import Path

    return Path(file).read_bytes()


RIVALS: dict[str, Any] = {"urllib3": Urllib3, "pyreqwest": Pyreqwest}


def _take(name: str) -> None:
    """Put one of them where ours was."""
    if name in RIVALS:
        setattr(bridge.orthanc.wire, "Transport", RIVALS[name])  # noqa: B010
        setattr(bridge.orthanc.transport, "Transport", RIVALS[name])  # noqa: B010


_take(os.environ.get(VARIABLE, ""))

if __name__ == "__main__":
    from bridge.__main__ import main

    main()
