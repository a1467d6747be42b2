"""Which instances a replay may leave out: those that the target is proved to hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from bridge.errors import InstanceError
from bridge.feed.listing import Held
from bridge.ledger.store import Ledger


class ProvedHeld:
    """Of the instances that the target holds, those whose arrival is proved as a delivery's is.

    ``stored_md5`` None: the target names the instance, which is all that BRIDGE_PROOF=answer asks
    of a delivery. Otherwise (BRIDGE_PROOF=stored) it returns the MD5 of the target's file, which
    must be the one on record from the delivery. What is parked, or was dropped, is never left out:
    to deliver it again is what ends that.

    ``state_path``: the ledger. It is opened for each question, which comes from any thread.
    """

    def __init__(
        self, held: Held, *, state_path: Path, stored_md5: Callable[[str], str] | None
    ) -> None:
        self._held = held
        self._state_path = state_path
        self._stored_md5 = stored_md5
        self._proved: dict[str, bool] = {}
        """What was looked at, of a question that is not answered yet."""

    def among(self, instance_ids: Sequence[str]) -> Collection[str]:
        """Return those. Raises TargetError, after which the same question is gone on with.

        Raises StateError.
        """
        held = self._held.among(instance_ids)
        with Ledger(self._state_path, create=False) as ledger:
            for instance_id in instance_ids:
                if instance_id in held and instance_id not in self._proved:
                    self._proved[instance_id] = self._is_proved(ledger, instance_id)
        proved, self._proved = self._proved, {}
        return {instance_id for instance_id, well in proved.items() if well}

    def _is_proved(self, ledger: Ledger, instance_id: str) -> bool:
        if ledger.is_put_aside(instance_id):
            return False
        if self._stored_md5 is None:
            return True
        record = ledger.delivery_of(instance_id)
        if record is None or record.outdated or not record.target_md5:
            return False
        try:
            return self._stored_md5(instance_id) == record.target_md5
        except InstanceError:
            return False  # it is gone, or has no MD5: whoever delivers it finds out
