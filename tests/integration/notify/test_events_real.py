"""Events of a real bridge between two real Orthancs, to a receiver on loopback."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.outbox import EventLedger
from tests.bridge_process import wait_until
from tests.dicom_samples import small_series
from tests.event_receiver import EventReceiver
from tests.integration.conftest import Pair, undecodable_ct

pytestmark = pytest.mark.orthanc

SECRET = "a-secret-that-is-long"  # noqa: S105


class Told:
    """What the receiver was told, each event once."""

    def __init__(self, receiver: EventReceiver) -> None:
        self._receiver = receiver

    def of(self, kind: str) -> list[dict[str, Any]]:
        bodies = {post.headers["webhook-id"]: json.loads(post.body) for post in self._posts()}
        return [body["data"] for body in bodies.values() if body["type"] == kind]

    def _posts(self) -> list[Any]:
        return list(self._receiver.posts)


@pytest.fixture
def receiver() -> Iterator[EventReceiver]:
    with EventReceiver() as receiver:
        yield receiver


@pytest.fixture
def stable_pair(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Iterator[Pair]:
    """Two servers whose studies are stable after a second."""
    home = tmp_path / "home"
    home.mkdir()
    source = orthanc("source", config={"StableAge": 1})
    target = orthanc("target", config={"StableAge": 1})
    with ExitStack() as stack:
        yield Pair(source, target, home, stack)


def settings(receiver: EventReceiver) -> dict[str, str]:
    return {
        "WEBHOOK_URL": f"{receiver.url}/hook",
        "WEBHOOK_SECRET": SECRET,
        "EVENTS_FOLD_S": "1",
        "ATTEMPTS": "1",
    }


def study_of(data: bytes) -> str:
    return str(dcmread(io.BytesIO(data), stop_before_pixels=True).StudyInstanceUID)


def test_a_study_is_told_as_complete_and_again_when_it_grows(
    stable_pair: Pair, receiver: EventReceiver
) -> None:
    pair, told = stable_pair, Told(receiver)
    files = small_series(6)
    for data in files[:3]:
        pair.send(data)
    bad = pair.send(undecodable_ct())
    receiver.status = 503  # down at first
    bridge = pair.start("run", **settings(receiver))
    wait_until(lambda: bool(receiver.posts), "an attempt")
    receiver.status = 200
    wait_until(lambda: len(told.of("study_complete")) == 1, "it is complete", timeout_s=60)
    (first,) = told.of("study_complete")
    assert first["study_instance_uid"] == study_of(files[0])
    assert (first["instances"], first["delivered"], first["again"]) == (3, 3, False)
    wait_until(lambda: len(told.of("study_incomplete")) == 1, "one lacks its instance")
    wait_until(lambda: len(told.of("parked")) == 1, "it is parked")
    (parked,) = told.of("parked")
    assert [one["orthanc_id"] for one in parked["instances"]] == [bad]
    wait_until(lambda: len(told.of("health_changed")) >= 1, "/health has a reason")
    for data in files[3:]:
        pair.send(data)
    wait_until(lambda: len(told.of("study_complete")) == 2, "it has grown", timeout_s=60)
    again = told.of("study_complete")[1]
    assert (again["instances"], again["delivered"], again["again"]) == (6, 6, True)
    listed = json.loads(pair.run("studies", "show", study_of(files[0]), "--json").stdout)
    assert listed["stable"] is True
    metrics = str(bridge.get("/metrics")[1])
    assert 'orthanc_bridge_events_sent_total{event="study_complete",way="webhook"} 2.0' in metrics
    assert len(told.of("study_incomplete")) == len(told.of("parked")) == 1


def test_a_study_is_not_stable_while_what_came_to_it_waits(stable_pair: Pair) -> None:
    """In a pause: the source calls the study stable again, and the next instance is not moved."""
    pair = stable_pair
    files = small_series(4)
    for data in files[:3]:
        pair.send(data)
    bridge = pair.start("run")
    uid = study_of(files[0])

    def told() -> dict[str, Any]:
        found = bridge.get(f"/api/studies?search={uid}")[1]["studies"]
        return dict(found[0]) if found else {"stable": False}

    wait_until(lambda: told()["stable"], "it is stable", timeout_s=60)
    assert told()["complete"] is True
    assert pair.run("pause").exit_code == 0
    bridge.wait_health(lambda health: health["hold"] == "paused", "it is paused")
    pair.send(files[3])
    wait_until(lambda: not told()["stable"], "an instance waits", timeout_s=60)
    listed = json.loads(pair.run("studies", "list", "--json").stdout)
    assert [(one["uid"], one["seen"], one["stable"]) for one in listed] == [(uid, 3, False)]
    assert pair.run("resume").exit_code == 0
    wait_until(lambda: told()["seen"] == 4 and told()["stable"], "it has come", timeout_s=60)


def test_a_study_that_is_deleted_at_the_source_is_incomplete_no_longer(
    stable_pair: Pair, receiver: EventReceiver
) -> None:
    pair, told = stable_pair, Told(receiver)
    bad = pair.send(undecodable_ct())
    pair.start("run", **settings(receiver))
    wait_until(lambda: len(told.of("study_incomplete")) == 1, "it lacks one", timeout_s=60)
    assert pair.source.delete_instance(bad)
    assert pair.run("parked", "retry", "--all").exit_code == 0
    wait_until(lambda: len(told.of("study_complete")) == 1, "it has ended", timeout_s=60)
    (study,) = told.of("study_complete")
    assert (study["delivered"], study["skipped"], study["parked"]) == (0, 1, 0)


def test_a_study_lacks_an_instance_whose_file_is_damaged_at_the_source(
    orthanc: Callable[..., OrthancServer], receiver: EventReceiver, tmp_path: Path
) -> None:
    """Nothing in that file tells of which study it is: the source does."""
    home, told = tmp_path / "home", Told(receiver)
    home.mkdir()
    uncached = {"StableAge": 1, "MaximumStorageCacheSize": 0}
    source, target = orthanc("source", config=uncached), orthanc("target")
    with ExitStack() as stack:
        pair = Pair(source, target, home, stack)
        files = small_series(3)
        for data in files:
            pair.send(data)
        kept = (one for one in (tmp_path / "source").rglob("*") if one.is_file())
        (damaged,) = [one for one in kept if one.read_bytes() == files[1]]
        damaged.write_bytes(bytes(len(files[1])))
        pair.start("run", **settings(receiver))
        wait_until(lambda: bool(told.of("study_incomplete")), "it lacks one", timeout_s=60)
    (study,) = told.of("study_incomplete")
    assert (study["instances"], study["delivered"], study["parked"]) == (3, 2, 1)
    assert told.of("study_complete") == []


def test_what_a_killed_bridge_has_not_told_the_next_one_tells(
    stable_pair: Pair, receiver: EventReceiver
) -> None:
    pair, told = stable_pair, Told(receiver)
    receiver.status = 500
    for data in small_series(3):
        pair.send(data)
    bridge = pair.start("run", **settings(receiver))
    wait_until(lambda: len(told.of("study_complete")) == 1, "it was tried", timeout_s=60)
    bridge.kill()
    receiver.posts.clear()
    with EventLedger(pair.state_path) as ledger:
        assert ledger.outbox().waiting == {"webhook": 1}
    receiver.status = 200
    pair.start("run", **settings(receiver))
    wait_until(lambda: len(told.of("study_complete")) == 1, "it was told", timeout_s=60)
    with EventLedger(pair.state_path) as ledger:
        wait_until(lambda: ledger.outbox().waiting == {}, "nothing is left")


def test_a_receiver_that_hangs_delays_no_delivery_and_no_stop(
    stable_pair: Pair, receiver: EventReceiver
) -> None:
    pair = stable_pair
    sent = {pair.send(data) for data in small_series(5)}
    receiver.hangs.set()
    bridge = pair.start("run", **settings(receiver))
    wait_until(lambda: bool(receiver.posts), "it hangs", timeout_s=60)
    sent |= {pair.send(data) for data in small_series(5)}
    wait_until(lambda: pair.held() == sent, "all is delivered meanwhile")
    bridge.send(signal.SIGTERM)
    finished = bridge.finish(timeout_s=20.0)
    assert finished.exit_code == 0
    receiver.hangs.clear()


def test_one_event_on_demand(stable_pair: Pair, receiver: EventReceiver) -> None:
    pair = stable_pair
    done = pair.run("events", "test", **settings(receiver))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "webhook" in done.stdout
    assert "it answered 200: thanks" in done.stdout
    receiver.status = 403
    refused = pair.run("events", "test", "--json", **settings(receiver))
    assert refused.exit_code == 3
    (answer,) = json.loads(refused.stdout)
    assert answer == {"way": "webhook", "taken": False, "answer": "it answered 403: thanks"}
    nowhere = pair.run("events", "test")
    assert nowhere.exit_code == 2
    assert "BRIDGE_WEBHOOK_URL" in nowhere.stderr
    unsigned = pair.run("events", "test", WEBHOOK_URL=receiver.url)
    assert unsigned.exit_code == 2
    assert "BRIDGE_WEBHOOK_SECRET" in unsigned.stderr


def test_a_command_tells_before_it_ends(stable_pair: Pair, receiver: EventReceiver) -> None:
    pair, told = stable_pair, Told(receiver)
    pair.send(undecodable_ct())
    done = pair.run("run", "--once", **settings(receiver) | {"EVENTS_FOLD_S": "600"})
    assert done.exit_code == 3
    assert [one["count"] for one in told.of("parked")] == [1]
