"""A page of a listing whose look at the feed fails is not lost: it is looked at again."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bridge.errors import SourceError
from bridge.feed.identity import KnownPlace
from bridge.feed.listing import ConfirmedListing
from bridge.feed.sources import GivenMoves
from bridge.model import Move, SideProblem


class Shaky:
    """A place that can be known again, but whose source fails at given looks."""

    def __init__(self, failing: set[int]) -> None:
        self.looks = 0
        self._failing = failing

    def look(self) -> None:
        self.looks += 1
        if self.looks in self._failing:
            raise SourceError(SideProblem.TIMED_OUT, "slow today")


@pytest.mark.parametrize("failing", [{1}, {2}, {3}, {1, 2, 3}, {2, 5}], ids=str)
def test_the_first_a_middle_and_the_last_page_survive_a_look_that_fails(failing: set[int]) -> None:
    names = [f"i{number}" for number in range(9)]
    known: Any = Shaky(failing)
    listing = GivenMoves([Move(name) for name in names], page_size=3)
    believed = ConfirmedListing(listing, cast(KnownPlace, known))
    found: list[str] = []
    failures = 0
    for _ in range(20):
        try:
            page = believed.next_page()
        except SourceError:
            failures += 1
            continue
        found += [move.instance_id for move in page.moves]
        if page.ended:
            break
    assert failures == len(failing)
    assert found == names
