"""``python -m tests.simulation --seeds 1000 [--first 0]``: run schedules, on every core."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import islice
from pathlib import Path

from tests.simulation.bench import settings_for, simulate
from tests.simulation.world import Violation, World, traced_world

CHUNK = 100
"""Schedules that a process runs for one answer."""
AHEAD = 4
"""Chunks for each process that wait their turn: a million seeds are not a million objects."""


def main() -> int:
    wanted = _arguments()
    begun_s = told_s = time.monotonic()
    done = 0
    failures: list[str] = []
    for seeds, found in _chunks(wanted):
        done += seeds
        failures += found
        for failure in found:
            print(failure, flush=True)  # noqa: T201
        if time.monotonic() - told_s > 60:
            told_s = time.monotonic()
            print(f"{done} of {wanted.seeds}, {len(failures)} failed", flush=True)  # noqa: T201
    spent_s = time.monotonic() - begun_s
    print(  # noqa: T201
        f"{done} schedules in {spent_s:.1f} s "
        f"({60 * done / spent_s:.0f} a minute), {len(failures)} failed"
    )
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--database",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="what the source has its index in: with PostgreSQL its feed is not in order",
    )
    parser.add_argument("--verbose", action="store_true", help="print every event")
    return parser.parse_args()


def _chunks(wanted: argparse.Namespace) -> Iterator[tuple[int, list[str]]]:
    """Yield, chunk by chunk, how many schedules were run and which of them failed."""
    end = wanted.first + wanted.seeds
    chunks = (
        (first, min(first + CHUNK, end), wanted.verbose, wanted.database)
        for first in range(wanted.first, end, CHUNK)
    )
    with ProcessPoolExecutor(wanted.jobs) as pool:
        running: set[Future[tuple[int, list[str]]]] = {
            pool.submit(_run, *chunk) for chunk in islice(chunks, AHEAD * wanted.jobs)
        }
        while running:
            ended = next(as_completed(running))
            running.remove(ended)
            running |= {pool.submit(_run, *chunk) for chunk in islice(chunks, 1)}
            yield ended.result()


def _run(first: int, end: int, verbose: bool, database: str) -> tuple[int, list[str]]:
    world_of = traced_world if database == "postgresql" else World
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING)
    settings = {policy: settings_for(policy) for policy in ("stop", "snapshot")}
    memory = Path("/dev/shm")  # noqa: S108 (a RAM disk, where there is one)
    failures = []
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        for seed in range(first, end):
            try:
                simulate(seed, Path(directory), settings, world_of)
            except Violation as exc:
                failures.append(f"seed {seed}: {exc}")
    return end - first, failures


if __name__ == "__main__":
    sys.exit(main())
