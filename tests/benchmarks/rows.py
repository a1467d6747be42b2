"""``python -m tests.benchmarks.rows``: sorted texts and spooled rows, in files and in SQLite.

Each way runs in a process of its own, in turn, several rounds: CPU and wall seconds, and the peak
of memory above what the process had before. The first is Orthanc identifiers by pages of a
thousand, sorted and read once; the second the findings of ``check``, written and read twice.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from statistics import median
from typing import IO, Any

from bridge.checks.disk_lists import SortedTexts, Spool
from tests.bridge_process import REPOSITORY, process_environment

PAGE = 1000
LIMIT_S = 600.0
RUN_TEXTS_MAX = 50_000


class _Indexed:
    """An unnamed database that keeps its texts in order."""

    table = "CREATE TABLE texts (text TEXT PRIMARY KEY) WITHOUT ROWID"
    insert = "INSERT OR IGNORE INTO texts VALUES (?)"
    select = "SELECT text FROM texts ORDER BY text"

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute(self.table)
        self._db.execute("BEGIN")

    def add(self, texts: Iterable[str]) -> None:
        self._db.executemany(self.insert, ((text,) for text in texts))

    def __iter__(self) -> Iterator[str]:
        return (text for (text,) in self._db.execute(self.select))


class _Runs:
    """Sorted runs in files without a name, merged when they are read."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._runs: list[IO[str]] = []
        self._stack = ExitStack()

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._held.add(text)
            if len(self._held) >= RUN_TEXTS_MAX:
                self._spill()

    def _spill(self) -> None:
        run = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 (closed by the stack)
        self._stack.enter_context(run)
        run.writelines(f"{text}\n" for text in sorted(self._held))
        run.flush()
        self._runs.append(run)
        self._held = set()

    def __iter__(self) -> Iterator[str]:
        last = None
        for text in heapq.merge(sorted(self._held), *map(_lines, self._runs)):
            if text != last:
                yield text
            last = text


def _lines(run: IO[str]) -> Iterator[str]:
    run.seek(0)
    return (line.rstrip("\n") for line in run)


class _Rows:
    """An unnamed database of rows as JSON."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE rows (row TEXT)")
        self._db.execute("BEGIN")

    def add(self, row: Mapping[str, object]) -> None:
        self._db.execute("INSERT INTO rows VALUES (?)", (json.dumps(row, default=str),))

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        return (
            json.loads(row) for (row,) in self._db.execute("SELECT row FROM rows ORDER BY rowid")
        )


TEXTS: dict[str, Any] = {
    "texts, runs merged": _Runs,
    "texts, SQLite, an index": _Indexed,
    "texts, SQLite, sorted when read (ours)": SortedTexts,
}
ROWS: dict[str, Any] = {"rows, ours": Spool, "rows, SQLite": _Rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.rows", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=[*TEXTS, *ROWS], help="run this one here, once")
    arguments = parser.parse_args()
    if arguments.way:
        sys.stdout.write(json.dumps(_measured(arguments.way, arguments.count)))
        return
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in [*TEXTS, *ROWS]}
    for _ in range(arguments.rounds):
        for name, runs in seen.items():
            runs.append(_in_a_process(name, arguments.count))
    sys.stdout.write(f"{arguments.count} rows, {arguments.rounds} rounds, medians\n\n")
    sys.stdout.write(
        "| way | CPU, s | of the first | wall, s | memory, MB |\n|---|---:|---:|---:|---:|\n"
    )
    for name, runs in seen.items():
        base = seen["texts, runs merged" if name in TEXTS else "rows, ours"]
        ratio = median(run[0] / own[0] for run, own in zip(runs, base, strict=True))
        cpu_s, wall_s, megabytes = (median(run[i] for run in runs) for i in range(3))
        sys.stdout.write(
            f"| {name} | {cpu_s:.2f} | {ratio:.2f} | {wall_s:.1f} | {megabytes:.0f} |\n"
        )


def _in_a_process(name: str, count: int) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "tests.benchmarks.rows", "--way", name, "--count", str(count)]
    done = subprocess.run(
        command,
        env=process_environment({}),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=LIMIT_S,
        check=True,
    )
    cpu_s, wall_s, megabytes = json.loads(done.stdout)
    return cpu_s, wall_s, megabytes


def _measured(name: str, count: int) -> tuple[float, float, float]:
    spent_cpu_s = spent_s = 0.0
    if name in TEXTS:  # to make the identifiers is not what is measured
        cpu_s, at_s = time.process_time(), time.monotonic()
        for _ in _pages(count):
            pass
        spent_cpu_s, spent_s = time.process_time() - cpu_s, time.monotonic() - at_s
    before = _peak_megabytes()
    cpu_s, at_s = time.process_time(), time.monotonic()
    if name in TEXTS:
        texts = TEXTS[name]()
        for page in _pages(count):
            texts.add(page)
        last, read = "", 0
        for read, text in enumerate(texts, 1):  # noqa: B007 (how many they were)
            if text <= last:
                raise RuntimeError("not in order")
            last = text
    else:
        rows = ROWS[name]()
        for number in range(count):
            rows.add({"instance": "0" * 44, "state": "missing", "detail": str(number)})
        read = sum(1 for _ in rows)
        read = min(read, sum(1 for _ in rows))
    if read != count:
        raise RuntimeError(f"{read} of {count} came back")
    return (
        time.process_time() - cpu_s - spent_cpu_s,
        time.monotonic() - at_s - spent_s,
        _peak_megabytes() - before,
    )


def _pages(count: int) -> Iterator[list[str]]:
    for start in range(0, count, PAGE):
        yield [_identifier(number) for number in range(start, min(count, start + PAGE))]


def _identifier(number: int) -> str:
    digest = hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
