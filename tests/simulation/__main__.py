"""``python -m tests.simulation --seeds 1000 [--first 0]``: run schedules until one fails."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.simulation.bench import settings_for, simulate
from tests.simulation.world import Violation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print every event")
    wanted = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if wanted.verbose else logging.WARNING)
    settings = {policy: settings_for(policy) for policy in ("stop", "snapshot")}
    begun_s = time.monotonic()
    memory = Path("/dev/shm")  # noqa: S108 (a RAM disk, where there is one)
    failures = 0
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        for seed in range(wanted.first, wanted.first + wanted.seeds):
            try:
                simulate(seed, Path(directory), settings)
            except Violation as exc:
                failures += 1
                print(f"seed {seed}: {exc}")  # noqa: T201
    spent_s = time.monotonic() - begun_s
    print(  # noqa: T201
        f"{wanted.seeds} schedules in {spent_s:.1f} s "
        f"({60 * wanted.seeds / spent_s:.0f} a minute), {failures} failed"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
