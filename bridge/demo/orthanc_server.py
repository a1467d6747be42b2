"""Real Orthanc servers on free loopback ports, for `demo`, tests and benchmarks.

A server here is a child process with its own storage directory. Its ports are reserved for as
long as the object lives: bound, not listening, with SO_REUSEADDR. The kernel then gives them to
nobody who asks for any free port, our server can still listen on them, and while it is stopped
they refuse connections. A watchdog at the end of a pipe kills the server when this process ends,
however it ends.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from bridge.errors import BridgeError, ConfigurationError

EXECUTABLE_VARIABLE = "ORTHANC_EXECUTABLE"
LOG_TAIL_LINES = 12
POLL_S = 0.01
SUSPEND_S = 5.0
PROBE_TIMEOUT_S = 2.0

# Reads one line from the pipe: a line means "it is stopped", end of file means "we are dead".
_WATCHDOG = 'read -r stopped || kill -s KILL -- "-$1"'


class ServerFailed(BridgeError):
    """A sandbox server did not start, or a command for it came while it was not running."""


def find_orthanc() -> Path:
    """Return the Orthanc executable: ``$ORTHANC_EXECUTABLE``, else on PATH, else in /usr/sbin.

    Raises ConfigurationError with advice when there is none.
    """
    named = os.environ.get(EXECUTABLE_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise ConfigurationError(
                f"{EXECUTABLE_VARIABLE} is {named!r}, which is not an executable file.",
                advice="Correct it, or unset it to search PATH.",
            )
        return Path(found)
    # /usr/sbin is not on the PATH of ordinary users, and Debian's package installs there.
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("Orthanc", path=search)
    if found is None:
        raise ConfigurationError(
            "No Orthanc executable found on PATH or in /usr/sbin.",
            advice="Install it (apt-get install orthanc) or set ORTHANC_EXECUTABLE to its path.",
        )
    return Path(found)


class OrthancServer:
    """One real Orthanc: a context manager that starts it and stops it.

    Storage, log and configuration live in ``directory`` and survive ``stop`` and ``start``; so do
    the ports. ``config`` is laid over our defaults (any Orthanc option; no plugins, no remote
    access and no unknown DICOM senders unless it says so). With ``username`` the REST API asks
    for a login. Orthanc cannot bind its DICOM port to loopback only.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        config: Mapping[str, object] | None = None,
        username: str | None = None,
        password: str | None = None,
        http_port: int = 0,
        dicom_port: int = 0,
        executable: Path | None = None,
    ) -> None:
        self.name = name
        self.directory = Path(directory).resolve()
        self.username = username
        self.password = password
        self.executable = executable or find_orthanc()
        self.log_path = self.directory / "orthanc.log"
        self.config_path = self.directory / "orthanc.json"
        self._extra = dict(config or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._reserved = [_reserve(http_port), _reserve(dicom_port)]
        self.http_port, self.dicom_port = (int(s.getsockname()[1]) for s in self._reserved)

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return f"<OrthancServer {self.name} {self.url} {state}>"

    @property
    def url(self) -> str:
        """Base URL without a trailing slash."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        """Process identifier; raises ServerFailed when the server is not running."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """True while the process exists, a suspended one included."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 20.0) -> None:
        """Start the server and wait until its REST API answers.

        Raises ServerFailed with the end of its log when it exits early or stays silent.
        """
        if self.is_running:
            raise ServerFailed(f"The Orthanc {self.name} is already running.")
        self._release()
        self._write_config()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  (the operator's own executable)
                [str(self.executable), str(self.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=_environment(),
                start_new_session=True,  # its own group: Ctrl-C is for us, and killpg is for it
            )
        self._watchdog = _watch(self._process.pid)
        try:
            self._await_ready(self._process, timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = 20.0) -> None:
        """Ask the server to end, and kill it if it has not after ``timeout_s``; idempotent."""
        if self._process is not None and self.is_running:
            self._signal(signal.SIGCONT)  # a suspended process does not act on SIGTERM
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        self._release()

    def kill(self) -> None:
        """SIGKILL to its process group; returns when it is gone. Idempotent."""
        if self.is_running:
            self._signal(signal.SIGKILL)
        self._release()

    def suspend(self) -> None:
        """SIGSTOP: connections are accepted by the kernel and nothing answers.

        Returns when every thread has stopped: the signal reaches them one after another.
        """
        process = self._running()
        self._signal(signal.SIGSTOP)
        until_s = time.monotonic() + SUSPEND_S
        while _runs(process.pid) and time.monotonic() < until_s:
            time.sleep(POLL_S)

    def resume(self) -> None:
        """SIGCONT after ``suspend``."""
        self._running()
        self._signal(signal.SIGCONT)

    def restart(self, timeout_s: float = 20.0) -> None:
        """``stop`` and ``start``."""
        self.stop()
        self.start(timeout_s)

    def close(self) -> None:
        """Kill the server (a graceful stop takes seconds) and give its ports back; for good."""
        self.kill()
        for reserved in self._reserved:
            reserved.close()

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Return the end of the server's log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text("utf-8", "replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def _tls(self) -> bool:
        return bool(self._extra.get("SslEnabled"))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"The Orthanc {self.name} is not running.")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _release(self) -> None:
        """Reap the process, and dismiss the watchdog before the group's number can be reused."""
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._watchdog is not None:
            self._watchdog.communicate(b"stopped\n")
            self._watchdog = None

    def _write_config(self) -> None:
        options: dict[str, object] = {
            "Name": self.name,
            "StorageDirectory": str(self.directory / "storage"),
            "IndexDirectory": str(self.directory / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": self.username is not None,
            "RegisteredUsers": {self.username: self.password or ""} if self.username else {},
            "DicomAlwaysAllowStore": False,
            "HttpThreadsCount": 16,
            "Plugins": [],
        }
        options.update(self._extra)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_path.touch(0o600)  # it may hold a password
        self.config_path.write_text(json.dumps(options, indent=2), encoding="utf-8")

    def _await_ready(self, process: subprocess.Popen[bytes], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            try:
                seen = f"ended at once with code {process.wait(POLL_S)}"
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                seen = f"did not answer within {timeout_s} s"
            tail = f"The end of {self.log_path.name}:\n{self.log_tail()}"
            raise ServerFailed(f"The Orthanc {self.name} {seen}. {tail}")

    def _answers(self) -> bool:
        """Whether the server does its work; with TLS, whether it listens."""
        address = ("127.0.0.1", self.http_port)
        if self._tls:
            try:
                socket.create_connection(address, PROBE_TIMEOUT_S).close()
            except OSError:
                return False
            return True
        connection = http.client.HTTPConnection(*address, timeout=PROBE_TIMEOUT_S)
        try:
            # Any answer will do: nobody else can listen on this port, and 401 is an answer too.
            connection.request("GET", "/system")
            connection.getresponse().read()
            return True
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _reserve(port: int) -> socket.socket:
    """Bind a TCP port (0: any free one) on every address, without listening on it."""
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reserved.bind(("", port))
    except OSError as exc:
        reserved.close()
        raise ConfigurationError(
            f"TCP port {port} cannot be used for a sandbox server: {exc.strerror}.",
            advice="Choose another port, or 0 for any free one.",
        ) from exc
    return reserved


def _environment() -> dict[str, str]:
    """Only what Orthanc needs: our own environment may hold passwords."""
    names = ("PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
    return {"LANG": "C.UTF-8"} | {name: os.environ[name] for name in names if name in os.environ}


def _runs(pid: int) -> bool:
    """Tell whether any thread of a process is not stopped."""
    states = [
        path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
        for path in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return any(state not in "Tt" for state in states)


def _watch(group: int) -> subprocess.Popen[bytes]:
    """Start the process that kills a group when this process ends without saying so."""
    return subprocess.Popen(  # noqa: S603  (a constant script; the number is ours)
        ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
