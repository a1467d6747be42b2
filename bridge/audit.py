"""The audit file: one JSON line for each instance that came to its end, kept for the record.

Append-only. A line is written whole, by one ``write`` to a file opened with O_APPEND, before the
ledger records the instance: a crash in between repeats the instance and its line, and never
loses either. A file that has reached its size is put aside under the next number and a new one
begun; nothing is ever deleted here. Several commands may write to the same file.

Identifiers, UIDs, syntaxes, sizes, sums and times only; nothing else of the instance.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bridge import __version__
from bridge.config import Settings
from bridge.errors import ConfigurationError
from bridge.events import (
    ActionTaken,
    CopyNotRepaired,
    CopyRepaired,
    CopyReplaces,
    Event,
    InstanceDropped,
    InstanceParked,
    Progress,
    Settled,
    SourceDeletes,
    SourceKept,
    TargetDeletes,
    TargetKept,
)
from bridge.log import log
from bridge.model import Delivered, Move, Reason, Skipped
from bridge.own_files import make_directory, open_own
from bridge.untrusted_text import uid_or_nothing

SYNC_EVERY_S = 1.0
"""A power cut may lose the lines of so much time; a killed process loses none."""
PENDING_LINES_MAX = 10_000
"""Lines kept in memory while the disk is full."""
LINE_BYTES_MAX = 64 * 1024
READERS_MODE = 0o644
"""The widest rights of an audit file: its owner writes, others read if the operator lets them."""

DELETION_PROOFS = (
    "another_server",
    "other_files",
    "target_verified",
    "source_unchanged",
    "target_keeps",
    "nobody_else",
)
"""What was proved of each instance right before its deletion: docs/security.md."""

Line = dict[str, object]


class AuditTrail:
    """An observer that writes the audit file. Raises ConfigurationError when it cannot be opened.

    Later trouble (a full disk) is logged and tried again; lines wait in memory meanwhile.
    """

    def __init__(
        self,
        path: Path,
        *,
        bytes_max: int,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._now_s = now_s
        self._steady_s = steady_s
        self._turn = threading.RLock()  # deletions are told in a thread of their own
        self._pending: deque[bytes] = deque()
        self._lost = 0
        self._failing = self._unsynced = ""
        self._synced_s = steady_s()
        self._dirty = False
        self._closed = False
        try:
            make_directory(path.parent)
            self._open_files()
            with self._locked():
                repair(self._file)
        except OSError as exc:
            raise ConfigurationError(
                f"BRIDGE_AUDIT_PATH ({path}) cannot be written: {exc.strerror}.",
                advice="Name a file in a directory that this user may write to.",
            ) from exc

    def close(self) -> None:
        """Write what waits, bring it to the disk, and close the file; idempotent.

        A sweep may outlive its bridge by the request that it waits for: what it tells after this
        is written all the same, to the file opened anew. Its old number may be another file's now.
        """
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._write_pending()
            if lost := len(self._pending) + self._lost:
                text = f"the audit file {self._path} ends too early; lines that are lost: {lost}"
                log(logging.ERROR, "audit_failed", text, waiting=0)
            self._sync()
            self._close_files()

    def on_event(self, event: Event) -> None:
        """Write the line of an instance that came to its end."""
        match event:
            case Settled(move=move, outcome=Delivered() as done, attempt=attempt, rules=rules):
                self._append(move, _delivered(done) | {"rules": rules}, attempt)
            case Settled(outcome=Skipped(reason=Reason.DRY_RUN)):
                pass
            case Settled(move=move, outcome=Skipped() as skipped, attempt=attempt, rules=rules):
                fields: Line = {
                    "outcome": "skipped",
                    "reason": str(skipped.reason),
                    "source_syntax": skipped.source_syntax,
                    "rules": rules,
                }
                self._append(move, fields, attempt)
            case InstanceParked(move=move, attempts=attempts):
                self._append(move, _parked(event), attempts)
            case InstanceDropped(move=move, reason=reason):
                self._append(move, {"outcome": "dropped", "reason": str(reason)}, None)
            case ActionTaken():
                # Without an instance: it is no line of one, and report passes over it.
                self._write_line({"outcome": "action", **asdict(event)})
            case SourceDeletes():
                self._append(Move(event.instance_id), _deletes(event), None)
            case SourceKept(instance_id=instance_id):
                self._append(Move(instance_id), {"outcome": "not_deleted"}, None)
            case CopyReplaces() | CopyRepaired() | CopyNotRepaired():
                self._append(Move(event.instance_id), _copy_line(event), None)
            case TargetDeletes():
                fields = {
                    "outcome": "deletes_at_target",
                    "target_md5": event.target_md5,
                    "lacking_s": round(event.lacking_s),
                }
                self._append(Move(event.instance_id), fields, None)
            case TargetKept(instance_id=instance_id):
                self._append(Move(instance_id), {"outcome": "not_deleted_at_target"}, None)
            case _:
                pass

    def on_progress(self, progress: Progress) -> None:  # noqa: ARG002 (an observer's signature)
        """Try again what could not be written; bring the file to the disk now and then."""
        with self._turn:
            if self._closed:
                return
            if self._pending:
                self._write_pending()
            if self._dirty and self._steady_s() - self._synced_s >= SYNC_EVERY_S:
                self._sync()

    def _append(self, move: Move, fields: Line, attempt: int | None) -> None:
        name: Line = {"sequence": move.sequence, "instance": move.instance_id}
        self._write_line(name | fields | {"attempt": attempt})

    def _write_line(self, fields: Line) -> None:
        line: Line = {"time": stamp(self._now_s()), **fields, "bridge": __version__}
        with self._turn:
            self._pending.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            if len(self._pending) > PENDING_LINES_MAX:
                self._pending.popleft()
                self._lost += 1
            if self._closed:
                self._write_late()
            else:
                self._write_pending()

    def _write_late(self) -> None:
        try:
            self._open_files()
        except OSError as exc:
            self._fail(exc)
            return
        try:
            self._write_pending()
            self._sync()
        finally:
            self._close_files()

    def _open_files(self) -> None:
        lock = open_own(lock_path(self._path), os.O_RDWR)
        try:
            self._file = _open(self._path)
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    def _close_files(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    @property
    def failing(self) -> bool:
        """Tell whether lines wait for a disk that does not take them."""
        return bool(self.failure)

    @property
    def failure(self) -> str:
        """Say why the file cannot be written; "" when it can be."""
        # Without its turn: a writer may be held up by the disk, and /health must not be.
        why = self._failing or self._unsynced
        if not why:
            return ""
        lost = f" Lines that are lost: {self._lost}." if self._lost else ""
        waiting = f" Lines that wait: {len(self._pending)}."
        return f"The audit file {self._path} cannot be written: {why}.{waiting}{lost}"

    def _write_pending(self) -> None:
        try:
            with self._locked():
                while self._pending:
                    self._write(self._pending[0])
                    self._pending.popleft()
        except OSError as exc:
            self._fail(exc)
            return
        if self._failing:
            text = f"the audit file can be written again; {self._lost} lines were lost meanwhile"
            level = logging.ERROR if self._lost else logging.WARNING
            log(level, "audit_recovered", text, lost=self._lost)
            self._failing, self._lost = "", 0

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            text = f"the audit file {self._path} cannot be written: {error.strerror}"
            log(logging.ERROR, "audit_failed", text, waiting=len(self._pending))
        self._failing = error.strerror or type(error).__name__

    def _write(self, line: bytes) -> None:
        self._follow_path()
        size = os.fstat(self._file).st_size
        if size and size + len(line) > self._bytes_max:
            self._put_aside()
            size = 0
        written = os.write(self._file, line)
        self._dirty = True
        if written < len(line):
            os.ftruncate(self._file, size)
            raise OSError(0, "only a part of a line could be written")

    def _follow_path(self) -> None:
        """Open the file anew when another process has put ours aside."""
        held = os.fstat(self._file)
        try:
            named = self._path.stat()
        except FileNotFoundError:
            named = None
        if named is None or (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
            # First the new one: a closed number is another file's soon, a connection's or the
            # ledger's, and where the new one cannot be opened it would be closed a second time.
            before = self._file
            self._file = _open(self._path)
            os.close(before)
            repair(self._file)

    def _put_aside(self) -> None:
        self._sync()
        number = max((n for n, _ in set_aside(self._path)), default=0) + 1
        self._path.rename(self._path.with_name(f"{self._path.name}.{number:06d}"))
        before = self._file
        self._file = _open(self._path, like=before)
        os.close(before)

    def _sync(self) -> None:
        self._synced_s = self._steady_s()
        try:
            os.fdatasync(self._file)
        except OSError as exc:
            if not self._unsynced:
                log(logging.ERROR, "audit_failed", f"the audit file: {exc.strerror}", waiting=0)
            self._unsynced = exc.strerror or type(exc).__name__
        else:
            self._dirty, self._unsynced = False, ""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers away: replay and run may share a file."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def audit_trails(settings: Settings) -> tuple[AuditTrail, ...]:
    """Return the audit file that the settings ask for, if they do. Raises ConfigurationError."""
    if settings.audit_path is None:
        return ()
    return (AuditTrail(settings.audit_path, bytes_max=settings.audit_max_mb * 1024 * 1024),)


def repair(file: int) -> None:
    """Cut an incomplete last line off: a power cut in the middle of a write leaves one."""
    size = os.fstat(file).st_size
    start = max(0, size - LINE_BYTES_MAX)
    tail = os.pread(file, size - start, start)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(file, start + tail.rfind(b"\n") + 1)


def lock_path(path: Path) -> Path:
    """Name the file by which writers take turns."""
    return path.with_name(f"{path.name}.lock")


def set_aside(path: Path) -> list[tuple[int, Path]]:
    """List the files that were put aside, the oldest first, each with its number."""
    found: list[tuple[int, Path]] = []
    for other in path.parent.glob(f"{path.name}.*"):
        number = other.name.removeprefix(f"{path.name}.")
        if number.isascii() and number.isdigit():
            found.append((int(number), other))
    return sorted(found)


def stamp(epoch_s: float) -> str:
    """Write a time as UTC with milliseconds."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _open(path: Path, *, like: int | None = None) -> int:
    """Open the audit file; a new one is for this user alone, or for whom its forerunner was.

    Who may read the record is the operator's decision: the mode of one that is there stays, but
    nobody else may write to it. ``like``: the forerunner.
    """
    file = open_own(path, os.O_RDWR | os.O_APPEND, tighten=False)
    mode = stat.S_IMODE(os.fstat(file).st_mode)
    wanted = mode & READERS_MODE if like is None else os.fstat(like).st_mode & READERS_MODE
    if wanted != mode and os.fstat(file).st_uid == os.geteuid():
        os.fchmod(file, wanted)
    return file


