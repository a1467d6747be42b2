"""What only a real Orthanc can show: filters, full storage, files it lacks, faults on the way."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.dicom.file_meta import ARCHIVES
from bridge.errors import InstanceError, SideError
from bridge.model import Action, Reason, SideName, SideProblem
from bridge.orthanc import OrthancClient
from bridge.worker.payload import as_it_is
from tests.dicom_samples import identity_of, small_ct, small_ct_dataset, small_series
from tests.fault_proxy import Direction, DropAnswer, FaultProxy, Reset

pytestmark = pytest.mark.orthanc

Start = Callable[..., OrthancServer]
Make = Callable[..., OrthancClient]
Proxy = Callable[[int], FaultProxy]

REFUSE_EVERY_INSTANCE = "function ReceivedInstanceFilter(dicom, origin)\n  return false\nend\n"
REFUSE_EVERY_REQUEST = "function IncomingHttpRequestFilter(method, uri)\n  return false\nend\n"


def lua(directory: Path, text: str) -> dict[str, object]:
    script = directory / "filter.lua"
    script.write_text(text)
    return {"LuaScripts": [str(script)]}


def failure(call: Callable[[], object]) -> SideError:
    with pytest.raises(SideError) as caught:
        call()
    return caught.value


def test_a_filtered_instance_answers_200_and_is_not_stored(
    orthanc: Start, client_of: Make, tmp_path: Path
) -> None:
    server = orthanc(config=lua(tmp_path, REFUSE_EVERY_INSTANCE))
    client = client_of(server.url, SideName.TARGET)
    data = small_ct()
    answer = client.store(data, deadline_s=5)
    assert (answer.instance_id, answer.status) == (identity_of(data).orthanc_id, "FilteredOut")
    assert not client.has_instance(answer.instance_id)


def hiding(other: bytes) -> bytes:
    """A file that is DICOM for who reads DICOM, and a ZIP archive of another for who reads ZIP."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("another.dcm", other)
    padding = archive.getvalue()
    padding += bytes(len(padding) & 1)
    head = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, len(padding))
    return b"PK\x03\x04".ljust(128, b"\0") + small_ct()[128:] + head + padding


def test_an_archive_behind_a_preamble_is_imported_unless_the_preamble_is_cleared(
    orthanc: Start, client_of: Make
) -> None:
    """G8. Orthanc answers with a list for an archive: the one body is stored, the other is not."""
    server = orthanc()
    client = client_of(server.url, SideName.TARGET)
    other = small_ct(patient_id="ANOTHER")
    data = hiding(other)
    with pytest.raises((InstanceError, SideError)):
        client.store(data, deadline_s=5)
    assert not client.has_instance(identity_of(data).orthanc_id)
    assert client.has_instance(identity_of(other).orthanc_id), "else there is nothing to prevent"

    third = small_ct(patient_id="A-THIRD")
    data = hiding(third)
    body = as_it_is(data, Action.UNCHANGED)
    answer = client.store(body.body, body_bytes=body.body_bytes, deadline_s=5)
    assert (answer.instance_id, answer.status) == (identity_of(data).orthanc_id, "Success")
    assert not client.has_instance(identity_of(third).orthanc_id)


def test_with_a_cleared_preamble_every_file_is_itself(orthanc: Start, client_of: Make) -> None:
    server = orthanc()
    client = client_of(server.url, SideName.TARGET)
    for preamble in ARCHIVES:
        data = preamble.ljust(128, b"x") + small_ct()[128:]
        body = as_it_is(data, Action.FORWARDED)
        answer = client.store(body.body, body_bytes=body.body_bytes, deadline_s=5)
        assert (answer.instance_id, answer.status) == (identity_of(data).orthanc_id, "Success")


def test_a_filtered_request_is_forbidden(orthanc: Start, client_of: Make, tmp_path: Path) -> None:
    server = orthanc(config=lua(tmp_path, REFUSE_EVERY_REQUEST))
    client = client_of(server.url, SideName.TARGET)
    assert failure(client.system).problem is SideProblem.FORBIDDEN
    error = failure(lambda: client.store(small_ct(), deadline_s=5))
    assert error.problem is SideProblem.FORBIDDEN


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_upload_without_its_uids_is_rejected_not_an_outage(
    orthanc: Start, client_of: Make, missing: str
) -> None:
    client = client_of(orthanc().url, SideName.TARGET)
    dataset = small_ct_dataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = bytes(128)
    delattr(dataset, missing)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=False)
    with pytest.raises(InstanceError) as caught:
        client.store(buffer.getvalue(), deadline_s=5)
    assert caught.value.reason is Reason.REJECTED_BY_TARGET
    assert caught.value.final


