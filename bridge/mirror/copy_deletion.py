"""Deletes at the target what was deleted at the source, if the operator wishes it.

Deletions are in no feed: a verification finds what the source lacks. It is the last copy that goes
here, and on purpose. What must hold for each:

- The setting says so, and the source is no buffer that is emptied (config.py refuses both). What
  was deleted there as from a buffer, before that was changed, stays at the target for good.
- This bridge has delivered it, and the target holds the very file on record.
- The source was found to lack it, by a verification before this one, and that is longer ago than
  the grace, by a clock that nobody can set. The source had the feed that was followed both times.
- The source holds everything else: no more lack than may be deleted in a day. A source that has
  lost its disk, or that was restored from a backup, lacks more.
- Right before it: the source says that it lacks it, shows others, and has the feed that was
  followed; the two addresses lead to two servers; the ledger has no newer delivery.
- No bridge with retention delivers to the target: what that one has deleted at its own source is
  there alone (retention/other_bridges.py). Asked right before each deletion.
- The notes of all bridges are seen: one Orthanc serves each database, as far as that is told, or
  the operator vouches for it.
- The source does not recycle: it says so, or the operator vouches for it. What it lacked while it
  did, or may have, stays at the target for good: its own copies went without anybody's wish.
- No more than the limit of a day, repairs included, before a person has said so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bridge.errors import InstanceError
from bridge.events import Event, TargetDeletes, TargetKept
from bridge.ledger.records import DeliveryRecord
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import (
    count_repair,
    is_confirmed,
    note_source,
    repairs_since,
    source_doubt,
)
from bridge.mirror.repair import RepairLimit
from bridge.model import Reason, ServerInfo, SourceDoubt
from bridge.orthanc import StoredFile
from bridge.retention.limits_and_risks import Risk, may_share_database


class DeletingSource(Protocol):
    """What is needed of the source."""

    def system(self) -> ServerInfo:
        """Return the server's description. Raises SideError."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether it holds an instance; False is certain."""


class DeletedTarget(Protocol):
    """What is needed of the target."""

    def system(self) -> ServerInfo:
        """Return the server's description. Raises SideError."""

    def stored_file(self, instance_id: str) -> StoredFile:
        """Describe an instance's file. Raises InstanceError, SideError."""

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance; False when it was not there any more. Raises SideError."""


@dataclass(frozen=True, slots=True)
class Grace:
    """``after_s``: how long the source must have lacked an instance. None: nothing is deleted."""

    after_s: float | None = None

    def is_over(self, record: DeliveryRecord, *, age: float, noted_before: float) -> bool:
        """Tell whether a copy may go, as far as time tells.

        ``age``: now, by the age clock. ``noted_before``: when the verification that asks began: one
        before it must have noted that the source lacks the instance.
        """
        since = record.lacking_since
        if self.after_s is None or since is None or since >= noted_before or record.released:
            return False
        return age - since >= self.after_s


def doubt_of(
    source: ServerInfo, target: ServerInfo, accepted: frozenset[str]
) -> SourceDoubt | None:
    """Tell why deletions at a source are not followed. ``accepted``: risks."""
    if source.recycles:
        return SourceDoubt.RECYCLES
    if source.recycles is None and Risk.SOURCE_UNTOLD not in accepted:
        return SourceDoubt.UNTOLD
    if may_share_database(source, target) and Risk.SHARED_DATABASE not in accepted:
        return SourceDoubt.SHARED
    return None


class CopyDeletion:
    """Deletes copies, one at a time. For one thread.

    ``be_sure`` makes sure of both servers. ``awaits_notes`` tells, of the ledger and the age clock,
    whether other bridges may not have noted themselves at the target yet. Both raise SideError,
    FeedWentBackwards, ConfigurationError. ``accepted``: risks.
    """

    def __init__(
        self,
        source: DeletingSource,
        target: DeletedTarget,
        *,
        limit: RepairLimit,
        be_sure: Callable[[Ledger], None],
        awaits_notes: Callable[[Ledger, float], bool],
        accepted: frozenset[str] = frozenset(),
        recorded: Callable[[], bool] = lambda: True,
        report: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._target = target
        self._limit = limit
        self._be_sure = be_sure
        self._awaits_notes = awaits_notes
        self._accepted = accepted
        self._recorded = recorded
        self._report = report

    def look_at_source(self, ledger: Ledger, age: float) -> SourceDoubt | None:
        """Ask both servers what speaks against following it, and note it.

        Raises SideError, StateError.
        """
        source = self._source.system()
        doubt = doubt_of(source, self._target.system(), self._accepted)
        note_source(ledger, doubt, recycles=bool(source.recycles), age=age)
        return doubt

    def may_begin(self, ledger: Ledger, *, lacking: int, instances: int, age: float) -> bool:
        """Tell whether the source holds everything else: no more lack than a day's limit.

        And whether nothing spoke against following it, as the servers said last. ``lacking``: of
        what this bridge has delivered. ``instances``: that the source holds.
        """
        if source_doubt(ledger) is not None:
            return False
        return lacking <= self._limit.of(instances) or is_confirmed(ledger, age)

    def delete(  # noqa: PLR0911 (a table of objections)
        self, ledger: Ledger, record: DeliveryRecord, *, instances: int, age: float
    ) -> bool | None:
        """Delete a copy; False where something speaks against it, None above the limit of a day.

        Raises SideError, StateError, FeedWentBackwards, ConfigurationError.
        """
        instance_id = record.instance_id
        within = repairs_since(ledger, age) < self._limit.of(instances)
        if not (within or is_confirmed(ledger, age)):
            return None
        self._be_sure(ledger)
        if self.look_at_source(ledger, age) or self._awaits_notes(ledger, age):
            return False
        try:
            held = self._target.stored_file(instance_id)
        except InstanceError as exc:
            if exc.reason is Reason.PROOF_MISMATCH:
                ledger.forget_delivery(instance_id)  # neither server holds it
            return False
        if not record.target_md5 or held.md5 != record.target_md5:
            return False
        lacking_s = age - (age if record.lacking_since is None else record.lacking_since)
        self._report(TargetDeletes(instance_id, held.md5, lacking_s))
        if not self._recorded():
            self._report(TargetKept(instance_id, "the audit file cannot be written"))
            return None
        if self._source.has_instance(instance_id):
            self._report(TargetKept(instance_id, "the source holds it again"))
            return False
        if ledger.delivery_of(instance_id) != record or not ledger.may_go(instance_id):
            self._report(TargetKept(instance_id, "it was delivered again"))
            return False
        count_repair(ledger, age)
        self._target.delete_instance(instance_id)
        ledger.forget_delivery(instance_id)
        return True
