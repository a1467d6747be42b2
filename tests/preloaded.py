"""Commands of the bridge as forks of a process that has imported it: most of a start is imports.

``start`` gives a process like any other: a child of this one, with its own arguments, environment,
folder, descriptors, signals and exit code. What differs from ``python -m bridge`` is that modules
are there already, and that /proc tells of another command line and environment. Its workers are
made in the same way; they are its children.

    this process (adopts orphans)
      server: has imported the bridge, one thread
        middle: forks and ends at once, so that its child is an orphan, and becomes ours
          command, a child of this process (adopts orphans)
            worker server, forked before anything else: a fork of it becomes the command's child

Run as a program, this file is the server.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
STARTED_WITH = {"LANG": "C.UTF-8", "PYTHONPATH": str(REPOSITORY)}
"""What Python reads at its start."""
WORKER_SERVER = "worker-server"
"""Its name in /proc/PID/comm."""
MESSAGE_BYTES_MAX = 1 << 20
DESCRIPTORS_MAX = 64
HIGH = 500
"""Descriptors of these processes begin there: a worker's own must keep their numbers."""
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
MODULES = (
    "bridge.checks.bugreport",
    "bridge.cli",
    "bridge.commands.progress_bar",
    "bridge.commands.lifecycle",
    "bridge.commands.progress_bar",
    "bridge.checks.compare",
    "bridge.doctor",
    "bridge.monitoring.server",
    "bridge.checks.pixels",
    "bridge.monitoring.logs",
    "bridge.monitoring.metrics",
    "bridge.checks.plan",
    "bridge.monitoring.poke",
    "bridge.checks.report",
    "bridge.retention.sweep",
    "bridge.service",
    "bridge.worker.transfer",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.loops.auto",
)


def can_be_preloaded(environment: Mapping[str, str]) -> bool:
    """Whether a command with this environment is the same as a fork: Python reads no more of it."""
    late = ("PATH", "HOME", "TMPDIR", "TERM", "NO_COLOR", "TEST_FUNCTION", *STARTED_WITH)
    as_ours = all(environment.get(name) == value for name, value in STARTED_WITH.items())
    return as_ours and all(name.startswith("BRIDGE_") or name in late for name in environment)


class Preloaded:
    """A command that was started: what is needed of ``subprocess.Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
                    os.close(self._descriptor)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left_s = 1.0 if until is None else until - time.monotonic()
            if left_s <= 0:
                raise subprocess.TimeoutExpired("bridge", timeout or 0.0)
            poller = select.poll()
            with contextlib.suppress(OSError):
                poller.register(self._descriptor, select.POLLIN)
                poller.poll(min(left_s, 1.0) * 1000)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """A server of this process. Any number of threads may use it."""

    def __init__(self, also: tuple[str, ...]) -> None:
        self._also = also
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self, wanted: Mapping[str, object], descriptors: Sequence[int]) -> int:
        with self._lock:
            if self._socket is None:
                self._start()
            assert self._socket is not None
            _send(self._socket, wanted, descriptors)
            return int(_receive(self._socket)[0]["pid"])

    def _start(self) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.preloaded", str(theirs.fileno()), *self._also],
                env=environment | STARTED_WITH | {"OPENBLAS_NUM_THREADS": "1"},
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )


_server_with = cache(_Server)


def start(
    module: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    stdout: int,
    stderr: int,
    own_session: bool,
    stdin: int | None = None,
    also: tuple[str, ...] = (),
) -> Preloaded:
    """Start ``python -m module arguments``. ``stdin``: None for one from nowhere.

    ``also``: modules beside the bridge that it imports; they have a server of their own.
    """
    wanted = {
        "module": module,
        "arguments": list(arguments),
        "environment": dict(environment),
        "cwd": str(cwd),
        "own_session": own_session,
    }
    descriptors = [stdout, stderr] if stdin is None else [stdout, stderr, stdin]
    return Preloaded(_server_with(also).fork(wanted, descriptors))


# The server's side


def _serve(connection: socket.socket, *, prepare: Callable[[], object]) -> tuple[Any, list[int]]:
    """Fork for each request. Returns in the child, with the request; ends when nobody asks."""
    prepare()
    while True:
        message, descriptors = _receive(connection)
        if message is None:
            os._exit(0)
        ours, theirs = socket.socketpair()
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child == 0:
                ours.close()
                theirs.recv(1)  # until it is an orphan, and its parent the one that asked
                theirs.close()
                connection.close()
                return message, descriptors
            theirs.sendall(b"%d" % child)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        pid = int(ours.recv(20))
        os.waitpid(middle, 0)
        _send(connection, {"pid": pid}, [])
        ours.sendall(b"!")
        ours.close()
        theirs.close()


def _run_as_asked(message: Mapping[str, Any], descriptors: list[int]) -> None:
    """Become the command; its module runs as ``__main__``, and its end is the interpreter's."""
    import runpy

    os.environ.clear()
    os.environ.update(message["environment"])
    if message["own_session"]:
        os.setsid()
    os.chdir(message["cwd"])
    for descriptor, number in zip(descriptors, (1, 2, 0), strict=False):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if os.isatty(1):  # Python has looked at another stdout
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    workers_from_a_server()
    sys.argv = [message["module"], *message["arguments"]]
    runpy._run_module_as_main(message["module"])  # type: ignore[attr-defined]


