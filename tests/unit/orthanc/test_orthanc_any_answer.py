"""Whatever a server answers, at every route of the client: an answer of ours, or an error of ours.

Bytes are generated, from nearly right to nonsense, and go through the whole client: connection,
HTTP, fault tables, types. Nothing but our errors leaves it, and what does is bounded.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.credentials import Credentials
from bridge.errors import BridgeError, InstanceError, SideError
from bridge.model import Endpoint, SideName
from bridge.orthanc import INSTANCE_ID, OrthancClient, RetryPolicy
from bridge.orthanc.answers import COUNT_MAX, MEBIBYTE, METADATA_CHARACTERS_MAX
from bridge.orthanc.transport import Connection
from bridge.untrusted_text import visible

ID = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
SENT_MAX = 100_000
"""What a socket takes without anybody reading."""
MESSAGE_MAX = 2_000


def opened(client: OrthancClient) -> bytes:
    with client.open_instance(ID, deadline_s=5.0) as body:
        return b"".join(body.chunks)[:10]


def _finding(client: OrthancClient) -> object:
    client._finds = True  # as its /system has told
    return client.find_described(0, 1)


CALLS: Mapping[str, Callable[[OrthancClient], object]] = {
    "system": lambda c: c.system(),
    "statistics": lambda c: c.statistics(),
    "changes": lambda c: c.changes(0, 3),
    "last_change": lambda c: c.last_change(),
    "list_instances": lambda c: c.list_instances(0, 3),
    "has_instance": lambda c: c.has_instance(ID),
    "instance_metadata": lambda c: c.instance_metadata(ID),
    "bulk_metadata": lambda c: c.bulk_metadata([ID]),
    "bulk_described": lambda c: c.bulk_described([ID]),
    "find_described": _finding,
    "bulk_held": lambda c: c.bulk_held([ID]),
    "studies_of": lambda c: c.studies_of([ID]),
    "stored_md5": lambda c: c.stored_md5(ID),
    "attachment_size": lambda c: c.attachment_size(ID),
    "delete_instance": lambda c: c.delete_instance(ID),
    "open_instance": opened,
    "serves_file": lambda c: c.serves_file(ID),
    "serves_whole_file": lambda c: c.serves_whole_file(ID),
    "check_fetched": lambda c: c.check_fetched(ID, size_bytes=1, md5=str, whose=str),
    "fetch_instance": lambda c: c.fetch_instance(ID, lambda _: None, deadline_s=5.0),
    "store": lambda c: c.store(b"x", deadline_s=5.0),
    "verify_stored": lambda c: c.verify_stored(ID),
    "stored_file": lambda c: c.stored_file(ID),
    "metadata_value": lambda c: c.metadata_value(ID, "4222"),
    "patient_of": lambda c: c.patient_of(ID),
    "protect_patient": lambda c: c.protect_patient(ID),
    "peers": lambda c: c.peers(),
    "set_peer": lambda c: c.set_peer("a", "http://127.0.0.1:9/"),
    "delete_peer": lambda c: c.delete_peer("a"),
    "set_metadata": lambda c: c.set_metadata(ID, "4222", "x"),
    "delete_metadata": lambda c: c.delete_metadata(ID, "4222"),
    "now": lambda c: c.now(),
    "head": lambda c: c.head(ID, 10),
    "lookup": lambda c: c.lookup("1.2.3"),
    "instances_of_study": lambda c: c.instances_of_study(ID),
    "study_state": lambda c: c.study_state(ID),
    "may_store": lambda c: c.may_store(),
    "may_delete": lambda c: c.may_delete(),
}

OBJECTS: tuple[Any, ...] = (
    {"ApiVersion": 16, "Version": "1.10.1", "Name": "A", "MaximumStorageSize": 1},
    {"Changes": [], "Done": True, "Last": 9},
    {
        "Changes": [
            {"ChangeType": "NewInstance", "Date": "20200101T000000", "ID": ID, "Seq": 7},
            {"ChangeType": "NewInstance", "Date": "20200101T000000", "ID": ID, "Seq": 8},
        ],
        "Done": True,
        "Last": 8,
    },
    {"ID": ID, "Status": "Success", "ParentStudy": ID},
    {
        "CountInstances": 1,
        "CountSeries": 1,
        "CountStudies": 1,
        "CountPatients": 1,
        "TotalDiskSize": "1",
        "TotalUncompressedSize": "1",
    },
    {"OrthancError": "Bad file format", "OrthancStatus": 15, "Uri": "/instances"},
    {"RemainingAncestor": None},
    {"TransferSyntax": "1.2.840.10008.1.2"},
    {"Uuid": ID, "UncompressedMD5": "0" * 32, "UncompressedSize": 1},
    {"a": {"Url": "http://127.0.0.1:9/"}},
    {"Series": [ID], "Instances": [ID]},
    [ID, ID],
    [{"Type": "Study", "ID": ID}],
    [{"ID": ID, "Metadata": {"TransferSyntax": "1.2.840.10008.1.2"}}],
    {},
)
TEXTS = (
    "",
    "\ud800",
    "1.10\udfff\x1b[2Jforged\nline",
    "\u202egnol",
    "x" * 256,
    "x" * 60_000,
    "..",
    f"../{ID}",
    ID.upper(),
    f"{ID}\n",
    "[red]x[/red]",
    "9" * 5_000,
    "\u0663",
)
NUMBERS: tuple[object, ...] = (
    -1,
    0,
    2**31,
    2**53,
    2**63,
    2**64,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    True,
    None,
)

texts = st.sampled_from(TEXTS) | st.text(max_size=8)
values: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(NUMBERS) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """JSON of ours with some of its values replaced by others."""
    if draw(st.integers(0, 4)) == 0:
        return draw(values)
    if isinstance(whole, dict):
        return {name: draw(changed(value)) for name, value in whole.items()}
    return [draw(changed(value)) for value in whole] if isinstance(whole, list) else whole


NESTED = (b"[" * 50_000, b'{"a":' * 20_000, b'{"Changes":' + b"[" * 990 + b"]" * 990 + b"}")
RAW = (
    *NESTED,
    b"",
    b"\xff\xfe",
    b"9" * 5_000,
    "\ud800".encode("utf-8", "surrogatepass"),
    b'{"Version": "1.\xed\xa0\x80", "ApiVersion": 5}',
    b"ccf71ca6735bc1c52fbe33e29eb42886",
    b"20200101T000000",
    b"99999999T999999",
    b"00010101T000000.999999999999",
)
bodies = (
    st.sampled_from(OBJECTS)
    .flatmap(changed)
    .map(lambda value: json.dumps(value, ensure_ascii=True).encode())
    | st.sampled_from(RAW)
    | st.binary(max_size=40)
)

LINES = (
    "Retry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Retry-After: Fri, 31 Dec 9999 23:59:59 -9999",
    "Retry-After: 99999999999999999999",
    "Retry-After: Mon, 01 Jan 2020 99:99:99 +99999999999999",
    "Retry-After: " + "9" * 5_000,
    "Retry-After: , , ,",
    "Retry-After: \u00b2",
    "Retry-After: Thu, 01 Jan 1 00:00:00 +2359",
    "Location: http://[::1",
    "Location: http://a:99999999/x",
    "Location: //" + "h" * 5_000 + "/",
    "Location: http://\x1b[2Jforged/",
    "Location: http://x\u00ad.\u00ff/",
    "Content-Type: text/html",
    "Content-Type: \u00ff",
    "Content-Encoding: gzip",
    "Content-Encoding: \u00ff",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Length: -1",
    "Content-Length: " + "9" * 5_000,
    "Content-Length: \u00b2",
    "Content-Length: 18446744073709551617",
    "Content-Length: 0",
    "Content-Range: bytes 0-1/2",
    "Connection: close",
    "X: " + "y" * 60_000,
    ": no name",
    "no colon",
)
LENGTH = "Content-Length: {}"

printable = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
lines = st.sampled_from(LINES) | st.builds(
    "{}: {}".format, st.sampled_from(["Retry-After", "Location", "Content-Length"]), printable
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """The bytes of one answer, of which most are HTTP."""
    body = draw(bodies)
    status = draw(
        st.sampled_from(["200 OK", "200 OK", "200 OK", "204", "206", "301 x", "400 x", "404 x"])
        | st.integers(100, 1_000).map(lambda code: f"{code} x")
        | st.sampled_from(["500 x", "503 x", "-1 x", "20x", ""])
    )
    head = draw(st.lists(lines, max_size=3))
    if draw(st.booleans()):
        head.append(LENGTH.format(len(body)))
    text = "\r\n".join([f"HTTP/1.1 {status}", *head, "", ""])
    return text.encode("latin-1", "replace") + body


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What each connection is answered, in turn; the last one again and again."""
    turn: list[bytes] = []
    ends: list[socket.socket] = []

    def opened_to(_url: object, _context: object, line: Any, _timeout_s: float) -> Connection:
        near, far = socket.socketpair()
        ends.append(far)
        line.opened = True
        for end in (near, far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * SENT_MAX)
        far.settimeout(5.0)
        far.sendall(turn[0] if len(turn) == 1 else turn.pop(0))
        far.shutdown(socket.SHUT_WR)
        return Connection(near, line)

    monkeypatch.setattr(Connection, "open", opened_to)
    yield turn
    for end in ends:
        end.close()


