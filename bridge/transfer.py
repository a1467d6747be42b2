"""Move one instance: fetch, transcode, deliver, prove. Runs in a worker, returns an Outcome.

Imports neither config, ledger, health nor cli: a worker knows only its task and its environment.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import time
import traceback
from dataclasses import dataclass, field

from bridge.core.errors import OUT_OF_MEMORY, InstanceError, InstanceGone, SideError
from bridge.core.file_meta import FileMeta, read_file_meta
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
    Skipped,
    StageTimes,
    Task,
)
from bridge.core.rules import FIELDS, Choice, RuleAction, choose, facts_of_file, facts_of_metadata
from bridge.orthanc import OrthancClient
from bridge.parcels import Buffer, Parcel, as_it_is, fetched, transcoded
from bridge.proof import ALREADY_STORED, check_answer, check_stored, md5_of, stored_md5
from bridge.sides import FROM_FILES, connect, failure_of
from bridge.stages import tell

MEDIA_STORAGE_SOP_INSTANCE_UID = 0x0003
SIDE_SHARE = 0.5
"""Part of the task's time after which a slow server, not the instance, is to blame."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk that has no room for a file of this size: a smaller one may fit."""
FORWARDABLE = (Reason.UNDECODABLE, Reason.UNSUPPORTED_SYNTAX, Reason.VERIFICATION_FAILED)


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
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> OrthancClient:
        """The client for the source. Raises SideError."""
        return process_client(self.job.source)

    @property
    def target(self) -> OrthancClient:
        """The client for the target. Raises SideError."""
        return process_client(self.job.target)

    def mark(self) -> None:
        """Note the end of a stage, and tell which is next."""
        self.marks.append(time.monotonic())
        tell(self.number, len(self.marks))

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


def move(task: Task) -> Outcome:  # noqa: PLR0911 (a table of errors)
    """Bring one instance to the target.

    Never raises: an exception that does not unpickle would break the pool for every later task.
    """
    attempt = Attempt(task.job, task.move.instance_id, task.number)
    tell(task.number, len(attempt.marks))
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
        return attempt.failed(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY, final=False)
    except OSError as exc:
        if exc.errno == errno.ENOMEM:
            return attempt.failed(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY, final=False)
        return ExecutorFailed(
            f"A worker cannot spool to disk: {exc.strerror}.",
            advice="Free space under TMPDIR.",
            specific=exc.errno in NO_ROOM,
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


def _move(attempt: Attempt) -> Outcome:
    job = attempt.job
    choice = _early_choice(attempt)
    if choice is not None and choice.action is RuleAction.SKIP:
        return _skipped(attempt, choice)
    with fetched(
        attempt.source,
        attempt.instance_id,
        spool_above_bytes=job.spool_above_bytes,
        deadline_s=job.task_timeout_s * SIDE_SHARE,
    ) as body:
        attempt.mark()
        if job.keeps_evidence:
            attempt.source_md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        meta = read_file_meta(memoryview(body))
        attempt.source_syntax = meta.syntax
        attempt.sop_instance_uid = meta.uid(MEDIA_STORAGE_SOP_INSTANCE_UID)
        if choice is None:
            attempt.facts |= facts_of_file(memoryview(body))
            # Nothing about an instance is unknown once its file is here.
            facts = dict.fromkeys(FIELDS, "") | attempt.facts
            choice = choose(job.rules, facts, default_to=job.wanted_syntax)
        if choice is None or choice.action is RuleAction.SKIP:
            return _skipped(attempt, choice)
        return _send(attempt, body, meta, choice)


def _early_choice(attempt: Attempt) -> Choice | None:
    """Apply the rules to what Orthanc knows; None when only the file can tell."""
    job = attempt.job
    if job.rules:
        known = attempt.source.instance_metadata(attempt.instance_id)
        attempt.facts = facts_of_metadata(known)
        attempt.source_syntax = attempt.facts.get("syntax", "")
    return choose(job.rules, attempt.facts, default_to=job.wanted_syntax)


def _skipped(attempt: Attempt, choice: Choice | None) -> Skipped:
    line = choice.line if choice else 0
    return Skipped(Reason.RULE, f"by the rule at line {line}", attempt.source_syntax)


def _send(attempt: Attempt, body: Buffer, meta: FileMeta, choice: Choice) -> Delivered:
    if choice.action is RuleAction.FORWARD:
        return _deliver(attempt, as_it_is(body, Action.FORWARDED), len(body))
    if attempt.source_syntax == choice.to:
        return _deliver(attempt, as_it_is(body, Action.UNCHANGED), len(body))
    job = attempt.job
    try:
        with transcoded(
            body,
            meta=meta,
            wanted_syntax=choice.to,
            options=job.transcode,
            instance_id=attempt.instance_id,
            spool_above_bytes=job.spool_above_bytes,
        ) as parcel:
            return _deliver(attempt, parcel, len(body))
    except InstanceError as exc:
        if not _forwards(job, exc.reason):
            raise
    # A frame may turn out undecodable when earlier ones are on their way; the target has refused
    # that cut body, and the instance follows as it is.
    del attempt.marks[2:]
    return _deliver(attempt, as_it_is(body, Action.FORWARDED), len(body))


def _deliver(attempt: Attempt, parcel: Parcel, source_bytes: int) -> Delivered:
    attempt.mark()
    done = parcel.transcoded
    if done is not None:
        # Whatever else stands there may be a name: it would be logged and kept.
        attempt.sop_instance_uid = done.sop_instance_uid if _is_uid(done.sop_instance_uid) else ""
    answer = attempt.target.store(
        parcel.body, body_bytes=parcel.body_bytes, deadline_s=attempt.deadline_s()
    )
    attempt.mark()
    check_answer(answer, attempt.instance_id)
    stored, differing = "", False
    if attempt.job.proof == "stored" or answer.status == ALREADY_STORED:
        sent = md5_of(parcel)
        must_tell = attempt.job.proof == "stored"
        stored = stored_md5(attempt.target, attempt.instance_id, may_hide=not must_tell)
        differing = stored not in {sent, ""}
        if must_tell:
            check_stored(stored, sent, answer.status)
    attempt.mark()
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
        target_md5=stored,
        differing=differing,
        samples_sha256=done.samples_sha256 if done else "",
        study_id=answer.study_id,
    )


def _forwards(job: Job, reason: Reason) -> bool:
    if reason is Reason.VIDEO:
        return job.on_video == "forward"
    return reason in FORWARDABLE and job.on_undecodable == "forward"


def _side_failed(error: SideError) -> SideFailed:
    if error.problem in FROM_FILES:
        process_client.cache_clear()
    return failure_of(error)


def _is_uid(text: str) -> bool:
    """Whether a text has the form of a UID (PS3.5 section 9.1)."""
    return len(text) <= 64 and set(text) <= set("0123456789.")


def _kind_and_place(exc: Exception) -> str:
    last = traceback.extract_tb(exc.__traceback__)[-1]
    place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
    return f"A bug in the bridge: {type(exc).__name__} at {place}. Please report it."
