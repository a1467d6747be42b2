"""Brings what lies beside the files, beside the bridge, in a thread of its own (BRIDGE_CARRY).

What is to be looked at is known from four places:

- The feed, behind the checkpoint: what is at or below it is delivered and proved, or put aside.
  Rows of new instances, of updated metadata and of updated attachments count; the place in the feed
  is on record, so a kill loses none.
- Hints, in memory: what is delivered without a row (a retry, a snapshot, a recount), and copies
  that were repaired. A kill loses them.
- What could not be brought, when it is due.
- A round over all resources of the source, again and again. It finds what no row tells of: labels,
  rows that became visible late, and hints that were lost.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from bridge.checks.disk_lists import SortedTexts
from bridge.errors import BridgeError
from bridge.events import (
    CarryRoundEnded,
    CarryStopped,
    CarryWorks,
    CopyRepaired,
    Event,
    Observer,
    ParkedRetried,
    Progress,
    Settled,
)
from bridge.feed.listing import listed_pages
from bridge.ledger.lock import explained
from bridge.ledger.store import (
    CARRY_CAUGHT_UP_KEY,
    CARRY_LAST_KEY,
    CARRY_POSITION_KEY,
    CARRY_ROUND_KEY,
    Ledger,
)
from bridge.mirror.beside_files import LONGEST_S
from bridge.mirror.beside_thread import BesideThread
from bridge.mirror.carry import Carrier, CarryCounts
from bridge.mirror.told_instances import ToldInstances
from bridge.mirror.verify import VerificationPace
from bridge.model import Delivered, Page, ResourceKind, SideName

BATCH = 100
"""Resources that are looked at together."""
CARRY_RATE_S = 500.0
"""Resources a second at most: a batch is a few requests, and deliveries go on beside it."""
ROWS = 1000
"""Rows of the feed that are read together."""
LISTED_A_REQUEST = 1000
HINTS_MAX = 20_000
"""Deliveries without a row that are remembered; the round finds the others."""
NOTED_EVERY_S = 30.0
"""So often it is written down that nothing is left to be done."""
NEW = "NewInstance"
UPDATED = frozenset({"UpdatedMetadata", "UpdatedAttachment"})


class CarriedFeed(Protocol):
    """What is needed of the source to know what has changed."""

    def changes(self, since: int, limit: int, *, only_new_instances: bool = False) -> Page:
        """Return the rows after ``since``."""

    def list_resources(self, kind: ResourceKind, since: int, limit: int) -> list[str]:
        """List identifiers of a kind by position."""


class Hints(ToldInstances):
    """An observer that remembers what was delivered without a row in the feed."""

    def __init__(self) -> None:
        super().__init__(HINTS_MAX)

    def on_event(self, event: Event) -> None:
        """Note a delivery."""
        match event:
            case Settled(outcome=Delivered(), move=move) if move.sequence is None:
                self.add([move.instance_id])
            case ParkedRetried(move=move, result="delivered"):
                self.add([move.instance_id])
            case CopyRepaired(instance_id=instance_id):
                self.add([instance_id])
            case _:
                pass

    def on_progress(self, progress: Progress) -> None:
        """Nothing to note."""


@dataclass(frozen=True, slots=True)
class RoundProgress:
    """How far a round is. ``position``: all identifiers up to it are done. Times: epoch seconds."""

    begun_at: float
    position: str = ""
    resources: int = 0
    left: int = 0
    failed: int = 0
    ended_at: float = 0.0

    def after(self, position: str, counts: CarryCounts) -> RoundProgress:
        """Return how far it is after some more resources."""
        return replace(
            self,
            position=position,
            resources=self.resources + counts.resources,
            left=self.left + counts.left,
            failed=self.failed + counts.failed,
        )


class CarryThread(BesideThread):
    """Looks and brings until it is stopped.

    ``every_s``: from the beginning of a round to that of the next one. ``look_at_feed`` raises
    FeedWentBackwards when the source is not the one that the ledger knows.
    """

    def __init__(
        self,
        carrier: Carrier,
        feed: CarriedFeed,
        *,
        state_path: Path,
        every_s: float,
        pace: VerificationPace,
        hints: Hints,
        look_at_feed: Callable[[Ledger], None],
        observer: Observer,
        stop: threading.Event,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._carrier = carrier
        self._feed = feed
        super().__init__(
            "carry",
            self.carry_some,
            state_path=state_path,
            observer=observer,
            stop=stop,
            stopped=CarryStopped,
            works=CarryWorks,
            says=("carry_stopped", "nothing is brought beside files"),
            release=self.let_go,
        )
        self._every_s = every_s
        self._pace = pace
        self._hints = hints
        self._look_at_feed = look_at_feed
        self._now_s = now_s
        self._stack = ExitStack()
        self._under_way: Iterator[Sequence[str]] | None = None
        self._listed: Iterable[str] = ()
        self._noted_at = 0.0

    def carry_some(self, ledger: Ledger) -> bool:
        """Do a part of what there is; False where nothing is left.

        Raises SideError, StateError, FeedWentBackwards, OSError (TMPDIR is full): what was not
        done is done the next time.
        """
        checkpoint = ledger.checkpoint()
        if checkpoint is None:
            return False  # nobody would know the source again
        position = self._position(ledger, checkpoint)
        due = ledger.carry_due(self._now_s(), BATCH, longest_s=LONGEST_S)
        if not (len(self._hints) or due or position < checkpoint):
            self._note_caught_up(ledger)
            return self._round_is_due(ledger) and self._round(ledger)
        self._look_at_feed(ledger)
        self._hinted(ledger)
        if due and not self._stop.is_set() and self._pace.take(ledger, len(due)):
            self._carrier.carry(ledger, due)
        if position < checkpoint and not self._stop.is_set():
            self._rows(ledger, position, checkpoint)
        return True

    def _position(self, ledger: Ledger, checkpoint: int) -> int:
        """Return the place in the feed. Of another feed, or of none yet: the round finds all."""
        text = ledger.meta(CARRY_POSITION_KEY)
        with explained(ledger.path):
            position = None if text is None else int(text)
        if position is None or position > checkpoint:
            self.let_go()
            for key in (CARRY_ROUND_KEY, CARRY_LAST_KEY):
                ledger.set_meta(key, None)
            ledger.set_meta(CARRY_POSITION_KEY, str(checkpoint))
            return checkpoint
        return position

    def _hinted(self, ledger: Ledger) -> None:
        taken = self._hints.take(BATCH)
        if not taken:
            return
        try:
            if self._pace.take(ledger, len(taken)):
                self._carrier.carry_deliveries(ledger, taken)
        except BridgeError:
            self._hints.add(taken)
            raise

    def _rows(self, ledger: Ledger, position: int, checkpoint: int) -> None:
        """Read some rows of the feed and do what they tell of; then the place is written."""
        page = self._feed.changes(position, ROWS)
        rows = [row for row in page.changes if row.sequence <= checkpoint and row.resource_id]
        new = dict.fromkeys(row.resource_id for row in rows if row.change_type == NEW)
        changed = dict.fromkeys(row.resource_id for row in rows if row.change_type in UPDATED)
        for batch in _batches(new):
            if not self._pace.take(ledger, len(batch)):
                return
            self._carrier.carry_deliveries(ledger, batch)
        for batch in _batches(changed):
            if not self._pace.take(ledger, len(batch)):
                return
            self._carrier.carry(ledger, batch)
        last = page.changes[-1].sequence if page.changes else checkpoint
        reached = checkpoint if page.done else min(last, checkpoint)
        ledger.set_meta(CARRY_POSITION_KEY, str(reached))
        if reached == checkpoint:
            # More may have come meanwhile: what was there at the beginning is done.
            self._note_caught_up(ledger)

    def _note_caught_up(self, ledger: Ledger) -> None:
        now = self._now_s()
        if not 0 <= now - self._noted_at < NOTED_EVERY_S:
            self._noted_at = now
            ledger.set_meta(CARRY_CAUGHT_UP_KEY, repr(now))

    # The round

    def _round(self, ledger: Ledger) -> bool:
        """Do a batch of the round that is due; False when it has come to its end."""
        self._look_at_feed(ledger)
        progress = round_of(ledger, CARRY_ROUND_KEY)
        if progress is None:
            progress = RoundProgress(self._now_s())
            _save(ledger, CARRY_ROUND_KEY, progress)
        if self._under_way is None:
            self._under_way = self._batches_of_round(progress.position)
        batch = next(self._under_way, None)
        if batch is None:
            self._finish_round(ledger, progress)
            return False
        if batch and self._pace.take(ledger, len(batch)):
            counts = self._carrier.carry(ledger, batch)
            _save(ledger, CARRY_ROUND_KEY, progress.after(batch[-1], counts))
        return True

    def _round_is_due(self, ledger: Ledger) -> bool:
        if self._under_way is not None or round_of(ledger, CARRY_ROUND_KEY) is not None:
            return True
        last = round_of(ledger, CARRY_LAST_KEY)
        return last is None or not 0 <= self._now_s() - last.begun_at < self._every_s

    def let_go(self) -> None:
        """Forget the list of the round under way; the round goes on where the ledger says."""
        self._under_way = None
        self._stack.close()

    def _batches_of_round(self, position: str) -> Iterator[Sequence[str]]:
        """Yield all resources of the source above ``position``; nothing after each page of a list.

        Others are done between two of them.
        """
        texts = self._stack.enter_context(SortedTexts())
        for kind in ResourceKind:
            since = 0
            for _ in listed_pages(SideName.SOURCE):
                listed = self._feed.list_resources(kind, since, LISTED_A_REQUEST)
                if not listed:
                    break
                texts.add(listed)
                since += len(listed)
                yield ()
        self._listed = texts
        ahead = (text for text in texts if text > position)
        while batch := list(islice(ahead, BATCH)):
            yield batch

    def _finish_round(self, ledger: Ledger, progress: RoundProgress) -> None:
        self._forget_gone(ledger, self._listed)
        self.let_go()
        progress = replace(progress, position="", ended_at=self._now_s())
        _save(ledger, CARRY_LAST_KEY, progress)
        ledger.set_meta(CARRY_ROUND_KEY, None)
        self._observer.on_event(CarryRoundEnded(progress.resources, progress.left, progress.failed))

    def _forget_gone(self, ledger: Ledger, listed: Iterable[str]) -> None:
        """Forget what was written for resources that the source does not hold any more.

        What came since the list was read is not in it, so the source is asked for each.
        """
        known = iter(listed)
        at = next(known, None)
        gone = []
        for resource_id in list(ledger.all_carried()):
            while at is not None and at < resource_id:
                at = next(known, None)
            if at != resource_id:
                gone.append(resource_id)
        for batch in _batches(dict.fromkeys(gone)):
            self._carrier.forget_gone(ledger, batch)


def round_of(ledger: Ledger, key: str) -> RoundProgress | None:
    """Return a round that the state file knows. Raises StateError."""
    text = ledger.meta(key)
    if text is None:
        return None
    with explained(ledger.path):
        told: dict[str, Any] = json.loads(text)
        return RoundProgress(
            begun_at=float(told["begun_at"]),
            position=str(told["position"]),
            resources=int(told["resources"]),
            left=int(told["left"]),
            failed=int(told["failed"]),
            ended_at=float(told["ended_at"]),
        )


def _save(ledger: Ledger, key: str, progress: RoundProgress) -> None:
    ledger.set_meta(key, json.dumps(asdict(progress)))


def _batches(ids: dict[str, None]) -> Iterator[Sequence[str]]:
    stream = iter(ids)
    while batch := list(islice(stream, BATCH)):
        yield batch
