"""Compares what the two servers hold: the work of ``check``, in bounded memory.

Both listings are sorted on disk and read side by side. Servers go on working meanwhile, so
whatever looks like a difference is asked for again, by itself, before it is reported.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from types import TracebackType
from typing import Protocol, Self

from bridge.checks.ask_both_servers import (
    BATCH,
    BothServers,
    Holds,
    ReadingClient,
    Show,
    ToleratedErrors,
)
from bridge.checks.described_in_order import DescribedInOrder
from bridge.checks.differences import MOVABLE, Difference, Differences, State
from bridge.checks.disk_lists import SortedTexts, joined, with_recorded
from bridge.checks.expected import expected_handling, syntax_of_head
from bridge.checks.pixels import ImageComparison, ImageResult, Images
from bridge.checks.plan import next_sequence
from bridge.checks.target_holds import KnowsDeliveries, TargetHolds
from bridge.decision import Treatment, syntax_is_right
from bridge.dicom.syntaxes import keyword_of
from bridge.errors import FeedWentBackwards, InstanceError, InstanceGone, SideError
from bridge.feed.identity import Counter, KnownPlace
from bridge.feed.listing import ConfirmedListing, Listing
from bridge.feed.pages import FeedReader, feed_end, pages_asked
from bridge.feed.sources import MoveSource, pages_of, place_of
from bridge.ledger.records import Parked
from bridge.model import Described, Job, Reason, SideName
from bridge.worker.proof import check_another_server

NOT_ITSELF = "the target holds nothing any more of what it has listed"
SKIPPED = Difference("", State.MISSING)
"""Stands for an instance that a rule keeps from the target."""
NOWHERE = Difference("", State.LOST)
"""Stands for one that neither server holds, and that has had its last copy at the target."""
DROPPED = "dropped by a person (orthanc-bridge parked list --dropped)"
DEEP_STATES = {ImageResult.DIFFERENT: State.PIXELS, ImageResult.UNDECIDED: State.UNREADABLE}


BulkMetadata = Mapping[str, Mapping[str, str]]
SYNTAX = "TransferSyntax"
ENOUGH = 20
"""Where the source is to be asked for at least one of so many, it is read from its beginning."""


class Known(KnowsDeliveries, Protocol):
    """What the ledger knows."""

    def checkpoint(self) -> int | None:
        """Return the checkpoint, or None before the first one."""

    def parked_one(self, instance_id: str) -> Parked | None:
        """Return one parked instance, or None."""

    def is_put_aside(self, instance_id: str) -> bool:
        """Tell whether an instance is parked, or was dropped and has not arrived since."""

    def released(self) -> Iterator[str]:
        """Iterate over what has its last copy at the target, by ID."""


class HoldingClient(Protocol):
    """What is needed of a server to know what it holds."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""


