"""Move one instance: fetch, transcode, deliver, prove. Runs in a worker, returns an Outcome.

Imports neither config, ledger, health nor cli: a worker knows only its task and its environment.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from bridge.core.errors import InstanceError, InstanceGone, SideError
from bridge.core.model import (
    Action,
    Delivered,
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Outcome,
    Reason,
    SideFailed,
    SideProblem,
    Skipped,
    StageTimes,
    StoreAnswer,
    Task,
)
from bridge.core.transcode import Transcoded, peek_syntax, transcode
from bridge.orthanc import OrthancClient
from bridge.sides import connect, failure_of

HEAD_BYTES = 64 * 1024
JOIN_BYTES_MAX = 8 * 1024 * 1024
"""Bodies up to this size are sent from one buffer; larger ones frame by frame."""
SIDE_SHARE = 0.5
"""Part of the task's time after which a slow server, not the instance, is to blame."""
FORWARDABLE = (Reason.UNDECODABLE, Reason.UNSUPPORTED_SYNTAX, Reason.VERIFICATION_FAILED)

MEMORY_TEXT = "It needs more memory than BRIDGE_WORKER_MEMORY_MB allows one worker."

Buffer = bytes | mmap.mmap
Chunk = bytes | bytearray | memoryview


@dataclass(slots=True)
class Attempt:
    """One attempt: when its stages ended, and what is known so far if it fails."""

    job: Job
    instance_id: str
    source: OrthancClient
    target: OrthancClient
    marks: list[float] = field(default_factory=lambda: [time.monotonic()])
    source_syntax: str = ""
    sop_instance_uid: str = ""
    source_md5: str = ""

    def mark(self) -> None:
        """Note the end of a stage."""
        self.marks.append(time.monotonic())

    def deadline_s(self) -> float | None:
        """Return the seconds that a transfer beginning now may take.

        None when decoding has used up so much of the task's time that a time-out would be the
        instance's fault: the executor then ends the task.
        """
        whole_s = self.job.task_timeout_s
        left_s = whole_s - (time.monotonic() - self.marks[0])
        return left_s * 0.9 if left_s >= whole_s * SIDE_SHARE else None

    def stages(self) -> StageTimes:
        """Return how long each stage took."""
        fetched, transcoded, delivered, proved = (
            after - before for before, after in zip(self.marks, self.marks[1:], strict=False)
        )
        return StageTimes(fetched, transcoded, delivered, proved)

    def failed(self, reason: Reason, message: str, *, final: bool) -> InstanceFailed:
        """Report the instance's failure with what is known."""
        return InstanceFailed(reason, message, final, self.source_syntax, self.sop_instance_uid)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be sent. ``transcoded`` is None when it is the source's own bytes."""

    action: Action
    body: bytes | Iterable[Chunk]
    body_bytes: int
    transcoded: Transcoded | None = None


def move(task: Task) -> Outcome:  # noqa: PLR0911 (a table of errors)
    """Bring one instance to the target.

    Never raises: an exception that does not unpickle would break the pool for every later task.
    """
    job = task.job
    try:
        attempt = Attempt(
            job, task.move.instance_id, process_client(job.source), process_client(job.target)
        )
    except SideError as exc:
        return _side_failed(exc)
    try:
        return _move(attempt)
    except InstanceGone as exc:
        # The client has made sure that the source is well and really lacks it (DESIGN 5).
        return Skipped(Reason.GONE, exc.message)
    except InstanceError as exc:
        return attempt.failed(exc.reason, exc.message, final=exc.final)
    except SideError as exc:
        return _side_failed(exc)
    except MemoryError:
        return attempt.failed(Reason.OUT_OF_MEMORY, MEMORY_TEXT, final=False)
    except OSError as exc:
        if exc.errno == errno.ENOMEM:
            return attempt.failed(Reason.OUT_OF_MEMORY, MEMORY_TEXT, final=False)
        return ExecutorFailed(
            f"A worker cannot spool to disk: {exc.strerror}. Free space under TMPDIR."
        )
    except Exception as exc:  # noqa: BLE001
        # One of two places that catch everything: a bug of ours must cost this instance its
        # attempts, visibly, and not the feed. The text of an unknown exception may quote patient
        # data, so only its kind and place are told.
        return attempt.failed(Reason.INTERNAL, _kind_and_place(exc), final=False)


@functools.lru_cache(maxsize=8)
def process_client(endpoint: Endpoint) -> OrthancClient:
    """Return this process's client for a server; its connections are kept between tasks."""
    return connect(endpoint)


def _move(attempt: Attempt) -> Delivered:
    with _fetched(attempt) as body:
        attempt.mark()
        if attempt.job.keeps_evidence:
            attempt.source_md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        try:
            with _prepared(attempt, body) as parcel:
                return _deliver(attempt, parcel, len(body))
        except InstanceError as exc:
            if not _forwards(attempt.job, exc.reason):
                raise
        # A frame may turn out undecodable when earlier ones are on their way; the target has
        # refused that cut body, and the instance follows as it is.
        del attempt.marks[2:]
        return _deliver(attempt, Parcel(Action.FORWARDED, _chunks(body), len(body)), len(body))


@contextmanager
def _fetched(attempt: Attempt) -> Iterator[Buffer]:
    """Download the instance: in memory when small, mapped from an unnamed file when large."""
    limit = attempt.job.spool_above_bytes
    with tempfile.SpooledTemporaryFile(max_size=limit) as spool:
        held = _download(attempt, spool, limit)
        if held is not None:
            yield held
            return
        spool.flush()
        with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def _download(attempt: Attempt, spool: IO[bytes], limit: int) -> bytes | None:
    """Return the file, or None when it was too large for memory and is in ``spool``."""
    deadline_s = attempt.job.task_timeout_s * SIDE_SHARE
    with attempt.source.open_instance(attempt.instance_id, deadline_s=deadline_s) as body:
        if body.content_length is not None and body.content_length <= limit:
            return b"".join(body.chunks)
        for chunk in body.chunks:
            spool.write(chunk)
    if spool.tell() > limit:
        return None
    spool.seek(0)
    return spool.read()


