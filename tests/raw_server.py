"""A server that answers every connection with the same bytes, HTTP or not."""

from __future__ import annotations

import re
import socket
import threading


class RawServer:
    """Serve the same raw bytes to every connection, then close it.

    ``reads_all``: the request's body too, before it answers.
    """

    def __init__(self, raw: bytes, *, reads_all: bool = False) -> None:
        self._raw = raw
        self._read = _read_request if reads_all else _read_some
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with connection:
                self._read(connection)
                try:
                    connection.sendall(self._raw)
                except OSError:
                    continue  # the client had enough


def _read_some(connection: socket.socket) -> None:
    connection.recv(65536)


def _read_request(connection: socket.socket) -> None:
    """Read a request with its body: what is closed with something unread is reset, not ended."""
    read = b""
    while piece := connection.recv(65536):
        read += piece
        head, ended, body = read.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if ended and len(body) >= (int(length[1]) if length else 0):
            return