def test_full_storage(orthanc: Start, client_of: Make) -> None:
    server = orthanc(config={"MaximumStorageSize": 1, "MaximumStorageMode": "Reject"})
    client = client_of(server.url, SideName.TARGET)
    too_much = small_ct(rows=1024, columns=1024)
    error = failure(lambda: client.store(too_much, deadline_s=5))
    assert (error.problem, error.specific) == (SideProblem.STORAGE_FULL, False)


def test_a_file_missing_in_the_storage_area_is_not_gone(orthanc: Start, client_of: Make) -> None:
    server = orthanc(config={"MaximumStorageCacheSize": 0})
    client = client_of(server.url, SideName.SOURCE)
    instance_id = client.store(small_ct(), deadline_s=5).instance_id
    for path in (server.directory / "storage").glob("??/??/*"):
        path.unlink()
    # Not InstanceGone: 500 and "specific", or a 404 whose instance is still listed.
    with pytest.raises((SideError, InstanceError)) as caught:
        client.fetch_instance(instance_id, len, deadline_s=5)
    if isinstance(caught.value, SideError):
        assert caught.value.specific
    else:
        assert type(caught.value) is InstanceError
        assert caught.value.reason is Reason.SERVER_REFUSES_INSTANCE
    assert client.has_instance(instance_id)


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("harm", ["removed", "emptied", "damaged"])
def test_a_lost_file_is_never_answered_as_a_refusal(
    orthanc: Start, harm: str, described: bool
) -> None:
    """What the mirror takes for a missing right: 401, 403, 404, 405 and redirects."""
    options = {"MaximumStorageCacheSize": 0, "HttpDescribeErrors": described}
    server = orthanc(config=options)
    instance_id = httpx.post(f"{server.url}/instances", content=small_ct()).json()["ID"]
    for path in (server.directory / "storage").glob("??/??/*"):
        if path.stat().st_size < 1000:
            continue
        if harm == "removed":
            path.unlink()
        else:
            path.write_bytes(b"" if harm == "emptied" else path.read_bytes()[:-1] + b"!")
    address = f"{server.url}/instances/{instance_id}"
    verified = httpx.post(f"{address}/attachments/dicom/verify-md5").status_code
    assert verified in {400, 500}
    assert httpx.get(f"{address}/file").status_code in {200, 400, 500}


def test_without_sums_every_file_is_answered_as_a_damaged_one(
    orthanc: Start, client_of: Make
) -> None:
    client = client_of(orthanc(config={"StoreMD5ForAttachments": False}).url, SideName.TARGET)
    for seed in range(3):
        instance_id = client.store(small_ct(seed=seed), deadline_s=5).instance_id
        assert client.stored_file(instance_id).md5 == ""
        assert not client.verify_stored(instance_id)


def test_without_described_errors_a_rejection_may_still_be_the_servers_fault(
    orthanc: Start, client_of: Make
) -> None:
    server = orthanc(config={"HttpDescribeErrors": False})
    error = failure(lambda: client_of(server.url).store(b"not DICOM", deadline_s=5))
    assert (error.problem, error.specific) == (SideProblem.SERVER_ERROR, True)


def test_requests_from_elsewhere_are_refused_by_default(orthanc: Start) -> None:
    config = (orthanc().directory / "orthanc.json").read_text()
    assert '"RemoteAccessAllowed": false' in config


def test_a_suspended_server_times_out_and_works_on(orthanc: Start, client_of: Make) -> None:
    server = orthanc()
    client = client_of(server.url, SideName.TARGET, timeout_s=1.0)
    client.system()
    server.suspend()
    assert failure(client.system).problem is SideProblem.TIMED_OUT
    server.resume()
    assert client_of(server.url, SideName.TARGET).system().name == "orthanc"


def test_a_stopped_server_refuses_and_comes_back_with_its_content(
    orthanc: Start, client_of: Make
) -> None:
    server = orthanc()
    client = client_of(server.url, SideName.TARGET)
    instance_id = client.store(small_ct(), deadline_s=5).instance_id
    server.kill()
    error = failure(client.system)
    assert (error.problem, error.specific) == (SideProblem.UNREACHABLE, False)
    server.start()
    assert client.has_instance(instance_id)


