"""The source as a transient buffer: lets go of what was delivered, proved and is old enough.

Nothing is deleted on memory alone. Right before each deletion the target must read its file again
and find it to be what was sent, the source must still hold what was fetched, and the ledger must
still say so. Before the first deletion of a run, and after each time that a server could not be
asked, the two servers are proved to be two.

Orthanc has no conditional deletion: an instance that is overwritten at the source between our
last look and the deletion, a few milliseconds, is lost; so is one that is deleted or overwritten at
the target in that time. `doctor` warns of such a source.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bridge.core.errors import ConfigurationError, InstanceError, InstanceGone, SideError
from bridge.core.model import Reason
from bridge.entry import Entry, Kept
from bridge.ledger import Ledger
from bridge.log_lines import log

BATCH = 100
"""Instances looked at between two reports."""
POSTPONED_S = 3600.0
"""An instance that could not be judged is looked at again after this time."""
FAILURES_MAX = 5
"""Errors in one batch, each about one instance: then it is a server's trouble."""
NAMED_MAX = 10
"""Instances of one batch that are spared by name in the log; all are counted."""
MARK = "4222"
"""The user-defined metadata by which one server is recognized behind two addresses."""


class KeepingServer(Protocol):
    """What is needed of the source."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 noted for a file. Raises InstanceGone, InstanceError, SideError."""

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance; False when it was not there any more. Raises SideError."""

    def set_metadata(self, instance_id: str, name: str, value: str) -> None:
        """Set a metadata. Raises InstanceGone, InstanceError, SideError."""

    def delete_metadata(self, instance_id: str, name: str) -> None:
        """Delete a metadata. Raises InstanceGone, InstanceError, SideError."""


class HoldingServer(Protocol):
    """What is needed of the target."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 noted for a file. Raises InstanceError, SideError."""

    def verify_stored(self, instance_id: str) -> bool:
        """Read the file again and compare. Raises InstanceError, SideError."""

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Return the metadata of an instance. Raises InstanceError, SideError."""


class Objection(StrEnum):
    """What speaks against deleting, as it is logged."""

    GONE = "the source does not hold it any more"
    SOURCE_DIFFERS = "the source holds other bytes than were moved"
    SOURCE_UNREADABLE = "the source gives no MD5 of its file"
    TARGET_DIFFERS = "the target holds other bytes than were sent"
    TARGET_LACKS = "the target does not hold it any more"
    DAMAGED = "the target's file is damaged or lost"
    UNVERIFIED = "the target holds it and does not let us verify its file"


@dataclass(slots=True)
class Sweep:
    """What one batch did. ``more``: another batch is due at once.

    ``spared``: the source or the target does not hold what was moved, or could not be asked.
    """

    deleted: int = 0
    spared: int = 0
    more: bool = False


class Sweeper:
    """Deletes batches. For one thread; remembers that the servers were proved to be two."""

    def __init__(
        self,
        source: KeepingServer,
        target: HoldingServer,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source = source
        self._target = target
        self._stopping = stopping
        self._are_two = False

    def sweep(self, ledger: Ledger, *, delivered_before: float, done: Sweep) -> None:
        """Delete one batch of what was delivered before that time, epoch seconds.

        Counts into ``done`` as it goes, which is right whatever is raised. Each step is written
        at once: a crash costs nothing but a second look. Raises SideError, StateError,
        InstanceError, and ConfigurationError when both addresses lead to one server.
        """
        failures = 0
        for _ in range(BATCH):
            kept = None if self._stopping() else _first(ledger, delivered_before)
            if kept is None:
                return
            later = delivered_before + POSTPONED_S
            try:
                objection = self._objection(kept)
                if objection is None and not self._are_two:
                    self._prove_two(kept)
                    objection = self._objection(kept)
                # The looks may have taken long: does the ledger still say so?
                if _first(ledger, delivered_before) == kept:
                    self._conclude(ledger, kept, objection, later, done)
            except (SideError, InstanceError) as exc:
                self._are_two = self._are_two and isinstance(exc, InstanceError)
                # Looked at again later, so that one sick instance does not hold up the others.
                ledger.postpone(kept, later)
                done.spared += 1
                failures += 1
                specific = isinstance(exc, InstanceError) or exc.specific
                if not specific or failures == FAILURES_MAX:
                    raise
        done.more = True

    def _conclude(
        self, ledger: Ledger, kept: Kept, objection: Objection | None, later: float, done: Sweep
    ) -> None:
        if objection is None:
            done.deleted += self._source.delete_instance(kept.instance_id)
        elif objection is not Objection.GONE:
            if done.spared < NAMED_MAX:
                text = f"spared {kept.instance_id} at the source: {objection}"
                log(logging.WARNING, "source_spared", text, instance=kept.instance_id)
            done.spared += 1
        # One that lost its disk for a moment, or another one at its address, lacks all of them.
        # What is lacking an hour later too is believed.
        missed = objection in (Objection.GONE, Objection.TARGET_LACKS)
        if objection in (Objection.DAMAGED, Objection.UNVERIFIED) or (missed and not kept.missed):
            ledger.postpone(kept, later, missed=missed)
        else:
            ledger.commit(Entry(not_kept=(kept,)))

    def _objection(self, kept: Kept) -> Objection | None:
        """Ask the target, then the source; what is asked last is what may change most easily."""
        return self._target_objection(kept) or self._source_objection(kept)

    def _target_objection(self, kept: Kept) -> Objection | None:
        try:
            whole = self._target.verify_stored(kept.instance_id)
            # Asked after it: what was verified may have been replaced while the file was read.
            if self._target.stored_md5(kept.instance_id) != kept.target_md5:
                return Objection.TARGET_DIFFERS
            return None if whole else Objection.DAMAGED
        except InstanceError as exc:
            lacks = exc.reason is Reason.PROOF_MISMATCH
            return Objection.TARGET_LACKS if lacks else Objection.UNVERIFIED

    def _source_objection(self, kept: Kept) -> Objection | None:
        try:
            same = self._source.stored_md5(kept.instance_id) == kept.source_md5
        except InstanceGone:
            return Objection.GONE
        except InstanceError:
            return Objection.SOURCE_UNREADABLE
        return None if same else Objection.SOURCE_DIFFERS

    def _prove_two(self, kept: Kept) -> None:
        """Mark the instance at the source and look whether the target shows the mark.

        Two addresses of one server, or two servers on one database, look like a perfect delivery.
        """
        mark = secrets.token_hex(16)
        self._source.set_metadata(kept.instance_id, MARK, mark)
        try:
            seen = self._target.instance_metadata(kept.instance_id).get(MARK)
        finally:
            self._source.delete_metadata(kept.instance_id, MARK)
        if seen == mark:
            raise ConfigurationError(
                "BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL lead to the same server: what is marked "
                "at one shows at the other. Nothing was deleted.",
                advice="Correct them, or set BRIDGE_SOURCE_RETENTION=keep.",
            )
        self._are_two = True


def _first(ledger: Ledger, delivered_before: float) -> Kept | None:
    return next(iter(ledger.kept(delivered_before=delivered_before, limit=1)), None)
