"""When what may be deleted at the source, and which risks the operator accepts.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from bridge.errors import ConfigurationError
from bridge.model import ServerInfo


class Risk(StrEnum):
    """What BRIDGE_RETENTION_RISK may name: deletions go on in spite of it."""

    TARGET_RECYCLES = "target-recycles"
    TARGET_UNTOLD = "target-limits-untold"
    TARGET_READ_ONLY = "target-read-only"
    TARGET_EMPTIED = "target-emptied"
    UNREGISTERED = "unregistered"
    SHARED_DATABASE = "shared-database"
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


def may_share_database(*servers: ServerInfo) -> bool:
    """Tell whether several Orthancs may serve the database of one of these servers.

    The notes of bridges are in the memory of one process: a bridge at another one of them is not
    seen. Orthanc holds its own index, which is in SQLite, for itself.
    """
    return any(info.database_backend is not None for info in servers)


def refuse_shared_database(rules: RetentionRules, source: ServerInfo, target: ServerInfo) -> None:
    """Make sure that the notes of all bridges can be seen. Raises ConfigurationError."""
    if not may_share_database(source, target) or rules.accepts(Risk.SHARED_DATABASE):
        return
    both = may_share_database(source) and may_share_database(target)
    one = "source" if may_share_database(source) else "target"
    which = "The source and the target have their indexes" if both else f"The {one} has its index"
    raise ConfigurationError(
        f"{which} in a database (a plugin for PostgreSQL, MySQL or ODBC). Several Orthancs may "
        "serve one database, and a bridge at one of them does not see the notes of a bridge at "
        "another: that bridge may still need the instances. Nothing is deleted.",
        advice="If one Orthanc serves each database, or no other bridge uses the other Orthancs, "
        f"set BRIDGE_RETENTION_RISK={Risk.SHARED_DATABASE}. Otherwise set "
        "BRIDGE_SOURCE_RETENTION=keep.",
    )
