"""One instance against two fake servers: what arrives, what proves it, what policies do."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from bridge.dicom.file_meta import ARCHIVES
from bridge.model import (
    Action,
    Delivered,
    InstanceFailed,
    Reason,
    Rule,
    RuleAction,
    SideFailed,
    SideName,
    SideProblem,
    TranscodeOptions,
)
from bridge.worker import stages
from bridge.worker.stages import Stage
from bridge.worker.transfer import process_client
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_orthanc import FakeOrthanc, Respond, StoreAs
from tests.transfer_world import MISLABELLED, OTHER_ID, UNDECODABLE, VIDEO, World, encapsulated, rle


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


@pytest.mark.slow
@pytest.mark.parametrize("action", ["unchanged", "forward", "no pixels"])
@pytest.mark.parametrize("spool_above_bytes", [100, 64 * 1024 * 1024])
@pytest.mark.parametrize("preamble", ARCHIVES)
def test_nothing_leaves_that_begins_like_an_archive(
    world: World, preamble: bytes, spool_above_bytes: int, action: str
) -> None:
    dataset = small_ct_dataset(rows=1024, columns=700)  # above one chunk
    if action == "no pixels":
        del dataset.PixelData
    plain = file_bytes(dataset)
    instance_id = world.source.put(preamble.ljust(128, b"x") + plain[128:])
    wanted = str(ExplicitVRLittleEndian if action == "unchanged" else RLELossless)
    rules = (Rule(1, RuleAction.FORWARD, "", ()),) if action == "forward" else ()
    done = world.move(
        instance_id,
        wanted_syntax=wanted,
        rules=rules,
        proof="stored",
        spool_above_bytes=spool_above_bytes,
        keeps_evidence=True,
    )
    assert isinstance(done, Delivered)
    assert world.stored(instance_id) == bytes(128) + plain[128:]
    md5 = hashlib.md5(world.stored(instance_id), usedforsecurity=False).hexdigest()
    assert done.target_md5 == md5
    source = world.source.store.instances[instance_id].data
    assert done.source_md5 == hashlib.md5(source, usedforsecurity=False).hexdigest() != md5
    assert (done.source_bytes, done.target_bytes) == (len(plain), len(plain))

    again = world.move(instance_id, wanted_syntax=wanted, rules=rules)
    assert isinstance(again, Delivered)
    assert (again.already_there, again.differing) == (True, False)


@pytest.mark.parametrize("preamble", [b"II*\0", b"MM\0*", b"II+\0", b"anything", b"\0PK\3\4"])
def test_every_other_preamble_stays(world: World, preamble: bytes) -> None:
    data = preamble.ljust(128, b"x") + small_ct()[128:]
    instance_id = world.source.put(data)
    assert isinstance(world.move(instance_id), Delivered)
    assert world.stored(instance_id) == data


@pytest.mark.parametrize("policy", ["park", "forward"])
@pytest.mark.parametrize("spool_above_bytes", [100, 64 * 1024 * 1024])
def test_compressed_pixels_under_the_wanted_label_are_not_unchanged(
    world: World, spool_above_bytes: int, policy: str
) -> None:
    data = encapsulated(RLELossless, bytes(600))
    data = data.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0")
    instance_id = world.source.put(data)
    done = world.move(instance_id, spool_above_bytes=spool_above_bytes, on_undecodable=policy)
    if isinstance(done, Delivered):
        assert done.action is not Action.UNCHANGED
        return
    assert isinstance(done, InstanceFailed)
    assert done.reason is Reason.WRONG_SYNTAX_LABEL
    assert done.final
    assert not world.target.store.instances


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


@pytest.mark.parametrize("beyond", [0, 2, 30, 8190])
@pytest.mark.parametrize("spool_above_bytes", [1000, 1 << 20, 64 << 20])
def test_a_large_instance_arrives_to_its_last_byte(
    world: World, spool_above_bytes: int, beyond: int
) -> None:
    """Downloaded in large pieces and a small one, which waits in a buffer of the spool."""
    whole_bytes = 1 << 20
    dataset = small_ct_dataset(rows=512, columns=510)
    size = len(file_bytes(dataset))
    dataset.add_new(0x00204000, "LT", "x" * 100)
    dataset.add_new(0xFFFCFFFC, "OB", bytes(whole_bytes - size - 120 + beyond) + b"\1\2")
    data = file_bytes(dataset)
    assert whole_bytes - 8 <= len(data) - beyond <= whole_bytes + 8
    instance_id = world.source.put(data)
    done = world.move(instance_id, spool_above_bytes=spool_above_bytes, proof="stored")
    assert isinstance(done, Delivered)
    assert world.stored(instance_id) == data


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
    assert "already had another file under this ID" in failed.message


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
        (MISLABELLED, "on_undecodable", Reason.WRONG_SYNTAX_LABEL),
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


def test_a_wrong_label_may_be_decoded_and_is_told(world: World) -> None:
    instance_id = world.source.put(MISLABELLED)

    done = world.move(instance_id, transcode=TranscodeOptions(on_wrong_label="decode"))

    assert isinstance(done, Delivered)
    assert (done.action, done.source_syntax) == (Action.TRANSCODED, JPEGLSLossless)
    assert done.trusted == "jpeg-lossless under JPEGLSLossless"
    stored = dcmread(io.BytesIO(world.stored(instance_id)))
    assert set(stored.pixel_array.reshape(-1)) == {7}


@pytest.mark.parametrize("pattern", [JPEGLSLossless, "1.2.840.10008.1.2.4.*"])
def test_a_rule_forwards_what_has_a_wrong_label(world: World, pattern: str) -> None:
    instance_id = world.source.put(MISLABELLED)
    rule = Rule(1, RuleAction.FORWARD, "", (("syntax", (pattern,)),))

    done = world.move(instance_id, rules=(rule,))

    assert isinstance(done, Delivered)
    assert (done.action, done.trusted) == (Action.FORWARDED, "")
    assert world.stored(instance_id) == MISLABELLED


def test_a_policy_for_video_does_not_concern_damage(world: World) -> None:
    instance_id = world.source.put(UNDECODABLE)
    failed = world.move(instance_id, on_video="forward", on_undecodable="park")
    assert isinstance(failed, InstanceFailed)


class Written(list[int]):
    """Stages' memory that keeps every byte which a worker writes."""

    def __setitem__(self, _place: object, value: Any) -> None:
        self.append(int(value))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    memory = Written()
    monkeypatch.setattr(stages._ThisWorker, "memory", memory)
    return memory