@dataclass(slots=True)
class Totals:
    """How much was looked at. ``seconds`` of wall clock, all of it."""

    source: int = 0
    target: int = 0
    on_both: int = 0
    skipped_by_rule: int = 0
    images_compared: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Instances compared a second."""
        return max(self.source, self.target) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class _Where:
    """An instance and which servers listed it."""

    instance_id: str
    at_source: bool
    at_target: bool
    is_waiting: bool
    is_released: bool = False
    listed_by_one: bool = False
    here: Mapping[str, str] | None = None
    there: Mapping[str, str] | None = None
    """What source and target have told of it; None where it is still to be asked."""


class Check:
    """One comparison. A context manager: it owns files and what it found.

    ``known`` is the ledger or None where there is none yet. ``sample``: how many instances, drawn
    at random, have their pixels compared; None for all of them. ``start``: from where a bridge that
    has no checkpoint yet would follow (BRIDGE_START). ``finds_lost``: whether what was delivered is
    on record of this target, and nobody empties it by the operator's wish.
    """

    def __init__(
        self,
        servers: BothServers,
        *,
        job: Job,
        known: Known | None,
        page_size: int,
        show: Show,
        images: Images | None = None,
        sample: int | None = None,
        start: str | int = "now",
        finds_lost: bool = True,
        draw: Callable[[int], int] = random.Random().randrange,  # noqa: S311, B008 (no secret)
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.totals = Totals()
        self._servers = servers
        self._job = job
        self._known = known
        self._page_size = page_size
        self._show = show
        self._images = images
        self._sample = sample
        self._start = start
        self._finds_lost = finds_lost
        self._draw = draw
        self._steady_s = steady_s
        self._stack = ExitStack()
        self.differences = self._stack.enter_context(Differences())
        self._ids = {side: self._stack.enter_context(SortedTexts()) for side in SideName}
        self._waiting = self._stack.enter_context(SortedTexts())
        self._gone = self._stack.enter_context(SortedTexts())
        self._nowhere = self._stack.enter_context(SortedTexts())
        self._tolerated = ToleratedErrors()
        self._place: KnownPlace | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self) -> None:
        """Compare. Raises SourceError, TargetError, StateError, OSError (TMPDIR is full)."""
        begun_s = self._steady_s()
        # In this order: what arrives and is moved meanwhile then seems extra, not missing.
        listed = [self._list(side) for side in (SideName.SOURCE, SideName.TARGET)]
        self._read_waiting()
        chosen = self._compare_listings(max(listed))
        if self._images is not None:
            self._compare_images(self._images, chosen)
        self.totals.seconds = self._steady_s() - begun_s

    def _list(self, side: SideName) -> int:
        client = self._servers.client(side)
        # The target's feed is not ours to read.
        feed = client if side is SideName.SOURCE else None
        listing = Listing(client, page_size=self._page_size, side=side, feed=feed)
        moves: MoveSource = listing
        if feed is not None:
            self._place = place_of(feed)
            moves = ConfirmedListing(listing, self._place)
        listed = 0
        for page in pages_of(moves):
            if page.moves and side is SideName.TARGET:
                source = self._servers.client(SideName.SOURCE)
                check_another_server(source, client, page.moves[-1].instance_id)
            self._ids[side].add(move.instance_id for move in page.moves)
            listed += len(page.moves)
            self._show(f"listing the {side}", listed, None)
        return listed

    def _read_waiting(self) -> None:
        """Remember what is in the feed above the checkpoint: it is not missing but to come.

        Up to its present end: what comes after that was not listed either.
        """
        client = self._servers.client(SideName.SOURCE)
        end = feed_end(client)
        checkpoint = self._known.checkpoint() if self._known else None
        position = next_sequence(checkpoint, start=self._start, end=end) - 1
        reader = FeedReader(
            client, position=position, page_size=self._page_size, counter=Counter(client)
        )
        for _ in pages_asked():
            try:
                page = reader.read()
            except FeedWentBackwards:
                return  # the checkpoint is another feed's: nothing is known to be on its way
            reader.accept(page)
            self._waiting.add(move.instance_id for move in page.moves)
            if page.done or page.frontier >= end:
                return

    def _wheres(self) -> Iterator[_Where]:
        waiting = iter(self._waiting)
        next_waiting = next(waiting, None)
        pairs = joined(self._ids[SideName.SOURCE], self._ids[SideName.TARGET])
        released = self._known.released() if self._known and self._finds_lost else ()
        for instance_id, at_source, at_target in with_recorded(pairs, released):
            while next_waiting is not None and next_waiting < instance_id:
                next_waiting = next(waiting, None)
            is_released = not (at_source or at_target)
            yield _Where(
                instance_id, at_source, at_target, next_waiting == instance_id, is_released
            )

    def _described(self, wheres: Iterator[_Where]) -> Iterator[_Where]:
        """Add what servers tell in pages of all that they hold, where they do.

        Of the source only where enough is to be asked: it is read from its beginning.
        """
        pages = {side: DescribedInOrder(self._servers.described(side)) for side in SideName}
        while batch := list(islice(wheres, BATCH)):
            both = [where.instance_id for where in batch if where.at_source and where.at_target]
            there = pages[SideName.TARGET].of(both)
            asked = [where.instance_id for where in batch if self._is_asked_for(where, there)]
            enough = len(asked) * ENOUGH >= len(batch)
            here = pages[SideName.SOURCE].of(asked) if enough else {}
            for where in batch:
                told = [side.get(where.instance_id) for side in (here, there)]
                known = [None if one is None else one.metadata for one in told]
                yield replace(where, here=known[0], there=known[1])

    def _is_asked_for(self, where: _Where, there: Mapping[str, Described]) -> bool:
        """Tell whether the source will be asked for an instance, as far as is known."""
        if not (where.at_source and where.at_target):
            return where.at_source
        told = there.get(where.instance_id)
        wrong = told is not None and told.metadata.get(SYNTAX) != self._job.wanted_syntax
        return wrong or bool(self._job.rules)

    def _compare_listings(self, total: int) -> list[str]:
        """Find what can be told without pixels; returns the sample, if one is wanted.

        ``total``: about how many there are. (A listing that began anew has some of them twice.)
        """
        chosen: list[str] = []
        looks = self._servers.each_together(self._look_at_many, self._described(self._wheres()))
        for number, (where, difference) in enumerate(looks):
            self.totals.source += where.at_source
            self.totals.target += where.at_target
            if where.at_source and where.at_target:
                if where.listed_by_one:
                    for ids in self._ids.values():
                        ids.add([where.instance_id])
                self._draw_sample(chosen, where.instance_id)
                self.totals.on_both += 1
            elif where.at_source and difference is None:
                self._gone.add([f"{where.instance_id} {int(where.is_waiting)}"])
            if difference is NOWHERE:
                self._nowhere.add([where.instance_id])
            else:
                self._count(difference)
            self._show("comparing", number + 1, max(total, number + 1))
        self._look_for_the_gone()
        self._look_for_the_lost()
        return chosen

    def _look_for_the_gone(self) -> None:
        """Ask again for what the source listed and then did not hold, and look whether it is it."""
        if self._place is None:
            return
        self._place.look()
        for text in self._gone:
            instance_id, waiting = text.split()
            where = _Where(instance_id, at_source=True, at_target=False, is_waiting=waiting == "1")
            self._count(self._look(where)[1])
        self._place.look()

    def _look_for_the_lost(self) -> None:
        """Ask again for what is nowhere, and look each time whether the servers are themselves."""
        if self._place is None or self._known is None:
            return
        source, target = map(self._servers.client, (SideName.SOURCE, SideName.TARGET))
        holding = TargetHolds(self._known, self._ids[SideName.TARGET])
        looked = False
        for instance_id in self._nowhere:
            if not looked:
                self._place.look()
                looked = True
            where = _Where(
                instance_id, at_source=False, at_target=False, is_waiting=False, is_released=True
            )
            well = holding.look(source, target)
            difference = self._look(where)[1]
            if difference is NOWHERE:
                well = well and holding.look(source, target)
                state, detail = State.LOST, holding.advice()
                if not well:
                    state, detail = State.UNREADABLE, NOT_ITSELF
                difference = Difference(instance_id, state, detail=detail)
            self._count(difference)
        if looked:
            self._place.look()

    def _count(self, difference: Difference | None) -> None:
        if difference is SKIPPED:
            self.totals.skipped_by_rule += 1
        elif difference is not None:
            self._note(difference)

    def _note(self, difference: Difference) -> None:
        if difference.state in (State.MISSING, State.WAITING) and self._known is not None:
            parked = self._known.parked_one(difference.instance_id)
            if parked is not None:
                syntax = difference.source_syntax or parked.source_syntax
                detail = str(parked.reason)
                difference = Difference(difference.instance_id, State.PARKED, syntax, detail=detail)
            elif self._known.is_put_aside(difference.instance_id):
                difference = replace(difference, detail=DROPPED)
        self.differences.add(difference)

    def _draw_sample(self, chosen: list[str], instance_id: str) -> None:
        """Keep each instance with the same chance (reservoir sampling, Vitter's algorithm R)."""
        if self._sample is None:
            return
        if len(chosen) < self._sample:
            chosen.append(instance_id)
            return
        place = self._draw(self.totals.on_both + 1)
        if place < self._sample:
            chosen[place] = instance_id

    # Several instances, in one of several threads

    def _look_at_many(self, wheres: Sequence[_Where]) -> list[tuple[_Where, Difference | None]]:
        """Read together what is known of instances that both have, and look at each."""
        source, target = map(self._servers.client, (SideName.SOURCE, SideName.TARGET))
        here = {where.instance_id: where.here for where in wheres if where.here is not None}
        there = {where.instance_id: where.there for where in wheres if where.there is not None}
        both = [where.instance_id for where in wheres if where.at_source and where.at_target]
        there |= target.bulk_metadata([i for i in both if i not in there])
        wanted = self._job.wanted_syntax
        # A rule may ask for more than the syntax, and what is not as wanted has a reason.
        asked = [
            instance_id
            for instance_id in both
            if self._job.rules or there.get(instance_id, {}).get(SYNTAX) != wanted
        ]
        one_sided = [w.instance_id for w in wheres if not (w.at_source and w.at_target)]
        held = {side: self._servers.held(side, one_sided) for side in SideName}
        asked += [w.instance_id for w in wheres if w.at_source and not w.at_target]
        here |= source.bulk_metadata([i for i in asked if i not in here])
        return [self._look(where, here, there, held) for where in wheres]

    def _look(
        self,
        where: _Where,
        here: BulkMetadata | None = None,
        there: BulkMetadata | None = None,
        held: Mapping[SideName, Holds] | None = None,
    ) -> tuple[_Where, Difference | None]:
        """Look at an instance. What was not read with that of others is asked for by itself."""
        source, target = map(self._servers.client, (SideName.SOURCE, SideName.TARGET))
        try:
            if not (where.at_source and where.at_target):
                return self._look_again(where, here or {}, held)
            return where, self._look_at_syntax(source, target, where, here or {}, there or {})
        except InstanceGone:
            return where, None  # deleted meanwhile
        except InstanceError as exc:
            lacks = not where.at_target or exc.reason is Reason.PROOF_MISMATCH
            if lacks and not source.has_instance(where.instance_id):
                return where, None  # deleted on both servers meanwhile
            state = State.MISSING if lacks else State.UNREADABLE
            return where, Difference(where.instance_id, state, detail=str(exc.reason))
        except SideError as exc:
            self._tolerated.tolerate(exc)
            detail = f"{exc.side}_{exc.problem}"
            return where, Difference(where.instance_id, State.UNREADABLE, detail=detail)

    def _look_again(
        self, where: _Where, here: BulkMetadata, held: Mapping[SideName, Holds] | None
    ) -> tuple[_Where, Difference | None]:
        """Ask both servers for what one of them listed.

        What both hold has arrived meanwhile, or a server was not itself while it was listed.
        """
        source, target = map(self._servers.client, (SideName.SOURCE, SideName.TARGET))
        at_source = held[SideName.SOURCE] if held else source.has_instance
        at_target = held[SideName.TARGET] if held else target.has_instance
        if where.is_released:
            both_lack = not (at_target(where.instance_id) or at_source(where.instance_id))
            return where, NOWHERE if both_lack else None
        if not at_target(where.instance_id):
            if not where.at_source or not at_source(where.instance_id):
                return where, None
            return where, self._look_at_missing(source, where, here)
        if not at_source(where.instance_id):
            return where, None if where.at_source else Difference(where.instance_id, State.EXTRA)
        where = replace(where, at_source=True, at_target=True, listed_by_one=True)
        return where, self._look_at_syntax(source, target, where, {}, {})

    def _look_at_missing(
        self, source: ReadingClient, where: _Where, here: BulkMetadata
    ) -> Difference | None:
        known = here.get(where.instance_id)
        expected = expected_handling(source, where.instance_id, self._job, known=known)
        if expected.treatment is Treatment.SKIP:
            return SKIPPED
        state = State.WAITING if where.is_waiting else State.MISSING
        return Difference(where.instance_id, state, expected.source_syntax, detail=expected.why)

    def _look_at_syntax(
        self,
        source: ReadingClient,
        target: ReadingClient,
        where: _Where,
        here: BulkMetadata,
        there: BulkMetadata,
    ) -> Difference | None:
        """Compare the syntax with the expected one. What was not read together is asked for."""
        instance_id = where.instance_id
        known = there.get(instance_id)
        if known is None:
            known = target.instance_metadata(instance_id)
        found = known.get(SYNTAX) or syntax_of_head(target, instance_id)
        if found == self._job.wanted_syntax and not self._job.rules:
            return None
        expected = expected_handling(source, instance_id, self._job, known=here.get(instance_id))
        if expected.treatment is Treatment.SKIP or syntax_is_right(
            expected, found, self._job, has_pixels="PixelDataOffset" in known
        ):
            return None
        wanted = keyword_of(expected.target_syntax) or f"none: {expected.why}"
        return Difference(
            instance_id, State.SYNTAX, expected.source_syntax, found, f"expected {wanted}"
        )

    # Pixels

    def _compare_images(self, images: Images, chosen: list[str]) -> None:
        if self._sample is not None:
            asked, total = iter(chosen), len(chosen)
        else:
            asked = (w.instance_id for w in self._wheres() if w.at_source and w.at_target)
            total = self.totals.on_both
        for compared in images.comparisons((instance_id, "") for instance_id in asked):
            self.totals.images_compared += 1
            state = DEEP_STATES.get(compared.result)
            if state is not None:
                if self._is_another_file(compared):
                    state = State.SOURCE_DAMAGED
                self.differences.add(Difference(compared.instance_id, state, detail=compared.how))
            self._show("comparing pixels", self.totals.images_compared, total)

    def _is_another_file(self, compared: ImageComparison) -> bool:
        """Tell whether the source gave another file than it notes: the copy is not to blame."""
        if not compared.source_md5:
            return False
        source = self._servers.client(SideName.SOURCE)
        try:
            noted = source.stored_md5(compared.instance_id)
        except InstanceError:
            return False
        except SideError as exc:
            self._tolerated.tolerate(exc)
            return False
        return bool(noted) and noted != compared.source_md5


# What has become of the differences that were to be mended: the end of ``check --fix``.

TOGETHER = 400
"""Instances that the source lacks, for which it is looked at together."""


def reviewed(
    differences: Differences,
    *,
    source: HoldingClient,
    target: HoldingClient,
    known: Known,
    look: Callable[[], None],
) -> Differences:
    """Look again at what was to be moved: what is at the target now is fixed.

    What the source lacks is dropped when it lacks it twice; ``look`` makes sure each time that it
    is the same source. Raises SourceError, TargetError, StateError, FeedWentBackwards.
    """
    after = Differences()
    lacking: list[Difference] = []

    def ask_again() -> None:
        if not lacking:
            return
        look()
        for difference in lacking:
            if source.has_instance(difference.instance_id):
                after.add(difference)
        look()
        lacking.clear()

    for difference in differences:
        if difference.state not in MOVABLE:
            after.add(difference)
        elif target.has_instance(difference.instance_id):
            after.add(replace(difference, state=State.FIXED, detail=""))
        elif (parked := known.parked_one(difference.instance_id)) is not None:
            after.add(replace(difference, state=State.PARKED, detail=str(parked.reason)))
        elif source.has_instance(difference.instance_id):
            after.add(difference)
        else:
            lacking.append(difference)
            if len(lacking) == TOGETHER:
                ask_again()
    ask_again()
    return after