def _delivered(done: Delivered) -> Line:
    # Imported here: without an audit file this process needs no codecs.
    from bridge.versions import decoder_versions

    times = {
        name.removesuffix("_s") + "_ms": round(value * 1000, 1)
        for name, value in asdict(done.stages).items()
    }
    return {
        "outcome": "already_there" if done.already_there else "delivered",
        "action": str(done.action),
        "study": done.study_id,
        "sop_instance_uid": uid_or_nothing(done.sop_instance_uid),
        "source_syntax": done.source_syntax,
        "target_syntax": done.target_syntax,
        "decoder": done.decoder,
        "decoder_version": decoder_versions(done.decoder),
        "fallbacks": list(done.fallbacks),
        "trusted": done.trusted,
        "samples_sha256": done.samples_sha256,
        "source_bytes": done.source_bytes,
        "target_bytes": done.target_bytes,
        "target_md5": done.target_md5,
        **times,
    }


def _deletes(event: SourceDeletes) -> Line:
    return {
        "outcome": "deletes",
        "source_md5": event.source_md5,
        "target_md5": event.target_md5,
        "source_file": event.source_file,
        "target_file": event.target_file,
        "age_s": round(event.age_s),
        "proofs": list(DELETION_PROOFS),
    }


def _copy_line(event: CopyReplaces | CopyRepaired | CopyNotRepaired) -> Line:
    match event:
        case CopyReplaces():
            return {
                "outcome": "replaces",
                "state": event.state,
                "source_md5": event.source_md5,
                "target_md5": event.target_md5,
                "before_md5": event.before_md5,
            }
        case CopyRepaired():
            return {"outcome": "repaired", "state": event.state}
        case CopyNotRepaired():
            return {"outcome": "not_repaired", "state": event.state}


def _parked(event: InstanceParked) -> Line:
    return {
        "outcome": "parked",
        "reason": str(event.reason),
        "sop_instance_uid": uid_or_nothing(event.sop_instance_uid),
        "source_syntax": uid_or_nothing(event.source_syntax),
        "rules": event.rules,
    }
