"""Instances that somebody has told of, until they are looked at.

In memory, and bounded: a round through everything finds what is lost of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import islice


class ToldInstances:
    """Instances to be looked at, each once. ``most``: so many are remembered. For threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._instances: dict[str, None] = {}

    def add(self, instances: Iterable[str]) -> None:
        """Note some; those that are too many are left to the next round."""
        with self._lock:
            for instance_id in instances:
                if len(self._instances) < self._most:
                    self._instances[instance_id] = None

    def __len__(self) -> int:
        """Return how many are to be looked at."""
        return len(self._instances)

    def take(self, count: int) -> list[str]:
        """Return some of them, and forget these."""
        with self._lock:
            taken = list(islice(self._instances, count))
            for instance_id in taken:
                del self._instances[instance_id]
            return taken
