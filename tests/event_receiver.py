"""A receiver of events on loopback: keeps what is posted, and answers as told."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True, slots=True)
class Post:
    """One request; header names in small letters."""

    path: str
    headers: dict[str, str]
    body: bytes


class EventReceiver:
    """Answers every POST with ``status`` and ``answer``; ``endless``: and never ends the body."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.status = 200
        self.answer = b"thanks"
        self.endless = False
        self.hangs = threading.Event()
        """While it is set, no request is answered."""
        self.posts: list[Post] = []
        self.stopping = threading.Event()
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: EventReceiver

    def do_POST(self) -> None:
        receiver = self.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.posts.append(Post(self.path, headers, body))
        while receiver.hangs.is_set() and not receiver.stopping.wait(0.05):
            pass
        self.send_response(receiver.status)
        if 300 <= receiver.status < 400:
            self.send_header("Location", f"{receiver.url}/elsewhere")
        if receiver.status != 204:
            if not receiver.endless:
                self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)
            while receiver.endless:
                self.wfile.write(b"x" * 65536)
        else:
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
