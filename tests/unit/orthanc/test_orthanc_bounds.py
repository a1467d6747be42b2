"""How much of each answer is read, and how long it may take: by what the wire is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from bridge.errors import SideError, side_error
from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc.client import BULK_MAX, OrthancClient
from bridge.orthanc.fault_table import Request

ID = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
MIB = 1024 * 1024


class Spied:
    """Instead of connections: answers by path, and what each request was allowed."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = answers
        self.deadlines_s: list[float | None] = []
        self.retried: list[bool] = []
        self.bytes_max: list[int] = []
        self.paths: list[str] = []

    @contextmanager
    def exchange(
        self, request: Request, *, deadline_s: float | None, retried: bool = True, **_other: object
    ) -> Iterator[httpx.Response]:
        self.paths.append(request.path)
        self.deadlines_s.append(deadline_s)
        self.retried.append(retried)
        yield httpx.Response(200)

    def read(self, _response: httpx.Response, request: Request, *, bytes_max: int) -> bytes:
        self.bytes_max.append(bytes_max)
        answer = self.answers[request.path]
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer).encode()


def client_of(answers: dict[str, object]) -> tuple[OrthancClient, Spied]:
    spied = Spied(answers)
    wire: Any = spied
    endpoint = Endpoint(SideName.SOURCE, "http://source", timeout_s=7.0)
    return OrthancClient(endpoint, None, wire=wire), spied


EMPTY_PAGE = {"Changes": [], "Done": True, "Last": 0}
SYSTEM = {"Version": "1", "ApiVersion": 1}


@pytest.mark.parametrize(
    ("path", "answer", "call", "bytes_max"),
    [
        ("/system", SYSTEM, lambda c: c.system(), MIB),
        ("/changes", EMPTY_PAGE, lambda c: c.last_change(), MIB),
        ("/changes", EMPTY_PAGE, lambda c: c.changes(0, 1), MIB + 1024),
        ("/changes", EMPTY_PAGE, lambda c: c.changes(0, 5000), MIB + 5000 * 1024),
        ("/changes", EMPTY_PAGE, lambda c: c.changes(0, 10**9), 64 * MIB),
        ("/instances", [], lambda c: c.list_instances(0, 100), MIB + 100 * 1024),
        ("/tools/bulk-content", [], lambda c: c.bulk_metadata([ID]), 16 * MIB),
        ("/tools/bulk-content", [], lambda c: c.bulk_held([ID]), 16 * MIB),
        ("/tools/bulk-content", [], lambda c: c.studies_of([ID]), 16 * MIB),
        ("/tools/bulk-content", [], lambda c: c.bulk_described([ID]), 16 * MIB),
        (f"/instances/{ID}", {"ID": ID}, lambda c: c.has_instance(ID), MIB),
        (f"/instances/{ID}/metadata", {}, lambda c: c.instance_metadata(ID), MIB),
        (f"/studies/{ID}", {"Series": []}, lambda c: c.instances_of_study(ID), 16 * MIB),
    ],
)
def test_no_more_is_read_than_an_answer_may_have(
    path: str, answer: object, call: Callable[[OrthancClient], object], bytes_max: int
) -> None:
    client, spied = client_of({path: answer})
    call(client)
    assert spied.bytes_max == [bytes_max]
    assert spied.deadlines_s == [14.0], "two time-outs"


def test_so_many_are_asked_for_together() -> None:
    client, spied = client_of({"/tools/bulk-content": []})
    assert client.bulk_metadata([ID] * BULK_MAX) == {}
    with pytest.raises(ValueError, match="at once"):
        client.bulk_metadata([ID] * (BULK_MAX + 1))
    assert client.bulk_metadata([]) == {}
    assert len(spied.paths) == 1


@pytest.mark.parametrize(
    ("problem", "gone"),
    [
        (SideProblem.UNREACHABLE, True),
        (SideProblem.SERVER_ERROR, True),
        (SideProblem.TIMED_OUT, False),
        (SideProblem.LOGIN_REFUSED, False),
        (None, False),
    ],
)
def test_a_server_that_dropped_a_file_is_asked_once_and_for_two_seconds(
    problem: SideProblem | None, *, gone: bool
) -> None:
    failed = None if problem is None else side_error(SideName.SOURCE, problem, "no")
    client, spied = client_of({"/system": failed or SYSTEM})
    assert client._is_gone() is gone
    assert (spied.deadlines_s, spied.retried) == ([2.0], [False])


@pytest.mark.parametrize(
    ("listed", "shown", "found", "requests"),
    [([], False, True, 1), ([ID], True, True, 2), ([ID], False, False, 6)],
)
def test_an_instance_is_gone_where_others_are_shown(
    listed: list[str], *, shown: bool, found: bool, requests: int
) -> None:
    """Something on the way may answer 404 to all: asked three times, none is shown."""
    lacking = side_error(SideName.SOURCE, SideProblem.NOT_FOUND, "no")
    answers: dict[str, object] = {
        "/instances": listed,
        f"/instances/{ID}": {"ID": ID} if shown else lacking,
        "/system": SYSTEM,
    }
    client, spied = client_of(answers)
    assert client._shows_instances() is found
    assert len(spied.paths) == requests


def test_a_list_that_is_forbidden_says_what_it_does_not_show() -> None:
    forbidden = side_error(SideName.SOURCE, SideProblem.FORBIDDEN, "no")
    assert client_of({"/instances": forbidden})[0]._shows_instances()
    down = side_error(SideName.SOURCE, SideProblem.UNREACHABLE, "no")
    with pytest.raises(SideError):
        client_of({"/instances": down})[0]._shows_instances()
