"""What runs in a Dask worker. Its functions are named by the bridge, never sent.

A Dask worker's own process decodes nothing: each task runs in one of the worker's own processes,
from the same pool as on one machine. So a decoder that crashes, hangs or eats memory ends the
same way, as an outcome. What comes in and goes out is JSON.

To start the pool with the worker instead of with its first task:
``dask worker --preload bridge.worker.dask.remote``.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import Protocol

from distributed import get_worker

from bridge.model import Endpoint, ExecutorFailed, Outcome, Task
from bridge.worker.dask.build import Build, build_of_this_installation
from bridge.worker.dask.values import from_plain, outcome_to_plain, to_plain
from bridge.worker.pool import LOOK_EVERY_S, LocalExecutor, run_task

MEMORY_VARIABLE = "BRIDGE_WORKER_MEMORY_MB"
MEMORY_DEFAULT_MB = 2048
BESIDE_CPUS = 2
"""So many more than CPUs decode at the same time; the other threads wait for servers."""


class RemotePool:
    """The killable processes of one Dask worker; as many as it has threads."""

    def __init__(
        self, processes: int, memory_bytes: int, function: Callable[[Task], Outcome] = run_task
    ) -> None:
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Outcome]] = {}
        self._executor = LocalExecutor(
            self._done,
            workers=processes,
            places=min(processes, len(os.sched_getaffinity(0)) + BESIDE_CPUS),
            memory_bytes=memory_bytes,
            function=function,
        )
        # The kernel ends a process with the thread that started it, and Dask's threads come and
        # go: one thread of our own starts them all.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="pool-keeper")
        self._keeper.submit(self._start).result()

    def run(self, task: Task) -> Outcome:
        """Do a task in one of the processes and wait for its outcome."""
        number = next(self._numbers)
        waiting: Future[Outcome] = Future()
        self._waiting[number] = waiting
        self._keeper.submit(self._executor.submit, replace(task, number=number))
        while True:
            try:
                return waiting.result(LOOK_EVERY_S)
            except FutureTimeoutError:
                self._keeper.submit(self._executor.workforce)

    def _start(self) -> None:
        # A nanny starts its worker as a daemon, which may not have children. Ours end with it
        # by themselves (prepare_worker), which is what that rule is for.
        multiprocessing.current_process().daemon = False
        self._executor.start()

    def _done(self, task: Task, outcome: Outcome) -> None:
        self._waiting.pop(task.number).set_result(outcome)


_LOCK = threading.Lock()
_POOLS: list[RemotePool] = []
"""The pool of this process, once there is one."""


def open_pool(processes: int, function: Callable[[Task], Outcome] = run_task) -> RemotePool:
    """Return this process's pool; the first call starts it."""
    with _LOCK:
        if not _POOLS:
            memory_mb = int(os.environ.get(MEMORY_VARIABLE) or MEMORY_DEFAULT_MB)
            _POOLS.append(RemotePool(processes, memory_mb * 1024 * 1024, function))
        return _POOLS[0]


_BUILDS: list[Build] = []
"""What this worker's installation is, once it is known to be complete."""


def own_build() -> Build:
    """Return what this worker's installation is; a problem may be over when it is asked again."""
    if _BUILDS:
        return _BUILDS[0]
    build = build_of_this_installation()
    if not build.problem:
        _BUILDS.append(build)
    return build


def introduce(topic: str, address: str, identity: str) -> None:
    """Tell the bridge who this worker is, on the topic that it listens to."""
    own = own_build()
    if not own.problem:
        open_pool(_threads())
    said = {"address": address, "identity": identity, "build": to_plain(own)}
    get_worker().log_event(topic, json.dumps(said))


def run(topic: str, digest: str, address: str, payload: str) -> None:
    """Do tasks, one after another, and tell the bridge the outcome of each at once.

    ``digest`` is the bridge's build: a worker that has been replaced at the same address by one
    of another build does nothing.
    """
    worker = get_worker()
    for plain in json.loads(payload):
        task = from_plain(Task, plain)
        if own_build().digest == digest:
            outcome = open_pool(_threads()).run(_with_own_paths(task))
        else:
            text = f"The worker at {address} now runs another build than before."
            outcome = ExecutorFailed(text)
        said = {"number": task.number, "outcome": outcome_to_plain(outcome)}
        worker.log_event(topic, json.dumps(said))


class WorkerState(Protocol):
    """What a Dask worker knows of itself."""

    nthreads: int
    """How many tasks it does at once."""


class DaskWorker(Protocol):
    """A Dask worker, as far as it matters here."""

    state: WorkerState


def dask_setup(worker: DaskWorker) -> None:
    """Start the pool with the worker (``--preload bridge.worker.dask.remote``)."""
    open_pool(worker.state.nthreads)


def _threads() -> int:
    worker: DaskWorker = get_worker()
    return worker.state.nthreads


def _with_own_paths(task: Task) -> Task:
    """Let certificates be where this worker has them, if it says so in its environment."""
    job = task.job
    return replace(
        task, job=replace(job, source=_localised(job.source), target=_localised(job.target))
    )


def _localised(endpoint: Endpoint) -> Endpoint:
    def own(name: str, given: str | None) -> str | None:
        return os.environ.get(f"BRIDGE_{endpoint.side.name}_{name}") or given

    return replace(
        endpoint,
        ca_file=own("CA_FILE", endpoint.ca_file),
        client_cert_file=own("CLIENT_CERT_FILE", endpoint.client_cert_file),
        client_key_file=own("CLIENT_KEY_FILE", endpoint.client_key_file),
    )
