"""Clients that mean no good do not slow the bridge down, and others are answered meanwhile."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import small_series
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair

CLIENTS = 50
ANSWER_S_MAX = 3.0
"""On a machine with two busy cores; milliseconds otherwise."""


@contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """Hold connections: some silent, some with a byte now and then, some that never read.

    Whoever is dropped comes again at once.
    """
    over = threading.Event()

    def hold(number: int) -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    if number % 3 == 0:
                        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
                    while not over.wait(0.2):
                        if number % 3 == 1:
                            connection.sendall(b"G")
                        else:
                            connection.send(b"")
                        connection.setblocking(False)
                        try:
                            if number % 3 != 0 and connection.recv(1) == b"":
                                break
                        except BlockingIOError:
                            pass
                        connection.settimeout(5)
            except OSError:
                over.wait(0.05)

    threads = [threading.Thread(target=hold, args=(n,), daemon=True) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(10)


def longest_answer_s(port: int, until: threading.Event) -> float:
    """Ask again and again; the slowest answer, in seconds."""
    longest_s = 0.0
    while not until.is_set():
        began_s = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
        longest_s = max(longest_s, time.monotonic() - began_s)
        until.wait(0.1)
    return longest_s


def descriptors(bridge: BridgeProcess) -> int:
    return len(list(Path(f"/proc/{bridge.pid}/fd").iterdir()))


def moved_in_s(source: FakeOrthanc, target: FakeOrthanc, count: int) -> float:
    began_s = time.monotonic()
    sent = {source.put(data) for data in small_series(count)}
    wait_until(lambda: sent <= target.store.instances.keys(), "all arrive")
    return time.monotonic() - began_s


def test_slow_clients_do_not_slow_the_bridge(tmp_path: Path) -> None:
    with FakeOrthanc() as source, FakeOrthanc() as target:
        pair = FakePair(source.url, target.url, tmp_path / "home")
        bridge = pair.start("run")
        port = int(bridge.url.rsplit(":", 1)[1])
        moved_in_s(source, target, 20)  # the workers have started
        alone_s = moved_in_s(source, target, 150)
        over, slowest = threading.Event(), [0.0]
        asker = threading.Thread(target=lambda: slowest.append(longest_answer_s(port, over)))
        with slow_clients(port):
            asker.start()
            loaded_s = moved_in_s(source, target, 150)
            assert descriptors(bridge) < 150
            over.set()
            asker.join(20)
        assert 0 < slowest[-1] < ANSWER_S_MAX
        assert loaded_s < 3 * alone_s + 3.0, f"{alone_s:.1f} s alone, {loaded_s:.1f} s loaded"
        assert bridge.is_running
        assert "Traceback" not in bridge.stderr
        assert bridge.logged("log") == [], "what is not HTTP does not fill the log"
        pair.close()