def client_of(side: SideName) -> OrthancClient:
    endpoint = Endpoint(side, "http://127.0.0.1:1", timeout_s=5.0)
    return OrthancClient(endpoint, Credentials(), retries=RetryPolicy(waits=False))


def told_by(value: object) -> Iterator[str | int]:
    """Every text and number in a value."""
    if is_dataclass(value):
        for field in fields(value):
            yield from told_by(getattr(value, field.name))
    elif isinstance(value, dict):
        for name, other in value.items():
            yield from told_by(name)
            yield from told_by(other)
    elif isinstance(value, str | int):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for other in value:
            yield from told_by(other)
    else:
        assert value is None or isinstance(value, bytes | datetime)


def check_told(name: str, value: object) -> None:
    for one in told_by(value):
        if isinstance(one, str):
            one.encode("utf-8")
            longest = METADATA_CHARACTERS_MAX if name == "instance_metadata" else 512
            assert len(one) <= longest
            assert name == "instance_metadata" or one == visible(one)
        else:
            assert 0 <= one <= COUNT_MAX * MEBIBYTE


def check_error(error: BridgeError) -> None:
    assert isinstance(error, SideError | InstanceError), error
    text = str(error)
    text.encode("utf-8")
    assert text == visible(text)
    assert len(text) <= MESSAGE_MAX


