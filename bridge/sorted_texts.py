"""Many short texts in ascending order without repetitions, in bounded memory.

Texts are gathered, sorted and written to unnamed files in runs; reading merges the runs. It is
the oldest way to compare two lists that do not fit, and needs nothing but TMPDIR.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Self

RUN_TEXTS_MAX = 50_000
"""Texts held in memory: about 5 MB of Orthanc identifiers."""


class SortedTexts:
    """Add texts in any order, then iterate, as often as wanted. A context manager.

    A text must not contain a line break. Raises OSError when TMPDIR is full.
    """

    def __init__(self, *, run_texts_max: int = RUN_TEXTS_MAX) -> None:
        self._run_texts_max = run_texts_max
        self._held: set[str] = set()
        self._runs: list[IO[str]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def add(self, texts: Iterable[str]) -> None:
        """Add some texts; repetitions do not count."""
        for text in texts:
            self._held.add(text)
            if len(self._held) >= self._run_texts_max:
                self._spill()

    def _spill(self) -> None:
        run = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 (closed by the stack)
        self._stack.enter_context(run)
        run.writelines(f"{text}\n" for text in sorted(self._held))
        run.flush()
        self._runs.append(run)
        self._held = set()

    def __iter__(self) -> Iterator[str]:
        """Yield each text once, ascending. One reader at a time: the runs have one position."""
        last = None
        for text in heapq.merge(sorted(self._held), *map(_lines, self._runs)):
            if text != last:
                yield text
            last = text


def _lines(run: IO[str]) -> Iterator[str]:
    run.seek(0)
    return (line.rstrip("\n") for line in run)


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
