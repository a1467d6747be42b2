"""What a worker tells of a task, which may be anything: a codec may have damaged it."""

from __future__ import annotations

import pickle

import pytest

from bridge.model import InstanceFailed, Reason
from bridge.worker.pool import end_of
from bridge.worker.template import END, RAISED, RESULT


def told(kind: bytes, number: int, rest: bytes) -> bytes:
    return END.pack(kind, number, 1.5) + rest


def test_a_result_and_how_long_it_waited() -> None:
    assert end_of(told(RESULT, 7, pickle.dumps("done")), 7) == ("done", 1.5)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (told(RAISED, 7, b"ValueError"), Reason.INTERNAL),
        (told(RAISED, 7, b"MemoryError"), Reason.OUT_OF_MEMORY),
        (told(RAISED, 7, b"\xff"), Reason.INTERNAL),
        (told(RESULT, 6, pickle.dumps("done")), Reason.INTERNAL),
        (told(RESULT, 8, pickle.dumps("done")), Reason.INTERNAL),
        (told(RESULT, 7, b""), Reason.INTERNAL),
        (told(RESULT, 7, pickle.dumps("done")[:-1]), Reason.INTERNAL),
        (b"", Reason.INTERNAL),
        (END.pack(RESULT, 7, 1.5)[:-1], Reason.INTERNAL),
    ],
)
def test_anything_else_is_a_failure_of_the_task_in_hand(message: bytes, reason: Reason) -> None:
    end, waited_s = end_of(message, 7)
    assert isinstance(end, InstanceFailed)
    assert end.reason is reason
    assert waited_s == 0.0
