"""The executor on a real Dask cluster: crashes, hangs, losses, growth, refusals.

Workers are real; what their processes run is tests/worker_functions.py.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

import bridge
from bridge.events import Workforce
from bridge.model import Delivered, ExecutorFailed, InstanceFailed, Outcome, Reason, Skipped, Task
from bridge.worker.dask import scheduler as link
from bridge.worker.dask.executor import DaskExecutor
from bridge.worker.dask.scheduler import Link, LinkLost
from tests.bridge_process import REPOSITORY, wait_until
from tests.cluster import Cluster, Member, adaptive_cluster, free_port
from tests.integration.worker.test_workers import task

MISBEHAVE = "tests.worker_functions:misbehave"
ENVIRONMENT = {"BRIDGE_WORKER_MEMORY_MB": "512"}
SILENT_S = 3.0
WAIT_S = 60.0
LONG_S = 600.0


class Bench:
    """An executor on a cluster and what comes back from it."""

    def __init__(self, address: str) -> None:
        self.ended: queue.Queue[tuple[Task, Outcome]] = queue.Queue()
        self.executor = DaskExecutor(
            lambda task, outcome: self.ended.put((task, outcome)),
            address=address,
            tls=None,
            silent_s=SILENT_S,
        )
        self.executor.start()

    def wait_workforce(self, holds: Callable[[Workforce], bool], what: str) -> Workforce:
        wait_until(
            lambda: holds(self.executor.workforce()), f"{what}: {self.executor.workforce()}", WAIT_S
        )
        return self.executor.workforce()

    def wait_threads(self, threads: int) -> Workforce:
        return self.wait_workforce(
            lambda workforce: workforce.threads == threads, f"{threads} threads"
        )

    def run(self, *tasks: Task) -> dict[str, Outcome]:
        """Run tasks; their outcomes by instance. Raises queue.Empty when one never ends."""
        for each in tasks:
            self.executor.submit(each)
        return dict(self.next() for _ in tasks)

    def next(self) -> tuple[str, Outcome]:
        done, outcome = self.ended.get(timeout=WAIT_S)
        return done.move.instance_id, outcome


class ClusterBench(Bench):
    """The same with a cluster of its own choosing."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.address)
        self.cluster = cluster

    def add(self, **arguments: object) -> Member:
        return self.cluster.start_worker(
            function=MISBEHAVE,
            environment=ENVIRONMENT,
            wait=False,
            **arguments,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterBench]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        made = ClusterBench(cluster)
        # One with a nanny: its worker is a daemon process, and has children all the same.
        made.add(options=("--nanny",))
        made.add()
        made.wait_threads(2)
        yield made
        made.executor.close()


def plain(number: int) -> Task:
    return task(f"plain-{number}", number, timeout_s=20.0)


def test_every_end_is_the_same_outcome_as_on_one_machine(bench: ClusterBench) -> None:
    """A decoder that crashes, exits, hangs, devours or raises; the others lose no attempt."""
    expected = {
        "segfault": (Reason.WORKER_DIED, "SIGSEGV"),
        "exit": (Reason.WORKER_DIED, "code 7"),
        "hang": (Reason.TIMED_OUT, "BRIDGE_TASK_TIMEOUT_S (2 s)"),
        "eat": (Reason.OUT_OF_MEMORY, "BRIDGE_WORKER_MEMORY_MB"),
        "raise": (Reason.INTERNAL, "ValueError"),
    }
    poison = [
        task(name, number, timeout_s=2.0 if name == "hang" else 60.0)
        for number, name in enumerate(expected)
    ]
    outcomes = bench.run(*poison, *(plain(100 + number) for number in range(20)))
    for name, (reason, said) in expected.items():
        outcome = outcomes.pop(name)
        assert isinstance(outcome, InstanceFailed)
        assert outcome.reason is reason
        assert said in outcome.message
    assert {type(outcome) for outcome in outcomes.values()} == {Skipped}


