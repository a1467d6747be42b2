"""A file that does not come as the source holds it is the source's fault, whoever notices it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from bridge.model import Delivered, InstanceFailed, Reason, SideFailed, SideName, SideProblem
from bridge.worker.transfer import process_client
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_behaviours import Behaviour
from tests.fake_orthanc import FakeOrthanc, HangUp, Respond
from tests.transfer_world import OTHER_ID, UNDECODABLE, World, rle

WRONG: dict[str, Callable[[bytes], bytes]] = {
    "cut in the pixel data": lambda data: data[:-30],
    "cut in the file meta information": lambda data: data[:160],
    "cut in the preamble": lambda data: data[:50],
    "cut in the data set": lambda data: data[: len(data) * 2 // 3],
    "too long": lambda data: data + b"\0" * 1000,
    "a page": lambda _: b"<!DOCTYPE html><html><body>Welcome</body></html>",
    "an answer in JSON": lambda _: b'{"Message": "try again later"}',
    "zeros": lambda data: bytes(len(data)),
    "other bytes": lambda data: data[:-30] + bytes(30),
    "another instance": lambda _: file_bytes(small_ct_dataset(rows=4, columns=6)),
}
TARGETS: dict[str, Behaviour] = {
    "rejects it": Respond(400, b'{"OrthancStatus": 15, "OrthancError": "Bad file format"}'),
    "fails at it": Respond(500, b'{"OrthancStatus": 1, "OrthancError": "Internal error"}'),
    "dies of it": HangUp(),
    "has a filter": Respond(200, b'{"ID": "%s", "Status": "FilteredOut"}' % OTHER_ID.encode()),
}
WORDS = ("cut short", "too long", "other bytes than it holds", "the file of another instance")


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> Iterator[World]:
    process_client.cache_clear()
    yield World(fake_orthanc(), fake_orthanc())
    process_client.cache_clear()


def _asked(server: FakeOrthanc) -> list[str]:
    return [request.partition("?")[0].rsplit("/", 1)[-1] for request in server.requests]


def _is_the_sources(world: World, instance_id: str, outcome: object) -> None:
    assert isinstance(outcome, SideFailed), outcome
    assert (outcome.side, outcome.problem) == (SideName.SOURCE, SideProblem.SERVER_ERROR)
    assert outcome.specific, "the bridge finds out whether others come as they should"
    assert any(word in outcome.message for word in WORDS), outcome.message
    assert f"/instances/{instance_id}/file" in outcome.message
    assert "proxy" in outcome.advice
    # It was wrong once: the next attempt delivers it.
    world.target.behave()
    assert isinstance(world.move(instance_id), Delivered)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_the_target_makes_of_a_wrong_file_the_source_is_blamed(
    world: World, wrong: str, target: str
) -> None:
    data = small_ct()
    instance_id = world.source.put(data)
    body = WRONG[wrong](data)
    assert body != data
    content = Respond(200, body, {"Content-Type": "application/dicom"})
    world.source.script(f"GET /instances/{instance_id}/file", content, times=1)
    world.target.script("POST /instances", TARGETS[target])
    outcome = world.move(instance_id)
    assert isinstance(outcome, SideFailed)
    if wrong.startswith("cut"):
        assert f"cut short: {len(body)} bytes came, and it says that it holds {len(data)} (" in (
            outcome.message
        )
    assert ("too long" in outcome.message) is (wrong == "too long")
    assert ("other bytes" in outcome.message) is (wrong in {"zeros", "other bytes"})
    assert ("another instance" in outcome.message) is (wrong == "another instance")
    _is_the_sources(world, instance_id, outcome)


@pytest.mark.parametrize("forward", ["park", "forward"])
@pytest.mark.parametrize(
    "wrong", [kind for kind in WRONG if kind not in {"too long", "another instance"}]
)
def test_a_wrong_file_that_must_be_decoded_is_never_forwarded(
    world: World, wrong: str, forward: str
) -> None:
    data = rle()
    instance_id = world.source.put(data)
    body = WRONG[wrong](data)
    content = Respond(200, body, {"Content-Type": "application/dicom"})
    world.source.script(f"GET /instances/{instance_id}/file", content, times=1)
    # This target takes everything.
    taken = b'{"ID": "%s", "Status": "Success"}' % instance_id.encode()
    world.target.script("POST /instances", Respond(200, taken))
    outcome = world.move(instance_id, on_undecodable=forward)
    assert not [request for request in world.target.requests if request.startswith("POST")]
    _is_the_sources(world, instance_id, outcome)


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize("proof", ["answer", "stored"])
def test_a_target_that_holds_the_right_file_shows_that_a_wrong_one_came(
    world: World, proof: str, *, evidence: bool
) -> None:
    data = small_ct()
    instance_id = world.source.put(data)
    world.target.put(data)
    flipped = data[:-30] + bytes(30)
    world.source.script(f"GET /instances/{instance_id}/file", Respond(200, flipped), times=1)
    outcome = world.move(instance_id, proof=proof, keeps_evidence=evidence)
    _is_the_sources(world, instance_id, outcome)


def test_a_wrong_file_is_found_where_evidence_is_kept(world: World) -> None:
    """Retention asks the source in any case: nothing else notices a byte of native pixels."""
    data = small_ct()
    instance_id = world.source.put(data)
    flipped = data[:-30] + bytes(30)
    world.source.script(f"GET /instances/{instance_id}/file", Respond(200, flipped), times=1)
    outcome = world.move(instance_id, proof="stored", keeps_evidence=True)
    assert not world.target.store.instances
    _is_the_sources(world, instance_id, outcome)


def test_a_syntax_that_nobody_knows_is_doubted_before_it_is_forwarded(world: World) -> None:
    data = rle()
    instance_id = world.source.put(data)
    label = RLELossless.encode()
    assert data.count(label) == 1
    flipped = data.replace(label, label[:-1] + b"9")
    world.source.script(f"GET /instances/{instance_id}/file", Respond(200, flipped), times=1)
    taken = b'{"ID": "%s", "Status": "Success"}' % instance_id.encode()
    world.target.script("POST /instances", Respond(200, taken))
    outcome = world.move(instance_id, on_undecodable="forward")
    assert not [request for request in world.target.requests if request.startswith("POST")]
    _is_the_sources(world, instance_id, outcome)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
@pytest.mark.parametrize("target", ["rejects it", "has a filter"])
def test_a_source_that_does_not_tell_is_not_blamed(world: World, target: str, status: int) -> None:
    instance_id = world.source.put(small_ct())
    world.source.script("GET /instances/.*/attachments/", Respond(status))
    world.target.script("POST /instances", TARGETS[target])
    failed = world.move(instance_id)
    assert isinstance(failed, InstanceFailed)
    assert failed.reason in {Reason.REJECTED_BY_TARGET, Reason.FILTERED_OUT}


def test_a_source_that_notes_no_sums_is_judged_by_the_size(world: World) -> None:
    data = small_ct()
    instance_id = world.source.put(data)
    noted = b'{"Uuid": "u", "UncompressedSize": %d, "UncompressedMD5": ""}' % len(data)
    world.source.script("GET /instances/.*/attachments/dicom/info", Respond(200, noted))
    world.target.script("POST /instances", TARGETS["rejects it"])
    assert isinstance(world.move(instance_id), InstanceFailed)
    world.source.script("GET /instances/.*/file", Respond(200, data[:-2]), times=1)
    _is_the_sources(world, instance_id, world.move(instance_id))


def test_what_goes_well_is_not_asked_about(world: World) -> None:
    for data in (small_ct(), rle()):
        instance_id = world.source.put(data)
        world.source.requests.clear()
        assert isinstance(world.move(instance_id), Delivered)
        assert _asked(world.source) == ["file"]


@pytest.mark.parametrize("status", [401, 403, 413, 503, 507])
def test_a_target_that_is_not_there_raises_no_doubt(world: World, status: int) -> None:
    instance_id = world.source.put(small_ct())
    world.target.script("POST /instances", Respond(status))
    failed = world.move(instance_id)
    assert isinstance(failed, SideFailed)
    assert failed.side is SideName.TARGET
    assert _asked(world.source) == ["file"]


@pytest.mark.parametrize("data", [UNDECODABLE, b"\0" * 128 + b"DICM"])
def test_a_bad_file_that_the_source_holds_so_is_the_instances_fault(
    world: World, data: bytes
) -> None:
    instance_id = world.source.put(small_ct())
    stored = world.source.store.instances[instance_id]
    stored.data = data
    failed = world.move(instance_id)
    assert isinstance(failed, InstanceFailed)
    assert failed.reason in {Reason.UNDECODABLE, Reason.NOT_DICOM}
    if data is UNDECODABLE:
        assert failed.source_syntax == JPEG2000Lossless


def test_what_was_deleted_while_the_target_rejected_it_is_gone(world: World) -> None:
    instance_id = world.source.put(small_ct())
    data = world.source.store.instances[instance_id].data
    del world.source.store.instances[instance_id]
    world.source.script(f"GET /instances/{instance_id}/file", Respond(200, data))
    world.target.script("POST /instances", TARGETS["rejects it"])
    outcome = world.move(instance_id)
    assert getattr(outcome, "reason", None) is Reason.GONE, outcome
