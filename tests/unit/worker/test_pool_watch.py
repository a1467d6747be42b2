"""What becomes of a worker, by the task that it has in hand."""

from __future__ import annotations

import pytest

from bridge.worker.pool_watch import SILENT_S, WAITED_MAX, Hanging, hanging_of

LIMIT_S = 300.0


@pytest.mark.parametrize(
    ("at_work", "taken_s", "hanging"),
    [
        (False, 0.0, Hanging.NOT),
        (False, SILENT_S, Hanging.NOT),
        (False, SILENT_S + 0.1, Hanging.SILENT),
        # Whatever its time: what nobody works on is not to blame.
        (False, LIMIT_S + 1, Hanging.SILENT),
        (True, 0.0, Hanging.NOT),
        (True, SILENT_S + 1, Hanging.NOT),
        (True, LIMIT_S, Hanging.NOT),
        (True, LIMIT_S + 0.1, Hanging.LATE),
    ],
)
def test_what_is_seen_of_a_task(at_work: bool, taken_s: float, hanging: Hanging) -> None:
    seen = hanging_of(
        at_work=at_work, taken_s=taken_s, waited_s=0.0, timeout_s=LIMIT_S, silent_s=SILENT_S
    )
    assert seen is hanging


@pytest.mark.parametrize(
    ("taken_s", "waited_s", "hanging"),
    [
        # Others had the places: that is not of its time.
        (LIMIT_S + 100, 100.1, Hanging.NOT),
        (LIMIT_S + 100, 99.9, Hanging.LATE),
        (10 * LIMIT_S, 9.5 * LIMIT_S, Hanging.NOT),
        # It says so itself, and a damaged one might for ever: it is ended, and nobody is blamed.
        (WAITED_MAX * LIMIT_S + 1, WAITED_MAX * LIMIT_S, Hanging.SILENT),
        (WAITED_MAX * LIMIT_S + 1, 1e300, Hanging.SILENT),
    ],
)
def test_waiting_for_others_is_not_of_its_time(
    taken_s: float, waited_s: float, hanging: Hanging
) -> None:
    seen = hanging_of(
        at_work=True, taken_s=taken_s, waited_s=waited_s, timeout_s=LIMIT_S, silent_s=SILENT_S
    )
    assert seen is hanging
