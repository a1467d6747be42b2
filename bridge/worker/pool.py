"""The executor: local worker processes that can be killed one by one.

One thread owns the processes: it hands out tasks, takes their ends, kills what hangs, and turns
every end of a task into an Outcome. Each worker has a channel of its own, does one task at a time,
and is a fork of a template (template.py). What nobody is to blame for comes back as
ExecutorFailed: it costs an instance nothing.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pickle
import queue
import selectors
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from typing import Any, Generic, Self, TypeAlias, TypeVar

from bridge.errors import OUT_OF_MEMORY
from bridge.events import Workforce
from bridge.model import ExecutorFailed, InstanceFailed, Outcome, Reason, SideFailed, Task
from bridge.worker.pool_watch import SILENT_S, Hanging, hanging_of
from bridge.worker.processes import Member, ProcessesLost, WorkerProcesses
from bridge.worker.stages import Memory, Stages
from bridge.worker.template import END, RAISED
from bridge.worker.transfers import Transfers

RECYCLE_AFTER_TASKS = 10_000
"""A worker is replaced after so many tasks: a leak in a codec then stays bounded."""

LOOK_EVERY_S = 0.5
"""So often the pool is looked after, by whoever asks for the workforce, and by its own thread."""
CLOSE_S = 10.0

AHEAD = 3
"""Results under way or ready for each worker of an OrderedPool: what bounds memory here."""
LOST_MAX = 2
"""So often work that the pool lost, with no fault of its own, is done again."""
ANSWER_FACTOR = 4
"""The template may take so much longer to do what it is asked than a worker may be silent."""
VAIN_MAX = 10
"""So many workers in a row that ended without having begun a task: others would too."""


def run_task(task: Task) -> Outcome:
    """Move the instance, in a worker: codecs are imported there and nowhere else."""
    from bridge.worker.transfer import move

    return move(task)


Work = TypeVar("Work")
Result = TypeVar("Result")
End: TypeAlias = Result | InstanceFailed | ExecutorFailed
"""How work ended: with its result, or with the failure that stands for it."""


@dataclass(frozen=True, slots=True)
class _Open(Generic[Work]):
    """A task in the pool's hands."""

    number: int
    work: Work
    timeout_s: float


