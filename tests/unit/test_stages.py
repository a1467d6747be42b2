"""What workers tell of their stages, without workers."""

from __future__ import annotations

import pytest

from bridge import stages
from bridge.config import Settings
from bridge.stages import NAMES, SLOTS, Stages


@pytest.fixture
def told() -> Stages:
    return Stages()


def test_a_task_waits_and_goes_through_its_stages(
    told: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages._Worker, "memory", told.memory)
    seen = [told.of(7)]
    told.queue(7)
    seen.append(told.of(7))
    for stage in (1, 2, 3, 4):
        stages.tell(7, stage)
        seen.append(told.of(7))
    assert tuple(seen) == NAMES
    assert told.of(8) == "", "its neighbours are others"


def test_a_worker_without_the_memory_tells_nothing(told: Stages) -> None:
    stages.tell(7, 1)
    assert told.of(7) == ""


def test_no_two_under_way_share_a_place() -> None:
    window = Settings.model_fields["window"].metadata
    assert max(getattr(bound, "le", 0) for bound in window) <= SLOTS
