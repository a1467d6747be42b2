"""Bounds, bodies and headers of the client, against a server that misbehaves on purpose."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator

import pytest

import bridge
from bridge.credentials import Credentials
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    InstanceError,
    SideError,
    SourceError,
    TargetError,
)
from bridge.model import Endpoint, Reason, SideName, SideProblem
from bridge.orthanc import OrthancClient
from bridge.orthanc.client import ANSWER_BYTES_MAX
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import CutBody, FakeOrthanc, Respond, StoreAs
from tests.raw_server import RawServer

Make = Callable[..., OrthancClient]
NOBODY = "00000000-00000000-00000000-00000000-00000000"


def failure(call: Callable[[], object]) -> SideError:
    with pytest.raises(SideError) as caught:
        call()
    return caught.value


def ignore(_chunk: bytes) -> None:
    """Throw a chunk away."""


class TestBounds:
    def test_a_body_cut_short(self, fake: FakeOrthanc, source: OrthancClient) -> None:
        instance_id = fake.put(small_ct())
        for cut in (CutBody(100), CutBody(100, reset=True), CutBody(0)):
            fake.behave()
            fake.script("GET /instances/.*/file", cut)
            error = failure(lambda: source.fetch_instance(instance_id, ignore, deadline_s=5))
            assert error.problem is SideProblem.UNREACHABLE

    def test_a_file_larger_than_allowed(self, fake: FakeOrthanc, source: OrthancClient) -> None:
        data = small_ct(rows=200, columns=200)
        instance_id = fake.put(data)
        size = len(data)
        assert source.fetch_instance(instance_id, ignore, deadline_s=5, bytes_max=size) == size
        with pytest.raises(InstanceError) as caught:
            source.fetch_instance(instance_id, ignore, deadline_s=5, bytes_max=size - 1)
        assert caught.value.reason is Reason.TOO_LARGE

    def test_a_chunked_file_larger_than_allowed(self, client_of: Make) -> None:
        chunk = b"400\r\n" + bytes(0x400) + b"\r\n"
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        with RawServer(head + chunk * 64 + b"0\r\n\r\n") as url:
            got = client_of(url).fetch_instance(NOBODY, ignore, deadline_s=5)
            assert got == 65536
        with RawServer(head + chunk * 64) as url, pytest.raises(InstanceError) as caught:
            client_of(url).fetch_instance(NOBODY, ignore, deadline_s=5, bytes_max=65535)
        assert caught.value.reason is Reason.TOO_LARGE

    def test_a_file_of_unknown_length_could_end_anywhere(self, client_of: Make) -> None:
        with RawServer(b"HTTP/1.0 200 OK\r\n\r\nDICM") as url:
            error = failure(lambda: client_of(url).fetch_instance(NOBODY, ignore, deadline_s=5))
        assert error.problem is SideProblem.NOT_ORTHANC

    @pytest.mark.parametrize(
        "body", [b"<html>Welcome</html>", b"{}", b"[" * 500_000, b"", bytes(ANSWER_BYTES_MAX + 1)]
    )
    def test_answers_that_are_not_orthancs(
        self, fake: FakeOrthanc, target: OrthancClient, body: bytes
    ) -> None:
        fake.script("", Respond(200, body))
        calls: list[Callable[[], object]] = [
            target.system,
            target.statistics,
            target.last_change,
            lambda: target.changes(0, 10),
            lambda: target.list_instances(0, 10),
            lambda: target.store(small_ct(), deadline_s=5),
            lambda: target.stored_md5(NOBODY),
            lambda: target.attachment_size(NOBODY),
        ]
        for call in calls:
            error = failure(call)
            assert error.problem is SideProblem.NOT_ORTHANC
            assert "Welcome" not in str(error)
            assert "BRIDGE_TARGET_URL" in error.advice

    def test_something_that_is_not_http(self, client_of: Make) -> None:
        with RawServer(b"220 mail.example ESMTP\r\n\r\n") as url:
            error = failure(client_of(url).system)
        assert error.problem is SideProblem.NOT_ORTHANC

    def test_an_answer_compressed_although_we_refused(
        self, fake: FakeOrthanc, source: OrthancClient
    ) -> None:
        body = gzip.compress(b"{}")
        fake.script("GET /system", Respond(200, body, {"Content-Encoding": "gzip"}))
        assert failure(source.system).problem is SideProblem.NOT_ORTHANC

    def test_a_huge_error_page(self, fake: FakeOrthanc, source: OrthancClient) -> None:
        fake.script("GET /system", Respond(500, bytes(10_000_000)))
        error = failure(source.system)
        assert (error.problem, error.specific) == (SideProblem.SERVER_ERROR, True)

    def test_a_page_larger_than_its_rows_can_be(
        self, fake: FakeOrthanc, source: OrthancClient
    ) -> None:
        fake.script("GET /changes", Respond(200, b" " * (ANSWER_BYTES_MAX + 100 * 1024 + 1)))
        assert failure(lambda: source.changes(0, 100)).problem is SideProblem.NOT_ORTHANC


class TestUploads:
    def test_the_answers_id_and_status_are_passed_on(
        self, fake: FakeOrthanc, target: OrthancClient
    ) -> None:
        other = "00000000-00000000-00000000-00000000-00000000"
        fake.script("POST /instances", StoreAs(other), times=1)
        assert target.store(small_ct(), deadline_s=5).instance_id == other
        fake.script("POST /instances", StoreAs(other, "FilteredOut"), times=1)
        assert target.store(small_ct(), deadline_s=5).status == "FilteredOut"

    @pytest.mark.parametrize("announced", [10, 100_000])
    def test_a_body_of_another_length_than_announced(
        self, fake: FakeOrthanc, target: OrthancClient, announced: int
    ) -> None:
        with pytest.raises(InstanceError) as caught:
            target.store([small_ct()], body_bytes=announced, deadline_s=5)
        assert (caught.value.reason, caught.value.final) == (Reason.INTERNAL, False)
        assert fake.store.instances == {}
        with pytest.raises(ValueError, match="bytes, not"):
            target.store(small_ct(), body_bytes=announced, deadline_s=5)

    def test_what_the_bodys_source_raises_comes_out(
        self, fake: FakeOrthanc, target: OrthancClient
    ) -> None:
        def pieces() -> Iterator[bytes]:
            yield small_ct()[:100]
            raise InstanceError(Reason.UNDECODABLE, "frame 2")

        with pytest.raises(InstanceError, match="frame 2"):
            target.store(pieces(), deadline_s=5)
        assert fake.store.instances == {}
        assert target.system().name == "fake"

    def test_empty_pieces_do_not_end_a_chunked_body(self, target: OrthancClient) -> None:
        data = small_ct()
        answer = target.store(iter([b"", data[:10], b"", data[10:], b""]), deadline_s=5)
        assert answer.status == "Success"


class TestHeaders:
    def test_of_every_request(self, fake: FakeOrthanc, target: OrthancClient) -> None:
        target.system()
        target.store(small_ct(), deadline_s=5)
        for headers in fake.headers_seen:
            assert headers["User-Agent"] == f"orthanc-bridge/{bridge.__version__}"
            assert headers["Accept-Encoding"] == "identity"
            assert "Expect" not in headers
            assert "Authorization" not in headers
            assert "Cookie" not in headers
        assert fake.headers_seen[1]["Content-Type"] == "application/dicom"
        assert "Transfer-Encoding" not in fake.headers_seen[1]

    def test_a_bearer_token(
        self, fake_orthanc: Callable[..., FakeOrthanc], client_of: Make
    ) -> None:
        token = "t0ken"  # noqa: S105
        fake = fake_orthanc(token=token)
        assert client_of(fake.url, token=token).system().name == "fake"
        assert failure(client_of(fake.url).system).problem is SideProblem.LOGIN_REFUSED

    def test_cookies_are_not_kept(self, fake: FakeOrthanc, source: OrthancClient) -> None:
        fake.script("GET /system", Respond(503, headers={"Set-Cookie": "a=b"}), times=1)
        source.system()
        assert all("Cookie" not in headers for headers in fake.headers_seen)

    def test_proxy_variables_are_ignored(
        self, fake: FakeOrthanc, client_of: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert client_of(fake.url).system().name == "fake"


def test_redirects_are_not_followed(
    fake: FakeOrthanc, fake_orthanc: Callable[..., FakeOrthanc], client_of: Make
) -> None:
    thief = fake_orthanc()
    for status in (301, 302, 303, 307, 308):
        fake.script("", Respond(status, headers={"Location": f"{thief.url}/system"}))
        client = client_of(fake.url, SideName.TARGET, username="u", password="p")  # noqa: S106
        error = failure(client.system)
        assert error.problem is SideProblem.REDIRECTED
        assert "127.0.0.1" in error.message
    assert thief.requests == []


def test_a_base_address_with_a_path(fake: FakeOrthanc, client_of: Make) -> None:
    fake.script("GET /pacs/orthanc/statistics", Respond(200, b'{"CountInstances": 1}'))
    failure(client_of(f"{fake.url}/pacs/orthanc").statistics)
    assert [r.partition("?")[0] for r in fake.requests] == ["GET /pacs/orthanc/statistics"]


def test_no_two_looks_are_the_same_for_a_cache_on_the_way(
    fake: FakeOrthanc, target: OrthancClient
) -> None:
    looks: list[Callable[[], object]] = [
        target.system,
        target.last_change,
        lambda: target.changes(0, 9),
        lambda: target.list_instances(0, 9),
        lambda: target.has_instance(NOBODY),
    ]
    for look in looks:
        look()
        look()
    asked = [request for request in fake.requests if not request.startswith("POST ")]
    assert len(set(asked)) == len(asked) >= 2 * len(looks)


def test_an_address_that_is_none() -> None:
    for url in ("ftp://x", "127.0.0.1:8042", ""):
        with pytest.raises(ConfigurationError, match="BRIDGE_SOURCE_URL"):
            OrthancClient(Endpoint(SideName.SOURCE, url), Credentials())


@pytest.mark.parametrize("side", SideName)
def test_errors_belong_to_the_clients_side(
    fake: FakeOrthanc, client_of: Make, side: SideName
) -> None:
    fake.script("", Respond(500))
    error = failure(client_of(fake.url, side).system)
    assert isinstance(error, {SideName.SOURCE: SourceError, SideName.TARGET: TargetError}[side])
    assert isinstance(error, BridgeError)


def test_a_file_that_the_source_lists_but_cannot_give(
    fake: FakeOrthanc, source: OrthancClient
) -> None:
    instance_id = fake.put(small_ct())
    fake.script("GET /instances/.*/file", Respond(404))
    with pytest.raises(InstanceError) as caught:
        source.fetch_instance(instance_id, ignore, deadline_s=5)
    assert (caught.value.reason, caught.value.final) == (Reason.SERVER_REFUSES_INSTANCE, False)


ABSENT: dict[str, tuple[Callable[[OrthancClient], object], object]] = {
    "held": (lambda client: client.has_instance(NOBODY), False),
    "deleted": (lambda client: client.delete_instance(NOBODY), False),
    "study": (lambda client: client.instances_of_study(NOBODY), None),
}


@pytest.mark.parametrize("side", SideName)
@pytest.mark.parametrize("question", ABSENT)
@pytest.mark.parametrize("held", [0, 1, 3])
def test_a_404_tells_what_a_server_lacks_only_where_it_shows_what_it_lists(
    fake: FakeOrthanc, client_of: Make, side: SideName, question: str, held: int
) -> None:
    """Something on the way may answer 404 to all of them."""
    ask, lacking = ABSENT[question]
    for data in small_series(held) if held else ():
        fake.put(data)
    client = client_of(fake.url, side)
    assert ask(client) is lacking
    fake.script(r"GET /instances\?", Respond(403))
    assert ask(client) is lacking, "it says what it does not show"
    fake.behave()
    fake.script(r"(GET|DELETE) /instances/", Respond(404))
    if not held:
        assert ask(client) is lacking, "it lists none"
        return
    assert failure(lambda: ask(client)).problem is SideProblem.NOT_FOUND
    fake.behave()
    fake.script("", Respond(404))
    assert failure(lambda: ask(client)).problem is SideProblem.NOT_FOUND, "a wrong address"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome</html>",
        b"{}",
        b"[]",
        b'{"ID": "12e9b94a-ce1275f6-af8e90a2-32cbcb9e-ac022d34"}',
        b'{"ID": null}',
    ],
)
def test_a_good_status_is_no_instance(
    fake: FakeOrthanc, target: OrthancClient, body: bytes
) -> None:
    """A page for people comes with 200, too."""
    instance_id = fake.put(small_ct())
    assert target.has_instance(instance_id)
    fake.script(f"GET /instances/{instance_id}", Respond(200, body))
    error = failure(lambda: target.has_instance(instance_id))
    assert error.problem is SideProblem.NOT_ORTHANC
    fake.script(r"GET /instances/[^/]+/file", Respond(404))
    with pytest.raises(SideError) as caught:
        target.fetch_instance(instance_id, ignore, deadline_s=5)
    assert caught.value.problem is SideProblem.NOT_ORTHANC
