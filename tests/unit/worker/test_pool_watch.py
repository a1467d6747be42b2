"""When a pool of workers counts as stuck, and which of its tasks as lost."""

from __future__ import annotations

import pytest

from bridge.worker.pool_watch import SILENT_S, START_S, Watched, is_stuck, passed_over

LIMIT_S = 300.0
LONG_S = SILENT_S + 1


def waiting(order: int) -> Watched:
    return Watched(order, None, LIMIT_S)


def running(order: int, begun_s: float) -> Watched:
    return Watched(order, begun_s, LIMIT_S)


@pytest.mark.parametrize(
    ("tasks", "unheard_s", "stuck"),
    [
        ([], LONG_S, False),
        ([waiting(1)], SILENT_S, False),
        ([waiting(1)], LONG_S, True),
        ([running(1, LONG_S)], LONG_S, False),
        ([running(1, LONG_S), running(2, LONG_S), waiting(3)], LONG_S, False),
        ([running(1, LONG_S), waiting(2)], SILENT_S, False),
        ([running(1, LONG_S), waiting(2)], LONG_S, True),
        ([running(1, LIMIT_S + START_S)], LIMIT_S + START_S, False),
        ([running(1, LIMIT_S + START_S + 1)], 0.0, True),
        ([running(1, 0.0), running(2, LIMIT_S + START_S + 1)], 0.0, True),
    ],
)
def test_a_pool_of_two_is_stuck(tasks: list[Watched], unheard_s: float, stuck: bool) -> None:
    assert is_stuck(tasks, workers=2, unheard_s=unheard_s) is stuck


@pytest.mark.parametrize(
    ("tasks", "newest_begun", "lost"),
    [
        ([], 7, set()),
        ([waiting(1), waiting(2)], 0, set()),
        ([running(1, 1.0), waiting(2), waiting(3)], 1, set()),
        ([waiting(1), running(2, 1.0), waiting(3)], 2, {1}),
        ([waiting(1), waiting(2), waiting(9)], 5, {1, 2}),
    ],
)
def test_what_was_passed_over_is_lost(
    tasks: list[Watched], newest_begun: int, lost: set[int]
) -> None:
    assert passed_over(tasks, newest_begun=newest_begun) == lost
