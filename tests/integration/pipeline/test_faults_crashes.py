"""SIGKILL of the bridge and of its workers at random moments: ``make test-crashes`` in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import require_orthanc
from tests.crash_campaign import PER_SWEEP, campaign, sweeps

pytestmark = pytest.mark.orthanc

SEED = 4
BRIDGE_KILLS = 8
WORKER_KILLS = 8
SWEEP_KILLS = 3


def test_the_bridge_is_killed_again_and_again(tmp_path: Path) -> None:
    require_orthanc()
    figures = campaign(kills=BRIDGE_KILLS, seed=SEED, home=tmp_path)
    assert figures.kills == BRIDGE_KILLS
    assert figures.at_work >= BRIDGE_KILLS // 2
    assert figures.checkpoints == sorted(figures.checkpoints)
    assert figures.checkpoints[-1] > figures.checkpoints[0]


def test_workers_are_killed_again_and_again(tmp_path: Path) -> None:
    require_orthanc()
    figures = campaign(kills=WORKER_KILLS, seed=SEED, home=tmp_path, workers=True)
    assert figures.kills == WORKER_KILLS


def test_a_bridge_that_deletes_is_killed_again_and_again(tmp_path: Path) -> None:
    require_orthanc()
    figures = sweeps(kills=SWEEP_KILLS, seed=SEED, home=tmp_path)
    assert figures.kills == SWEEP_KILLS
    assert figures.deleted == SWEEP_KILLS * PER_SWEEP
