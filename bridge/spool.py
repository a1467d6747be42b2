"""Rows of a result, kept in an unnamed file: there may be any number of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from bridge.core.errors import ConfigurationError


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