@contextmanager
def _prepared(attempt: Attempt, body: Buffer) -> Iterator[Parcel]:
    """Bring the instance into the wanted syntax, ready to be sent."""
    job = attempt.job
    attempt.source_syntax = peek_syntax(body[:HEAD_BYTES])
    if attempt.source_syntax == job.wanted_syntax:
        attempt.mark()
        yield Parcel(Action.UNCHANGED, _chunks(body), len(body))
        return
    result = transcode(
        body,
        wanted_syntax=job.wanted_syntax,
        options=job.transcode,
        instance_id=attempt.instance_id,
    )
    attempt.sop_instance_uid = result.sop_instance_uid
    known = result.body.body_bytes
    if known is not None and known > JOIN_BYTES_MAX:
        attempt.mark()
        yield Parcel(result.action, result.body, known, result)
    elif known is not None:
        joined = b"".join(result.body)
        attempt.mark()
        yield Parcel(result.action, joined, len(joined), result)
    else:
        with tempfile.SpooledTemporaryFile(max_size=job.spool_above_bytes) as spool:
            for chunk in result.body:
                spool.write(chunk)
            attempt.mark()
            body_bytes = spool.tell()
            yield Parcel(result.action, _Spooled(spool), body_bytes, result)


def _deliver(attempt: Attempt, parcel: Parcel, source_bytes: int) -> Delivered:
    if len(attempt.marks) == 2:
        attempt.mark()
    digest = hashlib.md5(usedforsecurity=False) if attempt.job.proof == "stored" else None
    body = parcel.body
    if digest is not None and not isinstance(body, bytes):
        body = b"".join(body) if parcel.body_bytes <= JOIN_BYTES_MAX else body
    answer = attempt.target.store(
        body, body_bytes=parcel.body_bytes, deadline_s=attempt.deadline_s()
    )
    attempt.mark()
    _check_answer(answer, attempt.instance_id)
    stored_md5 = ""
    if digest is not None:
        for chunk in (body,) if isinstance(body, bytes) else body:
            digest.update(chunk)
        stored_md5 = attempt.target.stored_md5(attempt.instance_id)
        _check_stored(stored_md5, digest.hexdigest(), answer.status)
    attempt.mark()
    done = parcel.transcoded
    return Delivered(
        status=answer.status,
        action=parcel.action,
        source_syntax=attempt.source_syntax,
        target_syntax=done.target_syntax if done else attempt.source_syntax,
        sop_instance_uid=attempt.sop_instance_uid,
        source_bytes=source_bytes,
        target_bytes=parcel.body_bytes,
        stages=attempt.stages(),
        decoder=done.decoder if done else "",
        fallbacks=done.fallbacks if done else (),
        source_md5=attempt.source_md5,
        target_md5=stored_md5,
    )


def _check_answer(answer: StoreAnswer, instance_id: str) -> None:
    """Hold the target to its answer (G8). Raises InstanceError."""
    if answer.status == "FilteredOut":
        raise InstanceError(
            Reason.FILTERED_OUT,
            "A filter at the target (a Lua script or a plugin) refused it.",
        )
    if answer.status not in ("Success", "AlreadyStored"):
        raise InstanceError(
            Reason.REJECTED_BY_TARGET,
            f"The target answered Status {answer.status!r} instead of Success or AlreadyStored.",
            final=False,
        )
    if answer.instance_id != instance_id:
        raise InstanceError(
            Reason.IDENTITY_CHANGED,
            f"The target stored it under the ID {answer.instance_id}: something there changes "
            "identifiers (an anonymising script or plugin).",
        )


def _check_stored(stored_md5: str, sent_md5: str, status: str) -> None:
    if stored_md5 == sent_md5:
        return
    seen = (
        "had another file under this ID before, and kept it"
        if status == "AlreadyStored"
        else "holds other bytes than were sent"
    )
    raise InstanceError(
        Reason.PROOF_MISMATCH, f"The target {seen}: MD5 {stored_md5}, sent {sent_md5}."
    )


def _forwards(job: Job, reason: Reason) -> bool:
    if reason is Reason.VIDEO:
        return job.on_video == "forward"
    return reason in FORWARDABLE and job.on_undecodable == "forward"


def _side_failed(error: SideError) -> SideFailed:
    if error.problem is SideProblem.LOGIN_REFUSED:
        # A password file may have been renewed: read it again for the next attempt.
        process_client.cache_clear()
    return failure_of(error)


def _chunks(body: Buffer) -> bytes | Iterable[Chunk]:
    return body if isinstance(body, bytes) else _Mapped(body)


class _Mapped:
    """A mapped file as chunks, any number of times."""

    CHUNK_BYTES = 1024 * 1024

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._mapped), self.CHUNK_BYTES):
            yield self._mapped[start : start + self.CHUNK_BYTES]


class _Spooled:
    """A spooled file as chunks, any number of times."""

    CHUNK_BYTES = 1024 * 1024

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool

    def __iter__(self) -> Iterator[bytes]:
        self._spool.seek(0)
        while chunk := self._spool.read(self.CHUNK_BYTES):
            yield chunk


def _kind_and_place(exc: Exception) -> str:
    last = traceback.extract_tb(exc.__traceback__)[-1]
    place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
    return f"A bug in the bridge: {type(exc).__name__} at {place}. Please report it."