FETCHED = [Stage.FETCH, Stage.TRANSCODE]
SENT = [*FETCHED, Stage.DELIVER]
ALL = [*SENT, Stage.PROVE]


@pytest.mark.parametrize(
    ("data", "behaviour", "told"),
    [
        (rle(), None, ALL),
        (small_ct(), None, ALL),
        (UNDECODABLE, None, FETCHED),
        (b"", None, [Stage.FETCH]),
        (rle(), Respond(500), SENT),
        (rle(), Respond(200, b"no answer"), SENT),
        (rle(), StoreAs(instance_id=OTHER_ID), ALL),
    ],
)
def test_each_end_tells_its_stages_and_then_that_it_has_ended(
    world: World, written: Written, data: bytes, behaviour: Any, told: list[Stage]
) -> None:
    instance_id = world.source.put(data) if data else OTHER_ID
    if behaviour is not None:
        world.target.script("POST /instances", behaviour)
    world.move(instance_id)
    assert list(dict.fromkeys(written)) == [*told, Stage.ENDED]


def test_what_is_forwarded_after_a_decoder_refused_it_tells_its_stages(
    world: World, written: Written
) -> None:
    world.move(world.source.put(UNDECODABLE), on_undecodable="forward")
    assert list(dict.fromkeys(written)) == [*ALL, Stage.ENDED]


def test_the_file_of_another_instance_is_the_sources_fault(world: World) -> None:
    asked = world.source.put(small_ct())
    other = file_bytes(small_ct_dataset(rows=4, columns=6))
    found = world.source.put(other)
    assert found != asked
    world.source.script(f"GET /instances/{asked}/file", Respond(200, other))
    failed = world.move(asked)
    assert isinstance(failed, SideFailed)
    assert (failed.side, failed.problem) == (SideName.SOURCE, SideProblem.SERVER_ERROR)
    assert f"sent the file of another instance, {found}" in failed.message
    # A source that does not tell what it holds is found out by the file itself.
    world.source.script(f"GET /instances/{asked}/file", Respond(200, other))
    world.source.script(f"GET /instances/{asked}/attachments/dicom/info", Respond(403), times=9)
    failed = world.move(asked)
    assert isinstance(failed, InstanceFailed)
    assert (failed.reason, failed.final) == (Reason.IDENTITY_CHANGED, False)
    assert failed.message.startswith("The source sent the file of another instance")
    assert found in failed.message


def test_a_target_that_changes_identifiers_is_the_targets(world: World) -> None:
    asked = world.source.put(small_ct())
    world.target.script("POST /instances", StoreAs(instance_id=OTHER_ID))
    failed = world.move(asked)
    assert isinstance(failed, InstanceFailed)
    assert failed.message.startswith("The target stored it under")


@pytest.mark.filterwarnings("ignore")  # the fake target's reader tells all of it
@pytest.mark.parametrize("wanted", [str(ExplicitVRLittleEndian), "1.2.840.10008.1.2"])
@pytest.mark.parametrize("on_undecodable", ["park", "forward"])
def test_a_transfer_syntax_without_end_is_bounded(
    world: World, wanted: str, on_undecodable: str
) -> None:
    dataset = small_ct_dataset()
    data = file_bytes(dataset)
    meta = b"\2\0\x10\0UI" + (60_000).to_bytes(2, "little") + b"1." * 30_000
    at = data.index(b"\2\0\x10\0UI")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    strange = data[:at] + meta + data[at + 8 + length :]
    instance_id = world.source.put(data)
    world.source.store.instances[instance_id].data = strange
    outcome = world.move(instance_id, wanted_syntax=wanted, on_undecodable=on_undecodable)
    assert not isinstance(outcome, SideFailed)
    assert len(repr(outcome)) < 3_000
