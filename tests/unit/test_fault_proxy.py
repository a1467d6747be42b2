"""The fault proxy does what it says: tests of outages stand on it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.fault_proxy import Direction, Drip, DropAnswer, FaultProxy, Hang, OnMarker, Reset

QUESTION = b"question" * 1000
TIMEOUT_S = 5.0
BROKEN = r"reset|Broken pipe|not connected"
"""What a client sees of a reset, as the race between its calls and the RST goes."""


class Echo:
    """Reads until the client has sent everything, then sends it back."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.done = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def wait_heard(self, count: int) -> None:
        with self.done:
            assert self.done.wait_for(lambda: len(self.heard) >= count, TIMEOUT_S)

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        heard = b""
        with connection:
            try:
                while data := connection.recv(65536):
                    heard += data
                connection.sendall(heard)
            except OSError:
                heard += b"!"  # broken off
        with self.done:
            self.heard.append(heard)
            self.done.notify_all()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as made:
        yield made


def port_of(proxy: FaultProxy) -> int:
    return int(proxy.url.rpartition(":")[2])


def ask(proxy: FaultProxy, question: bytes = QUESTION) -> bytes:
    address = ("127.0.0.1", port_of(proxy))
    with socket.create_connection(address, TIMEOUT_S) as connection:
        connection.sendall(question)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def test_it_passes_everything(proxy: FaultProxy) -> None:
    assert ask(proxy) == QUESTION
    assert proxy.struck == 0


def test_refuse_and_accept_on_the_same_port(proxy: FaultProxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        ask(proxy)
    proxy.accept()
    assert ask(proxy) == QUESTION


def test_hang_until_healed(proxy: FaultProxy, echo: Echo) -> None:
    proxy.strike(Hang())
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(ask(proxy)))
    thread.start()
    proxy.wait_struck(1)
    assert echo.heard == []
    proxy.heal()
    thread.join(TIMEOUT_S)
    assert answers == [QUESTION]


def test_reset_on_the_way_up(proxy: FaultProxy, echo: Echo) -> None:
    proxy.strike(Reset(Direction.UP, after_bytes=100), times=1)
    with pytest.raises(OSError, match=BROKEN):
        ask(proxy)
    echo.wait_heard(1)
    assert echo.heard[0].endswith(b"!")
    assert len(echo.heard[0]) <= 101
    assert ask(proxy) == QUESTION
    assert proxy.struck == 1


def test_reset_on_the_way_down(proxy: FaultProxy, echo: Echo) -> None:
    proxy.strike(Reset(Direction.DOWN, after_bytes=100), times=1)
    with pytest.raises(ConnectionResetError):
        ask(proxy)
    echo.wait_heard(1)
    assert echo.heard == [QUESTION]
    assert ask(proxy) == QUESTION


def test_drop_the_answer(proxy: FaultProxy, echo: Echo) -> None:
    proxy.strike(DropAnswer(), times=1)
    with pytest.raises(ConnectionResetError):
        ask(proxy)
    echo.wait_heard(1)
    assert echo.heard == [QUESTION]
    assert ask(proxy) == QUESTION


def test_drip_changes_nothing_but_the_time(proxy: FaultProxy) -> None:
    proxy.strike(Drip(interval_s=0.001))
    assert ask(proxy, b"slowly") == b"slowly"
    assert proxy.struck >= 1


def test_drip_ends_when_healed(proxy: FaultProxy) -> None:
    proxy.strike(Drip(interval_s=60))
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(ask(proxy)))
    thread.start()
    proxy.wait_struck(1)
    proxy.heal()
    thread.join(TIMEOUT_S)
    assert answers == [QUESTION]


def test_a_marker_calls_its_action(proxy: FaultProxy) -> None:
    called: list[str] = []
    proxy.strike(OnMarker(b"poison", lambda: called.append("yes")))
    assert ask(proxy) == QUESTION
    with pytest.raises(OSError, match=BROKEN):
        ask(proxy, QUESTION + b"poison")
    assert called == ["yes"]


def test_open_connections_break_when_it_refuses(proxy: FaultProxy) -> None:
    with socket.create_connection(("127.0.0.1", port_of(proxy)), TIMEOUT_S) as connection:
        connection.sendall(b"x")
        proxy.strike(Hang())
        connection.sendall(b"y")
        proxy.wait_struck(1)
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_server_that_is_down_looks_like_a_reset(echo: Echo) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with (
            FaultProxy(reserved.getsockname()[1]) as proxy,
            pytest.raises(OSError, match=BROKEN),
        ):
            ask(proxy)
    assert echo.heard == []


def test_waiting_for_a_strike_is_bounded(proxy: FaultProxy) -> None:
    with pytest.raises(TimeoutError, match="struck 0 times"):
        proxy.wait_struck(1, timeout_s=0.01)
