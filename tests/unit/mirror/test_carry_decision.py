"""What becomes of a value that is carried: each combination."""

from __future__ import annotations

import pytest

from bridge.mirror.carry_decision import Carrying, carrying_of


@pytest.mark.parametrize(
    ("source", "target", "ours", "wanted"),
    [
        (None, None, (), Carrying.NOTHING),
        (None, "a", (), Carrying.NOTHING),
        (None, "a", ("a", ""), Carrying.NOTHING),  # deleted at the source: it stays
        ("a", "a", (), Carrying.NOTHING),
        ("a", "a", ("b", "c"), Carrying.NOTHING),
        ("a", None, (), Carrying.WRITE),
        ("a", None, ("a", ""), Carrying.WRITE),
        ("b", "a", ("a", ""), Carrying.REPLACE),
        ("b", "a", ("b", "a"), Carrying.REPLACE),  # killed before it was written
        ("b", "a", (), Carrying.LEAVE),
        ("b", "a", ("", ""), Carrying.LEAVE),
        ("b", "x", ("b", "a"), Carrying.LEAVE),
    ],
)
def test_the_source_wins_over_what_we_wrote_only(
    source: str | None, target: str | None, ours: tuple[str, ...], wanted: Carrying
) -> None:
    assert carrying_of(source, target, ours) is wanted
