"""One HTTP/1.1 connection: a socket with deadlines, and Python's ``http.client`` to read answers.

Raises httpx's exceptions: they are the vocabulary of the fault tables.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar, cast

import httpx

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from bridge.orthanc.transport import Line

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

    def receive(self, method: str, *, timeout_s: float) -> Answer:
        """Read the head of the answer. Raises ReadTimeout, ReadError, RemoteProtocolError."""
        return Answer(_Readable(self._socket, self._line, timeout_s), method)

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


class Answer:
    """An answer whose head has been read. The body is complete or raises."""

    def __init__(self, readable: _Readable, method: str) -> None:
        # Of a socket, http.client needs no more than makefile.
        self._raw = readable.raw
        self._response = _Response(cast(socket.socket, readable), method=method)
        _reading(self._response.begin)
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

    def pieces(self) -> Iterator[bytes]:
        """Yield the body. Raises ReadTimeout, ReadError, RemoteProtocolError."""
        while True:
            missing = self._response.length
            piece, cut = _reading(self._next_piece)
            if piece:
                yield piece
            if cut or (not piece and (missing or (self._response.chunked and self._raw.ended))):
                raise httpx.RemoteProtocolError("closed connection before the end of the body")
            if not piece:
                return

    def _next_piece(self) -> tuple[bytes, bool]:
        """Read on; True when the body is known to have been cut short."""
        try:
            return self._response.read(PIECE_BYTES), False
        except http.client.IncompleteRead as exc:
            return exc.partial, True


class _Response(http.client.HTTPResponse):
    """Passes over all interim answers, not only ``100 Continue``: the answer is still to come."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == 101 or not 100 <= status < 200:
                return version, status, reason
            http.client._read_headers(self.fp)  # type: ignore[attr-defined]


class _Readable:
    """What ``http.client`` sees of a socket."""

    def __init__(self, sock: socket.socket, line: Line, timeout_s: float) -> None:
        self.raw = _Raw(sock, line, timeout_s)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return _Reader(self.raw)


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

    def close(self) -> None:
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
