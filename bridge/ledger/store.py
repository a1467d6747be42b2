"""The ledger: what must survive a crash, in one SQLite file.

A state change and its record commit together: one transaction settles, parks, and moves the
checkpoint. WAL mode with synchronous=NORMAL: a killed process loses nothing, a power cut may
lose the last transactions, which only means that a few instances are delivered again (G1). What
must not be lost then either, before something is done at a server, is written durably.
"""

from __future__ import annotations

import hashlib
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import fields
from functools import cache
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from bridge.errors import StateError
from bridge.ledger.lock import explained, locked, prepared
from bridge.ledger.records import (
    Attempts,
    DeliveryRecord,
    Due,
    EndedAs,
    Entry,
    Kept,
    MissedAt,
    Parked,
    SignDue,
    StudyRecord,
    TriedBy,
)
from bridge.model import REMEMBERED, CounterLag, Gap, Move, OpenGaps, Reason, Study
from bridge.own_files import make_directory
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX, cleaned

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 14
FORGOTTEN_KEY = "studies_forgotten_before"
"""Ledger: up to when studies were forgotten, epoch seconds."""
NEWEST_DATE_KEY = "newest_change_at"
"""Ledger: the latest date of any row of the feed that was read in order."""
GIVEN_UP_KEY = "gaps_given_up"
"""Ledger: how many sequences of the feed were dropped unseen since the servers were compared."""
COUNTER_LAG_KEY = "counter_lag"
"""Ledger: where the source's counter was seen to stay below a row: "counter row"."""
GAPS_NOTED_KEY = "gaps_noted"
"""Ledger: gaps below the checkpoint are on record; no bridge before schema 4 did that."""
BUSY_TIMEOUT_S = 10.0
PAGE_ROWS_MAX = 500
DELIVERIES_TO_KEY = "deliveries_to"
"""The target that the records of deliveries are about."""
METAS_MAX = 1000
CELL_CHARACTERS_MAX = 64 * 1024
COUNT_MAX = 2**63 - 1
"""Of SQLite."""
STUDIES_FORGOTTEN_MAX = 20
"""So many old studies are forgotten with each transaction that tells of new ones."""
_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
CARRY_POSITION_KEY = "carry_position"
"""Ledger: up to this row of the feed labels, metadata and attachments were brought."""
CARRY_ROUND_KEY = "carry_round"
"""Ledger: the round over all of them that is under way, as JSON."""
CARRY_LAST_KEY = "carry_last"
"""Ledger: the last one that came to its end, as JSON."""
CARRY_CAUGHT_UP_KEY = "carry_caught_up_at"
"""Ledger: when nothing was left to be brought, epoch seconds."""
CARRY_KEYS = (CARRY_POSITION_KEY, CARRY_ROUND_KEY, CARRY_LAST_KEY, CARRY_CAUGHT_UP_KEY)
CARRY_WAITING_MAX = 10_000
"""So many resources wait to be tried again; the next round finds the others."""
SIGN_BEGUN_KEY = "sign_begun"
"""Ledger: instances that are being signed at the source, with their files, as JSON."""
SIGNS_COUNTED_MAX = 100_000
MOMENT_MAX = 253_402_300_799.0
"""The last second of the year 9999."""


