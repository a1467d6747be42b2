"""A cluster of any size, simulated from the CPU that each part needs for one instance.

Pure: no clocks, no files; the same costs and seed give the same numbers.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

GIGABIT_BYTES_S = 125e6
DEPTH = 3
"""Instances under way for each thread, as bridge.events has it."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU milliseconds for one instance, by part, and the bytes that it is."""

    source_ms: float
    target_ms: float
    worker_ms: float
    scheduler_ms: float
    bridge_ms: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Site:
    """What there is beside the workers: cores of the servers, and their links in Gbit/s."""

    source_cores: int = 4
    target_cores: int = 4
    link_gigabit: float = 10.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A part and how many instances a second it can do when it does nothing else."""

    part: str
    rate: float


def limits(costs: Costs, site: Site) -> list[Limit]:
    """Return the parts that do not grow with the number of workers, narrowest first."""
    link = site.link_gigabit * GIGABIT_BYTES_S
    found = [
        Limit("source", site.source_cores * 1000 / costs.source_ms),
        Limit("target", site.target_cores * 1000 / costs.target_ms),
        Limit("source's link", link / costs.bytes_in),
        Limit("target's link", link / costs.bytes_out),
        Limit("scheduler", 1000 / costs.scheduler_ms),
        Limit("bridge and ledger", 1000 / costs.bridge_ms),
    ]
    return sorted(found, key=lambda limit: limit.rate)


def cores_for(costs: Costs, rate: float) -> float:
    """Return how many worker cores a load needs while nothing else is the limit."""
    return rate * costs.worker_ms / 1000


@dataclass(slots=True)
class _Part:
    """A part with some cores: who comes while all are busy waits for the first that is free."""

    free_at_s: list[float]

    def serve(self, now_s: float, work_s: float) -> float:
        begun_s = max(now_s, heapq.heappop(self.free_at_s))
        heapq.heappush(self.free_at_s, begun_s + work_s)
        return begun_s + work_s


def simulate(
    costs: Costs, site: Site, cores: int, *, instances: int = 6000, seed: int = 1
) -> float:
    """Return instances a second with so many single-core workers.

    Each instance passes bridge, scheduler, its worker (which stays busy with it while source and
    target answer), and the bridge again. Every piece of work varies by its own mean, exponentially:
    images are not all alike.
    """
    chance = random.Random(seed)
    instances = max(instances, 100 * cores)
    link = site.link_gigabit * GIGABIT_BYTES_S
    names = ("bridge", "scheduler", "source", "source's link", "target's link", "target")
    counts = (1, 1, site.source_cores, 1, 1, site.target_cores)
    parts = {n: _Part([0.0] * count) for n, count in zip(names, counts, strict=True)}
    path = (
        ("bridge", costs.bridge_ms / 2000),
        ("scheduler", costs.scheduler_ms / 1000),
        ("", 0.0),
        ("source", costs.source_ms / 1000),
        ("source's link", costs.bytes_in / link),
        ("own core", costs.worker_ms / 1000),
        ("target's link", costs.bytes_out / link),
        ("target", costs.target_ms / 1000),
        ("leave", 0.0),
        ("bridge", costs.bridge_ms / 2000),
    )
    return _run(path, parts, cores, instances, chance)


def _run(
    path: tuple[tuple[str, float], ...],
    parts: dict[str, _Part],
    cores: int,
    instances: int,
    chance: random.Random,
) -> float:
    """Let instances go through the path, a window of them at a time; events in order of time."""
    due = [(0.0, number, 0) for number in range(min(DEPTH * cores, instances))]
    heapq.heapify(due)
    started, ended = len(due), 0
    waiting: list[tuple[float, int, int]] = []
    idle = cores
    warm_s = now_s = 0.0
    while due:
        now_s, number, step = heapq.heappop(due)
        if step == len(path):
            ended += 1
            if ended == instances // 10:
                warm_s = now_s
            if started < instances:
                heapq.heappush(due, (now_s, started, 0))
                started += 1
            continue
        name, mean_s = path[step]
        if name == "":
            if not idle:
                heapq.heappush(waiting, (now_s, number, step))
                continue
            idle -= 1
        elif name == "leave":
            idle += 1
            if waiting:
                heapq.heappush(due, (now_s, *heapq.heappop(waiting)[1:]))
        work_s = chance.expovariate(1 / mean_s) if mean_s else 0.0
        at_s = parts[name].serve(now_s, work_s) if name in parts else now_s + work_s
        heapq.heappush(due, (at_s, number, step + 1))
    return (instances - instances // 10) / (now_s - warm_s)