class WorkerPool(Generic[Work, Result]):
    """Worker processes on this machine that do one function. To be used by one thread.

    The service, ``check --deep``, ``report`` and ``doctor`` all have theirs: every way in which a
    process, a pool or a task can end is known here and nowhere else.

    ``ended`` is called with what was given and how that ended: with what ``function`` returned,
    or with the failure that stands for it. That is in the pool's thread. ``memory_bytes`` bounds
    each worker, ``silent_s`` how long one may not begin what it was given. ``transfers`` tells how
    many workers there are to be, where that is not always the same; ``places``, how many of them
    may have what needs memory or a processor at the same time (places.py), 0 for all.
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
        transfers: Transfers | None = None,
        places: int = 0,
    ) -> None:
        self._ended = ended
        self._transfers = transfers or Transfers(workers, workers)
        self._places = places
        self._memory_bytes = memory_bytes
        self._function = function
        self._stage_memory = stage_memory
        self._silent_s = silent_s
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open[Work]] = {}
        """What was given, until its end is told."""
        self._ends: list[tuple[_Open[Work], End[Result]]] = []
        """Ends that are to be told, once workers have something to do again."""
        self._given: deque[_Open[Work]] = deque()
        """What no worker has yet. The caller's thread adds to it, the pool's takes from it."""
        self._wanted = self._closed = False
        self._hungry = True
        """Whether the pool's thread is to be woken for what is given: a worker could begin it."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._processes: WorkerProcesses[_Open[Work]] | None = None
        self._vain = 0
        self._look_due_s = 0.0
        self._thread: threading.Thread | None = None
        _POOLS.add(self)

    # For the thread that has it

    def start(self) -> None:
        """Start the workers now, so that the first instance does not wait for their imports."""
        self._wanted = True
        self._run()

    def give(self, work: Work, *, timeout_s: float) -> None:
        """Start a task. What the pool loses comes back as ExecutorFailed, if it is not closed."""
        if self._closed:
            return
        opened = _Open(next(self._numbers), work, timeout_s)
        self._open[opened.number] = opened
        self._given.append(opened)
        if self._hungry:
            self._run()

    def look(self) -> None:
        """Give back what a pool holds whose thread has ended by something that nobody foresaw.

        To be called again and again while tasks are open, by the thread that gives them: with a
        full window nothing is given any more, so nothing else would notice.
        """
        if self._thread is None or self._thread.is_alive() or self._closed:
            return
        self._given.clear()
        for opened in list(self._open.values()):
            self._tell(opened, ExecutorFailed("The worker pool's thread has ended by a bug."))

    def close(self) -> None:
        """End the workers at once; tasks under way are lost and not reported."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                return  # it has these, and their numbers must not become other files'
        self._selector.close()
        os.close(self._wake)

    def _run(self) -> None:
        """Wake the pool's thread, or start it."""
        os.eventfd_write(self._wake, 1)
        if self._thread is None or not self._thread.is_alive():
            self.look()
            self._thread = threading.Thread(target=self._work, name="worker-pool", daemon=True)
            with signals_held():
                self._thread.start()

    # The pool's thread

    def _work(self) -> None:
        try:
            while not self._closed:
                self._turn()
        finally:
            self._hungry = True
            processes, self._processes = self._processes, None
            if processes is not None:
                processes.close()

    def _turn(self) -> None:
        """Hand out what there is, wait for something to happen, and see to it."""
        try:
            if self._processes is None and (self._wanted or self._given):
                self._processes = self._new_processes()
            if self._processes is None:
                self._hungry = True
                if not self._given:
                    self._wait(None)
                return
            self._hand_out(self._processes)
            # Before the last look at what was given: who gives after it wakes this thread.
            self._hungry = self._processes.has_idle
            self._hand_out(self._processes)
            may_sleep = self._transfers.settled and not self._processes.busy
            self._see_to(self._processes, self._wait(None if may_sleep else LOOK_EVERY_S))
        except ProcessesLost as exc:
            self._lose_processes(exc)
        finally:
            ends, self._ends = self._ends, []
            for opened, end in ends:
                self._tell(opened, end)

    def _new_processes(self) -> WorkerProcesses[_Open[Work]]:
        return WorkerProcesses(
            self._selector,
            function=self._function,
            memory_bytes=self._memory_bytes,
            stage_memory=self._stage_memory,
            answer_s=ANSWER_FACTOR * self._silent_s,
            places=self._places,
        )

    def _wait(self, timeout_s: float | None) -> set[int]:
        """Wait for something to happen; the descriptors at which it did."""
        ready = {key.fd for key, _ in self._selector.select(timeout_s)}
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        return ready

    def _hand_out(self, processes: WorkerProcesses[_Open[Work]]) -> None:
        processes.resize(self._transfers.size)
        while self._given and processes.has_idle:
            opened = self._given.popleft()
            try:
                work = pickle.dumps(opened.work, pickle.HIGHEST_PROTOCOL)
            except Exception as exc:  # noqa: BLE001 (whatever it raises, it is about this one)
                self._ends.append((opened, failure_of_raised(type(exc).__name__)))
                continue
            processes.give(opened, opened.number, work)

    def _see_to(self, processes: WorkerProcesses[_Open[Work]], ready: set[int]) -> None:
        """Take what was told, hand out more at once, and end what hangs."""
        for member, message in processes.told(ready):
            if member.task is not None:
                end, waited_s = end_of(message, member.task.number)
                self._ends.append((member.task, end))
                now_s = time.monotonic()
                self._transfers.note(
                    now_s,
                    in_hand_s=now_s - member.since_s,
                    waited_s=waited_s,
                    failed=isinstance(end, SideFailed),
                )
                self._free(processes, member)
        for member, messages, code in processes.ends(ready):
            opened = member.task
            if not member.leaving:
                self._vain = 0 if member.tasks else self._vain + 1
            if opened is None:
                continue
            if messages:
                self._ends.append((opened, end_of(messages[0], opened.number)[0]))
            else:
                begun = processes.has_begun(member, opened.number)
                end = _death(member.ended_for, opened, code, begun=begun)
                self._ends.append((opened, end))
        self._hand_out(processes)
        now_s = time.monotonic()
        self._transfers.decide(now_s, under_way=len(processes.in_hand()))
        if now_s >= self._look_due_s:
            self._look_due_s = now_s + LOOK_EVERY_S
            self._end_what_hangs(processes, now_s)
        if self._vain > VAIN_MAX:
            raise ProcessesLost("its workers end before they do anything", vain=True)

    def _free(self, processes: WorkerProcesses[_Open[Work]], member: Member[_Open[Work]]) -> None:
        self._vain = 0
        processes.free(member)
        if member.tasks >= RECYCLE_AFTER_TASKS:
            processes.let_go(member)

    def _end_what_hangs(self, processes: WorkerProcesses[_Open[Work]], now_s: float) -> None:
        for member, opened in list(processes.at_work()):
            taken_s = now_s - member.since_s
            if taken_s <= min(self._silent_s, opened.timeout_s):
                continue
            hanging = hanging_of(
                at_work=processes.is_at_work(member, opened.number),
                taken_s=taken_s,
                waited_s=processes.waited_s(member, now_s),
                timeout_s=opened.timeout_s,
                silent_s=self._silent_s,
            )
            if hanging is not Hanging.NOT:
                processes.kill(member, hanging)

    def _lose_processes(self, lost: ProcessesLost) -> None:
        """Give back what its workers had; and what waits, too, where another would do no better."""
        processes, self._processes, self._vain = self._processes, None, 0
        if processes is not None:
            processes.close()
            for opened in processes.in_hand():
                lost_it = ExecutorFailed(f"The worker pool lost the task: {lost}.")
                self._ends.append((opened, lost_it))
        if lost.vain:
            self._wanted = False
            failed = ExecutorFailed(f"The worker pool does not start: {lost}.")
            for _ in range(len(self._given)):
                self._ends.append((self._given.popleft(), failed))

    def _tell(self, opened: _Open[Work], end: End[Result]) -> None:
        if self._open.pop(opened.number, None) is not None and not self._closed:
            self._ended(opened.work, end)


