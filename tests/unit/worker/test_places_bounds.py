"""What a worker notes of its waiting is read with care: a damaged one writes anything."""

from __future__ import annotations

import ctypes

import pytest

from bridge.worker.places import SLOTS, Places, waited_by

NOW_S = 1000.0


@pytest.mark.parametrize(
    ("waited_s", "since_s", "told_s"),
    [
        (0.0, 0.0, 0.0),
        (2.5, 0.0, 2.5),
        (0.0, NOW_S - 3.0, 3.0),
        (2.5, NOW_S - 3.0, 5.5),
        (0.0, NOW_S + 5.0, 0.0),
        (-7.0, NOW_S - 3.0, 0.0),
        (float("nan"), 0.0, 0.0),
        (2.5, float("nan"), 2.5),
    ],
)
def test_how_long_a_worker_has_waited(waited_s: float, since_s: float, told_s: float) -> None:
    noted = (ctypes.c_double * (2 * SLOTS))()
    noted[14], noted[15] = waited_s, since_s
    assert waited_by(noted, 7, NOW_S) == told_s
    assert waited_by(noted, 7 + SLOTS, NOW_S) == told_s
    assert waited_by(noted, 8, NOW_S) == 0.0


def test_without_a_file_everybody_has_a_place() -> None:
    places = Places(-1, 1, None, 0)
    assert places.try_take()
    places.take()
    places.release()
    assert waited_by(None, 0, NOW_S) == 0.0
