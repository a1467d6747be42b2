"""Trust: which certificates are accepted, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.credentials import Credentials
from bridge.errors import BridgeError, ConfigurationError, SideError
from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc import OrthancClient
from tests.certificates import Authority, Pair, server_context
from tests.conftest import IMPATIENT
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc

Connect = Callable[..., OrthancClient]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.create()
    return made


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("unknown"), "unknown")
    made.create()
    return made


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def to(url: str, **trust: str) -> OrthancClient:
            endpoint = Endpoint(SideName.TARGET, url, timeout_s=5, **trust)
            return stack.enter_context(OrthancClient(endpoint, Credentials(), retries=IMPATIENT))

        yield to


def trouble(call: Callable[[], object]) -> SideError:
    with pytest.raises(SideError) as caught:
        call()
    assert caught.value.problem is SideProblem.TLS
    return caught.value


def test_a_private_authority_is_trusted_when_named(
    authority: Authority, server_pair: Pair, connect: Connect
) -> None:
    data = small_ct(rows=600, columns=600)
    with FakeOrthanc(tls=server_context(server_pair)) as fake:
        client = connect(fake.url, ca_file=authority.certificate)
        instance_id = client.store(data, deadline_s=5).instance_id
        got: list[bytes] = []
        client.fetch_instance(instance_id, got.append, deadline_s=5)
    assert b"".join(got) == data


@pytest.mark.parametrize("named", ["none", "unknown"])
def test_an_unknown_authority(
    unknown: Authority, server_pair: Pair, connect: Connect, named: str
) -> None:
    trust = {} if named == "none" else {"ca_file": unknown.certificate}
    with FakeOrthanc(tls=server_context(server_pair)) as fake:
        error = trouble(connect(fake.url, **trust).system)
        assert fake.requests == []
    assert "no trusted authority" in error.message
    assert "BRIDGE_TARGET_CA_FILE" in error.advice


def test_another_host_name(authority: Authority, connect: Connect) -> None:
    pair = authority.issue("elsewhere", alternative="DNS:elsewhere.example")
    with FakeOrthanc(tls=server_context(pair)) as fake:
        error = trouble(connect(fake.url, ca_file=authority.certificate).system)
    assert "another host name" in error.message
    assert "BRIDGE_TARGET_URL" in error.advice


def test_an_expired_certificate(authority: Authority, connect: Connect) -> None:
    pair = authority.issue("expired", days=0)
    with FakeOrthanc(tls=server_context(pair)) as fake:
        error = trouble(connect(fake.url, ca_file=authority.certificate).system)
    assert "expired" in error.message


def test_a_client_certificate_is_shown(
    authority: Authority, server_pair: Pair, connect: Connect
) -> None:
    mine = authority.issue("client", alternative="DNS:client")
    with FakeOrthanc(tls=server_context(server_pair, clients_of=authority)) as fake:
        client = connect(
            fake.url,
            ca_file=authority.certificate,
            client_cert_file=mine.certificate,
            client_key_file=mine.key,
        )
        assert client.system().name == "fake"


@pytest.mark.parametrize("shown", ["none", "unknown's"])
def test_a_client_certificate_that_the_server_refuses(
    authority: Authority, unknown: Authority, server_pair: Pair, connect: Connect, shown: str
) -> None:
    theirs = unknown.issue("client", alternative="DNS:client")
    trust = {"ca_file": authority.certificate}
    if shown != "none":
        trust |= {"client_cert_file": theirs.certificate, "client_key_file": theirs.key}
    with FakeOrthanc(tls=server_context(server_pair, clients_of=authority)) as fake:
        client = connect(fake.url, **trust)
        for call in (client.system, lambda: client.store(small_ct(), deadline_s=5)):
            error = trouble(call)
            assert "client certificate" in error.message
            assert "BRIDGE_TARGET_CLIENT_CERT_FILE" in error.advice
        assert fake.requests == []


def test_https_to_a_port_that_speaks_http(connect: Connect) -> None:
    with FakeOrthanc() as fake:
        error = trouble(connect(fake.url.replace("http:", "https:")).system)
    assert "does not speak TLS" in error.message


def test_http_to_a_port_that_speaks_tls(server_pair: Pair, connect: Connect) -> None:
    with FakeOrthanc(tls=server_context(server_pair)) as fake:
        client = connect(fake.url.replace("https:", "http:"))
        with pytest.raises(SideError) as caught:
            client.system()
    assert caught.value.problem in {SideProblem.UNREACHABLE, SideProblem.NOT_ORTHANC}
    assert "https://" in caught.value.advice


@pytest.mark.parametrize("setting", ["CA_FILE", "CLIENT_CERT_FILE", "CLIENT_KEY_FILE"])
def test_a_file_that_is_not_there(
    authority: Authority, server_pair: Pair, connect: Connect, setting: str, tmp_path: Path
) -> None:
    trust = {
        "ca_file": authority.certificate,
        "client_cert_file": server_pair.certificate,
        "client_key_file": server_pair.key,
        setting.lower(): str(tmp_path / "missing.pem"),
    }
    with pytest.raises(ConfigurationError, match=f"BRIDGE_TARGET_{setting} ") as caught:
        connect("https://127.0.0.1:1", **trust)
    assert "No such file" in caught.value.message


def test_files_that_are_not_what_they_should_be(
    unknown: Authority, server_pair: Pair, connect: Connect, tmp_path: Path
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("not a certificate")
    other_key = unknown.issue("other").key
    cases: list[tuple[dict[str, str], str]] = [
        ({"ca_file": str(text)}, "BRIDGE_TARGET_CA_FILE"),
        ({"client_cert_file": str(text)}, "BRIDGE_TARGET_CLIENT_CERT_FILE"),
        (
            {"client_cert_file": server_pair.certificate, "client_key_file": other_key},
            "BRIDGE_TARGET_CLIENT_KEY_FILE",
        ),
    ]
    for trust, setting in cases:
        with pytest.raises(BridgeError, match=setting) as caught:
            connect("https://127.0.0.1:1", **trust)
        assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("setting", ["CA_FILE", "CLIENT_CERT_FILE"])
def test_a_file_that_goes_while_it_is_read(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, setting: str, tmp_path: Path
) -> None:
    """It was there a moment ago: no reason for the bridge to end."""
    monkeypatch.setattr("bridge.orthanc.transport._must_be_readable", lambda *_: None)
    with pytest.raises(ConfigurationError, match=f"BRIDGE_TARGET_{setting} "):
        connect("https://127.0.0.1:1", **{setting.lower(): str(tmp_path / "gone.pem")})
