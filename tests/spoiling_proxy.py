"""An HTTP proxy on loopback that changes files on their way: a cutting cache, a mixed-up balancer.

    with SpoilingProxy(server.url) as proxy:
        proxy.spoil(lambda data: data[:1000])     # every file, with a Content-Length that fits
        proxy.spoil(lambda data: data[:1000], times=1)
        ...
        proxy.heal()

Everything else passes as it is. Against connections that break, see fault_proxy.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

Spoil = Callable[[bytes], bytes]
LOCAL = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


class SpoilingProxy:
    """Forwards to a server at ``url``."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc
        self.spoiled: list[str] = []
        """The paths of the files that were changed, in order."""
        self._lock = threading.Lock()
        self._spoil: Spoil | None = None
        self._path = ""
        self._times: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        vars(self._server)["proxy"] = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spoil(self, change: Spoil, *, instance_id: str = "", times: int | None = None) -> None:
        """Change files from now on, or so many: of this instance, or of all."""
        with self._lock:
            self._spoil, self._path, self._times = change, f"/instances/{instance_id}", times

    def heal(self) -> None:
        """Pass everything as it is."""
        with self._lock:
            self._spoil = None

    def on_its_way(self, path: str, body: bytes) -> bytes:
        """Return what the client is to get."""
        path = path.partition("?")[0]
        if not (path.startswith("/instances/") and path.endswith("/file")):
            return body
        with self._lock:
            if self._spoil is None or not path.startswith(self._path) or self._times == 0:
                return body
            if self._times is not None:
                self._times -= 1
            self.spoiled.append(path)
            return self._spoil(body)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._forward()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (http.server's names)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _forward(self) -> None:
        proxy: SpoilingProxy = vars(self.server)["proxy"]
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        there = http.client.HTTPConnection(proxy.address, timeout=30.0)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in LOCAL}
            there.request(self.command, self.path, body=sent or None, headers=headers)
            answer = there.getresponse()
            body = proxy.on_its_way(self.path, answer.read())
        finally:
            there.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in LOCAL:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
