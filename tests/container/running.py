"""Runs an image as ``docker run --read-only --cap-drop ALL --security-opt no-new-privileges``.

Its own mount, process, IPC and host-name namespaces; the network is the machine's, as with
``--network host``. The entry point is process 1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.bridge_process import wait_until
from tests.container.image import Image
from tests.container.machine import entering

STATE = "/var/lib/orthanc-bridge"
WAIT_S = 60.0

_READ_ONLY = """
mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev tmpfs "$root/tmp"
mount --bind "{state}" "$root{inside}"
mount -o remount,bind,ro "$root"
"""


class Container:
    """A running image. A context manager: whatever is left of it at the end is killed."""

    def __init__(
        self, image: Image, state: Path, settings: Mapping[str, str], *command: str
    ) -> None:
        state.mkdir(exist_ok=True)
        user, _, group = image.told.user.partition(":")
        os.chown(state, int(user), int(group))
        self._image = image
        self._environment = image.told.environment | dict(settings)
        mounts = _READ_ONLY.format(state=state, inside=STATE)
        self._process = subprocess.Popen(
            [
                *entering(image.root, mounts),
                *self._inside([*image.told.entrypoint, *(command or image.told.command)]),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._said
        ]
        for reader in self._readers:
            reader.start()
        wait_until(lambda: bool(self._children()), "process 1 is there")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()  # with it goes process 1, and with that all the others
        self._process.wait()
        for reader in self._readers:
            reader.join()

    @property
    def pid(self) -> int:
        """Process 1, by the number that it has outside."""
        return self._children()[0]

    @property
    def stdout(self) -> str:
        return "".join(self._said["stdout"])

    @property
    def stderr(self) -> str:
        return "".join(self._said["stderr"])

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines so far of one event."""
        lines = [json.loads(line) for line in self._said["stderr"] if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def wait_logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for so many such lines; the last of them."""

        def enough() -> bool:
            if self._process.poll() is not None and len(self.logged(event)) < count:
                raise AssertionError(f"it ended with {self._process.returncode}:\n{self.stderr}")
            return len(self.logged(event)) >= count

        wait_until(enough, f"{event} is logged", WAIT_S)
        return self.logged(event)[count - 1]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to process 1, as ``docker stop`` does."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait for the end; the exit code of process 1."""
        code = self._process.wait(timeout_s)
        for reader in self._readers:
            reader.join()
        return code

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside process 1, as ``docker exec`` does."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--ipc", "--uts"]
        root = f"--root=/proc/{self.pid}/root"
        return subprocess.run(
            [*enter, root, *self._inside(list(command))],
            check=False,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )

    def processes(self) -> dict[int, tuple[str, str, int]]:
        """Every process in it by its number there: state, name, and parent's number."""
        found = {}
        for stat in Path(f"/proc/{self.pid}/root/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            name, _, rest = text.partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            found[int(stat.parent.name)] = (state, name, int(parent))
        return found

    def outside(self, number: int) -> int:
        """Return the number outside of a process inside."""
        ours = _namespace(Path(f"/proc/{self.pid}"))
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            numbers = next(line for line in text.splitlines() if line.startswith("NSpid")).split()
            if int(numbers[-1]) == number and _namespace(status.parent) == ours:
                return int(numbers[1])
        raise ProcessLookupError(number)

    def status(self, field: str) -> str:
        """Return a field of process 1's /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line for line in lines if line.startswith(f"{field}:")).split(":", 1)[1].strip()

    def catches(self, number: signal.Signals) -> bool:
        """Whether process 1 has a handler for a signal."""
        return bool(int(self.status("SigCgt"), 16) >> (number - 1) & 1)

    def mounts(self) -> str:
        """Return what process 1 sees mounted, as in proc(5)."""
        return Path(f"/proc/{self.pid}/mountinfo").read_text()

    def _children(self) -> list[int]:
        pid = self._process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def _inside(self, command: list[str]) -> list[str]:
        user, _, group = self._image.told.user.partition(":")
        who = ["--reuid", user, "--regid", group, "--clear-groups"]
        without = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        return [
            *("setpriv", *who, *without),
            *("env", "-i", "-C", self._image.told.workdir, *variables, *command),
        ]

    def _read(self, name: str) -> None:
        stream = getattr(self._process, name)
        for line in stream:
            self._said[name].append(line)
        stream.close()


def _namespace(process: Path) -> Path | None:
    try:
        return (process / "ns" / "pid").readlink()
    except OSError:
        return None  # it has ended
