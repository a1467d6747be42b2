"""Which names mean this machine, and which only look like it: a table, to the last character."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from bridge.monitoring.guard import Guard

OURS = (
    "localhost",
    "LocalHost",
    "localhost.",
    "a.localhost",
    "a.b.localhost",
    "a.localhost.",
    "127.0.0.1",
    "10.1.2.3",
    "255.255.255.255",
    "[::1]",
    "[fd00::1]",
    "[::ffff:10.0.0.1]",
)
OTHER_NAMES = (
    "evillocalhost",
    "evil-localhost",
    "localhost.evil",
    "localhostx",
    "xlocalhost.",
    "local.host",
    "localhos",
    "ocalhost",
    "127.0.0.1.evil",
    "127.0.0.1.nip.io",
    "127.0.0",
    "127.0.0.256",
    "0x7f000001",
    "2130706433",
    "1.2.3.4.5",
    "evil",
)
MALFORMED = (
    "",
    "a b",
    "localhost/",
    "localhost:",
    "localhost:x",
    "localhost:123456",
    "localhost:80:80",
    "[::1",
    "::1",
    "[evil]",
    "u@localhost",
    "localhost,evil",
    "localhost\\",
    "x" * 256,
    "[" + ":" * 46 + "]",
)


def status_of(*hosts: str, only_local: bool = True, method: str = "GET", path: str = "/") -> int:
    guarded = Guard(PlainTextResponse("ok"), only_local=only_local, posts={"/poke": 0})
    told: list[int] = []

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            told.append(int(str(message["status"])))

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"host", host.encode("latin-1")) for host in hosts],
    }
    asyncio.run(guarded(scope, None, send))  # type: ignore[arg-type]
    return told[0]


@pytest.mark.parametrize("host", OURS)
@pytest.mark.parametrize("port", ["", ":1", ":65535"])
def test_a_name_of_this_machine(host: str, port: str) -> None:
    assert status_of(host + port) == 200


@pytest.mark.parametrize("host", OTHER_NAMES)
@pytest.mark.parametrize("port", ["", ":80"])
def test_a_foreign_name_that_leads_to_us(host: str, port: str) -> None:
    assert status_of(host + port) == 421
    assert status_of(host + port, only_local=False) == 200


@pytest.mark.parametrize("host", MALFORMED)
@pytest.mark.parametrize("only_local", [True, False])
def test_a_name_that_is_none(host: str, only_local: bool) -> None:
    assert status_of(host, only_local=only_local) == 400


def test_each_of_several_names_is_looked_at() -> None:
    assert status_of("localhost", "evil") == 421
    assert status_of("evil", "localhost") == 421
    assert status_of("localhost", "a b") == 400
    assert status_of("localhost", "127.0.0.1") == 200
    assert status_of() == 200, "HTTP/1.0 has none; uvicorn refuses 1.1 without"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/poke", 200),
        ("HEAD", "/", 200),
        ("POST", "/poke", 200),
        ("POST", "/poke/", 405),
        ("POST", "/Poke", 405),
        ("POST", "/", 405),
        ("PUT", "/poke", 405),
        ("get", "/", 405),
    ],
)
def test_what_may_be_asked(method: str, path: str, status: int) -> None:
    assert status_of("localhost", method=method, path=path) == status


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("content-length", "0", 200),
        ("content-length", " 0 ", 200),
        ("content-length", "00", 413),
        ("content-length", "+0", 413),
        ("content-length", "-1", 413),
        ("content-length", "1", 413),
        ("content-length", "", 413),
        ("transfer-encoding", "identity", 413),
        ("transfer-encoding", "", 413),
    ],
)
def test_no_body_is_taken(name: str, value: str, status: int) -> None:
    guarded = Guard(PlainTextResponse("ok"), only_local=True)

    async def ask() -> int:
        transport = httpx.ASGITransport(guarded)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/", headers={name: value})).status_code

    assert asyncio.run(ask()) == status
