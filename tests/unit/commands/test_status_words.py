"""What `status` says of the number of transfers."""

from __future__ import annotations

import pytest

from bridge.commands.status import at_once


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ({"threads": 14, "threads_max": 32}, "14 transfers, found by the bridge (at most 32)"),
        ({"threads": 8, "threads_max": 0}, "8 transfers"),
        ({"threads": 1}, "1 transfer"),
        ({}, "unknown"),
        (None, "unknown"),
    ],
)
def test_how_many_transfers_there_are(workers: object, told: str) -> None:
    assert at_once(workers) == told
