"""The executor: local worker processes that can be killed one by one.

Pebble's pool fails only the task whose process died or ran over its time; everything else here
is about what pebble does not do: bound a worker's memory, end workers with their parent, notice a
pool that broke or does nothing, give its tasks back and start another, and turn every end of a
task into an Outcome.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import queue
import resource
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Generic, Self, TypeAlias, TypeVar

from pebble import CONSTS, ProcessExpired, ProcessPool

from bridge.errors import OUT_OF_MEMORY
from bridge.events import Workforce
from bridge.model import ExecutorFailed, InstanceFailed, Outcome, Reason, Task
from bridge.orthanc.bodies import INSTANCE_BYTES_MAX
from bridge.standard_streams import STDERR, STDOUT
from bridge.worker.pool_watch import SILENT_S, START_S, Watched, is_stuck, passed_over
from bridge.worker.stages import Memory, Stages, adopt

RECYCLE_AFTER_TASKS = 10_000
"""A worker is replaced after so many tasks: a leak in a codec then stays bounded."""

END_TIMEOUT_S = 0.1
"""Between SIGTERM, which workers ignore, and SIGKILL."""
CONSTS.term_timeout = END_TIMEOUT_S

LOOK_EVERY_S = 0.5
"""So often the pool is looked after, by whoever asks for the workforce."""

AHEAD = 3
"""Results under way or ready for each worker of an OrderedPool: what bounds memory here."""
LOST_MAX = 2
"""So often work that the pool lost, with no fault of its own, is done again."""

EARLY = 0.9
"""Of a task's time: one that is said to be out of it before that is not."""

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 32 * 1024 * 1024


def run_task(task: Task) -> Outcome:
    """Move the instance, in a worker: codecs are imported there and nowhere else."""
    from bridge.worker.transfer import move

    return move(task)


Work = TypeVar("Work")
Result = TypeVar("Result")
End: TypeAlias = Result | InstanceFailed | ExecutorFailed
"""How work ended: with its result, or with the failure that stands for it."""


@dataclass(slots=True)
class _Open(Generic[Work, Result]):
    """A task in the pool's hands. ``begun_at_s``: when it was first seen to run."""

    order: int
    work: Work
    future: Future[Result]
    timeout_s: float
    given_at_s: float
    begun_at_s: float | None = None

    def look(self, now_s: float) -> Watched:
        if self.begun_at_s is None and self.future.running():
            self.begun_at_s = now_s
        begun_s = None if self.begun_at_s is None else now_s - self.begun_at_s
        return Watched(self.order, begun_s, self.timeout_s)


class Starter(SpawnContext):
    """Starts the workers of a pool for pebble, and knows them: pebble names them to nobody.

    Never fork: this process has threads. Not forkserver: its server would keep the environment,
    and so the credentials, of its start.
    """

    def __init__(self) -> None:
        super().__init__()
        self._workers: list[SpawnProcess] = []

    def Process(  # type: ignore[override]  # noqa: N802 (multiprocessing's name)
        self,
        *args: Any,  # noqa: ANN401 (whatever pebble gives)
        **named: Any,  # noqa: ANN401
    ) -> SpawnProcess:
        """Make a worker; pebble starts it."""
        made = SpawnProcess(*args, **named)
        self._workers = [*self.workers(), made]
        return made

    def workers(self) -> list[SpawnProcess]:
        """Return those that have not ended, those that begin included."""
        return [worker for worker in self._workers if worker.exitcode is None]

    def kill(self) -> None:
        """End all at once, those that are still importing too."""
        for worker in self.workers():
            if worker.pid is not None:
                worker.kill()


