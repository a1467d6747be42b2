"""The ledger: what must survive a crash, in one SQLite file.

A state change and its record commit together: one transaction settles, parks, and moves the
checkpoint. WAL mode with synchronous=NORMAL: a killed process loses nothing, a power cut may
lose the last transactions, which only means that a few instances are delivered again (G1).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bridge.core.errors import StateError
from bridge.core.model import Move, Reason
from bridge.entry import Attempts, Entry, Kept, Parked
from bridge.state_file import explained, locked
from bridge.witnesses import REMEMBERED

SCHEMA_VERSION = 3
NEWEST_DATE_KEY = "newest_change_at"
"""Ledger: the latest date of any row of the feed that was read in order."""
BUSY_TIMEOUT_S = 10.0
PAGE_ROWS_MAX = 500


def _statements() -> dict[str, str]:
    text = resources.files("bridge").joinpath("ledger.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


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
            path.parent.mkdir(parents=True, exist_ok=True)
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
        return None if value is None else int(value)

    def settled_above(self) -> list[int]:
        """List the settled sequences above the checkpoint, ascending."""
        with explained(self.path):
            return [row[0] for row in self._db.execute(self._sql["list_settled"])]

    def recent(self) -> dict[int, str]:
        """Return the remembered rows of the feed: sequence -> instance ID."""
        with explained(self.path):
            return dict(self._db.execute(self._sql["list_recent"]).fetchall())

    def attempts(self) -> dict[str, Attempts]:
        """Return the attempts spent on unfinished instances, by instance ID."""
        with explained(self.path):
            rows = self._db.execute(self._sql["list_attempts"])
            return {row[0]: Attempts(row[1], row[2]) for row in rows}

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
    ) -> None:
        """Begin a new history at ``checkpoint``: forget settled and recent rows, keep parked.

        ``recent``: rows at or below it, which tell another history from this one. ``ours_from``:
        rows above that and below ``checkpoint`` which are not among them came late and are to be
        moved; the default is none.
        """
        with explained(self.path), self._transaction():
            for name in ("clear_settled", "clear_recent"):
                self._db.execute(self._sql[name])
            self._set_meta("checkpoint", str(checkpoint))
            floor = checkpoint if ours_from is None else ours_from
            self._set_meta("history_from", str(floor))
            rows = [{"sequence": s, "instance_id": i} for s, i in recent]
            self._db.executemany(self._sql["add_recent"], rows)
            self._db.execute(self._sql["delete_meta"], {"key": NEWEST_DATE_KEY})
            if newest_date:
                self._set_meta(NEWEST_DATE_KEY, newest_date)

    def meta(self, key: str) -> str | None:
        """Return a remembered text, or None."""
        with explained(self.path):
            row = self._db.execute(self._sql["get_meta"], {"key": key}).fetchone()
            return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str | None) -> None:
        """Remember a text; None forgets it."""
        with explained(self.path), self._transaction():
            if value is None:
                self._db.execute(self._sql["delete_meta"], {"key": key})
            else:
                self._set_meta(key, value)

    def parked(
        self, *, reason: Reason | None = None, parked_before: float | None = None
    ) -> Iterator[Parked]:
        """Iterate over the parked instances by ID, in bounded pages.

        ``parked_before``: only those parked at or before this time, epoch seconds.
        """
        after = ""
        while True:
            wanted = {
                "reason": reason,
                "parked_before": parked_before,
                "after": after,
                "limit": PAGE_ROWS_MAX,
            }
            with explained(self.path):
                rows = self._db.execute(self._sql["list_parked"], wanted).fetchall()
            yield from (_parked(row) for row in rows)
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = rows[-1]["instance_id"]

    def parked_one(self, instance_id: str) -> Parked | None:
        """Return one parked instance, or None."""
        with explained(self.path):
            row = self._db.execute(self._sql["get_parked"], {"instance_id": instance_id}).fetchone()
            return None if row is None else _parked(row)

    def kept(self, *, delivered_before: float, limit: int) -> list[Kept]:
        """List delivered instances of that age, the oldest first; parked or unfinished ones never.

        ``delivered_before``: epoch seconds.
        """
        wanted = {"delivered_before": delivered_before, "limit": limit}
        with explained(self.path):
            rows = self._db.execute(self._sql["list_kept"], wanted).fetchall()
        return [Kept(i, s, t, at, bool(missed)) for i, s, t, at, missed in rows]

    def postpone(self, kept: Kept, until: float, *, missed: bool = False) -> None:
        """Look at evidence later (epoch seconds), unless it was replaced or withdrawn meanwhile.

        ``missed``: a server lacked the instance.
        """
        wanted = asdict(kept) | {"until": until, "missed": missed}
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["postpone_kept"], wanted)

    def parked_by_reason(self) -> dict[str, int]:
        """Count the parked instances by reason."""
        with explained(self.path):
            return {row[0]: row[1] for row in self._db.execute(self._sql["count_parked"])}

    def _write(self, entry: Entry) -> None:
        run, many, sql = self._db.execute, self._db.executemany, self._sql
        many(sql["add_settled"], [{"sequence": s} for s in entry.settled])
        many(sql["park"], [_row(parked) for parked in entry.parked])
        many(sql["unpark"], _by_id(entry.unparked))
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
        many(sql["forget_kept"], [asdict(kept) for kept in entry.not_kept])
        many(sql["add_kept"], [asdict(kept) for kept in entry.kept])
        if entry.recent_from is not None:
            run(sql["forget_recent"], {"below": entry.recent_from, "kept": REMEMBERED})
        if entry.checkpoint is not None:
            self._set_meta("checkpoint", str(entry.checkpoint))
            if entry.newest_date:
                self._set_meta(NEWEST_DATE_KEY, entry.newest_date)
            run(sql["forget_settled"], {"checkpoint": entry.checkpoint})

    def _set_meta(self, key: str, value: str) -> None:
        self._db.execute(self._sql["set_meta"], {"key": key, "value": value})

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
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
            script = re.sub(r"^\s*--.*$", "", self._sql[f"schema_{step}"], flags=re.MULTILINE)
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {step}")
        db.execute("COMMIT")

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _by_id(instance_ids: Iterable[str]) -> Sequence[dict[str, str]]:
    return [{"instance_id": i} for i in instance_ids]


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
    }


def _parked(row: sqlite3.Row) -> Parked:
    return Parked(
        move=Move(row["instance_id"], row["sequence"], row["changed_at"]),
        reason=Reason(row["reason"]),
        message=row["message"],
        attempts=row["attempts"],
        first_failed_at=row["first_failed_at"],
        parked_at=row["parked_at"],
        source_syntax=row["source_syntax"],
        sop_instance_uid=row["sop_instance_uid"],
    )
