"""Who guesses a token is slowed, by address: for pokes, and for actions.

An address may bring a few wrong tokens at once, and then one a second.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

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
