"""Rows for ledgers in tests."""

from __future__ import annotations

from bridge.ledger.records import Parked
from bridge.model import Move, Reason


def parked(
    instance: str,
    *,
    reason: Reason = Reason.UNDECODABLE,
    attempts: int = 1,
    parked_at: float = 100.0,
    sequence: int | None = 7,
) -> Parked:
    return Parked(
        Move(instance, sequence, "20200101T120000"),
        reason,
        "cannot be decoded",
        attempts,
        first_failed_at=50.0,
        parked_at=parked_at,
        source_syntax="1.2.840.10008.1.2.4.90",
        sop_instance_uid="1.2.3",
        tried_at=parked_at,
    )
