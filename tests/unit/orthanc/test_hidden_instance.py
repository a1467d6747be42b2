"""A 404 for one instance that the server holds: a cache that keeps 404s, a replica that is behind.

Seen by an attacker: the instance was told as deleted at the source, and never delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bridge.credentials import Credentials
from bridge.errors import InstanceGone, SideError
from bridge.model import Delivered, Endpoint, SideFailed, SideName, SideProblem, Skipped
from bridge.orthanc import OrthancClient
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.transfer_world import World

BULK = "POST /tools/bulk-content"
HIDDEN = [Respond(404), Respond(404, b"<html>not found</html>"), Respond(404, b"")]


@pytest.fixture
def source(fake_orthanc: Callable[..., FakeOrthanc]) -> FakeOrthanc:
    return fake_orthanc()


@pytest.fixture
def client(source: FakeOrthanc) -> Iterator[OrthancClient]:
    with OrthancClient(Endpoint(SideName.SOURCE, source.url), Credentials()) as client:
        yield client


@pytest.mark.parametrize("answer", HIDDEN, ids=["orthanc", "html", "empty"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_that_is_described_by_another_route_is_not_gone(
    source: FakeOrthanc, client: OrthancClient, place: int, answer: Respond
) -> None:
    """Planted: without the question by POST it is False, and InstanceGone."""
    sent = [source.put(data) for data in small_series(3)]
    source.script(f"GET /instances/{sent[place]}", answer)
    asked: list[Callable[[], object]] = [
        lambda: client.has_instance(sent[place]),
        lambda: client.instance_metadata(sent[place]),
        lambda: client.stored_file(sent[place]),
    ]
    for ask in asked:
        with pytest.raises(SideError) as caught:
            ask()
        assert (caught.value.problem, caught.value.specific) == (SideProblem.NOT_FOUND, True)
        assert "bulk-content" in caught.value.message
    assert all(client.has_instance(one) for one in sent if one != sent[place])


def test_one_that_is_gone_is_gone(source: FakeOrthanc, client: OrthancClient) -> None:
    first, gone, last = (source.put(data) for data in small_series(3))
    source.store.delete(gone)
    assert not client.has_instance(gone)
    with pytest.raises(InstanceGone):
        client.stored_file(gone)
    assert client.has_instance(first)
    assert client.has_instance(last)


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_server_that_has_no_other_route_is_believed(
    source: FakeOrthanc, client: OrthancClient, status: int
) -> None:
    sent = [source.put(data) for data in small_series(3)]
    source.script(BULK, Respond(status))
    source.script(f"GET /instances/{sent[1]}", Respond(404))
    assert not client.has_instance(sent[1])


def test_it_is_tried_again_and_not_passed_over(
    source: FakeOrthanc, fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    world = World(source, fake_orthanc())
    source.put(small_ct(seed=5))
    hidden = source.put(small_ct())
    source.script(f"GET /instances/{hidden}", Respond(404), times=4)
    failed = world.move(hidden)
    assert not isinstance(failed, Skipped), failed
    assert isinstance(failed, SideFailed)
    assert (failed.side, failed.specific) == (SideName.SOURCE, True)
    source.behave()
    assert isinstance(world.move(hidden), Delivered)