@cache
def _statements() -> dict[str, str]:
    text = resources.files("bridge.ledger").joinpath("store.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _steps(step: int) -> list[str]:
    script = re.sub(r"^\s*--.*$", "", _statements()[f"schema_{step}"], flags=re.MULTILINE)
    return list(filter(str.strip, script.split(";")))


def schema_of(version: int) -> frozenset[tuple[str, str]]:
    """Return what a state file of a schema has: ("table" or "index", name)."""
    with closing(sqlite3.connect(":memory:")) as db:
        for step in range(1, version + 1):
            for statement in _steps(step):
                db.execute(statement)
        return frozenset((kind, name) for kind, name in db.execute(_SCHEMA))


_SCHEMA = "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"


class Ledger:
    """The state of one bridge.

    ``follow=True`` takes the lock that only one following bridge can hold. Without it the file
    may be used beside a running bridge (replay, status, parked). Raises StateError whenever the
    file cannot be used, with what the operator should do.
    """

    def __init__(self, path: Path, *, follow: bool = False, create: bool = True) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        with explained(path):
            self._sql = _statements()
            if path.is_dir():
                raise StateError(
                    f"BRIDGE_STATE_PATH ({path}) is a directory.", advice="Name a file in it."
                )
            if not create and not path.exists():
                raise StateError(
                    f"There is no state file at BRIDGE_STATE_PATH ({path}).",
                    advice="Start the bridge once (orthanc-bridge run), or correct the setting.",
                )
            make_directory(path.parent)
        if follow:
            self._lock = locked(self.path)
        try:
            with explained(self.path):
                self._db = self._connect()
        except StateError:
            self._release_lock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give up the lock. May be called twice."""
        self._db.close()
        self._release_lock()

    def checkpoint(self) -> int | None:
        """Return the checkpoint, or None before the first one."""
        value = self.meta("checkpoint")
        with explained(self.path):
            return None if value is None else count_of(int(value))

    def settled_above(self) -> list[int]:
        """List the settled sequences above the checkpoint, ascending."""
        with explained(self.path):
            return [count_of(row[0]) for row in self._db.execute(self._sql["list_settled"])]

    def recent(self) -> dict[int, str]:
        """Return the remembered rows of the feed: sequence -> instance ID."""
        with explained(self.path):
            rows = self._db.execute(self._sql["list_recent"])
            return {count_of(row[0]): text_of(row[1]) for row in rows}

    def gaps(self) -> tuple[Gap, ...]:
        """Return the sequences below what was read that nobody has seen, ascending."""
        with explained(self.path):
            rows = self._db.execute(self._sql["list_gaps"]).fetchall()
            return tuple(
                Gap(count_of(first), count_of(last), moment_of(at), bool(counted))
                for first, last, at, counted in rows
            )

    def open_gaps(self) -> OpenGaps:
        """Count the open gaps and their sequences, and tell since when the oldest is known."""
        with explained(self.path):
            return OpenGaps(*self._db.execute(self._sql["sum_gaps"]).fetchone())

    def gaps_given_up(self) -> int:
        """Return how many sequences were dropped unseen since the servers were compared."""
        told = self.meta(GIVEN_UP_KEY) or 0
        with explained(self.path):
            return count_of(int(told))

    def counter_lag(self) -> CounterLag | None:
        """Return where the source's counter was seen to stay below a row; None for nowhere."""
        told = self.meta(COUNTER_LAG_KEY)
        with explained(self.path):
            if told is None:
                return None
            counter, position = (count_of(int(part)) for part in told.split())
            return CounterLag(counter, position)

    def answer_given_up(self, count: int) -> None:
        """Subtract so many of those that were dropped unseen: the servers were compared."""
        with explained(self.path), self._transaction():
            row = self._db.execute(self._sql["get_meta"], {"key": GIVEN_UP_KEY}).fetchone()
            left = max(0, (int(row[0]) if row else 0) - count)
            self._set_meta(GIVEN_UP_KEY, str(left))

    def attempts(self) -> dict[str, Attempts]:
        """Return the attempts spent on unfinished instances, by instance ID."""
        with explained(self.path):
            rows = self._db.execute(self._sql["list_attempts"])
            return {text_of(row[0]): Attempts(count_of(row[1]), moment_of(row[2])) for row in rows}

    def read_all(self) -> None:
        """Read every row once. Raises StateError where one holds what no bridge writes."""
        self.checkpoint()
        self.settled_above()
        self.recent()
        self.gaps()
        self.gaps_given_up()
        self.counter_lag()
        self.attempts()
        self.open_gaps()
        parked, dropped = self.parked(), self.parked(dropped=True)
        self.carry_waiting()
        self.signs_due(MOMENT_MAX, SIGNS_COUNTED_MAX, longest_s=math.inf)
        for rows in (parked, dropped, self.all_kept(), self._all_delivered(), self.all_carried()):
            for _ in rows:
                pass

    def commit(self, entry: Entry) -> None:
        """Write one transaction, all of it or nothing."""
        with explained(self.path), self._transaction():
            self._write(entry)

    def restart_at(
        self,
        checkpoint: int,
        *,
        recent: Iterable[tuple[int, str]] = (),
        newest_date: str = "",
        ours_from: int | None = None,
        gaps: Iterable[Gap] = (),
    ) -> None:
        """Begin a new history at ``checkpoint``: forget settled and recent rows, keep parked.

        ``recent``: rows at or below it, which tell another history from this one. ``ours_from``:
        rows above that and below ``checkpoint`` which are not among them came late and are to be
        moved; the default is none. ``gaps``: sequences below it that are still to become visible.
        """
        with explained(self.path), self._transaction():
            for name in ("clear_settled", "clear_recent", "clear_gaps"):
                self._db.execute(self._sql[name])
            self._set_meta("checkpoint", str(checkpoint))
            floor = checkpoint if ours_from is None else ours_from
            self._set_meta("history_from", str(floor))
            self._set_meta(GAPS_NOTED_KEY, "1")
            rows = [{"sequence": s, "instance_id": i} for s, i in recent]
            self._db.executemany(self._sql["add_recent"], rows)
            self._db.executemany(self._sql["set_gap"], [_parameters(gap) for gap in gaps])
            for key in (NEWEST_DATE_KEY, COUNTER_LAG_KEY):
                self._db.execute(self._sql["delete_meta"], {"key": key})
            if newest_date:
                self._set_meta(NEWEST_DATE_KEY, newest_date)

    def meta(self, key: str) -> str | None:
        """Return a remembered text, or None."""
        with explained(self.path):
            row = self._db.execute(self._sql["get_meta"], {"key": key}).fetchone()
            return None if row is None else text_of(row[0])

    def metas(self, begin: str) -> list[str]:
        """List the remembered texts whose keys begin so, by key, 1,000 at most."""
        with explained(self.path):
            wanted = {"begin": begin, "limit": METAS_MAX}
            return [text_of(row[0]) for row in self._db.execute(self._sql["list_metas"], wanted)]

    def set_meta(self, key: str, value: str | None, *, durably: bool = False) -> None:
        """Remember a text; None forgets it. ``durably``: it survives a power cut from now on."""
        on_disk = self._durably() if durably else nullcontext()
        with explained(self.path), on_disk, self._transaction():
            if value is None:
                self._db.execute(self._sql["delete_meta"], {"key": key})
            else:
                self._set_meta(key, value)

    def parked(
        self,
        *,
        reason: Reason | None = None,
        parked_before: float | None = None,
        dropped: bool = False,
    ) -> Iterator[Parked]:
        """Iterate over the parked instances by ID, in bounded pages.

        ``parked_before``: only those parked at or before this time, epoch seconds. ``dropped``:
        over those that a person let go of instead, and that have not been delivered since.
        """
        listing = "list_dropped" if dropped else "list_parked"
        after = ""
        while True:
            wanted = {
                "reason": reason,
                "parked_before": parked_before,
                "after": after,
                "limit": PAGE_ROWS_MAX,
            }
            with explained(self.path):
                rows = self._db.execute(self._sql[listing], wanted).fetchall()
                page = [_parked(row) for row in rows]
            yield from page
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = rows[-1]["instance_id"]

    def parked_one(self, instance_id: str) -> Parked | None:
        """Return one parked instance, or None."""
        with explained(self.path):
            row = self._db.execute(self._sql["get_parked"], {"instance_id": instance_id}).fetchone()
            return None if row is None else _parked(row)

    def first_due(self, due: Due) -> Parked | None:
        """Return the parked instance of this kind that was tried longest ago, or None."""
        with explained(self.path):
            row = self._db.execute(self._sql["first_due"], _parameters(due)).fetchone()
            return None if row is None else _parked(row)

    def begin_retry(
        self, parked: Parked, *, now: float, meta: tuple[str, str] | None = None
    ) -> bool:
        """Note that a parked instance is about to be tried again, now (epoch seconds).

        Noted before: a process that dies of the attempt does not try it again at each start.
        ``meta``: a key and a text to remember with it. False, and nothing is noted, where it is no
        longer parked or was tried by somebody else.
        """
        wanted = {
            "instance_id": parked.move.instance_id,
            "retries": parked.retries,
            "tried_at": parked.tried_at,
            "now": now,
        }
        with explained(self.path), self._transaction():
            if not self._db.execute(self._sql["begin_retry"], wanted).rowcount:
                return False
            if meta is not None:
                self._set_meta(*meta)
            return True

    def kept(self, *, aged_before: float, limit: int) -> list[Kept]:
        """List delivered instances of that age, the oldest first; parked or unfinished ones never.

        ``aged_before``: by the age clock. What was delivered since ``begin_ages`` is not listed.
        """
        wanted = {"aged_before": aged_before, "limit": limit}
        with explained(self.path):
            rows = self._db.execute(self._sql["list_kept"], wanted).fetchall()
            return [_kept(row) for row in rows]

    def all_kept(self) -> Iterator[Kept]:
        """Iterate over every delivered instance that may still be at the source, in pages."""
        after = ""
        while True:
            with explained(self.path):
                wanted = {"after": after, "limit": PAGE_ROWS_MAX}
                rows = self._db.execute(self._sql["page_kept"], wanted).fetchall()
                page = [_kept(row) for row in rows]
            yield from page
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = rows[-1]["instance_id"]

    def may_go(self, instance_id: str) -> bool:
        """Tell whether an instance is neither parked nor unfinished."""
        with explained(self.path):
            row = self._db.execute(self._sql["is_open"], {"instance_id": instance_id}).fetchone()
            return row is None

    def is_put_aside(self, instance_id: str) -> bool:
        """Tell whether an instance is parked, or was dropped and has not arrived since."""
        with explained(self.path):
            wanted = {"instance_id": instance_id}
            return self._db.execute(self._sql["is_put_aside"], wanted).fetchone() is not None

    def delivery_of(self, instance_id: str) -> DeliveryRecord | None:
        """Return the record of an instance that this bridge has delivered, or None."""
        with explained(self.path):
            wanted = {"instance_id": instance_id}
            row = self._db.execute(self._sql["get_delivered"], wanted).fetchone()
            return None if row is None else _delivery(row)

    def _all_delivered(self) -> Iterator[DeliveryRecord]:
        """Iterate over the records of deliveries, in pages."""
        after = ""
        while True:
            with explained(self.path):
                wanted = {"after": after, "limit": PAGE_ROWS_MAX}
                rows = self._db.execute(self._sql["page_delivered"], wanted).fetchall()
                page = [_delivery(row) for row in rows]
            yield from page
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = rows[-1]["instance_id"]

    def delivered_count(self) -> int:
        """Count the instances that this bridge has delivered, as far as it has a record."""
        with explained(self.path):
            return count_of(self._db.execute(self._sql["count_delivered"]).fetchone()[0])

    def lacking_count(self) -> int:
        """Count those of them that the source was found to lack."""
        with explained(self.path):
            return count_of(self._db.execute(self._sql["count_lacking"]).fetchone()[0])

    def lacking(self) -> Iterator[DeliveryRecord]:
        """Iterate over those that the source was found to lack, by ID, in bounded pages."""
        after = ""
        while True:
            with explained(self.path):
                wanted = {"after": after, "limit": PAGE_ROWS_MAX}
                rows = self._db.execute(self._sql["list_lacking"], wanted).fetchall()
                page = [_delivery(row) for row in rows]
            yield from page
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = rows[-1]["instance_id"]

    def released(self, after: str = "") -> Iterator[str]:
        """Iterate over what was delivered and has its last copy at the target, as far as is known.

        By ID, in bounded pages, those above ``after``.
        """
        while True:
            with explained(self.path):
                wanted = {"after": after, "limit": PAGE_ROWS_MAX}
                rows = self._db.execute(self._sql["list_released"], wanted).fetchall()
                page = [text_of(row[0]) for row in rows]
            yield from page
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = page[-1]

    def has_delivered_to(self, target_url: str) -> bool:
        """Tell whether the records of deliveries are of this target, as far as is known."""
        return self.meta(DELIVERIES_TO_KEY) in (None, _digest_of(target_url))

    def forget_released(self, instance_id: str) -> bool:
        """Forget what has its last copy at the target; False where it was delivered anew since."""
        with explained(self.path), self._transaction():
            wanted = {"instance_id": instance_id}
            return self._db.execute(self._sql["forget_released"], wanted).rowcount > 0

    def forget_delivery(self, instance_id: str) -> None:
        """Forget the record of an instance that is at neither server any more."""
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["forget_delivered"], {"instance_id": instance_id})

    def bind_deliveries(self, target_url: str) -> int:
        """Forget all records of deliveries when they were made to another target; returns how many.

        What another server holds under the identifiers on record is not this bridge's. Called
        before anything is delivered, repaired or deleted. The address is kept as a digest.
        """
        digest = _digest_of(target_url)
        known = self.meta(DELIVERIES_TO_KEY)
        if known == digest:
            return 0
        with explained(self.path), self._transaction():
            forgotten = 0
            if known is not None:
                forgotten = self._db.execute(self._sql["forget_all_delivered"]).rowcount
                for name in ("forget_all_carried", "clear_carry_waiting", "clear_signs"):
                    self._db.execute(self._sql[name])
                for key in CARRY_KEYS:
                    self._db.execute(self._sql["delete_meta"], {"key": key})
            self._set_meta(DELIVERIES_TO_KEY, digest)
        return forgotten

    # What was brought beside the files: BRIDGE_CARRY.

    def carried(self, resource_id: str, name: str) -> tuple[str, str]:
        """Return the digests of the values that this bridge has written, "" for none."""
        with explained(self.path):
            wanted = {"resource_id": resource_id, "name": name}
            row = self._db.execute(self._sql["get_carried"], wanted).fetchone()
            return ("", "") if row is None else (text_of(row[0]), text_of(row[1]))

    def set_carried(self, resource_id: str, name: str, digest: str, before: str = "") -> None:
        """Note a value before it is written. ``before``: what may be there until then."""
        wanted = {"resource_id": resource_id, "name": name, "digest": digest, "before": before}
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["set_carried"], wanted)

    def all_carried(self) -> Iterator[str]:
        """Iterate over the resources of which something was brought, by ID, in pages."""
        after = ""
        while True:
            with explained(self.path):
                wanted = {"after": after, "limit": PAGE_ROWS_MAX}
                rows = self._db.execute(self._sql["page_carried"], wanted).fetchall()
                page = [text_of(row[0]) for row in rows]
            yield from page
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = page[-1]

    def forget_carried(self, resource_ids: Iterable[str]) -> None:
        """Forget resources that the source does not hold any more."""
        rows = [{"resource_id": one} for one in resource_ids]
        with explained(self.path), self._transaction():
            self._db.executemany(self._sql["forget_carried"], rows)
            self._db.executemany(self._sql["carry_ends"], rows)

    def carry_waits(self, resource_id: str) -> tuple[int, float] | None:
        """Return how often a resource was tried in vain, and when it is tried again; or None."""
        with explained(self.path):
            wanted = {"resource_id": resource_id}
            row = self._db.execute(self._sql["get_carry_waiting"], wanted).fetchone()
            return None if row is None else (count_of(row[0]), moment_of(row[1]))

    def set_carry_waiting(self, resource_id: str, *, now: float, next_at: float) -> None:
        """Note that a resource was tried in vain. Times: epoch seconds."""
        wanted = {"resource_id": resource_id, "now": now, "next_at": next_at}
        with explained(self.path), self._transaction():
            known = self._db.execute(self._sql["get_carry_waiting"], wanted).fetchone()
            count = self._db.execute(self._sql["sum_carry_waiting"]).fetchone()[0]
            if known is not None or count < CARRY_WAITING_MAX:
                self._db.execute(self._sql["carry_waits"], wanted)

    def end_carry_waiting(self, resource_id: str) -> None:
        """Note that a resource does not wait any more."""
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["carry_ends"], {"resource_id": resource_id})

    def carry_due(self, now: float, limit: int, *, longest_s: float) -> list[str]:
        """List resources that are to be tried again, the longest due first.

        ``longest_s``: the longest pause. What waits for longer was put off by a clock that was
        ahead, and is due.
        """
        wanted = {"now": now, "latest": now + longest_s, "limit": limit}
        with explained(self.path):
            rows = self._db.execute(self._sql["carry_due"], wanted)
            return [text_of(row[0]) for row in rows]

    def carry_waiting(self) -> tuple[int, float | None]:
        """Count the resources that wait, and tell since when the first does, epoch seconds."""
        with explained(self.path):
            count, since = self._db.execute(self._sql["sum_carry_waiting"]).fetchone()
            return count_of(count), None if since is None else moment_of(since)

    # What is to be signed at the source: BRIDGE_DELIVERED_SIGN.

    def signs_due(self, now: float, limit: int, *, longest_s: float) -> list[SignDue]:
        """List deliveries that are to be signed now, as ``carry_due`` does."""
        wanted = {"now": now, "latest": now + longest_s, "limit": limit}
        with explained(self.path):
            rows = self._db.execute(self._sql["signs_due"], wanted)
            return [SignDue(text_of(row[0]), moment_of(row[1]), count_of(row[2])) for row in rows]

    def postpone_sign(self, due: SignDue, *, next_at: float) -> None:
        """Note that a delivery could not be signed, unless it was delivered again since."""
        wanted = _parameters(due) | {"next_at": next_at}
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["postpone_sign"], wanted)

    def end_sign(self, due: SignDue) -> None:
        """Note that a delivery is not to be signed any more, unless it came again since."""
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["end_sign"], _parameters(due))

    def signs_waiting(self) -> tuple[int, float | None, float | None]:
        """Count what is to be signed, up to SIGNS_COUNTED_MAX, and tell since when, epoch s.

        The third: since when the first waits that was tried in vain.
        """
        with explained(self.path):
            count = self._db.execute(self._sql["count_signs"], {"limit": SIGNS_COUNTED_MAX})
            firsts = [
                self._db.execute(self._sql[name]).fetchone()[0]
                for name in ("first_sign", "first_sign_in_vain")
            ]
            since, in_vain = (None if at is None else moment_of(at) for at in firsts)
            return count_of(count.fetchone()[0]), since, in_vain

    def begin_ages(self, now: float) -> None:
        """Let the age of whatever was delivered since the last time count from now."""
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["begin_ages"], {"now": now})

    def note_files(self, kept: Kept) -> None:
        """Note the names of an instance's files and its age, unless the evidence was replaced."""
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["note_files"], _parameters(kept))

    def deleted(self, kept: Kept, *, now: float) -> None:
        """Note that an instance was deleted at the source now, by the age clock."""
        minute = int(now // 60)
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["forget_kept"], _parameters(kept))
            self._db.execute(self._sql["release_delivered"], {"instance_id": kept.instance_id})
            self._db.execute(self._sql["count_deletion"], {"minute": minute})
            self._db.execute(self._sql["forget_deletions"], {"minute": minute - 2 * 24 * 60})

    def keep_again(self, kept: Kept, *, aged_from: float) -> None:
        """Take back that an instance was deleted at the source, unless there is newer evidence.

        ``aged_from``: from when on it counts as old, by the age clock.
        """
        with explained(self.path), self._transaction():
            self._db.execute(
                self._sql["add_kept_again"], _parameters(kept) | {"aged_from": aged_from}
            )

    def release_delivery(self, instance_id: str) -> None:
        """Note that retention takes the source's copy: the target's stays for good."""
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["release_delivered"], {"instance_id": instance_id})

    def release_kept(self) -> None:
        """Note that nothing is deleted at the source any more, and that all of it may be already.

        A ledger that was copied while retention was on does not know what retention has deleted
        since: that is among what waited to be deleted. The target's copies of it stay for good,
        until the source's instances are delivered anew.
        """
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["release_kept"])
            self._db.execute(self._sql["forget_all_kept"])

    def release_all_deliveries(self) -> None:
        """Note that the source has lost its history: what it lacks now, nobody has deleted there.

        What it holds now may be older than what it held. The target's copy stays for good, until
        the source's instance is delivered anew.
        """
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["release_all_delivered"])

    def deletions_since(self, then: float) -> int:
        """Count the deletions at the source since then, by the age clock; a minute too many."""
        with explained(self.path):
            wanted = {"minute": int(then // 60)}
            return int(self._db.execute(self._sql["deletions_since"], wanted).fetchone()[0])

    def missed_at_target(self) -> int:
        """Count what was delivered, and the target lacked or could not read at the last look."""
        with explained(self.path):
            return int(self._db.execute(self._sql["count_missed_at_target"]).fetchone()[0])

    def postpone(self, kept: Kept, until: float, *, missed: MissedAt = MissedAt.NOWHERE) -> None:
        """Look at evidence later, unless it was replaced or withdrawn meanwhile.

        ``until``: when it counts as new, by the age clock.

        ``missed``: which server lacked the instance.
        """
        wanted = _parameters(kept) | {"until": until, "missed": missed}
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["postpone_kept"], wanted)

    def dropped_count(self) -> int:
        """Count what a person let go of and has not been delivered since."""
        with explained(self.path):
            return count_of(self._db.execute(self._sql["count_dropped"]).fetchone()[0])

    def parked_by_reason(self) -> dict[str, int]:
        """Count the parked instances by reason."""
        with explained(self.path):
            rows = self._db.execute(self._sql["count_parked"])
            return {text_of(row[0]): count_of(row[1]) for row in rows}

    def studies(
        self, *, limit: int, before: StudyRecord | None = None, incomplete: bool = False
    ) -> list[StudyRecord]:
        """List studies, those first of which something came last.

        ``before``: those after that one. ``incomplete``: only those with instances that are parked
        or were dropped.
        """
        with explained(self.path):
            last_at, number = MOMENT_MAX, COUNT_MAX
            if before is not None:
                last_at = before.last_at
                rows = self._find_studies(before.study.uid, limit=1)
                number = rows[0]["number"] if rows else 0
            wanted = {"last_at": last_at, "number": number, "incomplete": incomplete}
            rows = self._db.execute(self._sql["page_studies"], wanted | {"limit": limit}).fetchall()
            return [self._study(row) for row in rows]

    def find_studies(self, name: str, *, limit: int) -> list[StudyRecord]:
        """Find studies by Study Instance UID, Orthanc ID, or the ID of a parked instance."""
        with explained(self.path):
            return [self._study(row) for row in self._find_studies(name, limit=limit)]

    def parked_of_study(self, uid: str) -> Iterator[Parked]:
        """Iterate over the parked instances of a study; dropped ones never."""
        for instance_id in self.lacking_of_study(uid):
            if (parked := self.parked_one(instance_id)) is not None:
                yield parked

    def lacking_of_study(self, uid: str) -> Iterator[str]:
        """Iterate over the instances of a study that are parked or were dropped, in pages."""
        after = b""
        while True:
            with explained(self.path):
                rows = self._find_studies(uid, limit=1)
                number = rows[0]["number"] if rows else -1
                wanted = {"number": number, "after": after, "limit": PAGE_ROWS_MAX}
                found = self._db.execute(self._sql["parked_of_study"], wanted).fetchall()
                page = [_id_of_raw(row["instance"]) for row in found]
            yield from page
            if len(found) < PAGE_ROWS_MAX:
                return
            after = found[-1]["instance"]

    def _find_studies(self, name: str, *, limit: int) -> list[sqlite3.Row]:
        wanted = {"name": name, "instance": raw_id(name), "limit": limit}
        return self._db.execute(self._sql["find_study"], wanted).fetchall()

    def _study(self, row: sqlite3.Row) -> StudyRecord:
        rows = self._db.execute(self._sql["count_study"], {"number": row["number"]})
        ended = {count_of(row[0]): count_of(row[1]) for row in rows}
        return StudyRecord(
            study=Study(text_of(row["uid"]), text_of(row["orthanc_id"])),
            first_at=moment_of(row["first_at"]),
            last_at=moment_of(row["last_at"]),
            delivered=ended.get(EndedAs.DELIVERED, 0),
            parked=ended.get(EndedAs.PARKED, 0),
            skipped=ended.get(EndedAs.SKIPPED, 0),
            stable=row["changed"] == 0 and row["stable_at"] is not None,
        )

    def newest_parked(self, limit: int) -> list[Parked]:
        """List the instances that were parked last, the newest first."""
        found: list[Parked] = []
        for reason in self.parked_by_reason():
            wanted = {"reason": reason, "limit": limit}
            with explained(self.path):
                rows = self._db.execute(self._sql["newest_parked"], wanted).fetchall()
                found += [_parked(row) for row in rows]
        return sorted(found, key=lambda one: one.parked_at, reverse=True)[:limit]

    def _write(self, entry: Entry) -> None:
        run, many, sql = self._db.execute, self._db.executemany, self._sql
        many(sql["add_settled"], [{"sequence": s} for s in entry.settled])
        many(sql["park"], [_row(parked) for parked in entry.parked if not parked.retries])
        many(sql["repark"], [_row(parked) for parked in entry.parked if parked.retries])
        many(sql["unpark"], _by_id(entry.unparked))
        many(sql["forget_dropped"], _by_id(entry.unparked))
        parked_anew = (one.move.instance_id for one in entry.parked if not one.retries)
        many(sql["forget_dropped"], _by_id(parked_anew))
        dropped = [{"instance_id": i, "dropped_at": entry.dropped_at} for i in entry.dropped]
        many(sql["drop"], dropped)
        many(sql["unpark"], _by_id(entry.dropped))
        many(
            sql["set_attempt"],
            [
                {"instance_id": i, "attempts": a.attempts, "first_failed_at": a.first_failed_at}
                for i, a in entry.attempts.items()
            ],
        )
        many(sql["forget_attempt"], _by_id(entry.finished))
        many(sql["add_recent"], [{"sequence": s, "instance_id": i} for s, i in entry.recent])
        # What is parked may have been delivered wrongly before: a later drop is no new proof.
        many(sql["forget_kept_of"], _by_id(parked.move.instance_id for parked in entry.parked))
        many(sql["forget_kept"], [_parameters(kept) for kept in entry.not_kept])
        many(sql["add_kept"], [_parameters(kept) for kept in entry.kept])
        self._write_studies(entry)
        many(sql["add_delivered"], [_parameters(record) for record in entry.delivered])
        many(
            sql["note_sign"], [_parameters(record) for record in entry.delivered if record.to_sign]
        )
        many(sql["outdate_delivered"], _by_id(entry.outdated))
        many(sql["delete_meta"], [{"key": key} for key in entry.forgotten])
        many(sql["forget_gap"], [{"first": first} for first in entry.gaps_closed])
        many(sql["set_gap"], [_parameters(gap) for gap in entry.gaps])
        if entry.gaps_given_up:
            before = run(sql["get_meta"], {"key": GIVEN_UP_KEY}).fetchone()
            given_up = entry.gaps_given_up + (int(before[0]) if before else 0)
            self._set_meta(GIVEN_UP_KEY, str(given_up))
        if entry.lag is not None:
            self._set_meta(COUNTER_LAG_KEY, f"{entry.lag.counter} {entry.lag.position}")
        if entry.recent_from is not None:
            run(sql["forget_recent"], {"below": entry.recent_from, "kept": REMEMBERED})
        if entry.checkpoint is not None:
            self._set_meta("checkpoint", str(entry.checkpoint))
            if entry.newest_date:
                self._set_meta(NEWEST_DATE_KEY, entry.newest_date)
            run(sql["forget_settled"], {"checkpoint": entry.checkpoint})

    def studies_forgotten_before(self) -> float | None:
        """Return up to when studies were forgotten, by their last instance; None for never."""
        text = self.meta(FORGOTTEN_KEY)
        with explained(self.path):
            return None if text is None else float(text)

    def _write_studies(self, entry: Entry) -> None:
        many, sql = self._db.executemany, self._sql
        ended = [raw_id(instance_id) for instance_id in entry.unparked]
        raws = [{"instance": raw} for raw in ended if raw]
        many(sql["change_studies_of"], raws)
        many(sql["end_study_parked"], raws)
        for note in entry.studies:
            if not (raw := raw_id(note.instance_id)):
                continue
            known = {"uid": note.study.uid, "orthanc_id": note.study.orthanc_id, "at": note.at}
            self._db.execute(sql["note_study"], known)
            instance = {"uid": note.study.uid, "instance": raw, "ended": note.ended}
            self._db.execute(sql["note_study_instance"], instance)
        if entry.studies:
            wanted = {"before": entry.studies[-1].forget_before, "limit": STUDIES_FORGOTTEN_MAX}
            old = [dict(row) for row in self._db.execute(sql["old_studies"], wanted)]
            many(sql["forget_study_instances"], old)
            many(sql["forget_study"], old)
            if wanted["before"] > (self.studies_forgotten_before() or -math.inf):
                self._set_meta(FORGOTTEN_KEY, repr(wanted["before"]))

    def _set_meta(self, key: str, value: str) -> None:
        self._db.execute(self._sql["set_meta"], {"key": key, "value": value})

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """Have what is committed inside, and before, on the disk at the end."""
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # After any error, also one that Python raised and not SQLite, the next transaction
            # must be able to begin.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            prepared(self.path),
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            db.close()
            raise StateError(
                f"The state file {self.path} has schema {version}; this version of the bridge "
                f"knows schema {SCHEMA_VERSION}.",
                advice="Run the newer bridge that wrote it, or restore the file from before.",
            )
        for step in range(version + 1, SCHEMA_VERSION + 1):
            self._migrate(db, step)
        return db

    def _migrate(self, db: sqlite3.Connection, step: int) -> None:
        """Apply one schema step, unless another process did so a moment ago."""
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone()[0] < step:
            for statement in _steps(step):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {step}")
        db.execute("COMMIT")

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _digest_of(target_url: str) -> str:
    return hashlib.sha256(target_url.encode()).hexdigest()


def _by_id(instance_ids: Iterable[str]) -> Sequence[dict[str, str]]:
    return [{"instance_id": i} for i in instance_ids]


def raw_id(instance_id: str) -> bytes:
    """Return the 20 bytes of an Orthanc ID; none for what is no such ID."""
    if not _ORTHANC_ID.fullmatch(instance_id):
        return b""
    return bytes.fromhex(instance_id.replace("-", ""))


def _id_of_raw(raw: object) -> str:
    if not isinstance(raw, bytes) or len(raw) != 20:
        raise ValueError("not an identifier")
    text = raw.hex()
    return "-".join(text[start : start + 8] for start in range(0, 40, 8))


def _row(parked: Parked) -> dict[str, object]:
    return {
        "instance_id": parked.move.instance_id,
        "sequence": parked.move.sequence,
        "changed_at": parked.move.changed_at,
        "reason": parked.reason,
        "message": parked.message,
        "attempts": parked.attempts,
        "first_failed_at": parked.first_failed_at,
        "parked_at": parked.parked_at,
        "source_syntax": parked.source_syntax,
        "sop_instance_uid": parked.sop_instance_uid,
        "retries": parked.retries,
        "tried_at": parked.tried_at or parked.parked_at,
        "bridge_version": parked.tried_by.bridge,
        "codec_versions": parked.tried_by.codecs,
    }


def _missed(value: object) -> MissedAt:
    known = count_of(value)
    return MissedAt(known) if known in set(MissedAt) else MissedAt.NOWHERE


def _kept(row: sqlite3.Row) -> Kept:
    aged_from = row["aged_from"]
    return Kept(
        instance_id=text_of(row["instance_id"]),
        source_md5=text_of(row["source_md5"]),
        target_md5=text_of(row["target_md5"]),
        delivered_at=moment_of(row["delivered_at"]),
        missed=_missed(row["missed"]),
        source_file=text_of(row["source_file"]),
        target_file=text_of(row["target_file"]),
        aged_from=None if aged_from is None else _age(aged_from),
    )


def _delivery(row: sqlite3.Row) -> DeliveryRecord:
    lacking_since = row["lacking_since"]
    return DeliveryRecord(
        instance_id=text_of(row["instance_id"]),
        source_md5=text_of(row["source_md5"]),
        target_md5=text_of(row["target_md5"]),
        delivered_at=moment_of(row["delivered_at"]),
        outdated=bool(row["outdated"]),
        lacking_since=None if lacking_since is None else _age(lacking_since),
        released=bool(row["released"]),
    )


def _age(value: object) -> float:
    """Return a time of the age clock. Raises ValueError."""
    if not isinstance(value, int | float) or not abs(value) <= MOMENT_MAX:
        raise ValueError("not a time")
    return float(value)


def _parked(row: sqlite3.Row) -> Parked:
    sequence = row["sequence"]
    return Parked(
        move=Move(
            text_of(row["instance_id"]),
            None if sequence is None else count_of(sequence),
            text_of(row["changed_at"]),
        ),
        reason=Reason(row["reason"]),
        message=cleaned(text_of(row["message"]), MESSAGE_CHARACTERS_MAX),
        attempts=count_of(row["attempts"]),
        first_failed_at=moment_of(row["first_failed_at"]),
        parked_at=moment_of(row["parked_at"]),
        source_syntax=text_of(row["source_syntax"]),
        sop_instance_uid=text_of(row["sop_instance_uid"]),
        retries=count_of(row["retries"]),
        tried_at=moment_of(row["tried_at"]),
        tried_by=TriedBy(text_of(row["bridge_version"]), text_of(row["codec_versions"])),
    )


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _parameters(record: DataclassInstance) -> dict[str, object]:
    """Return a record's fields by name, for a statement.

    As ``dataclasses.asdict``, which copies each value, in a tenth of the time. They are flat.
    """
    return {name: getattr(record, name) for name in _names(type(record))}


def text_of(value: object) -> str:
    """Return a text of ours from a file that somebody may have changed. Raises ValueError."""
    if not isinstance(value, str) or len(value) > CELL_CHARACTERS_MAX:
        raise ValueError("not a text")
    return value


def count_of(value: object) -> int:
    """Return a number of ours from such a file. Raises ValueError."""
    if not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise ValueError("not a number from 0 up")
    return value


def moment_of(value: object) -> float:
    """Return a time of the epoch, seconds, of which a date can be made. Raises ValueError."""
    if not isinstance(value, int | float) or not 0 <= value <= MOMENT_MAX:
        raise ValueError("not a time")
    return float(value)