def test_a_reset_during_an_upload_stores_nothing(
    orthanc: Start, client_of: Make, fault_proxy: Proxy
) -> None:
    server = orthanc()
    proxy = fault_proxy(server.http_port)
    client = client_of(proxy.url, SideName.TARGET)
    data = small_ct(rows=1024, columns=1024)
    proxy.strike(Reset(Direction.UP, after_bytes=1_000_000), times=1)
    error = failure(lambda: client.store(data, deadline_s=10))
    assert error.problem is SideProblem.UNREACHABLE
    assert not client.has_instance(identity_of(data).orthanc_id)
    assert client.store(data, deadline_s=10).status == "Success"


def test_a_reset_during_a_download_is_no_short_file(
    orthanc: Start, client_of: Make, fault_proxy: Proxy
) -> None:
    server = orthanc()
    proxy = fault_proxy(server.http_port)
    client = client_of(proxy.url)
    data = small_ct(rows=1024, columns=1024)
    instance_id = client.store(data, deadline_s=10).instance_id
    proxy.strike(Reset(Direction.DOWN, after_bytes=1_000_000), times=1)
    got: list[bytes] = []
    error = failure(lambda: client.fetch_instance(instance_id, got.append, deadline_s=10))
    assert error.problem is SideProblem.UNREACHABLE
    assert len(b"".join(got)) < len(data)
    got.clear()
    client.fetch_instance(instance_id, got.append, deadline_s=10)
    assert b"".join(got) == data


def test_an_answer_that_is_lost_after_the_work_shows_as_already_stored(
    orthanc: Start, client_of: Make, fault_proxy: Proxy
) -> None:
    server = orthanc()
    proxy = fault_proxy(server.http_port)
    client = client_of(proxy.url, SideName.TARGET)
    data = small_ct()
    proxy.strike(DropAnswer(), times=1)
    error = failure(lambda: client.store(data, deadline_s=10))
    assert error.problem is SideProblem.UNREACHABLE
    assert client.store(data, deadline_s=10).status == "AlreadyStored"


def test_idle_connections_are_not_reused_too_late(orthanc: Start, client_of: Make) -> None:
    """The server closes an idle connection after a second; a hundred uploads meet none such."""
    client = client_of(orthanc().url, SideName.TARGET)
    statuses = [client.store(small_ct(seed=n), deadline_s=5).status for n in range(100)]
    assert statuses == ["Success"] * 100


def test_the_rows_of_a_mark_go_with_its_instance(orthanc: Start, client_of: Make) -> None:
    """Two of the rows that a bridge with retention may find missing after its own deletion."""
    server = orthanc(config={"StableAge": 600})
    client = client_of(server.url, SideName.SOURCE)
    marked = client.store(small_ct(), deadline_s=5).instance_id
    etag = client.set_metadata(marked, "4222", "x")
    client.delete_metadata(marked, "4222", etag=etag)
    told = [change for change in client.changes(0, 100).changes if change.resource_id == marked]
    assert [c.change_type for c in told] == ["NewInstance", "UpdatedMetadata", "UpdatedMetadata"]
    client.delete_instance(marked)
    client.store(small_ct(), deadline_s=5)
    left = client.changes(0, 100).changes
    assert left[0].sequence > told[-1].sequence, "a gap, and nothing that tells whose rows it had"


def test_the_same_file_has_another_name_at_each_server(orthanc: Start, client_of: Make) -> None:
    """By that an address that leads to the source is told from a target that has the file too."""
    names, data = set(), small_ct()
    for name in ("first", "middle", "last"):
        client = client_of(orthanc(name).url, SideName.TARGET)
        stored = client.store(data, deadline_s=5)
        names.add(client.stored_file(stored.instance_id).uuid)
        assert client.store(data, deadline_s=5).status == "AlreadyStored"
        names.add(client.stored_file(stored.instance_id).uuid)
    assert len(names - {""}) == 3


def test_an_instance_is_described_by_post_while_it_is_there_and_not_after(
    orthanc: Start, client_of: Make
) -> None:
    """A 404 of something on the way is told by it from one of the server."""
    client = client_of(orthanc().url, SideName.SOURCE)
    first, gone, last = (client.store(d, deadline_s=5).instance_id for d in small_series(3))
    assert all(client.bulk_metadata([one]) for one in (first, gone, last))
    client.delete_instance(gone)
    assert not client.bulk_metadata([gone])
    assert not client.has_instance(gone)
    assert client.bulk_metadata([last])