def test_every_call_of_every_client_is_tried() -> None:
    public = {name for name in dir(OrthancClient) if not name.startswith("_")}
    assert public - {"close"} == set(CALLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@given(first=answers(), second=answers(), side=st.sampled_from(SideName))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_answer(
    served: list[bytes], name: str, first: bytes, second: bytes, side: SideName
) -> None:
    served[:] = [first[:SENT_MAX], second[:SENT_MAX]]
    with client_of(side) as client:
        try:
            value = CALLS[name](client)
        except BridgeError as exc:
            check_error(exc)
        else:
            check_told(name, value)


@contextmanager
def case(*of_a_table: str) -> Iterator[None]:
    """Name the case in what it fails with: one test for a row of hundreds."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"case: {of_a_table}")
        raise


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_every_strange_header_at_every_call(served: list[bytes], name: str) -> None:
    body = json.dumps(OBJECTS[0])
    for line, status, length in itertools.product(
        LINES,
        ("200 OK", "302 Found", "503 Service Unavailable"),
        ("", LENGTH.format(len(body))),
    ):
        head = "\r\n".join(filter(None, [f"HTTP/1.1 {status}", line, length]))
        served[:] = [f"{head}\r\n\r\n{body}".encode("latin-1", "replace")]
        with case(line[:100], status, length), client_of(SideName.SOURCE) as client:
            try:
                check_told(name, CALLS[name](client))
            except BridgeError as exc:
                check_error(exc)


@pytest.mark.parametrize(
    "strange", ["", "..", "../system", f"{ID}/", f"{ID}\n", ID.upper(), "x\ud800"]
)
def test_only_an_identifier_becomes_part_of_an_address(strange: str) -> None:
    def none(*_: object) -> Connection:
        raise AssertionError("something was asked")

    with pytest.MonkeyPatch.context() as patch, client_of(SideName.SOURCE) as client:
        patch.setattr(Connection, "open", none)
        for call in (
            client.has_instance,
            client.instance_metadata,
            client.stored_md5,
            client.attachment_size,
            client.delete_instance,
            client.verify_stored,
            client.instances_of_study,
            client.study_state,
            lambda i: client.set_metadata(i, "4222", "x"),
            lambda i: client.delete_metadata(i, "4222"),
            lambda i: client.head(i, 1),
            lambda i: client.fetch_instance(i, lambda _: None, deadline_s=1.0),
        ):
            with pytest.raises(InstanceError, match="is not an identifier") as caught:
                call(strange)
            str(caught.value).encode("utf-8")
    assert INSTANCE_ID.fullmatch(ID)
