"""Rows of a result, kept in an unnamed file: there may be any number of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any


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
