"""The model behind docs/scaling.md: it obeys the bounds that can be computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.scaling_model import Costs, Site, cores_for, limits, simulate

COSTS = Costs(2.0, 4.0, 30.0, 0.5, 0.5, 180_000, 530_000)
SITE = Site(source_cores=4, target_cores=4, link_gigabit=10.0)


def test_few_workers_are_the_limit_and_more_are_proportionally_faster() -> None:
    one, four = simulate(COSTS, SITE, 1), simulate(COSTS, SITE, 4)
    assert one == pytest.approx(1000 / 36, rel=0.05), "a core waits while the servers answer"
    assert four / one == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(
    ("change", "part", "rate"),
    [
        ({"source_ms": 40.0}, "source", 100),
        ({"target_ms": 40.0}, "target", 100),
        ({"bytes_in": 12_500_000}, "source's link", 100),
        ({"bytes_out": 12_500_000}, "target's link", 100),
        ({"scheduler_ms": 10.0}, "scheduler", 100),
        ({"bridge_ms": 10.0}, "bridge and ledger", 100),
    ],
)
def test_the_narrowest_part_is_the_limit(change: dict[str, float], part: str, rate: int) -> None:
    costs = replace(COSTS, **change)  # type: ignore[arg-type]
    narrowest = limits(costs, SITE)[0]
    assert narrowest.part == part
    assert narrowest.rate == pytest.approx(rate)
    assert simulate(costs, SITE, 64) == pytest.approx(rate, rel=0.08)


def test_the_same_seed_gives_the_same_and_cores_follow_the_load() -> None:
    assert simulate(COSTS, SITE, 8, seed=3) == simulate(COSTS, SITE, 8, seed=3)
    assert cores_for(COSTS, 100) == pytest.approx(3.0)
