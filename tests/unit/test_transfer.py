"""One instance against two fake servers: every answer, every error; move() never raises."""

from __future__ import annotations

import errno
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

import bridge.transfer
from bridge.core.errors import BridgeError, InstanceError, InstanceGone, SideError
from bridge.core.model import (
    Action,
    Delivered,
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    Task,
)
from bridge.transfer import move, process_client
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_orthanc import CutBody, FakeOrthanc, Hang, HangUp, Respond, StoreAs

OTHER_ID = "11111111-22222222-33333333-44444444-55555555"
PATIENT = "SOME^PATIENT"


@dataclass
class World:
    source: FakeOrthanc
    target: FakeOrthanc
    job: Job

    def move(self, instance_id: str, **changes: Any) -> Outcome:
        outcome = move(Task(Move(instance_id, 1), replace(self.job, **changes)))
        assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301 (our own bytes)
        assert PATIENT not in repr(outcome)
        return outcome

    def stored(self, instance_id: str) -> bytes:
        return self.target.store.instances[instance_id].data


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> Iterator[World]:
    source, target = fake_orthanc(), fake_orthanc()
    process_client.cache_clear()
    job = Job(
        source=Endpoint(SideName.SOURCE, source.url, timeout_s=2.0),
        target=Endpoint(SideName.TARGET, target.url, timeout_s=2.0),
        wanted_syntax=str(ExplicitVRLittleEndian),
        task_timeout_s=20.0,
    )
    yield World(source, target, job)
    process_client.cache_clear()


def rle() -> bytes:
    dataset = small_ct_dataset()
    dataset.PatientName = PATIENT
    dataset.compress(RLELossless, generate_instance_uid=False)
    return file_bytes(dataset)


def encapsulated(syntax: str, frame: bytes) -> bytes:
    dataset = small_ct_dataset()
    dataset.PatientName = PATIENT
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset)


UNDECODABLE = encapsulated(JPEG2000Lossless, b"no codestream at all")
VIDEO = encapsulated(MPEG2MPML, b"no frame at all")


def test_what_has_the_wanted_syntax_passes_byte_for_byte(world: World) -> None:
    data = small_ct() + b""
    instance_id = world.source.put(data)
    done = world.move(instance_id)
    assert isinstance(done, Delivered)
    assert done.action is Action.UNCHANGED
    assert (done.status, done.already_there) == ("Success", False)
    assert done.source_syntax == done.target_syntax == ExplicitVRLittleEndian
    assert done.source_bytes == done.target_bytes == len(data)
    assert world.stored(instance_id) == data


@pytest.mark.parametrize("spool_above_bytes", [100, 64 * 1024 * 1024])
@pytest.mark.parametrize("proof", ["answer", "stored"])
def test_a_compressed_instance_is_transcoded(
    world: World, proof: str, spool_above_bytes: int
) -> None:
    data = rle()
    instance_id = world.source.put(data)
    done = world.move(instance_id, proof=proof, spool_above_bytes=spool_above_bytes)
    assert isinstance(done, Delivered)
    assert done.action is Action.TRANSCODED
    assert (done.source_syntax, done.target_syntax) == (RLELossless, ExplicitVRLittleEndian)
    before, after = dcmread(io.BytesIO(data)), dcmread(io.BytesIO(world.stored(instance_id)))
    assert done.sop_instance_uid == before.SOPInstanceUID == after.SOPInstanceUID
    assert (after.pixel_array == before.pixel_array).all()
    assert done.decoder
    assert done.target_bytes == len(world.stored(instance_id))
    assert done.stages.total_s > 0


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_an_instance_above_the_memory_limit_is_spooled_and_the_same(
    world: World, syntax: str
) -> None:
    data = small_ct(rows=256, columns=256)
    instance_id = world.source.put(data)
    done = world.move(instance_id, spool_above_bytes=1000, wanted_syntax=syntax)
    assert isinstance(done, Delivered)
    if syntax == ExplicitVRLittleEndian:
        assert world.stored(instance_id) == data
    else:
        after = dcmread(io.BytesIO(world.stored(instance_id)))
        assert after.file_meta.TransferSyntaxUID == RLELossless
        assert (after.pixel_array == dcmread(io.BytesIO(data)).pixel_array).all()


def test_what_is_there_already_is_delivered(world: World) -> None:
    data = small_ct()
    instance_id = world.source.put(data)
    world.target.put(data)
    done = world.move(instance_id, proof="stored")
    assert isinstance(done, Delivered)
    assert done.already_there
    assert done.target_md5 == hashlib.md5(data).hexdigest()  # noqa: S324 (as Orthanc does)