class WorkerPool(Generic[Work, Result]):
    """Worker processes on this machine that do one function. To be used by one thread.

    The service, ``check --deep``, ``report`` and ``doctor`` all have theirs: every way in which a
    process, a pool or a task can end is known here and nowhere else.

    ``ended`` is called with what was given and how that ended: with what ``function`` returned,
    or with the failure that stands for it. That is in a thread of the pool or in the caller's.
    ``memory_bytes`` bounds each worker, ``silent_s`` how long nothing may be heard of tasks.
    """

    def __init__(
        self,
        ended: Callable[[Work, End[Result]], None],
        *,
        workers: int,
        memory_bytes: int,
        function: Callable[[Work], Result],
        stage_memory: Memory | None = None,
        silent_s: float = SILENT_S,
    ) -> None:
        self._ended = ended
        self._silent_s = silent_s
        self._open: dict[int, _Open[Work, Result]] = {}
        self._orders = itertools.count(1)
        self._newest_begun = self._begun_before_pool = 0
        self._heard_at_s = self._look_due_s = time.monotonic()
        self._workers = workers
        self._memory_bytes = memory_bytes
        self._stage_memory = stage_memory
        self._function = function
        self._pool: ProcessPool | None = None
        self._starter = Starter()
        self._closed = False

    def _running_pool(self) -> ProcessPool:
        if self._pool is None or not self._pool.active:
            self._end_pool()
            self._begun_before_pool = self._newest_begun
            self._pool = ProcessPool(
                max_workers=self._workers,
                max_tasks=RECYCLE_AFTER_TASKS,
                initializer=begin_worker,
                initargs=(self._memory_bytes, os.getpid(), self._stage_memory),
                context=self._starter,
            )
            try:
                with signals_held():
                    _ = self._pool.active  # starts it
            except (RuntimeError, OSError):
                # Pebble would try it again whenever it is asked whether it works.
                self._end_pool()
                raise
        return self._pool

    def start(self) -> None:
        """Start the workers now, so that the first instance does not wait for their imports."""
        with suppress(RuntimeError, OSError):
            # A pool that cannot start is reported with the first task.
            pool = self._running_pool()
            for _ in range(self._workers):
                pool.schedule(warm_up)

    def give(self, work: Work, *, timeout_s: float) -> None:
        """Start a task. A broken pool is replaced; what it lost comes back as ExecutorFailed."""
        try:
            future = self._running_pool().schedule(self._function, args=[work], timeout=timeout_s)
        except (RuntimeError, OSError) as exc:
            self._ended(work, ExecutorFailed(f"The worker pool does not start: {exc}"))
            return
        self._heard_at_s = time.monotonic()
        opened = _Open(next(self._orders), work, future, timeout_s, self._heard_at_s)
        self._open[opened.order] = opened
        future.add_done_callback(lambda _: self._deliver(opened))

    def look(self) -> None:
        """Give back what a broken or silent pool holds, without being asked.

        To be called again and again while tasks are open, by the thread that gives them: that is
        how what was lost is found. With a full window nothing is given any more, so nothing else
        would notice.
        """
        now_s = time.monotonic()
        if now_s >= self._look_due_s:
            self._look_due_s = now_s + LOOK_EVERY_S
            self._look(now_s)

    def close(self) -> None:
        """End the workers at once; tasks under way are lost and not reported."""
        self._closed = True
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            # Otherwise a worker that is just starting would miss what pebble takes away now, and
            # say so in a traceback.
            self._starter.kill()
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

    def _deliver(self, opened: _Open[Work, Result]) -> None:
        self._heard_at_s = time.monotonic()
        self._newest_begun = max(self._newest_begun, opened.order)
        self._open.pop(opened.order, None)
        if not self._closed:
            taken_s = time.monotonic() - opened.given_at_s
            end = end_of(opened.future, timeout_s=opened.timeout_s, taken_s=taken_s)
            self._ended(opened.work, end)


@dataclass(frozen=True, slots=True)
class _Asked(Generic[Work]):
    """What is to be done. ``number`` tells its turn, ``lost`` how often the pool lost it."""

    number: int
    work: Work
    lost: int = 0


def _do(function: Callable[[Work], Result], asked: _Asked[Work]) -> Result:
    return function(asked.work)


