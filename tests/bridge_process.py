"""``python -m bridge ...`` as a real process, and waiting for what it says and does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.preloaded import WORKER_SERVER, Preloaded, can_be_preloaded
from tests.preloaded import start as preloaded_start

REPOSITORY = Path(__file__).resolve().parent.parent
WAIT_S = 30.0
POLL_S = 0.02

Line = dict[str, Any]

running: set[BridgeProcess] = set()
"""Those that nobody has ended yet: no test may leave one behind."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def process_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Nothing of our own environment but what a process needs, and the settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {"LANG": "C.UTF-8", "PYTHONPATH": str(REPOSITORY)} | kept | dict(settings)


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Ask again and again until it holds; raises TimeoutError naming ``what``."""
    until = time.monotonic() + timeout_s
    pause = threading.Event()
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        pause.wait(POLL_S)


def run_bridge(
    *arguments: str, settings: Mapping[str, str], cwd: Path, timeout_s: float = 60.0
) -> Finished:
    """Run a command to its end."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = start_process(
            "bridge",
            arguments,
            environment=process_environment(settings),
            cwd=cwd,
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
            own_session=False,
        )
        try:
            code = process.wait(timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read().decode())
    return Finished(code, *said)


def start_process(
    module: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    stdout: int,
    stderr: int,
    own_session: bool,
    fresh: bool = False,
    stdin: int | None = None,
    also: tuple[str, ...] = (),
) -> Preloaded | subprocess.Popen[bytes]:
    """Start ``python -m module``. ``fresh``: as a new interpreter, for a test of its start.

    ``also``: modules that it imports beside the bridge.
    """
    if not fresh and can_be_preloaded(environment):
        return preloaded_start(
            module,
            arguments,
            environment=environment,
            cwd=cwd,
            stdout=stdout,
            stderr=stderr,
            own_session=own_session,
            stdin=stdin,
            also=also,
        )
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=own_session,
    )


class _LogFile:
    """What a process writes to stderr.

    A file, not a pipe: what was written can be read at once, whatever the threads of this
    process do. After ``close`` it tells what was written until then.
    """

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._text = ""
        self._parsed_bytes = 0
        self._lines: list[Line] = []
        self._lock = threading.Lock()

    def text(self) -> str:
        with self._lock:
            return self._text if self.file.closed else self._from(0).decode(errors="replace")

    def lines(self) -> list[Line]:
        with self._lock:
            if not self.file.closed:
                new = self._from(self._parsed_bytes)
                new = new[: new.rfind(b"\n") + 1]
                self._parsed_bytes += len(new)
                texts = new.decode(errors="replace").split("\n")
                self._lines += [line for text in texts if (line := _parsed(text)) is not None]
            return list(self._lines)

    def close(self) -> None:
        self.lines()
        self._text = self.text()
        self.file.close()

    def _from(self, offset_bytes: int) -> bytes:
        size_bytes = os.fstat(self.file.fileno()).st_size
        return os.pread(self.file.fileno(), size_bytes - offset_bytes, offset_bytes)


