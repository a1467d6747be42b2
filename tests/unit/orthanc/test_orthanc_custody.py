"""Calls that write, request by request: what is sent, once, and what an answer to it means."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bridge.credentials import Credentials
from bridge.errors import InstanceError, SideError
from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc import RetryPolicy
from bridge.orthanc.client import OrthancClient

ID = "11111111-22222222-33333333-44444444-55555555"
OTHER = "aaaaaaaa-22222222-33333333-44444444-55555555"
SYSTEM = '{"Version": "1.12.0", "ApiVersion": 20}'
NOT_FOUND = '{"HttpStatus": 404, "OrthancStatus": 17, "OrthancError": "Unknown resource"}'


def answer(status: int, body: str = "", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join([*head, "", ""]) + body).encode()


class Recorder:
    """Gives answers in order, one for each connection, and notes what was asked."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def lines(self) -> list[str]:
        """Method and path of each request, without the query."""
        return [one.split(b" HTTP")[0].split(b"?")[0].decode() for one in self.asked]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while self._answered(connection):
                    pass

    def _answered(self, connection: socket.socket) -> bool:
        """Answer one request; whether the connection goes on."""
        head = b""
        while b"\r\n\r\n" not in head and (received := connection.recv(65536)):
            head += received
        if not head:
            return False
        start = head.index(b"\r\n\r\n") + 4
        size = 0
        for line in head[:start].lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        while len(head) < start + size and (received := connection.recv(65536)):
            head += received
        self.asked.append(head)
        # Without an answer the connection breaks.
        said = self.answers.pop(0) if self.answers else b""
        connection.sendall(said)
        return bool(said) and b"Connection: close" not in said


@pytest.fixture
def server() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.close()


@pytest.fixture
def custody(server: Recorder) -> Iterator[OrthancClient]:
    endpoint = Endpoint(SideName.SOURCE, server.url, timeout_s=5.0)
    with OrthancClient(endpoint, Credentials(), retries=RetryPolicy(waits=False)) as client:
        yield client


@pytest.fixture
def inspection(server: Recorder) -> Iterator[OrthancClient]:
    endpoint = Endpoint(SideName.SOURCE, server.url, timeout_s=5.0)
    with OrthancClient(endpoint, Credentials(), retries=RetryPolicy(waits=False)) as client:
        yield client


# --- deletion ---


def test_an_instance_is_deleted_once(server: Recorder, custody: OrthancClient) -> None:
    server.answers = [answer(200, '{"RemainingAncestor": null}')]
    assert custody.delete_instance(ID)
    assert server.lines == [f"DELETE /instances/{ID}"]


def test_a_deletion_whose_answer_is_lost_is_not_sent_again(
    server: Recorder, custody: OrthancClient
) -> None:
    """The instance may have come anew meanwhile."""
    server.answers = []
    with pytest.raises(SideError) as caught:
        custody.delete_instance(ID)
    assert caught.value.problem is SideProblem.UNREACHABLE
    assert server.lines == [f"DELETE /instances/{ID}"]


def test_a_deletion_on_a_kept_connection_that_breaks_is_not_sent_again(
    server: Recorder, custody: OrthancClient
) -> None:
    """The server has read it, and may have done it: the connection breaks without an answer.

    On a busy machine the kept connection may be too old, and another one is opened: the same holds.
    """
    server.answers = [answer(200, SYSTEM).replace(b"Connection: close\r\n", b"")]
    custody.system()
    with pytest.raises(SideError):
        custody.delete_instance(ID)
    assert server.lines == ["GET /system", f"DELETE /instances/{ID}"]


def test_a_deletion_of_what_is_not_there(server: Recorder, custody: OrthancClient) -> None:
    server.answers = [answer(404, NOT_FOUND), answer(200, "[]")]
    assert not custody.delete_instance(ID)
    assert server.lines == [f"DELETE /instances/{ID}", "GET /instances"]


def test_a_deletion_at_a_wrong_address(server: Recorder, custody: OrthancClient) -> None:
    server.answers = [answer(404, "no such page")] * 2
    with pytest.raises(SideError) as caught:
        custody.delete_instance(ID)
    assert caught.value.problem is SideProblem.NOT_FOUND


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_deletion_that_is_refused(server: Recorder, custody: OrthancClient, status: int) -> None:
    server.answers = [answer(status)]
    with pytest.raises(SideError):
        custody.delete_instance(ID)
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", ["", "{}", "[]", "null", '"RemainingAncestor"'])
def test_an_answer_that_says_nothing_of_a_deletion(
    server: Recorder, custody: OrthancClient, body: str
) -> None:
    server.answers = [answer(200, body)]
    with pytest.raises(SideError) as caught:
        custody.delete_instance(ID)
    assert caught.value.problem is SideProblem.NOT_ORTHANC


