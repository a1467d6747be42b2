"""How long a single instance takes on an idle bridge, and what an idle bridge costs the source."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass
from statistics import median, quantiles

from tests.benchmarks.arena import arena
from tests.benchmarks.http_line import Arrivals, Line
from tests.benchmarks.inputs import Input
from tests.benchmarks.usage import usage_of
from tests.benchmarks.ways import Look, Match, ours

LOOK_S = 0.001
IDLE_S = 10.0
READY_S = 20.0
BACKLOG_S = 120.0
FEED_ROWS_BEFORE = 600
"""Instances in the feed before: an idle look reads some rows of it again."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the answer of the POST at the source to an answer of the target."""

    poll_interval_s: float
    seconds: tuple[float, ...]
    stages_s: float
    source_core_share: float
    bridge_core_share: float

    @property
    def median_s(self) -> float:
        return median(self.seconds)

    @property
    def p99_s(self) -> float:
        return quantiles(self.seconds, n=100, method="inclusive")[98]

    @property
    def bound_s(self) -> float:
        """Half a poll interval and 1.3 times what the stages cost alone."""
        return self.poll_interval_s / 2 + 1.3 * self.stages_s


def measure_latency(what: Input, *, poll_interval_s: float, count: int) -> Latency:
    """Send single instances at random moments to an idle pair of servers."""
    with arena(what, FEED_ROWS_BEFORE, "before") as made, made.match(ingest=False) as match:
        stages_s = _stages(match)
        with ours(match, POLL_INTERVAL_S=str(poll_interval_s)) as look:
            _await_arrivals(match)
            source_share, bridge_share = _idle(match, look)
            # Random moments within the poll interval, every part of it as often as the others.
            shares = [(part + random.random()) / count for part in range(count)]
            random.shuffle(shares)
            seconds = []
            for number, share in enumerate(shares, 1):
                threading.Event().wait(0.05 + poll_interval_s * share)
                seconds.append(single(match, number))
    return Latency(poll_interval_s, tuple(seconds), stages_s, source_share, bridge_share)


def _await_arrivals(match: Match) -> None:
    """Wait until everything that was in the feed has been moved."""
    arrivals = Arrivals(match.target.url)
    until = time.monotonic() + BACKLOG_S
    pause = threading.Event()
    while arrivals.look() < len(match.ids):
        if time.monotonic() > until:
            raise TimeoutError(f"{arrivals.count} of {len(match.ids)} arrived")
        pause.wait(LOOK_S)


def single(match: Match, number: int) -> float:
    """Send one instance to the source; returns the seconds until the target has it."""
    source, target = Line(match.source.url), Line(match.target.url)
    answer = source("POST", "/instances", match.input.file("single", number))
    sent_s = time.monotonic()
    instance_id = json.loads(answer)["ID"]
    pause = threading.Event()
    while time.monotonic() - sent_s < READY_S:
        try:
            target("GET", f"/instances/{instance_id}")
        except http.client.HTTPException:
            pause.wait(LOOK_S)
            continue
        return time.monotonic() - sent_s
    raise TimeoutError(f"instance {number} did not arrive within {READY_S:g} s")


def _stages(match: Match) -> float:
    """Seconds of the bare stages, one after the other: read the feed, fetch, decode, post."""
    source, target = Line(match.source.url), Line(match.target.url)
    took = []
    for number, instance_id in enumerate(match.ids[:30]):
        result = match.input.result_file("stages", number)
        begun_s = time.monotonic()
        source("GET", "/changes?last")
        source("GET", f"/instances/{instance_id}/file")
        match.input.decode_all()
        target("POST", "/instances", result)
        took.append(time.monotonic() - begun_s)
    return median(took)


def _idle(match: Match, look: Look) -> tuple[float, float]:
    """CPU of the source and of the bridge while nothing happens, in cores."""
    before = usage_of(match.source.pid).cpu_s, look()["bridge"].cpu_s
    threading.Event().wait(IDLE_S)
    after = usage_of(match.source.pid).cpu_s, look()["bridge"].cpu_s
    return (after[0] - before[0]) / IDLE_S, (after[1] - before[1]) / IDLE_S
