"""docs/security.md lists every request that a login may be asked to allow, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.marks import PROBE_PEER
from bridge.model import SideName
from bridge.orthanc.fault_table import Request
from bridge.orthanc.wire import Wire
from bridge.retention.bridge_notes import Role, name_of
from tests.unit.orthanc.test_orthanc_any_answer import CALLS, ID, client_of, served

__all__ = ["served"]

TEXT = (Path(__file__).resolve().parents[2] / "docs/security.md").read_text("utf-8")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
CHILDREN = b'{"Series": ["%s"], "Instances": ["%s"]}' % (ID.encode(), ID.encode())


def listed() -> list[str]:
    table = TEXT.partition("<!-- rights: begin -->")[2].partition("<!-- rights: end -->")[0]
    return re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", table, re.M)


def shape(method: str, path: str) -> str:
    """Write a request as the table does."""
    path = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", "{id}", path)
    path = re.sub(r"/metadata/\d+$", "/metadata/{number}", path)
    return f"{method} {re.sub(r'^/peers/.+', '/peers/{x}', path)}"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, served: list[bytes]) -> set[str]:
    """Every request that a client begins; each is answered as a list of children."""
    served[:] = [ANSWER % (len(CHILDREN), CHILDREN)]
    found: set[str] = set()
    original = Wire.exchange

    @contextmanager
    def exchange(wire: Wire, request: Request, **options: Any) -> Iterator[Any]:
        found.add(shape(request.method, request.path))
        with original(wire, request, **options) as response:
            yield response

    monkeypatch.setattr(Wire, "exchange", exchange)
    return found


def test_every_request_is_listed_and_no_other(sent: set[str]) -> None:
    for call in CALLS.values():
        for side in SideName:
            with client_of(side) as client, suppress(BridgeError):
                call(client)
    assert {shape(*request.split(" ", 1)) for request in listed()} == sent


def test_the_peers_are_named_as_in_the_code() -> None:
    named = {
        path.removeprefix("/peers/") for path in " ".join(listed()).split() if "/peers/" in path
    }
    assert named == {f"{PROBE_PEER}{{x}}", *(name_of(role, "{x}") for role in Role)}
    assert len(set(listed())) == len(listed())
