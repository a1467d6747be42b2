"""Worker processes that crash, exit, hang, eat memory, raise: the task fails, nobody else does."""

from __future__ import annotations

import errno
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from bridge.model import (
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Move,
    Outcome,
    Reason,
    SideName,
    Skipped,
    Task,
)
from bridge.worker.pool import LOOK_EVERY_S, LocalExecutor
from bridge.worker.pool_watch import SILENT_S
from tests.bridge_process import (
    children_of,
    is_alive,
    is_tracker,
    process_environment,
    wait_until,
)
from tests.worker_functions import PATIENT, misbehave

MEMORY_BYTES = 512 * 1024 * 1024
TIMEOUT_S = 0.7
WAIT_S = 30.0


def task(name: str, number: int = 0, *, timeout_s: float = 20.0) -> Task:
    job = Job(
        source=Endpoint(SideName.SOURCE, "http://source.invalid"),
        target=Endpoint(SideName.TARGET, "http://target.invalid"),
        wanted_syntax="1.2.840.10008.1.2.1",
        task_timeout_s=timeout_s,
    )
    return Task(Move(name), job, number)


class Bench:
    """An executor and what comes back from it."""

    def __init__(self, workers: int = 2, silent_s: float = SILENT_S) -> None:
        self.ended: queue.Queue[tuple[Task, Outcome]] = queue.Queue()
        self.executor = LocalExecutor(
            lambda task, outcome: self.ended.put((task, outcome)),
            workers=workers,
            memory_bytes=MEMORY_BYTES,
            function=misbehave,
            silent_s=silent_s,
        )

    def run(self, *tasks: Task) -> dict[str, Outcome]:
        """Run tasks; their outcomes by instance."""
        for each in tasks:
            self.executor.submit(each)
        return self.outcomes(len(tasks))

    def outcomes(self, count: int) -> dict[str, Outcome]:
        """Wait for so many tasks to end, as the pipeline does: it asks who works meanwhile."""
        said: dict[str, Outcome] = {}

        def all_said() -> bool:
            self.executor.workforce()
            with suppress(queue.Empty):
                while True:
                    task, outcome = self.ended.get_nowait()
                    said[task.move.instance_id] = outcome
            return len(said) >= count

        wait_until(all_said, f"{count} tasks end", WAIT_S)
        return said

    def pids(self) -> set[int]:
        """The processes that do tasks; asked again when a pool broke with the question."""
        found: set[int] = set()

        def told() -> bool:
            ended = self.run(*(task(f"tell-{number}") for number in range(20)))
            found.update(int(o.message) for o in ended.values() if isinstance(o, Skipped))
            return bool(found)

        wait_until(told, "a worker tells its number")
        return found


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.executor.close()


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("segfault", Reason.WORKER_DIED, "SIGSEGV"),
        ("abort", Reason.WORKER_DIED, "SIGABRT"),
        ("exit", Reason.WORKER_DIED, "code 7"),
        ("hang", Reason.TIMED_OUT, "BRIDGE_TASK_TIMEOUT_S (0.7 s)"),
        ("hang-in-c", Reason.TIMED_OUT, "BRIDGE_TASK_TIMEOUT_S (0.7 s)"),
        ("eat", Reason.OUT_OF_MEMORY, "BRIDGE_WORKER_MEMORY_MB"),
        ("raise", Reason.INTERNAL, "ValueError"),
        ("unpicklable", Reason.WORKER_DIED, "code 1"),
        ("system-exit", Reason.INTERNAL, "SystemExit"),
    ],
)
def test_a_poison_fails_alone(bench: Bench, name: str, reason: Reason, said: str) -> None:
    # Only what hangs is ended by its time-out; the others may take as long as the machine does.
    poison = task(name, timeout_s=TIMEOUT_S if reason is Reason.TIMED_OUT else WAIT_S)
    others = [task(f"good-{number}") for number in range(8)]
    ended = bench.run(*others[:4], poison, *others[4:])
    failed = ended.pop(name)
    assert isinstance(failed, InstanceFailed)
    assert failed.reason is reason
    assert said in failed.message
    assert PATIENT not in repr(failed)
    assert not failed.final, "bad luck may have been the cause: it has its other attempts"
    assert all(isinstance(outcome, Skipped) for outcome in ended.values())
    assert len(ended) == 8


def test_an_idle_worker_that_is_killed_costs_nothing(bench: Bench) -> None:
    before = bench.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    ended = bench.run(*(task(f"good-{number}") for number in range(8)))
    assert all(isinstance(o, Skipped | ExecutorFailed) or _lost_idle(o) for o in ended.values())
    assert not bench.pids() & before


def test_a_pool_that_broke_leaves_no_worker_behind() -> None:
    """Pebble gives up a pool whose idle worker dies: its other workers would stay for ever."""
    others = _children()
    made = Bench()
    try:
        for _ in range(3):
            _kill(min(made.pids()))
            while _lost_idle(made.run(task("good"))["good"]):
                pass
            made.pids()
            wait_until(lambda: len(_children() - others) <= 2, "old and new together are two")
    finally:
        made.executor.close()
    wait_until(lambda: not _children() - others, "nobody is left")


def test_what_a_pool_lost_comes_back_without_another_submit() -> None:
    """With a full window nothing is submitted any more: whoever asks who works finds out."""
    made = Bench()
    try:
        for number in range(5):
            for pid in made.pids():
                _kill(pid)
            # Into a pool that breaks at this moment: into its queue, its pipe, or too late for
            # both.
            names = {f"good-{number}-{each}" for each in range(4)}
            for name in names:
                made.executor.submit(task(name))
            assert made.outcomes(len(names)).keys() == names
    finally:
        made.executor.close()


