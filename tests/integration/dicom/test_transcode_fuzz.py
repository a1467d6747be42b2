"""A seeded campaign of the mutation harness; 10,000 cases by ``python -m tests.fuzz.mutate``."""

from __future__ import annotations

import pytest

from tests.fuzz.mutate import campaign, mutant


@pytest.mark.timeout(300)
def test_broken_files_end_in_a_reason_or_in_a_consistent_file() -> None:
    tally, findings = campaign(20_241, 1_500)

    assert findings == []
    assert sum(tally.values()) == 1_500
    assert tally["delivered transcoded"] > 50  # the campaign reaches the decoders
    assert tally["refused undecodable"] > 100


def test_a_case_is_made_from_its_seed_and_index_alone() -> None:
    assert mutant(1, 5) == mutant(1, 5) != mutant(2, 5)
