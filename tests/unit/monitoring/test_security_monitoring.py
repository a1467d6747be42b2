"""The monitoring server against clients that mean no good, over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from bridge.ledger.store import Ledger
from bridge.monitoring import guard
from bridge.monitoring.board import Board
from bridge.monitoring.guard import CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_S, Guard, is_loopback
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.server import MonitoringServer, application
from tests.bridge_process import REPOSITORY, wait_until

ADDRESSES = ("/livez", "/readyz", "/health", "/metrics", "/api/status", "/api/studies", "/")
STRANGE = "s3cr3t-str4nge"
LARGE = 50 * HEAD_BYTES_MAX
"""What comes in one piece is looked at before it is measured: 16 KB more or less do not count."""


class Served:
    """A server, and requests as bytes."""

    def __init__(self, server: MonitoringServer) -> None:
        self.url = server.url
        self.port = int(server.url.rsplit(":", 1)[1])

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def send(self, request: bytes) -> bytes:
        """Send bytes, and return all that comes until the server closes."""
        with self.connect() as connection:
            try:
                connection.sendall(request)
            except (BrokenPipeError, ConnectionResetError):
                return b""  # it had enough
            return received(connection)

    def ask(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read(), names
        finally:
            connection.close()


def received(connection: socket.socket) -> bytes:
    gathered = bytearray()
    try:
        while piece := connection.recv(65536):
            gathered += piece
    except ConnectionResetError:
        pass
    return bytes(gathered)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("state") / "state.sqlite3"
    Ledger(path).close()
    board = Board(path, HealthLimits())
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    yield Served(server)
    server.stop()


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"]
)
@pytest.mark.parametrize("path", [*ADDRESSES, f"/{STRANGE}"])
def test_it_only_reads(served: Served, method: str, path: str) -> None:
    status, body, headers = served.ask(path, method, {"X-Strange": STRANGE})
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert STRANGE.encode() not in body


@pytest.mark.parametrize(
    "path",
    [
        f"/{STRANGE}",
        f"/livez/{STRANGE}",
        f"/livez?{STRANGE}",
        "/livez/",
        f"/%3Cscript%3E{STRANGE}",
        f"//{STRANGE}",
        f"/../{STRANGE}",
    ],
)
def test_nothing_that_is_sent_comes_back(served: Served, path: str) -> None:
    status, body, headers = served.ask(path, headers={"User-Agent": STRANGE, "Cookie": STRANGE})
    assert status in {200, 404}
    assert STRANGE.encode() not in body
    assert STRANGE not in str(headers)
    assert "location" not in headers


@pytest.mark.parametrize("path", [*ADDRESSES, "/nothing"])
def test_every_answer_has_the_headers_that_browsers_obey(served: Served, path: str) -> None:
    headers = served.ask(path)[2]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] in {"no-store", "no-cache"}
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "10.1.2.3", "bridge.localhost"]
)
def test_names_of_this_machine(served: Served, host: str) -> None:
    for name in (host, f"{host}:9999"):  # the port of a tunnel may be another one
        assert served.ask("/health", headers={"Host": name})[0] in {200, 503}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "evillocalhost",
        "evil-localhost:80",
    ],
)
def test_a_foreign_name_that_leads_to_us(served: Served, host: str) -> None:
    status, body, _ = served.ask("/api/status", headers={"Host": host})
    assert status == 421
    assert b"evil" not in body
    assert b"checkpoint" not in body


@pytest.mark.parametrize(
    "host", ["a/b", "a b", "a?b", "[::1", "x" * 300, "a:b", "ä", "u@localhost"]
)
def test_a_host_that_is_none(served: Served, host: str) -> None:
    raw = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
    assert re.match(rb"HTTP/1.1 400 ", served.send(raw))


def test_elsewhere_than_on_loopback_any_name_will_do() -> None:
    guarded = Guard(PlainTextResponse("ok"), only_local=False)

    async def ask(method: str) -> int:
        transport = httpx.ASGITransport(guarded)
        async with httpx.AsyncClient(transport=transport, base_url="http://bridge:8080") as client:
            return (await client.request(method, "/")).status_code

    assert asyncio.run(ask("GET")) == 200
    assert asyncio.run(ask("POST")) == 405


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_what_loopback_is(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    "head", ["Content-Length: 5", "Content-Length: 99999999999", "Transfer-Encoding: chunked"]
)
def test_bodies_are_refused_unread(served: Served, head: str) -> None:
    answer = served.send(f"GET /livez HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * LARGE + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * LARGE + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * (LARGE // 6) + b"\r\n",
        b"\x16\x03\x01 no HTTP at all \r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["path", "header", "headers", "garbage", "no host"],
)
def test_a_head_that_is_too_large_or_none(served: Served, head: bytes) -> None:
    answer = served.send(head)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert served.ask("/livez")[0] == 200


def test_a_protocol_that_we_do_not_speak_is_not_switched_to(served: Served) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert served.ask("/", headers=upgrade)[0] == 200


def test_a_silent_client_is_shown_the_door(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_S", 0.2)
    with served.connect() as connection:
        assert received(connection) == b""


def test_a_client_that_sends_a_byte_now_and_then_as_well(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "HEAD_S", 0.3)
    with served.connect() as connection:
        connection.settimeout(0.05)
        closed = False

        def dropped() -> bool:
            nonlocal closed
            try:
                connection.sendall(b"G")
                closed = connection.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                closed = True
            return closed

        wait_until(dropped, "the connection is dropped", timeout_s=5)


def test_no_connection_lives_for_ever(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CONNECTION_S", 0.3)
    with served.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_never_reads_does_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CONNECTION_S", 1.0)
    monkeypatch.setattr(guard, "ANSWER_S", 0.2)
    large = Starlette()
    large.add_route("/large", lambda _: PlainTextResponse("x" * 50_000_000))
    server = MonitoringServer(large, host="127.0.0.1", port=0)
    server.start()
    connection = Served(server).connect()
    try:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: open_connections(connection) == 1, "it is accepted", timeout_s=10)
        wait_until(lambda: open_connections(connection) == 0, "it is dropped", timeout_s=10)
    finally:
        connection.close()
        server.stop()


def open_connections(client: socket.socket) -> int:
    """Count the server's ends, in this process, of connections to the client's peer."""
    port = client.getpeername()[1]
    wanted = f"{port:04X}"
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{wanted}") and fields[3] != "0A":
            inodes.add(fields[9])
    ours = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        ours += any(target == f"socket:[{inode}]" for inode in inodes if inode != "0")
    return ours


def test_who_asks_at_once_is_answered_however_many_only_wait(served: Served) -> None:
    idle = [served.connect() for _ in range(3 * CONNECTIONS_MAX)]
    try:
        for path in ADDRESSES:
            assert served.ask(path)[0] in {200, 503}
        wait_until(
            lambda: open_connections(idle[-1]) <= CONNECTIONS_MAX,
            "the oldest are dropped at once, not when their time is up",
            timeout_s=HEAD_S / 2,
        )
        assert idle[0].recv(1) == b""
    except ConnectionResetError:
        pass  # dropped, as it should be
    finally:
        for connection in idle:
            connection.close()


def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is being answered when its life is over gets ANSWER_S more, and no more."""
    monkeypatch.setattr(guard, "CONNECTION_S", 0.2)
    monkeypatch.setattr(guard, "ANSWER_S", 0.2)
    asked: list[str] = []

    async def waits(_scope: Scope, receive: Receive, _send: Send) -> None:
        while True:
            message = await receive()
            asked.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    server = MonitoringServer(Starlette(routes=[Mount("/", app=waits)]), host="127.0.0.1", port=0)
    server.start()
    connection = Served(server).connect()
    try:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: "http.disconnect" in asked, "it is given up", timeout_s=10)
        assert connection.recv(1) == b""
    except ConnectionResetError:
        pass  # dropped, as it should be
    finally:
        connection.close()
        server.stop()


def test_the_bounds_are_those_that_are_told() -> None:
    told = (REPOSITORY / "docs/security.md").read_text("utf-8")
    bounds = (
        f"at most {CONNECTIONS_MAX} connections, and a new one replaces the one that was silent "
        f"longest; {HEAD_S:g} s for the first request, {guard.CONNECTION_S:g} s for a connection, "
        f"{HEAD_BYTES_MAX // 1024} KB of head"
    )
    assert bounds in told
    assert guard.ANSWER_S <= guard.CONNECTION_S
