"""Proof of arrival (G8): what a target that hides, lacks or denies what it holds comes to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.dicom.orthanc_id import orthanc_id_of
from bridge.errors import InstanceError, SideError, side_error
from bridge.model import (
    Action,
    Delivered,
    InstanceFailed,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    StoreAnswer,
)
from bridge.orthanc import StoredFile
from bridge.retention.bridge_notes import NOBODY, Role, name_of
from bridge.worker.payload import Payload
from bridge.worker.proof import (
    FOLLOWS,
    check_answer,
    check_source_file,
    check_stored,
    file_name,
    is_at_target,
    stored_md5,
)
from tests.dicom_samples import small_ct
from tests.fake_behaviours import Behaviour
from tests.fake_orthanc import FakeOrthanc, Respond, StoreAs
from tests.fake_store import FakeStore
from tests.transfer_world import World, rle

MD5 = r"GET /instances/[^/]+/attachments/dicom/md5"


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> World:
    return World(fake_orthanc(), fake_orthanc())


@pytest.mark.parametrize("proof", ["answer", "stored"])
def test_already_stored_at_a_target_that_lacks_it_is_no_delivery(world: World, proof: str) -> None:
    instance_id = world.source.put(small_ct())
    world.target.script(
        "POST /instances", StoreAs(instance_id="-".join(["0badc0de"] * 5), status="AlreadyStored")
    )
    world.target.script("POST /instances", _already(instance_id))
    failed = world.move(instance_id, proof=proof)
    assert isinstance(failed, InstanceFailed), failed
    assert failed.reason is Reason.PROOF_MISMATCH
    assert "does not hold" in failed.message


def _already(instance_id: str) -> Respond:
    body = f'{{"ID": "{instance_id}", "Status": "AlreadyStored"}}'
    return Respond(200, body.encode())


@pytest.mark.parametrize(
    ("status", "problem"), [(401, SideProblem.LOGIN_REFUSED), (403, SideProblem.FORBIDDEN)]
)
def test_a_target_that_refuses_the_proof_that_is_asked_for_parks_nobody(
    world: World, status: int, problem: SideProblem
) -> None:
    instance_id = world.source.put(small_ct())
    world.target.script(MD5, Respond(status))
    failed = world.move(instance_id, proof="stored")
    assert isinstance(failed, SideFailed), failed
    assert (failed.problem, failed.specific) == (problem, False)


@pytest.mark.parametrize("status", [401, 403])
def test_a_target_that_hides_what_is_not_asked_for_has_delivered(world: World, status: int) -> None:
    instance_id = world.source.put(small_ct())
    world.move(instance_id)
    world.target.script(MD5, Respond(status))
    done = world.move(instance_id)
    assert isinstance(done, Delivered)
    assert (done.status, done.target_md5, done.differing) == ("AlreadyStored", "", False)


@pytest.mark.parametrize("status", [500, 502, 507])
def test_a_target_that_cannot_tell_has_not_delivered_what_it_says_it_had(
    world: World, status: int
) -> None:
    """Only one that forbids the look hides something; one that is in trouble is asked again."""
    instance_id = world.source.put(small_ct())
    world.move(instance_id)
    world.target.script(MD5, Respond(status))
    failed = world.move(instance_id)
    assert not isinstance(failed, Delivered), failed


def test_a_target_whose_proof_route_fails_is_asked_again(world: World) -> None:
    instance_id = world.source.put(small_ct())
    world.target.script(MD5, Respond(500))
    failed = world.move(instance_id, proof="stored")
    assert isinstance(failed, SideFailed)
    assert failed.specific


class Server:
    """A server that answers these questions of one instance, with a value or an error."""

    def __init__(self, told: object) -> None:
        self.told = told

    def stored_file(self, instance_id: str) -> object:
        return self.stored_md5(instance_id)

    def stored_md5(self, _instance_id: str) -> object:
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def trouble(problem: SideProblem, *, specific: bool = False) -> SideError:
    return side_error(SideName.TARGET, problem, "trouble", specific=specific)


LACKING = InstanceError(Reason.PROOF_MISMATCH, "it lacks it")
HIDING = InstanceError(Reason.SERVER_REFUSES_INSTANCE, "it tells nothing of it")


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (StoredFile("uuid", "right", 9), "uuid"),
        (StoredFile("uuid", "wrong", 9), ""),
        (StoredFile("uuid", "", 9), ""),
        (LACKING, ""),
        (HIDING, ""),
        (trouble(SideProblem.FORBIDDEN), ""),
        (trouble(SideProblem.LOGIN_REFUSED), ""),
        (trouble(SideProblem.SERVER_ERROR, specific=True), ""),
        (trouble(SideProblem.SERVER_ERROR), None),
        (trouble(SideProblem.UNREACHABLE), None),
    ],
)
def test_the_name_of_a_file_is_that_of_the_bytes_that_were_moved(
    told: object, name: str | None
) -> None:
    """Nothing is deleted on the strength of another file's name; a server that is down is waited
    for."""
    server: Any = Server(told)
    if name is None:
        with pytest.raises(SideError):
            file_name(server, "i", md5="right")
    else:
        assert file_name(server, "i", md5="right") == name


@pytest.mark.parametrize(
    ("told", "came_back"),
    [
        (hashlib.md5(b"sent", usedforsecurity=False).hexdigest(), True),
        (hashlib.md5(b"other", usedforsecurity=False).hexdigest(), False),
        ("", False),
        (LACKING, False),
        (HIDING, False),
        (trouble(SideProblem.FORBIDDEN), False),
    ],
)
def test_the_target_holds_just_so_what_is_to_be_sent(told: object, *, came_back: bool) -> None:
    server: Any = Server(told)
    payload = Payload(Action.UNCHANGED, [b"se", b"n", b"t"], 4)
    assert is_at_target(server, "i", payload) is came_back
    down: Any = Server(trouble(SideProblem.UNREACHABLE))
    with pytest.raises(SideError):
        is_at_target(down, "i", payload)


@pytest.mark.parametrize(
    ("told", "may_hide", "stored"),
    [
        ("md5", True, "md5"),
        ("md5", False, "md5"),
        (HIDING, True, ""),
        (HIDING, False, HIDING),
        (LACKING, True, LACKING),
        (LACKING, False, LACKING),
        (trouble(SideProblem.FORBIDDEN), True, ""),
        (trouble(SideProblem.LOGIN_REFUSED), True, ""),
        (trouble(SideProblem.FORBIDDEN), False, SideError),
        (trouble(SideProblem.SERVER_ERROR), True, SideError),
        (trouble(SideProblem.NOT_ORTHANC, specific=True), True, SideError),
    ],
)
def test_only_a_target_that_may_hide_hides(told: object, *, may_hide: bool, stored: object) -> None:
    server: Any = Server(told)
    if isinstance(stored, str):
        assert stored_md5(server, "i", may_hide=may_hide) == stored
    else:
        with pytest.raises((SideError, InstanceError)) as caught:
            stored_md5(server, "i", may_hide=may_hide)
        assert caught.value is told


ANOTHER = "-".join(["0badc0de"] * 5)


@pytest.mark.parametrize(
    ("status", "instance_id", "reason", "final"),
    [
        ("Success", "i", None, False),
        ("AlreadyStored", "i", None, False),
        ("FilteredOut", "i", Reason.FILTERED_OUT, True),
        ("Failure", "i", Reason.REJECTED_BY_TARGET, False),
        ("success", "i", Reason.REJECTED_BY_TARGET, False),
        ("Success", ANOTHER, Reason.IDENTITY_CHANGED, True),
        ("AlreadyStored", ANOTHER, Reason.IDENTITY_CHANGED, True),
        ("FilteredOut", ANOTHER, Reason.FILTERED_OUT, True),
    ],
)
def test_a_target_is_held_to_its_answer(
    status: str, instance_id: str, reason: Reason | None, *, final: bool
) -> None:
    answer = StoreAnswer(instance_id, status)
    if reason is None:
        check_answer(answer, "i")
        return
    with pytest.raises(InstanceError) as caught:
        check_answer(answer, "i")
    assert (caught.value.reason, caught.value.final) == (reason, final)


@pytest.mark.parametrize(
    ("stored", "status", "told"),
    [
        ("sent", "Success", None),
        ("other", "Success", "holds other bytes"),
        ("", "Success", "holds other bytes"),
        ("other", "AlreadyStored", ", and kept it"),
    ],
)
def test_what_is_stored_is_what_was_sent(stored: str, status: str, told: str | None) -> None:
    if told is None:
        check_stored(stored, "sent", status)
        return
    with pytest.raises(InstanceError, match=told) as caught:
        check_stored(stored, "sent", status)
    assert caught.value.reason is Reason.PROOF_MISMATCH


@pytest.mark.parametrize("other", [b"", b"no DICOM at all" * 100, bytes(128) + b"DICM"])
def test_a_file_whose_identifier_is_not_certain_is_not_another_instances(other: bytes) -> None:
    check_source_file(memoryview(other), "an identifier")


def test_a_file_of_another_instance_is_the_sources_fault() -> None:
    data = small_ct()
    found = orthanc_id_of(memoryview(data))
    check_source_file(memoryview(data), found)
    with pytest.raises(InstanceError, match=f"of another instance, {found}") as caught:
        check_source_file(memoryview(data), "an identifier")
    assert (caught.value.reason, caught.value.final) == (Reason.IDENTITY_CHANGED, False)


NOTE = f"{FOLLOWS}0123456789ab-01234567"
INFO = "GET /instances/.*/attachments/dicom/info"


class LeadsToSource(FakeOrthanc):
    """A target whose address leads to the source: at all times, or ``to_source`` says when."""

    def __init__(self, source: FakeOrthanc) -> None:
        super().__init__()
        self.own, self.other = self.store, source.store
        self.to_source: Callable[[str], bool] = lambda _: True

    def behaviour_for(self, route: str) -> Behaviour | None:
        self.store = self.other if self.to_source(route) else self.own
        return super().behaviour_for(route)


@pytest.fixture
def misled(world: World) -> Iterator[LeadsToSource]:
    target = LeadsToSource(world.source)
    target.start()
    world.target = target
    yield target
    target.stop()


@pytest.mark.parametrize("syntax", ["native", "compressed"])
@pytest.mark.parametrize("proof", ["answer", "stored"])
def test_an_address_that_leads_to_the_source_has_delivered_nothing(
    world: World, misled: LeadsToSource, syntax: str, proof: str
) -> None:
    """86 of 300 were lost in silence: the source said AlreadyStored of each."""
    world.source.store.peers[NOTE] = NOBODY
    instance_id = world.source.put(rle() if syntax == "compressed" else small_ct())
    failed = world.move(instance_id, proof=proof)
    assert not isinstance(failed, Delivered), failed
    if proof == "answer":
        assert isinstance(failed, SideFailed)
        assert (failed.side, failed.specific) == (SideName.TARGET, False)
        assert "leads to the source" in failed.message
    misled.to_source = lambda _: False
    done = world.move(instance_id, proof=proof)
    assert isinstance(done, Delivered)
    assert done.status == "Success"
    assert instance_id in misled.own.instances


@pytest.mark.parametrize("proof", ["answer", "stored"])
def test_an_address_that_leads_to_the_source_for_one_answer_has_delivered_nothing(
    world: World, misled: LeadsToSource, proof: str
) -> None:
    misled.to_source = lambda route: route.startswith("POST /instances")
    instance_id = world.source.put(small_ct())
    failed = world.move(instance_id, proof=proof)
    assert isinstance(failed, InstanceFailed), failed
    assert (failed.reason, failed.final) == (Reason.PROOF_MISMATCH, False)


@pytest.mark.parametrize("told", [True, False])
def test_a_copy_of_the_source_s_folders_has_what_it_has(
    world: World, misled: LeadsToSource, told: bool
) -> None:
    """It names its files as the source does. Only the source has a note of who follows it."""
    if told:
        world.source.store.peers[NOTE] = NOBODY
    instance_id = world.source.put(small_ct())
    copy = FakeStore()
    copy.instances.update(world.source.store.instances)
    misled.other = copy
    done = world.move(instance_id)
    assert isinstance(done, Delivered)
    assert done.status == "AlreadyStored"


def test_a_note_has_the_name_that_is_looked_for() -> None:
    assert name_of(Role.FOLLOWS, "") == FOLLOWS


@pytest.mark.parametrize("hidden", [["target"], ["source"], ["source", "target"], []])
def test_what_the_target_has_already_is_delivered(world: World, hidden: list[str]) -> None:
    """Also where one of them does not tell how it names its file: then the answer counts."""
    instance_id = world.source.put(small_ct())
    world.move(instance_id)
    for side in hidden:
        getattr(world, side).script(INFO, Respond(403))
    done = world.move(instance_id)
    assert isinstance(done, Delivered)
    assert done.status == "AlreadyStored"


def test_what_the_source_has_deleted_meanwhile_is_delivered_all_the_same(world: World) -> None:
    instance_id = world.source.put(small_ct())
    world.move(instance_id)

    held = world.source.store

    def deleted(route: str) -> Behaviour | None:
        if "/attachments/dicom/info" in route:
            held.instances.pop(instance_id, None)
        return None

    world.source.behaviour_for = deleted  # type: ignore[method-assign]
    done = world.move(instance_id)
    assert isinstance(done, Delivered)
    assert done.status == "AlreadyStored"
