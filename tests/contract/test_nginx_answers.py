"""What a real nginx says when it is set up wrongly, and what we then tell the operator."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx
import pytest

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from bridge.errors import SideError
from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc import OrthancClient, RetryPolicy
from tests.conftest import require_orthanc
from tests.dicom_samples import small_ct
from tests.nginx import PASSWORD, USER, Nginx, Trust, changed

pytestmark = pytest.mark.orthanc

LOCATION = "location /orthanc/ {"
AUTHORIZATION = 'proxy_set_header Authorization "";'
LOGIN = 'auth_basic           "Orthanc";'
NO_LIMIT = "client_max_body_size 0;"
URL = "BRIDGE_TARGET_URL"
LOGIN_SETTINGS = "BRIDGE_TARGET_USERNAME"


@dataclass(frozen=True)
class Behind:
    """One Orthanc behind an nginx with two ports: ``port`` speaks TLS, ``plain`` does not."""

    server: OrthancServer
    nginx: Nginx
    trust: Trust
    port: int
    plain: int

    def serve(self, changes: Mapping[str, str], *, orthanc_port: int = 0) -> None:
        site = self.trust.site(self.port, orthanc_port or self.server.http_port)
        to_https = (
            f"server {{ listen 127.0.0.1:{self.plain}; "
            f"return 301 https://127.0.0.1:{self.port}$request_uri; }}"
        )
        self.nginx.serve(changed(site, changes), to_https)

    def client(self, url: str = "", password: str = PASSWORD) -> OrthancClient:
        endpoint = Endpoint(
            SideName.TARGET,
            url or f"https://127.0.0.1:{self.port}/orthanc",
            ca_file=self.trust.authority.certificate,
            timeout_s=5.0,
        )
        return OrthancClient(
            endpoint, Credentials(USER, password), retries=RetryPolicy(waits=False)
        )


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    home = tmp_path_factory.mktemp("behind")
    with ExitStack() as stack:
        nginx = stack.enter_context(Nginx(home / "nginx"))
        server = stack.enter_context(
            OrthancServer(
                "orthanc",
                home / "orthanc",
                executable=require_orthanc(),
                config={"HttpCompressionEnabled": True},  # off by default in newer versions
            )
        )
        (home / "trust").mkdir()
        yield Behind(server, nginx, Trust.make(home / "trust"), nginx.port(), nginx.port())


@dataclass(frozen=True)
class Case:
    """Lines of the documented site that are otherwise, and what is then said of an upload."""

    problem: SideProblem
    seen: str
    advice: str
    changes: Mapping[str, str] = field(default_factory=dict)
    url: Callable[[Behind], str] = lambda _behind: ""
    probe_is_fine: bool = False


CASES = {
    "body limit": Case(
        SideProblem.BODY_LIMIT,
        "refuses a body of this size: HTTP 413",
        "nginx: client_max_body_size",
        {NO_LIMIT: "client_max_body_size 100;"},
        probe_is_fine=True,
    ),
    "body limit, buffering": Case(
        SideProblem.BODY_LIMIT,
        "refuses a body of this size: HTTP 413",
        "nginx: client_max_body_size",
        {NO_LIMIT: "client_max_body_size 100;", "proxy_request_buffering off;": ""},
        probe_is_fine=True,
    ),
    "read-only": Case(
        SideProblem.FORBIDDEN,
        "forbids this request: HTTP 403",
        "a proxy in front of it",
        {NO_LIMIT: "limit_except GET { deny all; }"},
        probe_is_fine=True,
    ),
    "no path prefix": Case(
        SideProblem.NOT_FOUND,
        "does not know this path: HTTP 404",
        URL,
        url=lambda behind: f"https://127.0.0.1:{behind.port}",
    ),
    "http to the port of TLS": Case(
        SideProblem.TLS,
        "requires TLS on this port",
        f"https:// in {URL}",
        url=lambda behind: f"http://127.0.0.1:{behind.port}/orthanc",
    ),
    "http to https": Case(
        SideProblem.REDIRECTED,
        "redirects us to https:// on the same host: HTTP 301",
        f"Write https:// in {URL}",
        url=lambda behind: f"http://127.0.0.1:{behind.plain}/orthanc",
    ),
    "another host": Case(
        SideProblem.REDIRECTED,
        "redirects us to the host pacs.example: HTTP 308",
        f"Put the final address into {URL}",
        {LOGIN: "return 308 https://pacs.example$request_uri;"},
    ),
    "is a login page": Case(
        SideProblem.REDIRECTED,
        "redirects us to another path: HTTP 302",
        LOGIN_SETTINGS,
        {LOGIN: "return 302 /login?next=$request_uri;"},
    ),
    "a slash at the end": Case(
        SideProblem.REDIRECTED,
        "the same path with a slash at its end: HTTP 301",
        "pass on paths unchanged",
        {LOCATION: f"rewrite ^(/orthanc/[a-z]+)$ $1/ permanent; {LOCATION}"},
    ),
    "no client certificate": Case(
        SideProblem.TLS,
        "refused the bridge's client certificate, or requires one",
        "BRIDGE_TARGET_CLIENT_CERT_FILE",
        {LOCATION: f"ssl_client_certificate CA; ssl_verify_client on; {LOCATION}"},
    ),
    "a page for everything": Case(
        SideProblem.NOT_ORTHANC,
        "the body is not JSON",
        URL,
        {LOGIN: 'default_type text/html; return 200 "<html>back at noon</html>";'},
    ),
    "under maintenance": Case(
        SideProblem.SERVER_ERROR,
        "says that it is unavailable: HTTP 503",
        "log",
        {LOGIN: "return 503;"},
    ),
}


def _failure(call: Callable[[], object]) -> SideError:
    with pytest.raises(SideError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_each_is_explained(behind: Behind, name: str) -> None:
    case = CASES[name]
    changes = {
        old: new.replace("CA;", f"{behind.trust.authority.certificate};")
        for old, new in case.changes.items()
    }
    behind.serve(changes)
    data = small_ct()
    with behind.client(case.url(behind)) as client:
        pieces = (data[start : start + 100] for start in range(0, len(data), 100))
        errors = [
            _failure(lambda: client.store(data, deadline_s=10.0)),
            _failure(lambda: client.store(pieces, deadline_s=10.0)),
        ]
        if case.probe_is_fine:
            assert client.system().version
        else:
            errors.append(_failure(client.system))
    for error in errors:
        assert error.problem is case.problem
        assert case.seen in error.message
        assert case.advice in error.advice
        assert not error.specific, "no instance is to blame"
        assert "127.0.0.1" in error.message
        assert PASSWORD not in str(error)


def test_a_proxy_that_has_orthanc_compress(behind: Behind) -> None:
    behind.serve({AUTHORIZATION: f"{AUTHORIZATION} proxy_set_header Accept-Encoding gzip;"})
    with OrthancClient(Endpoint(SideName.TARGET, behind.server.url), Credentials()) as direct:
        instance_id = direct.store(small_ct(rows=64, columns=64), deadline_s=10.0).instance_id
    url = f"{behind.server.url}/instances/{instance_id}/file"
    answer = httpx.get(url, headers={"Accept-Encoding": "gzip"})
    if answer.headers.get("content-encoding") != "gzip":
        pytest.skip("this version of Orthanc does not compress files")
    with behind.client() as client:
        error = _failure(lambda: client.fetch_instance(instance_id, len, deadline_s=10.0))
    assert error.problem is SideProblem.NOT_ORTHANC
    assert "compressed its answer although it was asked not to" in error.message
    assert "nginx: no proxy_set_header Accept-Encoding" in error.advice


def test_a_wrong_password(behind: Behind) -> None:
    behind.serve({})
    with behind.client(password=PASSWORD[::-1]) as client:
        error = _failure(lambda: client.store(small_ct(), deadline_s=10.0))
        assert error.problem is SideProblem.LOGIN_REFUSED
        assert LOGIN_SETTINGS in error.advice


def test_a_large_upload_against_a_limit_is_told_as_well(behind: Behind) -> None:
    """nginx hangs up long before it has read everything."""
    behind.serve({NO_LIMIT: "client_max_body_size 10k;"})
    data = small_ct(rows=2048, columns=2048)
    with behind.client() as client:
        for body in (data, iter([data[: 1 << 20], data[1 << 20 :]])):
            error = _failure(lambda body=body: client.store(body, deadline_s=20.0))  # type: ignore[misc]
            assert error.problem is SideProblem.BODY_LIMIT


def test_a_server_behind_it_that_is_not_there(behind: Behind) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refused, and nobody else's
        behind.serve({}, orthanc_port=closed.getsockname()[1])
        with behind.client() as client:
            error = _failure(client.system)
    assert error.problem is SideProblem.SERVER_ERROR
    assert "behind a proxy that cannot reach it" in error.message
    assert "HTTP 502" in error.message
    assert "Check that it is running" in error.advice


def test_a_server_behind_it_that_does_not_answer(behind: Behind) -> None:
    behind.serve({"proxy_read_timeout 300s;": "proxy_read_timeout 200ms;"})
    behind.server.suspend()
    try:
        with behind.client() as client:
            error = _failure(lambda: client.store(small_ct(), deadline_s=10.0))
    finally:
        behind.server.resume()
    assert error.problem is SideProblem.SERVER_ERROR
    assert "got no answer from it in time: HTTP 504" in error.message
    assert "proxy_read_timeout" in error.advice
    assert error.begun, "it may have been the instance that made it hang"
