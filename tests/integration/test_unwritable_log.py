"""A log that cannot be written, or that nobody reads, stops nothing and is told elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.bridge_process import (
    children_of,
    is_tracker,
    process_environment,
    reasons_in,
    wait_until,
)
from tests.dicom_samples import small_series
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc

FULL = "/dev/full"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Mute:
    """A service whose log is not for us to read: its port is chosen before."""

    def __init__(self, pair: Pair, stdout: int, stderr: int, **settings: str) -> None:
        self.port = free_port()
        named = {f"BRIDGE_{name}": value for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "run"],
            env=process_environment(pair.settings | {"BRIDGE_HEALTH_PORT": str(self.port)} | named),
            cwd=pair.home,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def get(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as exc:
            return exc.read().decode()
        except OSError:
            assert self.process.poll() is None, f"it has ended with {self.process.returncode}"
            return ""

    def health(self) -> dict[str, Any]:
        said = self.get("/health")
        return dict(json.loads(said)) if said else {"reasons": [], "in_flight": 0}

    def workers(self) -> list[int]:
        return [pid for pid in children_of(self.process.pid) if not is_tracker(pid)]

    def end(self, within_s: float) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


@contextmanager
def mute(pair: Pair, stdout: int, stderr: int, **settings: str) -> Iterator[Mute]:
    made = Mute(pair, stdout, stderr, **settings)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


@pytest.mark.parametrize(
    ("stdout", "stderr"), [(os.devnull, FULL), (FULL, os.devnull), (FULL, FULL)]
)
def test_a_full_disk_of_the_log_ends_nothing(pair: Pair, stdout: str, stderr: str) -> None:
    """At the start, and when a worker is started anew: multiprocessing flushes before it starts."""
    sent = {pair.send(data) for data in small_series(3)}
    out, err = os.open(stdout, os.O_WRONLY), os.open(stderr, os.O_WRONLY)
    try:
        with mute(pair, out, err) as bridge:
            wait_until(lambda: bridge.health() != {} and sent <= pair.held(), "all are delivered")
            if stderr == FULL:
                wait_until(
                    lambda: "log_failing" in reasons_in(bridge.health()), "/health tells of it"
                )
                assert "No space left" in bridge.get("/health")
                assert "orthanc_bridge_log_failing 1.0" in bridge.get("/metrics")
            before = bridge.workers()
            os.kill(before[0], signal.SIGKILL)
            wait_until(lambda: before[0] not in bridge.workers(), "the worker is gone")
            more = {pair.send(data) for data in small_series(6)[3:]}
            wait_until(lambda: more <= pair.held(), "what came later too")
            assert bridge.end(within_s=30) == 0
    finally:
        os.close(out)
        os.close(err)


def test_a_pipe_that_nobody_reads_holds_up_neither_deliveries_nor_the_end(pair: Pair) -> None:
    """Its 4 kB are full after some lines; with as small a bound, lines are lost soon."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    try:
        sent = {pair.send(data) for data in small_series(40)}
        with mute(pair, writes, writes, LOG_LEVEL="debug") as bridge:
            wait_until(lambda: sent <= pair.held(), "all are delivered", 60)
            wait_until(lambda: "log_failing" in reasons_in(bridge.health()), "/health tells of it")
            assert "Nobody reads the log" in bridge.get("/health")
            worker = bridge.workers()[0]
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: worker not in bridge.workers(), "the worker is gone")
            more = {pair.send(data) for data in small_series(43)[40:]}
            wait_until(lambda: more <= pair.held(), "what came later too", 60)
            begun = time.monotonic()
            assert bridge.end(within_s=30) == 0
            assert time.monotonic() - begun < 15
    finally:
        os.close(reads)
        os.close(writes)


def test_once_somebody_reads_again_all_is_well_and_every_line_is_there(pair: Pair) -> None:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    sent = {pair.send(data) for data in small_series(30)}
    try:
        with mute(pair, writes, writes, LOG_FORMAT="json") as bridge:
            wait_until(lambda: sent <= pair.held(), "all are delivered", 60)
            wait_until(lambda: "log_failing" in reasons_in(bridge.health()), "/health tells of it")
            os.set_blocking(reads, False)
            text = b""

            def told() -> list[str]:
                nonlocal text
                with suppress(BlockingIOError):
                    while data := os.read(reads, 65_536):
                        text += data
                whole = text[: text.rfind(b"\n") + 1]
                lines = [json.loads(line) for line in whole.splitlines()]
                return [line["instance"] for line in lines if line["event"] == "instance_delivered"]

            wait_until(lambda: sorted(told()) == sorted(sent), "every line comes, once")
            wait_until(lambda: reasons_in(bridge.health()) == [], "the reason is gone")
            assert "orthanc_bridge_log_lost_lines_total 0.0" in bridge.get("/metrics")
    finally:
        os.close(reads)
        os.close(writes)


def test_an_audit_file_that_cannot_be_written_is_told(pair: Pair, tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    bridge = pair.start("run", AUDIT_PATH=str(directory / "audit.jsonl"))
    first, second = small_series(2)
    pair.send(first)
    bridge.wait_logged("instance_delivered")
    assert "orthanc_bridge_audit_failing 0.0" in bridge.get("/metrics")[1]
    directory.rename(tmp_path / "elsewhere")
    pair.send(second)
    said = bridge.wait_reason("audit_failing")
    (reason,) = said["reasons"]
    assert "No such file or directory" in reason["message"]
    assert "Lines that wait: 1." in reason["message"]
    assert "orthanc_bridge_audit_failing 1.0" in bridge.get("/metrics")[1]
    assert "The audit file" in pair.run("status").stdout
    (tmp_path / "elsewhere").rename(directory)
    bridge.wait_health(lambda health: not health["reasons"], "it is written again")
    assert bridge.logged("audit_recovered")
    assert len((directory / "audit.jsonl").read_text().splitlines()) == 2


def test_a_full_disk_of_the_audit_file_is_told(pair: Pair, tmp_path: Path) -> None:
    """The disk is full for a moment: a limit on the size of files stands for it."""
    audit = tmp_path / "audit.jsonl"
    # Beyond what the state file needs, and the audit file is nearly there.
    audit.write_text("{}" + " " * (8 * 1024 * 1024 - 3) + "\n")
    bridge = pair.start("run", AUDIT_PATH=str(audit))
    bridge.wait_logged("monitoring")
    resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (8 * 1024 * 1024, -1))
    pair.send(small_series(1)[0])
    said = bridge.wait_reason("audit_failing")
    assert "File too large" in json.dumps(said) or "a part of a line" in json.dumps(said)
    resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (-1, -1))
    bridge.wait_health(lambda health: not health["reasons"], "it is written again")
    assert len(audit.read_text().splitlines()) == 2
