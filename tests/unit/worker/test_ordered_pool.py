"""Results in the order of what was asked, whatever the order in which the workers end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.model import ExecutorFailed, InstanceFailed, Reason
from bridge.worker.pool import AHEAD, LOST_MAX, End, OrderedPool

WORKERS = 2
LOST = ExecutorFailed("The worker pool lost the task: CancelledError")


def double(work: int) -> int:
    return 2 * work


class Pool:
    """Instead of processes: what is given ends at the next look, the newest first."""

    def __init__(self, ended: Any, lost: dict[int, int]) -> None:
        self.given: list[int] = []
        self.open: list[Any] = []
        self.most = 0
        self._ended = ended
        self._lost = lost

    def give(self, asked: Any, *, timeout_s: float) -> None:
        assert timeout_s == 5.0
        self.given.append(asked.work)
        self.open.append(asked)

    def look(self) -> None:
        self.most = max(self.most, len(self.open))
        for asked in self.open[::-1]:
            lost = self._lost.get(asked.work, 0)
            self._lost[asked.work] = lost - 1
            self.open.remove(asked)
            self._ended.put((asked, LOST if lost > 0 else 2 * asked.work))

    def close(self) -> None:
        pass


def a_pool(
    lost: dict[int, int] | None = None, **options: Any
) -> tuple[OrderedPool[int, int], Pool]:
    ordered = OrderedPool(double, workers=WORKERS, memory_bytes=1, timeout_s=5.0, **options)
    fake = Pool(ordered._ended, lost or {})
    ordered._pool = fake  # type: ignore[assignment]
    return ordered, fake


@pytest.mark.parametrize("number", [0, 1, AHEAD * WORKERS, 40])
def test_the_order_is_that_of_the_questions(number: int) -> None:
    ordered, fake = a_pool()
    assert list(ordered.results(range(number))) == [(each, 2 * each) for each in range(number)]
    assert fake.most <= AHEAD * WORKERS


def test_no_more_is_read_than_can_be_under_way() -> None:
    read: list[int] = []

    def works() -> Iterator[int]:
        for each in range(40):
            read.append(each)
            yield each

    ordered, _ = a_pool()
    results = ordered.results(works())
    next(results)
    assert len(read) == AHEAD * WORKERS


def test_what_the_pool_lost_is_done_again() -> None:
    ordered, fake = a_pool({0: 1, 7: LOST_MAX, 9: LOST_MAX + 1})
    seen: dict[int, End[int]] = dict(ordered.results(range(10)))
    assert seen == {each: 2 * each for each in range(9)} | {9: LOST}
    assert [fake.given.count(each) for each in (0, 1, 7, 9)] == [2, 1, 3, 3]


def test_nothing_is_done_again_where_that_is_not_wanted() -> None:
    ordered, fake = a_pool({0: 1}, lost_max=0)
    assert list(ordered.results([0])) == [(0, LOST)]
    assert fake.given == [0]


def test_an_iterator_that_is_given_up_leaves_nothing_to_the_next() -> None:
    ordered, fake = a_pool(dict.fromkeys(range(1, 6), 2))
    first = ordered.results(range(20))
    assert next(first) == (0, 0)
    given = len(fake.given)
    first.close()  # type: ignore[attr-defined]
    assert list(ordered.results([30, 31, 32])) == [(30, 60), (31, 62), (32, 64)]
    assert fake.given[given:] == [30, 31, 32]


def test_a_failure_of_the_work_is_not_done_again() -> None:
    ordered, fake = a_pool()
    failed = InstanceFailed(Reason.WORKER_DIED, "it died")

    def look() -> None:
        ordered._ended.put((fake.open.pop(0), failed))

    fake.look = look  # type: ignore[method-assign]
    assert list(ordered.results([1])) == [(1, failed)]
    assert fake.given == [1]
