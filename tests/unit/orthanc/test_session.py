"""The calls of the bridge's own process: one at a time, credentials read again after a refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import SideError
from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc.fault_table import Request
from bridge.orthanc.session import SideClient
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Hang, HangUp, Respond


@pytest.fixture
def fake(fake_orthanc: Callable[..., FakeOrthanc]) -> FakeOrthanc:
    return fake_orthanc()


def test_two_calls_at_once_leave_no_deadline_behind(fake: FakeOrthanc) -> None:
    client = SideClient(Endpoint(SideName.TARGET, fake.url, timeout_s=1.0))
    fake.script("GET /system", Hang(), times=2)
    problems: list[SideProblem] = []

    def hang() -> None:
        with pytest.raises(SideError) as failed:
            client.probe()
        problems.append(failed.value.problem)

    other = threading.Thread(target=hang)
    other.start()
    while not fake.requests:
        other.join(0.005)
    hang()  # begins while the other one hangs, ends after it
    other.join()
    assert problems == [SideProblem.TIMED_OUT] * 2
    for _ in range(25):  # past every deadline of the calls above
        client.probe()
        threading.Event().wait(0.05)
    client.close()


def test_a_renewed_password_is_read_after_a_refusal(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_orthanc(username="bridge", password="new")  # noqa: S106
    secret = tmp_path / "password"
    secret.write_text("old\n")
    monkeypatch.setenv("BRIDGE_SOURCE_USERNAME", "bridge")
    monkeypatch.setenv("BRIDGE_SOURCE_PASSWORD_FILE", str(secret))
    client = SideClient(Endpoint(SideName.SOURCE, fake.url))
    with pytest.raises(SideError) as refused:
        client.probe()
    assert refused.value.problem is SideProblem.LOGIN_REFUSED
    assert "old" not in str(refused.value)
    assert "BRIDGE_SOURCE_PASSWORD_FILE" in refused.value.advice, "it is named as it was given"
    secret.write_text("new\n")
    client.probe()
    secret.unlink()
    client.probe()  # what works is not read again
    client.close()


def test_of_a_changed_password_only_one_in_the_environment_needs_a_restart(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/operations.md and docs/security.md say, both."""
    fake = fake_orthanc(username="bridge", password="new")  # noqa: S106
    monkeypatch.chdir(tmp_path)
    dotenv = tmp_path / ".env"
    login = "BRIDGE_SOURCE_USERNAME=bridge\nBRIDGE_SOURCE_PASSWORD="
    dotenv.write_text(f"{login}old\n")
    dotenv.chmod(0o600)
    with SideClient(Endpoint(SideName.SOURCE, fake.url)) as client:
        with pytest.raises(SideError) as refused:
            client.probe()
        assert "BRIDGE_SOURCE_PASSWORD" in refused.value.advice
        assert "_FILE" not in refused.value.advice
        dotenv.write_text(f"{login}new\n")
        client.probe()
    said = {
        "operations": (
            "Password in the environment: change it and restart the bridge.",
            "Password in a file (`..._FILE`) or in `.env`: write the new one into it",
        ),
        "security": (
            "One in the environment needs a restart",
            "in a file (`..._FILE`) or in `.env` is read again",
        ),
    }
    for page, sentences in said.items():
        text = " ".join((Path(__file__).parents[3] / f"docs/{page}.md").read_text().split())
        for sentence in sentences:
            assert sentence in text


