"""Replaces a copy at the target, which does not overwrite: deletes it and sends it anew.

A deletion at the target is what nobody can undo. Why it loses nothing:

1. *Prepared.* The source's file is fetched, decoded and written, as it would be sent, to a file
   beside the state file, whole and on the disk, with its sum and identifier (worker/prepare.py).
   What was fetched has the sum that the source noted at its arrival, or the source's own file is
   damaged. What cannot be delivered is never deleted. From here on there is a second copy, whatever
   happens.
2. *Intended.* The ledger notes what is about to be done. A process that is killed at any later
   point is followed by one that finds the note, or the file alone, and ends the work.
3. *Still right.* The feed is the one that was followed, the two addresses lead to two servers, and
   the source still holds the very file that was prepared: asked right before the deletion, the
   source last. What the source no longer holds is never deleted here. The prepared file is read
   again, before the deletion and before it is sent: a disk may have changed it.
   What users have put beside a copy, and what would go with it, is read and written to the disk
   before (mirror/beside_copy.py), and put back after the proof.
4. *Deleted, sent, proved.* The target reads the new file (verify-md5) and says the sum that was
   sent. Only then the prepared file goes; without that proof it goes only where the source holds
   the instance, or the copy that was judged is still there. Else it is kept, or put aside.

What is missing goes the same way, without the deletion. One repair at a time, and no more in a day
than the limit, before a person has said so.

What is left: Orthanc has no conditional deletion. A copy that somebody else replaces at the target
in the milliseconds between the last look and the deletion is replaced by the source's.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol

from bridge.dicom.orthanc_id import orthanc_id_of
from bridge.errors import InstanceError, InstanceGone, SideError, side_error
from bridge.events import (
    CopyNotRepaired,
    CopyRepaired,
    CopyReplaces,
    Event,
    InstanceParked,
)
from bridge.ledger.lock import explained
from bridge.ledger.records import DeliveryRecord, Entry, Kept, Parked
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import (
    HELD_KEY,
    INTENT_KEY,
    RepairIntent,
    count_repair,
    intent_text,
    is_confirmed,
    repair_intent,
    repairs_since,
)
from bridge.log import log
from bridge.mirror.beside_copy import (
    BesideKeeper,
    BesideTarget,
    CannotKeep,
    is_anything_kept,
)
from bridge.mirror.judge_copy import REPLACED, CopyState
from bridge.model import (
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideFailed,
    StoreAnswer,
)
from bridge.orthanc import Need, StoredFile, lacks_right
from bridge.own_files import open_own, open_to_read
from bridge.two_servers import ComparedServer, Use, refuse, tell_apart
from bridge.worker.prepare import PART, sync_directory
from bridge.worker.proof import check_answer

LIMIT_LEAST = 10
"""So many repairs and deletions a day are not asked about, whatever share they are."""
CHUNK_BYTES = 1024 * 1024
HEAD_BYTES = 1024 * 1024
"""Of a prepared file: its identifier is in it."""
UNREADABLE = frozenset({CopyState.NO_FILE, CopyState.DAMAGED})
"""Of a copy that was judged so nothing good is left at the target."""
LOCK_SUFFIX = ".repair.lock"
PREPARED_SUFFIX = ".repair.dcm"
"""Of the prepared file, after the name of the state file."""
NEW_SUFFIX = ".new"
"""Of a prepared file that was not compared with what the source has noted. It is never sent."""
SOURCE_IS_DAMAGED = (
    "The source's file of instance {} is damaged: its bytes are not those that the source noted at "
    "its arrival. Restore it there."
)
UPLOAD_ADVICE = (
    "Check whether the target holds the instance; if not, upload the file there. Then delete the "
    "file."
)
SPOILT_ADVICE = (
    "Do not upload it. Check the bridge's disk. Delete the file once the target holds the instance."
)
HAS_CHANGED = "It has changed meanwhile; the next verification compares it again."
IS_SPOILT = (
    "The prepared file has changed on the bridge's disk. It was not sent. The next verification "
    "prepares a new one."
)


class RepairingSource(ComparedServer, Protocol):
    """What is needed of the source."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 noted for a file. Raises InstanceGone, InstanceError, SideError."""


