"""One suite, two servers: the fake, as an old and a new version, and the real one (`orthanc`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.model import SideName
from bridge.orthanc import OrthancClient
from tests.fake_orthanc import FakeOrthanc

USERNAME, PASSWORD = "bridge", "correct horse: battery"


NEWER = {"version": "1.12.7", "extended_changes": True}


@pytest.fixture(params=["fake", "newer fake", pytest.param("real", marks=pytest.mark.orthanc)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server_url(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the address of an empty server without a login."""
    return _start(kind, request).url


@pytest.fixture
def locked_url(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the address of an empty server that asks for USERNAME and PASSWORD."""
    return _start(kind, request, username=USERNAME, password=PASSWORD).url


def _start(
    kind: str, request: pytest.FixtureRequest, **arguments: object
) -> FakeOrthanc | OrthancServer:
    fixture = "orthanc" if kind == "real" else "fake_orthanc"
    start: Callable[..., FakeOrthanc | OrthancServer] = request.getfixturevalue(fixture)
    if kind == "newer fake":
        arguments |= NEWER
    return start(**arguments)


@pytest.fixture
def source(server_url: str, client_of: Callable[..., OrthancClient]) -> OrthancClient:
    """Return a client that takes the server for its source."""
    return client_of(server_url, SideName.SOURCE)


@pytest.fixture
def target(server_url: str, client_of: Callable[..., OrthancClient]) -> OrthancClient:
    """Return a client that takes the same server for its target."""
    return client_of(server_url, SideName.TARGET)


@pytest.fixture
def raw(server_url: str) -> Iterator[httpx.Client]:
    """Return plain HTTP to the same server, for what our client never does."""
    with httpx.Client(
        base_url=server_url, trust_env=False, headers={"Accept-Encoding": "identity"}
    ) as client:
        yield client
