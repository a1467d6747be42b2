"""docs/scaling.md, written from what was measured and simulated and from nothing else."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import bridge
from tests.benchmarks.arena import Sample
from tests.benchmarks.growth import Growth
from tests.benchmarks.scaling_cluster import Overhead
from tests.benchmarks.scaling_model import Costs, Site, cores_for, limits, simulate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
MIGRATION = 100_000_000
GOAL = 2000
SITES = {
    "servers of 4 cores, 1 Gbit/s": Site(4, 4, 1.0),
    "servers of 16 cores, 10 Gbit/s": Site(16, 16, 10.0),
}
CORES = (1, 2, 4, 8, 16, 32, 64, 128)
LOADS = (10, 50, 200, 1000)
SHARE = 0.7
"""Of a part's limit, how much is planned with: queues grow steeply beyond it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of instance: a run with one worker, one with two, and costs of the latter."""

    text: str
    samples: tuple[Sample, ...]
    costs: Costs


def text_of(
    bookkeeping: Growth,
    overhead: Overhead,
    measured: Sequence[Measured],
    *,
    loads: tuple[float, float],
    seconds: float,
) -> str:
    """Return the page."""
    parts = [
        _head(loads, seconds),
        _bookkeeping(bookkeeping),
        _overhead(overhead),
        _measured(measured),
        _needs(measured),
        *(_simulated(each) for each in measured),
        _migration(measured),
        _split(measured),
        _MODEL,
    ]
    return "\n\n".join(parts) + "\n"


def _head(loads: tuple[float, float], seconds: float) -> str:
    now = datetime.datetime.now(datetime.UTC)
    cores = len(os.sched_getaffinity(0))
    before, after = loads
    caveat = (
        "**That is more than its cores can do: others were using the machine, so rates are too "
        "low, CPU per instance is too high, and comparisons between rows are rough. Write it again "
        "on a quiet one.**"
        if max(loads) > 2 * cores
        else "Servers, scheduler, workers and bridge share these cores."
    )
    return f"""# Scaling

Written by `make bench-scaling` on {now:%Y-%m-%d %H:%M} UTC in {seconds:.0f} s, with orthanc-bridge
{bridge.__version__} and Python {platform.python_version()}. Machine: {cores} cores; load average
{before:.1f} when it began, {after:.1f} when it ended. {caveat}"""


def _bookkeeping(growth: Growth) -> str:
    rate, by_cpu = 1e6 / growth.wall_us, 1e6 / growth.cpu_us
    goal = "met" if rate >= GOAL else "not met in this run"
    return f"""## The bridge alone

Feed, window, pipeline and a real ledger, with an executor that does nothing
({growth.instances:,} instances): **{rate:,.0f} instances/s**, {growth.cpu_us:.0f} us of CPU each
({by_cpu:,.0f}/s if it had a core to itself). The goal of {GOAL:,}/s is {goal}."""


def _overhead(overhead: Overhead) -> str:
    return f"""## The bridge and a Dask cluster that does nothing

The same with a real scheduler and a worker whose tasks do nothing, {overhead.instances:,} instances
after the first tenth: **{overhead.rate:,.0f} instances/s** with all of it on this machine; CPU for
an instance: bridge {overhead.bridge_ms:.2f} ms, scheduler {overhead.scheduler_ms:.2f} ms. With a
core each they could do {1000 / overhead.bridge_ms:,.0f}/s and
{1000 / overhead.scheduler_ms:,.0f}/s. The model uses these costs of bridge and
scheduler. They include the CPU that both need when they are idle."""