class OrderedPool(Generic[Work, Result]):
    """Worker processes whose results come in the order in which they were asked for.

    A context manager: it owns the processes. To be used by one thread. ``lost_max``: so often work
    that the pool lost, with no fault of its own, is done again.
    """

    def __init__(
        self,
        function: Callable[[Work], Result],
        *,
        workers: int,
        memory_bytes: int,
        timeout_s: float,
        lost_max: int = LOST_MAX,
        silent_s: float = SILENT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._lost_max = lost_max
        self._under_way_max = AHEAD * workers
        self._numbers = itertools.count()
        self._ended: queue.SimpleQueue[tuple[_Asked[Work], End[Result]]] = queue.SimpleQueue()
        self._pool: WorkerPool[_Asked[Work], Result] = WorkerPool(
            lambda asked, end: self._ended.put((asked, end)),
            workers=workers,
            memory_bytes=memory_bytes,
            function=functools.partial(_do, function),
            silent_s=silent_s,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pool.close()

    def start(self) -> None:
        """Start the workers before they are needed."""
        try:
            self._pool.start()
        except BaseException:  # Ctrl-C while they start
            self._pool.close()
            raise

    def results(self, works: Iterable[Work]) -> Iterator[tuple[Work, End[Result]]]:
        """Do everything; at most AHEAD for each worker are under way, or done and not taken yet.

        An iterator that is given up leaves its work to end unheard.
        """
        turns: deque[int] = deque()
        ends: dict[int, tuple[Work, End[Result]] | None] = {}
        for work in works:
            asked = _Asked(next(self._numbers), work)
            turns.append(asked.number)
            ends[asked.number] = None
            self._pool.give(asked, timeout_s=self._timeout_s)
            if len(turns) >= self._under_way_max:
                yield self._wait(ends, turns.popleft())
        while turns:
            yield self._wait(ends, turns.popleft())

    def _wait(
        self,
        ends: dict[int, tuple[Work, End[Result]] | None],
        number: int,
    ) -> tuple[Work, End[Result]]:
        """Wait for one; what ends meanwhile is kept, what the pool lost is done again."""
        while (end := ends[number]) is None:
            self._pool.look()
            with suppress(queue.Empty):
                asked, ended = self._ended.get(timeout=LOOK_EVERY_S)
                if asked.number not in ends:
                    continue  # of an iterator that was given up
                if isinstance(ended, ExecutorFailed) and asked.lost < self._lost_max:
                    again = replace(asked, lost=asked.lost + 1)
                    self._pool.give(again, timeout_s=self._timeout_s)
                else:
                    ends[asked.number] = (asked.work, ended)
        del ends[number]
        return end


class LocalExecutor(WorkerPool[Task, Outcome]):
    """The pool that moves instances, as an Executor.

    ``done`` is called with the task and its outcome, in a thread of the pool or in the caller's.
    ``stages`` is where workers tell what they do. ``function`` is what a worker runs; tests give
    others.
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
        self._stages = stages or Stages()
        self._workforce = Workforce(threads=workers, workers=workers)
        super().__init__(
            done,
            workers=workers,
            memory_bytes=memory_bytes,
            function=function,
            stage_memory=self._stages.memory,
            silent_s=silent_s,
        )

    def submit(self, task: Task) -> None:
        """Start a task; its outcome comes to ``done``."""
        self._stages.queue(task.number)
        self.give(task, timeout_s=task.job.task_timeout_s)

    def workforce(self) -> Workforce:
        """Look after the pool and describe it."""
        self.look()
        return self._workforce


def end_of(  # noqa: PLR0911 (a table of ends)
    ended: Future[Result], *, timeout_s: float, taken_s: float = float("inf")
) -> End[Result]:
    """Turn the end of a task, whatever it is, into its result or the failure that stands for it.

    ``taken_s``: since the pool had it, by a clock that nobody sets. Pebble goes by the machine's
    time of day: when that is set, or the machine was asleep, every task under way is out of time.
    """
    match CancelledError() if ended.cancelled() else ended.exception():
        case None:
            return ended.result()
        case FutureTimeoutError() if taken_s < EARLY * timeout_s:
            return ExecutorFailed("The clock of this machine was set while the task ran.")
        case FutureTimeoutError():
            return InstanceFailed(
                Reason.TIMED_OUT,
                f"Not finished within BRIDGE_TASK_TIMEOUT_S ({timeout_s:g} s); its worker was "
                "stopped.",
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
    if not _takes_more(STDERR):
        _write_nothing()
    import bridge.worker.transfer  # noqa: F401

    _write_nothing()
    adopt(memory)
    prepare_worker(memory_bytes, parent_pid)


def _takes_more(file: int) -> bool:
    """Tell whether a write to a file would not wait for a reader."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(0))


def _write_nothing() -> None:
    """Send what this process writes to stdout and stderr nowhere.

    Codecs write there too, and what they write may quote values of an image. A pipe that nobody
    reads would stop them, with an instance in hand.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDOUT)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)


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
    bound_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def bound_memory(memory_bytes: int) -> None:
    """Bound what this process can have written to: what it asks for counts, touched or not.

    RLIMIT_DATA counts the heap and every private mapping that can be written to, which is where
    malloc, numpy and the codecs get memory from, and what is copied on write. It does not count
    a file that is mapped to be read: the instance itself, of whatever size, whose pages the
    system takes back when it needs them. What it leaves out besides is memory that is shared on
    purpose, which no codec asks for; the address space, which counts all of it, is bounded beyond
    the two largest instances that are ever mapped at once.
    """
    _lower(resource.RLIMIT_DATA, memory_bytes)
    _lower(resource.RLIMIT_AS, memory_bytes + 2 * INSTANCE_BYTES_MAX)


def _lower(limit: int, wanted: int) -> None:
    """Lower a limit of this process; one that is lower already stays."""
    hard = resource.getrlimit(limit)[1]
    least = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(limit, (least, least))


@contextmanager
def signals_held() -> Iterator[None]:
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
        return f"Its worker process was killed by signal {name}."
    return f"Its worker process ended with code {exit_code}."