# --- the file at the server ---


@pytest.mark.parametrize(
    ("status", "body", "sound"),
    [(200, "{}", True), (400, "", False), (500, "", False), (500, "not JSON", False)],
)
def test_whether_a_stored_file_is_sound(
    server: Recorder, custody: OrthancClient, status: int, body: str, sound: bool
) -> None:
    server.answers = [answer(status, body)]
    assert custody.verify_stored(ID) is sound
    assert server.lines == [f"POST /instances/{ID}/attachments/dicom/verify-md5"]


@pytest.mark.parametrize(
    "refusal",
    [
        answer(401),
        answer(403),
        answer(429),
        answer(502),
        answer(503),
        answer(504),
        answer(507),
        answer(500, "<html>a page</html>", "Content-Type: text/html"),
        answer(500, '{"OrthancStatus": 11, "OrthancError": "Error with the database"}'),
        answer(200, "[]"),
        b"",
    ],
)
def test_trouble_at_the_server_is_no_damaged_file(
    server: Recorder, custody: OrthancClient, refusal: bytes
) -> None:
    server.answers = [refusal] * 3
    with pytest.raises(SideError):
        custody.verify_stored(ID)


# --- notes ---

ETAG = '"7-0123456789abcdef0123456789abcdef"'


@pytest.mark.parametrize("etag", ["", ETAG])
def test_a_note_is_taken_back_if_it_is_still_ours(
    server: Recorder, custody: OrthancClient, etag: str
) -> None:
    server.answers = [answer(200)]
    custody.delete_metadata(ID, "4711", etag=etag)
    assert server.lines == [f"DELETE /instances/{ID}/metadata/4711"]
    assert (f"\r\nIf-Match: {etag}\r\n".encode() in server.asked[0]) is bool(etag)
    assert (b"if-match" in server.asked[0].lower()) is bool(etag)


@pytest.mark.parametrize("etag", ["", ETAG])
def test_a_note_is_written(server: Recorder, custody: OrthancClient, etag: str) -> None:
    server.answers = [answer(200, "", *([f"ETag: {etag}"] if etag else []))]
    assert custody.set_metadata(ID, "4711", "ours") == etag
    assert server.lines == [f"PUT /instances/{ID}/metadata/4711"]
    assert server.asked[0].endswith(b"\r\n\r\nours")
    assert b"if-match" not in server.asked[0].lower()


@pytest.mark.parametrize("etag", ["W/" + ETAG, ETAG[:-1], "7-" + "0" * 32, '"x"', ETAG + "x"])
def test_an_etag_of_another_form_is_none(
    server: Recorder, custody: OrthancClient, etag: str
) -> None:
    server.answers = [answer(200, "ours", f"ETag: {etag}")]
    assert custody.metadata_value(ID, "4711") == ("ours", "")


def test_a_note_that_is_there_or_not(server: Recorder, custody: OrthancClient) -> None:
    server.answers = [answer(200, "ours", f"ETag: {ETAG}")]
    assert custody.metadata_value(ID, "4711") == ("ours", ETAG)
    server.answers = [answer(404, NOT_FOUND), answer(200, f'{{"ID": "{ID}"}}')]
    assert custody.metadata_value(ID, "4711") is None
    server.answers = [answer(403)]
    with pytest.raises(SideError) as caught:
        custody.metadata_value(ID, "4711")
    assert caught.value.problem is SideProblem.FORBIDDEN


# --- patients and peers ---


@pytest.mark.parametrize(("told", "fine"), [("1", True), ("1\n", True), ("0", False), ("", False)])
def test_a_patient_is_protected_when_the_server_says_so(
    server: Recorder, custody: OrthancClient, told: str, fine: bool
) -> None:
    server.answers = [answer(200), answer(200, told)]
    if fine:
        custody.protect_patient(ID)
    else:
        with pytest.raises(SideError) as caught:
            custody.protect_patient(ID)
        assert caught.value.problem is SideProblem.NOT_ORTHANC
    assert server.lines == [f"PUT /patients/{ID}/protected", f"GET /patients/{ID}/protected"]
    assert server.asked[0].endswith(b"\r\n\r\n1")


