"""A command at a terminal of a given size, and what a person sees there.

The terminal is a pseudo-terminal; its screen understands what rich writes: carriage return, line
feed, cursor up, erase line, colours. Anything else it is sent is an error of the test.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bridge_process import process_environment, start_process, wait_until

_PIECE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """Lines of a terminal that is ``columns`` wide. Text that is too long goes on below."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.wrapped = 0
        """How often a text did not fit."""
        self.colours = 0
        self.hides_cursor = False
        self._row = self._column = 0
        self._rest = ""

    def feed(self, text: str) -> None:
        """Show text. A sequence may come in two parts."""
        text = self._rest + text
        at = 0
        while at < len(text):
            found = _PIECE.match(text, at)
            if found is None:
                break
            self._do(found)
            at = found.end()
        self._rest = text[at:]
        assert len(self._rest) < 20, f"not understood: {self._rest!r}"

    def _do(self, found: re.Match[str]) -> None:
        numbers, command, control, plain = found.groups()
        if plain:
            self._write(plain)
        elif control == "\r":
            self._column = 0
        elif control == "\n":
            self._down()
        elif command == "A":
            self._row = max(0, self._row - int(numbers or 1))
        elif command == "K":
            self.lines[self._row] = ""
        elif command == "m":
            self.colours += numbers not in ("", "0")
        elif command in "hl":
            self.hides_cursor |= (numbers, command) == ("?25", "l")
        else:
            raise AssertionError(f"not understood: {found[0]!r}")

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def _write(self, text: str) -> None:
        for character in text:
            if self._column == self.columns:
                self.wrapped += 1
                self._down()
                self._column = 0
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1

    @property
    def text(self) -> str:
        """All that is to be seen."""
        return "\n".join(line.rstrip() for line in self.lines)


class AtTerminal:
    """``orthanc-bridge ...`` at a terminal. A context manager: it ends the process.

    ``stdout``: to the terminal, or (False) into a pipe.
    """

    def __init__(
        self,
        *arguments: str,
        columns: int,
        settings: Mapping[str, str],
        cwd: Path,
        stdout: bool = True,
    ) -> None:
        self.screen = Screen(columns)
        self.seen: list[str] = []
        """Every state of the screen that was seen after something was written."""
        self._ours, theirs = pty.openpty()
        self.resize(columns)
        self._out: int | None = None
        pipe = theirs
        if not stdout:
            self._out, pipe = os.pipe()
        self._process = start_process(
            "tests.in_the_foreground",
            arguments,
            environment={"TERM": "xterm-256color"} | process_environment(settings),
            cwd=cwd,
            stdin=theirs,
            stdout=pipe,
            stderr=theirs,
            own_session=True,
        )
        for end in {theirs, pipe}:
            os.close(end)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(10)
        os.close(self._ours)

    def _read(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")().decode  # a character may come in two parts
        while True:
            try:
                read = os.read(self._ours, 65_536)
            except OSError:  # the other end is closed
                return
            if not read:
                return
            self.screen.feed(decode(read))
            self.seen.append(self.screen.text)

    def resize(self, columns: int) -> None:
        """Change the width; the process learns it when it asks."""
        self.screen.columns = columns
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)

    def wait_for(self, text: str) -> None:
        """Wait until it stands on the screen, or has stood there."""

        def stands() -> bool:
            return any(text in seen for seen in list(self.seen))

        wait_until(stands, f"{text!r} on the screen", 60.0)

    def send_signal(self, number: int) -> None:
        """Press Ctrl-C, for example."""
        self._process.send_signal(signal.Signals(number))

    def wait(self) -> tuple[int, str]:
        """Wait for the end: exit code, and what came out of the pipe."""
        out = ""
        if self._out is not None:
            with os.fdopen(self._out) as pipe:
                out = pipe.read()
        code = self._process.wait(60)
        self._reader.join(10)
        return code, out
