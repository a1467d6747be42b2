"""What holds for a whole batch: there are two servers, the followed one among them, and they keep.

Proved by a mark on an instance that is about to be deleted; believed for PROOF_S at most, within a
batch, and not after any trouble (the argument is at the head of sweep.py).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

from bridge.errors import ConfigurationError, InstanceError, InstanceGone, SideError
from bridge.ledger.records import Kept
from bridge.ledger.store import Ledger
from bridge.marks import MARKS_LEFT_MAX, MarkedBy, Marks, MarksOnRecord, mark_shows, remove_left
from bridge.model import Reason, ServerInfo
from bridge.orthanc import Need, lacks_right
from bridge.retention.held_deletion import HELD_BYTES_MAX
from bridge.retention.limits_and_risks import (
    RetentionRules,
    Risk,
    refuse_shared_database,
    risky,
)
from bridge.retention.objections import Objection
from bridge.retention.protocols import HoldingServer, KeepingServer
from bridge.two_servers import Use, refuse, tell_apart

PROOF_S = 60.0
"""So long it is believed that the servers are two, without trouble and within a batch."""


@dataclass(slots=True)
class BatchProof:
    """What was proved for a batch. ``untold``: the target does not tell whether it recycles.

    ``file``: of the instance that is deleted next, where it was fetched.
    """

    at_s: float
    trouble: int
    untold: bool
    file: bytes | None = None
    protected: set[str] = field(default_factory=set)


class Prover:
    """Makes the proof of a batch, and says how long it is believed. Arguments as of Sweeper."""

    def __init__(
        self,
        source: KeepingServer,
        target: HoldingServer,
        rules: RetentionRules,
        *,
        look_at_feed: Callable[[Ledger], None],
        trouble: Callable[[], int],
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._target = target
        self._rules = rules
        self._look_at_feed = look_at_feed
        self._trouble = trouble
        self._steady_s = steady_s
        self._proof: BatchProof | None = None

    def void(self) -> None:
        """Believe nothing of what was proved."""
        self._proof = None

    def standing(self) -> BatchProof | None:
        """Return the proof that still stands."""
        proof = self._proof
        if proof is None or proof.trouble != self._trouble():
            return None
        return proof if self._steady_s() - proof.at_s < PROOF_S else None

    def used(self) -> BatchProof:
        """Return the proof by which an instance is deleted now."""
        if self._proof is None:
            raise AssertionError("nothing is deleted without a proof")
        return self._proof

    def keep(self, kept: Kept) -> None:
        """Have the target never recycle the patient, where it does not tell whether it might.

        Raises SideError, ConfigurationError.
        """
        proof = self._proof
        if proof is not None and proof.untold:
            self._protect(kept, proof)

    def prove(self, ledger: Ledger, kept: Kept) -> Objection | None:
        """Prove what holds for a batch. Raises SideError, FeedWentBackwards, ConfigurationError."""
        self._proof = None
        # An open connection goes on leading where its address led when it was made.
        self._source.close()
        self._target.close()
        proof = BatchProof(self._steady_s(), self._trouble(), untold=False)
        self._look_at_feed(ledger)
        there = self._target.system()
        proof.untold = refuse_target(self._rules, there)
        refuse_shared_database(self._rules, self._source.system(), there)
        marks = marks_of(ledger)
        self._refuse_marks(kept, marks)
        # Where that cannot be told, the mark below does.
        refuse(tell_apart(self._source, self._target, marks=marks), Use.NOTHING, vouched=True)
        shows = mark_shows(self._source, self._target, kept.instance_id, must=True, marks=marks)
        if shows is None:
            raise InstanceError(
                Reason.SERVER_REFUSES_INSTANCE,
                f"The bridge set a mark (metadata) on instance {kept.instance_id} at the source, "
                "and the source did not keep it; or no number is free for one.",
                final=False,
            )
        if shows:
            raise ConfigurationError(
                "BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL lead to one server: a mark that was set "
                "at one is at the other. Nothing more is deleted.",
                advice="Correct the addresses, or set BRIDGE_SOURCE_RETENTION=keep.",
            )
        self._proof = proof
        return None

    def hold(self, kept: Kept) -> Objection | None:
        """Fetch the file that is about to go. Raises SideError."""
        proof = self.used()
        proof.file = None
        try:
            file = self._source.file_of(kept.instance_id, bytes_max=HELD_BYTES_MAX)
        except InstanceGone:
            return Objection.GONE
        except InstanceError:
            return None  # too large to be held
        if hashlib.md5(file, usedforsecurity=False).hexdigest() != kept.source_md5:
            return Objection.SOURCE_DIFFERS
        proof.file = file
        return None

    def remove_marks(self, ledger: Ledger) -> None:
        """Remove the marks on record: of a process that was killed, or that stayed. SideError."""
        remove_left((self._source, self._target), marks_of(ledger))

    def _refuse_marks(self, kept: Kept, marks: Marks) -> None:
        """Set no mark where the last one stays, and none at all where many do."""
        left = marks.left()
        if len(left) >= MARKS_LEFT_MAX:
            raise ConfigurationError(
                "The servers keep marks that the bridge set to tell them apart and cannot remove: "
                f"{left[0]} and {len(left) - 1} others. Nothing is deleted at the source before "
                "some are removed.",
                advice="Allow the bridge's login DELETE on /instances/.../metadata/... at the "
                "source; the source's log may say why it fails. Or remove the marks "
                "yourself: the bridge notices.",
            )
        if any(mark.instance_id == kept.instance_id for mark in left):
            raise InstanceError(
                Reason.SERVER_REFUSES_INSTANCE,
                f"The bridge cannot remove its mark on instance {kept.instance_id} at the source.",
                final=False,
            )

    def _protect(self, kept: Kept, proof: BatchProof) -> None:
        """Have the target never recycle the patient: it does not tell whether it might."""
        try:
            patient_id = self._target.patient_of(kept.instance_id)
            if patient_id not in proof.protected:
                self._target.protect_patient(patient_id)
                proof.protected.add(patient_id)
        except SideError as exc:
            if not lacks_right(exc, Need.WRITE):
                raise
            raise risky(
                "The target does not say whether it recycles (Orthanc 1.12 and newer do), and "
                f"does not allow the bridge to protect patients from recycling: {exc.message}",
                Risk.TARGET_UNTOLD,
            ) from exc


def marks_of(ledger: Ledger) -> MarksOnRecord:
    """Return where the marks of retention are on record."""
    return MarksOnRecord(lambda: nullcontext(ledger), MarkedBy.RETENTION)


def refuse_target(rules: RetentionRules, info: ServerInfo) -> bool:
    """Make sure that the target keeps what it has; True when it does not tell its limits.

    Raises ConfigurationError.
    """
    if info.read_only and not rules.accepts(Risk.TARGET_READ_ONLY):
        raise risky(
            "The target is read-only: it may be a copy that somebody else writes",
            Risk.TARGET_READ_ONLY,
        )
    if info.recycles:
        if not rules.accepts(Risk.TARGET_RECYCLES):
            raise risky(
                "The target recycles (MaximumStorageSize or MaximumPatientCount): it may delete "
                "what was deleted at the source, and the last copy would be lost",
                Risk.TARGET_RECYCLES,
            )
        return False
    accepted = rules.accepts(Risk.TARGET_UNTOLD, Risk.TARGET_RECYCLES)
    return info.recycles is None and not accepted
