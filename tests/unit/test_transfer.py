"""One instance against two fake servers: what arrives, what proves it, what policies do."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from bridge.core.model import (
    Action,
    Delivered,
    InstanceFailed,
    Reason,
)
from bridge.transfer import process_client
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_orthanc import FakeOrthanc, Respond, StoreAs
from tests.transfer_world import OTHER_ID, UNDECODABLE, VIDEO, World, rle


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> Iterator[World]:
    process_client.cache_clear()
    yield World(fake_orthanc(), fake_orthanc())
    process_client.cache_clear()


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
