"""``POST /poke``: somebody who knows the token says that something may have arrived.

A poke has no content and its answer has none: the feed is read as always, only sooner.

Who guesses the token is slowed, by address. An address may bring a few wrong tokens at once, and
then one a second. Above that each poke from there is answered as a right one is, so that a guess
tells nothing. A poke with the right token works all the same, at once: behind a proxy all senders
have one address, and a right one is not slowed by another's guesses.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from bridge.monitoring.guesses import Guesses

POKE_PATH = "/poke"
ACCEPTED, REFUSED, SLOWED = "accepted", "refused", "slowed"
RESULTS = (ACCEPTED, REFUSED, SLOWED)


class PokeReceiver:
    """Answers pokes: counts each, and tells the follower of those that bring the token."""

    def __init__(
        self, token: str, count: Callable[[str], None], guesses: Guesses | None = None
    ) -> None:
        self._expected = f"Bearer {token}".encode("latin-1")
        self._count = count
        self._guesses = guesses or Guesses()
        self._wake: Callable[[], None] | None = None

    def wakes(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` from now on: in the monitoring server's thread, so it must be quick."""
        self._wake = wake

    async def answer(self, request: Request) -> Response:
        """Answer one poke."""
        address = request.client.host if request.client else ""
        given = request.headers.get("authorization", "").encode("latin-1")
        right = secrets.compare_digest(given, self._expected)
        slowed = self._guesses.wait_s(address) > 0
        if not right and not slowed:
            self._guesses.wrong(address)
            self._count(REFUSED)
            return PlainTextResponse("not the token\n", 401, headers={"WWW-Authenticate": "Bearer"})
        # The metric is open to all: it must not tell a right guess from a wrong one either.
        self._count(SLOWED if slowed else ACCEPTED)
        if right and self._wake is not None:
            self._wake()
        return PlainTextResponse("ok\n", 202)
