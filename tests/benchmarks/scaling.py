"""``make bench-scaling``: what more cores bring, measured here and simulated past this machine.

Measures the bridge's bookkeeping alone (workers that do nothing), then one and two single-core
workers on a Dask cluster between two real Orthancs; the CPU of each part is what the model of
larger clusters is made of. Writes docs/scaling.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.arena import Sample, arena, run_once
from tests.benchmarks.growth import Growth, measure_growth
from tests.benchmarks.inputs import BY_NAME, Input
from tests.benchmarks.scaling_cluster import Overhead, measure_overhead
from tests.benchmarks.scaling_model import Costs
from tests.benchmarks.scaling_report import PAGE, Measured, text_of
from tests.benchmarks.usage import Roles, Usage, below, usage_of, with_children
from tests.benchmarks.ways import Look, Match, Way, ours
from tests.cluster import Cluster, Member

INPUTS = ("j2k", "ultrasound")
WORKERS = (1, 2)
LIMIT_S = 60.0
BEGIN_WITHIN_S = 120.0
"""Nothing is begun after it, so that the whole takes less than four minutes."""
BOOKKEEPING = 30_000
SETTINGS = {"BRIDGE_WORKER_MEMORY_MB": "2048"}


@dataclass(frozen=True, slots=True)
class _Crew:
    """What of a cluster is watched."""

    scheduler: Member
    workers: tuple[Member, ...]

    def roles(self) -> Roles:
        # A worker's killable processes are its children.
        used = [with_children(worker.pid) for worker in self.workers]
        return {"scheduler": usage_of(self.scheduler.pid), "workers": sum(used, Usage())}


@contextmanager
def on_cluster(match: Match, *, workers: int) -> Iterator[Look]:
    """The bridge with so many Dask workers of one thread, each kept to a core of its own."""
    directory = match.home / "cluster"
    directory.mkdir()
    with Cluster(directory) as cluster:
        members = tuple(
            cluster.start_worker(threads=1, environment=SETTINGS) for _ in range(workers)
        )
        scheduler = cluster.scheduler
        if scheduler is None:
            raise ChildProcessError("the scheduler has ended")
        for member, core in zip(members, sorted(os.sched_getaffinity(0)), strict=False):
            _keep_to(member, core)
        crew = _Crew(scheduler, members)
        with ours(match, EXECUTOR=cluster.address) as look:
            yield lambda: {"bridge": look()["bridge"], **crew.roles()}


def _keep_to(member: Member, core: int) -> None:
    """Keep a worker, its threads and its processes to one core; what they start inherits it."""
    for pid in (member.pid, *below(member.pid)):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def measure(what: Input, count: int) -> list[Sample]:
    """Time one input with each number of workers."""
    instances = max(30, round(count * what.count_share))
    with arena(what, instances, "scaling") as made:
        return [
            run_once(
                made,
                Way(f"{workers}", "", functools.partial(on_cluster, workers=workers)),
                limit_s=LIMIT_S,
            )
            for workers in WORKERS
        ]


def costs_of(what: Input, sample: Sample, overhead: Overhead) -> Costs:
    """Make the model's costs: bridge and scheduler from where they had nothing else to wait for."""
    return Costs(
        source_ms=sample.cpu_ms("source"),
        target_ms=sample.cpu_ms("target"),
        worker_ms=sample.cpu_ms("workers"),
        scheduler_ms=overhead.scheduler_ms,
        bridge_ms=overhead.bridge_ms,
        bytes_in=len(what.template),
        bytes_out=len(what.result),
    )


def main() -> None:
    arguments = _arguments()
    begun_s, load = time.monotonic(), os.getloadavg()[0]
    _say("bookkeeping ...")
    bookkeeping: Growth = measure_growth(BOOKKEEPING)
    _say("Dask alone ...")
    overhead = measure_overhead(arguments.overhead)
    measured = []
    for name in arguments.inputs:
        if time.monotonic() - begun_s > BEGIN_WITHIN_S:
            _say(f"{name}: left out, the time is over")
            continue
        _say(f"{name} ...")
        what = BY_NAME[name]
        samples = measure(what, arguments.count)
        ended = [sample.ended for sample in samples if sample.ended]
        if ended:
            _say(f"{name}: left out, {ended[0]}")
            continue
        measured.append(Measured(what.text, tuple(samples), costs_of(what, samples[-1], overhead)))
    if not measured:
        sys.exit("nothing could be measured: nothing is written")
    seconds = time.monotonic() - begun_s
    text = text_of(
        bookkeeping, overhead, measured, loads=(load, os.getloadavg()[0]), seconds=seconds
    )
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-scaling", description=__doc__)
    parser.add_argument("--count", type=int, default=240, help="CT slices in a run")
    parser.add_argument("--overhead", type=int, default=4000, help="instances through Dask alone")
    parser.add_argument("--inputs", type=lambda text: text.split(","), default=INPUTS)
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
