"""When what may be deleted at the source, and which risks the operator accepts.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from bridge.errors import ConfigurationError


class Risk(StrEnum):
    """What BRIDGE_RETENTION_RISK may name: deletions go on in spite of it."""

    TARGET_RECYCLES = "target-recycles"
    TARGET_UNTOLD = "target-limits-untold"
    TARGET_READ_ONLY = "target-read-only"
    TARGET_EMPTIED = "target-emptied"
    UNREGISTERED = "unregistered"
    SOURCE_UNTOLD = "source-limits-untold"
    """Of BRIDGE_MIRROR_DELETIONS alone."""


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """When what may be deleted. ``per_hour`` 0: no limit. ``day_share``: of the source, 0 to 1.

    ``trial_s``: so long one deletion a day is watched before the next one; 0 for not at all.
    """

    retention_s: float
    per_hour: int = 10_000
    day_share: float = 0.8
    trial_s: float = 0.0
    risks: frozenset[str] = frozenset()
    retention: str = ""

    def accepts(self, *risks: Risk) -> bool:
        """Tell whether the operator has named one of these risks."""
        return not self.risks.isdisjoint(risks)


NEVER_OLD_ENOUGH = RetentionRules(retention_s=math.inf)
"""Nothing is deleted."""


def risky(text: str, risk: Risk) -> ConfigurationError:
    """Build the error that says what could be lost, and which risk would accept it."""
    return ConfigurationError(
        f"{text}. Nothing is deleted.",
        advice=f"Change that, or accept the risk with BRIDGE_RETENTION_RISK={risk}, or set "
        "BRIDGE_SOURCE_RETENTION=keep.",
    )
