"""The rules file of a running bridge: read again when it has changed, a broken one refused."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.config import GENERATION_DIGITS, RULES_BYTES_MAX, load_settings
from bridge.errors import ConfigurationError
from bridge.events import Event, InstanceParked, Progress, RulesRead, RulesRefused, Settled
from bridge.model import InstanceFailed, Job, Reason, Task
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.rules_watch import LOOK_EVERY_S, RulesWatch
from tests.pipeline_bench import JOB, Bench

SKIP_CT = "[[rule]]\nmodality = 'CT'\naction = 'skip'\n"
SKIP_MR = "[[rule]]\nmodality = 'MR'\naction = 'skip'\n"
BROKEN = "[[rule]]\nmodality = 'MR'\naction = 'ship'\n"


def generation(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:GENERATION_DIGITS]


class Scene:
    def __init__(self, path: Path, text: str = SKIP_CT) -> None:
        self.path = path
        self.now_s = 100.0
        self.events: list[Event] = []
        self.writes = 0
        self.write(text)
        settings = load_settings(source_url="http://a", target_url="http://b", rules_file=str(path))
        self.watch = RulesWatch(settings, self, steady_s=lambda: self.now_s)

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: Progress) -> None: ...

    def write(self, text: str) -> None:
        """Write in place; a disk may have coarse times, a real change never has the same one."""
        self.path.write_text(text)
        self.writes += 1
        os.utime(self.path, (self.writes, self.writes))

    def look(self, times: int = 3) -> str:
        """Let looks pass; returns which rules hold."""
        for _ in range(times):
            self.now_s += LOOK_EVERY_S
            self.watch.current()
        return self.watch.job.rules_generation


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "rules.toml")


def test_without_a_change_nothing_is_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> object:
        raise AssertionError("it is read")

    monkeypatch.setattr(type(scene.watch._settings), "rules", refuse)
    assert scene.look(10) == generation(SKIP_CT)
    assert scene.events == []


def test_a_changed_file_is_read_and_told(scene: Scene) -> None:
    scene.write(SKIP_MR)
    assert scene.look() == generation(SKIP_MR)
    (rule,) = scene.watch.current().rules
    assert rule.conditions == (("modality", ("MR",)),)
    assert scene.events == [RulesRead(generation(SKIP_MR), 1)]
    scene.write(SKIP_CT)
    assert scene.look() == generation(SKIP_CT)


def test_a_file_in_the_middle_of_being_written_is_not_read(scene: Scene) -> None:
    """Half of it is a rules file too: what the other half would skip or forward is transcoded."""
    for text in (SKIP_MR, SKIP_MR + SKIP_CT, SKIP_MR + SKIP_CT + SKIP_MR):
        scene.write(text)
        assert scene.look(1) == generation(SKIP_CT)
    assert scene.look() == generation(SKIP_MR + SKIP_CT + SKIP_MR)
    assert len(scene.events) == 1


def test_one_that_changes_while_it_is_read_is_read_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = type(scene.watch._settings)
    read = settings.rules

    def slow(self: object) -> object:
        found = read(self)  # type: ignore[arg-type]
        monkeypatch.undo()
        scene.write(SKIP_MR + SKIP_CT)
        return found

    scene.write(SKIP_MR)
    monkeypatch.setattr(settings, "rules", slow)
    scene.look(2)
    assert scene.watch.job.rules_generation == generation(SKIP_CT)
    assert scene.look() == generation(SKIP_MR + SKIP_CT)


@pytest.mark.parametrize("broken", [BROKEN, "", "[[rule", "x" * (RULES_BYTES_MAX + 1), None])
def test_a_broken_file_is_refused_and_the_rules_from_before_hold(
    scene: Scene, broken: str | None
) -> None:
    if broken is None:
        scene.path.unlink()
    else:
        scene.write(broken)
    assert scene.look(10) == generation(SKIP_CT)
    (refused,) = scene.events
    assert isinstance(refused, RulesRefused)
    assert refused.generation == generation(SKIP_CT)
    assert "BRIDGE_RULES_FILE" in refused.message
    scene.write(SKIP_MR)
    assert scene.look() == generation(SKIP_MR)


def test_a_broken_file_that_is_put_back_is_right_again(scene: Scene) -> None:
    scene.write(BROKEN)
    scene.look()
    scene.write(SKIP_CT)
    scene.look()
    assert [type(event) for event in scene.events] == [RulesRefused, RulesRead]


def test_one_that_is_refused_for_its_mode_is_right_again_without_a_change(scene: Scene) -> None:
    scene.write(SKIP_MR)
    scene.path.chmod(0o666)
    assert scene.look() == generation(SKIP_CT)
    scene.path.chmod(0o644)
    assert scene.look() == generation(SKIP_MR)
    assert [type(event) for event in scene.events] == [RulesRefused, RulesRead]


def test_health_says_it_until_the_file_is_right(scene: Scene, tmp_path: Path) -> None:
    board = Board(tmp_path / "none.sqlite3", HealthLimits())
    scene.write(BROKEN)
    scene.look()
    for event in scene.events:
        board.on_event(event)
    (told,) = [problem for problem in board.problems() if problem.code == "rules_refused"]
    assert "line 1" in told.message
    board.on_event(RulesRead("x", 1))
    assert "rules_refused" not in [problem.code for problem in board.problems()]


def test_it_is_read_when_asked_even_if_it_looks_the_same(scene: Scene) -> None:
    """As SIGHUP does: a file of the same size, and a clock that was set back."""
    before = scene.path.stat()
    scene.path.write_text(SKIP_MR)
    os.utime(scene.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scene.look(10) == generation(SKIP_CT)
    scene.watch.read_again()
    assert scene.look() == generation(SKIP_MR)


def test_without_a_rules_file_nothing_is_looked_at() -> None:
    settings = load_settings(source_url="http://a", target_url="http://b")
    watch = RulesWatch(settings, Bench(), steady_s=lambda: 0.0)
    watch.read_again()
    assert watch.current().rules_generation == ""


def test_a_broken_file_at_the_start_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Scene(tmp_path / "rules.toml", BROKEN)


def test_what_starts_has_the_rules_of_now_and_each_end_names_those_it_had() -> None:
    """Three instances, and other rules after the first one has begun."""

    class Changing(Bench):
        tasks: list[Task]

        def submit(self, task: Task) -> None:
            self.tasks.append(task)
            super().submit(task)

    bench = Changing(window=1)
    bench.tasks = []
    bench.script["b"] = [InstanceFailed(Reason.VIDEO, "No.", final=True)]

    def job_now() -> Job:
        return replace(JOB, rules_generation=f"g{len(bench.started)}")

    bench.job_now = job_now
    bench.run(["a", "b", "c"])
    assert [task.job.rules_generation for task in bench.tasks] == ["g0", "g1", "g2"]
    assert [event.rules for event in bench.happened(Settled)] == ["g0", "g2"]
    assert [event.rules for event in bench.happened(InstanceParked)] == ["g1"]
