"""What would be deleted with an instance, as a server tells it: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from bridge.errors import InstanceError, SideError
from bridge.model import Endpoint, ResourceKind, SideName, SideProblem
from bridge.orthanc.answers import Resource
from bridge.orthanc.carry_client import CarryClient
from tests.dicom_samples import small_series
from tests.fake_behaviours import Respond
from tests.fake_orthanc import FakeOrthanc

INSTANCE, SERIES, STUDY, PATIENT = (
    "-".join([f"{number:08x}"] * 5) for number in (0xA, 0xB, 0xC, 0xD)
)
OTHER = "-".join(["0000000e"] * 5)
KINDS = {
    ResourceKind.INSTANCE: INSTANCE,
    ResourceKind.SERIES: SERIES,
    ResourceKind.STUDY: STUDY,
    ResourceKind.PATIENT: PATIENT,
}
CHILDREN: dict[str, list[str] | None] = {
    f"/series/{SERIES}": [INSTANCE],
    f"/studies/{STUDY}": [SERIES],
    f"/patients/{PATIENT}": [STUDY],
}


@pytest.fixture
def client(fake: FakeOrthanc) -> Iterator[CarryClient]:
    made = CarryClient(Endpoint(SideName.TARGET, fake.url))
    with closing(made):
        yield made


def telling(
    client: CarryClient,
    children: dict[str, list[str] | None],
    told: dict[ResourceKind, list[Resource]],
) -> CarryClient:
    def resources(ids: Sequence[str], *, of: ResourceKind) -> list[Resource]:
        assert ids == [INSTANCE]
        return told[of]

    vars(client)["resources"] = resources
    vars(client)["_children"] = lambda path, _name: (CHILDREN | children)[path]
    return client


ALL = {kind: [Resource(kind, resource_id)] for kind, resource_id in KINDS.items()}


@pytest.mark.parametrize(
    ("children", "vanishing"),
    [
        ({}, [INSTANCE, SERIES, STUDY, PATIENT]),
        ({f"/patients/{PATIENT}": [OTHER, STUDY]}, [INSTANCE, SERIES, STUDY]),
        ({f"/studies/{STUDY}": [OTHER, SERIES]}, [INSTANCE, SERIES]),
        ({f"/series/{SERIES}": [INSTANCE, OTHER]}, [INSTANCE]),
    ],
)
def test_it_and_what_has_no_other_one(
    client: CarryClient, children: dict[str, list[str] | None], vanishing: list[str]
) -> None:
    found = telling(client, children, ALL).vanishing(INSTANCE)
    assert [one.resource_id for one in found] == vanishing


@pytest.mark.parametrize("kind", list(ResourceKind))
@pytest.mark.parametrize(
    "told",
    [
        [],
        [Resource(ResourceKind.INSTANCE, OTHER)],
        [Resource(ResourceKind.STUDY, STUDY), Resource(ResourceKind.SERIES, SERIES)],
    ],
)
def test_what_is_hidden_is_not_taken_for_nothing(
    client: CarryClient, kind: ResourceKind, told: list[Resource]
) -> None:
    """It would be lost with the copy."""
    with pytest.raises(InstanceError, match="does not tell"):
        telling(client, {}, ALL | {kind: told}).vanishing(INSTANCE)


@pytest.mark.parametrize("path", list(CHILDREN))
@pytest.mark.parametrize("listed", [None, [], [OTHER]])
def test_a_resource_that_does_not_list_what_it_has(
    client: CarryClient, path: str, listed: list[str] | None
) -> None:
    with pytest.raises(InstanceError, match="does not tell"):
        telling(client, {path: listed}, ALL).vanishing(INSTANCE)


def test_attachments_are_listed_and_a_404_is_not_believed(
    fake: FakeOrthanc, client: CarryClient
) -> None:
    first, gone = (fake.put(data) for data in small_series(2))
    path = f"GET /instances/{first}/attachments"
    fake.script(path, Respond(200, b'["dicom", "1030"]'))
    assert client.attachment_names(ResourceKind.INSTANCE, first) == ["dicom", "1030"]
    fake.behave()
    fake.script(path, Respond(404))
    with pytest.raises(SideError) as caught:
        client.attachment_names(ResourceKind.INSTANCE, first)
    assert caught.value.problem is SideProblem.NOT_FOUND
    fake.behave()
    fake.store.delete(gone)
    assert client.attachment_names(ResourceKind.INSTANCE, gone) == []


def test_whether_a_patient_is_protected(client: CarryClient) -> None:
    assert client.is_protected(PATIENT) is False
    client.protect_patient(PATIENT)
    assert client.is_protected(PATIENT) is True