def test_peers(server: Recorder, custody: OrthancClient) -> None:
    server.answers = [answer(200), answer(200), answer(404, NOT_FOUND), answer(403)]
    custody.set_peer("a b/c", "http://x")
    custody.delete_peer("a b/c")
    custody.delete_peer("gone")
    with pytest.raises(SideError):
        custody.delete_peer("not ours")
    assert server.lines[:2] == ["PUT /peers/a%20b%2Fc", "DELETE /peers/a%20b%2Fc"]
    assert server.asked[0].endswith(b'{"Url": "http://x"}')


# --- questions of people ---


def test_a_study_of_three_series(server: Recorder, inspection: OrthancClient) -> None:
    """The first, the middle and the last one; one of them is gone meanwhile."""
    names = [ID.replace("1111", f"{i}{i}{i}{i}", 1) for i in range(4)]
    listed = ", ".join(f'"{name}"' for name in names[:3])
    server.answers = [
        answer(200, f'{{"Series": [{listed}]}}'),
        answer(200, f'{{"Instances": ["{names[0]}", "{names[1]}"]}}'),
        answer(404, NOT_FOUND),
        answer(200, "[]"),
        answer(200, f'{{"Instances": ["{names[3]}"]}}'),
    ]
    assert inspection.instances_of_study(OTHER) == [names[0], names[1], names[3]]
    asked = [line for line in server.lines if "/series/" in line]
    assert asked == [f"GET /series/{name}" for name in names[:3]]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.changes(-1, 10),
        lambda client: client.changes(0, 0),
        lambda client: client.changes(0, -1),
        lambda client: client.list_instances(-1, 10),
        lambda client: client.list_instances(0, 0),
    ],
)
def test_what_orthanc_would_read_as_everything_is_not_asked(
    server: Recorder, custody: OrthancClient, call: Callable[[OrthancClient], object]
) -> None:
    with pytest.raises(ValueError, match="out of range"):
        call(custody)
    assert server.asked == []


@pytest.mark.parametrize("name", ["", "..", ID + "/", OTHER.upper(), ID[:-1], f"{ID}?x", f" {ID}"])
def test_what_is_no_identifier_is_not_asked_for(
    server: Recorder, custody: OrthancClient, name: str
) -> None:
    calls: list[Callable[[str], object]] = [
        custody.delete_instance,
        custody.verify_stored,
        custody.protect_patient,
        custody.patient_of,
        custody.has_instance,
        lambda given: custody.metadata_value(given, "1"),
        lambda given: custody.set_metadata(given, "1", "x"),
        lambda given: custody.delete_metadata(given, "1"),
    ]
    for call in calls:
        with pytest.raises(InstanceError, match="not an identifier"):
            call(name)
    assert server.asked == []


# --- what is asked again within a call ---


@pytest.mark.parametrize("status", [500, 502, 503, 504, 507])
def test_which_answers_are_asked_again(
    server: Recorder, custody: OrthancClient, status: int
) -> None:
    """A proxy's 502 and 504 may mean that the server died of this file: it is not asked again."""
    passing = status in (502, 503, 504)
    server.answers = [answer(status)] * 3
    with pytest.raises(SideError) as caught:
        custody.system()
    assert len(server.asked) == (3 if passing else 1)
    assert caught.value.begun is (status in (502, 504))

    server.asked.clear()
    server.answers = [answer(status)] * 3
    with pytest.raises(SideError) as caught:
        custody.fetch_instance(ID, lambda _: None, deadline_s=30.0)
    asked = [path for path in server.asked if "/file" in str(path)]
    assert len(asked) == (3 if status == 503 else 1)
    assert caught.value.begun is (status in (502, 504))
    assert len(server.asked) - len(asked) == (status in (502, 504)), "is it still there?"

    server.asked.clear()
    server.answers = [answer(status)] * 3
    with pytest.raises(SideError):
        custody.set_metadata(ID, "1", "x")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [201, 202, 204, 206, 299])
def test_a_file_comes_with_200_and_nothing_else(
    server: Recorder, custody: OrthancClient, status: int
) -> None:
    """A part of a file is not the file."""
    got: list[bytes] = []
    server.answers = [answer(status, "a part")]
    with pytest.raises(SideError):
        custody.fetch_instance(ID, got.append, deadline_s=30.0)
    assert got == []
    server.answers = [answer(200, "a file")]
    assert custody.fetch_instance(ID, got.append, deadline_s=30.0) == 6
    assert b"".join(got) == b"a file"


def test_every_look_is_asked_anew(server: Recorder, custody: OrthancClient) -> None:
    """No cache on the way may answer for the server."""
    server.answers = [answer(200, SYSTEM)] * 3
    for _ in range(3):
        custody.system()
    targets = [one.split(b" ")[1] for one in server.asked]
    assert len(set(targets)) == 3
    assert all(b"look=" in target for target in targets)
