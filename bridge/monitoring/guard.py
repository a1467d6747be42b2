"""What keeps clients of the monitoring server from harming the bridge.

Two layers: connections (number, patience, size of a request's head) and requests (methods,
bodies, host names). Everything refused is answered with a constant text: nothing is echoed.

uvicorn's own limits do not end a silent or slow connection (docs/decisions/0006-own-or-library.md),
so the first layer derives from its class ``H11Protocol``, which uvicorn's documentation does not
describe. No other file uses that class; ``tests/unit/monitoring/test_security_monitoring.py`` holds
the installed version to what is used of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

CONNECTIONS_MAX = 64
HEAD_S = 5.0
"""A connection's first request must have come by then."""
CONNECTION_S = 30.0
"""No connection lives longer; one that is being answered then gets ANSWER_S more."""
ANSWER_S = 15.0
HEAD_BYTES_MAX = 16 * 1024

LENGTH_DIGITS_MAX = 10
METHODS = frozenset({"GET", "HEAD"})
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""On every answer that does not set them itself."""

_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class BoundedConnection(H11Protocol):
    """A connection whose life is bounded.

    When there are too many, the one that has waited longest without a request goes: whoever asks
    at once is answered, however many others only hold a connection.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clocks, and make room."""
        super().connection_made(transport)
        self._began_s = self.loop.time()
        self._head = self.loop.call_later(HEAD_S, self._end_if_silent)
        self._life = self.loop.call_later(CONNECTION_S, self._end_of_life)
        if len(self.connections) > CONNECTIONS_MAX:
            idle = [other for other in self._others() if not other.is_busy]
            (min(idle, key=lambda other: other.began_s) if idle else self).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._head.cancel()
        self._life.cancel()
        super().connection_lost(exc)

    @property
    def began_s(self) -> float:
        """When the connection was made, by the loop's clock."""
        return self._began_s

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        request = self._request
        return request is not None and not request.response_complete

    @property
    def _request(self) -> RequestResponseCycle | None:
        # None until the first one, whatever its declaration says.
        return cast("RequestResponseCycle | None", self.cycle)

    def drop(self) -> None:
        """Break the connection, sent or not: closing would wait for a client that never reads."""
        self.connections.discard(self)  # its end is only noted later: it counts no more
        self.transport.abort()

    def _others(self) -> Iterable[BoundedConnection]:
        return (c for c in self.connections if isinstance(c, BoundedConnection))

    def _end_if_silent(self) -> None:
        if self._request is None:
            self.drop()

    def _end_of_life(self) -> None:
        if self.is_busy:
            self._life = self.loop.call_later(ANSWER_S, self.drop)
        else:
            self.drop()


class Guard:
    """Refuses what the server has no use for, before the application sees it.

    ``only_local``: the server listens on a loopback address. Then only names that mean this
    machine are accepted as Host: a web page in a browser on this machine could otherwise read
    the answers by giving its own name our address (DNS rebinding). A server that listens
    elsewhere is asked by names that we cannot know (a container's, a Prometheus target's).
    ``posts``: the paths that take a POST, and how many bytes its body may have.
    """

    def __init__(
        self, app: ASGIApp, *, only_local: bool, posts: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._app = app
        self._posts = posts
        self._only_local = only_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_missing(message["headers"])]
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        method = scope["method"]
        bytes_max = self._posts.get(scope["path"]) if method == "POST" else 0
        if bytes_max is None or (method != "POST" and method not in METHODS):
            return _refuse(405, "GET and HEAD only", Allow="GET, HEAD")
        if any(
            name == b"transfer-encoding"
            or (name == b"content-length" and _is_above(bytes_max, value))
            for name, value in headers
        ):
            most = f"a body of {bytes_max} bytes at most, with Content-Length"
            return _refuse(413, most if bytes_max else "no request bodies")
        if _head_bytes(scope) > HEAD_BYTES_MAX:
            # The parser refuses it when it comes in parts; what comes at once, it takes.
            return _refuse(400, f"a head of {HEAD_BYTES_MAX} bytes at most")
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        parsed = [_HOST.fullmatch(host) for host in hosts]
        if not all(parsed):
            return _refuse(400, "malformed Host")
        names = [found["name"] for found in parsed if found]
        if self._only_local and not all(_is_local(name) for name in names):
            return _refuse(
                421,
                "the Host header names another host than this machine; see: "
                "orthanc-bridge docs security",
            )
        return None


def _head_bytes(scope: Scope) -> int:
    lines = sum(len(name) + len(value) for name, value in scope["headers"])
    return len(scope["path"]) + len(scope.get("query_string", b"")) + lines


def _is_above(bytes_max: int, length: bytes) -> bool:
    """Tell whether a Content-Length is larger, or none that we read."""
    digits = length.strip()
    if not digits.isdigit() or len(digits) > LENGTH_DIGITS_MAX:
        return True
    return int(digits) > bytes_max or digits != b"%d" % int(digits)  # 00 is a trick, not a length


def _is_local(name: str) -> bool:
    """Tell names that nobody else can give our address to: any address, and localhost."""
    lower = name.lower().rstrip(".")
    if lower == "localhost" or lower.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(lower.strip("[]"))
    except ValueError:
        return False
    return True


def _refuse(status: int, text: str, **headers: str) -> PlainTextResponse:
    return PlainTextResponse(text + "\n", status, headers={"Connection": "close", **headers})


def _missing(present: Iterable[tuple[bytes, bytes]]) -> list[tuple[Any, Any]]:
    names = {name.lower() for name, _ in present}
    return [
        (name.lower().encode(), value.encode())
        for name, value in HEADERS.items()
        if name.lower().encode() not in names
    ]


# Who can reach an address.


def is_loopback(host: str) -> bool:
    """Whether an IP address, with or without brackets, is a loopback address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
