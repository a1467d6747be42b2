"""The executor: local worker processes that can be killed one by one.

Pebble's pool fails only the task whose process died or ran over its time; everything else here
is about what pebble does not do: bound a worker's memory, end workers with their parent, start
a new pool when the old one is broken, and turn every end of a task into an Outcome.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Protocol

from pebble import CONSTS, ProcessExpired, ProcessPool

from bridge.core.crew import Crew
from bridge.core.errors import OUT_OF_MEMORY
from bridge.core.model import ExecutorFailed, InstanceFailed, Outcome, Reason, Task
from bridge.stages import Memory, Stages, adopt

RECYCLE_AFTER_TASKS = 10_000
"""A worker is replaced after so many tasks: a leak in a codec then stays bounded."""

END_TIMEOUT_S = 0.1
"""Between SIGTERM, which workers ignore, and SIGKILL."""
CONSTS.term_timeout = END_TIMEOUT_S

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 32 * 1024 * 1024


def run_task(task: Task) -> Outcome:
    """Move the instance, in a worker: codecs are imported there and nowhere else."""
    from bridge.transfer import move

    return move(task)


class Executor(Protocol):
    """Runs tasks elsewhere."""

    def submit(self, task: Task) -> None:
        """Start a task; its outcome arrives where the executor was told to put it."""

    def crew(self) -> Crew:
        """Describe who works now; safe in any thread."""


class LocalExecutor:
    """Worker processes on this machine.

    ``done`` is called with the task and its outcome, in a thread of the pool. ``stages`` is where
    they tell what they do. ``function`` is what a worker runs; tests give another one.
    """

    def __init__(
        self,
        done: Callable[[Task, Outcome], None],
        *,
        workers: int,
        memory_bytes: int,
        stages: Stages | None = None,
        function: Callable[[Task], Outcome] = run_task,
    ) -> None:
        self._done = done
        self._workers = workers
        self._crew = Crew(threads=workers, workers=workers)
        self._memory_bytes = memory_bytes
        self._stages = stages or Stages()
        self._function = function
        self._pool: ProcessPool | None = None
        self._closed = False

    def _running_pool(self) -> ProcessPool:
        if self._pool is None or not self._pool.active:
            self._end_pool()
            self._pool = ProcessPool(
                max_workers=self._workers,
                max_tasks=RECYCLE_AFTER_TASKS,
                initializer=begin_worker,
                initargs=(self._memory_bytes, os.getpid(), self._stages.memory),
                # Never fork: this process has threads. Not forkserver: its server would keep
                # the environment, and so the credentials, of its start.
                context=multiprocessing.get_context("spawn"),
            )
        return self._pool

    def start(self) -> None:
        """Start the workers now, so that the first instance does not wait for their imports."""
        with suppress(RuntimeError, OSError):
            # A pool that cannot start is reported with the first task.
            pool = self._running_pool()
            for _ in range(self._workers):
                pool.schedule(warm_up)

    def submit(self, task: Task) -> None:
        """Start a task. A broken pool is replaced; what it lost comes back as ExecutorFailed."""
        self._stages.queue(task.number)
        try:
            future = self._running_pool().schedule(
                self._function, args=[task], timeout=task.job.task_timeout_s
            )
        except (RuntimeError, OSError) as exc:
            self._done(task, ExecutorFailed(f"The worker pool does not start: {exc}"))
            return
        future.add_done_callback(lambda ended: self._deliver(task, ended))

    def crew(self) -> Crew:
        """Describe the pool."""
        return self._crew

    def close(self) -> None:
        """End the workers at once; tasks under way are lost and not reported."""
        self._closed = True
        self._end_pool()

    def _end_pool(self) -> None:
        """End the pool and its workers; a broken one too, which would leave the others behind."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()
            self._pool = None

    def _deliver(self, task: Task, ended: Future[Outcome]) -> None:
        if not self._closed:
            self._done(task, outcome_of(task, ended))


def outcome_of(task: Task, ended: Future[Outcome]) -> Outcome:
    """Turn the end of a task, whatever it is, into an Outcome."""
    match CancelledError() if ended.cancelled() else ended.exception():
        case None:
            return ended.result()
        case FutureTimeoutError():
            return InstanceFailed(
                Reason.TIMED_OUT,
                f"Not finished within BRIDGE_TASK_TIMEOUT_S ({task.job.task_timeout_s:g} s); its "
                "worker was ended.",
            )
        case ProcessExpired(exitcode=exit_code):
            return InstanceFailed(Reason.WORKER_DIED, _death(exit_code))
        case MemoryError():
            return InstanceFailed(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY)
        case CancelledError() | RuntimeError() | OSError() as exc:
            return ExecutorFailed(f"The worker pool lost the task: {type(exc).__name__}")
        case exc:
            # `move` returns its failures; what is left, such as SystemExit, must still end the
            # task. Only its kind is told: its text may quote values.
            return InstanceFailed(
                Reason.INTERNAL, f"A bug in the bridge: {type(exc).__name__} left a worker's task."
            )


def warm_up() -> None:
    """Do nothing, in a worker: it has then imported what it needs."""


def begin_worker(memory_bytes: int, parent_pid: int, memory: Memory | None) -> None:
    """Make this process a worker: import what a task needs, while memory is not bounded yet."""
    import bridge.transfer  # noqa: F401

    adopt(memory)
    prepare_worker(memory_bytes, parent_pid)


def prepare_worker(memory_bytes: int, parent_pid: int) -> None:
    """Bound this process and tie its life to its parent's. Runs once in each worker."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Instances come and go by the megabyte: memory that is handed back to the system after each
    # costs a page fault for every 4 kB of the next.
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
    # SIGTERM to a whole group (systemd does that) asks the bridge to drain, not us to die with an
    # instance in hand. The pool ends a worker with SIGKILL then, after END_TIMEOUT_S.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        known = -exit_code in {number.value for number in signal.Signals}
        name = signal.Signals(-exit_code).name if known else str(-exit_code)
        return f"Its worker process was ended by signal {name}."
    return f"Its worker process ended with code {exit_code}."
