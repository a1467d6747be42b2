"""Images of both servers compared in worker processes: what dies or hangs costs itself only."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest

from bridge.checks.pixels import ImageComparer, ImageComparison, ImageResult, ImageTask
from bridge.errors import TargetError
from bridge.model import Endpoint, Job, SideFailed, SideName, SideProblem
from bridge.worker.pool_watch import SILENT_S
from tests.bridge_process import is_alive, templates_of, wait_until, workers_of
from tests.worker_functions import PATIENT

MEMORY = 512 * 1024 * 1024
WAIT_S = 60.0


def scripted(task: ImageTask) -> ImageComparison:
    """Do what the identifier says; runs in a worker."""
    match task.instance_id.partition("-")[0]:
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exits":
            os._exit(7)
        case "holds":  # the interpreter's lock: no Python signal handler runs any more
            ctypes.PyDLL(None).pause()
        case "eats":
            eaten = [bytearray(16 * 1024 * 1024) for _ in range(1000)]
            return ImageComparison(task.instance_id, ImageResult.SAME, str(len(eaten)))
        case "raises":
            raise ValueError(PATIENT)
        case "leaves":
            sys.exit(3)
        case "down":
            failure = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "it is down")
            return ImageComparison(task.instance_id, ImageResult.UNDECIDED, failure=failure)
        case "refused":
            text = "HTTP 500"
            failure = SideFailed(SideName.TARGET, SideProblem.SERVER_ERROR, text, specific=True)
            return ImageComparison(task.instance_id, ImageResult.UNDECIDED, text, failure=failure)
    return ImageComparison(task.instance_id, ImageResult.SAME)


def pool(timeout_s: float = WAIT_S, silent_s: float = SILENT_S) -> ImageComparer:
    job = Job(
        Endpoint(SideName.SOURCE, "http://s"),
        Endpoint(SideName.TARGET, "http://t"),
        wanted_syntax="1.2.840.10008.1.2.1",
        task_timeout_s=timeout_s,
    )
    return ImageComparer(job, workers=2, memory_bytes=MEMORY, function=scripted, silent_s=silent_s)


@pytest.mark.parametrize(
    ("timeout_s", "ends"),
    [
        (
            WAIT_S,
            {
                "dies": "SIGSEGV",
                "exits": "code 7",
                "eats": "BRIDGE_WORKER_MEMORY_MB",
                "raises": "ValueError",
                "leaves": "SystemExit",
            },
        ),
        (2.0, {"holds": "BRIDGE_TASK_TIMEOUT_S (2 s)"}),
    ],
    ids=["ends", "hangs"],
)
def test_what_ends_a_comparison_costs_its_instance_only(
    timeout_s: float, ends: dict[str, str]
) -> None:
    """Each between others that are compared; the order is that of the questions."""
    names = ["good-0"]
    for number, name in enumerate(ends, 1):
        names += [name, f"good-{number}"]
    with pool(timeout_s) as checks:
        seen = list(checks.comparisons((name, "") for name in names))
    assert [one.instance_id for one in seen] == names
    for one in seen:
        if one.instance_id in ends:
            assert one.result is ImageResult.UNDECIDED, one
            assert ends[one.instance_id] in one.how
            assert PATIENT not in one.how
        else:
            assert one.result is ImageResult.SAME, one


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_pool_that_breaks_or_falls_silent_is_replaced(number: signal.Signals) -> None:
    """What it held is compared by the next one, and nobody of it is left."""
    others, first = _children(), set[int]()

    def asked() -> Iterator[tuple[str, str]]:
        for each in range(40):
            if each == 20:
                first.update(workers_of(os.getpid()))
                for pid in first:
                    os.kill(pid, number)
            yield f"n-{each}", ""

    with pool(silent_s=2.0) as checks:
        seen = list(checks.comparisons(asked()))
        assert [one.instance_id for one in seen] == [f"n-{each}" for each in range(40)]
        undecided = [one for one in seen if one.result is not ImageResult.SAME]
        # Who is killed with a task in hand costs that one; an idle or silent one costs nothing.
        assert len(undecided) <= (2 if number is signal.SIGKILL else 0), undecided
        assert len(first) == 2
        assert not any(map(is_alive, first))
    wait_until(lambda: not _children() - others, "nobody is left")


def test_a_pool_that_never_works_is_an_answer_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> NoReturn:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("bridge.worker.processes.SpawnProcess.start", broken)
    with pool() as checks:
        seen = list(checks.comparisons((name, "") for name in ("a", "b")))
    assert [(one.instance_id, one.result) for one in seen] == [
        ("a", ImageResult.UNDECIDED),
        ("b", ImageResult.UNDECIDED),
    ]
    assert "does not start" in seen[1].how


def _children() -> set[int]:
    return {*templates_of(os.getpid()), *workers_of(os.getpid())}


def test_what_a_server_answers_to_one_instance_hides_nothing_of_the_others() -> None:
    with pool() as checks:
        seen = list(checks.comparisons((name, "") for name in ("a", "refused-1", "b")))
    assert [(one.result, one.how) for one in seen] == [
        (ImageResult.SAME, ""),
        (ImageResult.UNDECIDED, "HTTP 500"),
        (ImageResult.SAME, ""),
    ]


def test_a_server_that_is_down_ends_it() -> None:
    with pool() as checks, pytest.raises(TargetError, match="it is down"):
        list(checks.comparisons((name, "") for name in ("a", "down-1", "b")))


def test_only_a_few_are_asked_for_ahead() -> None:
    asked: list[int] = []

    def many() -> Iterator[tuple[str, str]]:
        for number in range(1000):
            asked.append(number)
            yield f"n-{number}", ""

    with pool() as checks:
        stream = checks.comparisons(many())
        assert next(stream).instance_id == "n-0"
        assert len(asked) <= 10
