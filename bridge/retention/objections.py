"""What speaks against deleting one instance: both servers are asked about it.

The target reads its file, and both tell MD5 and name of theirs: right before each deletion, the
source last (the argument is at the head of sweep.py).
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from bridge.errors import InstanceError, InstanceGone
from bridge.ledger.records import Kept, MissedAt
from bridge.ledger.store import Ledger
from bridge.model import Reason
from bridge.retention.protocols import HoldingServer, KeepingServer


class Objection(StrEnum):
    """What speaks against deleting, as it is logged."""

    GONE = "the source no longer holds it"
    SOURCE_DIFFERS = "the source holds other bytes than were delivered"
    SOURCE_FILE = "the source's file is not the one that was delivered"
    SOURCE_UNREADABLE = "the source does not report the file's name and MD5"
    TARGET_DIFFERS = "the target holds other bytes than were sent"
    TARGET_FILE = "the target's file is not the one that was proved"
    TARGET_LACKS = "the target no longer holds it"
    DAMAGED = "the target's file is damaged or lost"
    UNVERIFIED = "the target holds it but does not allow to verify its file"
    ONE_FILE = "both servers report the same file: one storage directory, or a copy of it"
    UNLEARNED = "its files were not known until now; its retention time begins again"


ASKED_AGAIN = (
    Objection.TARGET_LACKS,
    Objection.DAMAGED,
    Objection.UNVERIFIED,
    Objection.SOURCE_UNREADABLE,
    Objection.ONE_FILE,
)
"""What may be otherwise in an hour."""
MISSED = {
    Objection.GONE: MissedAt.SOURCE,
    Objection.TARGET_LACKS: MissedAt.TARGET,
    Objection.DAMAGED: MissedAt.TARGET,
}
"""A server that lost its disk for a moment, or another one at its address, lacks all of them. What
the source lacks an hour later too is believed. What the target lacks is asked for again until it is
there, is delivered anew or is gone at the source: `/health` tells of it for so long."""


class InstanceLooks:
    """Looks at one instance at both servers. Raises SideError, for a server that cannot be used."""

    def __init__(self, source: KeepingServer, target: HoldingServer) -> None:
        self._source = source
        self._target = target

    def objection(self, kept: Kept) -> Objection | None:
        """Ask the target, then the source."""
        there = self.target_objection(kept)
        if there is None:
            return self.source_objection(kept)
        # Nobody misses at the target what is gone at both.
        missed = MISSED.get(there) is MissedAt.TARGET
        gone = missed and self.source_objection(kept) is Objection.GONE
        return Objection.GONE if gone else there

    def target_objection(self, kept: Kept) -> Objection | None:
        """Have the target read its file, and compare what it holds with what was proved."""
        try:
            whole = self._target.verify_stored(kept.instance_id)
            # Asked after it: what was verified may have been replaced while the file was read.
            file = self._target.stored_file(kept.instance_id)
        except InstanceError as exc:
            lacks = exc.reason is Reason.PROOF_MISMATCH
            return Objection.TARGET_LACKS if lacks else Objection.UNVERIFIED
        if file.md5 != kept.target_md5:
            return Objection.TARGET_DIFFERS
        if file.uuid == kept.source_file:
            return Objection.ONE_FILE
        if file.uuid != kept.target_file:
            return Objection.TARGET_FILE
        return None if whole else Objection.DAMAGED

    def source_objection(self, kept: Kept) -> Objection | None:
        """Compare what the source holds with what was moved."""
        try:
            file = self._source.stored_file(kept.instance_id)
        except InstanceGone:
            return Objection.GONE
        except InstanceError:
            return Objection.SOURCE_UNREADABLE
        if file.md5 != kept.source_md5:
            return Objection.SOURCE_DIFFERS
        if file.uuid == kept.target_file:
            return Objection.ONE_FILE
        return None if file.uuid == kept.source_file else Objection.SOURCE_FILE

    def learn_files(self, ledger: Ledger, kept: Kept, now: float) -> Objection | None:
        """Note the names of both files, where the delivery did not learn them."""
        try:
            here = self._source.stored_file(kept.instance_id)
            there = self._target.stored_file(kept.instance_id)
        except InstanceGone:
            return Objection.GONE
        except InstanceError as exc:
            lacks = exc.reason is Reason.PROOF_MISMATCH
            return Objection.TARGET_LACKS if lacks else Objection.SOURCE_UNREADABLE
        if here.md5 != kept.source_md5:
            return Objection.SOURCE_DIFFERS
        if there.md5 != kept.target_md5:
            return Objection.TARGET_DIFFERS
        if here.uuid == there.uuid:
            return Objection.ONE_FILE
        ledger.note_files(
            replace(kept, source_file=here.uuid, target_file=there.uuid, aged_from=now)
        )
        return Objection.UNLEARNED