def test_two_tasks_for_the_same_instance_are_both_done(bench: ClusterBench) -> None:
    for number in (1, 2):
        bench.executor.submit(task("twice", number, timeout_s=20.0))
    ended = [bench.ended.get(timeout=WAIT_S)[0] for _ in range(2)]
    assert sorted(done.number for done in ended) == [1, 2]


def test_the_workforce_grows_and_shrinks_with_the_cluster(bench: ClusterBench) -> None:
    worker = bench.add(threads=3)
    workforce = bench.wait_threads(5)
    assert workforce.workers == 3
    outcomes = bench.run(*(plain(number) for number in range(40)))
    pids = {int(o.message) for o in outcomes.values() if isinstance(o, Skipped)}
    assert pids & worker.workers(), "the new worker works"
    worker.send(signal.SIGTERM)
    bench.wait_threads(2)
    assert len(bench.run(plain(1), plain(2))) == 2


def test_a_cluster_that_scales_itself_does_so_for_a_backlog(tmp_path: Path) -> None:
    with adaptive_cluster(tmp_path, low=1, high=3) as address:
        bench = Bench(address)
        bench.wait_threads(1)
        given: set[str] = set()
        seen: dict[str, Outcome] = {}

        def work_until(threads: int) -> bool:
            """Keep the window full, as the pipeline does."""
            workforce = bench.executor.workforce()
            while len(given) - len(seen) < workforce.depth * workforce.threads:
                given.add(name := f"work-{len(given)}")
                bench.executor.submit(task(name, len(given)))
            with suppress(queue.Empty):
                while True:
                    done, outcome = bench.ended.get_nowait()
                    seen[done.move.instance_id] = outcome
            return workforce.threads == threads

        wait_until(lambda: work_until(3), "it grows under a backlog", WAIT_S)
        seen |= dict(bench.next() for _ in range(len(given) - len(seen)))
        bench.wait_threads(1)
        assert seen.keys() == given
        pids = {o.sop_instance_uid for o in seen.values() if isinstance(o, Delivered)}
        assert len(pids) > 1, "the new ones worked"
        assert {type(outcome) for outcome in seen.values()} <= {Delivered, ExecutorFailed}
        assert isinstance(bench.run(plain(1))["plain-1"], Skipped), "what is left of it works"
        bench.executor.close()


