"""Goes through both servers and says of each instance what its copy is; repairs, if it may.

Both are listed, the lists are sorted on disk and read side by side, a batch at a time. Where it is
is written down after each batch, so a restart goes on there. Servers go on working meanwhile: what
looks like a difference is looked at again by itself, and the source's feed before it, before it is
believed. So is what neither lists, and retention has deleted at the source: the ledger has it on
record. What arrives after the lists were read is not in this verification: it was proved when it
was delivered, and is in the next one.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, TypeVar

from bridge.checks.ask_both_servers import ReadingClient, ToleratedErrors
from bridge.checks.disk_lists import SortedTexts, joined, with_recorded
from bridge.checks.expected import expected_handling, syntax_of_head
from bridge.checks.pixels import ImageComparison, ImageResult
from bridge.checks.target_holds import TargetHolds
from bridge.decision import Treatment, syntax_is_right
from bridge.errors import InstanceError, InstanceGone, SideError
from bridge.events import CopyFound, Event, VerificationFailed, VerificationWorks, Verified
from bridge.feed.identity import Counter as FeedCounter
from bridge.feed.listing import ConfirmedListing, Listing
from bridge.feed.pages import FeedClient, FeedReader, feed_end, pages_asked
from bridge.feed.sources import MoveSource, pages_of, place_of
from bridge.ledger.records import DeliveryRecord, Entry
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import (
    VerificationProgress,
    damaged_at_source,
    end_verification,
    note_damaged_at_source,
    note_source,
    release_recycled,
    save_progress,
    under_way,
)
from bridge.mirror.copy_deletion import CopyDeletion, Grace
from bridge.mirror.judge_copy import (
    DIFFERENCES,
    REPAIRED,
    Comparison,
    CopyState,
    CopyView,
    is_other_file,
    judge_copy,
    learned,
)
from bridge.mirror.repair import RepairEnd, Repairer, hold_repairs, repairing_turn
from bridge.model import Job, Reason, SideName, SourceDoubt
from bridge.orthanc import Need, StoredFile, lacks_right

BATCH = 100
"""Instances whose metadata are read together, and after which the place is written down."""
LISTED_A_REQUEST = 1000
SEQUENCE_DIGITS = 16
UNDECIDED = (
    "It cannot be judged: a server does not answer for it, or no decoder reads it. It may be well."
)
UNVERIFIABLE = (
    "It cannot be verified: the target neither verifies its file nor sends it. Allow POST "
    "/instances/{id}/attachments/dicom/verify-md5 or GET /instances/{id}/file there, and set "
    "StoreMD5ForAttachments to true."
)
SOURCE_DAMAGED = (
    "The source's own file is damaged or lost on its disk. Put it back there from a backup, or "
    "send the instance to the source again. The copy at the target stays as it is."
)
SOURCE_DAMAGED_TOO = "The source's own file is damaged or lost, too."
UNFINISHED = "a repair cannot be finished: the target does not accept or does not keep the file"

Metadata = Mapping[str, str]


_Answer = TypeVar("_Answer")
CALM = frozenset(
    {
        CopyState.EQUAL,
        CopyState.REWRITTEN,
        CopyState.WAITING,
        CopyState.PARKED,
        CopyState.SKIPPED,
        CopyState.FOREIGN,
        CopyState.GONE,
    }
)
"""What nothing follows from: it is not looked at again."""
COMPARISONS = {
    ImageResult.SAME: Comparison.SAME,
    ImageResult.DIFFERENT: Comparison.DIFFERENT,
    ImageResult.OTHER_CONTENT: Comparison.DIFFERENT,
    ImageResult.UNDECIDED: Comparison.UNDECIDED,
    ImageResult.GONE: Comparison.UNDECIDED,
}


class VerifiedServer(ReadingClient, FeedClient, Protocol):
    """What is needed of both servers."""

    def stored_file(self, instance_id: str) -> StoredFile:
        """Describe an instance's file. Raises InstanceError, SideError."""

    def verify_stored(self, instance_id: str) -> bool:
        """Read the file again and compare. Raises InstanceError, SideError."""

    def serves_file(self, instance_id: str) -> bool:
        """Tell whether the server gives the file of an instance."""


class VerificationPace(Protocol):
    """When requests may be made: rates, pause, quiet hours, a stop."""

    def take(self, ledger: Ledger, instances: int) -> bool:
        """Wait until so many instances may be looked at; False when it is to end."""


