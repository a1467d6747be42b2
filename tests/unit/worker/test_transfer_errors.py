"""One instance against two fake servers: every error; move() never raises."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import bridge.worker.transfer
from bridge.errors import BridgeError, InstanceError, InstanceGone, SideError
from bridge.model import (
    Delivered,
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    Task,
)
from bridge.worker.transfer import move, process_client
from tests.dicom_samples import small_ct
from tests.fake_orthanc import CutBody, FakeOrthanc, Hang, HangUp, Respond
from tests.transfer_world import OTHER_ID, PATIENT, World


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> Iterator[World]:
    process_client.cache_clear()
    yield World(fake_orthanc(), fake_orthanc())
    process_client.cache_clear()


def test_deleted_meanwhile_is_skipped(world: World) -> None:
    skipped = world.move(OTHER_ID)
    assert isinstance(skipped, Skipped)
    assert skipped.reason is Reason.GONE


def test_404_of_a_wrong_base_address_is_no_deletion(world: World) -> None:
    instance_id = world.source.put(small_ct())
    wrong = replace(world.job.source, url=f"{world.source.url}/wrong")
    failed = world.move(instance_id, source=wrong)
    assert isinstance(failed, SideFailed)
    assert failed.side is SideName.SOURCE


def test_404_of_the_target_is_no_deletion(world: World) -> None:
    instance_id = world.source.put(small_ct())
    wrong = replace(world.job.target, url=f"{world.target.url}/wrong")
    failed = world.move(instance_id, target=wrong)
    assert isinstance(failed, SideFailed)
    assert (failed.side, failed.problem) == (SideName.TARGET, SideProblem.NOT_FOUND)


FILE, STORE = r"GET /instances/.*/file", "POST /instances"


@pytest.mark.parametrize(
    ("side", "behaviour", "problem", "specific"),
    [
        ("source", Respond(401), SideProblem.LOGIN_REFUSED, False),
        ("source", Respond(403), SideProblem.FORBIDDEN, False),
        ("source", Respond(500), SideProblem.SERVER_ERROR, True),
        ("source", Respond(302, headers={"Location": "/x"}), SideProblem.REDIRECTED, False),
        ("source", HangUp(), SideProblem.UNREACHABLE, False),
        ("source", CutBody(100), SideProblem.UNREACHABLE, False),
        ("source", CutBody(100, reset=True), SideProblem.UNREACHABLE, False),
        ("source", Hang(), SideProblem.TIMED_OUT, False),
        ("target", Respond(401), SideProblem.LOGIN_REFUSED, False),
        ("target", Respond(403), SideProblem.FORBIDDEN, False),
        ("target", Respond(404), SideProblem.NOT_FOUND, False),
        ("target", Respond(500), SideProblem.SERVER_ERROR, True),
        ("target", Respond(507), SideProblem.STORAGE_FULL, False),
        ("target", Respond(200, b"<html>welcome</html>"), SideProblem.NOT_ORTHANC, False),
        ("target", Respond(200, b"{}"), SideProblem.NOT_ORTHANC, True),
        ("target", Respond(200, b"[]"), SideProblem.NOT_ORTHANC, True),
        ("target", HangUp(), SideProblem.UNREACHABLE, False),
        ("target", HangUp(worked=True), SideProblem.UNREACHABLE, False),
        ("target", Hang(), SideProblem.TIMED_OUT, False),
    ],
)
def test_a_server_that_fails_is_to_blame_and_not_the_instance(
    world: World, side: str, behaviour: Respond, problem: SideProblem, specific: bool
) -> None:
    instance_id = world.source.put(small_ct())
    fake, route = (world.source, FILE) if side == "source" else (world.target, STORE)
    fake.script(route, behaviour)
    endpoint = replace(getattr(world.job, side), timeout_s=1.0)
    failed = world.move(instance_id, **{side: endpoint})
    assert isinstance(failed, SideFailed)
    assert (str(failed.side), failed.problem, failed.specific) == (side, problem, specific)
    assert failed.message
    fake.behave()
    process_client.cache_clear()
    assert isinstance(world.move(instance_id), Delivered), "and the next attempt succeeds"


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_is_not_there(world: World, side: str) -> None:
    instance_id = world.source.put(small_ct())
    getattr(world, side).stop()
    failed = world.move(instance_id)
    assert isinstance(failed, SideFailed)
    assert (str(failed.side), failed.problem) == (side, SideProblem.UNREACHABLE)


def test_a_renewed_password_is_used_by_the_next_attempt(
    world: World, fake_orthanc: Callable[..., FakeOrthanc], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = fake_orthanc(username="bridge", password="new")  # noqa: S106
    instance_id = world.source.put(small_ct())
    target = Endpoint(SideName.TARGET, locked.url)
    monkeypatch.setenv("BRIDGE_TARGET_USERNAME", "bridge")
    monkeypatch.setenv("BRIDGE_TARGET_PASSWORD", "old")
    failed = world.move(instance_id, target=target)
    assert isinstance(failed, SideFailed)
    assert failed.problem is SideProblem.LOGIN_REFUSED
    monkeypatch.setenv("BRIDGE_TARGET_PASSWORD", "new")
    assert isinstance(world.move(instance_id, target=target), Delivered)


def test_credentials_that_cannot_be_read_are_an_outage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_SOURCE_TOKEN_FILE", "/nowhere/token")
    failed = world.move(world.source.put(small_ct()))
    assert isinstance(failed, SideFailed)
    assert failed.problem is SideProblem.LOGIN_REFUSED


def _all_errors(kind: type[BridgeError] = BridgeError) -> Iterator[type[BridgeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _all_errors(child)


def _make(kind: type[BaseException]) -> BaseException:
    if issubclass(kind, InstanceError):
        return kind("x") if kind is InstanceGone else InstanceError(Reason.UNDECODABLE, "x")
    if "problem" in getattr(kind.__init__, "__code__", _make.__code__).co_varnames:
        return kind(SideProblem.TIMED_OUT, "x")
    return kind(PATIENT) if not issubclass(kind, BridgeError) else kind("x")


@pytest.mark.parametrize(
    "kind",
    [
        *(k for k in _all_errors() if k is not SideError),
        MemoryError,
        OSError,
        ValueError,
        KeyError,
        RecursionError,
        UnicodeDecodeError,
        AssertionError,
        ZeroDivisionError,
        EOFError,
        StopIteration,
    ],
    ids=lambda kind: kind.__name__,
)
def test_it_never_raises(
    world: World, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = UnicodeDecodeError("ascii", PATIENT.encode(), 0, 1, PATIENT)
    raised = error if kind is UnicodeDecodeError else _make(kind)

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(bridge.worker.transfer, "_move", fail)
    outcome = move(Task(Move("x"), world.job))
    assert not isinstance(outcome, Delivered)
    assert PATIENT not in repr(outcome)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOMEM, InstanceFailed),
        (errno.ENOSPC, ExecutorFailed),
        (errno.EACCES, ExecutorFailed),
    ],
)
def test_trouble_of_the_machine(
    world: World, number: int, kind: type[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "No such luck")

    monkeypatch.setattr(bridge.worker.transfer, "_move", fail)
    outcome = move(Task(Move("x"), world.job))
    assert isinstance(outcome, kind)
    if isinstance(outcome, ExecutorFailed):
        assert outcome.specific == (number == errno.ENOSPC), "a smaller one may have room"
