"""``POST /poke``: somebody who knows the token says that something may have arrived.

It tells nothing and is told nothing: the feed stays the truth, and is only looked at sooner.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

POKE_PATH = "/poke"
ACCEPTED, REFUSED = "accepted", "refused"
RESULTS = (ACCEPTED, REFUSED)


class Doorbell:
    """Answers pokes: counts each, and tells the follower of those that bring the token."""

    def __init__(self, token: str, count: Callable[[str], None]) -> None:
        self._expected = f"Bearer {token}".encode("latin-1")
        self._count = count
        self._wake: Callable[[], None] | None = None

    def wakes(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` from now on: in the monitoring server's thread, so it must be quick."""
        self._wake = wake

    async def answer(self, request: Request) -> Response:
        """Answer one poke."""
        given = request.headers.get("authorization", "").encode("latin-1")
        if not secrets.compare_digest(given, self._expected):
            self._count(REFUSED)
            return PlainTextResponse("not the token\n", 401, headers={"WWW-Authenticate": "Bearer"})
        self._count(ACCEPTED)
        if self._wake is not None:
            self._wake()
        return PlainTextResponse("ok\n", 202)
