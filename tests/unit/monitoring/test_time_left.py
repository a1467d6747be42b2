from __future__ import annotations

import pytest

from bridge.monitoring.time_left import FeedStep, TimeLeft, left_in_words, time_left

STEP_S = 10.0


def steps(*groups: tuple[int, int, int]) -> list[FeedStep]:
    """Make so many intervals of so many done and new changes, each group after the other."""
    return [FeedStep(done, new, True) for count, done, new in groups for _ in range(count)]


@pytest.mark.parametrize(
    ("changes", "happened", "left"),
    [
        (0, steps((90, 50, 0)), None),
        (1000, [], None),
        (1000, steps((2, 50, 0)), None),
        (1000, steps((3, 50, 0)), TimeLeft(200.0, 200.0)),
        # 5 a second in the last minute, 2 in the last five, 1 in all.
        (1000, steps((60, 5, 0), (24, 12, 0), (6, 50, 0)), TimeLeft(200.0, 1000 / (88.8 / 90))),
        # What comes in meanwhile makes it longer; at its slowest it would never end.
        (1000, steps((90, 50, 25)), TimeLeft(400.0, 400.0)),
        (1000, steps((84, 50, 0), (6, 10, 20)), TimeLeft(1000 / (4140 / 900), None)),
        (1000, steps((90, 10, 20)), TimeLeft(None, None)),
        (1000, steps((90, 0, 0)), TimeLeft(None, None)),
    ],
)  # fmt: skip
def test_time_left(changes: int, happened: list[FeedStep], left: TimeLeft | None) -> None:
    found = time_left(changes, happened, step_s=STEP_S)
    if left is None or found is None or left.from_s is None:
        assert found == left
    else:
        assert found.from_s == pytest.approx(left.from_s)
        assert found.to_s == (None if left.to_s is None else pytest.approx(left.to_s))


def test_a_pause_says_nothing_of_how_fast_the_work_goes() -> None:
    paused = [FeedStep(0, 0, able=False)] * 60
    for happened in (
        [*steps((30, 50, 0)), *paused],
        [*paused, *steps((30, 50, 0))],
        [*steps((15, 50, 0)), *paused, *steps((15, 50, 0))],
    ):
        assert time_left(1000, happened, step_s=STEP_S) == TimeLeft(200.0, 200.0)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (None, ""),
        (TimeLeft(None, None), "more arrives than is delivered"),
        (TimeLeft(200.0, None), "at least 3 min left"),
        (TimeLeft(200.0, 205.0), "about 3 min left"),
        (TimeLeft(10.0, 200.0), "less than 1 min to 3 min left"),
        (TimeLeft(7199.0, 7200.0), "120 min to 2 h left"),
        (TimeLeft(172_799.0, 172_800.0), "48 h to 2 d left"),
    ],
)
def test_in_words(left: TimeLeft | None, said: str) -> None:
    assert left_in_words(left) == said
