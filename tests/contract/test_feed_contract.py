"""What /changes does: FACTS 1-9, 12, kept true of the fake and of a real server."""

from __future__ import annotations

import datetime
import re

import httpx
import pytest

from bridge.model import Page
from bridge.orthanc import OrthancClient
from tests.dicom_samples import Identity, identity_of, orthanc_id, small_ct, small_series

NEW_PATIENT_ROWS = ["NewInstance", "NewSeries", "NewStudy", "NewPatient"]


def upload(client: OrthancClient, data: bytes) -> str:
    answer = client.store(data, deadline_s=10)
    assert answer.status == "Success"
    return answer.instance_id


def types_of(page: Page) -> list[str]:
    return [change.change_type for change in page.changes]


def sequences_of(page: Page) -> list[int]:
    return [change.sequence for change in page.changes]


def test_one_upload_of_a_new_patient_adds_four_rows_in_order(source: OrthancClient) -> None:
    data = small_ct()
    identity = identity_of(data)
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    upload(source, data)
    page = source.changes(0, 100)
    assert types_of(page) == NEW_PATIENT_ROWS
    assert sequences_of(page) == [1, 2, 3, 4]
    ids = (identity.patient_id, identity.study_uid, identity.series_uid, identity.sop_uid)
    assert [change.resource_id for change in page.changes] == [
        orthanc_id(*ids),
        orthanc_id(*ids[:3]),
        orthanc_id(*ids[:2]),
        orthanc_id(*ids[:1]),
    ]
    for change in page.changes:
        assert re.fullmatch(r"\d{8}T\d{6}", change.date)
        seen = datetime.datetime.strptime(change.date + "+0000", "%Y%m%dT%H%M%S%z")
        assert before <= seen <= datetime.datetime.now(datetime.UTC)
    assert page.done
    assert page.last == 4


def test_a_row_has_exactly_these_fields(source: OrthancClient, raw: httpx.Client) -> None:
    upload(source, small_ct())
    row = raw.get("/changes?limit=1").json()["Changes"][0]
    assert sorted(row) == ["ChangeType", "Date", "ID", "Path", "ResourceType", "Seq"]
    assert row["Path"] == f"/instances/{row['ID']}"
    assert row["ResourceType"] == "Instance"


def test_a_second_instance_of_a_series_adds_one_row(source: OrthancClient) -> None:
    first, second = small_series(2)
    upload(source, first)
    upload(source, second)
    assert types_of(source.changes(4, 100)) == ["NewInstance"]


def test_pages_are_rows_above_since_and_say_whether_there_is_more(source: OrthancClient) -> None:
    for data in small_series(3):
        upload(source, data)
    first = source.changes(0, 4)
    assert (sequences_of(first), first.done, first.last) == ([1, 2, 3, 4], False, 4)
    rest = source.changes(first.last, 4)
    assert (sequences_of(rest), rest.done, rest.last) == ([5, 6], True, 6)


def test_a_page_that_ends_exactly_at_the_end_is_done(source: OrthancClient) -> None:
    upload(source, small_ct())
    assert source.changes(0, 4).done
    assert not source.changes(0, 3).done


def test_the_default_limit_is_100_and_a_larger_one_is_honoured(
    source: OrthancClient, raw: httpx.Client
) -> None:
    for data in small_series(99):
        upload(source, data)
    by_default = raw.get("/changes").json()
    assert (len(by_default["Changes"]), by_default["Done"]) == (100, False)
    assert len(source.changes(0, 100_000).changes) == 102


def test_an_empty_page_tells_the_servers_own_counter(source: OrthancClient) -> None:
    upload(source, small_ct())
    beyond = source.changes(99_999, 100)
    assert (beyond.changes, beyond.done, beyond.last) == ((), True, 4)
    at_end = source.changes(4, 100)
    assert (at_end.changes, at_end.done, at_end.last) == ((), True, 4)


def test_a_new_server_has_an_empty_feed_at_zero(source: OrthancClient) -> None:
    assert source.changes(0, 100) == Page((), done=True, last=0)
    assert source.last_change() == Page((), done=True, last=0)


