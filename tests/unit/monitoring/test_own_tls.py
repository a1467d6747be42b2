"""TLS of the monitoring server, over real sockets: renewed, refused, and rude clients."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from bridge.errors import ConfigurationError
from bridge.ledger.store import Ledger
from bridge.monitoring import own_tls
from bridge.monitoring.ask_running_bridge import ask_running
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.own_tls import HANDSHAKES_MAX, RENEWAL_S, RenewedCertificate
from bridge.monitoring.server import MonitoringServer, application
from tests.certificates import Authority, Pair


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


class Secured:
    """A monitoring server with TLS, whose files and clock are in our hands."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.authority.create()
        self.first, self.second = (self.authority.issue(name) for name in ("first", "second"))
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"
        self.install(self.first)
        Ledger(directory / "state.sqlite3").close()
        self.board = Board(directory / "state.sqlite3", HealthLimits())
        self.clock = Clock()
        certificate = RenewedCertificate(
            str(self.cert),
            str(self.key),
            refused=self.board.tell_certificate,
            steady_s=self.clock,
        )
        app = application(self.board, Metrics(self.board))
        self.server = MonitoringServer(app, host="127.0.0.1", port=0, certificate=certificate)
        self.server.start()
        self.port = int(self.server.url.rsplit(":", 1)[1])

    def install(self, pair: Pair) -> None:
        shutil.copy(pair.certificate, self.cert)
        shutil.copy(pair.key, self.key)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority.certificate)

    def shown(self) -> str:
        """Ask for /livez, and return the name in the certificate."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=10, context=self.context()
        )
        try:
            connection.request("GET", "/livez")
            assert connection.getresponse().read() == b"ok\n"
            found = connection.sock.getpeercert()
        finally:
            connection.close()
        assert found is not None
        subject = cast("tuple[tuple[tuple[str, str], ...], ...]", found["subject"])
        return dict(pair for names in subject for pair in names)["commonName"]

    def codes(self) -> list[str]:
        return [problem.code for problem in self.board.problems()]


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    found = Secured(tmp_path)
    yield found
    found.server.stop()


def test_a_renewed_pair_is_shown_with_the_next_connection(secured: Secured) -> None:
    assert secured.server.url.startswith("https://127.0.0.1:")
    assert secured.shown() == "first"
    secured.install(secured.second)
    secured.clock.s += 10
    assert secured.shown() == "second"
    secured.install(secured.first)
    secured.clock.s += 10
    assert secured.shown() == "first"


def test_a_pair_that_is_none_is_told_and_the_old_one_kept(secured: Secured) -> None:
    shutil.copy(secured.second.certificate, secured.cert)  # its key comes later, or never
    secured.clock.s += 2
    assert secured.shown() == "first"
    assert "certificate_refused" not in secured.codes(), "it may be half of a renewal"
    secured.clock.s += RENEWAL_S + 1
    assert secured.shown() == "first"
    assert "certificate_refused" in secured.codes()
    secured.key.unlink()
    secured.clock.s += 2
    assert secured.shown() == "first"
    shutil.copy(secured.second.key, secured.key)
    secured.clock.s += 2
    assert secured.shown() == "second"
    assert "certificate_refused" not in secured.codes()


def test_a_pair_that_is_put_back_is_refused_no_longer(secured: Secured) -> None:
    aside = secured.key.with_name("aside")
    secured.key.rename(aside)
    for seconds in (2, RENEWAL_S + 1):
        secured.clock.s += seconds
        assert secured.shown() == "first"
    assert "certificate_refused" in secured.codes()
    aside.rename(secured.key)
    secured.clock.s += 2
    assert secured.shown() == "first"
    assert "certificate_refused" not in secured.codes()


def test_a_pipe_in_place_of_a_file_holds_nobody(secured: Secured) -> None:
    """To read it would wait until somebody writes into it, and /livez with it."""
    for file in (secured.key, secured.cert):
        file.unlink()
        os.mkfifo(file)
        secured.clock.s += 10
        assert secured.shown() == "first"
    assert "certificate_refused" in secured.codes()


@pytest.mark.parametrize("wrong", ["another key", "no certificate", "no file"])
def test_at_the_start_a_pair_that_is_none_is_a_mistake(tmp_path: Path, wrong: str) -> None:
    authority = Authority(tmp_path)
    authority.create()
    one, other = authority.issue("one"), authority.issue("other")
    cert, key = one.certificate, one.key
    if wrong == "another key":
        key = other.key
    elif wrong == "no certificate":
        cert = one.key
    else:
        cert = str(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="BRIDGE_HEALTH_CERT_FILE"):
        RenewedCertificate(cert, key)


def ended(connection: socket.socket, within_s: float) -> bool:
    """Tell whether the server ends a connection within that time."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_who_speaks_no_tls_or_nothing_is_let_go_and_others_are_served(
    secured: Secured,
) -> None:
    with socket.create_connection(("127.0.0.1", secured.port), timeout=10) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"ok" not in plain.recv(1000)
    silent = [
        socket.create_connection(("127.0.0.1", secured.port), timeout=10)
        for _ in range(3 * HANDSHAKES_MAX)
    ]
    try:
        assert secured.shown() == "first"
        # The oldest was dropped for the newest, and not only when its time was over.
        assert ended(silent[0], within_s=own_tls.HANDSHAKE_S / 2)
        assert ended(silent[-1], within_s=4 * own_tls.HANDSHAKE_S)
    finally:
        for one in silent:
            one.close()


def test_commands_beside_it_believe_that_certificate_and_no_other(secured: Secured) -> None:
    url = secured.server.url
    told = ask_running(url, str(secured.cert))
    assert told is not None
    assert told["monitor_url"] == url
    assert ask_running(url, secured.second.certificate) is None
    assert ask_running(url, None) is None
    assert ask_running(url, "/no/such/file") is None
