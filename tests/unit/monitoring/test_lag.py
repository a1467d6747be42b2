"""What is told of the newest change and of the lag, while reading is behind or nothing moves."""

from __future__ import annotations

import pytest

from bridge.events import Progress
from bridge.feed.gaps import Ask
from bridge.feed.pages import MovePage
from bridge.model import Move
from bridge.monitoring.health import Lag, behind, lag_of
from tests.pipeline_bench import Bench

POLL_S = 1.0


class Growing:
    """A feed in which ten instances more are announced each second; pages of ten."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.given = 0
        self.asked_at: list[float] = []

    @property
    def last(self) -> int:
        return 100 + 10 * int(self.bench.time.s)

    def next_page(self) -> MovePage:
        moves = tuple(Move(f"i{n}", n) for n in range(self.given + 1, self.given + 11))
        # As a feed does far from its end: it knows what it was told when it began.
        page = MovePage(moves, since=self.given, frontier=self.given + 10, last=100)
        self.given += 10
        return page

    def look_back(self) -> MovePage:
        return MovePage(())

    def ask_again(self, ask: Ask) -> MovePage:
        raise AssertionError(f"there are no gaps: {ask}")

    def newest(self, *, ahead: bool) -> MovePage:  # noqa: ARG002
        self.asked_at.append(self.bench.time.s)
        return MovePage((), last=self.last)


def run_for(bench: Bench, moves: Growing, seconds: float) -> None:
    pipeline = bench.pipeline(moves)
    bench.time.at(seconds, pipeline.stop)
    pipeline.run()


@pytest.mark.parametrize("window", [4, 50])
def test_the_newest_change_is_asked_for_at_poll_pace_while_nothing_can_be_taken_in(
    window: int,
) -> None:
    bench = Bench(window=window, poll_interval_s=POLL_S, shutdown_timeout_s=0.0)
    bench.holding = {f"i{n}" for n in range(1, 1000)}
    moves = Growing(bench)
    run_for(bench, moves, 60.0)
    assert moves.given <= 2 * window + 10, "memory stays bounded"
    assert 55 <= len(moves.asked_at) <= 61
    assert all(b - a >= POLL_S for a, b in zip(moves.asked_at, moves.asked_at[1:], strict=False))
    for progress, at_s in zip(bench.progress, bench.reported_at, strict=True):
        told_at_s = at_s - bench.time.now_s() + bench.time.s - 2 * POLL_S
        assert progress.last is None or progress.last >= 100 + 10 * int(told_at_s)
    assert bench.progress[-1].last == pytest.approx(moves.last, abs=10)
    assert bench.progress[-1].feed_read_at == pytest.approx(bench.time.now_s(), abs=2 * POLL_S)


@pytest.mark.slow
def test_it_is_asked_for_while_a_long_backlog_is_read_as_well() -> None:
    bench = Bench(work_s=0.01, window=4, poll_interval_s=POLL_S, shutdown_timeout_s=0.0)
    moves = Growing(bench)
    run_for(bench, moves, 20.0)
    assert moves.given > 1000, "reading goes on"
    assert 18 <= len(moves.asked_at) <= 21
    assert bench.progress[-1].last == pytest.approx(moves.last, abs=10)


def test_a_page_at_the_end_knows_better_than_the_newest_row() -> None:
    """Rows go with their resource; only a page at the end tells the source's own counter."""

    class Shrinking(Growing):
        def next_page(self) -> MovePage:
            return MovePage((), frontier=90, done=True, last=90)

    bench = Bench(poll_interval_s=POLL_S, shutdown_timeout_s=0.0)
    moves = Shrinking(bench)
    run_for(bench, moves, 10.0)
    assert moves.asked_at == [], "each look at the end of the feed tells it"
    assert bench.progress[-1].last == 90


@pytest.mark.parametrize(
    ("newest", "checkpoint", "caught_up", "expected"),
    [
        (3036, 0, False, 3036),
        (3036, 367, False, 2669),
        (3036, 3036, False, 0),
        (3036, 367, True, 0),
        (None, 367, False, 0),
        (3036, None, False, 0),
        (366, 367, False, 0),
    ],
)
def test_behind(newest: int | None, checkpoint: int | None, caught_up: bool, expected: int) -> None:
    assert behind(newest, checkpoint, caught_up=caught_up) == expected
    progress = Progress(last=newest, checkpoint=checkpoint, caught_up=caught_up)
    assert lag_of(progress, now=0.0) == Lag(expected, 0.0)
