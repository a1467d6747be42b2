"""What a 404 tells of a metadata or an attachment: nothing, where the server shows more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bridge.errors import SideError
from bridge.model import Endpoint, ResourceKind, SideName, SideProblem
from bridge.orthanc.carry_client import CarryClient
from tests.dicom_samples import small_series
from tests.fake_behaviours import Respond
from tests.fake_orthanc import FakeOrthanc

Ask = Callable[[CarryClient, str], object]
ASKED: dict[str, Ask] = {
    "metadata": lambda client, one: client.metadata_of(ResourceKind.INSTANCE, one, "1024"),
    "attachments": lambda client, one: client.attachment(ResourceKind.INSTANCE, one, "1024"),
}


@pytest.fixture
def client(fake: FakeOrthanc) -> Iterator[CarryClient]:
    made = CarryClient(Endpoint(SideName.TARGET, fake.url))
    with closing(made):
        yield made


def not_found(client: CarryClient, ask: Ask, instance: str) -> bool:
    with pytest.raises(SideError) as caught:
        ask(client, instance)
    return caught.value.problem is SideProblem.NOT_FOUND


@pytest.mark.parametrize("beside", ASKED)
def test_none_where_the_list_of_what_there_is_lacks_it(
    fake: FakeOrthanc, client: CarryClient, beside: str
) -> None:
    instance, ask = fake.put(small_series(1)[0]), ASKED[beside]
    fake.script(f"GET /instances/{instance}/{beside}/.+", Respond(404))
    fake.script(f"GET /instances/{instance}/{beside}(?!/)", Respond(200, b'["1025"]'))
    assert ask(client, instance) is None
    fake.behave()
    fake.script(f"GET /instances/{instance}/{beside}/.+", Respond(404))
    fake.script(f"GET /instances/{instance}/{beside}(?!/)", Respond(200, b'["1025", "1024"]'))
    assert not_found(client, ask, instance), "it is listed"


@pytest.mark.parametrize("beside", ASKED)
def test_none_where_the_resource_is_gone(
    fake: FakeOrthanc, client: CarryClient, beside: str
) -> None:
    first, gone = (fake.put(data) for data in small_series(2))
    fake.store.delete(gone)
    assert first
    assert ASKED[beside](client, gone) is None


@pytest.mark.parametrize("beside", ASKED)
@pytest.mark.parametrize("pattern", ["GET /instances/{}/{}", "GET /instances/.", ""])
def test_a_404_of_something_on_the_way_tells_nothing(
    fake: FakeOrthanc, client: CarryClient, beside: str, pattern: str
) -> None:
    """It hides what lies beside the files, or all instances, or it is a wrong address."""
    for data in small_series(3):
        instance = fake.put(data)
    fake.script(pattern.format(instance, beside), Respond(404))
    assert not_found(client, ASKED[beside], instance)


@pytest.mark.parametrize("answer", [Respond(403), Respond(500), Respond(200, b"{}")])
@pytest.mark.parametrize("beside", ASKED)
def test_another_answer_is_no_404(
    fake: FakeOrthanc, client: CarryClient, beside: str, answer: Respond
) -> None:
    instance = fake.put(small_series(1)[0])
    fake.script(f"GET /instances/{instance}/{beside}(?!/)", answer)
    fake.script(f"GET /instances/{instance}/{beside}/.+", Respond(404))
    with pytest.raises(SideError) as caught:
        ASKED[beside](client, instance)
    assert caught.value.problem is not SideProblem.NOT_FOUND


def test_a_list_is_bounded(fake: FakeOrthanc, client: CarryClient) -> None:
    instance = fake.put(small_series(1)[0])
    names = json.dumps([str(number) for number in range(1001)]).encode()
    fake.script(f"GET /instances/{instance}/metadata(?!/)", Respond(200, names))
    fake.script(f"GET /instances/{instance}/metadata/.+", Respond(404))
    with pytest.raises(SideError) as caught:
        ASKED["metadata"](client, instance)
    assert caught.value.problem is SideProblem.NOT_ORTHANC