def test_a_pool_of_which_nothing_is_heard_is_replaced() -> None:
    others = _children()
    made = Bench(silent_s=5.0)
    try:
        assert made.pids()
        pids = _children() - others
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        ended = made.run(*(task(f"good-{number}") for number in range(4)))
        assert len(ended) == 4
        assert all(isinstance(outcome, ExecutorFailed) for outcome in ended.values()), "no blame"
        wait_until(lambda: not any(map(is_alive, pids)), "the silent ones are ended")
        assert made.pids(), "others work"
    finally:
        made.executor.close()


def test_a_worker_that_died_with_the_lock_of_all_costs_nobody_an_attempt() -> None:
    """Who takes a task or tells of its end holds a lock that nobody can take from the dead."""
    made = Bench(silent_s=3.0)
    try:
        assert made.pids()
        made.executor.submit(task("hang"))
        pool = made.executor._pool
        assert pool is not None
        channel = pool._pool_manager.worker_manager.workers_channel
        assert channel is not None
        wait_until(lambda: bool(channel.mutex.acquire(timeout=0.1)), "the lock is taken")
        ended = made.run(*(task(f"good-{number}") for number in range(3)))
        ended |= made.outcomes(4 - len(ended))
        assert ended.keys() == {"hang", "good-0", "good-1", "good-2"}
        assert all(isinstance(outcome, ExecutorFailed) for outcome in ended.values()), "no blame"
        assert made.pids(), "others work"
    finally:
        made.executor.close()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # one of a pool that broke and was replaced
        os.kill(pid, signal.SIGKILL)


def _children() -> set[int]:
    """The processes that this one has started, without the helper that tracks resources."""
    return {pid for pid in children_of(os.getpid()) if is_alive(pid) and not is_tracker(pid)}


def _lost_idle(outcome: Outcome) -> bool:
    """A task may have been on its way to the worker at that moment."""
    return isinstance(outcome, InstanceFailed) and outcome.reason is Reason.WORKER_DIED


def test_close_ends_the_workers_and_reports_nothing_more() -> None:
    made = Bench(workers=1)
    pids = made.pids()
    made.executor.submit(task("hang"))
    made.executor.close()
    assert pids
    wait_until(lambda: not any(map(is_alive, pids)), "the workers end")
    assert made.ended.empty()


def test_every_worker_that_pebble_starts_is_known() -> None:
    """Of the installed pebble: it makes its workers with the context that it was given."""
    others = _children()
    made = Bench()
    starter = made.executor._starter

    def known() -> set[int | None]:
        return {worker.pid for worker in starter.workers()}

    try:
        assert made.pids()
        first = known()
        assert len(first) == 2
        wait_until(lambda: first == _children() - others, "all that were started are known")
        made.run(task("exit"))
        wait_until(lambda: len(known()) == 2 and known() != first, "another one is started")
        assert made.pids()
        wait_until(lambda: known() == _children() - others, "the one that ended is gone")
    finally:
        made.executor.close()
    assert known() == set()


def test_workers_that_are_still_importing_end_before_pebble_takes_their_pipes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else they would tell of it in a traceback."""
    made = Bench()
    made.executor.start()
    starter, end_pool = made.executor._starter, made.executor._end_pool
    assert len(starter.workers()) == 2

    def end_after_them() -> None:
        wait_until(lambda: starter.workers() == [], "the workers end")
        end_pool()

    monkeypatch.setattr(made.executor, "_end_pool", end_after_them)
    made.executor.close()


def test_workers_keep_no_core_file_and_have_a_memory_limit(bench: Bench) -> None:
    for pid in bench.pids():
        limits = Path(f"/proc/{pid}/limits").read_text()
        rows = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
        assert rows["Max core file size"] == "0"
        assert rows["Max data size"] == str(MEMORY_BYTES)
        assert int(rows["Max address space"]) > MEMORY_BYTES


PARENT = """
import sys, threading
from bridge.worker.pool import LocalExecutor
from tests.integration.worker.test_workers import task
from tests.worker_functions import report_and_hang

executor = LocalExecutor(
    lambda *_: None, workers=2, memory_bytes=1 << 30, function=report_and_hang
)
executor.submit(task(sys.argv[1], 1))
executor.submit(task(sys.argv[1], 2))
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    told = tmp_path / "pids"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(told)], env=process_environment({})
    )
    try:
        wait_until(lambda: told.exists() and told.read_text().count("\n") == 2, "both work")
        pids = [int(line) for line in told.read_text().split()]
        assert all(map(is_alive, pids))
    finally:
        parent.send_signal(number)
        parent.wait(WAIT_S)
    wait_until(lambda: not any(map(is_alive, pids)), "the workers die too")


def test_workers_that_cannot_be_started_end_nobody_and_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pebble says it by raising, from whatever asks whether the pool works."""

    def no_process(_self: SpawnProcess) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    others = _children()
    made = Bench()
    try:
        with monkeypatch.context() as broken:
            broken.setattr(SpawnProcess, "start", no_process)
            made.executor.start()
            for name in ("first", "second"):
                (outcome,) = made.run(task(name)).values()
                assert isinstance(outcome, ExecutorFailed)
                assert "does not start" in outcome.message
            made.executor.workforce()
            time.sleep(2 * LOOK_EVERY_S)
            made.executor.workforce()
        assert made.pids(), "it works again"
    finally:
        made.executor.close()
    wait_until(lambda: not _children() - others, "nobody is left")
