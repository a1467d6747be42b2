"""A download that breaks: asked for once, and the server had begun to work on it."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from bridge.errors import SourceError
from bridge.model import SideProblem
from bridge.orthanc import OrthancClient
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Hang, HangUp, Respond
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


def test_an_empty_file_is_told_as_one(fake_orthanc: Fakes, client_of: Clients) -> None:
    """It is Orthanc that answers: the address is right, and the file is to be looked at."""
    fake = fake_orthanc()
    instance_id = fake.put(small_ct())
    fake.script(r"GET /instances/[^/]+/file", Respond(200, b""))
    error = _fetch(client_of(fake.url), instance_id)
    assert error.specific
    assert "sent an empty file" in error.message
    assert "restore it" in error.advice
    assert "_URL" not in error.advice


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


def _store(client: OrthancClient, _instance_id: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        client.store(small_ct(), deadline_s=5.0)
    return caught.value


BAD_GATEWAY = Respond(502, b"<html>502 Bad Gateway</html>")


@pytest.mark.parametrize("transfer", [_fetch, _store])
@pytest.mark.parametrize(
    ("dropped", "then", "gone"),
    [
        (HangUp(), None, False),
        (HangUp(), HangUp(), True),
        (HangUp(), Respond(503), True),
        (BAD_GATEWAY, None, False),
        (BAD_GATEWAY, BAD_GATEWAY, True),
        (BAD_GATEWAY, Respond(403), False),
        (Respond(500), BAD_GATEWAY, False),
        (Respond(507), BAD_GATEWAY, False),
    ],
)
def test_a_server_that_dropped_a_file_is_looked_at_at_once(
    fake_orthanc: Fakes,
    client_of: Clients,
    *,
    transfer: Callable[[OrthancClient, str], SourceError],
    dropped: HangUp | Respond,
    then: HangUp | Respond | None,
    gone: bool,
) -> None:
    """Who asks later may meet it when it has been started again. A look is one request."""
    fake = fake_orthanc()
    instance_id = fake.put(small_ct())
    fake.script(r"GET /instances/[^/]+/file", dropped)
    fake.script(r"POST /instances", dropped)
    if then is not None:
        fake.script("GET /system", then)
    error = transfer(client_of(fake.url), instance_id)
    assert error.gone is gone
    looks = [request for request in fake.requests if request.startswith("GET /system")]
    assert len(looks) == (error.begun)


def test_a_server_that_merely_takes_too_long_is_not_looked_at(
    fake_orthanc: Fakes, client_of: Clients
) -> None:
    fake = fake_orthanc()
    instance_id = fake.put(small_ct())
    fake.script(r"GET /instances/[^/]+/file", Hang())
    client = client_of(fake.url)
    with pytest.raises(SourceError) as caught:
        client.fetch_instance(instance_id, lambda _piece: None, deadline_s=0.2)
    assert caught.value.problem is SideProblem.TIMED_OUT
    assert (caught.value.begun, caught.value.gone) == (True, False)
    assert not any(request.startswith("GET /system") for request in fake.requests)
