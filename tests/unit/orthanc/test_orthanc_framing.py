"""Answers whose end is in doubt: a file that may have been cut is never taken for a whole one."""

from __future__ import annotations

import http.client
import io
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bridge.credentials import Credentials
from bridge.errors import BridgeError, SideError
from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc import OrthancClient
from tests.raw_server import RawServer

FILE = b"a file of some length, more than its half"
HALF = FILE[: len(FILE) // 2]
ID = "11111111-22222222-33333333-44444444-55555555"


class Scripted:
    """Answers each request with given bytes; closes after one where the next is None."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while self._answers and self._answer(connection):
                    pass

    def _answer(self, connection: socket.socket) -> bool:
        asked = b""
        while b"\r\n\r\n" not in asked:
            received = connection.recv(65536)
            if not received:
                return False
            asked += received
        connection.sendall(self._answers.pop(0) or b"")
        if self._answers and self._answers[0] is None:
            del self._answers[0]
            return False
        return bool(self._answers)


Start = Callable[..., OrthancClient]


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Start:
    def start(*answers: bytes | None, side: SideName = SideName.SOURCE) -> OrthancClient:
        server = Scripted(answers)
        request.addfinalizer(server.close)
        made = OrthancClient(Endpoint(side, server.url, timeout_s=3.0), Credentials())
        request.addfinalizer(made.close)
        return made

    return start


def fetched(client: OrthancClient) -> bytes:
    received = bytearray()
    client.fetch_instance(ID, received.extend, deadline_s=5.0)
    return bytes(received)


def head(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/dicom", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def whole(body: bytes = FILE) -> bytes:
    return head(b"Content-Length: %d" % len(body)) + body


@pytest.mark.parametrize(
    "answer",
    [
        head(b"Transfer-Encoding: identity") + HALF,
        head(b"Transfer-Encoding: gzip") + HALF,
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\n\r\n",
        head(b"Transfer-Encoding: chunked") + b"%08x\r\n%s\r\n0" % (len(HALF), HALF),
        head(b"Transfer-Encoding: chunked") + b"%08x\r\n%s\r\n0000" % (len(HALF), HALF),
        head(b"Transfer-Encoding: chunked") + b"%x\r\n%s" % (len(FILE), HALF),
        head(b"Content-Length: %d" % len(FILE)) + HALF,
        head(b"Content-Length: %d" % len(HALF), status=b"206 Partial Content") + HALF,
        head(status=b"204 No Content"),
        head(b"Content-Length: 0"),
        head() + FILE,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\npage",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_what_may_be_no_whole_file_is_an_outage(client: Start, answer: bytes) -> None:
    with pytest.raises(SideError):
        fetched(client(answer, None))


@pytest.mark.parametrize(
    "answer",
    [
        whole(),
        head(b"Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(FILE), FILE),
        head(b"Transfer-Encoding: chunked") + b"%08X;x=y\r\n%s\r\n00\r\n\r\n" % (len(FILE), FILE),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + whole(),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + whole(),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + whole(),
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n" + whole(),
    ],
)
def test_a_whole_file_is_one(client: Start, answer: bytes) -> None:
    assert fetched(client(answer, None)) == FILE


def test_what_follows_an_answer_is_the_answer_to_nothing(client: Start) -> None:
    other = FILE[::-1]
    twice = client(whole() + whole(), None, whole(other), None)
    assert fetched(twice) == FILE
    assert fetched(twice) == other


def test_an_interim_answer_does_not_put_answers_out_of_step(client: Start) -> None:
    other = FILE[::-1]
    hinting = client(b"HTTP/1.1 103 Early Hints\r\n\r\n" + whole(), whole(other), None)
    assert fetched(hinting) == FILE
    assert fetched(hinting) == other


class OnlyMakefile:
    """What stands for a socket: it has ``makefile`` and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


@pytest.mark.parametrize(
    ("field", "chunked", "length", "will_close"),
    [
        (b"Content-Length: 5", False, 5, False),
        (b"Transfer-Encoding: chunked", True, None, False),
        (b"Connection: close", False, None, True),
    ],
)
def test_the_installed_http_client_has_what_is_not_in_its_documentation(
    field: bytes, chunked: bool, length: int | None, will_close: bool
) -> None:
    socket_of_ours: Any = OnlyMakefile(head(field) + b"12345")
    response = http.client.HTTPResponse(socket_of_ours, method="GET")
    response.begin()
    assert response.chunked == chunked
    assert response.length == length
    assert response.will_close == will_close
    assert not response.isclosed()
    response.close()
    assert response.isclosed()


def test_success_before_everything_was_sent_is_none() -> None:
    body = b'{"ID": "%s", "Status": "Success"}' % ID.encode()
    with RawServer(head(b"Content-Length: %d" % len(body)) + body) as url:
        client = OrthancClient(Endpoint(SideName.TARGET, url), Credentials())
        with client, pytest.raises(BridgeError) as caught:
            client.store(bytes(64 * 1024 * 1024), deadline_s=10.0)
    assert isinstance(caught.value, SideError)
    assert caught.value.problem is SideProblem.UNREACHABLE
