"""What a transfer may take, and a transfer that begins anew while its body is on its way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

import bridge.worker.transfer
from bridge.errors import InstanceError
from bridge.model import (
    Action,
    Delivered,
    InstanceFailed,
    Move,
    Reason,
    Rule,
    RuleAction,
    Skipped,
    Task,
)
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX
from bridge.worker.payload import Payload, fetched
from bridge.worker.transfer import SIDE_SHARE, Attempt, move
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.transfer_world import World, rle
from tests.unit.retention.test_retention import resent


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> World:
    return World(fake_orthanc(), fake_orthanc())


@pytest.mark.parametrize(
    ("spent_s", "deadline_s"), [(0.0, 18_000.0), (8_000.0, 10_800.0), (9_990.0, 9_009.0)]
)
def test_a_slow_server_ends_before_the_task_does(
    world: World, spent_s: float, deadline_s: float
) -> None:
    attempt = Attempt(world.job, "i")
    attempt.job = replace(attempt.job, task_timeout_s=20_000.0)
    attempt.marks[0] -= spent_s
    assert attempt.deadline_s() == pytest.approx(deadline_s, abs=5.0)


@pytest.mark.parametrize("spent_s", [10_010.0, 20_000.0, 90_000.0])
def test_a_slow_decoder_is_no_servers_fault(world: World, spent_s: float) -> None:
    attempt = Attempt(world.job, "i")
    attempt.job = replace(attempt.job, task_timeout_s=20_000.0)
    attempt.marks[0] -= spent_s
    assert attempt.deadline_s() is None


def test_a_download_may_take_half_of_the_tasks_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}

    def spying(*arguments: Any, **named: Any) -> Any:
        seen.update(named)
        return fetched(*arguments, **named)

    monkeypatch.setattr(bridge.worker.transfer, "fetched", spying)
    assert isinstance(world.move(world.source.put(small_ct())), Delivered)
    assert seen["deadline_s"] == 20.0 * SIDE_SHARE == 10.0
    assert seen["spool_above_bytes"] == world.job.spool_above_bytes


@pytest.mark.parametrize("policy", ["park", "forward"])
def test_a_frame_that_fails_when_others_are_on_their_way(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """The cut body is refused by the target, and the instance follows as it is."""

    class Breaking:
        def __iter__(self) -> Iterator[bytes]:
            yield bytes(100)
            raise InstanceError(Reason.UNDECODABLE, "the second frame is damaged")

    @contextmanager
    def transcoded(*_arguments: object, **_named: object) -> Iterator[Payload]:
        yield Payload(Action.TRANSCODED, Breaking(), 1000)

    monkeypatch.setattr(bridge.worker.transfer, "transcoded", transcoded)
    data = rle()
    instance_id = world.source.put(data)
    done = world.move(instance_id, on_undecodable=policy)
    if policy == "park":
        assert isinstance(done, InstanceFailed)
        assert done.reason is Reason.UNDECODABLE
        assert instance_id not in world.target.store.instances
        return
    assert isinstance(done, Delivered), done
    assert done.action is Action.FORWARDED
    assert world.stored(instance_id) == data
    assert done.stages.total_s >= done.stages.deliver_s >= 0.0


def test_what_came_back_is_not_sent_again_and_only_what_came_back(world: World) -> None:
    """The target holds it just so; where it holds another version it is sent."""
    data = small_ct()
    instance_id = world.source.put(data)
    task = Task(Move(instance_id, 1), world.job, again=True)
    assert isinstance(move(task), Delivered), "the target lacks it"
    skipped = move(task)
    assert isinstance(skipped, Skipped), skipped
    assert skipped.reason is Reason.CAME_BACK
    assert skipped.file_read
    assert isinstance(move(replace(task, again=False)), Delivered)
    world.target.store.delete(instance_id)
    world.target.put(resent(data))
    assert isinstance(move(task), Delivered)


@pytest.mark.parametrize(("aet", "skipped"), [("A", True), ("B", False)])
def test_what_the_metadata_told_is_still_known_when_the_file_is_asked(
    world: World, aet: str, *, skipped: bool
) -> None:
    instance_id = world.source.put(small_ct())
    known = json.dumps({"RemoteAET": aet, "TransferSyntax": "1.2.840.10008.1.2.1"}).encode()
    world.source.script("GET /instances/[^/]+/metadata", Respond(200, known))
    conditions = (("modality", ("CT",)), ("remote_aet", ("A",)))
    done = world.move(instance_id, rules=(Rule(1, RuleAction.SKIP, "", conditions),))
    assert isinstance(done, Skipped if skipped else Delivered), done


def test_a_long_message_is_cut(world: World) -> None:
    told = Attempt(world.job, "i").failed(Reason.INTERNAL, "word " * 5000 + "\x1b", final=True)
    assert len(told.message) <= MESSAGE_CHARACTERS_MAX + 50
    assert "\x1b" not in told.message
