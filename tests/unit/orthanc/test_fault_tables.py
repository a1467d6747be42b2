"""Each row of the fault tables: what it is called, whose trouble it is, and which advice it has.

The tables are data: a row that is left out or exchanged with another one breaks no code.
"""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from bridge.credentials import Credentials
from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc import bodies, client, wire
from bridge.orthanc.fault_table import (
    HTTPX_FAULTS,
    ORTHANC_FAULTS,
    PROXY_PAGES,
    STATUS_FAULTS,
    TLS_CLIENT,
    TLS_SPOKEN,
    Fault,
    OurFault,
    Request,
)
from bridge.orthanc.wire import RETRIED_STATUSES, UPSTREAM_LOST, RetryPolicy, Wire
from tests.unit.orthanc.test_orthanc_docs import TEXT

P = SideProblem

STATUSES = {
    401: (P.LOGIN_REFUSED, "refused the login", "{login}"),
    403: (P.FORBIDDEN, "forbids", "RemoteAccessAllowed"),
    404: (P.NOT_FOUND, "does not know this path", "{url}"),
    405: (P.FORBIDDEN, "does not allow this method", "read-only"),
    407: (P.FORBIDDEN, "proxy that requires a login", "{url}"),
    408: (P.SERVER_ERROR, "gave up waiting for the request", "{timeout}"),
    411: (P.BODY_LIMIT, "refuses chunked uploads", "chunked"),
    413: (P.BODY_LIMIT, "refuses a body of this size", "client_max_body_size"),
    429: (P.SERVER_ERROR, "asks the bridge to slow down", "log"),
    502: (P.SERVER_ERROR, "cannot reach it", "where the proxy passes"),
    503: (P.SERVER_ERROR, "unavailable", "log"),
    504: (P.SERVER_ERROR, "got no answer from it in time", "proxy_read_timeout"),
    507: (P.STORAGE_FULL, "no storage left", "MaximumStorageSize"),
}
CODES = {
    11: (P.SERVER_ERROR, "trouble with its database", "database"),
    14: (P.STORAGE_FULL, "could not write the file", "rights"),
    19: (P.STORAGE_FULL, "no storage left", "MaximumStorageSize"),
    42: (P.SERVER_ERROR, "trouble with its database", "database"),
}
EXCEPTIONS: dict[str, object] = {
    "ConnectTimeout": (P.TIMED_OUT, "did not accept a connection in time", "running"),
    "ReadTimeout": (P.TIMED_OUT, "did not answer in time", "{timeout}"),
    "WriteTimeout": (P.TIMED_OUT, "stopped reading the request", "{timeout}"),
    "ConnectError": (P.UNREACHABLE, "refuses connections", "running"),
    "ReadError": (P.UNREACHABLE, "broke the connection before its answer", "port"),
    "WriteError": (P.UNREACHABLE, "broke the connection while the request was sent", ""),
    "CloseError": (P.UNREACHABLE, "closed the connection", ""),
    "RemoteProtocolError": (P.UNREACHABLE, "ended the connection before its answer", "port"),
    "ProxyError": (P.UNREACHABLE, "behind a proxy that failed", ""),
    "DecodingError": (P.NOT_ORTHANC, "does not decode", "running"),
    "TooManyRedirects": (P.REDIRECTED, "in circles", "{url}"),
    "NetworkError": (P.UNREACHABLE, "broke the connection", ""),
    "TimeoutException": (P.TIMED_OUT, "did not answer in time", "{timeout}"),
    "ProtocolError": (P.UNREACHABLE, "violated HTTP", ""),
    "TransportError": (P.UNREACHABLE, "could not be reached", "running"),
    "UnsupportedProtocol": OurFault.SETTING,
    "InvalidURL": OurFault.SETTING,
    **dict.fromkeys(
        (
            "PoolTimeout", "LocalProtocolError", "HTTPStatusError", "RequestError", "HTTPError",
            "CookieConflict", "StreamError", "StreamConsumed", "StreamClosed", "ResponseNotRead",
            "RequestNotRead",
        ),
        OurFault.BUG,
    ),
}  # fmt: skip


