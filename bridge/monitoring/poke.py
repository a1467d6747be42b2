"""``POST /poke``: somebody who knows the token says that something may have arrived.

A poke has no content and its answer has none: the feed is read as always, only sooner.

Who guesses the token is slowed, by address. An address may bring a few wrong tokens at once, and
then one a second. Above that each poke from there is answered as a right one is, so that a guess
tells nothing. A poke with the right token works all the same, at once: behind a proxy all senders
have one address, and a right one is not slowed by another's guesses.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

POKE_PATH = "/poke"
ACCEPTED, REFUSED, SLOWED = "accepted", "refused", "slowed"
RESULTS = (ACCEPTED, REFUSED, SLOWED)

GUESSES_AT_ONCE = 10
"""Wrong tokens that one address may bring without being slowed: a sender that was set up wrong."""
GUESS_EVERY_S = 1.0
"""Then one a second: a token of 16 random characters is safe at any such rate."""
ADDRESSES_MAX = 1_000
"""So many addresses are remembered; the one that was wrong longest ago is forgotten."""
NETWORK_BITS = 64
"""What one sender has of IPv6 at least: its addresses there count as one."""


class Guesses:
    """Wrong tokens by address. Bounded in memory; to be used by one thread."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._free_at_s: OrderedDict[str, float] = OrderedDict()
        """When an address will have nothing held against it any more."""

    def wait_s(self, address: str) -> float:
        """Return how long nobody there is told whether a token is right, seconds; 0 when told."""
        held_s = self._free_at_s.get(sender_of(address), 0.0) - self._now_s()
        return max(0.0, held_s - (GUESSES_AT_ONCE - 1) * GUESS_EVERY_S)

    def wrong(self, address: str) -> None:
        """Note a wrong token."""
        sender, now_s = sender_of(address), self._now_s()
        free_at_s = max(now_s, self._free_at_s.pop(sender, now_s)) + GUESS_EVERY_S
        self._free_at_s[sender] = free_at_s
        while len(self._free_at_s) > ADDRESSES_MAX:
            self._free_at_s.popitem(last=False)

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._free_at_s)


def sender_of(address: str) -> str:
    """Return what counts as one sender: an IPv4 address, a network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), NETWORK_BITS), strict=False))


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
