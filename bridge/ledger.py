"""The ledger: what must survive a crash, in one SQLite file. The only importer of sqlite3.

A state change and its record commit together: one transaction settles, parks, and moves the
checkpoint. WAL mode with synchronous=NORMAL: a killed process loses nothing, a power cut may
lose the last transactions, which only means that a few instances are delivered again (G1).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bridge.core.errors import StateError
from bridge.core.model import Move, Reason
from bridge.witnesses import REMEMBERED

SCHEMA_VERSION = 2
NEWEST_DATE_KEY = "newest_change_at"
"""Ledger: the latest date of any row of the feed that was read in order."""
BUSY_TIMEOUT_S = 10.0
PAGE_ROWS_MAX = 500


@dataclass(frozen=True, slots=True)
class Parked:
    """An instance that was given up, and what a person needs to know. Times: epoch seconds."""

    move: Move
    reason: Reason
    message: str
    attempts: int
    first_failed_at: float
    parked_at: float
    source_syntax: str = ""
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts spent on an instance that is not settled yet."""

    attempts: int
    first_failed_at: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A delivered and proved instance that still lies at the source.

    ``source_md5``: of the file as it was fetched. ``target_md5``: of the file as it was stored.
    """

    instance_id: str
    source_md5: str
    target_md5: str
    delivered_at: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction. Every part is optional.

    ``checkpoint`` None leaves it as it is. ``settled`` are sequences to remember above the
    checkpoint, ``finished`` instance IDs whose attempts need not be remembered any more,
    ``unparked`` those that are no longer parked, ``recent`` rows of the feed to remember, of
    which those below ``recent_from`` are forgotten. ``kept`` are delivered instances
    that the source still holds, ``not_kept`` those of which that is no longer true (only this
    evidence is forgotten, not that of a delivery since).
    """

    checkpoint: int | None = None
    settled: tuple[int, ...] = ()
    parked: tuple[Parked, ...] = ()
    unparked: tuple[str, ...] = ()
    attempts: Mapping[str, Attempts] = field(default_factory=dict)
    finished: tuple[str, ...] = ()
    recent: tuple[tuple[int, str], ...] = ()
    recent_from: int | None = None
    newest_date: str = ""
    kept: tuple[Kept, ...] = ()
    not_kept: tuple[Kept, ...] = ()


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
        self._sql = _statements()
        self._lock: IO[str] | None = None
        with self._explained():
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
            self._lock = self._take_lock()
        try:
            with self._explained():
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
        with self._explained():
            return [row[0] for row in self._db.execute(self._sql["list_settled"])]

    def recent(self) -> dict[int, str]:
        """Return the remembered rows of the feed: sequence -> instance ID."""
        with self._explained():
            return dict(self._db.execute(self._sql["list_recent"]).fetchall())

    def attempts(self) -> dict[str, Attempts]:
        """Return the attempts spent on unfinished instances, by instance ID."""
        with self._explained():
            rows = self._db.execute(self._sql["list_attempts"])
            return {row[0]: Attempts(row[1], row[2]) for row in rows}

    def commit(self, entry: Entry) -> None:
        """Write one transaction, all of it or nothing."""
        with self._explained(), self._transaction():
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
        with self._explained(), self._transaction():
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
        with self._explained():
            row = self._db.execute(self._sql["get_meta"], {"key": key}).fetchone()
            return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str | None) -> None:
        """Remember a text; None forgets it."""
        with self._explained(), self._transaction():
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
            with self._explained():
                rows = self._db.execute(self._sql["list_parked"], wanted).fetchall()
            yield from (_parked(row) for row in rows)
            if len(rows) < PAGE_ROWS_MAX:
                return
            after = rows[-1]["instance_id"]

    def parked_one(self, instance_id: str) -> Parked | None:
        """Return one parked instance, or None."""
        with self._explained():
            row = self._db.execute(self._sql["get_parked"], {"instance_id": instance_id}).fetchone()
            return None if row is None else _parked(row)

    def kept(self, *, delivered_before: float, limit: int) -> list[Kept]:
        """List delivered instances of that age, the oldest first; parked or unfinished ones never.

        ``delivered_before``: epoch seconds.
        """
        wanted = {"delivered_before": delivered_before, "limit": limit}
        with self._explained():
            return [Kept(*row) for row in self._db.execute(self._sql["list_kept"], wanted)]

    def parked_by_reason(self) -> dict[str, int]:
        """Count the parked instances by reason."""
        with self._explained():
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

    def _take_lock(self) -> IO[str]:
        # Of the file itself, whatever links lead to it: one state, one lock.
        real = self.path.resolve()
        path = real.with_name(real.name + ".lock")
        with self._explained():
            lock = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read(20).strip() or "unknown"
            lock.close()
            raise StateError(
                f"The state file {self.path} is held by another bridge (process {holder}).",
                advice="Stop the other one, or give this one its own BRIDGE_STATE_PATH.",
            ) from None
        with self._explained():
            try:
                os.ftruncate(lock.fileno(), 0)
                os.write(lock.fileno(), f"{os.getpid()}\n".encode("ascii"))
            except OSError:
                lock.close()
                raise
        return lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            raise StateError(
                f"The state file {self.path} cannot be used: {exc}.", advice=_advice(str(exc))
            ) from exc
        except OSError as exc:
            raise StateError(
                f"The state file {self.path} cannot be used: {exc.strerror}.",
                advice=_advice_of(exc),
            ) from exc


def there_may_be(path: Path) -> bool:
    """Tell whether a ledger may be at ``path``: True when that cannot be known.

    To open it then explains what is wrong.
    """
    try:
        return path.exists()
    except OSError:
        return True


def _advice(text: str) -> str:
    if "full" in text:
        return "Free space on the disk under BRIDGE_STATE_PATH; the bridge goes on by itself."
    if "locked" in text:
        return "Another process holds it for long; find it with fuser or lsof."
    if "malformed" in text or "not a database" in text:
        return (
            "Keep it aside for analysis and restore a copy, or start without one: the bridge then "
            "begins at BRIDGE_START, and what the target has already is not stored twice."
        )
    return "Make BRIDGE_STATE_PATH a file in a directory that this user may write to."


def _advice_of(exc: OSError) -> str:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free space on the disk under BRIDGE_STATE_PATH and start again."
    return "Make the directory of BRIDGE_STATE_PATH writable for this user."


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
