"""Which instances this bridge has delivered lately, to notice those that come back.

A second bridge, from the target to the source, brings back what was delivered, in the form that it
has at the target. When both servers overwrite instances, it would be moved to and fro for ever.

The rows that the ledger remembers are recalled at a start. Otherwise each restart would begin the
count of deliveries anew.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

REMEMBERED_MAX = 50_000
"""Instances delivered last: about 10 MB."""
SOON_S = 600.0
"""An instance that is in the source again so soon after its delivery has come back from the target.
One that is there later was sent by somebody."""
ROUND_S = 3600.0
ROUNDS_MAX = 10
"""So many deliveries of one instance within ``ROUND_S`` mean that it is moved to and fro."""


@dataclass(slots=True)
class _Delivery:
    first_s: float
    last_s: float
    count: int
    file: str


class Deliveries:
    """Remembers the instances delivered last."""

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        self._max = remembered_max
        self._known: OrderedDict[str, _Delivery] = OrderedDict()

    def note(self, instance_id: str, now_s: float, *, file: str) -> None:
        """Note a delivery; the oldest are forgotten. ``file``: its name at the source, if told."""
        known = self._known.pop(instance_id, None)
        if known is None or now_s - known.first_s > ROUND_S:
            known = _Delivery(now_s, now_s, 0, file)
        self._known[instance_id] = _Delivery(known.first_s, now_s, known.count + 1, file)
        if len(self._known) > self._max:
            self._known.popitem(last=False)

    def recall(self, instance_ids: Iterable[str]) -> None:
        """Note what was delivered before this process began; when is not known."""
        for instance_id in instance_ids:
            self._known.setdefault(instance_id, _Delivery(-math.inf, -math.inf, 0, ""))
            if len(self._known) > self._max:
                self._known.popitem(last=False)

    def known(self, instance_id: str) -> bool:
        """Whether it was delivered before."""
        return instance_id in self._known

    def soon(self, instance_id: str, now_s: float, *, file: str) -> bool:
        """Whether it was delivered a short while ago, and has come to the source again since.

        The file that was delivered may be the newer one already: a sender stored it again after
        its row was read and before it was fetched.
        """
        known = self._known.get(instance_id)
        if known is None or now_s - known.last_s > SOON_S:
            return False
        return not file or file != known.file

    def rounds(self, instance_id: str, now_s: float) -> int:
        """How often it was delivered within ROUND_S, when so often that it goes round; else 0."""
        known = self._known.get(instance_id)
        if known is None or now_s - known.first_s > ROUND_S:
            return 0
        return known.count if known.count >= ROUNDS_MAX else 0
