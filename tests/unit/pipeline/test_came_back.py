"""Two bridges, A to B and B to A: an instance that comes back is noticed and not moved again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.events import InstanceParked
from bridge.feed.pages import MovePage
from bridge.feed.sources import FixedMoves
from bridge.ledger.store import Ledger
from bridge.model import Delivered, Job, Move, Reason, Skipped, Task
from bridge.monitoring.health import HealthLimits, judge
from bridge.pipeline.came_back import ROUNDS_MAX, SOON_S
from bridge.service import _settled
from bridge.worker.transfer import move
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.pipeline_bench import DELIVERED, Bench
from tests.transfer_world import World, rle

BACK = Skipped(Reason.CAME_BACK, "back")


class Again(FixedMoves):
    """The same instance in the feed again and again, every so often, beside another one."""

    def __init__(self, bench: Bench, every_s: float, times: int) -> None:
        self._bench, self._every_s, self._times = bench, every_s, times
        self._given = 0

    def next_page(self) -> MovePage:
        due = min(self._times, 1 + int(self._bench.time.s / self._every_s))
        moves = tuple(Move("round") for _ in range(self._given, due))
        others = (Move("other"),) if not self._given else ()
        self._given = due
        return MovePage((*moves, *others), done=True, ended=due == self._times)


def tasks_of(bench: Bench) -> list[Task]:
    tasks: list[Task] = []
    submit = bench.submit

    def noting(task: Task) -> None:
        tasks.append(task)
        submit(task)

    bench.submit = noting  # type: ignore[method-assign]
    return tasks


def test_a_worker_is_told_what_was_delivered_before() -> None:
    bench = Bench()
    tasks = tasks_of(bench)
    bench.script = {"round": [DELIVERED, BACK]}
    summary = bench.run(Again(bench, 10.0, 3))
    told = [(task.move.instance_id, task.again) for task in tasks]
    assert told == [("round", False), ("other", False), ("round", True), ("round", True)]
    assert (summary.delivered, summary.skipped) == (2, {"came_back": 2})


@pytest.mark.parametrize(("given_back", "again"), [("", True), ("round", False), ("other", True)])
def test_what_the_bridge_itself_gave_back_has_not_come_back(
    given_back: str, *, again: bool
) -> None:
    """It is delivered anew: the target had lost it. /health told to look for another bridge.

    Planted, seen to fail: it counts as any other; none counts after one was given back.
    """
    bench = Bench()
    bench.given_back = given_back
    tasks = tasks_of(bench)
    bench.script = {"round": [DELIVERED, BACK if again else DELIVERED]}
    bench.run(Again(bench, 10.0, 2))
    assert [task.again for task in tasks if task.move.instance_id == "round"] == [False, again]
    assert bench.progress[-1].came_back.count == again


def test_one_that_was_already_there_was_not_delivered_by_us() -> None:
    bench = Bench()
    tasks = tasks_of(bench)
    bench.script = {"round": [replace(DELIVERED, status="AlreadyStored")]}
    bench.run(Again(bench, 10.0, 3))
    assert not any(task.again for task in tasks)


def test_health_names_what_came_back_for_an_hour() -> None:
    bench = Bench()
    bench.script = {"round": [DELIVERED, BACK]}
    bench.run(Again(bench, 10.0, 2))
    last = bench.progress[-1]
    assert last.came_back.count == 1

    def found(after_s: float) -> list[str]:
        now = last.came_back.at + after_s
        return [
            finding.message
            for finding in judge(last, {}, HealthLimits(stall_after_s=1e9), now=now)
            if finding.code == "instances_came_back"
        ]

    (said,) = found(3599.0)
    assert "the last one is round" in said
    assert found(3601.0) == []


def test_one_that_was_sent_again_much_later_is_no_alarm() -> None:
    bench = Bench()
    bench.script = {"round": [DELIVERED, BACK]}
    assert bench.run(Again(bench, SOON_S + 60.0, 2)).skipped == {"came_back": 1}
    assert bench.progress[-1].came_back.count == 0


def test_one_that_comes_back_changed_is_parked_after_ten_rounds() -> None:
    bench = Bench()
    summary = bench.run(Again(bench, 10.0, ROUNDS_MAX + 5))
    assert bench.started.count("round") == ROUNDS_MAX
    assert summary.parked == {"came_back": 5}
    parked = bench.happened(InstanceParked)[0]
    assert "10 times within an hour" in parked.message
    assert bench.started.count("other") == 1
    assert bench.progress[-1].came_back.count == 5


def test_a_restart_does_not_let_it_go_round_again(tmp_path: Path) -> None:
    """Each life of the bridge knows from the ledger what the feed has told of and is settled."""
    uploads = 0
    with Ledger(tmp_path / "state") as ledger:
        ledger.restart_at(0)
        for life in range(4):
            bench = Bench()
            bench.settled = _settled(ledger)
            tasks = tasks_of(bench)
            bench.script = {"round": [BACK if life else DELIVERED, BACK]}
            bench.run(Again(bench, 10.0, 3))
            uploads += sum(task.move.instance_id == "round" and not task.again for task in tasks)
            assert bench.progress[-1].came_back.count == (0 if life else 2)
            sequence = 10 * (life + 1)
            ledger.restart_at(sequence, recent=[(sequence, "round"), (sequence + 1, "unsettled")])
            assert _settled(ledger) == ["round"]
    assert uploads == 1


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> World:
    return World(fake_orthanc(), fake_orthanc())


def moved(world: World, instance_id: str, *, again: bool, job: Job | None = None) -> object:
    return move(Task(Move(instance_id, 1), job or world.job, again=again))


def uploads(world: World) -> int:
    return sum(request.startswith("POST /instances") for request in world.target.requests)


def test_an_original_that_is_sent_again_is_there_and_has_not_come_back(world: World) -> None:
    """What comes from the target has the target's form: a compressed file has a sender.

    Planted, seen to fail: it counts as one that came back; it is sent to the target once more.
    """
    instance_id = world.source.put(rle())
    assert isinstance(moved(world, instance_id, again=False), Delivered)
    outcome = moved(world, instance_id, again=True)
    assert isinstance(outcome, Delivered)
    assert outcome.already_there
    assert uploads(world) == 1


def test_one_that_was_stored_anew_before_it_was_fetched_has_not_come_back() -> None:
    """Its second row names the file that was delivered: nothing has come since.

    Planted, seen to fail: the file's name is not compared.
    """
    for file, count in (("a", 0), ("b", 1), ("", 1)):
        bench = Bench()
        delivered, back = replace(DELIVERED, source_file="a"), replace(BACK, file=file)
        bench.script = {"round": [delivered, back]}
        bench.run(Again(bench, 10.0, 2))
        assert bench.progress[-1].came_back.count == count


def test_what_came_back_is_told_with_the_name_of_its_file(world: World) -> None:
    """Planted, seen to fail: no name."""
    instance_id = world.source.put(small_ct())
    job = replace(world.job, keeps_evidence=True)
    first = moved(world, instance_id, again=False, job=job)
    assert isinstance(first, Delivered)
    again = moved(world, instance_id, again=True, job=job)
    assert isinstance(again, Skipped)
    assert again.file == first.source_file != ""


def test_what_the_target_holds_just_so_is_not_sent_again(world: World) -> None:
    instance_id = world.source.put(small_ct())
    assert isinstance(moved(world, instance_id, again=False), Delivered)
    outcome = moved(world, instance_id, again=True)
    assert isinstance(outcome, Skipped)
    assert (outcome.reason, outcome.file_read) == (Reason.CAME_BACK, True)
    assert uploads(world) == 1
    assert isinstance(moved(world, instance_id, again=False), Delivered)
    assert uploads(world) == 2, "of what is not known to come back nothing is asked"


def test_what_the_target_lacks_or_holds_otherwise_is_sent_again(world: World) -> None:
    instance_id = world.source.put(small_ct())
    assert isinstance(moved(world, instance_id, again=True), Delivered)
    assert uploads(world) == 1
    world.target.script(r"GET /instances/[^/]+/attachments/dicom/md5", Respond(200, b"0" * 32))
    assert isinstance(moved(world, instance_id, again=True), Delivered)
    assert uploads(world) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_target_that_does_not_tell_is_sent_it_again(world: World, status: int) -> None:
    instance_id = world.source.put(small_ct())
    moved(world, instance_id, again=False)
    world.target.script(r"GET /instances/[^/]+/attachments/dicom/md5", Respond(status))
    assert isinstance(moved(world, instance_id, again=True), Delivered)
    assert uploads(world) == 2