def workers_from_a_server() -> None:
    """Let ``spawn`` of multiprocessing in this process be a fork of one that has no threads."""
    from multiprocessing import popen_spawn_posix, util

    ours, theirs = (_high(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    parent = os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.fork() == 0:
        ours.close()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(_PR_SET_NAME, WORKER_SERVER)
        if os.getppid() != parent:
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        message, descriptors = _serve(theirs, prepare=lambda: None)
        _become_worker(message, descriptors)
    theirs.close()
    lock = threading.Lock()

    def fork_instead(_path: bytes, command: Sequence[object], descriptors: Sequence[int]) -> int:
        with lock:
            blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
            words = [word for word in command if isinstance(word, str)]
            wanted = {"command": words, "numbers": list(descriptors), "blocked": blocked}
            _send(ours, wanted, descriptors)
            return int(_receive(ours)[0]["pid"])

    class Util:
        """What ``spawn`` uses of ``multiprocessing.util``."""

        spawnv_passfds = staticmethod(fork_instead)
        Finalize = util.Finalize
        close_fds = staticmethod(util.close_fds)  # type: ignore[attr-defined]

    popen_spawn_posix.util = Util  # type: ignore[attr-defined]


def _become_worker(message: Mapping[str, Any], descriptors: list[int]) -> NoReturn:
    """Go on as ``multiprocessing.spawn.spawn_main`` does in a new interpreter."""
    import re
    from multiprocessing import spawn

    _prctl(_PR_SET_NAME, "python")
    high = [_high_number(descriptor) for descriptor in descriptors]
    for descriptor, number in zip(high, message["numbers"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    given = re.search(r"spawn_main\((.*)\)", " ".join(message["command"]))
    assert given is not None
    arguments = {
        name: int(value)
        for name, value in (pair.split("=") for pair in given[1].replace(" ", "").split(","))
    }
    signal.pthread_sigmask(signal.SIG_SETMASK, message["blocked"])
    sys.argv = ["-c", "--multiprocessing-fork"]
    spawn.spawn_main(**arguments)
    raise AssertionError("spawn_main ends the process")


# Both sides


def _send(connection: socket.socket, message: object, descriptors: Sequence[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    connection.sendmsg([json.dumps(message).encode()], [rights] if descriptors else [])


def _receive(connection: socket.socket) -> tuple[Any, list[int]]:
    data, descriptors, _flags, _address = socket.recv_fds(
        connection, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX
    )
    return (json.loads(data) if data else None), descriptors


def _high_number(descriptor: int) -> int:
    import fcntl

    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    os.close(descriptor)
    return high


def _high(end: socket.socket) -> socket.socket:
    return socket.socket(fileno=_high_number(end.detach()))


def _prctl(option: int, value: int | str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    given = ctypes.c_char_p(value.encode()) if isinstance(value, str) else ctypes.c_ulong(value)
    if libc.prctl(option, given, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _import_all() -> None:
    import gc
    import importlib

    for name in (*MODULES, *sys.argv[2:]):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is shared stays shared


if __name__ == "__main__":
    server_end = _high(socket.socket(fileno=int(sys.argv[1])))
    _run_as_asked(*_serve(server_end, prepare=_import_all))
