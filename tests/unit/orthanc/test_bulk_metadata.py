"""Metadata of many instances by one request, and one by one where that is not answered."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bridge.errors import SideError
from bridge.model import SideName
from bridge.orthanc import OrthancClient
from tests.dicom_samples import small_series
from tests.fake_behaviours import Respond
from tests.fake_orthanc import FakeOrthanc

BULK = "POST /tools/bulk-content"
FAULT = json.dumps({"HttpStatus": 500, "OrthancStatus": 1, "OrthancError": "Internal error"})


def asked(fake: FakeOrthanc) -> int:
    return sum(request == BULK for request in fake.requests)


@pytest.mark.parametrize(
    "answer",
    [
        Respond(401),
        Respond(403),
        Respond(404),
        Respond(302, headers={"Location": "/login"}),
        Respond(500, FAULT.encode()),
        Respond(200, b"<html>not here</html>", {"Content-Type": "text/html"}),
        Respond(200, b'{"Resources": "no list"}'),
        Respond(200, b'[{"ID": "00000000-00000000-00000000-00000000-00000001", "Metadata": {}}]'),
    ],
)
def test_a_server_that_does_not_answer_it_is_asked_one_by_one(
    fake: FakeOrthanc, target: OrthancClient, answer: Respond
) -> None:
    ids = [fake.put(data) for data in small_series(3)]
    fake.script(BULK, answer)
    for _ in range(3):
        assert target.bulk_metadata(ids) == {}
        assert target.bulk_held(ids) is None
    assert asked(fake) == 1, "it is not asked again"
    assert all(target.instance_metadata(instance_id) for instance_id in ids)


@pytest.mark.parametrize(
    "named", [["0" * 8 + "-00000000" * 4], None], ids=["another instance", "one more than asked"]
)
def test_a_server_that_names_what_was_not_asked_for_is_not_believed(
    fake: FakeOrthanc, target: OrthancClient, named: list[str] | None
) -> None:
    ids = [fake.put(data) for data in small_series(2)]
    rows = [{"ID": instance_id} for instance_id in named or [*ids, ids[0]]]
    fake.script(BULK, Respond(200, json.dumps(rows).encode()))
    assert target.bulk_held(ids) is None


@pytest.mark.parametrize("answer", [Respond(503), Respond(507), Respond(429)])
def test_an_outage_is_none_of_this_request(
    fake: FakeOrthanc, client_of: Callable[..., OrthancClient], answer: Respond
) -> None:

    target = client_of(fake.url, SideName.TARGET, timeout_s=1)
    ids = [fake.put(data) for data in small_series(3)]
    fake.script(BULK, answer)
    with pytest.raises(SideError):
        target.bulk_metadata(ids)
    fake.behave()
    assert set(target.bulk_metadata(ids)) == set(ids)


FIND = "POST /tools/find"


def test_only_a_server_that_describes_what_it_finds_is_asked_to(
    fake: FakeOrthanc, target: OrthancClient
) -> None:
    fake.put(small_series(1)[0])
    assert [target.find_described(0, 10), target.find_described(0, 10)] == [None, None]
    assert FIND not in fake.requests
    assert sum(request.startswith("GET /system") for request in fake.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Respond(403),
        Respond(404),
        Respond(500, FAULT.encode()),
        Respond(200, b'["00000000-00000000-00000000-00000000-00000001"]'),
    ],
)
def test_a_server_that_describes_nothing_after_all_is_not_asked_again(
    fake: FakeOrthanc, target: OrthancClient, answer: Respond
) -> None:
    fake.extended_changes = True
    ids = [fake.put(data) for data in small_series(3)]
    assert list(target.find_described(0, 10) or {}) == ids
    fake.script(FIND, answer)
    assert [target.find_described(0, 10), target.find_described(0, 10)] == [None, None]
    assert fake.requests.count(FIND) == 2


@pytest.mark.parametrize(
    ("attachments", "size"),
    [
        ([], None),
        ([{"ContentType": 3, "UncompressedSize": 5}], None),
        ([{"ContentType": 3, "UncompressedSize": 5}, {"ContentType": 1}], None),
        ([{"ContentType": 3, "UncompressedSize": 5}, {"ContentType": 1, "UncompressedSize": 7}], 7),
    ],
)
def test_the_size_is_that_of_the_file_and_of_no_other_attachment(
    fake: FakeOrthanc, target: OrthancClient, attachments: object, size: int | None
) -> None:
    fake.extended_changes = True
    (instance_id,) = [fake.put(data) for data in small_series(1)]
    row = {"ID": instance_id, "Metadata": {}, "Attachments": attachments}
    fake.script(FIND, Respond(200, json.dumps([row]).encode()))
    told = target.find_described(0, 10)
    assert told is not None
    assert told[instance_id].size_bytes == size
