"""What is lost: whether it is the right target that lacks what retention has deleted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from bridge.ledger.records import DeliveryRecord
from bridge.worker.proof import ProvingServer, check_another_server

OTHERS_MAX = 3
LOST = (
    "Neither server holds it: the source's copy is gone, by BRIDGE_SOURCE_RETENTION or by a lost "
    "history, and the target has lost it since. Restore it from a backup. If it was deleted on "
    "purpose: orthanc-bridge check --forget-lost."
)
HOLDS_NOTHING = (
    "The target lists nothing that this bridge has delivered: make sure first that "
    "BRIDGE_TARGET_URL leads to the right server."
)


class AskedServer(ProvingServer, Protocol):
    """What is needed of both servers."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""


class KnowsDeliveries(Protocol):
    """What the ledger knows."""

    def delivery_of(self, instance_id: str) -> DeliveryRecord | None:
        """Return the record of an instance that this bridge has delivered, or None."""


class TargetHolds:
    """Looks whether the target is itself: holds what it has listed of the bridge's deliveries.

    ``listed``: what it has listed; not read before a look. For one thread.
    """

    def __init__(self, known: KnowsDeliveries, listed: Iterable[str]) -> None:
        self._known = known
        self._listed = listed
        self._others: list[str] | None = None

    def look(self, source: AskedServer, target: AskedServer) -> bool:
        """Ask the target; True also where it has listed nothing of them. Raises SideError."""
        others = self._ours()
        for instance_id in others:
            if target.has_instance(instance_id):
                check_another_server(source, target, instance_id)
                return True
        return not others

    def advice(self) -> str:
        """Say what is to be done about something that neither server holds."""
        return LOST if self._ours() else f"{HOLDS_NOTHING} {LOST}"

    def _ours(self) -> list[str]:
        if self._others is None:
            ours = (i for i in self._listed if self._known.delivery_of(i) is not None)
            self._others = list(islice(ours, OTHERS_MAX))
        return self._others