@pytest.mark.parametrize(
    ("behaviour", "reason", "final"),
    [
        (StoreAs(status="FilteredOut"), Reason.FILTERED_OUT, True),
        (StoreAs(status="Failure"), Reason.REJECTED_BY_TARGET, False),
        (StoreAs(status="Whatever"), Reason.REJECTED_BY_TARGET, False),
        (StoreAs(instance_id=OTHER_ID), Reason.IDENTITY_CHANGED, True),
        (StoreAs(instance_id=OTHER_ID, status="AlreadyStored"), Reason.IDENTITY_CHANGED, True),
        (
            Respond(400, b'{"OrthancStatus": 15, "OrthancError": "Bad file format"}'),
            Reason.REJECTED_BY_TARGET,
            True,
        ),
    ],
)
def test_answers_of_the_target_that_are_no_success(
    world: World, behaviour: StoreAs | Respond, reason: Reason, final: bool
) -> None:
    instance_id = world.source.put(small_ct())
    if isinstance(behaviour, StoreAs) and behaviour.instance_id is None:
        behaviour = replace(behaviour, instance_id=instance_id)
    world.target.script("POST /instances", behaviour)
    failed = world.move(instance_id)
    assert isinstance(failed, InstanceFailed)
    assert (failed.reason, failed.final) == (reason, final)
    assert failed.source_syntax == ExplicitVRLittleEndian


def test_a_different_file_under_the_same_id_is_no_proof(world: World) -> None:
    dataset = small_ct_dataset()
    instance_id = world.source.put(file_bytes(dataset))
    dataset.StudyDate = "19990101"
    world.target.put(file_bytes(dataset))
    assert isinstance(world.move(instance_id), Delivered), "the answer alone does not tell"
    failed = world.move(instance_id, proof="stored")
    assert isinstance(failed, InstanceFailed)
    assert failed.reason is Reason.PROOF_MISMATCH
    assert "had another file under this ID before" in failed.message


def test_a_target_that_holds_other_bytes_is_no_proof(world: World) -> None:
    instance_id = world.source.put(small_ct())
    world.target.script(r"GET /instances/.*/md5", Respond(200, b"0" * 32))
    failed = world.move(instance_id, proof="stored")
    assert isinstance(failed, InstanceFailed)
    assert failed.reason is Reason.PROOF_MISMATCH
    assert "holds other bytes than were sent" in failed.message


def test_a_target_that_says_success_and_holds_nothing_is_no_proof(world: World) -> None:
    instance_id = world.source.put(small_ct())
    answer = b'{"ID": "%s", "Status": "Success"}' % instance_id.encode()
    world.target.script("POST /instances", Respond(200, answer))
    failed = world.move(instance_id, proof="stored")
    assert isinstance(failed, InstanceFailed)
    assert failed.reason is Reason.PROOF_MISMATCH


@pytest.mark.parametrize(
    ("data", "policy", "parks_as"),
    [
        (UNDECODABLE, "on_undecodable", Reason.UNDECODABLE),
        (VIDEO, "on_video", Reason.VIDEO),
    ],
)
def test_a_policy_parks_or_forwards_unchanged(
    world: World, data: bytes, policy: str, parks_as: Reason
) -> None:
    instance_id = world.source.put(data)
    failed = world.move(instance_id, **{policy: "park"})
    assert isinstance(failed, InstanceFailed)
    assert (failed.reason, failed.final) == (parks_as, True)
    assert not world.target.store.instances
    for proof in ("answer", "stored"):
        done = world.move(instance_id, proof=proof, **{policy: "forward"})
        assert isinstance(done, Delivered)
        assert done.action is Action.FORWARDED
        assert done.target_syntax == done.source_syntax
        assert world.stored(instance_id) == data


def test_a_policy_for_video_does_not_concern_damage(world: World) -> None:
    instance_id = world.source.put(UNDECODABLE)
    failed = world.move(instance_id, on_video="forward", on_undecodable="park")
    assert isinstance(failed, InstanceFailed)


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
        ("target", Respond(200, b"{}"), SideProblem.NOT_ORTHANC, False),
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
    endpoint = replace(getattr(world.job, side), timeout_s=0.3)
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

    monkeypatch.setattr(bridge.transfer, "_move", fail)
    outcome = move(Task(Move("x"), world.job))
    assert not isinstance(outcome, Delivered)
    assert PATIENT not in repr(outcome)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOMEM, InstanceFailed), (errno.ENOSPC, ExecutorFailed)]
)
def test_trouble_of_the_machine(
    world: World, number: int, kind: type[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "No such luck")

    monkeypatch.setattr(bridge.transfer, "_move", fail)
    assert isinstance(move(Task(Move("x"), world.job)), kind)
