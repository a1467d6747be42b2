"""Cost of one instance as the backlog grows, by a scripted feed; run as a module for one size."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bridge_process import process_environment
from tests.integration.pipeline.test_backlog import run_backlog

GROWTH_LIMIT_S = 1200.0


@dataclass(frozen=True, slots=True)
class Growth:
    """A backlog of so many instances, each with four rows in the feed."""

    instances: int
    cpu_us: float
    wall_us: float
    peak_mb: float
    late_growth_mb: float
    """Resident memory at the end beyond that at a tenth of the way."""


def measure_growth(instances: int) -> Growth:
    """Follow a scripted feed to its end, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.growth", str(instances)],
        env=process_environment({}),
        capture_output=True,
        text=True,
        check=True,
        timeout=GROWTH_LIMIT_S,
    )
    return Growth(**json.loads(done.stdout))


def _here(instances: int) -> Growth:
    with tempfile.TemporaryDirectory() as home:
        begun_s, begun_cpu_s = time.monotonic(), time.process_time()
        samples, _ = run_backlog(instances, Path(home) / "ledger.sqlite3")
        seconds, cpu_s = time.monotonic() - begun_s, time.process_time() - begun_cpu_s
    memory = samples.memory_bytes
    early = memory[max(1, len(memory) // 10)] if len(memory) > 1 else memory[0]
    return Growth(
        instances=instances,
        cpu_us=cpu_s / instances * 1e6,
        wall_us=seconds / instances * 1e6,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        late_growth_mb=(memory[-1] - early) / 1e6,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_here(int(sys.argv[1])))))
