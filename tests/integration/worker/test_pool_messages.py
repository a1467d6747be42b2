"""What goes between the bridge and its workers: of any size, and whatever becomes of the others."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.checks.pixels import compare_images
from bridge.model import InstanceFailed, Reason
from bridge.worker import processes as processes_module
from bridge.worker.places import SLOTS
from bridge.worker.pool import VAIN_MAX, End, WorkerPool
from bridge.worker.transfers import Transfers
from tests.bridge_process import children_of, is_alive, templates_of, wait_until
from tests.worker_functions import echo

WAIT_S = 60.0
MEMORY_BYTES = 512 * 1024 * 1024
SIZES = (0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 256 * 1024 - 4, 256 * 1024, 3 << 20)
"""Around what a socket, a pipe and a read take at once, and far beyond."""


class Size(Transfers):
    """As many workers as the test says."""

    wanted = 4

    def __init__(self) -> None:
        super().__init__(1, 64)

    @property
    def size(self) -> int:
        return self.wanted


class Echo:
    """A pool whose workers give back what they are given."""

    def __init__(self) -> None:
        self.ended: queue.Queue[tuple[bytes, End[bytes]]] = queue.Queue()
        self.size = Size()
        self.pool: WorkerPool[bytes, bytes] = WorkerPool(
            lambda work, end: self.ended.put((work, end)),
            workers=4,
            memory_bytes=MEMORY_BYTES,
            function=echo,
            transfers=self.size,
        )

    def template(self) -> int:
        """What its workers are forked from."""
        processes = self.pool._processes
        assert processes is not None
        assert processes._process.pid is not None
        return processes._process.pid

    def workers(self) -> int:
        """So many there are."""
        return sum(map(is_alive, children_of(self.template())))

    def run(self, *works: bytes) -> dict[bytes, End[bytes]]:
        for work in works:
            self.pool.give(work, timeout_s=WAIT_S)
        return dict(self.ended.get(timeout=WAIT_S) for _ in works)


@pytest.fixture(scope="module")
def echoes() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.pool.close()


def test_what_is_given_comes_back_whatever_its_size(echoes: Echo) -> None:
    works = [bytes([65 + place]) * size for place, size in enumerate(SIZES)]
    assert echoes.run(*works) == {work: work for work in works}


@pytest.mark.parametrize("at", [0, 6, 12], ids=["first", "middle", "last"])
def test_who_dies_with_a_large_message_takes_nobody_along(echoes: Echo, at: int) -> None:
    """Three others have large messages under way meanwhile, both ways."""
    works = [bytes([65 + number]) * (1 << 20) for number in range(12)]
    poison = b"x" * (1 << 20) + b"!"
    works.insert(at, poison)
    ended = echoes.run(*works)
    died = ended.pop(poison)
    assert isinstance(died, InstanceFailed)
    assert died.reason is Reason.WORKER_DIED
    works.remove(poison)
    assert ended == {work: work for work in works}


def test_workers_that_are_let_go_before_they_had_a_task_are_no_failure() -> None:
    """More were asked for than there was work: they end, and nobody loses anything by that."""
    made = Echo()
    try:
        count = VAIN_MAX + 10
        made.size.wanted = count
        assert made.run(b"a") == {b"a": b"a"}
        template = made.template()
        wait_until(lambda: made.workers() == count, "all are there")
        made.size.wanted = 1
        assert made.run(b"b") == {b"b": b"b"}
        wait_until(lambda: made.workers() == 1, "one is left")
        assert made.run(b"c") == {b"c": b"c"}
        assert made.template() == template, "it was not thought to be broken"
    finally:
        made.pool.close()


def test_a_worker_that_could_not_be_made_is_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that had no room for a moment."""
    monkeypatch.setattr(processes_module, "SHORT_S", 0.2)
    made, calls = Echo(), [0]
    pair = socket.socketpair

    def refuses(*arguments: int) -> tuple[socket.socket, socket.socket]:
        calls[0] += 1
        if not arguments and calls[0] > 2:
            raise OSError(24, "Too many open files")
        return pair(*arguments)

    try:
        with monkeypatch.context() as short:
            short.setattr(socket, "socketpair", refuses)
            assert made.run(b"a", b"b") == {b"a": b"a", b"b": b"b"}
            assert made.workers() == 1

        def are_four() -> bool:
            assert made.run(b"c") == {b"c": b"c"}
            return made.workers() == 4

        wait_until(are_four, "all that are wanted")
    finally:
        made.pool.close()


def test_no_two_workers_have_the_same_place_in_shared_memory() -> None:
    """One that lives long meets the numbers of those that came a round later."""
    made = Echo()
    try:
        assert made.run(b"a") == {b"a": b"a"}
        processes = made.pool._processes
        assert processes is not None
        first = {*processes._members}
        processes._numbers = SLOTS
        made.size.wanted = 12
        assert made.run(b"b") == {b"b": b"b"}
        wait_until(lambda: made.workers() == 12, "all are there")
        numbers = [*processes._members]
        assert first < {*numbers}
        assert len({number % SLOTS for number in numbers}) == 12
    finally:
        made.pool.close()


def test_what_is_given_to_a_closed_pool_touches_no_file() -> None:
    """The number of what it was woken by is another file's by now: the state file's, perhaps."""
    made = Echo()
    assert made.run(b"a") == {b"a": b"a"}
    wake = made.pool._wake
    made.pool.close()
    others = [os.open(os.devnull, os.O_RDONLY)]
    while others[-1] < wake:  # everything below is taken, and the pipe gets other numbers
        others.append(os.open(os.devnull, os.O_RDONLY))
    reading, writing = os.pipe()
    try:
        os.dup2(writing, wake)
        made.pool.give(b"b", timeout_s=1.0)
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):
            os.read(reading, 100)
    finally:
        for descriptor in {reading, writing, wake, *others}:
            os.close(descriptor)
    assert made.ended.empty()


def test_what_a_function_imports_starts_no_thread_in_what_workers_are_forked_from() -> None:
    """numpy's library would, at its import: one for each further processor."""
    pool: WorkerPool[Any, Any] = WorkerPool(
        lambda _work, _end: None, workers=1, memory_bytes=MEMORY_BYTES, function=compare_images
    )
    before = {*templates_of(os.getpid())}
    pool.start()
    try:
        wait_until(lambda: bool({*templates_of(os.getpid())} - before), "it is started")
        (template,) = {*templates_of(os.getpid())} - before
        wait_until(lambda: bool(children_of(template)), "it has imported everything", WAIT_S)
        assert len([*Path(f"/proc/{template}/task").iterdir()]) == 1
    finally:
        pool.close()


def test_a_library_with_threads_of_its_own_is_told_to_have_one() -> None:
    """OpenBLAS ends its threads at a fork, and would begin them again in each worker."""
    told: queue.Queue[object] = queue.Queue()
    pool: WorkerPool[str, Any] = WorkerPool(
        lambda _work, end: told.put(end),
        workers=1,
        memory_bytes=MEMORY_BYTES,
        function=os.getenv,
    )
    try:
        pool.give("OPENBLAS_NUM_THREADS", timeout_s=WAIT_S)
        assert told.get(timeout=WAIT_S) == "1"
    finally:
        pool.close()
