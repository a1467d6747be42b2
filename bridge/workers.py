"""The executor: local worker processes that can be killed one by one.

Pebble's pool fails only the task whose process died or ran over its time; everything else here
is about what pebble does not do: bound a worker's memory, end workers with their parent, notice a
pool that broke or does nothing, give its tasks back and start another, and turn every end of a
task into an Outcome.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Protocol

from pebble import CONSTS, ProcessExpired, ProcessPool

from bridge.core.crew import Crew
from bridge.core.errors import OUT_OF_MEMORY
from bridge.core.model import ExecutorFailed, InstanceFailed, Outcome, Reason, Task
from bridge.core.pool_watch import SILENT_S, START_S, Watched, is_stuck, passed_over
from bridge.stages import Memory, Stages, adopt

RECYCLE_AFTER_TASKS = 10_000
"""A worker is replaced after so many tasks: a leak in a codec then stays bounded."""

END_TIMEOUT_S = 0.1
"""Between SIGTERM, which workers ignore, and SIGKILL."""
CONSTS.term_timeout = END_TIMEOUT_S

LOOK_EVERY_S = 0.5
"""So often the pool is looked after, by whoever asks for the crew."""

EARLY = 0.9
"""Of a task's time: one that is said to be out of it before that is not."""

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
        """Look after the workers and describe who works now.

        To be called again and again while tasks are open, by the thread that submits them: that
        is how what was lost is found.
        """


@dataclass(slots=True)
class _Open:
    """A task in the pool's hands. ``begun_at_s``: when it was first seen to run."""

    order: int
    task: Task
    future: Future[Outcome]
    given_at_s: float
    begun_at_s: float | None = None

    def look(self, now_s: float) -> Watched:
        if self.begun_at_s is None and self.future.running():
            self.begun_at_s = now_s
        begun_s = None if self.begun_at_s is None else now_s - self.begun_at_s
        return Watched(self.order, begun_s, self.task.job.task_timeout_s)


class LocalExecutor:
    """Worker processes on this machine. To be used by one thread.

    ``done`` is called with the task and its outcome, in a thread of the pool or in the caller's.
    ``stages`` is where workers tell what they do. ``function`` is what a worker runs, ``silent_s``
    how long nothing may be heard of tasks; tests give others.
    """

    def __init__(
        self,
        done: Callable[[Task, Outcome], None],
        *,
        workers: int,
        memory_bytes: int,
        stages: Stages | None = None,
        function: Callable[[Task], Outcome] = run_task,
        silent_s: float = SILENT_S,
    ) -> None:
        self._done = done
        self._silent_s = silent_s
        self._open: dict[int, _Open] = {}
        self._orders = itertools.count(1)
        self._newest_begun = self._begun_before_pool = 0
        self._heard_at_s = self._look_due_s = time.monotonic()
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
            self._begun_before_pool = self._newest_begun
            self._pool = ProcessPool(
                max_workers=self._workers,
                max_tasks=RECYCLE_AFTER_TASKS,
                initializer=begin_worker,
                initargs=(self._memory_bytes, os.getpid(), self._stages.memory),
                # Never fork: this process has threads. Not forkserver: its server would keep
                # the environment, and so the credentials, of its start.
                context=multiprocessing.get_context("spawn"),
            )
            with _signals_held():
                _ = self._pool.active  # starts it
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
        self._heard_at_s = time.monotonic()
        opened = _Open(next(self._orders), task, future, self._heard_at_s)
        self._open[opened.order] = opened
        future.add_done_callback(lambda _: self._deliver(opened))

    def crew(self) -> Crew:
        """Describe the pool; give back what a broken or silent one holds, without being asked.

        With a full window nothing is submitted any more, so nothing else would notice.
        """
        now_s = time.monotonic()
        if now_s >= self._look_due_s:
            self._look_due_s = now_s + LOOK_EVERY_S
            self._look(now_s)
        return self._crew

    def close(self) -> None:
        """End the workers at once; tasks under way are lost and not reported."""
        self._closed = True
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            # Otherwise a worker that is just starting would miss what pebble takes away now, and
            # say so in a traceback.
            for process in list(self._pool._pool_manager.worker_manager.workers.values()):
                process.kill()
        self._end_pool()

    def _look(self, now_s: float) -> None:
        if self._pool is None:
            return
        newest_begun = self._newest_begun
        # The newest first: when it is seen to run, all before it have been told of as well.
        watched = []
        for opened in reversed(list(self._open.values())):
            watched.append(opened.look(now_s))
            if opened.begun_at_s is not None:
                newest_begun = max(newest_begun, opened.order)
            if opened.begun_at_s == now_s:
                self._heard_at_s = now_s
        unheard_s = now_s - self._heard_at_s
        silent_s = self._silent_s if newest_begun > self._begun_before_pool else START_S
        if not self._pool.active or is_stuck(
            watched, workers=self._workers, unheard_s=unheard_s, silent_s=silent_s
        ):
            self._end_pool()
            return
        for order in passed_over(watched, newest_begun=newest_begun):
            lost = self._open.get(order)
            if lost is not None:  # it has not ended at this very moment
                lost.future.cancel()

    def _end_pool(self) -> None:
        """End the pool and its workers; a broken one too, which would leave the others behind."""
        if self._pool is None:
            return
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._pool = None
        for opened in list(self._open.values()):
            opened.future.cancel()

    def _deliver(self, opened: _Open) -> None:
        self._heard_at_s = time.monotonic()
        self._newest_begun = max(self._newest_begun, opened.order)
        self._open.pop(opened.order, None)
        if not self._closed:
            taken_s = time.monotonic() - opened.given_at_s
            self._done(opened.task, outcome_of(opened.task, opened.future, taken_s=taken_s))


def outcome_of(  # noqa: PLR0911 (a table of ends)
    task: Task, ended: Future[Outcome], *, taken_s: float = float("inf")
) -> Outcome:
    """Turn the end of a task, whatever it is, into an Outcome.

    ``taken_s``: since the pool had it, by a clock that nobody sets. Pebble goes by the machine's
    time of day: when that is set, or the machine was asleep, every task under way is out of time.
    """
    match CancelledError() if ended.cancelled() else ended.exception():
        case None:
            return ended.result()
        case FutureTimeoutError() if taken_s < EARLY * task.job.task_timeout_s:
            return ExecutorFailed("The clock of this machine was set while the task ran.")
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


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let processes and threads that are started now be deaf to what asks the bridge to end.

    Ctrl-C and a SIGTERM to the whole group would else kill a worker that is still importing.
    """
    resource_tracker.ensure_running()  # which lets them through in the end
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        known = -exit_code in {number.value for number in signal.Signals}
        name = signal.Signals(-exit_code).name if known else str(-exit_code)
        return f"Its worker process was ended by signal {name}."
    return f"Its worker process ended with code {exit_code}."