@pytest.mark.parametrize("since", ["x", "1x", ""])
def test_a_since_that_is_no_number_would_replay_everything(
    source: OrthancClient, raw: httpx.Client, since: str
) -> None:
    upload(source, small_ct())
    rows = raw.get(f"/changes?since={since}").json()["Changes"]
    assert [row["Seq"] for row in rows] == [1, 2, 3, 4]


def test_our_client_never_sends_such_a_since(source: OrthancClient) -> None:
    with pytest.raises(ValueError, match="since -1"):
        source.changes(-1, 10)
    with pytest.raises(ValueError, match="limit 0"):
        source.changes(0, 0)


def test_last_is_the_newest_row(source: OrthancClient) -> None:
    upload(source, small_ct())
    page = source.last_change()
    assert (types_of(page), sequences_of(page), page.last) == (["NewPatient"], [4], 4)


def test_the_type_filter_is_obeyed_or_ignored_as_system_says(source: OrthancClient) -> None:
    upload(source, small_ct())
    page = source.changes(0, 100, only_new_instances=True)
    expected = ["NewInstance"] if source.system().has_extended_changes else NEW_PATIENT_ROWS
    assert types_of(page) == expected


def test_pages_of_a_filtered_feed(source: OrthancClient, raw: httpx.Client) -> None:
    if not source.system().has_extended_changes:
        pytest.skip("this version ignores the filter")
    for data in small_series(3):
        upload(source, data)
    first = source.changes(0, 1, only_new_instances=True)
    assert (sequences_of(first), first.done, first.last) == ([1], False, 1)
    rest = source.changes(1, 10, only_new_instances=True)
    assert (sequences_of(rest), rest.done, rest.last) == ([5, 6], True, 6)
    nothing = raw.get("/changes?since=0&limit=10&type=StablePatient").json()
    assert nothing == {"Changes": [], "Done": True, "Last": 6}  # the counter, not the last match
    bounded = raw.get("/changes?since=0&limit=10&to=3").json()
    assert (bounded["First"], bounded["Last"], bounded["Done"]) == (1, 3, True)


def test_deleting_an_instance_takes_its_rows_and_adds_none(source: OrthancClient) -> None:
    first, second = small_series(2)
    first_id = upload(source, first)
    upload(source, second)
    assert source.delete_instance(first_id)
    page = source.changes(0, 100)
    assert sequences_of(page) == [2, 3, 4, 5]  # a gap at 1: the parents are still there
    assert page.last == 5


def test_deleting_the_last_instance_of_a_patient_takes_the_parents_rows(
    source: OrthancClient,
) -> None:
    instance_id = upload(source, small_ct())
    assert source.delete_instance(instance_id)
    assert source.changes(0, 100) == Page((), done=True, last=4)
    assert source.last_change() == Page((), done=True, last=4)


def test_clearing_the_feed_keeps_the_counter(source: OrthancClient, raw: httpx.Client) -> None:
    first, second = small_series(2)
    upload(source, first)
    assert raw.delete("/changes").status_code == 200
    assert source.changes(0, 100) == Page((), done=True, last=4)
    upload(source, second)
    assert sequences_of(source.changes(0, 100)) == [5]


def test_an_instance_that_is_already_there_adds_no_row(source: OrthancClient) -> None:
    data = small_ct()
    upload(source, data)
    assert source.store(data, deadline_s=10).status == "AlreadyStored"
    assert source.changes(0, 100).last == 4


def test_there_is_no_long_polling_and_no_etag(source: OrthancClient, raw: httpx.Client) -> None:
    upload(source, small_ct())
    answer = raw.get("/changes?since=4", timeout=5)
    assert answer.json()["Changes"] == []
    assert "etag" not in answer.headers


def test_the_identity_helper_agrees_with_the_server(source: OrthancClient) -> None:
    data = small_ct(patient_id="  PADDED  ")
    identity = identity_of(data)
    assert identity == Identity(
        "  PADDED", identity.study_uid, identity.series_uid, identity.sop_uid
    )
    assert upload(source, data) == identity.orthanc_id
