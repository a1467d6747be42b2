"""``/openapi.json`` against the real routes: each is described, and answers as described."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from bridge.events import InFlight, InstanceParked, Progress, RefusedWorker, SideView, Workforce
from bridge.ledger.records import EndedAs, Entry, StudyNote
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason, Study
from bridge.monitoring.actions import Actions
from bridge.monitoring.board import Board
from bridge.monitoring.guard import HEAD_BYTES_MAX
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.openapi import description
from bridge.monitoring.page_files import PAGE_FILES
from bridge.monitoring.poke import PokeReceiver
from bridge.monitoring.server import MonitoringServer, application
from tests.acting import IDS, POKE_TOKEN, TOKEN, Acting

METHODS = ("get", "post")


@pytest.fixture
def acting(tmp_path: Path) -> Iterator[Acting]:
    found = Acting(tmp_path)
    with Ledger(found.path) as ledger:
        note = StudyNote(Study("1.2.3", IDS[4]), IDS[4], EndedAs.PARKED, time.time(), 0.0)
        ledger.commit(Entry(studies=(note,)))
    busy = Progress(
        checkpoint=1,
        last=900,
        phase="following",
        in_flight=(InFlight("an-instance", 2, 1.0, 1),),
        source=SideView(up=True, version="1.12.7"),
        target=SideView(up=False, problem="unreachable", message="No.", down_since=1.0),
        workforce=Workforce(1, 1, refused=(RefusedWorker("a", "b"),)),
    )
    found.board.on_progress(busy)
    found.board.on_event(InstanceParked(Move(IDS[0], 1), Reason.VIDEO, "no", 1))
    yield found
    found.close()


def strict(schema: Any) -> Any:
    """Return a schema by which a field that is not described is an error."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if "properties" in schema else {}
    return more | {name: strict(part) for name, part in schema.items()}


def ask(
    acting: Acting, method: str, path: str, body: object = None, token: str = TOKEN
) -> tuple[int, str, bytes]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", acting.port, timeout=30)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method.upper(), path, body=sent, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get_content_type(), answer.read()
    finally:
        connection.close()


def held(acting: Acting, method: str, path: str, body: object = None, token: str = TOKEN) -> int:
    """Ask, hold the answer against what is described, and return its status."""
    described = json.loads(ask(acting, "get", "/openapi.json")[2])["paths"]
    known = described[path.partition("?")[0]][method]
    if body is not None and token == TOKEN:
        schema = known["requestBody"]["content"]["application/json"]["schema"]
        Draft202012Validator(schema).validate(body)
    status, kind, text = ask(acting, method, path, body, token)
    content = known["responses"][str(status)]["content"]
    assert kind in content
    # Before an address is asked, the server may refuse with text what it would answer in JSON.
    assert path == "/metrics" or list(content) == [kind] or status == 400
    if kind == "application/json":
        Draft202012Validator(strict(content[kind]["schema"])).validate(json.loads(text))
    return status


def test_each_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    Ledger(tmp_path / "state.sqlite3").close()
    board = Board(tmp_path / "state.sqlite3", HealthLimits())
    for pokes in (True, False):
        for acts in (True, False):
            poked = PokeReceiver("x" * 30, lambda _: None) if pokes else None
            actions = None
            if acts:
                actions = Actions(
                    {}, state_path=tmp_path, newest=lambda: 1, verifies=True, count=lambda *_: None
                )
            app = application(board, Metrics(board), poked, actions)
            served = {
                (route.path, method.lower())
                for route in app.routes
                if isinstance(route, Route)
                and (route.path not in PAGE_FILES or route.path in {"/", "/studies"})
                for method in route.methods or ()
                if method != "HEAD"
            }
            told = description(pokes=pokes, acts=acts)["paths"]
            # Without a token there is no poke; how that is answered is described all the same.
            served.add(("/poke", "post"))
            assert {(path, method) for path, of in told.items() for method in of} == served


def test_each_address_that_is_read_answers_as_described(acting: Acting) -> None:
    told = description(pokes=True, acts=True)["paths"]
    for path in [path for path, of in told.items() if "get" in of]:
        held(acting, "get", path)
    assert held(acting, "get", "/health") == 503
    assert held(acting, "get", "/api/studies?search=1.2.3") == 200
    assert held(acting, "get", "/api/actions", token="x" * 30) == 401
    up = replace(acting.board.progress, target=SideView(up=True), workforce=Workforce(1, 1))
    acting.board.on_progress(replace(up, last_progress_at=time.time(), feed_read_at=time.time()))
    assert held(acting, "get", "/readyz") == 200


def test_each_refusal_is_described(acting: Acting) -> None:
    """What is refused before an address is asked, at each of them."""
    for path, of in description(pokes=True, acts=True)["paths"].items():
        for method in of:
            for refused, head in (
                (421, {"Host": "elsewhere.example"}),
                (400, {"Host": "a b"}),
                (413, {"Content-Length": "9000"}),
                (413, {"Transfer-Encoding": "chunked"}),
                (400, {"X-Long": "x" * HEAD_BYTES_MAX}),
            ):
                status, kind = raw(acting, method, path, head)
                assert (status, kind) == (refused, "text/plain"), (path, head)
                assert kind in of[method]["responses"][str(status)]["content"]
    assert held(acting, "get", "/api/studies?after=nonsense") == 400
    assert held(acting, "get", "/api/studies?incomplete=yes") == 400


def raw(acting: Acting, method: str, path: str, head: dict[str, str]) -> tuple[int, str]:
    lines = {"Host": f"127.0.0.1:{acting.port}"} | head
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection(("127.0.0.1", acting.port), timeout=30) as connection:
        connection.sendall(f"{method.upper()} {path} HTTP/1.1\r\n{text}\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers.get_content_type()


def test_without_a_token_the_poke_is_described_as_it_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    Ledger(path).close()
    board = Board(path, HealthLimits())
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    port = int(server.url.rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/poke")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    server.stop()
    told = description(pokes=False, acts=False)["paths"]["/poke"]["post"]["responses"]
    content = told[str(answer.status)]["content"]
    assert (answer.status, answer.headers.get_content_type()) == (404, *content)


BODIES: dict[str, dict[str, object]] = {
    "pause": {},
    "resume": {},
    "retry": {"instances": [IDS[0]]},
    "drop": {"reason": "video"},
    "replay": {"from": 1, "to": 7},
    "verify": {},
}


def test_each_action_takes_and_answers_what_is_described(acting: Acting) -> None:
    told = description(pokes=True, acts=True)["paths"]
    posts = [path.rpartition("/")[2] for path, of in told.items() if "post" in of]
    assert posts == ["poke", *BODIES]
    assert held(acting, "post", "/poke", token=POKE_TOKEN) == 202
    assert held(acting, "post", "/poke") == 401
    for name, body in BODIES.items():
        path = f"/api/actions/{name}"
        assert held(acting, "post", path, body) == 409
        confirm = json.loads(ask(acting, "post", path, body)[2])["confirm"]
        acting.ended.clear()
        assert held(acting, "post", path, body | {"confirm": confirm}) == 200
        assert acting.ended.wait(30), "a command has ended before the next begins"
        assert ask(acting, "post", path, body | {"nonsense": 1})[0] == 400
    assert held(acting, "post", "/api/actions/pause", {}, token="x" * 30) == 401
    assert held(acting, "get", "/api/actions") == 200
