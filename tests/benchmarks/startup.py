"""Seconds until the service is ready, and of ``status``."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.arena import arena
from tests.benchmarks.http_line import Line
from tests.benchmarks.inputs import Input
from tests.benchmarks.ways import Match
from tests.bridge_process import BridgeProcess, process_environment

ROUNDS = 5
LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Startup:
    """Medians, seconds: from the start of the process to /readyz 200; of the whole command."""

    ready_s: float
    status_s: float


def measure_startup(what: Input) -> Startup:
    with arena(what, 1, "startup") as made, made.match(ingest=False) as match:
        settings = {
            "BRIDGE_SOURCE_URL": match.source.url,
            "BRIDGE_TARGET_URL": match.target.url,
            "BRIDGE_STATE_PATH": str(match.home / "state.sqlite3"),
        }
        ready = [_ready(match, settings) for _ in range(ROUNDS)]
        status = [_status(match, settings) for _ in range(ROUNDS)]
    return Startup(median(ready), median(status))


def _ready(match: Match, settings: dict[str, str]) -> float:
    begun_s = time.monotonic()
    with BridgeProcess("run", settings=settings, cwd=match.home) as process:
        line = Line(process.url)
        pause = threading.Event()
        while time.monotonic() - begun_s < LIMIT_S:
            try:
                line("GET", "/readyz")
            except http.client.HTTPException:
                pause.wait(0.005)
                continue
            return time.monotonic() - begun_s
    raise TimeoutError(f"not ready within {LIMIT_S:g} s")


def _status(match: Match, settings: dict[str, str]) -> float:
    begun_s = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "bridge", "status"],
        env=process_environment(settings),
        cwd=match.home,
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
    )
    return time.monotonic() - begun_s
