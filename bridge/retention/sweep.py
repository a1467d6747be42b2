"""The source as a buffer: deletes there what was delivered, proved and is old enough.

This is the only thing that the bridge does and nobody can undo. Why it loses nothing:

    An instance may be deleted at the source when, at that moment, **another server**, with **other
    files**, **holds these bytes**, **will keep them**, and **nobody else still needs them here**.

- *Another server.* The feeds of both differ (two_servers.py); a mark that is set on the instance at
  the source shows there and not at the target; the source's feed is the one that was followed.
  Proved for each batch, believed for PROOF_S at most, void after any trouble that the pipeline, its
  probes or a sweep has met.
- *Other files.* Both servers name the file of the instance in their storage area. The names are
  those that they gave at the delivery, and differ. Asked right before each deletion, so an address
  that changes its meaning in the middle of a batch is noticed too. Two storage areas can still be
  one in a way that no name tells: so after each deletion the target reads its file again before the
  next one, and until then the bridge holds the bytes beside its state file, over kills and power
  cuts, and gives them back (held_deletion.py).
- *Holds these bytes.* The target reads its file (verify-md5) and says the MD5 that was sent, the
  source says the MD5 that was fetched: right before each deletion, the source last. The ledger
  says, after that, that the instance was delivered, is neither parked nor unfinished, and how old
  that is by a clock that nobody can set (age_clock.py).
- *Will keep them.* The target is not read-only and recycles nothing; where it does not tell, the
  patient is protected there. Asked for each batch. No bridge deletes at the target
  (bridge_notes.py): asked right before each deletion. What else may follow a deletion at the
  target is found by a trial each day (held_deletion.py), and later by samples of what was deleted
  (deleted_samples.py).
- *Nobody else.* No other bridge follows the source (bridge_notes.py): asked right before each
  deletion; void when the source has forgotten the notes of bridges, and when the process before
  this one may still run, on a file that this one is a copy of, until they had SETTLE_S to renew
  them. One process serves each of the servers: where several may serve one database, the operator
  vouches that notes are seen. Asked for each batch.

And nothing is deleted while the operator has paused the bridge, in quiet hours, above the limits of
rate, of deletions an hour and of a share of the source in a day.

What is left: Orthanc has no conditional deletion. An instance that is overwritten at the source, or
deleted or overwritten at the target, in the milliseconds between the last look and the deletion is
lost. `doctor` warns of a source that overwrites.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from bridge.errors import BridgeError, InstanceError, SideError, StateError
from bridge.events import Event, SourceDeletes, SourceKept
from bridge.ledger.records import Entry, Kept, MissedAt
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.retention.batch_proof import Prover, marks_of, refuse_target
from bridge.retention.bridge_notes import begin_wait
from bridge.retention.deleted_samples import DeletedSamples
from bridge.retention.deletion_limits import UNRECORDED, DeletionLimits, is_stopped, refuse_stopped
from bridge.retention.held_deletion import (
    UNVERIFIED_KEY,
    HeldDeletion,
    was_answered,
)
from bridge.retention.limits_and_risks import RetentionRules, refuse_shared_database
from bridge.retention.objections import ASKED_AGAIN, MISSED, InstanceLooks, Objection
from bridge.retention.other_bridges import OtherBridges
from bridge.retention.protocols import HoldingServer, KeepingServer

BATCH = 100
"""Instances looked at between two reports."""
POSTPONED_S = 3600.0
"""An instance that could not be judged is looked at again after this time."""
FAILURES_MAX = 5
"""Errors in one batch, each about one instance: then it is a server's trouble."""
NAMED_MAX = 10
"""Instances of one batch that are spared by name in the log; all are counted."""


@dataclass(slots=True)
class Sweep:
    """What one batch did. ``more``: another batch is due at once. ``hold``: why it ended early.

    ``spared``: the source or the target does not hold what was moved, or could not be asked.
    """

    deleted: int = 0
    spared: int = 0
    more: bool = False
    hold: str = ""


def _no_hold(_ledger: Ledger) -> str:
    """Nothing holds deletions."""
    return ""