def test_a_pool_that_broke_in_a_worker_gives_back_what_it_had(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        bench = ClusterBench(cluster)
        bench.add(threads=2)
        bench.wait_threads(2)
        for number in range(3):
            told = bench.run(*(plain(each) for each in range(8)))
            pids = {int(o.message) for o in told.values() if isinstance(o, Skipped)}
            for pid in pids:
                with suppress(ProcessLookupError):  # one of a pool that broke and was replaced
                    os.kill(pid, signal.SIGKILL)
            names = {f"after-{number}-{each}" for each in range(4)}
            assert bench.run(*map(task, names)).keys() == names
        bench.executor.close()


def test_a_worker_killed_in_mid_task_costs_no_attempt(bench: ClusterBench) -> None:
    worker = bench.add(threads=1)
    bench.wait_threads(3)
    for number in range(3):
        bench.executor.submit(task("hang", number, timeout_s=LONG_S))
    wait_until(lambda: len(bench.executor.workforce().refused) == 0, "nobody is refused")
    worker.kill()
    name, outcome = bench.next()
    assert name == "hang"
    assert isinstance(outcome, ExecutorFailed)
    assert "is gone" in outcome.message
    assert bench.ended.empty(), "the others are still at it"
    workforce = bench.wait_threads(2)
    assert not workforce.problem


def test_a_worker_that_hangs_is_given_up_and_taken_back(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        bench = ClusterBench(cluster)
        worker = bench.add()
        bench.wait_threads(1)
        worker.send(signal.SIGSTOP)
        bench.executor.submit(plain(1))
        _, outcome = bench.next()
        assert isinstance(outcome, ExecutorFailed)
        assert "has sent nothing" in outcome.message
        workforce = bench.wait_workforce(
            lambda workforce: workforce.problem == "no_workers", "it is given up"
        )
        assert workforce.threads == 0
        worker.send(signal.SIGCONT)
        bench.wait_threads(1)
        assert isinstance(bench.run(plain(2))["plain-2"], Skipped)
        bench.executor.close()


def test_the_scheduler_is_restarted(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        bench = ClusterBench(cluster)
        bench.add()
        bench.wait_threads(1)
        bench.executor.submit(task("hang", timeout_s=LONG_S))
        bench.executor.submit(plain(1))
        assert cluster.scheduler is not None
        cluster.scheduler.kill()
        lost = dict(bench.next() for _ in range(2))
        assert {type(outcome) for outcome in lost.values()} <= {ExecutorFailed, Skipped}
        assert isinstance(lost["hang"], ExecutorFailed)
        workforce = bench.wait_workforce(lambda workforce: bool(workforce.problem), "it is noticed")
        assert (workforce.problem, workforce.threads) == ("scheduler_unreachable", 0)
        cluster.start_scheduler()
        bench.add()  # as its supervisor would
        bench.wait_threads(1)
        assert isinstance(bench.run(plain(2))["plain-2"], Skipped)
        bench.executor.close()


def test_a_long_outage_of_the_scheduler_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "CONNECT_S", 0.2)

    def fail() -> tuple[int, int]:
        with pytest.raises(LinkLost):
            Link(f"tcp://127.0.0.1:{free_port()}", None, lambda _: None)
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    first = fail()
    for _ in range(5):
        last = fail()
    assert last == first


def _unheard_of(_link: Link) -> NoReturn:
    raise KeyError("what nobody foresaw")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_dask_raises_is_an_outage_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(tmp_path) as cluster:
        bench = ClusterBench(cluster)
        bench.add()
        bench.wait_threads(1)
        bench.executor.submit(task("hang", timeout_s=8.0))  # the worker is busy for so long
        with monkeypatch.context() as patched:
            patched.setattr(Link, "workers", _unheard_of)
            workforce = bench.wait_workforce(
                lambda workforce: bool(workforce.problem), "it is noticed"
            )
            assert workforce.problem == "scheduler_unreachable"
            assert "ended because of a bug" in workforce.message
            name, outcome = bench.next()
            assert (name, type(outcome)) == ("hang", ExecutorFailed)
        bench.wait_threads(1)
        bench.executor.close()


def test_unknown_workers_get_no_work(tmp_path: Path) -> None:
    """Another version, no codec, no orthanc-bridge at all: each is refused, and says why."""
    other = tmp_path / "other"
    shutil.copytree(Path(bridge.__file__).parent, other / "bridge")
    (other / "bridge" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    bare, none = tmp_path / "bare", tmp_path / "none"
    for directory in (bare, none):
        directory.mkdir()
    # What an import of something that is not installed does, whatever this machine has.
    missing = "raise ModuleNotFoundError('No module named {0}', name='{0}')\n"
    (bare / "imagecodecs.py").write_text(missing.format("imagecodecs"))
    (none / "bridge.py").write_text(missing.format("bridge"))
    with Cluster(tmp_path) as cluster:
        bench = ClusterBench(cluster)
        for directory in (other, bare, none):
            path = {"PYTHONPATH": f"{directory}:{REPOSITORY}"}
            cluster.start_worker(preload="", environment=path, wait=False)

        def told(workforce: Workforce) -> bool:
            """A slow one is refused for its silence, until it has spoken."""
            silent = any("has not reported" in refused.reason for refused in workforce.refused)
            return workforce.refused_count == 3 and not silent

        workforce = bench.wait_workforce(told, "three are refused, each for what it said")
        assert (workforce.problem, workforce.threads) == ("no_workers", 0)
        said = " ".join(refused.reason for refused in workforce.refused)
        assert "orthanc-bridge 0.0.9" in said
        assert "No module named imagecodecs" in said
        assert "bridge is not installed" in said
        good = bench.add()
        workforce = bench.wait_threads(1)
        assert workforce.refused_count == 3
        outcomes = bench.run(*(plain(number) for number in range(12)))
        pids = {int(o.message) for o in outcomes.values() if isinstance(o, Skipped)}
        assert pids <= good.workers()
        bench.executor.close()
