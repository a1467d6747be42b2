"""What this process writes to stderr and stdout: the log and messages, and results.

stderr must never stop the work. A disk that is full, a reader that is gone or does not read: none
of them may raise in whoever writes, or in whoever flushes (multiprocessing does before it starts a
process, Python does at the end and would exit with 120), or make them wait. ``LogStream`` stands in
the place of ``sys.stderr`` for that. A command writes through it at once and loses what cannot be
written. The service has a thread that writes: what it cannot write waits in memory, up to a
bound; what comes beyond is counted and told of, when it can be, by a line in the very place.

The standard library has QueueHandler and QueueListener for this. They carry log records only, not
what Python, rich and typer write to stderr; a full queue is an error that is written to stderr; and
to stop the listener waits without a bound for what it cannot write.

stdout has results, and those must not be lost silently: see ``told_if_lost``.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from bridge.errors import EXIT_CONFIGURATION, EXIT_DONE, ConfigurationError
from bridge.model import LogState

LINES_MAX = 10_000
BYTES_MAX = 8 * 1024 * 1024
"""So much waits in memory for a log that cannot be written."""
RETRY_S = 0.5
"""So often it is tried again to write to what refused."""
END_WITHIN_S = 2.0
"""So long the end of the process waits for lines that are still to be written, at most."""
STDIN, STDOUT, STDERR = 0, 1, 2


def _lost_in_words(lines: int) -> str:
    return f"orthanc-bridge: lines of the log that were lost here: {lines}\n"


class LogStream(io.TextIOBase):
    """A text stream that never raises and, with its thread, never waits. For any thread."""

    def __init__(
        self,
        file: int,
        *,
        encoding: str = "utf-8",
        lines_max: int = LINES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._file = file
        self._encoding = encoding
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        # Reentrant: a signal handler, or a finaliser, may write while this very thread does.
        self._turn = threading.Condition()
        self._partial = ""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._threaded = False
        self._tried_since_s: float | None = None
        self._problem = ""
        self._lost = self._untold = 0
        self.lost_in_words: Callable[[int], str] = _lost_in_words
        """Makes the line that says how many were lost in its place."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream whose place this one takes."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """As Python's own stderr."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Return the number of the file."""
        return self._file

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return os.isatty(self._file)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Take text; whole lines go on at once. Raises TypeError for what is no text."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        with self._turn:
            lines, newline, self._partial = (self._partial + text).rpartition("\n")
            if newline:
                self._pass_on(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Pass on a line that has not ended; never waits for it to be written."""
        with self._turn:
            text, self._partial = self._partial, ""
            if text:
                self._pass_on(text)

    def begin_thread(self) -> None:
        """From now on a thread writes, and nobody waits for it. Idempotent."""
        with self._turn:
            if not self._threaded:
                self._threaded = True
                # A daemon: it may be in a write that never returns when the process ends.
                threading.Thread(target=self._write_on, name="log-writer", daemon=True).start()

    def end(self, within_s: float = END_WITHIN_S) -> None:
        """Wait until everything is written, at most so long."""
        self.flush()
        with self._turn:
            self._tell_of_lost()
            self._turn.wait_for(lambda: not self._waiting, within_s)

    def state(self) -> LogState:
        """Tell whether the log can be written."""
        with self._turn:
            since_s = self._tried_since_s
            return LogState(
                stuck_s=0.0 if since_s is None else time.monotonic() - since_s,
                problem=self._problem,
                waiting=sum(_lines_of(data) for data in self._waiting),
                lost=self._lost,
                losing=self._threaded and self._untold > 0,
            )

    def _pass_on(self, text: str) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        if not self._threaded:
            self._write_now(data)
            return
        if self._is_half_empty():
            self._tell_of_lost()
        full = len(self._waiting) >= self._lines_max
        # One gap, not many: what comes is lost until half of what waits is written.
        if self._untold or full or self._waiting_bytes + len(data) > self._bytes_max:
            self._lose(data)
        else:
            self._put(data)

    def _is_half_empty(self) -> bool:
        lines, size = len(self._waiting), self._waiting_bytes
        return lines <= self._lines_max // 2 and size <= self._bytes_max // 2

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._turn.notify_all()

    def _lose(self, data: bytes) -> None:
        self._lost += _lines_of(data)
        self._untold += _lines_of(data)

    def _tell_of_lost(self) -> None:
        if self._threaded and self._untold:
            said = self.lost_in_words(self._untold)
            self._untold = 0
            self._put(said.encode(self._encoding, "backslashreplace"))

    def _write_now(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._write_some(data) :]
        except OSError:
            self._lose(data)

    def _write_on(self) -> None:
        """Write what waits, for ever: the thread."""
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._waiting)
                data = self._waiting[0]
                if self._tried_since_s is None:
                    self._tried_since_s = time.monotonic()
            try:
                written = self._write_some(data)
            except OSError as exc:
                self._problem = exc.strerror or type(exc).__name__
                time.sleep(RETRY_S)
                continue
            with self._turn:
                self._waiting_bytes -= written
                if written < len(data):
                    self._waiting[0] = data[written:]
                    continue
                self._waiting.popleft()
                self._tried_since_s, self._problem = None, ""
                if self._is_half_empty():
                    self._tell_of_lost()
                self._turn.notify_all()

    def _write_some(self, data: bytes) -> int:
        """Write and return how many bytes were taken. Raises OSError."""
        try:
            return os.write(self._file, data)
        except BlockingIOError:  # whoever shares the terminal or the pipe has made it so
            poll = select.poll()
            poll.register(self._file, select.POLLOUT)
            poll.poll(RETRY_S * 1000)
            return 0


def _lines_of(data: bytes) -> int:
    return data.count(b"\n") or 1


_taken: LogStream | None = None
"""What stands in the place of stderr; None where this is not the main program."""


def take_stderr_over() -> None:
    """Let all that this process writes to stderr go through a LogStream. For the main program.

    A stream that was closed by whoever started us is opened: otherwise the next file, which may be
    the state file, would get its number, and what is meant for stderr would be written into it.
    """
    global _taken  # noqa: PLW0603 (a process has one stderr)
    for number, flags in ((STDIN, os.O_RDONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # it gets the lowest number that is free
    if sys.stdout is None:  # that cannot be written to: whoever prints a result learns it
        sys.stdout = os.fdopen(STDOUT, "w", encoding="utf-8", closefd=False)
    encoding = "utf-8" if sys.stderr is None else sys.stderr.encoding
    _taken = LogStream(STDERR, encoding=encoding)
    sys.stderr = cast(TextIO, _taken)


def begin_log_thread() -> None:
    """Let nobody wait for the log from now on: a service begins."""
    if _taken is not None:
        _taken.begin_thread()


def tell_of_lost_lines(in_words: Callable[[int], str]) -> None:
    """Set how a line says that so many lines were lost in its place."""
    if _taken is not None:
        _taken.lost_in_words = in_words


def log_state() -> LogState:
    """Tell whether the log of this process can be written."""
    return LogState() if _taken is None else _taken.state()


@contextmanager
def told_if_lost() -> Iterator[None]:
    """Write a result to stdout within. Raises ConfigurationError where it cannot be written.

    A reader that is gone (``| head``) is no error of that kind: typer ends the command quietly.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise ConfigurationError(f"{RESULT_LOST}: {exc.strerror}.", advice=INCOMPLETE) from exc


def end_streams(code: int) -> int:
    """Write what is left before the process ends; returns its exit code.

    What cannot be written is given up: Python would try it again and exit with 120.
    """
    try:
        sys.stdout.flush()
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        if code == EXIT_DONE:
            sys.stderr.write(f"orthanc-bridge: {RESULT_LOST}: {exc.strerror}. {INCOMPLETE}\n")
            code = EXIT_CONFIGURATION
    if _taken is not None:
        _taken.end()
    return code


RESULT_LOST = "The result cannot be written to stdout"
INCOMPLETE = "What is there is incomplete."