def test_credentials_that_cannot_be_read_are_an_outage_of_that_side(
    fake: FakeOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_TARGET_USERNAME", "bridge")
    monkeypatch.setenv("BRIDGE_TARGET_PASSWORD_FILE", str(tmp_path / "absent"))
    client = SideClient(Endpoint(SideName.TARGET, fake.url))
    with pytest.raises(SideError) as failed:
        client.probe()
    assert failed.value.side is SideName.TARGET
    assert failed.value.problem is SideProblem.LOGIN_REFUSED
    assert "BRIDGE_TARGET_PASSWORD_FILE" in str(failed.value)


def files_asked(fake: FakeOrthanc) -> list[str]:
    return [request.rsplit("/", 1)[-1] for request in fake.requests if "/instances/" in request]


@pytest.mark.parametrize("with_metadata", [False, True])
@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_whether_a_file_is_served_is_an_answer_whatever_it_is(
    fake: FakeOrthanc, *, with_metadata: bool, status: int
) -> None:
    client = SideClient(Endpoint(SideName.SOURCE, fake.url))
    instance_id = fake.put(small_ct())
    fake.requests.clear()
    assert client.serves_whole_file(instance_id, with_metadata=with_metadata)
    asked = files_asked(fake)
    assert asked[-1].startswith("file")
    assert asked[0].startswith("metadata") is with_metadata, (
        "the metadata is asked for where rules need it"
    )
    fake.script(r"GET /instances/[^/]+/file", Respond(status), times=20)
    assert not client.serves_whole_file(instance_id, with_metadata=with_metadata)
    client.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_is_shorter_than_the_source_notes_is_not_whole(
    fake: FakeOrthanc, *, chunked: bool
) -> None:
    """Something on the way may cut all files: the head of another one does not show that."""
    client = SideClient(Endpoint(SideName.SOURCE, fake.url))
    instance_id = fake.put(small_ct())
    cut = small_ct()[:400]
    answer = Respond(200, cut)
    if chunked:
        body = b"%X\r\n%s\r\n0\r\n\r\n" % (len(cut), cut)
        answer = Respond(200, body, {"Transfer-Encoding": "chunked"})
    fake.script(r"GET /instances/[^/]+/file", answer, times=2)
    assert client.serves_file(instance_id)
    assert not client.serves_whole_file(instance_id)
    assert client.serves_whole_file(instance_id)
    # A server that does not tell is believed.
    fake.script(r"GET /instances/[^/]+/attachments", Respond(403))
    fake.script(r"GET /instances/[^/]+/file", answer, times=1)
    assert client.serves_whole_file(instance_id)
    client.close()


def test_a_file_without_metadata_is_not_served_where_rules_need_it(fake: FakeOrthanc) -> None:
    client = SideClient(Endpoint(SideName.SOURCE, fake.url))
    instance_id = fake.put(small_ct())
    fake.script(r"GET /instances/[^/]+/metadata", Respond(500), times=50)
    assert client.serves_whole_file(instance_id)
    assert not client.serves_whole_file(instance_id, with_metadata=True)
    client.close()


@pytest.mark.parametrize("with_metadata", [False, True])
def test_a_source_that_is_silent_tells_nothing_of_a_file(
    fake: FakeOrthanc, *, with_metadata: bool
) -> None:
    client = SideClient(Endpoint(SideName.SOURCE, fake.url))
    instance_id = fake.put(small_ct())
    fake.script(r"GET /instances/[^/]+/(metadata|file)", HangUp(), times=50)
    with pytest.raises(SideError):
        client.serves_whole_file(instance_id, with_metadata=with_metadata)
    client.close()


def test_a_call_after_a_refusal_reads_the_password_again(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_orthanc(username="bridge", password="new")  # noqa: S106
    secret = tmp_path / "password"
    secret.write_text("old\n")
    monkeypatch.setenv("BRIDGE_SOURCE_USERNAME", "bridge")
    monkeypatch.setenv("BRIDGE_SOURCE_PASSWORD_FILE", str(secret))
    with SideClient(Endpoint(SideName.SOURCE, fake.url)) as client:
        with pytest.raises(SideError) as refused:
            client.list_instances(0, 1)
        assert refused.value.problem is SideProblem.LOGIN_REFUSED
        secret.write_text("new\n")
        assert client.list_instances(0, 1) == []
        secret.unlink()
        client.close()  # what works is not read again, on a new connection neither
        assert client.list_instances(0, 1) == []


def test_one_exchange_at_a_time(fake: FakeOrthanc) -> None:
    """Also while the pieces of a body are read: they have the deadline of their exchange."""
    instance_id = fake.put(small_ct())
    ended = threading.Event()
    with SideClient(Endpoint(SideName.SOURCE, fake.url)) as client:

        def ask() -> None:
            client.system()
            ended.set()

        other = threading.Thread(target=ask)
        with client.open_instance(instance_id, deadline_s=20.0) as body:
            other.start()
            assert b"".join(body.chunks)
            assert client._renewed._turn.locked()
            assert not ended.is_set()
            assert not [one for one in fake.requests if "/system" in one]
        other.join(20)
        assert ended.is_set()
        assert not client._renewed._turn.locked()


def test_a_client_that_is_closed_meanwhile_ends_its_call_well(fake: FakeOrthanc) -> None:
    """A bridge that stops closes what a sweep still uses: the answer to a deletion must be read."""
    data = small_ct()
    instance_id = fake.put(data)
    with SideClient(Endpoint(SideName.SOURCE, fake.url)) as client:
        with client.open_instance(instance_id, deadline_s=20.0) as body:
            client.close()
            assert b"".join(body.chunks) == data
        request = Request(client.endpoint, "GET", "/system")
        with client._renewed.exchange(request, deadline_s=20.0) as response:
            client.close()
            assert client._renewed.read(response, request, bytes_max=1_000_000)
        assert client.system().version
        assert client._renewed._inner is not None


def test_certificates_that_cannot_be_read_are_an_outage_until_they_can(
    fake: FakeOrthanc, tmp_path: Path
) -> None:
    absent = str(tmp_path / "ca.pem")
    url = fake.url.replace("http://", "https://")
    with SideClient(Endpoint(SideName.SOURCE, url, ca_file=absent)) as client:
        for _ in range(3):
            with pytest.raises(SideError) as failed:
                client.system()
            assert failed.value.problem is SideProblem.TLS
            assert failed.value.side is SideName.SOURCE
