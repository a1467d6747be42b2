"""Texts and results of any number in bounded memory: what is too much is in files.

They are kept in an SQLite table without a name, which is in memory and, what does not fit there,
in TMPDIR; it is sorted when it is read. It holds no state: the state file is the ledger's alone.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Self

from bridge.errors import ConfigurationError

ASKED_MAX = 500
"""Texts in one question to SQLite, which takes 999 or more."""


class _TextTable:
    """A table ``texts`` in a file that SQLite makes, and removes when it is closed."""

    def __init__(self, column: str, options: str = "", *, one_thread: bool) -> None:
        with _telling():
            self._db = sqlite3.connect("", isolation_level=None, check_same_thread=one_thread)
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute(f"CREATE TABLE texts ({column}) {options}")
            self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._db.close()


class SortedTexts(_TextTable):
    """Add texts in any order, then iterate, as often as wanted. A context manager.

    To be used by one thread. Raises OSError when TMPDIR is full.
    """

    def __init__(self) -> None:
        super().__init__("text TEXT", one_thread=True)

    def add(self, texts: Iterable[str]) -> None:
        """Add some texts; repetitions do not count."""
        with _telling():
            self._db.executemany("INSERT INTO texts VALUES (?)", ((text,) for text in texts))

    def __iter__(self) -> Iterator[str]:
        """Yield each text once, ascending."""
        with _telling():
            for (text,) in self._db.execute("SELECT DISTINCT text FROM texts ORDER BY text"):
                yield text


class KnownTexts(_TextTable):
    """Add texts, and ask which of some were added. A context manager.

    For any thread, one at a time. Raises OSError when TMPDIR is full, or when it is closed.
    """

    def __init__(self) -> None:
        super().__init__("text TEXT PRIMARY KEY", "WITHOUT ROWID", one_thread=False)

    def add(self, texts: Iterable[str]) -> None:
        """Add some texts; repetitions do not count."""
        with _telling():
            self._db.executemany("INSERT OR IGNORE INTO texts VALUES (?)", ((t,) for t in texts))

    def among(self, texts: Sequence[str]) -> set[str]:
        """Return which of these were added."""
        found: set[str] = set()
        for at in range(0, len(texts), ASKED_MAX):
            asked = texts[at : at + ASKED_MAX]
            wanted = ", ".join("?" * len(asked))
            with _telling():
                found.update(
                    text
                    for (text,) in self._db.execute(
                        f"SELECT text FROM texts WHERE text IN ({wanted})",  # noqa: S608 (no value)
                        asked,
                    )
                )
        return found


@contextmanager
def _telling() -> Iterator[None]:
    """SQLite asks for nothing but room for its table, as long as it is open."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        raise OSError(errno.ENOSPC, str(exc)) from exc
    except sqlite3.ProgrammingError as exc:
        raise OSError(errno.EBADF, str(exc)) from exc


def joined(left: Iterable[str], right: Iterable[str]) -> Iterator[tuple[str, bool, bool]]:
    """Yield each text of two ascending streams, and which of the two have it."""
    rights = iter(right)
    other = next(rights, None)
    for text in left:
        while other is not None and other < text:
            yield other, False, True
            other = next(rights, None)
        if other == text:
            yield text, True, True
            other = next(rights, None)
        else:
            yield text, True, False
    while other is not None:
        yield other, False, True
        other = next(rights, None)


def with_recorded(
    pairs: Iterable[tuple[str, bool, bool]], recorded: Iterable[str]
) -> Iterator[tuple[str, bool, bool]]:
    """Yield what ``joined`` yields, and in its place what is only ``recorded``, ascending too."""
    known = iter(recorded)
    other = next(known, None)
    for pair in pairs:
        while other is not None and other < pair[0]:
            yield other, False, False
            other = next(known, None)
        if other == pair[0]:
            other = next(known, None)
        yield pair
    while other is not None:
        yield other, False, False
        other = next(known, None)


# Rows of a result, kept in an unnamed file: there may be any number of them.


@contextmanager
def spooling() -> Iterator[None]:
    """Explain a full TMPDIR. Raises ConfigurationError."""
    try:
        yield
    except BrokenPipeError:
        raise  # it is about standard output, not about the file
    except OSError as exc:
        raise ConfigurationError(
            f"The result cannot be kept in TMPDIR: {exc.strerror}.",
            advice="Free space there, or set TMPDIR to a directory that has some.",
        ) from exc


class Spool:
    """Add rows, then read them as often as wanted. Raises OSError when TMPDIR is full.

    One reader at a time, and none while adding.
    """

    def __init__(self) -> None:
        self._file: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def add(self, row: Mapping[str, object]) -> None:
        """Add a row of JSON-ready values."""
        self._file.write(json.dumps(row, default=str) + "\n")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in the order they were added."""
        self._file.flush()
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)
        self._file.seek(0, 2)
