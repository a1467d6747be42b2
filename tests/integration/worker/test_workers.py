"""Worker processes that crash, exit, hang, eat memory, raise: the task fails, nobody else does."""

from __future__ import annotations

import errno
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import spawn
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from bridge.model import (
    Delivered,
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
from bridge.worker.processes import Member, WorkerProcesses
from tests.bridge_process import (
    children_of,
    is_alive,
    process_environment,
    templates_of,
    wait_until,
    workers_of,
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

    def template(self) -> int:
        """What its workers are forked from."""
        processes = self.executor._processes
        assert processes is not None
        assert processes._process.pid is not None
        return processes._process.pid

    def processes(self) -> set[int]:
        """The template and its workers."""
        return {self.template(), *filter(is_alive, children_of(self.template()))}

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


def test_a_worker_is_replaced_after_so_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a codec leaks stays bounded, and nobody loses a task by that."""
    monkeypatch.setattr("bridge.worker.pool.RECYCLE_AFTER_TASKS", 5)
    made = Bench(workers=1)
    try:
        ended = made.run(*(task(f"work-{number}") for number in range(20))).values()
        done_by = Counter(one.sop_instance_uid for one in ended if isinstance(one, Delivered))
        assert [*done_by.values()] == [5] * 4
    finally:
        made.executor.close()


def test_who_dies_is_replaced_and_leaves_nobody_behind() -> None:
    others = _processes()
    made = Bench()
    try:
        for _ in range(3):
            _kill(min(made.pids()))
            while _lost_idle(made.run(task("good"))["good"]):
                pass
            made.pids()
            wait_until(lambda: len(_processes() - others) == 3, "two and their template")
    finally:
        made.executor.close()
    wait_until(lambda: not _processes() - others, "nobody is left")


def test_what_a_pool_lost_comes_back_without_another_submit() -> None:
    """With a full window nothing is submitted any more: whoever asks who works finds out."""
    made = Bench()
    try:
        for number in range(5):
            for pid in made.pids():
                _kill(pid)
            # To workers that end at this moment: into their channels, or too late for that.
            names = {f"good-{number}-{each}" for each in range(4)}
            for name in names:
                made.executor.submit(task(name))
            assert made.outcomes(len(names)).keys() == names
    finally:
        made.executor.close()


def test_a_worker_that_is_stopped_in_the_middle_of_a_task_costs_it_nothing() -> None:
    made = Bench(workers=1, silent_s=3.0)
    try:
        (pid,) = made.pids()
        made.executor.submit(task("hang"))
        processes = made.executor._processes
        assert processes is not None
        wait_until(
            lambda: any(processes.is_at_work(*seen) for seen in _in_hand(processes)), "it is begun"
        )
        os.kill(pid, signal.SIGSTOP)
        assert isinstance(made.outcomes(1)["hang"], ExecutorFailed), "no blame"
        wait_until(lambda: not is_alive(pid), "it is ended")
    finally:
        made.executor.close()


def _in_hand(processes: WorkerProcesses[Any]) -> list[tuple[Member[Any], int]]:
    return [(member, opened.number) for member, opened in processes.at_work()]


def test_workers_of_which_nothing_is_heard_are_replaced() -> None:
    others = _processes()
    made = Bench(silent_s=3.0)
    try:
        assert made.pids()
        pids = _processes() - others - {*templates_of(os.getpid())}
        assert len(pids) == 2
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        ended = made.run(task("good-1"), task("good-2"))
        assert len(ended) == 2
        assert all(isinstance(outcome, ExecutorFailed) for outcome in ended.values()), "no blame"
        wait_until(lambda: not any(map(is_alive, pids)), "the silent ones are ended")
        assert made.pids(), "others work"
    finally:
        made.executor.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_pool_whose_template_is_gone_or_stands_costs_nobody_an_attempt(
    number: signal.Signals,
) -> None:
    """All its workers are lost with it; what they had in hand is given back, and another begins."""
    others = _processes()
    made = Bench(silent_s=2.0)
    try:
        before = made.pids()
        template = made.template()
        made.executor.submit(task("hang"))
        processes = made.executor._processes
        assert processes is not None
        wait_until(
            lambda: any(processes.is_at_work(*seen) for seen in _in_hand(processes)), "it is begun"
        )
        made.executor.submit(task("work-1"))
        os.kill(template, number)
        if number is signal.SIGSTOP:
            for pid in before:  # nobody can replace them
                _kill(pid)
        ended = made.outcomes(2)
        assert isinstance(ended["hang"], ExecutorFailed), "no blame"
        assert not made.pids() & before, "others work"
        wait_until(lambda: not any(map(is_alive, {template, *before})), "the first are gone")
    finally:
        made.executor.close()
    wait_until(lambda: not _processes() - others, "nobody is left")


def test_what_workers_are_forked_from_has_one_thread_and_no_connection(bench: Bench) -> None:
    """A fork of a process with threads may wait for ever for a lock that nobody holds any more."""
    assert bench.pids()
    template = bench.template()
    assert len(list(Path(f"/proc/{template}/task").iterdir())) == 1
    links = [str(each.readlink()) for each in Path(f"/proc/{template}/fd").iterdir()]
    # The one to the bridge. Those of its workers are theirs alone.
    assert len([link for link in links if link.startswith("socket:")]) == 1, links


def test_what_codecs_print_goes_nowhere(bench: Bench) -> None:
    """It may quote an image, and a pipe that nobody reads would stop them."""
    assert bench.pids()
    for pid in bench.processes():
        for number in (1, 2):
            assert str(Path(f"/proc/{pid}/fd/{number}").readlink()) == os.devnull


def test_a_worker_has_its_own_channel_and_nobody_elses(bench: Bench) -> None:
    """Who had another one's would keep it open when that one dies."""
    pids = bench.pids()
    channels = []
    for pid in pids:
        links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        channels += [link for link in links if link.startswith("socket:")]
    assert len(channels) == len(set(channels)) == len(pids)


@pytest.mark.parametrize("name", ["segfault", "hang", "eat"])
@pytest.mark.parametrize("place", [0, 4, 8], ids=["first", "middle", "last"])
def test_neighbours_of_a_poison_lose_no_attempt(bench: Bench, name: str, place: int) -> None:
    """Wherever it stands among those that are at work at the same time, and before and after it."""
    names = [f"work-{number}" for number in range(8)]
    names.insert(place, name)
    ended = bench.run(*(task(each, timeout_s=2.0 if each == "hang" else WAIT_S) for each in names))
    assert isinstance(ended.pop(name), InstanceFailed)
    assert len(ended) == 8
    assert all(isinstance(outcome, Delivered) for outcome in ended.values()), ended


def test_a_pool_whose_workers_cannot_live_gives_everything_back() -> None:
    """Instead of making workers for ever: whoever waits for these tasks has to hear of it."""
    made = Bench()
    made.executor._memory_bytes = "none"  # type: ignore[assignment] # no worker can be bounded
    try:
        ended = made.run(*(task(f"good-{number}") for number in range(3)))
        assert all(isinstance(outcome, ExecutorFailed) for outcome in ended.values()), ended
    finally:
        made.executor.close()


def test_workers_that_cannot_live_are_not_made_for_ever() -> None:
    """With nothing to do, nobody would hear that each ends at once."""
    others = _processes()
    made = Bench()
    made.executor._memory_bytes = "none"  # type: ignore[assignment] # no worker can be bounded
    try:
        made.executor.start()
        wait_until(lambda: bool(_processes() - others), "it begins")
        wait_until(lambda: not _processes() - others, "it is given up")
    finally:
        made.executor.close()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # one of a pool that broke and was replaced
        os.kill(pid, signal.SIGKILL)


def _processes() -> set[int]:
    """The templates and workers of this process."""
    return {*templates_of(os.getpid()), *workers_of(os.getpid())}


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


def test_a_pool_that_is_still_importing_ends_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Else it would tell of it in a traceback."""
    others = _processes()
    made = Bench()
    made.executor.start()
    wait_until(lambda: bool(_processes() - others), "it begins")
    made.executor.close()
    wait_until(lambda: not _processes() - others, "nobody is left")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_asks_the_bridge_to_end_ends_nobody_else(bench: Bench, number: signal.Signals) -> None:
    """Ctrl-C and systemd tell the whole group: workers may have an instance in hand."""
    bench.pids()
    before = bench.processes()
    for pid in before:
        os.kill(pid, number)
    ended = bench.run(*(task(f"work-{each}") for each in range(6)))
    assert all(isinstance(outcome, Delivered) for outcome in ended.values()), ended
    assert bench.processes() == before


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


def test_a_stopped_template_and_its_workers_end_with_their_parent(tmp_path: Path) -> None:
    """It cannot hear that its socket is closed, and its workers hang in a decoder."""
    told = tmp_path / "pids"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(told)], env=process_environment({})
    )
    try:
        wait_until(lambda: told.exists() and told.read_text().count("\n") == 2, "both work")
        pids = [int(line) for line in told.read_text().split()]
        (template,) = templates_of(parent.pid)
        os.kill(template, signal.SIGSTOP)
    finally:
        parent.kill()
        parent.wait(WAIT_S)
    wait_until(lambda: not any(map(is_alive, [template, *pids])), "all die")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("nowhere", "nowhere is not there, or not for this user"),
        ("forbidden", "forbidden is not there, or not for this user"),
        ("fails", "its template ended"),
    ],
)
def test_why_the_pool_does_not_start_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, said: str
) -> None:
    """A pipe that broke was told, and that the log has details, which it did not have.

    Planted, seen to fail: nobody looks whether the program may be executed; a pipe that breaks is
    told as such.
    """
    made = Bench()
    before = spawn.get_executable()
    start = SpawnProcess.start

    def start_and_end(process: SpawnProcess) -> None:
        start(process)
        process.join(WAIT_S)  # what it is asked then meets a pipe that is broken

    monkeypatch.setattr(SpawnProcess, "start", start_and_end)
    (tmp_path / "forbidden").touch(0o600)
    (tmp_path / "fails").symlink_to(str(shutil.which("false")))
    multiprocessing.set_executable(str(tmp_path / program))
    try:
        (outcome,) = made.run(task("first")).values()
        assert isinstance(outcome, ExecutorFailed)
        assert said in outcome.message
        assert "Errno" not in outcome.message
        assert ("stderr" in outcome.message) is ("template" in said)
    finally:
        multiprocessing.set_executable(before)
        made.executor.close()


def test_workers_that_cannot_be_started_end_nobody_and_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each task that is given meanwhile hears of it, and the next one is tried anew."""

    def no_process(_self: SpawnProcess) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    others = _processes()
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
    wait_until(lambda: not _processes() - others, "nobody is left")
