"""More workers against fewer; small instances beside a very long one; ten series at once."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.arena import Arena, arena, run_once
from tests.benchmarks.http_line import Arrivals, Line
from tests.benchmarks.inputs import Input, long_instance
from tests.benchmarks.ways import CORES, Way, ours

WORKERS = tuple(dict.fromkeys((1, CORES, CORES + 1, CORES + 2)))
LONG_FRAMES = 500
SMALL = 60
BURST_SERIES = 10
BURST_INSTANCES = 12
LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Sharing:
    """Instances a second by number of workers; seconds of the small ones in each company."""

    rates: dict[int, float]
    small_alone_s: float
    small_beside_long_s: float
    long_s: float
    burst_first_s: float
    burst_last_s: float
    """When the first instance of the slowest-starting series arrived, and when all had."""


def measure_sharing(what: Input, *, count: int, rounds: int) -> Sharing:
    rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with arena(what, count, "workers") as made:
        for _ in range(rounds):
            for workers, seen in rates.items():
                seen.append(_rate(made, workers))
    small_alone_s, _ = _small_and_long(what, long_one=False)
    small_s, long_s = _small_and_long(what, long_one=True)
    first_s, last_s = _burst(what)
    medians = {workers: median(seen) for workers, seen in rates.items()}
    return Sharing(medians, small_alone_s, small_s, long_s, first_s, last_s)


def _rate(made: Arena, workers: int) -> float:
    start = functools.partial(ours, WORKERS=str(workers))
    return run_once(made, Way(f"{workers} workers", "", start), limit_s=LIMIT_S).rate


def _small_and_long(what: Input, *, long_one: bool) -> tuple[float, float]:
    """Send a long instance (perhaps) and then small ones; when the small ones, the long one."""
    files = [what.file("small", number) for number in range(SMALL)]
    if long_one:
        files.insert(0, long_instance(LONG_FRAMES))
    with (
        arena(what, 0, "sharing") as made,
        made.match(ingest=False) as match,
        ours(match, POLL_INTERVAL_S="0.1"),
    ):
        sent = _send(match.source.url, files)
        long_id = sent[0] if long_one else ""
        return _arrivals(match.target.url, len(files), long_id)


def _arrivals(url: str, count: int, long_id: str) -> tuple[float, float]:
    begun_s = time.monotonic()
    arrivals = Arrivals(url)
    pause = threading.Event()
    small_s = long_s = 0.0
    while arrivals.look() < count:
        if time.monotonic() - begun_s > LIMIT_S:
            raise TimeoutError(f"{arrivals.count} of {count} arrived")
        others = arrivals.count - (long_id in arrivals.seen)
        if not small_s and others >= SMALL:
            small_s = time.monotonic() - begun_s
        if not long_s and long_id in arrivals.seen:
            long_s = time.monotonic() - begun_s
        pause.wait(0.01)
    ended_s = time.monotonic() - begun_s
    return small_s or ended_s, long_s or ended_s


def _send(url: str, files: Sequence[bytes]) -> list[str]:
    line = Line(url)
    return [line.json("POST", "/instances", file)["ID"] for file in files]


def _burst(what: Input) -> tuple[float, float]:
    """Ten senders at once, a series each."""
    series = [
        [what.file(f"burst {sender}", number) for number in range(BURST_INSTANCES)]
        for sender in range(BURST_SERIES)
    ]
    with (
        arena(what, 0, "burst") as made,
        made.match(ingest=False) as match,
        ours(match, POLL_INTERVAL_S="0.1"),
        ThreadPoolExecutor(BURST_SERIES) as senders,
    ):
        begun_s = time.monotonic()
        sent = list(senders.map(functools.partial(_send, match.source.url), series))
        arrivals = Arrivals(match.target.url)
        pause = threading.Event()
        first_s = 0.0
        while arrivals.look() < BURST_SERIES * BURST_INSTANCES:
            if time.monotonic() - begun_s > LIMIT_S:
                raise TimeoutError(f"{arrivals.count} arrived")
            if not first_s and all(arrivals.seen & set(ids) for ids in sent):
                first_s = time.monotonic() - begun_s
            pause.wait(0.01)
        ended_s = time.monotonic() - begun_s
    return first_s or ended_s, ended_s
