"""Instances of which the target kept another file than the bridge sent: which ones, for how long.

This file must not know: sockets, files, clocks, logging, settings.

With BRIDGE_PROOF=answer such an instance counts as delivered: the target answered AlreadyStored.
"""

from __future__ import annotations

from dataclasses import dataclass

KNOWN_MAX = 10_000
"""So many are known one by one; the oldest are forgotten first."""
TOLD_S = 86_400.0
"""So long after the last one they are told."""


@dataclass(frozen=True, slots=True)
class KeptView:
    """How many there are, and the last one. ``full``: there may be more than are known."""

    count: int = 0
    instance_id: str = ""
    full: bool = False


class KeptFiles:
    """Those that this process has met, in the order in which they were met last."""

    def __init__(self) -> None:
        self._met: dict[str, None] = {}
        self._full = False
        self._last_s = float("-inf")

    def note(self, instance_id: str, now_s: float) -> None:
        """The target kept another file of this instance. ``now_s``: by a clock that nobody sets."""
        if now_s - self._last_s >= TOLD_S:
            self._met.clear()
            self._full = False
        self._last_s = now_s
        self._met.pop(instance_id, None)
        self._met[instance_id] = None
        if len(self._met) > KNOWN_MAX:
            self._full = True
            del self._met[next(iter(self._met))]

    def forget(self, instance_id: str) -> None:
        """The target holds the right file of it, or the source none."""
        self._met.pop(instance_id, None)
        if not self._met:
            self._full = False

    def view(self, now_s: float) -> KeptView:
        """Return what is to be told."""
        if not self._met or now_s - self._last_s >= TOLD_S:
            return KeptView()
        return KeptView(len(self._met), next(reversed(self._met)), self._full)
