"""What becomes of a worker, by the task that it has in hand."""

from __future__ import annotations

import pytest

from bridge.worker.pool_watch import SILENT_S, Hanging, hanging_of

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
    seen = hanging_of(at_work=at_work, taken_s=taken_s, timeout_s=LIMIT_S, silent_s=SILENT_S)
    assert seen is hanging
