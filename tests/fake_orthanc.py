"""An Orthanc in memory over real HTTP on loopback, that also does what it is told to do wrong.

    with FakeOrthanc() as fake:
        instance_id = fake.put(small_ct())
        fake.script("POST /instances", Respond(503), times=2)

The honest part is held against a real server by tests/contract.
"""

from __future__ import annotations

import base64
import gzip
import os
import re
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.fake_answers import Answer, answer_to, store_answer
from tests.fake_behaviours import (
    Behaviour,
    CutBody,
    Drip,
    Hang,
    HangUp,
    Respond,
    StoreAs,
)
from tests.fake_store import FakeStore

__all__ = ["CutBody", "Drip", "FakeOrthanc", "Hang", "HangUp", "Respond", "StoreAs"]


@dataclass(slots=True)
class _Rule:
    route: re.Pattern[str]
    behaviour: Behaviour
    times: int | None


class FakeOrthanc:
    """One fake server. ``extended_changes`` and ``version`` choose what it can do."""

    def __init__(
        self,
        *,
        version: str = "1.10.1",
        extended_changes: bool = False,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        overwrite: bool = False,
        system: dict[str, object] | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.version = version
        self.extended_changes = extended_changes
        self.store = FakeStore(overwrite=overwrite)
        self.requests: list[str] = []
        """Every request as "GET /changes?since=0", in order of arrival."""
        self.headers_seen: list[dict[str, str]] = []
        self.connections = 0
        self.stopping = threading.Event()
        self.authorization: str | None = None
        if token is not None:
            self.authorization = f"Bearer {token}"
        elif username is not None:
            pair = f"{username}:{password or ''}".encode()
            self.authorization = "Basic " + base64.b64encode(pair).decode()
        self._extra_system = dict(system or {})
        self._rules: list[_Rule] = []
        self._port = port
        self.tls = tls
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    def put(self, data: bytes) -> str:
        """Store a file as an upload would; returns its Orthanc ID."""
        return self.store.put(data)[0]

    def script(self, route: str, behaviour: Behaviour, *, times: int | None = None) -> None:
        """Do ``behaviour`` for requests that match, e.g. "GET /changes"; later rules win.

        ``route`` is a regular expression for the beginning of "METHOD /path".
        """
        self._rules.insert(0, _Rule(re.compile(route), behaviour, times))

    def behave(self) -> None:
        """Forget every rule."""
        self._rules.clear()

    def behaviour_for(self, route: str) -> Behaviour | None:
        """Return what to do instead of answering honestly, and count it."""
        with self.store.lock:
            for rule in self._rules:
                if rule.times != 0 and rule.route.match(route):
                    if rule.times is not None:
                        rule.times -= 1
                    return rule.behaviour
        return None

    def system(self) -> dict[str, object]:
        answer: dict[str, object] = {
            "ApiVersion": 16,
            "DatabaseBackendPlugin": None,
            "Name": "fake",
            "PluginsEnabled": True,
            "Version": self.version,
        }
        if self.extended_changes:
            answer["Capabilities"] = {"HasExtendedChanges": True, "HasExtendedFind": True}
        return answer | self._extra_system

    def start(self) -> None:
        """Listen; after a stop on the same port, with the same content."""
        self.stopping.clear()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.fake = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.accept_all, daemon=True).start()

    def stop(self) -> None:
        """Stop listening and break every connection."""
        if self._server is None:
            return
        self.stopping.set()
        self._server.stop_accepting()
        self._server.break_connections()
        self._server.server_close()
        self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    fake: FakeOrthanc
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self.open_sockets: set[socket.socket] = set()
        self._stops, self._stopped = False, threading.Event()
        super().__init__(*arguments)

    def accept_all(self) -> None:
        """Do what ``serve_forever`` does, without a poll interval that every stop waits for."""
        try:
            while not self._stops:
                try:
                    request, address = self.get_request()
                except OSError:
                    continue  # the client is gone already, or this server is to stop
                self.process_request(request, address)
        finally:
            self._stopped.set()

    def stop_accepting(self) -> None:
        """Wake ``accept_all`` and wait for its end."""
        self._stops = True
        self.socket.shutdown(socket.SHUT_RDWR)
        self._stopped.wait()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.fake.tls is not None:  # the handshake is left to the handler's thread
            connection = self.fake.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        self.fake.connections += 1
        self.open_sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open_sockets.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        for connection in list(self.open_sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its handler has just closed it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of this server break off on purpose: nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 1  # as Orthanc: idle connections are closed
    disable_nagle_algorithm = True  # head and body are written apart
    server: _Server

    def handle_any(self) -> None:
        fake = self.server.fake
        fake.requests.append(f"{self.command} {self.path}")
        fake.headers_seen.append(dict(self.headers.items()))
        body = self._read_body()
        if body is None:
            self.close_connection = True
            return
        if fake.authorization not in {None, self.headers.get("Authorization")}:
            self.send_response_only(401)
            self.send_header("WWW-Authenticate", 'Basic realm="Orthanc Secure Area"')
            self._finish(Answer(status=401, content_type=None))
            return
        self._act(fake.behaviour_for(f"{self.command} {self.path}"), body)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815  (names that http.server calls)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""

    def _act(self, behaviour: Behaviour | None, body: bytes) -> None:
        match behaviour:
            case Respond():
                self.send_response_only(behaviour.status)
                for name, value in behaviour.headers.items():
                    self.send_header(name, value)
                answer = Answer(behaviour.body, behaviour.status, None)
                self._finish(answer, length=behaviour.length)
                self.close_connection = behaviour.length is not None
            case Hang():
                self.server.fake.stopping.wait()
                self.close_connection = True
            case HangUp():
                if behaviour.worked:
                    answer_to(self.server.fake, self.command, self.path, body)
                self._reset()
            case CutBody():
                answer = answer_to(self.server.fake, self.command, self.path, body)
                kept = replace(answer, body=answer.body[: behaviour.after_bytes])
                self.send_response_only(answer.status)
                self._finish(kept, length=len(answer.body))
                self.close_connection = True
                if behaviour.reset:
                    self._reset()
            case Drip():
                answer = answer_to(self.server.fake, self.command, self.path, body)
                self.send_response_only(answer.status)
                self._finish(replace(answer, body=b""), length=len(answer.body))
                for start in range(len(answer.body)):
                    if self.server.fake.stopping.wait(behaviour.interval_s):
                        break
                    self.wfile.write(answer.body[start : start + 1])
                self.close_connection = True
            case StoreAs():
                self._send(
                    store_answer(
                        self.server.fake,
                        body,
                        instance_id=behaviour.instance_id,
                        status=behaviour.status,
                    )
                )
            case None:
                self._send(answer_to(self.server.fake, self.command, self.path, body))

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        self._finish(answer)

    def _finish(self, answer: Answer, *, length: int | None = None) -> None:
        self.send_header("Connection", "keep-alive")
        self.send_header("Keep-Alive", "timeout=1")
        body = answer.body
        if answer.content_type is not None:
            self.send_header("Content-Type", answer.content_type)
        compresses = self.server.fake.version.startswith("1.10.")
        if (
            compresses
            and answer.status == 200
            and "gzip" in self.headers.get("Accept-Encoding", "")
        ):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        """Close with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # socketserver would send a FIN first
        self.close_connection = True

    def _read_body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            gathered = bytearray()
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                gathered += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            body = bytes(gathered)
        else:
            length = int(self.headers.get("Content-Length", "0"))
            body = self.rfile.read(length)
            if len(body) < length:
                return None
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
