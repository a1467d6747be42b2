"""A server that answers what no server should: without end, without sense, without measure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.fake_answers import answer_to
from tests.fake_orthanc import FakeOrthanc

PIECE = b"x" * 256 * 1024
PAUSE_S = 0.005
"""Between two pieces of an endless body: about 50 MB a second."""

Answer = Callable[["HostileHandler"], None]


class HostileServer:
    """Answers as ``honest`` would, but for paths that begin with ``prefix`` as told."""

    def __init__(self) -> None:
        self.honest = FakeOrthanc()
        self.prefix = "/nothing"
        self.answer: Answer | None = None
        self.writes = True
        """Whether methods but GET are answered, and not by a page with status 501."""
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), HostileHandler)
        self._server.daemon_threads = True
        HostileHandler.hostile = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def turn(self, prefix: str, answer: Answer | None) -> None:
        """Be hostile from now on at these paths; None: nowhere."""
        self.prefix, self.answer = prefix, answer

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class HostileHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hostile: HostileServer

    def do_any(self) -> None:
        hostile = self.hostile
        try:
            sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.command != "GET" and not hostile.writes:
                self.send_error(501)
                return
            if hostile.answer is not None and self.path.startswith(hostile.prefix):
                self.close_connection = True
                hostile.answer(self)
                return
            answer = answer_to(hostile.honest, self.command, self.path, sent)
            self.send_response_only(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_PUT = do_DELETE = do_any  # noqa: N815  (names that http.server calls)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""

    def begin(self, *headers: tuple[str, str]) -> None:
        self.send_response_only(200)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()


def endless(handler: HostileHandler) -> None:
    """Send a chunked body that never ends."""
    handler.begin(("Transfer-Encoding", "chunked"))
    while not handler.hostile.stopping.wait(PAUSE_S):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))


def endless_headers(handler: HostileHandler) -> None:
    """Send header lines without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.hostile.stopping.is_set():
        handler.wfile.write(b"X-More: " + b"y" * 60_000 + b"\r\n")


def one_huge_header(handler: HostileHandler) -> None:
    handler.begin(("X-Huge", "z" * 10_000_000), ("Content-Length", "2"))
    handler.wfile.write(b"{}")


def body(content: bytes, *headers: tuple[str, str]) -> Answer:
    """Make an answer of these bytes."""

    def send(handler: HostileHandler) -> None:
        handler.begin(("Content-Length", str(len(content))), *headers)
        handler.wfile.write(content)

    return send


def retry_after(value: str) -> Answer:
    """Make an answer that says when to come again."""

    def send(handler: HostileHandler) -> None:
        handler.send_response_only(503)
        handler.send_header("Retry-After", value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return send


def page(**changed: object) -> Answer:
    """Make a page of the feed with fields that are not as they should be."""
    row = {
        "ChangeType": "NewInstance",
        "Date": "20200101T000000",
        "ID": "00000000-00000000-00000000-00000000-00000000",
        "Path": "/instances/x",
        "ResourceType": "Instance",
        "Seq": 10**6,
    }
    fields: dict[str, object] = {"Changes": [row], "Done": True, "Last": 10**6}
    for name, value in changed.items():
        (row if name in row else fields)[name] = value
    return body(json.dumps(fields).encode())