def is_row(found: object, expected: object) -> bool:
    if not isinstance(expected, tuple):
        return found is expected
    assert isinstance(found, Fault)
    problem, seen, advice = expected
    return found.problem is problem and seen in found.seen and advice in found.advice


@pytest.mark.parametrize("status", sorted({*STATUSES, *STATUS_FAULTS}))
def test_a_status(status: int) -> None:
    assert is_row(STATUS_FAULTS[status], STATUSES[status])
    assert not STATUS_FAULTS[status].specific


@pytest.mark.parametrize("code", sorted({*CODES, *ORTHANC_FAULTS}))
def test_a_code_of_orthanc(code: int) -> None:
    assert is_row(ORTHANC_FAULTS[code], CODES[code])
    assert not ORTHANC_FAULTS[code].specific


@pytest.mark.parametrize("name", sorted({*EXCEPTIONS, *(kind.__name__ for kind in HTTPX_FAULTS)}))
def test_an_exception_of_httpx(name: str) -> None:
    assert is_row(HTTPX_FAULTS[getattr(httpx, name)], EXCEPTIONS[name])


def test_pages_of_proxies() -> None:
    assert [(len(page) > 15, fault) for page, fault in PROXY_PAGES] == [
        (True, TLS_SPOKEN),
        (True, TLS_SPOKEN),
        (True, TLS_CLIENT),
        (True, TLS_CLIENT),
    ]
    texts = b" ".join(page for page, _ in PROXY_PAGES)
    for words in (
        b"HTTPS port",
        b"SSL-enabled",
        b"No required SSL certificate",
        b"SSL certificate error",
    ):
        assert words in texts


def test_what_is_tried_again_and_what_may_have_died_of_it() -> None:
    assert {502, 503, 504} == RETRIED_STATUSES
    assert {502, 504} == UPSTREAM_LOST


# Bounds, as docs/orthanc.md tells them


def test_the_bounds_are_those_that_are_told() -> None:
    policy = RetryPolicy()
    kib, mib = 1024, 1024 * 1024
    for row in (
        f"| connect | {wire.CONNECT_TIMEOUT_S:g} s |",
        f"{policy.attempts_max} attempts, {policy.total_s:g} s, full jitter",
        f"| {client.ANSWER_BYTES_MAX // mib} MiB, and {client.ROW_BYTES_MAX // kib} KiB more for "
        f"each row asked for, at most {client.CHANGES_BYTES_MAX // mib} MiB |",
        f"| {wire.ERROR_BODY_BYTES_MAX // kib} KiB read",
        f"| {bodies.INSTANCE_BYTES_MAX // 1024**3} GiB,",
    ):
        assert row in TEXT, row
    assert client.CONTROL_DEADLINE_FACTOR == 2
    assert "retries included | twice that |" in TEXT


def test_a_connection_has_seconds_and_silence_the_time_of_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint(SideName.SOURCE, "http://127.0.0.1:9/base/", timeout_s=77.0)
    spied = Wire(endpoint, Credentials(), retries=RetryPolicy())
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"{}")

    monkeypatch.setattr(spied._transport, "handle_request", handle)
    request = Request(endpoint, "POST", "/x")
    with spied.exchange(request, query="a=b", body=b"", deadline_s=5.0):
        pass
    timeouts = {"connect": 5.0, "read": 77.0, "write": 77.0, "pool": 5.0}
    assert seen[0].extensions == {"timeout": timeouts, "target": b"/base/x?a=b"}
    with spied.exchange(replace(request, method="GET"), deadline_s=5.0):
        pass
    assert seen[1].extensions["target"].startswith(b"/base/x?look="), "no cache answers it"