class RepairedTarget(ComparedServer, BesideTarget, Protocol):
    """What is needed of the target."""

    def verify_stored(self, instance_id: str) -> bool:
        """Read the file again and compare. Raises InstanceError, SideError."""

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance; False when it was not there any more. Raises SideError."""

    def store(
        self, body: Iterable[bytes], *, body_bytes: int | None, deadline_s: float | None
    ) -> StoreAnswer:
        """Upload a file. Raises InstanceError, SideError."""


class Preparer(Protocol):
    """Makes the file that would be sent, in a process that may be ended."""

    def prepare(self, instance_id: str, path: Path) -> Outcome:
        """Fetch, decode and write an instance."""


class RepairEnd(StrEnum):
    """How a repair ended."""

    REPAIRED = "repaired"
    FAILED = "failed"
    """It cannot be delivered, or the target does not hold what was sent."""
    OVERTAKEN = "overtaken"
    """Something has changed meanwhile: the next verification looks at it anew."""
    HELD = "held"
    """The limit of a day is reached, or it cannot be put on record."""


@dataclass(frozen=True, slots=True)
class RepairLimit:
    """How much may be repaired and deleted in a day: a share of the instances, at least a few."""

    share: float = 0.01
    least: int = LIMIT_LEAST

    def of(self, instances: int) -> int:
        """Return how many that are."""
        return max(self.least, int(self.share * instances))


class Repairer:
    """Repairs copies, one at a time. For one thread.

    ``look_at_feed`` raises FeedWentBackwards when the source's feed is not the one that the ledger
    knows. ``vouched``: the operator vouches that the servers are two. ``replaces``: copies may be
    deleted; else what was begun is ended only where the target lacks it. ``recorded`` tells whether
    all that was reported is where it has to be on record. ``keeps_evidence``: retention needs to
    know what the target holds now. ``deadline_s``: of one upload. ``identify``: computes Orthanc's
    identifier from the head of a file, "" where it is not certain.
    """

    def __init__(
        self,
        source: RepairingSource,
        target: RepairedTarget,
        preparer: Preparer,
        *,
        limit: RepairLimit,
        look_at_feed: Callable[[Ledger], None],
        vouched: bool = False,
        replaces: bool = True,
        keeps_evidence: bool = False,
        signs: bool = False,
        deadline_s: float | None = None,
        recorded: Callable[[], bool] = lambda: True,
        report: Callable[[Event], None] = lambda _: None,
        identify: Callable[[memoryview], str] = orthanc_id_of,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._target = target
        self._beside = BesideKeeper(target)
        self._preparer = preparer
        self._limit = limit
        self._look_at_feed = look_at_feed
        self._vouched = vouched
        self._replaces = replaces
        self._keeps_evidence = keeps_evidence
        self._signs = signs
        self._deadline_s = deadline_s
        self._recorded = recorded
        self._report = report
        self._identify = identify
        self._now_s = now_s

    def may_change(self, ledger: Ledger, *, instances: int, age: float) -> bool:
        """Tell whether one more repair or deletion is within the limit of a day.

        ``instances``: how many the source holds. ``age``: by the age clock.
        """
        limit = self._limit.of(instances)
        return repairs_since(ledger, age) < limit or is_confirmed(ledger, age)

    def repair(  # noqa: PLR0911, PLR0912 (a table of objections)
        self,
        ledger: Ledger,
        instance_id: str,
        state: CopyState,
        *,
        instances: int,
        age: float,
        judged_md5: str = "",
    ) -> RepairEnd:
        """Repair one copy. Raises SideError, StateError, FeedWentBackwards, ConfigurationError.

        ``judged_md5``: of the copy that was judged, "" where it is not known; no other one goes.
        Whatever is raised: nothing is lost, and ``resume`` ends what was begun.
        """
        if not self.may_change(ledger, instances=instances, age=age):
            return RepairEnd.HELD
        if is_repair_begun(ledger):
            # Its prepared file may be the last copy of another instance: nothing takes its place.
            return self._failed(instance_id, state, "Another repair is unfinished.")
        self.be_sure(ledger)
        path = prepared_path(ledger)
        before = self._copy(instance_id) if state in REPLACED else None
        if before is None:
            state = CopyState.MISSING  # what comes there from now on is somebody else's
        elif _differ(before.md5, judged_md5):
            return RepairEnd.OVERTAKEN
        else:
            try:
                self._beside.check(ledger, instance_id)
            except CannotKeep as exc:
                return self._failed(instance_id, state, exc.message)
        new = path.with_name(path.name + NEW_SUFFIX)
        noted_before = self._noted_md5(instance_id)
        outcome = self._preparer.prepare(instance_id, new)
        match outcome:
            case Delivered(source_md5=source_md5, sent_md5=sent_md5):
                pass
            case InstanceFailed():
                self._give_up(ledger, instance_id, state, outcome)
                return RepairEnd.FAILED
            case SideFailed(side=side, problem=problem, message=message, advice=advice):
                raise side_error(side, problem, message, advice=advice, specific=outcome.specific)
            case ExecutorFailed(message=message):
                return self._failed(instance_id, state, message)
            case _:  # deleted at the source, or left out by a rule
                return RepairEnd.OVERTAKEN
        try:
            objection = self._objection(instance_id, state, noted_before, source_md5)
        except BaseException:
            _unlink(new)
            raise
        if objection is not None:
            _unlink(new)
            return objection
        with explained(ledger.path):
            new.rename(path)
            sync_directory(path.parent)
        count_repair(ledger, age)
        intent = RepairIntent(
            instance_id, str(state), source_md5, sent_md5, before.md5 if before else ""
        )
        ledger.set_meta(INTENT_KEY, intent_text(intent))
        return self._end(ledger, intent, age=age)

    def _objection(
        self, instance_id: str, state: CopyState, noted_before: str, fetched_md5: str
    ) -> RepairEnd | None:
        """Return what speaks against a file that was prepared. Raises SideError.

        ``noted_before``: what the source said of its file before that was fetched. What came is
        neither that nor what it says now: its disk has changed the file.
        """
        noted = self._noted_md5(instance_id)
        if not _differ(noted, fetched_md5):
            return None if self._recorded() else RepairEnd.HELD
        if noted == noted_before:
            return self._failed(instance_id, state, SOURCE_IS_DAMAGED.format(instance_id))
        self._report(CopyNotRepaired(instance_id, str(state), HAS_CHANGED))
        return RepairEnd.OVERTAKEN

    def resume(self, ledger: Ledger, *, age: float) -> RepairEnd | None:
        """End what another process has begun; None where there is nothing. Raises as ``repair``."""
        end = self._resumed(ledger, age=age)
        if is_anything_kept(ledger) and not is_repair_begun(ledger):
            self.be_sure(ledger)
            self._beside.put_back_left(ledger)
        return end

    def _resumed(self, ledger: Ledger, *, age: float) -> RepairEnd | None:
        path = prepared_path(ledger)
        for end in (PART, NEW_SUFFIX, NEW_SUFFIX + PART):
            _unlink(path.with_name(path.name + end))
        intent = repair_intent(ledger)
        if not is_there(path):
            return None if intent is None else self._without_file(ledger, intent, age=age)
        with explained(ledger.path):
            found = _md5_of(path)
        if intent is not None and intent.target_md5 != found:
            return self._anew(ledger, intent, found, age=age)
        if intent is None:
            intent = self._intent_of(path, found)
            if intent is None:
                ledger.set_meta(INTENT_KEY, None)
                return None
        self.be_sure(ledger)
        return self._end(ledger, intent, age=age)

    def _without_file(
        self, ledger: Ledger, intent: RepairIntent, *, age: float
    ) -> RepairEnd | None:
        """Part from the note of a repair whose prepared file is not there.

        Nothing was deleted before there was a file, and it goes when the copy is proved: the note
        alone was left. Or somebody has removed the file, or the disk has lost it.
        """
        is_lost = False
        if intent.state in REPLACED:
            self.be_sure(ledger)
            is_lost = self._copy(intent.instance_id) is None
        ledger.set_meta(INTENT_KEY, None)
        if not is_lost:
            return None
        missing = CopyState.MISSING
        end = self.repair(ledger, intent.instance_id, missing, instances=0, age=age)
        return end if end is RepairEnd.REPAIRED or is_repair_begun(ledger) else None

    def _anew(
        self, ledger: Ledger, intent: RepairIntent, found: str, *, age: float
    ) -> RepairEnd | None:
        """Part from a prepared file that has changed on the disk, and prepare it from the source.

        None: nothing is unfinished any more, and the next verification judges the copy.
        """
        self.be_sure(ledger)
        held = self._copy(intent.instance_id)
        is_sent = held is not None and held.md5 == intent.target_md5
        is_proved = is_sent and self._reads(intent.instance_id)
        self._part_from_spoilt(ledger, found)
        if is_proved:
            self._proved(ledger, intent)
            return RepairEnd.REPAIRED
        if held is not None:
            return None
        missing = CopyState.MISSING
        end = self.repair(ledger, intent.instance_id, missing, instances=0, age=age)
        return end if end is RepairEnd.REPAIRED or is_repair_begun(ledger) else None

    def _part_from_spoilt(self, ledger: Ledger, found: str) -> None:
        """Put a prepared file aside that has changed on the disk; then the note of it may go."""
        why = "its bytes are not those that were prepared"
        _put_aside(prepared_path(ledger), found, why, advice=SPOILT_ADVICE)
        ledger.set_meta(INTENT_KEY, None)

    def _is_spoilt(self, ledger: Ledger, intent: RepairIntent) -> bool:
        """Tell whether the prepared file has changed on the disk: it is told, and put aside."""
        with explained(ledger.path):
            found = _md5_of(prepared_path(ledger))
        if found == intent.target_md5:
            return False
        self._part_from_spoilt(ledger, found)
        self._failed(intent.instance_id, CopyState(intent.state), IS_SPOILT)
        return True

    def _intent_of(self, path: Path, md5: str) -> RepairIntent | None:
        """Return what a file without a note is for: it is sent where the target lacks it.

        A power cut may lose the note and not the file. None: the file is dealt with.
        """
        with PreparedFile(path).opened() as file:
            instance_id = self._identify(memoryview(file.read(HEAD_BYTES)))
        if not instance_id:
            _put_aside(path, md5, "its identifier could not be read")
            return None
        intent = RepairIntent(instance_id, str(CopyState.MISSING), "", md5)
        held = self._copy(instance_id)
        if held is None:
            return intent
        if held.md5 == md5 and self._reads(instance_id):
            _unlink(path)
        else:
            self._drop(intent, held, path)
        return None

    def be_sure(self, ledger: Ledger) -> None:
        """Make sure of both servers: right before something is deleted or sent."""
        self._look_at_feed(ledger)
        # A deletion at what may be the source is as bad as a target that overwrites.
        answer = tell_apart(self._source, self._target)
        refuse(answer, Use.MAY_OVERWRITE, vouched=self._vouched)

    def _end(self, ledger: Ledger, intent: RepairIntent, *, age: float) -> RepairEnd:
        """Delete, send, prove: from wherever it was left."""
        held = self._copy(intent.instance_id)
        if held is None or held.md5 != intent.target_md5 or not self._reads(intent.instance_id):
            if self._is_spoilt(ledger, intent):
                return RepairEnd.FAILED
            if held is not None:
                end = self._delete(ledger, intent, held, age=age)
                if end is not None:
                    return end
            elif intent.state == CopyState.MISSING:
                self._announce(intent)
            if self._is_spoilt(ledger, intent):  # a deletion may take its time
                return RepairEnd.FAILED
            answer = self._send(ledger, intent)
            if answer is not None:
                return answer
        self._proved(ledger, intent)
        return RepairEnd.REPAIRED

    def _delete(  # noqa: PLR0911 (a table of objections)
        self, ledger: Ledger, intent: RepairIntent, held: StoredFile, *, age: float
    ) -> RepairEnd | None:
        """Delete the copy that is to go; an end where that must not be."""
        if intent.state not in REPLACED or not self._replaces:
            # It was missing, and is there now: somebody else has sent it. Or it is wished no more.
            return self._let_go(ledger, intent, held)
        if _differ(held.md5, intent.before_md5) and held.md5 != intent.target_md5:
            # Somebody has put another file there since: nobody has judged that one.
            return self._overtaken(ledger, intent, held)
        try:
            # What is beside a copy that a repair has sent is not all that was beside the first one.
            is_ours = bool(intent.kept) or held.md5 == intent.target_md5
            self._beside.keep(ledger, intent.instance_id, adds=is_ours)
        except CannotKeep as exc:
            return self._not_kept(ledger, intent, held, exc.message)
        if intent.kept:
            # Deleted once more, and once more: a target with a failing disk has no end of it.
            if not self.may_change(ledger, instances=0, age=age):
                return RepairEnd.HELD
            count_repair(ledger, age)
        self._announce(intent)
        if not self._recorded():
            return RepairEnd.HELD
        self.be_sure(ledger)
        if self._source_md5(intent) != intent.source_md5:
            return self._let_go(ledger, intent, held)
        self._target.delete_instance(intent.instance_id)
        return None

    def _not_kept(
        self, ledger: Ledger, intent: RepairIntent, held: StoredFile, message: str
    ) -> RepairEnd:
        """Leave the copy: what is beside it would be lost. A person has to look at it."""
        if intent.kept:
            return self._keep(ledger, intent, message)
        if held.md5 == intent.before_md5:
            self._beside.discard(ledger, intent.instance_id)
        self._drop(intent, held, prepared_path(ledger))
        ledger.set_meta(INTENT_KEY, None)
        return self._failed(intent.instance_id, CopyState(intent.state), message)

    def _let_go(self, ledger: Ledger, intent: RepairIntent, held: StoredFile) -> RepairEnd:
        """End it, unless the copy was deleted and the prepared file is the only good one."""
        if intent.kept and not self._source_md5(intent):
            text = "The target cannot read its file, and the source no longer holds the instance: "
            return self._keep(ledger, intent, text + "the prepared file is kept.")
        return self._overtaken(ledger, intent, held)

    def _source_md5(self, intent: RepairIntent) -> str:
        """Return the MD5 of what the source holds of it; "" where that is nothing, or not told."""
        try:
            return self._source.stored_md5(intent.instance_id)
        except InstanceGone:
            return ""
        except InstanceError:
            return ""  # it does not tell: what it holds is not known

    def _noted_md5(self, instance_id: str) -> str:
        """Return the MD5 that the source noted of its file at its arrival, "" where not told.

        Raises SideError. A login may not be allowed to ask: a repair does not fail for that.
        """
        try:
            return self._source.stored_md5(instance_id)
        except InstanceError:
            return ""
        except SideError as exc:
            if exc.specific or not lacks_right(exc, Need.LOOK_AT_ONE):
                raise
            return ""

    def _send(self, ledger: Ledger, intent: RepairIntent) -> RepairEnd | None:
        """Send the prepared file; an end where the target does not hold it then."""
        prepared = PreparedFile(prepared_path(ledger))
        try:
            answer = self._target.store(
                prepared, body_bytes=prepared.size_bytes(), deadline_s=self._deadline_s
            )
            check_answer(answer, intent.instance_id)
        except InstanceError as exc:
            return self._not_taken(ledger, intent, exc.reason, exc.message)
        held = self._copy(intent.instance_id)
        if held is None:
            text = "The target accepted it but does not hold it."
            return self._not_taken(ledger, intent, Reason.PROOF_MISMATCH, text)
        if held.md5 != intent.target_md5:
            if held.md5 and answer.status == "AlreadyStored":
                return self._overtaken(ledger, intent, held)
            # It changes what it stores. Whether the content is the source's is not proved: the next
            # verification compares both files.
            text = f"The target holds other bytes than the bridge sent: MD5 {held.md5}."
            if not held.md5:
                text = (
                    "The target stores no MD5 of the file, so its arrival is not proved "
                    "(set StoreMD5ForAttachments there)."
                )
            self._beside.put_back(ledger, intent.instance_id)
            self._finish(ledger, intent, held.md5, proved=False)
            return self._failed(intent.instance_id, CopyState(intent.state), text)
        if not self._reads(intent.instance_id):
            text = "The target cannot read the file that it has just stored. Look at its disk."
            return self._keep(ledger, intent, text)
        return None

    def _proved(self, ledger: Ledger, intent: RepairIntent) -> None:
        self._beside.put_back(ledger, intent.instance_id)
        self._finish(ledger, intent, intent.target_md5)
        self._report(CopyRepaired(intent.instance_id, intent.state))

    def _finish(
        self, ledger: Ledger, intent: RepairIntent, target_md5: str, *, proved: bool = True
    ) -> None:
        """Write the record, in one transaction with the end of the intent; then the file may go."""
        record = DeliveryRecord(
            intent.instance_id,
            intent.source_md5,
            target_md5,
            self._now_s(),
            outdated=not proved,
            to_sign=proved and self._signs and bool(intent.source_md5),
        )
        kept = Kept(record.instance_id, record.source_md5, target_md5, record.delivered_at)
        ledger.commit(
            Entry(
                delivered=(record,),
                kept=(kept,) if proved and self._keeps_evidence and record.source_md5 else (),
                unparked=(intent.instance_id,),
                forgotten=(INTENT_KEY,),
            )
        )
        _unlink(prepared_path(ledger))

    def _overtaken(self, ledger: Ledger, intent: RepairIntent, held: StoredFile) -> RepairEnd:
        """Leave it to the next verification: nothing was deleted, or somebody has sent it since."""
        if held.md5 == intent.before_md5 != "" and not intent.kept:
            self._beside.discard(ledger, intent.instance_id)
        else:
            self._beside.put_back(ledger, intent.instance_id)
        self._drop(intent, held, prepared_path(ledger))
        ledger.set_meta(INTENT_KEY, None)
        self._report(CopyNotRepaired(intent.instance_id, intent.state, HAS_CHANGED))
        return RepairEnd.OVERTAKEN

    def _drop(self, intent: RepairIntent, held: StoredFile, path: Path) -> None:
        """Part from a prepared file that is not proved to be at the target.

        It goes where the source holds the instance, in this version or in one that the follower
        delivers, or where the copy that was judged is there, and readable. Else it may be the last
        good one: a kill between an upload and its proof is not told from one before the deletion.
        """
        readable = intent.state not in UNREADABLE and held.md5 == intent.before_md5 != ""
        if readable or self._source_md5(intent):
            _unlink(path)
        else:
            _put_aside(path, intent.target_md5, "perhaps neither server holds a good copy")

    def _not_taken(
        self, ledger: Ledger, intent: RepairIntent, reason: Reason, message: str
    ) -> RepairEnd:
        """The target does not take it. What was missing is parked: nothing was deleted for it."""
        if intent.state != CopyState.MISSING or not intent.source_md5:
            return self._keep(ledger, intent, message)
        ledger.set_meta(INTENT_KEY, None)
        _unlink(prepared_path(ledger))
        self._park(ledger, intent.instance_id, InstanceFailed(reason, message, final=False))
        return self._failed(intent.instance_id, CopyState.MISSING, message)

    def _keep(self, ledger: Ledger, intent: RepairIntent, message: str) -> RepairEnd:
        """The target lacks it: the file and the note stay, and it is tried again."""
        ledger.set_meta(INTENT_KEY, intent_text(replace(intent, kept="yes")))
        text = (
            f"The copy of instance {intent.instance_id} was deleted at the target, and the new "
            f"one could not be stored yet: {message} The bridge keeps the new copy and tries "
            "again."
        )
        if intent.state in REPLACED:
            log(logging.ERROR, "repair_unfinished", text, instance=intent.instance_id)
        return self._failed(intent.instance_id, CopyState(intent.state), message)

    def _failed(self, instance_id: str, state: CopyState, message: str) -> RepairEnd:
        self._report(CopyNotRepaired(instance_id, str(state), message))
        return RepairEnd.FAILED

    def _give_up(
        self, ledger: Ledger, instance_id: str, state: CopyState, failed: InstanceFailed
    ) -> None:
        """Park what is missing and cannot be delivered. A copy that is there stays as it is."""
        if state is CopyState.MISSING:
            self._park(ledger, instance_id, failed)
        self._report(CopyNotRepaired(instance_id, str(state), failed.message))

    def _park(self, ledger: Ledger, instance_id: str, failed: InstanceFailed) -> None:
        now = self._now_s()
        parked = Parked(
            Move(instance_id),
            failed.reason,
            failed.message,
            1,
            now,
            now,
            failed.source_syntax,
            failed.sop_instance_uid,
        )
        ledger.commit(Entry(parked=(parked,)))
        self._report(
            InstanceParked(
                parked.move,
                failed.reason,
                failed.message,
                1,
                failed.source_syntax,
                failed.sop_instance_uid,
            )
        )

    def _announce(self, intent: RepairIntent) -> None:
        self._report(
            CopyReplaces(
                intent.instance_id,
                intent.state,
                intent.source_md5,
                intent.target_md5,
                intent.before_md5,
            )
        )

    def _copy(self, instance_id: str) -> StoredFile | None:
        """Return what the target holds; a file without a name or a sum where it does not tell."""
        try:
            return self._target.stored_file(instance_id)
        except InstanceError as exc:
            return None if exc.reason is Reason.PROOF_MISMATCH else StoredFile("", "", 0)

    def _reads(self, instance_id: str) -> bool:
        """Have the target read its file; one that lets nobody ask is believed by its MD5."""
        try:
            return self._target.verify_stored(instance_id)
        except InstanceError as exc:
            return exc.reason is Reason.SERVER_REFUSES_INSTANCE
        except SideError as exc:
            if exc.specific or not lacks_right(exc, Need.LOOK_AT_ONE):
                raise
            return True


def is_repair_begun(ledger: Ledger) -> bool:
    """Tell whether a process has begun a repair and not ended it. Raises StateError."""
    return repair_intent(ledger) is not None or is_there(prepared_path(ledger))


def is_work_left(ledger: Ledger) -> bool:
    """Tell whether a repair is to be ended, or something to be put back. Raises StateError."""
    return is_repair_begun(ledger) or is_anything_kept(ledger)


def is_there(path: Path) -> bool:
    """Tell whether anything has this name, a link that leads nowhere included."""
    return os.path.lexists(path)


def prepared_path(ledger: Ledger) -> Path:
    """Return where the prepared file lies: beside the state file, on one disk."""
    return ledger.path.with_name(ledger.path.name + PREPARED_SUFFIX)


@contextmanager
def repairing_turn(ledger: Ledger) -> Iterator[None]:
    """Take turns with the other process that may repair: ``run``, or ``check --repair``."""
    with explained(ledger.path):
        number = open_own(ledger.path.with_name(ledger.path.name + LOCK_SUFFIX), os.O_RDWR)
        fcntl.flock(number, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(number)


def hold_repairs(ledger: Ledger, count: int) -> None:
    """Remember how many repairs and deletions wait for a person's word; 0 forgets it."""
    ledger.set_meta(HELD_KEY, str(count) if count else None)


class PreparedFile:
    """A file in pieces, any number of times. It is ours, or it is not opened: it is sent.

    Raises NotOurs and other OSErrors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def opened(self) -> BinaryIO:
        """Open it."""
        return os.fdopen(open_to_read(self._path), "rb")

    def size_bytes(self) -> int:
        """Return its size."""
        with self.opened() as file:
            return os.fstat(file.fileno()).st_size

    def __iter__(self) -> Iterator[bytes]:
        with self.opened() as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece


def _differ(one: str, other: str) -> bool:
    """Tell whether two sums differ, as far as both are known."""
    return bool(one and other) and one != other


def _put_aside(path: Path, md5: str, why: str, *, advice: str = UPLOAD_ADVICE) -> None:
    aside = path.with_name(f"{path.name}.{md5}")
    path.rename(aside)
    text = f"The bridge keeps the file {aside}, which it had prepared for the target: {why}. "
    log(logging.CRITICAL, "repair_put_aside", text + advice)


def _md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in PreparedFile(path):
        digest.update(piece)
    return digest.hexdigest()


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
