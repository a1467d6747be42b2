"""Where a plan begins."""

from __future__ import annotations

import pytest

from bridge.checks.plan import next_sequence


@pytest.mark.parametrize(
    ("checkpoint", "start", "expected"),
    [
        (7, "now", 8),
        (7, 3, 8),
        (0, "now", 1),
        (None, "beginning", 1),
        (None, "snapshot", 1),
        (None, "now", 101),
        (None, 0, 1),
        (None, 42, 42),
    ],
)
def test_it_begins_where_a_bridge_would(
    checkpoint: int | None, start: str | int, expected: int
) -> None:
    assert next_sequence(checkpoint, start=start, end=100) == expected
