"""One POST to a receiver that is no Orthanc: bounded in time, and in what is read of its answer.

It stands here because it uses the connections of this room: their deadlines hold, also against a
receiver that sends a byte every few seconds. Redirects are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

import bridge
from bridge.errors import ConfigurationError
from bridge.model import Receiver
from bridge.orthanc.transport import Connection, Line, Response, tls_context_of
from bridge.untrusted_text import cleaned, visible

READ_BYTES_MAX = 4096
"""So much of an answer is read. What it says beside its status is only shown to a person."""


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """What a receiver answered. ``text``: the beginning of the body, safe to show."""

    status: int
    text: str

    @property
    def taken(self) -> bool:
        """Whether the receiver says that it has it."""
        return 200 <= self.status < 300


class PostFailed(Exception):
    """There was no answer, or none that is complete. The text names no address."""


_SEEN: Mapping[type[Exception], str] = {
    httpx.ConnectTimeout: "it did not accept a connection in time",
    httpx.ConnectError: "it refuses connections, or its certificate is not trusted",
    httpx.WriteTimeout: "it stopped reading",
    httpx.WriteError: "it broke the connection while the request was sent",
    httpx.ReadTimeout: "it did not answer in time",
    httpx.ReadError: "it broke the connection before its answer was complete",
    httpx.RemoteProtocolError: "its answer was cut short, or is no HTTP",
}


def post_json(receiver: Receiver, body: bytes, headers: Mapping[str, str]) -> PostAnswer:
    """Post a JSON text, on a connection of its own. Raises PostFailed."""
    try:
        context = tls_context_of(
            receiver.url,
            receiver.prefix,
            ca_file=receiver.ca_file,
            client_cert_file=receiver.client_cert_file,
            client_key_file=receiver.client_key_file,
        )
    except ConfigurationError as exc:
        raise PostFailed(exc.message) from exc
    line, timeout_s = Line(), receiver.deadline_s
    head = _head(receiver.url, len(body), headers)
    try:
        with (
            line.within(receiver.deadline_s),
            closing(Connection.open(httpx.URL(receiver.url), context, line, timeout_s)) as opened,
        ):
            unsent: httpx.WriteError | None = None
            try:
                opened.send(head, [body], chunked=False, timeout_s=timeout_s)
            except httpx.WriteError as exc:
                unsent = exc  # it may have answered before it had read everything
            answer = opened.receive("POST", timeout_s=timeout_s)
            text = _beginning(answer)
            if unsent is not None and answer.status < 300:
                raise unsent
    except tuple(_SEEN) as exc:
        raise PostFailed(_SEEN[type(exc)]) from exc
    return PostAnswer(answer.status, text)


def _beginning(answer: Response) -> str:
    """Read the body to its end, or so much of it. Raises httpx's exceptions when it is cut."""
    gathered = bytearray()
    for piece in answer.pieces(READ_BYTES_MAX):
        gathered += piece
        if len(gathered) >= READ_BYTES_MAX:
            break
    text = bytes(gathered[:READ_BYTES_MAX]).decode("utf-8", "replace")
    return visible(cleaned(" ".join(text.split())))


def _head(url: str, length: int, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    fields = {
        "Host": parts.netloc,
        "User-Agent": f"orthanc-bridge/{bridge.__version__}",
        "Content-Type": "application/json",
        "Content-Length": str(length),
        "Connection": "close",
        **headers,
    }
    target = httpx.URL(url).raw_path.decode("ascii")
    lines = [f"POST {target or '/'} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
    return "\r\n".join([*lines, "", ""]).encode("ascii")
