"""Many schedules of a simulation, by hand: in processes, each failure printed with its seed."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.simulation.world import Violation

CHUNK = 200
"""Schedules that one process runs before it tells what came of them."""

Simulate = Callable[[int, Path], int]
"""Runs the schedule of a seed and counts what it is about. Raises Violation."""


def run_chunk(
    simulate: Simulate, name: Callable[[int], str], first: int, count: int
) -> tuple[int, int, list[str]]:
    """Run schedules: how many, what was counted, and the failures by ``name`` of their seed."""
    logging.disable(logging.CRITICAL)
    failures, counted = [], 0
    memory = Path("/dev/shm")  # noqa: S108 (a RAM disk, where there is one)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as home:
        for seed in range(first, first + count):
            try:
                counted += simulate(seed, Path(home))
            except Violation as violation:
                failures.append(f"{name(seed)}: {violation}")
    return count, counted, failures


def seed_name(seed: int) -> str:
    """Name a schedule that has nothing but its seed."""
    return f"seed {seed}"


def run_campaign(
    prog: str, counts: str, simulate: Simulate, name: Callable[[int], str] = seed_name
) -> int:
    """Do what the command line asks for; returns the exit code. ``counts``: what is counted."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    begun_s, done, counted, failed = time.monotonic(), 0, 0, 0
    firsts = range(wanted.first, wanted.first + wanted.seeds, CHUNK)
    sizes = [min(CHUNK, wanted.first + wanted.seeds - first) for first in firsts]
    run = partial(run_chunk, simulate, name)
    with ProcessPoolExecutor(wanted.jobs) as pool:
        for count, more, failures in pool.map(run, firsts, sizes):
            done, counted, failed = done + count, counted + more, failed + len(failures)
            for failure in failures:
                print(failure, flush=True)  # noqa: T201
    spent_s = time.monotonic() - begun_s
    rate = 60 * done / spent_s
    print(  # noqa: T201
        f"{done} schedules in {spent_s:.1f} s ({rate:.0f} a minute), {counted} {counts}, "
        f"{failed} failed"
    )
    return 1 if failed else 0