class Comparer(Protocol):
    """Fetches and compares both files of instances."""

    def comparisons(self, asked: Iterable[tuple[str, str]]) -> Iterator[ImageComparison]:
        """Compare instances. Raises SideError."""


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """What is verified and repaired. ``share``: of all instances, whose files are compared anyway.

    ``repairs``: which states are repaired. ``grace``: for deletions that follow. ``may_vanish``:
    somebody empties the target, and the operator knows.
    """

    share: float = 0.0
    repairs: frozenset[CopyState] = frozenset()
    grace: Grace = Grace()  # noqa: RUF009 (it is frozen)
    may_vanish: bool = False


class Verification:
    """One verification of both servers, or the rest of one. For one thread.

    ``keeps_place``: where it is is written down, and the next one goes on there; a command begins
    anew each time, beside one that goes on.
    """

    def __init__(
        self,
        source: VerifiedServer,
        target: VerifiedServer,
        *,
        job: Job,
        ledger: Ledger,
        rules: VerificationRules,
        pace: VerificationPace,
        comparer: Comparer,
        repairer: Repairer | None,
        deletion: CopyDeletion | None,
        look_at_feed: Callable[[Ledger], None],
        age: Callable[[Ledger], float],
        page_size: int = LISTED_A_REQUEST,
        keeps_place: bool = True,
        report: Callable[[Event], None] = lambda _: None,
        chance: Callable[[], float] = random.Random().random,  # noqa: S311, B008 (no secret)
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._target = target
        self._job = job
        self._ledger = ledger
        self._rules = rules
        self._pace = pace
        self._comparer = comparer
        self._repairer = repairer
        self._deletion = deletion
        self._look_at_feed = look_at_feed
        self._age = age
        self._page_size = page_size
        self._keeps_place = keeps_place
        self._report = report
        self._chance = chance
        self._now_s = now_s
        self._tolerated = ToleratedErrors()
        self._instances = 0
        """That the source holds, by its list."""
        self._holding = TargetHolds(ledger, ())
        self.ended: VerificationProgress | None = None
        """What was found, once it has come to its end."""
        self._held = 0
        """Repairs that the limit of a day has held back."""

    def run(self) -> bool:
        """Verify; False when it was ended before its end, and is to be gone on with.

        Raises SideError, StateError, FeedWentBackwards, ConfigurationError, OSError (TMPDIR is
        full): the next call goes on where it was.
        """
        ledger = self._ledger
        if not self.resume():
            return False
        progress = under_way(ledger) if self._keeps_place else None
        if progress is None:
            progress = VerificationProgress(self._now_s(), self._age(ledger))
            self._save(progress)
        self._look_at_feed(ledger)
        self.look_at_source()
        with ExitStack() as stack:
            lists = {side: stack.enter_context(SortedTexts()) for side in SideName}
            for side in SideName:
                if not self._list(side, lists[side]):
                    return False
            waiting = stack.enter_context(SortedTexts())
            self._read_waiting(waiting)
            pairs = joined(lists[SideName.SOURCE], lists[SideName.TARGET])
            begun = progress.position
            self._holding = TargetHolds(ledger, lists[SideName.TARGET])
            released = () if self._rules.may_vanish else ledger.released(begun)
            known = with_recorded((pair for pair in pairs if pair[0] > begun), released)
            ahead = (Listed(*pair) for pair in known)
            sequences = WaitingSequences(waiting)
            while batch := list(islice(ahead, BATCH)):
                if not self._pace.take(ledger, len(batch)):
                    return False
                with repairing_turn(ledger):
                    if self._is_unfinished():
                        return False
                    progress = self._batch(batch, sequences, progress)
                self._report(VerificationWorks(progress.instances))
            self._look_at_feed(ledger)
            done = progress.position
            note_damaged_at_source(ledger, {i for i in damaged_at_source(ledger) if i <= done})
            ended = self._delete_left(progress)
        if ended is None:
            return False
        hold_repairs(ledger, self._held)
        end_verification(ledger, ended, ended_at=self._now_s(), ends_place=self._keeps_place)
        self.ended = ended
        counts = dict(ended.counts)
        self._report(
            Verified(
                ended.instances,
                counts,
                ended.differences,
                ended.repaired,
                ended.failed,
                ended.deleted,
            )
        )
        return True

    def resume(self) -> bool:
        """End a repair that a killed process has begun; False where that is not possible now.

        Raises as ``run``.
        """
        with repairing_turn(self._ledger):
            return not self._is_unfinished()

    def look_at_source(self) -> SourceDoubt | None:
        """Ask the source whether it recycles, and note it: what it lacks then is not deleted.

        Raises SideError, StateError.
        """
        if not self._keeps_place:
            return None
        ledger, age = self._ledger, self._age(self._ledger)
        if self._deletion is not None:
            return self._deletion.look_at_source(ledger, age)
        note_source(ledger, None, recycles=bool(self._source.system().recycles), age=age)
        return None

    def look_for_lack(self, instance_ids: Sequence[str]) -> int:
        """Look whether the source lacks some instances, between two verifications.

        Somebody has said so. What it lacks is noted as a verification does, so that its grace
        begins now; nothing is deleted or repaired: that is for a verification, which knows what
        else the source lacks. Returns how many were noted. Raises as ``run``.
        """
        ledger, noted = self._ledger, 0
        self._look_at_feed(ledger)
        for instance_id in instance_ids:
            record = ledger.delivery_of(instance_id)
            if record is None or record.lacking_since is not None:
                continue
            if not self._pace.take(ledger, 1):
                return noted
            with repairing_turn(ledger):
                if self._source.has_instance(instance_id):
                    continue
                # It is believed the second time, of the source that was followed.
                self._look_at_feed(ledger)
                view, state = self._judged([Listed(instance_id, False, True)], {}, ())[0]
                lacking = _lacking(view, state, self._age(ledger))
                if lacking is not None:
                    ledger.commit(Entry(delivered=(lacking,)))
                    noted += 1
        return noted

    def _is_unfinished(self) -> bool:
        """End what a killed process has begun; tells whether that is not possible now."""
        if self._repairer is None:
            return False
        end = self._repairer.resume(self._ledger, age=self._age(self._ledger))
        if end is not RepairEnd.FAILED:
            return False
        self._report(VerificationFailed(UNFINISHED))
        return True

    def _save(self, progress: VerificationProgress) -> None:
        if self._keeps_place:
            save_progress(self._ledger, progress)

    def _list(self, side: SideName, texts: SortedTexts) -> bool:
        """List a server: the source first, so that what is moved meanwhile seems not missing."""
        client = self._source if side is SideName.SOURCE else self._target
        # The target's feed is not ours to read.
        feed = self._source if side is SideName.SOURCE else None
        listing = Listing(client, page_size=self._page_size, side=side, feed=feed)
        moves: MoveSource = listing
        if feed is not None:
            moves = ConfirmedListing(listing, place_of(feed))
        for page in pages_of(moves):
            texts.add(move.instance_id for move in page.moves)
            if side is SideName.SOURCE:
                self._instances += len(page.moves)
            if not self._pace.take(self._ledger, 1):
                return False
        return True

    def _read_waiting(self, texts: SortedTexts) -> None:
        """Note what is in the feed above the checkpoint: it is not missing but to come."""
        position = self._ledger.checkpoint() or 0
        end = feed_end(self._source)
        reader = FeedReader(
            self._source,
            position=position,
            page_size=self._page_size,
            counter=FeedCounter(self._source),
        )
        for _ in pages_asked():
            page = reader.read()
            reader.accept(page)
            texts.add(
                f"{move.instance_id} {move.sequence or 0:0{SEQUENCE_DIGITS}}" for move in page.moves
            )
            if page.done or page.frontier >= end:
                break

    # A batch

    def _batch(
        self,
        batch: Sequence[Listed],
        sequences: WaitingSequences,
        progress: VerificationProgress,
    ) -> VerificationProgress:
        """Look at instances, note what was found, and repair. The place is written at the end."""
        ledger = self._ledger
        waits = {listed.instance_id: sequences.of(listed.instance_id) for listed in batch}
        known = damaged_at_source(ledger)
        # What was damaged at the source is looked at until it is not: the next sample has others.
        sampled = frozenset(i for i in waits if self._chance() < self._rules.share or i in known)
        judged = self._judged(batch, waits, sampled)
        if any(state not in CALM for _, state in judged):
            self._look_at_feed(ledger)
        age = self._age(ledger)
        counts: Counter[str] = Counter(progress.counts)
        records: list[DeliveryRecord] = []
        found: list[tuple[CopyView, CopyState]] = []
        for listed, first in zip(batch, judged, strict=True):
            # Servers go on working: it is believed the second time.
            calm = first[1] in CALM
            view, state = first if calm else self._judged_again(listed, first[1], waits, sampled)
            counts[str(state)] += 1
            record = learned(view, state) or _lacking(view, state, age)
            if record is not None:
                records.append(record)
            if state in DIFFERENCES:
                advice = _advice(view, state)
                if _is_nowhere(view, state):
                    advice = self._holding.advice()
                self._report(CopyFound(view.instance_id, str(state), advice))
                found.append((view, state))
        damaged = {view.instance_id for view, state in found if _is_source_damaged(view, state)}
        unknown = {view.instance_id for view, state in found if state is CopyState.UNDECIDED}
        done, last = progress.position, batch[-1].instance_id
        elsewhere = {i for i in known if not done < i <= last}
        note_damaged_at_source(ledger, elsewhere | damaged | (known & unknown))
        if records:
            ledger.commit(Entry(delivered=tuple(records)))
        progress = replace(
            progress,
            counts=dict(counts),
            differences=progress.differences + len(found),
            nowhere=progress.nowhere + sum(_is_nowhere(*one) for one in found),
        )
        for view, state in found:
            progress = self._repaired(view, state, progress, age)
        progress = replace(progress, position=last, instances=progress.instances + len(batch))
        self._save(progress)
        return progress

    def _judged_again(
        self,
        listed: Listed,
        first: CopyState,
        waits: Mapping[str, int],
        sampled: Collection[str],
    ) -> tuple[CopyView, CopyState]:
        """Judge one that seems to differ. Nothing is lost at a target that is not itself now."""
        well = first is CopyState.LOST and self._holding.look(self._source, self._target)
        view, state = self._judged([listed], waits, sampled)[0]
        if _is_nowhere(view, state):
            well = well and self._holding.look(self._source, self._target)
            state = state if well else CopyState.UNDECIDED
        return view, state

    def _repaired(
        self, view: CopyView, state: CopyState, progress: VerificationProgress, age: float
    ) -> VerificationProgress:
        if self._repairer is None or state not in self._rules.repairs & REPAIRED:
            return progress
        try:
            end = self._repairer.repair(
                self._ledger,
                view.instance_id,
                state,
                instances=self._instances,
                age=age,
                judged_md5=view.target_md5,
            )
        except SideError as exc:
            self._tolerated.tolerate(exc)
            end = RepairEnd.FAILED
        match end:
            case RepairEnd.REPAIRED:
                return replace(progress, repaired=progress.repaired + 1)
            case RepairEnd.FAILED:
                return replace(progress, failed=progress.failed + 1)
            case RepairEnd.HELD:
                self._held += 1
        return progress

    def _judged(
        self, batch: Sequence[Listed], waits: Mapping[str, int], sampled: Collection[str]
    ) -> list[tuple[CopyView, CopyState]]:
        """Look and judge; both files are compared where the sums do not tell."""
        judged: dict[str, tuple[CopyView, CopyState | None]] = {}
        for view, known in self._views(batch, waits, sampled):
            state = judge_copy(view, sampled=view.instance_id in sampled)
            judged[view.instance_id] = view, state if known else CopyState.UNDECIDED
        asked = [instance_id for instance_id, (_, state) in judged.items() if state is None]
        for compared in self._comparer.comparisons((i, "") for i in asked):
            view = judged[compared.instance_id][0]
            view = self._compared(view, compared)
            state = judge_copy(view, sampled=compared.instance_id in sampled)
            judged[compared.instance_id] = view, state
        return [(view, state or CopyState.UNDECIDED) for view, state in judged.values()]

    def _compared(self, view: CopyView, compared: ImageComparison) -> CopyView:
        """Add what a comparison says. Before the copy is blamed, the source reads its own file."""
        comparison = COMPARISONS[compared.result]
        view = replace(view, comparison=comparison, fetched_md5=compared.source_md5)
        is_calm = comparison is Comparison.SAME and not is_other_file(view)
        if is_calm or view.source_readable is not None:
            return view
        try:
            return self._source_reads(view)
        except InstanceError:
            return view  # deleted meanwhile: the second look says so
        except SideError as exc:
            self._tolerated.tolerate(exc)
            return view

    def _source_reads(self, view: CopyView) -> CopyView:
        """Have the source read its file. Raises InstanceGone, InstanceError, SideError."""
        instance_id = view.instance_id
        readable: bool | None = _told(lambda: self._source.verify_stored(instance_id), None)
        if readable is False and not view.source_md5:
            readable = None  # without a sum to compare with it says so of every file
        return replace(view, source_readable=readable)

    def _views(
        self, batch: Sequence[Listed], waits: Mapping[str, int], sampled: Collection[str]
    ) -> list[tuple[CopyView, bool]]:
        """Look at instances; each with whether the servers have told what was asked."""
        both = [listed.instance_id for listed in batch if listed.at_source and listed.at_target]
        there = self._target.bulk_metadata(both)
        wanted = self._job.wanted_syntax
        # A rule may ask for more than the syntax, and what is not as wanted has a reason.
        asked = [
            instance_id
            for instance_id in both
            if self._job.rules or there.get(instance_id, {}).get("TransferSyntax") != wanted
        ]
        here = self._source.bulk_metadata(asked)
        return [
            self._view(
                listed,
                here.get(listed.instance_id),
                there.get(listed.instance_id),
                waits.get(listed.instance_id, 0),
                sampled=listed.instance_id in sampled,
            )
            for listed in batch
        ]

    def _view(
        self,
        listed: Listed,
        here: Metadata | None,
        there: Metadata | None,
        waits_for: int,
        *,
        sampled: bool,
    ) -> tuple[CopyView, bool]:
        """Look at one instance. An error that is about it alone leaves it undecided."""
        instance_id = listed.instance_id
        view = CopyView(
            instance_id,
            listed.at_source,
            listed.at_target,
            record=self._ledger.delivery_of(instance_id),
            may_vanish=self._rules.may_vanish,
        )
        try:
            if view.at_source and view.at_target:
                try:
                    view = self._both(view, here, there)
                    return (self._source_reads(view) if sampled else view), True
                except InstanceGone:
                    pass
                except InstanceError as exc:
                    if exc.reason is not Reason.PROOF_MISMATCH:
                        raise
            return self._one(view, waits_for), True
        except InstanceError:
            return view, False
        except SideError as exc:
            self._tolerated.tolerate(exc)
            return view, False

    def _both(
        self, view: CopyView, here: Metadata | None = None, there: Metadata | None = None
    ) -> CopyView:
        """Look at an instance that both hold. Raises InstanceGone, InstanceError, SideError."""
        source_md5 = _told(lambda: self._source.stored_md5(view.instance_id), "")
        view = self._copy(view)
        if view.record is not None and view.record.target_md5 != view.target_md5:
            # What is learned of another file holds for that file: its syntax is asked after its
            # MD5. The batch was asked before, and a server may have written it anew in between.
            there = None
        right = self._right_syntax(view.instance_id, here, there)
        return replace(view, source_md5=source_md5, right_syntax=right)

    def _copy(self, view: CopyView) -> CopyView:
        """Look at the target's file. Raises InstanceError when it does not hold the instance."""
        instance_id = view.instance_id
        nothing = StoredFile("", "", 0)
        md5 = _told(lambda: self._target.stored_file(instance_id), nothing).md5
        readable: bool | None = _told(lambda: self._target.verify_stored(instance_id), None)
        if readable is False and not md5:
            # Without a sum to compare with (StoreMD5ForAttachments) it says so of every file.
            readable = None
        has_file = readable is True or self._target.serves_file(instance_id)
        return replace(view, target_md5=md5, readable=readable, has_file=has_file)

    def _one(self, view: CopyView, waits_for: int) -> CopyView:
        """Ask both servers for what one of them listed, or does not hold any more."""
        instance_id = view.instance_id
        at_target = self._target.has_instance(instance_id)
        at_source = self._source.has_instance(instance_id)
        view = replace(view, at_source=at_source, at_target=at_target)
        if at_source and at_target:
            return self._both(view)
        if at_target:
            return self._copy(view) if view.record is not None else view
        if not at_source:
            return view
        waiting = waits_for > (self._ledger.checkpoint() or 0)
        parked = self._ledger.is_put_aside(instance_id)
        skipped = False
        try:
            expected = expected_handling(self._source, instance_id, self._job)
            skipped = expected.treatment is Treatment.SKIP
        except InstanceGone:
            raise
        except (InstanceError, SideError) as exc:
            # Its file is no DICOM, or the source fails at it: where it is known why the target
            # lacks it, that is all the same.
            if not (waiting or parked):
                raise
            if isinstance(exc, SideError):
                self._tolerated.tolerate(exc)
        return replace(view, skipped=skipped, waiting=waiting, parked=parked)

    def _right_syntax(
        self, instance_id: str, here: Metadata | None, there: Metadata | None
    ) -> bool | None:
        known = self._target.instance_metadata(instance_id) if there is None else there
        found = known.get("TransferSyntax")
        try:
            found = found or syntax_of_head(self._target, instance_id)
        except InstanceError:
            return None  # no file, or none that can be read: that is told by other means
        if found == self._job.wanted_syntax and not self._job.rules:
            return True
        try:
            expected = expected_handling(self._source, instance_id, self._job, known=here)
        except InstanceGone:
            raise
        except InstanceError:
            return None
        if expected.treatment in (Treatment.SKIP, Treatment.PARK):
            return None  # it was sent under other settings: nothing takes its place
        has_pixels = "PixelDataOffset" in known
        return syntax_is_right(expected, found, self._job, has_pixels=has_pixels)

    # The end

    def _delete_left(self, progress: VerificationProgress) -> VerificationProgress | None:
        """Delete what is deleted at the source, if that is wished; None when it is to end."""
        ledger, deletion, grace = self._ledger, self._deletion, self._rules.grace
        doubt = self.look_at_source()
        recycled = self._keeps_place and release_recycled(ledger, begun_age=progress.begun_age)
        if deletion is None or doubt is not None or recycled:
            return progress
        age = self._age(ledger)
        lacking = ledger.lacking_count()
        may = deletion.may_begin(ledger, lacking=lacking, instances=self._instances, age=age)
        for record in ledger.lacking():
            if not grace.is_over(record, age=age, noted_before=progress.begun_age):
                continue
            if not self._pace.take(ledger, 1):
                return None
            deleted = None
            if may:
                # A turn for each: it is not kept through a pause or quiet hours.
                with repairing_turn(ledger):
                    deleted = deletion.delete(
                        ledger, record, instances=self._instances, age=self._age(ledger)
                    )
            if deleted:
                progress = replace(progress, deleted=progress.deleted + 1)
                self._save(progress)
            self._held += deleted is None
        return progress


@dataclass(frozen=True, slots=True)
class Listed:
    """An instance, and which servers have listed it."""

    instance_id: str
    at_source: bool
    at_target: bool


class WaitingSequences:
    """The newest sequence of each instance that waits in the feed. Asked in ascending order."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self._next = self._read()

    def of(self, instance_id: str) -> int:
        """Return it; 0 where there is none."""
        found = 0
        while self._next is not None and self._next[0] <= instance_id:
            if self._next[0] == instance_id:
                found = self._next[1]
            self._next = self._read()
        return found

    def _read(self) -> tuple[str, int] | None:
        text = next(self._texts, None)
        if text is None:
            return None
        instance_id, sequence = text.split()
        return instance_id, int(sequence)


def _is_nowhere(view: CopyView, state: CopyState) -> bool:
    """Tell whether an instance that is lost is at neither server."""
    return state is CopyState.LOST and not view.at_target


def _is_source_damaged(view: CopyView, state: CopyState) -> bool:
    return state is CopyState.SOURCE_DAMAGED or view.source_readable is False


def _advice(view: CopyView, state: CopyState) -> str:
    """Say what is to be done, where that is no repair."""
    if state is CopyState.SOURCE_DAMAGED:
        return SOURCE_DAMAGED
    if state is CopyState.UNVERIFIABLE:
        return UNVERIFIABLE
    if _is_source_damaged(view, state):
        return SOURCE_DAMAGED_TOO
    return UNDECIDED if state is CopyState.UNDECIDED else ""


def _lacking(view: CopyView, state: CopyState, age: float) -> DeliveryRecord | None:
    """Return the record as it is when the source is found to lack it first, or holds it again."""
    record = view.record
    if record is None:
        return None
    if view.at_source and record.lacking_since is not None:
        return replace(record, lacking_since=None)  # the grace begins anew, whatever the copy is
    if state not in (CopyState.LEFT, CopyState.LOST):
        return None
    if record.lacking_since is not None or record.released:
        return None
    return replace(record, lacking_since=age)


def _told(ask: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
    """Ask for what a server may hide, or not have. Raises InstanceGone, SideError.

    Raises InstanceError where the target does not hold the instance.
    """
    try:
        return ask()
    except InstanceGone:
        raise
    except InstanceError as exc:
        if exc.reason is not Reason.SERVER_REFUSES_INSTANCE:
            raise
        return otherwise
    except SideError as exc:
        if exc.specific or not lacks_right(exc, Need.LOOK_AT_ONE):
            raise
        return otherwise
