"""Commands that look at everything, next door and far away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.arena import arena
from tests.benchmarks.distance import delaying
from tests.benchmarks.http_line import Line
from tests.benchmarks.inputs import Input
from tests.benchmarks.ways import Match
from tests.bridge_process import process_environment

DELAYS_MS = (0, 25)
EVERY = 20
"""Each twentieth instance is not at the target."""
KILLED_AT = 0.6
LIMIT_S = 3600.0
LOOK_S = 0.05
OF = 40_000
"""Instances for which something is wanted."""
WANTED_S: Mapping[str, tuple[float, float]] = {
    "snapshot": (6.0, 60.0),
    "check": (4.0, 10.0),
    "plan": (4.0, 4.0),
    "replay --skip-present": (5.0, 5.0),
}
"""Seconds next door and far away; what has none there is wanted as fast as next door."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """Seconds of one command. ``name``: as it is called on the page."""

    name: str
    delay_ms: int
    instances: int
    seconds: float

    @property
    def wanted_s(self) -> float | None:
        """Seconds wanted for OF instances."""
        wanted = WANTED_S.get(self.name)
        return None if wanted is None else wanted[self.delay_ms > 0]


class _Bench:
    """Two loaded servers, and commands between them."""

    def __init__(self, match: Match, count: int) -> None:
        self._match = match
        self._target = Line(match.target.url)
        self.lacking = [match.ids[number] for number in range(0, count, EVERY)]
        lacks = set(range(0, count, EVERY))
        for number in range(count):
            if number not in lacks:
                self._target("POST", "/instances", match.input.file(match.seed, number))

    def held(self) -> int:
        """How many instances the target holds."""
        self._target = Line(self._match.target.url)
        return int(self._target.json("GET", "/statistics")["CountInstances"])

    def take_away(self) -> None:
        """Take from the target what it lacked at first."""
        self._target = Line(self._match.target.url)
        order = json.dumps({"Resources": self.lacking}).encode()
        self._target("POST", "/tools/bulk-delete", order)

    @contextlib.contextmanager
    def started(self, home: Path, url: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command; it is killed at the end."""
        home.mkdir(exist_ok=True)
        environment = process_environment(
            {
                "BRIDGE_SOURCE_URL": self._match.source.url,
                "BRIDGE_TARGET_URL": url,
                "BRIDGE_STATE_PATH": str(home / "state.sqlite3"),
                "BRIDGE_START": "snapshot",
                "BRIDGE_HEALTH_PORT": "0",
            }
        )
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bridge", *arguments],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def timed(self, home: Path, url: str, *arguments: str, code: int = 0) -> float:
        """Run a command to its end; the seconds that it took."""
        begun_s = time.monotonic()
        with self.started(home, url, *arguments) as process:
            ended = process.wait(LIMIT_S)
        if ended != code:
            said = (home / "log").read_text(encoding="utf-8")[-2000:]
            raise RuntimeError(f"{arguments}: exit code {ended}, not {code}: {said}")
        return time.monotonic() - begun_s

    def killed(self, home: Path, url: str, *arguments: str) -> None:
        """Run a command, and kill it when so much of what lacks has arrived."""
        enough = self.held() + KILLED_AT * len(self.lacking)
        pause = threading.Event()
        with self.started(home, url, *arguments) as process:
            until_s = time.monotonic() + LIMIT_S
            while self.held() < enough:
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError("it ended before it could be killed")
                pause.wait(LOOK_S)


def measure_bulk(what: Input, *, count: int) -> Iterator[Bulk]:
    """Every command, next door and far away. Raises RuntimeError for one that fails."""
    with arena(what, count, "bulk") as made, made.match(ingest=False) as match:
        bench = _Bench(match, count)
        for delay_ms in DELAYS_MS:
            with delaying(match.target.url, delay_ms) as url:
                home = match.home / f"away-{delay_ms}"
                yield Bulk("check", delay_ms, count, bench.timed(home, url, "check", code=3))
                once = ("run", "--once")
                yield Bulk("snapshot", delay_ms, count, bench.timed(home, url, *once))
                skips = ("replay", "--from", "1", "--skip-present")
                yield Bulk(
                    " ".join((skips[0], skips[3])), delay_ms, count, bench.timed(home, url, *skips)
                )
                yield Bulk("check, all is there", delay_ms, count, bench.timed(home, url, "check"))
                again = match.home / f"again-{delay_ms}"
                yield Bulk("plan", delay_ms, count, bench.timed(again, url, "plan"))
                bench.take_away()
                bench.killed(again, url, *once)
                name = f"snapshot, started again after a kill at {KILLED_AT:.0%}"
                yield Bulk(name, delay_ms, count, bench.timed(again, url, *once))
                bench.take_away()


def rows(found: Sequence[Bulk]) -> Sequence[str]:
    """The table of the page."""

    def wanted(one: Bulk) -> str:
        return "" if one.wanted_s is None else f"{one.wanted_s:.0f}"

    return (
        f"| command | target | instances | seconds | wanted for {OF}, s |",
        "| --- | --- | ---: | ---: | ---: |",
        *(
            f"| {one.name} | {f'{one.delay_ms} ms each way' if one.delay_ms else 'next door'} | "
            f"{one.instances} | {one.seconds:.1f} | {wanted(one)} |"
            for one in found
        ),
    )
