"""The file that holds the state: one bridge at a time, and what is wrong when it cannot be used."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bridge.errors import StateError
from bridge.own_files import NotOurs, check_file, make_directory, make_file, open_own, real_path

COMPANIONS = ("", "-wal", "-shm", "-journal")
"""What SQLite adds to the name of a database for the files beside it."""


def prepared(path: Path) -> Path:
    """Make sure of the files that SQLite is about to open, and make the first one; returns it.

    What SQLite makes beside it gets its mode. Raises StateError.
    """
    with explained(path):
        make_directory(path.parent)
        real = real_path(path)
        make_file(real)
        for companion in COMPANIONS:
            check_file(real.with_name(real.name + companion))
        return real


def locked(path: Path) -> IO[str]:
    """Take the lock that only one following bridge can hold; to close it gives it up.

    Raises StateError.
    """
    # It lies beside the real file: two paths that lead to one state share one lock.
    with explained(path):
        real = real_path(path)
        opened = open_own(real.with_name(real.name + ".lock"), os.O_RDWR)
        lock = os.fdopen(opened, "r+", encoding="ascii", errors="replace")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read(20).strip() or "unknown"
        lock.close()
        raise StateError(
            f"The state file {path} is in use by another bridge (process {holder}).",
            advice="Stop the other one, or give this one its own BRIDGE_STATE_PATH.",
        ) from None
    with explained(path):
        try:
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), f"{os.getpid()}\n".encode("ascii"))
        except OSError:
            lock.close()
            raise
    return lock


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the system into a StateError with advice."""
    try:
        yield
    except sqlite3.DatabaseError as exc:
        raise StateError(
            f"The state file {path} cannot be used: {exc}.", advice=_advice(str(exc))
        ) from exc
    except OSError as exc:
        raise StateError(
            f"The state file {path} cannot be used: {exc.strerror}.", advice=_advice_of(exc)
        ) from exc
    except (ValueError, TypeError, LookupError, ArithmeticError) as exc:
        # The file holds a text or a number that no bridge writes: somebody else may have made it.
        raise StateError(
            f"The state file {path} holds a value that no bridge writes ({type(exc).__name__}).",
            advice=_RESTORE,
        ) from exc


def there_may_be(path: Path) -> bool:
    """Tell whether a ledger may be at ``path``: True when that cannot be known.

    To open it then explains what is wrong.
    """
    try:
        return path.exists()
    except OSError:
        return True


_RESTORE = (
    "Move it away and keep it for analysis. Restore a backup, or start without one: the bridge "
    "then begins at BRIDGE_START, and what the target already has is not stored twice."
)


def _advice(text: str) -> str:
    if "full" in text:
        return "Free space on the disk under BRIDGE_STATE_PATH; the bridge resumes automatically."
    if "locked" in text:
        return (
            "Another process has locked it for a long time. Find that process with fuser or lsof."
        )
    if "malformed" in text or "not a database" in text:
        return _RESTORE
    return (
        "BRIDGE_STATE_PATH must be a file in a directory that this user may write to. If the file "
        "exists, this user must be able to write to it and to the files beside it (-wal, -shm, "
        ".lock)."
    )


def _advice_of(exc: OSError) -> str:
    if isinstance(exc, NotOurs):
        return (
            "Another user may have put it there. Look at it, and set BRIDGE_STATE_PATH to a file "
            "in a directory that only this user may write to."
        )
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free space on the disk under BRIDGE_STATE_PATH and start again."
    return "Make the directory of BRIDGE_STATE_PATH writable for this user."
