"""The launcher of real servers: ports, life cycle, and no Orthanc left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bridge.demo.orthanc_server import OrthancServer, ServerFailed, find_orthanc
from bridge.errors import ConfigurationError
from tests.conftest import require_orthanc

Start = Callable[..., OrthancServer]
WAIT_S = 10.0


def wait_gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], WAIT_S)
        assert ready, f"process {pid} is still there after {WAIT_S} s"
    finally:
        os.close(descriptor)


def system(server: OrthancServer) -> dict[str, object]:
    answer = httpx.get(f"{server.url}/system", trust_env=False)
    return dict(answer.raise_for_status().json())


@pytest.mark.orthanc
class TestLife:
    def test_two_servers_at_once(self, orthanc: Start) -> None:
        first, second = orthanc("a"), orthanc("b")
        assert [system(server)["Name"] for server in (first, second)] == ["a", "b"]
        ports = {first.http_port, first.dicom_port, second.http_port, second.dicom_port}
        assert len(ports) == 4

    def test_the_same_ports_and_storage_after_a_restart(self, orthanc: Start) -> None:
        server = orthanc()
        url, pid = server.url, server.pid
        server.restart()
        assert server.url == url
        assert server.pid != pid
        assert system(server)["DicomPort"] == server.dicom_port

    def test_a_stopped_server_refuses_and_its_port_is_not_given_away(self, orthanc: Start) -> None:
        server = orthanc()
        server.kill()
        assert not server.is_running
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.http_port), 1)
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", server.http_port))
        server.kill()
        server.stop()
        server.start()
        assert server.is_running

    def test_a_port_that_is_taken(self, orthanc: Start, tmp_path: Path) -> None:
        port = orthanc().http_port
        with pytest.raises(ConfigurationError, match=f"TCP port {port} cannot be used"):
            OrthancServer("second", tmp_path / "second", http_port=port)

    def test_a_suspended_server_can_be_stopped(self, orthanc: Start) -> None:
        server = orthanc()
        server.suspend()
        server.kill()
        assert not server.is_running

    def test_starting_twice(self, orthanc: Start) -> None:
        server = orthanc()
        with pytest.raises(ServerFailed, match="already running"):
            server.start()

    def test_what_needs_a_running_server(self, orthanc: Start) -> None:
        server = orthanc()
        server.kill()
        for command in (server.suspend, server.resume, lambda: server.pid):
            with pytest.raises(ServerFailed, match="not running"):
                command()

    def test_a_server_that_dies_is_noticed(self, orthanc: Start) -> None:
        server = orthanc()
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        assert not server.is_running
        server.start()
        assert system(server)["Name"] == "orthanc"

    def test_login(self, orthanc: Start) -> None:
        server = orthanc(username="u", password="p")  # noqa: S106
        assert httpx.get(f"{server.url}/system", trust_env=False).status_code == 401
        answer = httpx.get(f"{server.url}/system", auth=("u", "p"), trust_env=False)
        assert answer.status_code == 200

    def test_the_configuration_is_ours_then_yours(self, orthanc: Start) -> None:
        server = orthanc(config={"DicomAet": "MINE", "HttpThreadsCount": 3})
        assert system(server)["DicomAet"] == "MINE"
        written = json.loads(server.config_path.read_text())
        assert (written["HttpThreadsCount"], written["Plugins"]) == (3, [])
        assert stat.S_IMODE(server.config_path.stat().st_mode) == 0o600

    def test_a_server_that_cannot_start_shows_its_log(self, orthanc: Start) -> None:
        with pytest.raises(
            ServerFailed, match=r"(?s)ended at once with code.*orthanc.log"
        ) as caught:
            orthanc(config={"HttpPort": "not a number"})
        assert caught.value.message.count("\n") > 1

    def test_a_server_that_says_nothing(self, tmp_path: Path) -> None:
        mute = tmp_path / "mute"
        mute.write_text("#!/bin/sh\necho I am mute\nexec sleep 60\n")
        mute.chmod(0o700)
        server = OrthancServer("mute", tmp_path / "storage", executable=mute)
        with pytest.raises(ServerFailed, match=r"(?s)did not answer within.*I am mute"):
            server.start(timeout_s=0.3)
        assert not server.is_running
        server.close()

    @pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "return"])
    def test_no_server_outlives_the_process_that_started_it(self, tmp_path: Path, end: str) -> None:
        require_orthanc()
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from bridge.demo.orthanc_server import OrthancServer\n"
            "server = OrthancServer('orphan', Path(sys.argv[1]))\n"
            "server.start()\n"
            "print(server.pid, flush=True)\n"
            "sys.stdin.readline()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            os.kill(pid, 0)
            if end == "return":
                parent.communicate("\n")
            else:
                parent.send_signal(signal.Signals[end])
        begun = time.monotonic()
        wait_gone(pid)
        assert time.monotonic() - begun < WAIT_S


class TestFinding:
    @pytest.fixture
    def executable(self, tmp_path: Path) -> Path:
        path = tmp_path / "Orthanc"
        path.write_text("#!/bin/sh\n")
        path.chmod(0o700)
        return path

    def test_the_variable_wins(self, executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORTHANC_EXECUTABLE", str(executable))
        assert find_orthanc() == executable

    def test_a_variable_that_is_wrong(
        self, executable: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ORTHANC_EXECUTABLE", str(executable.parent / "none"))
        with pytest.raises(ConfigurationError, match="ORTHANC_EXECUTABLE"):
            find_orthanc()

    def test_path(self, executable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ORTHANC_EXECUTABLE", raising=False)
        monkeypatch.setenv("PATH", str(executable.parent))
        assert find_orthanc() == executable
