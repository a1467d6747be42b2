"""What bridge and scheduler need for an instance when workers do nothing: Dask's own cost.

Between real servers on a few cores so few instances pass that what runs anyway (heartbeats, looks
at the list of workers) would be counted as the instances'.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge.model import Outcome, Task
from bridge.wiring import ClosableExecutor
from bridge.worker.dask.executor import DaskExecutor
from tests.benchmarks.usage import usage_of
from tests.cluster import Cluster
from tests.integration.pipeline.test_backlog import DONE, ScriptedMachinery, run_backlog

THREADS = 4
FUNCTION = "tests.benchmarks.scaling_cluster:nothing"


@dataclass(frozen=True, slots=True)
class Overhead:
    """Instances a second, and CPU for each, through a real cluster that does nothing."""

    instances: int
    rate: float
    bridge_ms: float
    scheduler_ms: float


def nothing(_task: Task) -> Outcome:
    """Claim to have moved it in the 35 ms that a CT slice takes: Dask bundles by that."""
    return DONE


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    own_cpu_s: float
    scheduler_cpu_s: float


class _OnCluster(ScriptedMachinery):
    """Notes a moment after the first tenth of the outcomes: starting is not what is measured."""

    def __init__(self, instances: int, address: str, look: Callable[[], _Moment]) -> None:
        super().__init__(instances)
        self.warm_after = instances // 10
        self.warm: _Moment | None = None
        self._address, self._look = address, look
        self._count = 0

    def executor(self, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
        def counted(task: Task, outcome: Outcome) -> None:
            self._count += 1
            if self._count == self.warm_after:
                self.warm = self._look()
            done(task, outcome)

        executor = DaskExecutor(counted, address=self._address, tls=None)
        executor.start()
        return executor


def measure_overhead(instances: int) -> Overhead:
    """Follow a scripted feed with workers of a cluster that do nothing."""
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        cluster.start_worker(
            threads=THREADS, function=FUNCTION, environment={"BRIDGE_WORKER_MEMORY_MB": "512"}
        )
        scheduler = cluster.scheduler
        if scheduler is None:
            raise ChildProcessError("the scheduler has ended")
        pid = scheduler.pid

        def look() -> _Moment:
            return _Moment(time.monotonic(), time.process_time(), usage_of(pid).cpu_s)

        machinery = _OnCluster(instances, cluster.address, look)
        run_backlog(instances, Path(home) / "ledger.sqlite3", machinery)
        warm, end = machinery.warm, look()
    if warm is None:
        raise ValueError("too few instances to measure")
    counted = instances - machinery.warm_after
    return Overhead(
        instances=counted,
        rate=counted / (end.at_s - warm.at_s),
        bridge_ms=(end.own_cpu_s - warm.own_cpu_s) / counted * 1000,
        scheduler_ms=(end.scheduler_cpu_s - warm.scheduler_cpu_s) / counted * 1000,
    )
