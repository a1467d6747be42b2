"""Images of both servers compared in worker processes: what dies or hangs costs itself only."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from bridge.core.errors import TargetError
from bridge.core.model import Endpoint, Job, SideFailed, SideName, SideProblem
from bridge.images import Comparison, ImageChecks, Likeness, Verdict

MEMORY = 2048 * 1024 * 1024


def scripted(task: Comparison) -> Verdict:
    """Do what the identifier says; runs in a worker."""
    match task.instance_id.partition("-")[0]:
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hangs":
            threading.Event().wait()
        case "down":
            failure = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "it is down")
            return Verdict(task.instance_id, Likeness.UNDECIDED, failure=failure)
        case "refused":
            text = "HTTP 500"
            failure = SideFailed(SideName.TARGET, SideProblem.SERVER_ERROR, text, specific=True)
            return Verdict(task.instance_id, Likeness.UNDECIDED, text, failure=failure)
    return Verdict(task.instance_id, Likeness.SAME)


def pool(timeout_s: float = 60.0) -> ImageChecks:
    job = Job(
        Endpoint(SideName.SOURCE, "http://s"),
        Endpoint(SideName.TARGET, "http://t"),
        wanted_syntax="1.2.840.10008.1.2.1",
        task_timeout_s=timeout_s,
    )
    return ImageChecks(job, workers=2, memory_bytes=MEMORY, function=scripted)


def test_a_decoder_that_dies_or_hangs_costs_its_instance_only() -> None:
    names = ["a", "dies-1", "b", "hangs-1", "c", "d", "dies-2", "e"]
    with pool(timeout_s=8.0) as checks:
        seen = list(checks.verdicts((name, "") for name in names))
    assert [one.instance_id for one in seen] == names, "in the order they were asked for"
    undecided = {one.instance_id for one in seen if one.likeness is Likeness.UNDECIDED}
    assert undecided == {"dies-1", "hangs-1", "dies-2"}


def test_what_a_server_answers_to_one_instance_hides_nothing_of_the_others() -> None:
    with pool() as checks:
        seen = list(checks.verdicts((name, "") for name in ("a", "refused-1", "b")))
    assert [(one.likeness, one.how) for one in seen] == [
        (Likeness.SAME, ""),
        (Likeness.UNDECIDED, "HTTP 500"),
        (Likeness.SAME, ""),
    ]


def test_a_server_that_is_down_ends_it() -> None:
    with pool() as checks, pytest.raises(TargetError, match="it is down"):
        list(checks.verdicts((name, "") for name in ("a", "down-1", "b")))


def test_only_a_few_are_asked_for_ahead() -> None:
    asked: list[int] = []

    def many() -> Iterator[tuple[str, str]]:
        for number in range(1000):
            asked.append(number)
            yield f"n-{number}", ""

    with pool() as checks:
        stream = checks.verdicts(many())
        assert next(stream).instance_id == "n-0"
        assert len(asked) <= 10