_POOLS: weakref.WeakSet[WorkerPool[Any, Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the pools that nobody has closed: this process would wait for their templates."""
    for pool in list(_POOLS):
        pool.close()


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
    ``workers``: so many may have a large instance, or decode, at the same time. ``transfers``: so
    many instances may be under way at most, each in a process of its own; None for as many as
    workers. ``places``: where there are always as many processes as ``workers``, so many decode.
    ``stages`` is where workers tell what they do. ``function`` is what a worker runs; tests give
    others.
    """

    def __init__(
        self,
        done: Callable[[Task, Outcome], None],
        *,
        workers: int,
        memory_bytes: int,
        transfers: int | None = None,
        places: int | None = None,
        stages: Stages | None = None,
        function: Callable[[Task], Outcome] = run_task,
        silent_s: float = SILENT_S,
    ) -> None:
        self._stages = stages or Stages()
        self._workers = workers
        self._sizes = Transfers(workers, transfers or workers)
        super().__init__(
            done,
            workers=workers,
            memory_bytes=memory_bytes,
            function=function,
            stage_memory=self._stages.memory,
            silent_s=silent_s,
            transfers=self._sizes,
            places=places or workers,
        )

    def submit(self, task: Task) -> None:
        """Start a task; its outcome comes to ``done``."""
        self._stages.queue(task.number)
        self.give(task, timeout_s=task.job.task_timeout_s)

    def workforce(self) -> Workforce:
        """Look after the pool and describe it."""
        self.look()
        size, most = self._sizes.size, self._sizes.most
        return Workforce(threads=size, workers=self._workers, threads_max=most)


def failure_of_raised(name: str) -> InstanceFailed:
    """Return the failure that stands for an exception, told by its name, that left a task.

    `move` returns its failures; what is left, such as SystemExit, must still end the task. Only its
    kind is told: its text may quote values.
    """
    if name == MemoryError.__name__:
        return InstanceFailed(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY)
    return InstanceFailed(Reason.INTERNAL, f"A bug in the bridge: {name} left a worker's task.")


def end_of(message: bytes, number: int) -> tuple[Any, float]:
    """Return what a worker tells of a task: its result, or the failure that stands for it.

    And for how many seconds it waited for servers. ``number``: the task that it has in hand. What a
    damaged worker says of another one must not become an arrival of this one.
    """
    try:
        kind, told_number, waited_s = END.unpack_from(message)
        if told_number != number:
            return failure_of_raised("what was told of another task"), 0.0
        told = message[END.size :]
        if kind == RAISED:
            return failure_of_raised(told.decode("utf-8", "replace")), 0.0
        return pickle.loads(told), waited_s  # noqa: S301 (of our own worker)
    except Exception as exc:  # noqa: BLE001 (whatever it raises, it is about this one)
        return failure_of_raised(type(exc).__name__), 0.0


def _death(
    ended_for: Hanging | None, opened: _Open[Any], code: int, *, begun: bool
) -> InstanceFailed | ExecutorFailed:
    """Return what the end of a worker says of the task that it had in hand."""
    if ended_for is Hanging.LATE:
        return InstanceFailed(
            Reason.TIMED_OUT,
            f"Not finished within BRIDGE_TASK_TIMEOUT_S ({opened.timeout_s:g} s); its worker was "
            "stopped.",
        )
    if ended_for is Hanging.SILENT or not begun:
        return ExecutorFailed("The worker pool lost the task: its worker had not begun it.")
    return InstanceFailed(Reason.WORKER_DIED, _told(code))


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


def _told(exit_code: int) -> str:
    if exit_code < 0:
        known = -exit_code in {number.value for number in signal.Signals}
        name = signal.Signals(-exit_code).name if known else str(-exit_code)
        return f"Its worker process was killed by signal {name}."
    return f"Its worker process ended with code {exit_code}."
