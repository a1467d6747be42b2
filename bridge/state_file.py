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

from bridge.core.errors import StateError


def locked(path: Path) -> IO[str]:
    """Take the lock that only one following bridge can hold; to close it gives it up.

    Raises StateError.
    """
    # Of the file itself, whatever links lead to it: one state, one lock.
    real = path.resolve()
    with explained(path):
        lock = real.with_name(real.name + ".lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read(20).strip() or "unknown"
        lock.close()
        raise StateError(
            f"The state file {path} is held by another bridge (process {holder}).",
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
    """Turn what the database and the system complain of into a StateError with advice."""
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
