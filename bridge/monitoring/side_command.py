"""Runs a command of the bridge beside it, for whoever has asked for it over HTTP.

A replay that is ordered on the page is the same program as one that is typed: a process of its own
with the same settings, which gives way to the bridge, logs, and writes its own audit lines. One at
a time. Its lines go to our log, its summary is kept.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from bridge.errors import (
    EXIT_BUG,
    EXIT_CONFIGURATION,
    EXIT_DONE,
    EXIT_FEED,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    EXIT_SOURCE,
    EXIT_STATE,
    EXIT_TARGET,
)
from bridge.log import relay
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX, cleaned, visible

PROGRAM = (sys.executable, "-P", "-m", "bridge")
"""-P: a directory named bridge where the service was started must not be taken for the bridge."""
LINE_BYTES_MAX = 64 * 1024
SUMMARY_BYTES_MAX = 64 * 1024
COMPLAINT = b"orthanc-bridge: "
"""How the last line of a command that fails begins."""
ENDS = {
    EXIT_DONE: "done",
    EXIT_BUG: "failed: a bug in the bridge, see the log",
    EXIT_CONFIGURATION: "refused",
    EXIT_INCOMPLETE: "done; but instances are parked, or the feed has gaps",
    EXIT_SOURCE: "ended early: the source cannot be used",
    EXIT_TARGET: "ended early: the target cannot be used",
    EXIT_STATE: "failed: the state file cannot be used",
    EXIT_FEED: "refused: the source's feed was reset or replaced",
    EXIT_INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True)
class CommandState:
    """A command that runs, or has ended. Times: epoch seconds.

    ``text``: what it does, for people. ``result`` and ``ended_at``: None while it runs.
    """

    text: str
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    result: str | None = None
    message: str = ""
    summary: dict[str, Any] | None = None


class SideCommand:
    """At most one command at a time. ``program``: what it is begun with."""

    def __init__(
        self,
        program: Sequence[str] = PROGRAM,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._program = tuple(program)
        self._now_s = now_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._told: subprocess.Popen[bytes] | None = None
        """The one that was asked to drain."""
        self.state: CommandState | None = None
        """The one that runs or, when none does, the last one that did."""

    @property
    def runs(self) -> bool:
        """Whether one runs now."""
        return self.state is not None and self.state.ended_at is None

    def start(
        self, arguments: Sequence[str], text: str, ended: Callable[[CommandState], None]
    ) -> bool:
        """Start a command; False where one runs, or none may be started any more.

        ``ended`` is called in a thread of its own. Raises OSError.
        """
        with self._lock:
            if self.runs or self._stopped:
                return False
            output = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes it)
            try:
                self._process = subprocess.Popen(  # noqa: S603 (what it may say was checked)
                    [*self._program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.PIPE,
                    # Ctrl-C goes to us alone: we pass on one SIGTERM, and it drains.
                    start_new_session=True,
                )
            except OSError:
                output.close()
                raise
            self.state = CommandState(text, self._now_s())
            self._thread = threading.Thread(
                target=self._follow,
                args=(self._process, output, self.state, ended),
                name="side-command",
                daemon=True,
            )
            self._thread.start()
            return True

    def drain(self) -> None:
        """Let a command that runs finish its instances, and start no other.

        Safe in a signal handler: no lock. It is told once, since a second SIGTERM ends it at once.
        """
        self._stopped = True
        process = self._process
        if process is not None and process.returncode is None and process is not self._told:
            self._told = process
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def stop(self, within_s: float) -> None:
        """Let a command that runs drain and end, and start no other. Idempotent."""
        with self._lock:
            self.drain()
            process, thread = self._process, self._thread
        if process is None or thread is None:
            return
        thread.join(within_s)
        if process.poll() is None:
            process.kill()
            thread.join(within_s)

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        output: IO[bytes],
        begun: CommandState,
        ended: Callable[[CommandState], None],
    ) -> None:
        said = _pass_on(process.stderr) if process.stderr is not None else b""
        code = process.wait()
        with output:
            output.seek(0)
            written = output.read(SUMMARY_BYTES_MAX)
        known = code if code >= 0 else 128 - code
        self.state = CommandState(
            text=begun.text,
            started_at=begun.started_at,
            ended_at=self._now_s(),
            exit_code=known,
            result=ENDS.get(known, f"ended by signal {-code}" if code < 0 else "failed"),
            message=_shown(said) if code else "",
            summary=_object(written),
        )
        ended(self.state)


def _pass_on(stream: IO[bytes]) -> bytes:
    """Write a command's lines to our log as they come; returns its last complaint."""
    said = b""
    with stream:
        while line := stream.readline(LINE_BYTES_MAX):
            complains = line.startswith(COMPLAINT)
            if complains:
                said = line
            level = logging.ERROR if complains else logging.INFO
            relay(line.decode("utf-8", "replace").rstrip("\r\n"), level)
    return said


def _shown(line: bytes) -> str:
    text = line.removeprefix(COMPLAINT).decode("utf-8", "replace").strip()
    return visible(cleaned(text, MESSAGE_CHARACTERS_MAX))


def _object(written: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(written)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
