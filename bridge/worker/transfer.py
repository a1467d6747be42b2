"""Move one instance: fetch, transcode, deliver, prove. Runs in a worker, returns an Outcome.

Imports neither config, ledger, health nor cli: a worker knows only its task and its environment.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from bridge.decision import Handling, Treatment, handling_of, handling_of_file, is_forwarded
from bridge.dicom.facts import facts_of_file
from bridge.dicom.file_meta import FileMeta, read_file_meta
from bridge.dicom.orthanc_id import study_of_file
from bridge.dicom.syntax_label import check_label_of_file
from bridge.errors import (
    OUT_OF_MEMORY,
    InstanceError,
    InstanceGone,
    SideError,
    failure_of,
    side_error,
)
from bridge.model import (
    SIZE_FACT,
    Action,
    Delivered,
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
    StoreAnswer,
    Study,
    Task,
)
from bridge.orthanc import OrthancClient
from bridge.orthanc.session import FROM_FILES, connect
from bridge.orthanc.trace_context import context_of, traced
from bridge.rules import attributes_of, facts_of_metadata
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX, shortened, uid_or_nothing, visible
from bridge.worker.payload import (
    Buffer,
    Chunk,
    FileRoom,
    Payload,
    as_it_is,
    fetched,
    transcoded,
)
from bridge.worker.places import here
from bridge.worker.proof import (
    ALREADY_STORED,
    AlreadyAtTarget,
    ProvingServer,
    check_another_file,
    check_answer,
    check_fetched,
    check_source_file,
    check_stored,
    file_name,
    is_at_target,
    md5_of,
    stored_md5,
)
from bridge.worker.stages import WORK, Stage, tell

MEDIA_STORAGE_SOP_INSTANCE_UID = 0x0003
SIDE_SHARE = 0.5
"""Part of the task's time after which a slow server, not the instance, is to blame."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk that has no room for a file of this size: a smaller one may fit."""


class DeliveryTarget(ProvingServer, Protocol):
    """What is needed of a target: an Orthanc, or a file (worker/prepare.py)."""

    def store(
        self,
        body: bytes | Iterable[Chunk],
        *,
        body_bytes: int | None,
        deadline_s: float | None,
    ) -> StoreAnswer:
        """Store a DICOM file. Raises InstanceError, SideError."""


@dataclass(slots=True)
class Attempt:
    """One attempt: when its stages ended, and what is known so far if it fails."""

    job: Job
    instance_id: str
    number: int = 0
    marks: list[float] = field(default_factory=lambda: [time.monotonic()])
    source_syntax: str = ""
    sop_instance_uid: str = ""
    source_md5: str = ""
    source_file: str = ""
    study: Study | None = None
    facts: dict[str, str] = field(default_factory=dict)
    again: bool = False
    into: DeliveryTarget | None = None
    """Where it is delivered to; None: to the target's server."""

    @property
    def source(self) -> OrthancClient:
        """The client for the source. Raises SideError."""
        return process_client(self.job.source)

    @property
    def target(self) -> DeliveryTarget:
        """The client for the target, or what stands for it. Raises SideError."""
        return self.into or process_client(self.job.target)

    def mark(self) -> None:
        """Note the end of a stage, and tell which is next."""
        self.marks.append(time.monotonic())
        tell(self.number, WORK[len(self.marks) - 1])

    def deadline_s(self) -> float | None:
        """Return the seconds that a transfer beginning now may take.

        None when decoding has used up so much of the task's time that a time-out would be the
        instance's fault: the executor then ends the task.
        """
        whole_s = self.job.task_timeout_s
        left_s = whole_s - (time.monotonic() - self.marks[0] - here().waited_s)
        return left_s * 0.9 if left_s >= whole_s * SIDE_SHARE else None

    def stages(self) -> StageTimes:
        """Return how long each stage took."""
        fetched, transcoded, delivered, proved = (
            after - before for before, after in zip(self.marks, self.marks[1:], strict=False)
        )
        return StageTimes(fetched, transcoded, delivered, proved)

    def failed(self, reason: Reason, message: str, *, final: bool) -> InstanceFailed:
        """Report the instance's failure with what is known."""
        told = visible(shortened(message, MESSAGE_CHARACTERS_MAX))
        known = (self.source_syntax, self.sop_instance_uid, self.study)
        return InstanceFailed(reason, told, final, *known)


def move(task: Task) -> Outcome:
    """Bring one instance to the target. Never raises."""
    return moved(task)


