"""Copies of a state file: made while a bridge runs, looked at, and put back in its place.

A copy is one file, made under another name and given its own when it is whole. What is put back is
proved before: a whole database of a version that this bridge knows, whose every row it can read.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bridge.errors import ConfigurationError, StateError
from bridge.ledger.lock import COMPANIONS, explained, locked
from bridge.ledger.store import BUSY_TIMEOUT_S, SCHEMA_VERSION, Ledger, schema_of
from bridge.own_files import (
    check_named_file,
    make_directory,
    make_new_file,
    open_to_read,
    real_path,
)

_MAGIC = b"SQLite format 3\0"
PART = ".part"
"""Ends the name of a copy that is not whole yet."""
ASIDE = ".before-restore-"
ASIDE_MAX = 1000
"""So many files are put aside within the same second, at most."""


@dataclass(frozen=True, slots=True)
class StateContents:
    """What a state file holds. ``rows``: of each table that it has. ``modified_at``: epoch s."""

    path: Path
    file_bytes: int
    modified_at: float
    schema: int
    rows: dict[str, int]
    meta: dict[str, str]


def back_up(path: Path, out: Path) -> StateContents:
    """Copy the state file at ``path`` to ``out``, also while bridges use it. Raises StateError.

    ``out`` is replaced when the copy is whole. Raises ConfigurationError where it cannot be
    written. The copy is what one moment's last transaction had left.
    """
    if out.exists() and path.exists() and out.samefile(path):
        raise ConfigurationError(
            f"{out} is the state file itself.", advice="Name another file for the copy."
        )
    part = out.with_name(out.name + PART)
    with Ledger(path, create=False):
        real = real_path(path)  # it is ours, and can be read
    with _writable(out):
        _remove(part)
        make_new_file(part)
    try:
        with explained(path), closing(_connect(real)) as source, closing(_connect(part)) as copy:
            source.backup(copy)  # all pages in one read transaction: no writer waits for it
            copy.execute("PRAGMA journal_mode = DELETE")
            _check_pages(copy, path)
        with _writable(out):
            _sync(part)
            part.replace(out)
            _sync(out.parent)
    finally:
        _remove(part)
    return look_at(out)


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigurationError(
            f"{out} cannot be written: {exc.strerror}.",
            advice="Name a file in a directory that exists and that this user may write to.",
        ) from exc


def look_at(path: Path) -> StateContents:
    """Tell what a state file or a copy holds; nothing is written. Raises StateError."""
    _expect(path)
    with explained(path):
        # A state file that nobody has open is read without the files that SQLite makes beside it.
        quiet = not path.with_name(path.name + "-wal").exists()
        link = f"{path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if quiet else "")
        with closing(sqlite3.connect(link, uri=True, timeout=BUSY_TIMEOUT_S)) as db:
            version = _version(db, path)
            names = sorted({name for kind, name in schema_of(version) if kind == "table"})
            rows = {
                name: int(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0])  # noqa: S608
                for name in names
            }
            meta = {str(key): str(value) for key, value in db.execute("SELECT * FROM meta")}
        found = path.stat()
        return StateContents(path, found.st_size, found.st_mtime, version, rows, meta)


Adopt = Callable[[Ledger | None, Ledger], None]
"""Called with the ledger that is put aside (None where it cannot be read) and the restored one."""


def restore(copy: Path, path: Path, *, adopt: Adopt) -> Path | None:
    """Put a copy in the place of the state file; returns where the one before is kept.

    Raises StateError while a bridge or a command uses the state file, and where the copy is no
    whole state file of a known version; nothing is changed then. ``adopt`` may write into the
    restored ledger before it is put in its place. A crash leaves the one before, or
    the restored one.
    """
    _expect(copy)
    with explained(path):
        make_directory(path.parent)
        real = real_path(path)
    lock = locked(path)
    try:
        part = real.with_name(real.name + PART)
        try:
            _remove(part)
            _copy_file(copy, part)
            _prove(part, copy)
            was_there = real.exists()
            readable = was_there and _is_alone(real, path)
            with Ledger(part) as restored:
                if readable:
                    with Ledger(real) as before:
                        adopt(before, restored)
                else:
                    adopt(None, restored)
            with explained(path):
                if readable:
                    _fold(real)
                _sync(part)
                aside = _put_aside(real, readable=readable) if was_there else None
                part.replace(real)
                _sync(real.parent)
            return aside
        finally:
            _remove(part)
    finally:
        lock.close()


def _expect(path: Path) -> None:
    with explained(path):
        if path.is_symlink() or not path.is_file():
            raise StateError(
                f"{path} is not a file.",
                advice="Name a file that orthanc-bridge state backup made.",
            )
        check_named_file(path, shared=True)


def _copy_file(copy: Path, part: Path) -> None:
    with explained(copy):
        make_new_file(part)
        with os.fdopen(open_to_read(copy), "rb") as taken, part.open("r+b") as written:
            shutil.copyfileobj(taken, written)


def _prove(part: Path, copy: Path) -> None:
    """Make sure that a copy is a whole state file that this bridge can read. Raises StateError."""
    try:
        with explained(copy), closing(_connect(part)) as db:
            version = _version(db, copy)
            _check_pages(db, copy)
            found = {(row[0], row[1]) for row in db.execute("SELECT type, name FROM sqlite_schema")}
            missing = sorted(name for _, name in schema_of(version) - found)
            if missing:
                raise _no_state(copy, f"it lacks {', '.join(missing)}")
        with Ledger(part) as ledger:
            ledger.read_all()
    except StateError as exc:
        raise StateError(
            exc.message.replace(str(part), str(copy)),
            advice="Restore another copy. The state file was left as it is.",
        ) from exc


def _no_state(path: Path, why: str) -> StateError:
    return StateError(
        f"{path} is not a complete state file of orthanc-bridge: {why}.",
        advice="Name a file that orthanc-bridge state backup made.",
    )


def _version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StateError(
            f"{path} has schema {version}; this bridge knows schema {SCHEMA_VERSION}.",
            advice="Use the newer bridge that wrote it.",
        )
    if version < 1:
        raise _no_state(path, "it has no schema")
    return version


def _check_pages(db: sqlite3.Connection, path: Path) -> None:
    problem = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if problem != "ok":
        raise StateError(f"{path} is damaged.", advice="Use another copy of the state.")


def _is_alone(real: Path, path: Path) -> bool:
    """Whether the state file can be read. Raises StateError while somebody else has it open.

    What is no database is not opened: SQLite would remove what lies beside it.
    """
    with explained(path), os.fdopen(open_to_read(real), "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return False
    try:
        _fold(real)
    except sqlite3.OperationalError as exc:
        if "locked" in str(exc) or "busy" in str(exc):
            raise StateError(
                f"The state file {path} is in use by a command.",
                advice="Wait until it has ended (replay, parked retry, check ...), then restore.",
            ) from exc
        return False
    except sqlite3.DatabaseError:
        return False
    try:
        with Ledger(real):
            return True
    except StateError:
        return False


def _fold(real: Path) -> None:
    """Write what lies beside a database into it: only who has it alone can do that."""
    with closing(_connect(real)) as db:
        db.execute("PRAGMA busy_timeout = 0")
        db.execute("PRAGMA journal_mode = DELETE")


def _put_aside(real: Path, *, readable: bool) -> Path:
    """Give the state file a second name, and what lies beside one that cannot be read as well.

    Raises StateError where no name is free: a file that was put aside is never written over.
    """
    begin = f"{real.name}{ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(ASIDE_MAX):
        aside = real.with_name(begin + (f"-{number}" if number else ""))
        if not os.path.lexists(aside):
            break
    else:
        raise StateError(
            f"{real} cannot be renamed: too many files were restored within this second.",
            advice="Wait a second, then restore again.",
        )
    for companion in [] if readable else COMPANIONS[1:]:
        with suppress(FileNotFoundError):
            real.with_name(real.name + companion).rename(aside.with_name(aside.name + companion))
    try:
        os.link(real, aside)
    except OSError:
        real.rename(aside)  # a file system without second names
    return aside


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)


def _remove(part: Path) -> None:
    for companion in COMPANIONS:
        part.with_name(part.name + companion).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
