"""What workers tell of their stages, without workers."""

from __future__ import annotations

from pathlib import Path

import pytest

import bridge
from bridge.config import Settings
from bridge.events import InFlight, Progress
from bridge.ledger.store import Ledger
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.worker import stages
from bridge.worker.stages import NAMES, SLOTS, WORK, Stage, Stages

PAGE = Path(bridge.__file__).parent / "monitoring/page.js"


@pytest.fixture
def told() -> Stages:
    return Stages()


def test_a_task_waits_and_goes_through_its_stages(
    told: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages._ThisWorker, "memory", told.memory)
    seen = [told.of(7)]
    told.queue(7)
    seen.append(told.of(7))
    for stage in WORK:
        stages.tell(7, stage)
        seen.append(told.of(7))
    assert seen == ["", "queued", "fetch", "transcode", "deliver", "prove", "ended"]
    assert told.of(8) == "", "those beside it are others"


def test_every_stage_has_a_name_on_the_page() -> None:
    script = PAGE.read_text()
    named = script[script.index("const STAGES") : script.index("const HOLDS")]
    for stage in Stage:
        assert stage is Stage.UNKNOWN or f"{NAMES[stage]}:" in named, stage


def test_the_status_answers_whatever_byte_a_worker_has_written(
    told: Stages, tmp_path: Path
) -> None:
    assert told.memory is not None
    path = tmp_path / "state.sqlite3"
    Ledger(path).close()
    board = Board(path, HealthLimits(), stage_of=told.of)
    board.on_progress(Progress(in_flight=tuple(InFlight("i", n, 1.0, 1, n) for n in range(256))))
    for number in range(256):
        told.memory[number] = number
    shown = board.status()["in_flight"]
    assert isinstance(shown, list)
    for number, item in enumerate(shown):
        assert item["stage"] == NAMES.get(number, ""), number
    assert [n for n in range(256) if shown[n]["stage"]] == [stage for stage in Stage if stage]


def test_a_worker_without_the_memory_tells_nothing(told: Stages) -> None:
    stages.tell(7, Stage.FETCH)
    assert told.of(7) == ""


def test_no_two_under_way_share_a_place() -> None:
    window = Settings.model_fields["window"].metadata
    assert max(getattr(bound, "le", 0) for bound in window) <= SLOTS
