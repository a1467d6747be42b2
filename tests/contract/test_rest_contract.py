"""What the other routes do: FACTS 14-19 and every call of the client, on fake and real servers."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from bridge.errors import InstanceError, InstanceGone, SideError
from bridge.model import Reason, SideName, SideProblem
from bridge.orthanc import OrthancClient
from tests.dicom_samples import identity_of, small_ct, small_series

NO_SUCH_ID = "00000000-00000000-00000000-00000000-00000000"
OTHER_TEXT = b"This is not DICOM. " * 100


def fetched(client: OrthancClient, instance_id: str) -> bytes:
    buffer = io.BytesIO()
    client.fetch_instance(instance_id, buffer.write, deadline_s=10)
    return buffer.getvalue()


def test_system_tells_version_and_name(source: OrthancClient) -> None:
    info = source.system()
    assert info.version.count(".") == 2
    assert info.api_version >= 16
    assert info.name in {"fake", "orthanc"}


def test_a_file_comes_back_byte_for_byte(source: OrthancClient) -> None:
    data = small_ct(rows=300, columns=300)
    answer = source.store(data, deadline_s=10)
    assert (answer.instance_id, answer.status) == (identity_of(data).orthanc_id, "Success")
    assert fetched(source, answer.instance_id) == data


def test_the_length_is_known_before_the_first_byte(source: OrthancClient) -> None:
    data = small_ct(rows=200, columns=200)
    instance_id = source.store(data, deadline_s=10).instance_id
    with source.open_instance(instance_id, deadline_s=10) as body:
        assert body.content_length == len(data)
        assert b"".join(body.chunks) == data


def test_a_client_works_on_after_a_body_was_left_unread(source: OrthancClient) -> None:
    data = small_ct(rows=400, columns=400)
    instance_id = source.store(data, deadline_s=10).instance_id
    with source.open_instance(instance_id, deadline_s=10) as body:
        assert next(body.chunks)
    assert fetched(source, instance_id) == data


@pytest.mark.parametrize("piece_bytes", [1000, 700_000])
@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunked"])
def test_uploads_in_pieces(source: OrthancClient, piece_bytes: int, announced: bool) -> None:
    data = small_ct(rows=512, columns=1100)
    pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
    body_bytes = len(data) if announced else None
    answer = source.store(iter(pieces), body_bytes=body_bytes, deadline_s=10)
    assert answer.status == "Success"
    assert fetched(source, answer.instance_id) == data


@pytest.mark.parametrize("form", [bytearray, memoryview])
def test_uploads_of_other_buffers(source: OrthancClient, form: Callable[[bytes], bytes]) -> None:
    data = small_ct()
    assert source.store(form(data), deadline_s=10).status == "Success"
    assert fetched(source, identity_of(data).orthanc_id) == data


def test_the_same_instance_again_is_already_stored_and_keeps_its_bytes(
    source: OrthancClient,
) -> None:
    data = small_ct(seed=1)
    identity = identity_of(data)
    other_pixels = small_ct(
        seed=2,
        study_uid=identity.study_uid,
        series_uid=identity.series_uid,
        sop_uid=identity.sop_uid,
    )
    assert other_pixels != data
    source.store(data, deadline_s=10)
    again = source.store(other_pixels, deadline_s=10)
    assert (again.instance_id, again.status) == (identity.orthanc_id, "AlreadyStored")
    assert fetched(source, identity.orthanc_id) == data


def test_twelve_at_once_give_one_success(
    server_url: str, client_of: Callable[..., OrthancClient]
) -> None:
    data = small_ct(rows=128, columns=128)
    clients = [client_of(server_url, SideName.TARGET) for _ in range(12)]
    gate = threading.Barrier(len(clients))

    def post(client: OrthancClient) -> str:
        gate.wait()
        return client.store(data, deadline_s=20).status

    with ThreadPoolExecutor(len(clients)) as pool:
        statuses = sorted(pool.map(post, clients))
    assert statuses == ["AlreadyStored"] * 11 + ["Success"]


@pytest.mark.parametrize("body", [b"", b"abc", OTHER_TEXT], ids=["empty", "short", "text"])
def test_what_is_not_dicom_is_rejected_for_good(target: OrthancClient, body: bytes) -> None:
    with pytest.raises(InstanceError) as caught:
        target.store(body, deadline_s=10)
    assert (caught.value.reason, caught.value.final) == (Reason.REJECTED_BY_TARGET, True)
    assert "Bad file format" in caught.value.message
    assert target.statistics().instances == 0


def test_a_file_cut_in_its_pixels_is_rejected(target: OrthancClient) -> None:
    data = small_ct(rows=100, columns=100)
    with pytest.raises(InstanceError) as caught:
        target.store(data[: len(data) // 2], deadline_s=10)
    assert caught.value.reason is Reason.REJECTED_BY_TARGET


def test_a_body_short_of_its_content_length_stores_nothing(
    server_url: str, target: OrthancClient
) -> None:
    data = small_ct(rows=100, columns=100)
    address = urlsplit(server_url)
    assert address.hostname is not None
    head = f"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port or 80)) as connection:
        connection.sendall(head.encode() + data[:-100])
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)  # 400, or the end of the connection
    assert answer == b"" or b" 400 " in answer.partition(b"\r\n")[0]
    assert target.statistics().instances == 0


def test_a_gzip_upload_is_accepted(raw: httpx.Client, target: OrthancClient) -> None:
    data = small_ct()
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/dicom"}
    answer = raw.post("/instances", content=gzip.compress(data), headers=headers)
    assert answer.json()["Status"] == "Success"
    assert fetched(target, identity_of(data).orthanc_id) == data


def test_old_versions_compress_dicom_for_those_who_let_them_so_we_do_not(
    raw: httpx.Client, source: OrthancClient
) -> None:
    instance_id = source.store(small_ct(), deadline_s=10).instance_id
    path = f"/instances/{instance_id}/file"
    offered = raw.get(path, headers={"Accept-Encoding": "gzip"})
    plain = raw.get(path)
    assert "content-encoding" not in plain.headers
    assert offered.content == plain.content
    if source.system().version.startswith("1.10."):
        assert offered.headers["content-encoding"] == "gzip"


def test_the_server_says_that_it_keeps_connections_one_second(raw: httpx.Client) -> None:
    assert raw.get("/system").headers["keep-alive"] == "timeout=1"


def test_a_connection_idle_for_longer_than_that_is_closed(server_url: str) -> None:
    address = urlsplit(server_url)
    connection = http.client.HTTPConnection(address.netloc, timeout=10)
    begun = time.monotonic()  # before its answer, whose time this process may learn late
    connection.request("GET", "/system")
    connection.getresponse().read()
    assert connection.sock.recv(1) == b""  # blocks until the server closes
    assert 0.7 < time.monotonic() - begun < 5
    connection.close()


def test_metadata_md5_and_size(source: OrthancClient) -> None:
    data = small_ct()
    instance_id = source.store(data, deadline_s=10).instance_id
    metadata = source.instance_metadata(instance_id)
    assert metadata["TransferSyntax"] == "1.2.840.10008.1.2.1"
    assert metadata["SopClassUid"] == "1.2.840.10008.5.1.4.1.1.2"
    assert data[int(metadata["PixelDataOffset"]) :][:4] == b"\xe0\x7f\x10\x00"
    assert metadata["Origin"] == "RestApi"
    assert "RemoteAET" in metadata
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert source.stored_md5(instance_id) == md5
    assert source.attachment_size(instance_id) == len(data)


def test_statistics_count(source: OrthancClient) -> None:
    files = [*small_series(3), small_ct(patient_id="OTHER")]
    for data in files:
        source.store(data, deadline_s=10)
    seen = source.statistics()
    assert (seen.instances, seen.series, seen.studies, seen.patients) == (4, 2, 2, 2)
    assert seen.uncompressed_bytes == sum(len(data) for data in files)


def test_identifiers_are_listed_in_pages(source: OrthancClient) -> None:
    sent = [source.store(data, deadline_s=10).instance_id for data in small_series(5)]
    ids = set(sent)
    # 1.10 lists in the order of arrival, 1.12 by identifier.
    assert source.list_instances(0, 10) in (sent, sorted(sent))
    pages = [source.list_instances(since, 2) for since in (0, 2, 4, 6)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert {instance_id for page in pages for instance_id in page} == ids


def test_has_and_delete(source: OrthancClient) -> None:
    instance_id = source.store(small_ct(), deadline_s=10).instance_id
    assert source.has_instance(instance_id)
    assert source.delete_instance(instance_id)
    assert not source.has_instance(instance_id)
    assert not source.delete_instance(instance_id)


@pytest.mark.parametrize(
    "call",
    [
        lambda client, name: client.fetch_instance(name, len, deadline_s=5),
        lambda client, name: client.instance_metadata(name),
        lambda client, name: client.stored_md5(name),
        lambda client, name: client.attachment_size(name),
    ],
    ids=["file", "metadata", "md5", "size"],
)
class TestAnInstanceThatIsNotThere:
    def test_is_gone_from_the_source(
        self, source: OrthancClient, call: Callable[[OrthancClient, str], object]
    ) -> None:
        with pytest.raises(InstanceGone):
            call(source, NO_SUCH_ID)

    def test_is_never_gone_from_the_target(
        self, target: OrthancClient, call: Callable[[OrthancClient, str], object]
    ) -> None:
        with pytest.raises(InstanceError) as caught:
            call(target, NO_SUCH_ID)
        assert not isinstance(caught.value, InstanceGone)
        assert (caught.value.reason, caught.value.final) == (Reason.PROOF_MISMATCH, False)

    def test_is_an_outage_when_the_address_is_wrong(
        self,
        server_url: str,
        client_of: Callable[..., OrthancClient],
        call: Callable[[OrthancClient, str], object],
    ) -> None:
        for side in SideName:
            with pytest.raises(SideError) as caught:
                call(client_of(f"{server_url}/pacs", side), NO_SUCH_ID)
            assert caught.value.problem is SideProblem.NOT_FOUND
            assert f"BRIDGE_{side.name}_URL" in caught.value.advice


def test_a_wrong_address_is_an_outage_for_every_other_call(
    server_url: str, client_of: Callable[..., OrthancClient]
) -> None:
    client = client_of(f"{server_url}/pacs", SideName.TARGET)
    calls: list[Callable[[], object]] = [
        client.system,
        client.statistics,
        client.last_change,
        lambda: client.changes(0, 1),
        lambda: client.list_instances(0, 1),
        lambda: client.has_instance(NO_SUCH_ID),
        lambda: client.delete_instance(NO_SUCH_ID),
        lambda: client.store(small_ct(), deadline_s=5),
    ]
    for call in calls:
        with pytest.raises(SideError) as caught:
            call()
        assert caught.value.problem is SideProblem.NOT_FOUND
