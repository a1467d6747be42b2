"""Edges of a transfer: the last byte of a bound, the last piece, a connection that is kept."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from bridge.errors import InstanceError, SideError
from bridge.model import Endpoint, Reason, SideName, SideProblem
from bridge.orthanc import OrthancClient, answers
from bridge.orthanc.answers import WrongAnswer
from bridge.orthanc.bodies import (
    LENGTH_DIGITS_MAX,
    PIECE_BYTES_MAX,
    Upload,
    bounded_body,
    content_length,
)
from bridge.orthanc.client import _page_bytes_max
from bridge.orthanc.fault_table import Request, Route
from bridge.orthanc.faults import error_of_exception
from bridge.orthanc.transport import KEEPALIVE_S, Connection, Line, Transport, _head
from bridge.orthanc.wire import ERROR_BODY_BYTES_MAX
from tests.raw_server import RawServer

Make = Callable[..., OrthancClient]
FILE = Request(
    Endpoint(SideName.SOURCE, "http://127.0.0.1:1", timeout_s=1.0), "GET", "/x", Route.FILE
)


# --- downloads ---


@pytest.mark.parametrize("sizes", [(30,), (10, 10, 10), (0, 29, 1), (1, 0, 29), (29, 1, 0)])
@pytest.mark.parametrize("bytes_max", [29, 30, 31])
def test_a_file_is_bounded_to_the_byte(sizes: tuple[int, ...], bytes_max: int) -> None:
    """All of its pieces together: none of them is too large."""
    pieces = [bytes(size) for size in sizes]
    if bytes_max >= 30:
        assert list(bounded_body(iter(pieces), FILE, bytes_max)) == pieces
        return
    got: list[bytes] = []
    with pytest.raises(InstanceError) as caught:
        got.extend(bounded_body(iter(pieces), FILE, bytes_max))
    assert caught.value.reason is Reason.TOO_LARGE
    assert sum(map(len, got)) <= bytes_max


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b"", b""]])
def test_a_file_of_no_bytes(pieces: list[bytes]) -> None:
    with pytest.raises(SideError, match="empty file") as caught:
        list(bounded_body(iter(pieces), FILE, 10))
    assert caught.value.problem is SideProblem.NOT_ORTHANC
    assert caught.value.specific


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ({"content-length": "1"}, 1),
        ({"content-length": "100"}, 100),
        ({"content-length": "100", "content-type": "application/dicom"}, 100),
        ({"transfer-encoding": "chunked"}, None),
        ({"transfer-encoding": "chunked", "content-length": "5"}, None),
    ],
)
def test_the_length_that_is_announced(headers: dict[str, str], length: int | None) -> None:
    assert content_length(headers, FILE, 100) == length


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-length": ""},
        {"content-length": "-1"},
        {"content-length": "0"},
        {"content-length": "1" * (LENGTH_DIGITS_MAX + 1)},
        {"content-length": "\u0661"},
        {"content-length": "5", "content-type": "text/html"},
        {"content-length": "5", "content-type": " TEXT/plain"},
        {"content-length": "5", "content-type": "application/json; charset=utf-8"},
        {"content-length": "5", "content-type": "application/xml"},
        {"transfer-encoding": "chunked", "content-type": "text/html"},
    ],
)
def test_what_is_no_file(headers: dict[str, str]) -> None:
    with pytest.raises(SideError) as caught:
        content_length(headers, FILE, 100)
    assert caught.value.problem is SideProblem.NOT_ORTHANC


def test_a_length_above_the_bound() -> None:
    with pytest.raises(InstanceError) as caught:
        content_length({"content-length": "101"}, FILE, 100)
    assert caught.value.reason is Reason.TOO_LARGE


# --- uploads ---


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("surplus", [-1, 0, 1, 2])
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_buffer_is_sent_to_its_last_byte(pieces: int, surplus: int, kind: type) -> None:
    data = (bytes(range(251)) * (pieces * PIECE_BYTES_MAX // 251 + 2))[
        : pieces * PIECE_BYTES_MAX + surplus
    ]
    upload = Upload(kind(data), None)
    for _ in range(2):  # it can be sent again
        sent = [piece for piece in upload.content if isinstance(piece, bytes)]
        assert b"".join(sent) == data
        assert max(map(len, sent)) <= PIECE_BYTES_MAX
    assert ("Content-Length", str(len(data))) in upload.headers
    assert upload.can_be_resent


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_three_buffers_of_which_one_is_empty(empty: int) -> None:
    """An empty piece would end a chunked body."""
    buffers = [b"" if i == empty else bytes([i + 1]) * 3 for i in range(3)]
    for length in (None, 6):
        sent = list(Upload(buffers, length).content)
        assert sent == [buffer for buffer in buffers if buffer]


@pytest.mark.parametrize("length", [5, 7])
@pytest.mark.parametrize("longest", [0, 1, 2])
def test_a_body_of_another_length_by_one_byte(length: int, longest: int) -> None:
    buffers = [bytes(4 if i == longest else 1) for i in range(3)]
    with pytest.raises(InstanceError, match="to send had") as caught:
        list(Upload(buffers, length).content)
    assert caught.value.reason is Reason.INTERNAL
    assert not caught.value.final


def test_what_can_be_sent_again() -> None:
    assert Upload([b"ab"], None).can_be_resent
    assert not Upload(iter([b"ab"]), None).can_be_resent
    assert not Upload((b"ab" for _ in range(3)), 6).can_be_resent
    assert Upload(b"ab", 2).can_be_resent
    with pytest.raises(ValueError, match="2 bytes, not 3"):
        Upload(b"ab", 3)


# --- the head of a request ---


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("character", [b"\r", b"\n", b"\0", b"\x1f", b"\x7f"])
def test_a_control_character_in_any_header(at: int, character: bytes) -> None:
    """It would be a header, or a request, of somebody else's making."""
    headers = [(b"A", b"1"), (b"B", b"2"), (b"C", b"3")]
    request = httpx.Request("GET", "http://127.0.0.1", extensions={"target": b"/x"})
    assert _head(request, headers) == b"GET /x HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"
    name, value = headers[at]
    for bad in ((name, value + character), (name + character, value)):
        with pytest.raises(httpx.LocalProtocolError):
            _head(request, [*headers[:at], bad, *headers[at + 1 :]])
    request.extensions["target"] = b"/x" + character
    with pytest.raises(httpx.LocalProtocolError):
        _head(request, headers)