class BridgeProcess:
    """A command that goes on until it is told to end. Logs in JSON, in a group of its own.

    A context manager: whatever is left of the process at the end is killed.
    """

    def __init__(
        self,
        *arguments: str,
        settings: Mapping[str, str],
        cwd: Path,
        module: str = "bridge",
        fresh: bool = False,
    ) -> None:
        environment = process_environment(
            {"BRIDGE_LOG_FORMAT": "json", "BRIDGE_HEALTH_PORT": "0"} | dict(settings)
        )
        self._log = _LogFile()
        said, write = os.pipe()
        self._stdout = os.fdopen(said)
        try:
            self._process = start_process(
                module,
                arguments,
                environment=environment,
                cwd=cwd,
                stdout=write,
                stderr=self._log.file.fileno(),
                own_session=True,
                fresh=fresh,
            )
        finally:
            os.close(write)
        self._out: list[str] = []
        self._reader = threading.Thread(target=self._read_stdout, daemon=True)
        self._reader.start()
        running.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        running.discard(self)
        self.kill()
        self._log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def stderr(self) -> str:
        return self._log.text()

    def lines(self) -> list[Line]:
        """The log lines so far."""
        return self._log.lines()

    def logged(self, event: str, **fields: object) -> list[Line]:
        """The log lines so far of one event whose fields have these values."""
        return [
            line
            for line in self.lines()
            if line["event"] == event and all(line.get(k) == v for k, v in fields.items())
        ]

    def wait_logged(
        self, event: str, count: int = 1, timeout_s: float = WAIT_S, **fields: object
    ) -> list[Line]:
        """Wait for ``count`` such lines; raises TimeoutError with what was said instead."""

        def enough() -> bool:
            return len(self.logged(event, **fields)) >= count or not self._alive()

        with contextlib.suppress(TimeoutError):  # what was said instead is told below
            wait_until(enough, event, timeout_s)
        found = self.logged(event, **fields)
        if len(found) < count:
            raise TimeoutError(f"{len(found)} of {count} lines {event} {fields}:\n{self.stderr}")
        return found

    @property
    def url(self) -> str:
        """Where its monitoring server listens."""
        return str(self.wait_logged("monitoring")[0]["url"])

    def get(self, path: str) -> tuple[int, Any]:
        """Ask its monitoring server; the status and the JSON (or text) of the answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}{path}", timeout=WAIT_S) as answer:
                status, body = answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            status, body = exc.code, exc.read().decode()
        return status, json.loads(body) if body[:1] in ("{", "[") else body

    def wait_health(
        self, holds: Callable[[Line], bool], what: str, timeout_s: float = WAIT_S
    ) -> Line:
        """Wait until /health says what is wanted; returns what it says."""
        said: Line = {}

        def asked() -> bool:
            said.update(self.get("/health")[1])
            return holds(said)

        wait_until(asked, what, timeout_s)
        return said

    def wait_reason(self, code: str, timeout_s: float = WAIT_S) -> Line:
        """Wait until /health gives this reason among others; returns what /health says."""
        return self.wait_health(lambda said: code in reasons_in(said), f"reason {code}", timeout_s)

    def wait_unready(self, holds: Callable[[list[str]], bool], what: str) -> None:
        """Wait until /readyz answers 503 with reasons that are what is wanted."""

        def asked() -> bool:
            status, said = self.get("/readyz")
            return status == 503 and holds(reasons_in(said))

        wait_until(asked, what)

    def workers(self) -> list[int]:
        """Those of its processes that do tasks."""
        return workers_of(self.pid)

    def templates(self) -> list[int]:
        """Those of its processes that workers are forked from."""
        return templates_of(self.pid)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def send_to_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait for its end; the exit code (negative: ended by that signal)."""
        code = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def finish(self, timeout_s: float = 60.0) -> Finished:
        """Wait for its end; what it said."""
        code = self.wait(timeout_s)
        return Finished(code, "".join(self._out), self.stderr)

    def kill(self) -> None:
        """SIGKILL to the process alone: its workers must follow by themselves."""
        if self.is_running:
            self._process.kill()
        self.wait()

    def _alive(self) -> bool:
        return self.is_running or self._reader.is_alive()

    def _read_stdout(self) -> None:
        with self._stdout:
            self._out += self._stdout


def reasons_in(said: Line) -> list[str]:
    """The codes of the reasons in an answer of /health or /readyz."""
    return [reason["code"] for reason in said["reasons"]]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def children_of(pid: int) -> list[int]:
    """The processes that a process has started. Its threads may end while they are listed."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in listing.read_text().split()]
    return [child for child in found if _name(child) != WORKER_SERVER]


def templates_of(pid: int) -> list[int]:
    """The processes that the workers of a process are forked from, one for each pool."""
    return [child for child in children_of(pid) if is_alive(child) and not is_tracker(child)]


def workers_of(pid: int) -> list[int]:
    """The workers of a process, of all its pools."""
    forked = [worker for template in templates_of(pid) for worker in children_of(template)]
    return [worker for worker in forked if is_alive(worker)]


def is_tracker(pid: int) -> bool:
    """Whether it is the helper of multiprocessing that only tracks resources."""
    return b"resource_tracker" in _command_line(pid)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _parsed(text: str) -> Line | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None
