"""The soak (`make soak`) in short: that it runs, and that it would notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import soak
from tests.conftest import require_orthanc
from tests.soak_figures import MIB, Sample, growth

FLAT = Sample(80 * MIB, 120 * MIB, 23, 22, 9, 700_000, 100, 90)


@pytest.mark.orthanc
def test_twenty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    require_orthanc()
    code = soak.main(["--minutes", "0.33", "--seed", "3"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "All arrived exactly once" in said
    assert "faults: none" not in said


def test_flat_figures_are_well() -> None:
    assert growth([FLAT] * 30) == []


@pytest.mark.parametrize(
    "grown",
    [
        replace(FLAT, bridge_rss=100 * MIB),
        replace(FLAT, workers_rss=160 * MIB),
        replace(FLAT, descriptors=30),
        replace(FLAT, worker_descriptors=29),
        replace(FLAT, threads=14),
        replace(FLAT, ledger=6 * MIB),
    ],
)
def test_a_figure_that_grows_is_named(grown: Sample) -> None:
    found = growth([FLAT] * 20 + [grown] * 10)
    assert len(found) == 1
    assert "grew" in found[0]
