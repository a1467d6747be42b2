"""How often a server failed at an instance that was parked for it: its next change waits longer.

Who sends an instance again and again would otherwise have it uploaded as often, and three times
each. A pause belongs to the instance, not to the change.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from bridge.pipeline.failure_policy import delay_s

REFUSALS_KEPT = 10_000
"""Instances that a server failed at last: about 2 MB."""


@dataclass(frozen=True, slots=True)
class _Refused:
    first_s: float
    count: int
    due_s: float
    parked: bool


class Refusals:
    """Remembers the instances that a server failed at last, until they are served."""

    def __init__(self, kept_max: int = REFUSALS_KEPT) -> None:
        self._max = kept_max
        self._known: OrderedDict[str, _Refused] = OrderedDict()

    def note(self, instance_id: str, now_s: float, *, chance: float) -> None:
        """Note that a server failed at it once more; the oldest are forgotten."""
        known = self._known.pop(instance_id, None) or _Refused(now_s, 0, now_s, parked=False)
        count, since_s = known.count + 1, now_s - known.first_s
        due_s = now_s + delay_s(count, chance=chance, since_s=since_s)
        self._known[instance_id] = _Refused(known.first_s, count, due_s, known.parked)
        if len(self._known) > self._max:
            self._known.popitem(last=False)

    def park(self, instance_id: str) -> None:
        """Note that it is parked for it: from now on its pauses are those of its next changes."""
        known = self._known.get(instance_id)
        if known is not None:
            self._known[instance_id] = replace(known, parked=True)

    def forget(self, instance_id: str) -> None:
        """Note that it was served."""
        self._known.pop(instance_id, None)

    def wait_s(self, instance_id: str, now_s: float) -> float:
        """Tell how long it waits before its next change is tried; 0 for not at all."""
        known = self._known.get(instance_id)
        return max(0.0, known.due_s - now_s) if known is not None and known.parked else 0.0
