"""Whatever an HTTP server can answer to each call: what the real client makes of it.

Each answer is written as bytes and read by the client, the worker's task included, over a pair of
sockets that lead nowhere. A simulated world then gives what came out: to one instance, or to all
for a while.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any
from unittest.mock import patch

from bridge.credentials import Credentials
from bridge.errors import BridgeError
from bridge.model import (
    AnswerKind,
    Endpoint,
    Job,
    Move,
    Outcome,
    SideFailed,
    SideName,
    Task,
    answer_of,
)
from bridge.orthanc import OrthancClient, RetryPolicy
from bridge.orthanc.transport import Connection
from bridge.rules import parse_rules
from bridge.worker.transfer import move
from tests.dicom_samples import small_ct
from tests.fake_store import FakeStore

WORK = {
    "metadata": SideName.SOURCE,
    "file": SideName.SOURCE,
    "store": SideName.TARGET,
    "md5": SideName.TARGET,
}
"""Calls of a worker, in their order, and the side that is asked."""
CONTROL = ("system", "changes", "last_change", "list_instances", "serves_whole_file", "statistics")
"""Calls of the bridge's own process."""
RULES = parse_rules('[[rule]]\nmodality = "XX"\naction = "forward"\n')
"""So that a worker asks for the metadata."""
SHAPES = ("good", "empty", "bare", "cut", "longer", "list", "page", "error", "text")
STATUSES = (
    *(200, 201, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 407, 408, 409, 410, 411),
    *(413, 415, 418, 422, 429, 431, 451, 500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 599),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, and what stands in its body compared with what should."""

    status: int
    shape: str

    def written(self, call: str) -> bytes:
        """The bytes for a call."""
        good = _good()[call]
        usual = "application/dicom" if call in ("file", "serves_whole_file") else "application/json"
        error = {"HttpStatus": self.status, "OrthancStatus": 1, "OrthancError": "Internal error"}
        page = b"<!DOCTYPE html><html><body>Welcome</body></html>"
        body, kind = {
            "good": (good, usual),
            "empty": (b"", usual),
            "bare": (b"", ""),
            "cut": (good[: len(good) // 2], usual),
            "longer": (good + good, usual),
            "list": (b'[{"a": 1}, 2]', "application/json"),
            "page": (page, "text/html; charset=utf-8"),
            "error": (json.dumps(error).encode(), "application/json"),
            "text": (b"no answer at all", usual),
        }[self.shape]
        length = len(good) if self.shape in ("cut", "longer") else len(body)
        head = [f"HTTP/1.1 {self.status} Simulated", "Connection: close"]
        head += [f"Content-Type: {kind}"] if kind else []
        head += ["Location: /login"] if 300 <= self.status < 400 else []
        head += ["Retry-After: 2"] if self.status in (429, 503) else []
        head += [] if self.shape == "bare" else [f"Content-Length: {length}"]
        return "\r\n".join([*head, "", ""]).encode() + body


REPLIES = tuple(
    Reply(status, shape)
    for status in STATUSES
    for shape in (SHAPES if status in (200, 404, 500) else ("empty", "page", "error"))
    if (status, shape) not in ((200, "good"), (200, "longer"))
)
"""All but those that a client is right to take for a good answer."""


@cache
def _good() -> Mapping[str, bytes]:
    """What an Orthanc answers to each call."""
    store = FakeStore()
    data = small_ct()
    instance_id, _ = store.put(data)
    md5 = store.instances[instance_id].md5
    row = {"ChangeType": "NewInstance", "Date": "20200101T000000", "ID": instance_id, "Seq": 1}
    page = {"Changes": [row], "Done": True, "Last": 1}
    answers: dict[str, Any] = {
        "metadata": {"TransferSyntax": "1.2.840.10008.1.2.1", "SopClassUid": "1.2.3"},
        "store": {"ID": instance_id, "Status": "Success", "ParentStudy": instance_id},
        "system": {"ApiVersion": 16, "Version": "1.10.1", "Name": "A", "MaximumStorageSize": 1},
        "changes": page,
        "last_change": page,
        "list_instances": [instance_id],
        "statistics": dict.fromkeys(
            ("CountInstances", "CountSeries", "CountStudies", "CountPatients"), 1
        )
        | {"TotalDiskSize": "1", "TotalUncompressedSize": "1"},
    }
    return {name: json.dumps(value).encode() for name, value in answers.items()} | {
        "id": instance_id.encode(),
        "file": data,
        "serves_whole_file": data,
        "md5": md5.encode(),
    }


@contextmanager
def _answering(by_side: Mapping[SideName, list[bytes]]) -> Iterator[None]:
    """Let connections to each side find these answers in turn, the last again and again."""
    ends: list[socket.socket] = []

    def opened(url: Any, _context: object, line: Any, _timeout_s: float) -> Connection:
        near, far = socket.socketpair()
        ends.extend((near, far))
        line.opened = True
        for end in (near, far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        turn = by_side[SideName(url.host)]
        far.settimeout(5.0)
        far.sendall(turn[0] if len(turn) == 1 else turn.pop(0))
        far.shutdown(socket.SHUT_WR)
        return Connection(near, line)

    with patch.object(Connection, "open", opened):
        yield
    for end in ends:
        end.close()


def _client(endpoint: Endpoint) -> OrthancClient:
    return OrthancClient(endpoint, Credentials(), retries=RetryPolicy(waits=False))


@cache
def outcome_of(call: str, reply: Reply) -> Outcome:
    """What a worker reports when one of its calls is always answered so."""
    good = _good()
    turns: dict[SideName, list[bytes]] = {side: [] for side in SideName}
    for name, side in WORK.items():
        if name == "metadata" and call != "metadata":
            continue
        turns[side].append((reply if name == call else Reply(200, "good")).written(name))
        if name == call:
            break
    endpoints = {side: Endpoint(side, f"http://{side}", timeout_s=5.0) for side in SideName}
    job = Job(
        endpoints[SideName.SOURCE],
        endpoints[SideName.TARGET],
        "1.2.840.10008.1.2.1",
        proof="stored",
        rules=RULES if call == "metadata" else (),
    )
    with _answering(turns), patch("bridge.worker.transfer.process_client", cache(_client)):
        outcome = move(Task(Move(good["id"].decode(), 1), job))
    # Only this call is answered so: the server is there when it is looked at.
    return replace(outcome, gone=False) if isinstance(outcome, SideFailed) else outcome


ASK: Mapping[str, Callable[[OrthancClient, str], object]] = {
    "system": lambda client, _: client.system(),
    "changes": lambda client, _: client.changes(0, 3),
    "last_change": lambda client, _: client.last_change(),
    "list_instances": lambda client, _: client.list_instances(0, 3),
    "serves_whole_file": lambda client, instance_id: client.serves_whole_file(instance_id),
    "statistics": lambda client, _: client.statistics(),
    "metadata": lambda client, instance_id: client.instance_metadata(instance_id),
}


@cache
def error_of(call: str, reply: Reply, side: SideName) -> BridgeError | None:
    """What the client raises when a call is always answered so; None when it believes it."""
    good = _good()
    with (
        _answering({side: [reply.written(call)]}),
        _client(Endpoint(side, f"http://{side}", timeout_s=5.0)) as client,
    ):
        try:
            ASK[call](client, good["id"].decode())
        except BridgeError as exc:
            return exc
    return None


@dataclass(frozen=True, slots=True)
class Strange:
    """A call that is answered strangely."""

    call: str
    reply: Reply

    def outcome(self) -> Outcome:
        """What a worker makes of it."""
        return outcome_of(self.call, self.reply)

    @property
    def waits(self) -> bool:
        """Whether it is never an instance's fault."""
        outcome = self.outcome()
        kinds = (AnswerKind.SETTING, AnswerKind.LIMIT)
        return isinstance(outcome, SideFailed) and answer_of(outcome) in kinds


def any_strange(draw: Random, *, to_all: bool) -> Strange:
    """Draw an answer to a worker; ``to_all``: one that is not believed to be about an instance."""
    while True:
        strange = Strange(draw.choice(list(WORK)), draw.choice(REPLIES))
        if not to_all or isinstance(strange.outcome(), SideFailed):
            return strange
