"""A server that answers every connection with the same bytes, HTTP or not."""

from __future__ import annotations

import socket
import threading


class RawServer:
    """Serve the same raw bytes to every connection, then close it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
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
                connection.recv(65536)
                try:
                    connection.sendall(self._raw)
                except OSError:
                    continue  # the client had enough