def moved(  # noqa: PLR0911 (a table of errors)
    task: Task, *, into: DeliveryTarget | None = None
) -> Outcome:
    """Bring one instance to the target, or to what stands for it.

    Never raises: an exception that does not unpickle would break the pool for every later task.
    """
    attempt = Attempt(task.job, task.move.instance_id, task.number, again=task.again, into=into)
    tell(task.number, Stage.FETCH)
    run = task.job.trace_run
    trace = context_of(run, task.move.instance_id, task.number) if run else None
    try:
        with traced(trace):
            return _move(attempt)
    except AlreadyAtTarget:
        text = "this bridge has delivered it, and the target holds exactly this file"
        syntax, study = attempt.source_syntax, attempt.study
        file = attempt.source_file
        return Skipped(Reason.CAME_BACK, text, syntax, file_read=True, study=study, file=file)
    except InstanceGone as exc:
        # The client has made sure that the source is well and really lacks it (DESIGN 5).
        return Skipped(Reason.GONE, exc.message)
    except InstanceError as exc:
        return attempt.failed(exc.reason, exc.message, final=exc.final)
    except SideError as exc:
        return _side_failed(exc)
    except MemoryError:
        return attempt.failed(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY, final=False)
    except OSError as exc:
        if exc.errno == errno.ENOMEM:
            return attempt.failed(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY, final=False)
        return ExecutorFailed(
            f"A worker cannot write a large instance to disk: {exc.strerror}.",
            advice="Free space under TMPDIR.",
            specific=exc.errno in NO_ROOM,
        )
    except Exception as exc:  # noqa: BLE001
        # One of two places that catch everything: a bug of ours must cost this instance its
        # attempts, visibly, and not the feed. The text of an unknown exception may quote patient
        # data, so only its kind and place are told.
        return attempt.failed(Reason.INTERNAL, _kind_and_place(exc), final=False)
    finally:
        tell(task.number, Stage.ENDED)


@functools.lru_cache(maxsize=8)
def process_client(endpoint: Endpoint) -> OrthancClient:
    """Return this process's client for a server; its connections are kept between tasks."""
    return connect(endpoint)


def _move(attempt: Attempt) -> Outcome:
    job = attempt.job
    early = _by_metadata(attempt)
    if early is not None and early.treatment is Treatment.SKIP:
        return _skipped(attempt, early, file_read=False)
    with fetched(
        attempt.source,
        attempt.instance_id,
        spool_above_bytes=job.spool_above_bytes,
        deadline_s=job.task_timeout_s * SIDE_SHARE,
    ) as body:
        attempt.mark()
        if job.keeps_evidence or job.notes_sums:
            attempt.source_md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if job.keeps_evidence:
            attempt.source_file = file_name(
                attempt.source, attempt.instance_id, md5=attempt.source_md5
            )
            if not attempt.source_file:
                with suppress(InstanceGone):  # what has come is delivered all the same
                    check_fetched(attempt.source, attempt.instance_id, body)
        try:
            done = _prepared_and_sent(attempt, body)
        except Exception as exc:
            if _may_be_the_file(exc):
                check_fetched(attempt.source, attempt.instance_id, body)
            raise
        if isinstance(done, Delivered) and done.differing:
            check_fetched(attempt.source, attempt.instance_id, body)
        return done


def _may_be_the_file(failure: Exception) -> bool:
    """Whether an attempt may have failed because the file that came is not the source's.

    A target may refuse such a file, fail at it or die of it. What the source itself answers, and a
    target that is not there, tell nothing of the file; nor does what is wrong with this machine.
    """
    if isinstance(failure, SideError):
        return failure.side is SideName.TARGET and (failure.specific or failure.begun)
    if isinstance(failure, InstanceError):
        return failure.reason is not Reason.OUT_OF_MEMORY
    return not isinstance(failure, AlreadyAtTarget | MemoryError | OSError)


def _prepared_and_sent(attempt: Attempt, body: Buffer) -> Outcome:
    """Decide what becomes of the file that came, and do it."""
    job = attempt.job
    meta = read_file_meta(memoryview(body))
    attempt.source_syntax = meta.syntax
    attempt.sop_instance_uid = meta.uid(MEDIA_STORAGE_SOP_INSTANCE_UID)
    attempt.facts[SIZE_FACT] = str(len(body))
    if job.keep_studies_s:
        attempt.study = study_of_file(memoryview(body))
    handling = handling_of(job, attempt.facts, file_syntax=meta.syntax)
    if handling is None:
        attempt.facts |= facts_of_file(memoryview(body), attributes_of(job.rules))
        handling = handling_of_file(job, attempt.facts, file_syntax=meta.syntax)
    if handling.treatment is Treatment.SKIP:
        return _skipped(attempt, handling, file_read=True)
    try:
        return _send(attempt, body, meta, handling)
    except InstanceError as exc:
        if exc.reason is Reason.IDENTITY_CHANGED:
            check_source_file(memoryview(body), attempt.instance_id)
        raise


def _by_metadata(attempt: Attempt) -> Handling | None:
    """Decide by what Orthanc knows, so that what is skipped is not fetched; None: ask the file."""
    job = attempt.job
    if not job.rules:
        return None
    known = _metadata(attempt)
    attempt.facts = facts_of_metadata(known)
    attempt.source_syntax = uid_or_nothing(attempt.facts.get("syntax", ""))
    return handling_of(job, attempt.facts)