class Sweeper:
    """Deletes batches. For one thread.

    ``look_at_feed`` raises FeedWentBackwards when the source's feed is not the one that the ledger
    knows. ``token``: of this process (note_tokens.py), or of the one for which it asks.
    ``hold`` says why nothing may be deleted now, or "". ``trouble`` counts what others met.
    ``recorded`` tells whether all that was reported is where it has to be on record.
    """

    def __init__(
        self,
        source: KeepingServer,
        target: HoldingServer,
        rules: RetentionRules,
        *,
        token: str,
        look_at_feed: Callable[[Ledger], None],
        hold: Callable[[Ledger], str] = _no_hold,
        trouble: Callable[[], int] = lambda: 0,
        recorded: Callable[[], bool] = lambda: True,
        report: Callable[[Event], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._target = target
        self._rules = rules
        self._look_at_feed = look_at_feed
        self._recorded = recorded
        self._report = report
        self._stopping = stopping
        self._looks = InstanceLooks(source, target)
        self._held = HeldDeletion(source, self._looks, trial_s=rules.trial_s)
        self._samples = DeletedSamples(self._looks, rules)
        self._others = OtherBridges(source, target, rules, token=token)
        self._limits = DeletionLimits(
            source, rules, hold=hold, recorded=recorded, steady_s=steady_s
        )
        self._prover = Prover(
            source,
            target,
            rules,
            look_at_feed=look_at_feed,
            trouble=trouble,
            steady_s=steady_s,
        )

    def sweep(self, ledger: Ledger, *, now: float, done: Sweep) -> None:
        """Delete one batch of what is old enough ``now``, by the age clock.

        Counts into ``done`` as it goes, which is right whatever is raised. Each step is written
        at once: a crash costs nothing but a second look. Raises SideError, StateError,
        InstanceError, FeedWentBackwards, and ConfigurationError when one of the clauses at the head
        of this file does not hold for any instance.
        """
        aged_before = now - self._rules.retention_s
        done.hold = self._begin(ledger, now, aged_before)
        if done.hold:
            return
        failures = 0
        for _ in range(BATCH):
            kept = None if self._stopping() else _first(ledger, aged_before)
            if kept is None:
                self._held.refuse_ignored(ledger)
                return
            done.hold = self._limits.held_back(ledger, now)
            if done.hold:
                return
            later = aged_before + POSTPONED_S
            try:
                objection = self._objection_now(ledger, kept, now)
                if objection is None:
                    done.hold = self._limits.held_back(ledger, now, asks=False)
                    if done.hold or self._stopping():
                        return
                # The looks may have taken long: does the ledger still say so?
                if _first(ledger, aged_before) != kept:
                    continue
                if objection is not None:
                    _spare(ledger, kept, objection, later, done)
                    continue
                if not self._delete(ledger, kept, now=now, done=done):
                    done.hold = UNRECORDED
                    return
            except (SideError, InstanceError) as exc:
                failures += 1
                if not self._put_off(ledger, kept, exc, later, done) or failures == FAILURES_MAX:
                    raise
            done.hold = self._held.verify(ledger, now=now)
            if done.hold:
                return
        done.more = True

    def _begin(self, ledger: Ledger, now: float, aged_before: float) -> str:
        """Begin a batch: nothing of the last one is believed any more.

        Returns why nothing may be deleted because of the last deletion, or "".
        """
        ledger.begin_ages(now)
        begin_wait(ledger, now)
        hold = self._held.verify(ledger, now=now)
        with suppress(SideError) if is_stopped(ledger) else nullcontext():
            self._prover.remove_marks(ledger)
        refuse_stopped(ledger)
        self._prover.void()
        due = _first(ledger, aged_before) is not None
        if not due:
            self._others.remember(ledger)
        if not hold:
            self._samples.look(ledger, now=now, due=due)
        return hold

    def _put_off(
        self,
        ledger: Ledger,
        kept: Kept,
        error: SideError | InstanceError,
        later: float,
        done: Sweep,
    ) -> bool:
        """Look at an instance again later, so that one sick instance does not hold up the others.

        Tells whether the error may be about that one only.
        """
        ledger.postpone(kept, later)
        done.spared += 1
        if isinstance(error, InstanceError):
            return True
        self._prover.void()
        return error.specific

    def left_this_hour(self, ledger: Ledger, now: float) -> int | None:
        """Say how many more may be deleted before some time has passed; None without a limit."""
        return self._limits.left_this_hour(ledger, now)

    def explain(self, ledger: Ledger, *, now: float) -> Iterator[tuple[Kept, str]]:
        """Tell of each instance why it would stay now; "" of one that would go. Writes nothing.

        Both servers are asked for those that are old enough. Raises as ``sweep`` does.
        """
        aged_before = now - self._rules.retention_s
        for kept in ledger.all_kept():
            if kept.aged_from is None or kept.aged_from > aged_before:
                yield kept, "not old enough, or to be checked again later"
            elif not ledger.may_go(kept.instance_id):
                yield kept, "parked or unfinished"
            elif not (kept.source_file and kept.target_file):
                yield kept, str(Objection.UNLEARNED)
            else:
                try:
                    yield kept, str(self._looks.objection(kept) or "")
                except (SideError, InstanceError) as exc:
                    if isinstance(exc, SideError) and not exc.specific:
                        raise
                    yield kept, str(exc)

    def refusals(self, ledger: Ledger, *, now: float) -> Iterator[BridgeError]:
        """Tell what speaks against deleting anything now. Writes nothing at the servers."""
        asks: tuple[Callable[[], object], ...] = (
            lambda: refuse_stopped(ledger),
            lambda: self._look_at_feed(ledger),
            lambda: refuse_target(self._rules, self._target.system()),
            lambda: refuse_shared_database(
                self._rules, self._source.system(), self._target.system()
            ),
            lambda: self._others.refuse(ledger, noted=True),
            lambda: self._limits.refuse_share(ledger, now),
            lambda: self._held.refuse_ignored(ledger),
        )
        for ask in asks:
            try:
                ask()
            except BridgeError as exc:
                yield exc

    # One instance

    def _objection_now(self, ledger: Ledger, kept: Kept, now: float) -> Objection | None:
        """Go through the whole argument; what may change most easily is asked last."""
        if not (kept.source_file and kept.target_file):
            return self._looks.learn_files(ledger, kept, now)
        if self._prover.standing() is None:
            objection = self._looks.objection(kept) or self._prover.prove(ledger, kept)
            if objection is not None:
                return objection
        try:
            self._prover.keep(kept)
        except InstanceError:
            # The target lacks it, or its patient: what it lacks has to be known as such.
            objection = self._looks.objection(kept)
            if objection is None:
                raise
            return objection
        self._others.refuse(ledger)
        return self._prover.hold(kept) or self._looks.objection(kept)

    def _delete(self, ledger: Ledger, kept: Kept, *, now: float, done: Sweep) -> bool:
        """Delete an instance; False: it was not deleted, as that could not be put on record.

        StateError: it was not deleted, as its bytes could not be held.
        """
        proof = self._prover.used()
        self._report(SourceDeletes(**_evidence(kept), age_s=now - (kept.aged_from or now)))
        if not self._recorded():
            self._report(SourceKept(kept.instance_id, UNRECORDED))
            return False
        # Before it: the answer may be lost, or this process be killed. What is not deleted then
        # stays at the target although its source lets go of it, which is the safe side.
        ledger.release_delivery(kept.instance_id)
        try:
            file, proof.file = proof.file, None
            self._held.announce(ledger, kept, file)
            was_there = self._source.delete_instance(kept.instance_id)
            done.deleted += was_there
        except (SideError, StateError) as exc:
            self._report(SourceKept(kept.instance_id, exc.message))
            if isinstance(exc, SideError) and was_answered(exc):
                self._held.verify(ledger, now=now, answered=True)
            raise
        ledger.deleted(kept, now=now)
        if was_there:
            self._held.note_answer(ledger)
            self._samples.note(ledger, kept, now=now)
        return True


def is_unfinished(ledger: Ledger) -> bool:
    """Tell whether a sweep was ended in its middle: a deletion is not verified, or a mark set."""
    return bool(ledger.meta(UNVERIFIED_KEY) or marks_of(ledger).left())


def _spare(ledger: Ledger, kept: Kept, objection: Objection, later: float, done: Sweep) -> None:
    if objection not in (Objection.GONE, Objection.UNLEARNED):
        if done.spared < NAMED_MAX:
            text = f"spared {kept.instance_id} at the source: {objection}"
            log(logging.WARNING, "source_spared", text, instance=kept.instance_id)
        done.spared += 1
    if objection is Objection.GONE:
        ledger.release_delivery(kept.instance_id)
    missed = MISSED.get(objection, MissedAt.NOWHERE)
    gone = objection is Objection.GONE
    if objection in ASKED_AGAIN or (gone and kept.missed is not MissedAt.SOURCE):
        ledger.postpone(kept, later, missed=missed)
    elif objection is not Objection.UNLEARNED:
        ledger.commit(Entry(not_kept=(kept,)))


def _first(ledger: Ledger, aged_before: float) -> Kept | None:
    return next(iter(ledger.kept(aged_before=aged_before, limit=1)), None)


def _evidence(kept: Kept) -> dict[str, str]:
    names = ("instance_id", "source_md5", "target_md5", "source_file", "target_file")
    return {name: getattr(kept, name) for name in names}