# --- deadlines ---


def over(line: Line) -> bool:
    return line.is_over


def test_an_inner_deadline_never_extends_an_outer_one() -> None:
    line = Line()
    assert line.allowed(7.0) == 7.0
    assert not over(line)
    with line.within(500.0):
        assert 400.0 < line.allowed(1_000.0) <= 500.0
        assert line.allowed(7.0) == 7.0
        for inner, most in ((50.0, 50.0), (5_000.0, 500.0), (None, 500.0)):
            with line.within(inner):
                assert line.allowed(10_000.0) <= most
                assert line.allowed(10_000.0) > 0.5 * most
            assert line.allowed(10_000.0) > 400.0
    with line.within(None):
        assert line.allowed(7.0) == 7.0
    with line.within(0.0):
        assert over(line)
        assert line.allowed(7.0) <= 0.0
        with line.within(100.0):
            assert over(line)
    assert not over(line)


def test_an_attempt_forgets_what_the_one_before_has_seen() -> None:
    line = Line()
    line.opened, line.received = True, 5
    line.begin_attempt()
    assert (line.opened, line.received) == (False, 0)


# --- a kept connection ---

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, Line())
    yield connection, theirs
    connection.close()
    theirs.close()


def fresh(connection: Connection) -> bool:
    return connection.is_fresh


def test_a_connection_is_used_again_while_it_is_silent_and_open(pair: Pair) -> None:
    connection, theirs = pair
    connection.rest()
    assert fresh(connection)
    theirs.sendall(b"H")
    assert not fresh(connection)


def test_a_connection_that_the_server_has_closed_is_not_used_again(pair: Pair) -> None:
    connection, theirs = pair
    connection.rest()
    theirs.close()
    assert not fresh(connection)


