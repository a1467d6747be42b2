"""``check`` over a hundred thousand scripted instances: memory does not grow with them."""

from __future__ import annotations

import multiprocessing
import resource

import pytest

from bridge.checks.ask_both_servers import BothServers
from bridge.checks.compare import Check
from bridge.checks.differences import State
from bridge.model import SideName
from tests.unit.checks.test_compare import J2K, Scripted, identifier, job

COUNT = 100_000
EVERY = 5
"""Each fifth is missing at the target."""


class Lacking(Scripted):
    """A server without each fifth instance."""

    def list_instances(self, since: int, limit: int) -> list[str]:
        held = self.count - self.count // EVERY
        return [
            identifier(place + place // (EVERY - 1) + 1)
            for place in range(since, min(since + limit, held))
        ]


def peak_kb(count: int) -> int:
    """Compare so many instances; the most memory that this process ever had."""
    lacks = {identifier(number) for number in range(0, count, EVERY)}
    sides = {
        SideName.SOURCE: Scripted(count, J2K),
        SideName.TARGET: Lacking(count, lacks=lacks),
    }
    with (
        BothServers(sides.__getitem__) as servers,
        Check(servers, job=job(), known=None, page_size=1000, show=lambda *_: None) as check,
    ):
        check.run()
        missing = check.differences.counts
        assert check.totals.source == count
        assert missing == {State.MISSING: count // EVERY}
        assert sum(1 for _ in check.differences.moves()) == missing[State.MISSING]
        assert check.totals.rate > 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.timeout(300)
def test_a_hundred_thousand_instances_take_bounded_memory() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as fresh_process:
        before_kb, after_kb = fresh_process.map(peak_kb, [1000, COUNT], chunksize=1)
    # Two Python sets of all identifiers alone would be 30 MB; one run of the sort is 7, and the
    # script above remembers 20,000 names (2).
    assert after_kb - before_kb < 20 * 1024
