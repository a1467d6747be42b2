"""The calls that only look, on fake and real servers: nothing of them is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from bridge.errors import SideError
from bridge.model import Described, Endpoint, SideName, SideProblem
from bridge.orthanc import OrthancClient
from bridge.orthanc.client import BULK_MAX
from tests.contract.conftest import PASSWORD, USERNAME
from tests.dicom_samples import file_bytes, identity_of, small_ct, small_ct_dataset, small_series

NOWHERE = "00000000-00000000-00000000-00000000-00000000"


@pytest.fixture
def looking() -> Iterator[Callable[..., OrthancClient]]:
    with ExitStack() as stack:

        def connect(url: str, username: str = "", password: str = "") -> OrthancClient:
            credentials = Credentials(username or None, password or None)
            client = OrthancClient(Endpoint(SideName.TARGET, url), credentials)
            return stack.enter_context(client)

        yield connect


Looking = Callable[..., OrthancClient]


def test_the_clock_is_utc(server_url: str, looking: Looking) -> None:
    seen = looking(server_url).now()
    assert abs(datetime.now(UTC) - seen) < timedelta(seconds=5)


def test_the_head_is_the_beginning_of_the_file(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    data = small_ct(rows=400, columns=400)
    instance_id = client.store(data, deadline_s=10).instance_id
    assert client.head(instance_id, 1000) == data[:1000]
    assert client.head(instance_id, 10_000_000) == data
    assert client.has_instance(instance_id), "the client goes on working"


def test_a_study_is_found_by_its_uid_with_all_its_instances(
    server_url: str, looking: Looking
) -> None:
    client = looking(server_url)
    files = small_series(3)
    ids = {client.store(data, deadline_s=10).instance_id for data in files}
    client.store(small_ct(), deadline_s=10)
    found = client.lookup(identity_of(files[0]).study_uid)
    assert [level for level, _ in found] == ["Study"]
    assert set(client.instances_of_study(found[0][1]) or []) == ids


def test_a_study_tells_whether_it_is_stable(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    before = client.store(small_ct(), deadline_s=10)
    state = client.study_state(before.study_id)
    assert state is not None
    assert len(state.last_update) == len("20261130T220000")
    assert isinstance(state.stable, bool)
    assert client.study_state("00000000-00000000-00000000-00000000-00000000") is None


def test_what_is_not_there_is_not_found(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    assert client.lookup("1.2.3.4") == []
    assert client.instances_of_study("00000000-00000000-00000000-00000000-00000000") is None


def test_asking_whether_one_may_store_stores_nothing(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    client.may_store()
    client.may_delete()
    assert client.list_instances(0, 10) == []
    assert client.last_change().last == 0


def test_who_may_not_store_is_told(locked_url: str, looking: Looking) -> None:
    for allowed in (looking(locked_url).may_store, looking(locked_url).may_delete):
        with pytest.raises(SideError) as caught:
            allowed()
        assert caught.value.problem is SideProblem.LOGIN_REFUSED
    looking(locked_url, USERNAME, PASSWORD).may_store()


def test_only_instances_with_pixels_have_their_offset(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    with_pixels = client.store(small_ct(), deadline_s=10).instance_id
    dataset = small_ct_dataset()
    del dataset.PixelData
    without = client.store(file_bytes(dataset), deadline_s=10).instance_id
    assert "PixelDataOffset" in client.instance_metadata(with_pixels)
    assert "PixelDataOffset" not in client.instance_metadata(without)


def test_metadata_of_many_are_those_of_each(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    ids = [client.store(data, deadline_s=10).instance_id for data in small_series(3)]
    told = client.bulk_metadata([*ids, NOWHERE])
    assert told == {instance_id: client.instance_metadata(instance_id) for instance_id in ids}
    assert told[ids[2]]["TransferSyntax"]
    assert client.bulk_metadata([NOWHERE]) == {}
    assert client.bulk_metadata([]) == {}


def test_descriptions_in_bulk_and_in_pages_are_those_of_each(
    server_url: str, looking: Looking
) -> None:
    client = looking(server_url)
    dataset = small_ct_dataset()
    del dataset.PixelData
    files = [*small_series(5), file_bytes(dataset), small_ct(rows=400, columns=400)]
    ids = {client.store(data, deadline_s=10).instance_id for data in files}
    expected = {i: Described(client.instance_metadata(i), client.attachment_size(i)) for i in ids}
    assert {told.size_bytes for told in expected.values()} == set(map(len, files))
    assert client.bulk_described([*ids, NOWHERE]) == expected
    if "HasExtendedFind" not in client.system().capabilities:
        assert client.find_described(0, 10) is None
        return
    pages = [client.find_described(since, 3) or {} for since in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    found = {instance_id: told for page in pages for instance_id, told in page.items()}
    assert found == expected
    assert list(found) == client.list_instances(0, 10), "in the order of the list"


@pytest.mark.orthanc
def test_sizes_are_those_before_the_storage_area_compresses(
    orthanc: Callable[..., OrthancServer], looking: Looking
) -> None:
    client = looking(orthanc("compressing", config={"StorageCompression": True}).url)
    files = small_series(3)
    ids = [client.store(data, deadline_s=10).instance_id for data in files]
    told = {**client.bulk_described(ids), **(client.find_described(0, 10) or {})}
    sizes = {instance_id: len(data) for instance_id, data in zip(ids, files, strict=True)}
    assert {instance_id: one.size_bytes for instance_id, one in told.items()} == sizes
    assert {instance_id: client.attachment_size(instance_id) for instance_id in ids} == sizes


def test_what_a_server_holds_is_the_same_by_its_list_in_bulk_and_one_by_one(
    server_url: str, looking: Looking
) -> None:
    client = looking(server_url)
    ids = [client.store(data, deadline_s=10).instance_id for data in small_series(3)]
    asked = [ids[0], NOWHERE, ids[2], ids[1]]
    named = set(client.bulk_held(asked) or ())
    assert named == set(ids)
    assert named == {instance_id for instance_id in asked if client.has_instance(instance_id)}
    assert named == set(client.list_instances(0, 10_000))
    assert client.list_instances(3, 10_000) == []
    assert client.bulk_held([NOWHERE]) == frozenset()
    assert client.bulk_held([]) == frozenset()


def test_the_studies_of_many_instances_are_told_at_once(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    stored = [client.store(data, deadline_s=10) for data in [*small_series(3), small_ct()]]
    ids = [one.instance_id for one in stored]
    assert set(client.studies_of([*ids, NOWHERE]) or ()) == {one.study_id for one in stored}
    assert client.studies_of(ids[:1]) == frozenset({stored[0].study_id})
    assert client.studies_of([NOWHERE]) == frozenset()


def test_as_many_as_are_asked_for_at_once_are_told(server_url: str, looking: Looking) -> None:
    client = looking(server_url)
    instance_id = client.store(small_ct(), deadline_s=10).instance_id
    others = [f"{number:08x}{NOWHERE[8:]}" for number in range(1, BULK_MAX)]
    assert set(client.bulk_metadata([*others, instance_id])) == {instance_id}
    with pytest.raises(ValueError, match=str(BULK_MAX + 1)):
        client.bulk_metadata([*others, instance_id, NOWHERE])