def test_a_connection_that_was_idle_for_long_is_not_used_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orthanc closes it after a second."""
    connection, _ = pair
    began_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began_s)
    connection.rest()
    monkeypatch.setattr(time, "monotonic", lambda: began_s + KEEPALIVE_S - 0.01)
    assert fresh(connection)
    monkeypatch.setattr(time, "monotonic", lambda: began_s + KEEPALIVE_S + 0.01)
    assert not fresh(connection)
    assert KEEPALIVE_S < 1.0


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"


@pytest.mark.parametrize("left", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers"])
def test_bytes_behind_an_answer_are_no_answer_to_the_next_request(pair: Pair, left: bytes) -> None:
    connection, theirs = pair
    theirs.sendall(HEAD + b"a file" + left)
    answer = connection.receive("GET", timeout_s=5.0)

    assert not answer.is_over
    assert b"".join(answer.pieces()) == b"a file"
    assert answer.is_over is not bool(left)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\n",
    ],
)
def test_a_server_that_says_that_it_will_close(pair: Pair, head: bytes) -> None:
    connection, theirs = pair
    theirs.sendall(head + b"a file")
    answer = connection.receive("GET", timeout_s=5.0)
    assert b"".join(answer.pieces()) == b"a file"
    assert not answer.is_over


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_chunked_body_is_sent_without_its_empty_pieces(pair: Pair, at: int) -> None:
    connection, theirs = pair
    pieces = [b"" if i == at else bytes([65 + i]) * 17 for i in range(3)]
    connection.send(b"head", pieces, chunked=True, timeout_s=5.0)
    wanted = b"head" + b"".join(b"11\r\n" + p + b"\r\n" for p in pieces if p) + b"0\r\n\r\n"
    assert theirs.recv(1000) == wanted
    connection.send(b"head", pieces, chunked=False, timeout_s=5.0)
    assert theirs.recv(1000) == b"head" + b"".join(pieces)


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 3])
def test_interim_answers_are_passed_over(pair: Pair, interim: bytes) -> None:
    connection, theirs = pair
    theirs.sendall(interim + HEAD + b"a file")
    answer = connection.receive("GET", timeout_s=5.0)
    assert answer.status == 200
    assert b"".join(answer.pieces()) == b"a file"


# --- error bodies ---


@pytest.mark.parametrize("surplus", [-1, 0, 1])
def test_an_error_body_is_read_to_its_bound_only(client_of: Make, surplus: int) -> None:
    """Orthanc's own error code is told where the body is small enough to be one of Orthanc's."""
    fault = json.dumps({"OrthancStatus": 11, "OrthancError": "Error with the database"}).encode()
    body = fault.ljust(ERROR_BODY_BYTES_MAX + surplus)
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(body)
    with RawServer(head + body) as url, pytest.raises(SideError) as caught:
        client_of(url).system()
    assert ("Orthanc error 11" in str(caught.value)) is (surplus <= 0)
    assert "HTTP 500" in str(caught.value)


# --- bounds of answers ---


def padded(text: str, size: int) -> bytes:
    body = text.encode().ljust(size)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


SYSTEM = '{"Version": "1.12.0", "ApiVersion": 20}'
EMPTY_PAGE = '{"Changes": [], "Done": true, "Last": 0}'


@pytest.mark.parametrize("surplus", [0, 1])
@pytest.mark.parametrize("kind", ["system", "changes", "instances"])
def test_an_answer_is_bounded_to_the_byte(client_of: Make, kind: str, surplus: int) -> None:
    """1 MiB, and 1 KiB more for each row that was asked for."""
    calls: dict[str, tuple[str, int, Callable[[OrthancClient], object]]] = {
        "system": (SYSTEM, 1 << 20, lambda client: client.system()),
        "changes": (EMPTY_PAGE, (1 << 20) + 3 * 1024, lambda client: client.changes(0, 3)),
        "instances": ("[]", (1 << 20) + 3 * 1024, lambda client: client.list_instances(0, 3)),
    }
    text, size, call = calls[kind]
    with RawServer(padded(text, size + surplus)) as url:
        if not surplus:
            call(client_of(url))
            return
        with pytest.raises(SideError, match=f"more than {size} bytes") as caught:
            call(client_of(url))
        assert caught.value.problem is SideProblem.NOT_ORTHANC


def test_a_page_of_any_size_is_bounded() -> None:
    for rows, size in ((1, (1 << 20) + 1024), (64_511, 67_107_840), (64_512, 1 << 26)):
        assert _page_bytes_max(rows) == size
    assert _page_bytes_max(10**9) == 1 << 26


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_file_of_64_gibibytes(client_of: Make, surplus: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * 1024**3 + surplus)
    name = "11111111-22222222-33333333-44444444-55555555"
    with RawServer(head) as url, pytest.raises((InstanceError, SideError)) as caught:
        client_of(url).fetch_instance(name, lambda _: None, deadline_s=30.0)
    if surplus:
        assert isinstance(caught.value, InstanceError)
        assert caught.value.reason is Reason.TOO_LARGE
    else:
        assert isinstance(caught.value, SideError)


@pytest.mark.parametrize(
    ("parse", "made", "most"),
    [
        (answers.parse_metadata, lambda n: {f"m{i}": "" for i in range(n)}, 1_000),
        (answers.parse_peers, lambda n: {f"p{i}": {"Url": "u"} for i in range(n)}, 10_000),
    ],
)
def test_how_many_there_may_be(
    parse: Callable[[bytes], dict[str, str]], made: Callable[[int], object], most: int
) -> None:
    assert len(parse(json.dumps(made(most)).encode())) == most
    with pytest.raises(WrongAnswer, match=f"more than {most}"):
        parse(json.dumps(made(most + 1)).encode())


@pytest.mark.parametrize(("number", "fine"), [(0, True), (2**53 - 1, True), (2**53, False)])
def test_numbers_that_json_carries_exactly(number: int, fine: bool) -> None:
    name = "11111111-22222222-33333333-44444444-55555555"
    row = {"Seq": number, "ChangeType": "NewInstance", "ID": name, "Date": "20200101T000000"}
    page = json.dumps({"Changes": [row], "Done": True, "Last": number}).encode()
    system = json.loads(SYSTEM) | {"DatabaseVersion": number}
    stored = json.dumps({"Uuid": "u", "UncompressedSize": number}).encode()
    told = answers.parse_system(json.dumps(system).encode())
    assert told.database_version == (number if fine else None)
    if fine:
        assert answers.parse_changes(page, since=None, rows_max=1).last == number
        assert answers.parse_stored_file(stored).size_bytes == number
        return
    with pytest.raises(WrongAnswer):
        answers.parse_changes(page, since=None, rows_max=1)
    with pytest.raises(WrongAnswer):
        answers.parse_stored_file(stored)


def test_capabilities_are_bounded() -> None:
    names = {f"Has{i:03d}": True for i in range(30)} | {"Has999": False, "Has998": 1}
    told = answers.parse_system(json.dumps(json.loads(SYSTEM) | {"Capabilities": names}).encode())
    assert told.capabilities == tuple(f"Has{i:03d}" for i in range(20))


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        (9, "expired or is not valid yet"),
        (10, "expired or is not valid yet"),
        (62, "another host name"),
        (64, "another host name"),
        (18, "no trusted authority"),
        (20, "no trusted authority"),
        (63, "no trusted authority"),
    ],
)
def test_what_is_wrong_with_a_certificate(code: int, seen: str) -> None:
    """OpenSSL's codes: X509_V_ERR_..."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_code, cause.verify_message = code, "of OpenSSL's"
    exc = httpx.ConnectError("no connection")
    exc.__cause__ = cause
    error = error_of_exception(exc, FILE, answer_begun=False)
    assert isinstance(error, SideError)
    assert error.problem is SideProblem.TLS
    assert seen in str(error)


class Kept:
    """A connection that is only counted."""

    def __init__(self) -> None:
        self.closed = False

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_idle_connections_are_bounded() -> None:
    transport = Transport(FILE.endpoint, Line())
    over = SimpleNamespace(is_over=True)
    made = [Kept() for _ in range(6)]
    for one in made:
        transport._release(cast(Any, one), cast(Any, over))
    assert [one.closed for one in made] == [False] * 4 + [True] * 2
    transport.close()
    assert all(one.closed for one in made)
    broken = Kept()
    transport._release(cast(Any, broken), cast(Any, SimpleNamespace(is_over=False)))
    assert broken.closed


def test_small_answers_have_twice_the_time_of_one_read(
    client_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries included."""
    asked: list[float | None] = []

    @contextmanager
    def exchange(*_: object, deadline_s: float | None, **__: object) -> Iterator[None]:
        asked.append(deadline_s)
        if deadline_s:
            raise ValueError("seen")
        yield

    client = client_of("http://127.0.0.1:1", timeout_s=7.0)
    monkeypatch.setattr(client._wire, "exchange", exchange)
    with pytest.raises(ValueError, match="seen"):
        client.system()
    assert asked == [14.0]