def _metadata(attempt: Attempt) -> dict[str, str]:
    """Ask the source for what it knows of an instance. Raises SideError, InstanceGone.

    Where an instance that is there has none, something may hide them all: only other instances can
    tell.
    """
    try:
        return attempt.source.instance_metadata(attempt.instance_id)
    except InstanceError as exc:
        if exc.reason is not Reason.SERVER_REFUSES_INSTANCE:
            raise
        raise side_error(
            SideName.SOURCE,
            SideProblem.SERVER_ERROR,
            f"The source lists instance {attempt.instance_id} but gives no metadata of it.",
            advice="The rules need it: make sure that nothing hides /instances/.../metadata there.",
            specific=True,
        ) from exc


def _skipped(attempt: Attempt, handling: Handling, *, file_read: bool) -> Skipped:
    text = f"by the rule at line {handling.line}"
    return Skipped(Reason.RULE, text, attempt.source_syntax, file_read, attempt.study)


def _send(attempt: Attempt, body: Buffer, meta: FileMeta, handling: Handling) -> Delivered:
    job = attempt.job
    match handling.treatment:
        case Treatment.FORWARD:
            if handling.reason is Reason.UNSUPPORTED_SYNTAX:
                check_fetched(attempt.source, attempt.instance_id, body)
            return _deliver(attempt, as_it_is(body, Action.FORWARDED), len(body))
        case Treatment.PARK:
            raise handling.refusal()
        case _:
            pass
    try:
        if handling.treatment is Treatment.UNCHANGED:
            check_label_of_file(memoryview(body), meta, FileRoom(job.spool_above_bytes))
            return _deliver(attempt, as_it_is(body, Action.UNCHANGED), len(body))
        with transcoded(
            body,
            meta=meta,
            wanted_syntax=handling.target_syntax,
            options=job.transcode,
            instance_id=attempt.instance_id,
            spool_above_bytes=job.spool_above_bytes,
        ) as payload:
            return _deliver(attempt, payload, len(body))
    except InstanceError as exc:
        if not is_forwarded(job, exc.reason):
            raise
        check_fetched(attempt.source, attempt.instance_id, body)
    # A frame may turn out undecodable when earlier ones are on their way; the target has refused
    # that cut body, and the instance follows as it is.
    del attempt.marks[2:]
    return _deliver(attempt, as_it_is(body, Action.FORWARDED), len(body))


def _deliver(attempt: Attempt, payload: Payload, source_bytes: int) -> Delivered:
    attempt.mark()
    done = payload.transcoded
    if done is not None:
        # Whatever else stands there may be a name: it would be logged and kept.
        attempt.sop_instance_uid = uid_or_nothing(done.sop_instance_uid)
    if attempt.again and is_at_target(attempt.target, attempt.instance_id, payload):
        if done is None:
            raise AlreadyAtTarget
        # Another form than the target's came from a sender, and need not be sent once more.
        answer = StoreAnswer(attempt.instance_id, ALREADY_STORED)
    else:
        answer = attempt.target.store(
            payload.body, body_bytes=payload.body_bytes, deadline_s=attempt.deadline_s()
        )
    attempt.mark()
    check_answer(answer, attempt.instance_id)
    if answer.status == ALREADY_STORED:
        check_another_file(attempt.source, attempt.target, attempt.instance_id)
    stored, differing = "", False
    asks = attempt.job.proof == "stored" or answer.status == ALREADY_STORED
    sent = md5_of(payload) if asks or attempt.job.notes_sums else ""
    if asks:
        must_tell = attempt.job.proof == "stored"
        stored = stored_md5(attempt.target, attempt.instance_id, may_hide=not must_tell)
        differing = stored not in {sent, ""}
        if must_tell:
            check_stored(stored, sent, answer.status)
    target_file = ""
    if attempt.job.keeps_evidence:
        target_file = file_name(attempt.target, attempt.instance_id, md5=stored)
    attempt.mark()
    return Delivered(
        status=answer.status,
        action=payload.action,
        source_syntax=attempt.source_syntax,
        target_syntax=done.target_syntax if done else attempt.source_syntax,
        sop_instance_uid=attempt.sop_instance_uid,
        source_bytes=source_bytes,
        target_bytes=payload.body_bytes,
        stages=attempt.stages(),
        decoder=done.decoder if done else "",
        fallbacks=done.fallbacks if done else (),
        trusted=done.evidence.trusted if done else "",
        source_md5=attempt.source_md5,
        target_md5=stored,
        sent_md5=sent if attempt.job.notes_sums else "",
        source_file=attempt.source_file,
        target_file=target_file,
        differing=differing,
        samples_sha256=done.samples_sha256 if done else "",
        study_id=answer.study_id,
        study=attempt.study,
    )


def _side_failed(error: SideError) -> SideFailed:
    if error.problem in FROM_FILES:
        process_client.cache_clear()
    return failure_of(error)


def _kind_and_place(exc: Exception) -> str:
    last = traceback.extract_tb(exc.__traceback__)[-1]
    place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
    return f"This is a bug in the bridge: {type(exc).__name__} at {place}. Please report it."