def _measured(measured: Sequence[Measured]) -> str:
    head = ("instance", "workers", "/s", "worker ms", "source ms", "target ms", "scheduler ms",
            "bridge ms")  # fmt: skip
    roles = ("workers", "source", "target", "scheduler", "bridge")
    rows = [
        [each.text, sample.way, f"{sample.rate:.1f}", *(f"{sample.cpu_ms(r):.2f}" for r in roles)]
        for each in measured
        for sample in each.samples
    ]
    gains = "; ".join(
        f"{each.text}: {each.samples[-1].rate / each.samples[0].rate:.2f} times"
        for each in measured
    )
    return f"""## One and two workers, measured

Dask workers of one thread work between two real Orthancs; each is limited to one core. The columns
in ms are CPU for an instance, by part. All parts share this machine's cores, so a second worker
takes its core from the servers. At so few instances a second, scheduler and bridge spend most of
their CPU on work that does not depend on instances: heartbeats, reading the feed and the list of
workers.

{_table(head, rows)}

Two workers against one: {gains}."""


def _needs(measured: Sequence[Measured]) -> str:
    head = ("instance", *(f"{load}/s" for load in LOADS))
    rows = [
        [each.text, *(str(math.ceil(cores_for(each.costs, load) / SHARE)) for load in LOADS)]
        for each in measured
    ]
    return f"""## How many worker cores a load needs

The table plans with {SHARE:.0%} of what the cores can do, so that a burst does not wait long.

{_table(head, rows)}"""


def _simulated(each: Measured) -> str:
    head = ("worker cores", *SITES)
    rows = [
        [str(cores), *(f"{simulate(each.costs, site, cores):,.0f}/s" for site in SITES.values())]
        for cores in CORES
    ]
    lines = [
        f"- {name}: "
        + ", ".join(f"{limit.part} {limit.rate:,.0f}/s" for limit in limits(each.costs, site))
        for name, site in SITES.items()
    ]
    return (
        f"## Simulated: {each.text}\n\n{_table(head, rows)}\n\n"
        "The limit of each part, the slowest first:\n\n" + "\n".join(lines)
    )


def _migration(measured: Sequence[Measured]) -> str:
    head = ("instance", "site", "worker cores", "/s", f"{MIGRATION // 1_000_000} million take",
            "limited by")  # fmt: skip
    rows = []
    for each in measured:
        for name, site in SITES.items():
            narrowest = limits(each.costs, site)[0]
            rate = narrowest.rate * SHARE
            rows.append(
                [
                    each.text,
                    name,
                    str(math.ceil(cores_for(each.costs, narrowest.rate))),
                    f"{rate:,.0f}",
                    f"{MIGRATION / rate / 86400:,.0f} days",
                    narrowest.part,
                ]
            )
    return f"""## A migration of {MIGRATION:,} instances

The worker cores are as many as bring the slowest other part to its limit: more would not make the
migration faster. The rate is {SHARE:.0%} of that limit, on average.

{_table(head, rows)}"""


def _split(measured: Sequence[Measured]) -> str:
    rates = "; ".join(
        f"{each.text}: {1000 / max(each.costs.bridge_ms, each.costs.scheduler_ms) * SHARE:,.0f}/s"
        for each in measured
    )
    return f"""## When to use several bridges

One bridge follows one source. Run one bridge for each source, each with its own state file; they
may share one cluster. For one source, a second bridge helps only when bridge or scheduler is the
slowest part. By the measurement above that is at about: {rates}. Below that rate, source, target
or network are the limit, and a second bridge would have the same limit. If one source needs more,
split it into two Orthancs. Do not run two bridges on one feed: each would move everything."""


_MODEL = """## The model

`tests/benchmarks/scaling_model.py` simulates single events. Each instance passes bridge, scheduler,
a worker and the bridge again. The worker is busy with it while source, both links and the target
serve it. Each part needs the CPU measured above, varied exponentially from instance to instance.

The model leaves out disks, latency of the network, other users of the servers and Orthanc's own
locks: a real Orthanc with SQLite does not use 16 cores for writing. It also leaves out that servers
get slower as they fill. So its limits are upper bounds. Measure your own servers with `plan` and a
day's run before you promise a date."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
