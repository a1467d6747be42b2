"""``POST /poke``: somebody who knows the token says that something may have arrived.

A poke has no content and its answer has none: the feed is read as always, only sooner. It may name
instances that were deleted at the source (``?deleted=ID,ID``): a hint, which is looked into.

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
from bridge.orthanc import INSTANCE_ID

POKE_PATH = "/poke"
ACCEPTED, REFUSED, SLOWED = "accepted", "refused", "slowed"
RESULTS = (ACCEPTED, REFUSED, SLOWED)

DELETED_MAX = 50
"""So many identifiers of one poke are heard: the address of a request is bounded anyway."""


class PokeReceiver:
    """Answers pokes: counts each, and tells the follower of those that bring the token."""

    def __init__(
        self, token: str, count: Callable[[str], None], guesses: Guesses | None = None
    ) -> None:
        self._expected = f"Bearer {token}".encode("latin-1")
        self._count = count
        self._guesses = guesses or Guesses()
        self._wake: Callable[[], None] | None = None
        self._deleted: Callable[[list[str]], None] = lambda _: None

    def wakes(
        self, wake: Callable[[], None], deleted: Callable[[list[str]], None] = lambda _: None
    ) -> None:
        """Call ``wake`` from now on: in the monitoring server's thread, so it must be quick.

        ``deleted``: and this with the instances that a poke says were deleted at the source.
        """
        self._wake, self._deleted = wake, deleted

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
            named = request.query_params.get("deleted", "").split(",", DELETED_MAX)[:DELETED_MAX]
            deleted = [name for name in named if INSTANCE_ID.fullmatch(name)]
            if deleted:
                self._deleted(deleted)
            self._wake()
        return PlainTextResponse("ok\n", 202)
