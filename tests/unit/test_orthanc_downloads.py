"""A download that breaks: asked for once, and the server had begun to work on it."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from bridge.core.errors import SourceError
from bridge.orthanc import OrthancClient
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, HangUp
from tests.fault_proxy import FaultProxy, OnMarker

Fakes = Callable[..., FakeOrthanc]
Clients = Callable[..., OrthancClient]


def _fetch(client: OrthancClient, instance_id: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        client.fetch_instance(instance_id, lambda _piece: None, deadline_s=5.0)
    return caught.value


def test_a_broken_download_is_not_asked_for_again_in_the_same_call(
    fake_orthanc: Fakes, client_of: Clients
) -> None:
    """The server may have died of it: each repetition would kill it once more."""
    fake = fake_orthanc()
    instance_id = fake.put(small_ct())
    fake.script(r"GET /instances/[^/]+/file", HangUp())
    error = _fetch(client_of(fake.url), instance_id)
    assert error.begun
    assert len([request for request in fake.requests if "/file" in request]) == 1


def test_a_download_on_a_kept_connection_that_was_closed_is_asked_for_again(
    fake_orthanc: Fakes, client_of: Clients
) -> None:
    fake = fake_orthanc()
    instance_id = fake.put(small_ct())
    client = client_of(fake.url)
    client.system()
    fake.script(r"GET /instances/[^/]+/file", HangUp(), times=1)
    received = bytearray()
    client.fetch_instance(instance_id, received.extend, deadline_s=5.0)
    assert received


def test_a_server_that_is_gone_when_asked_again_had_begun(
    fake_orthanc: Fakes, fault_proxy: Callable[[int], FaultProxy], client_of: Clients
) -> None:
    """A kept connection broke and the second was refused: it may have died of the first."""
    fake = fake_orthanc()
    instance_id = fake.put(small_ct())
    proxy = fault_proxy(urlsplit(fake.url).port or 0)
    client = client_of(proxy.url)
    client.system()
    proxy.strike(OnMarker(b"/file", proxy.refuse))
    error = _fetch(client, instance_id)
    assert "refuses connections" in error.message
    assert error.begun
