"""Is the target's image the source's? Both files are fetched and decoded, in a worker process.

The target is not believed: its file is downloaded, not its MD5. A decoder that dies takes its
worker along and is an answer too.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from pebble import ProcessExpired, ProcessPool

from bridge.core.errors import InstanceError, InstanceGone, SideError, side_error
from bridge.core.fingerprint import Fingerprint, fingerprint
from bridge.core.model import Job, SideFailed, SideName
from bridge.parcels import Buffer, fetched
from bridge.sides import failure_of
from bridge.transfer import process_client
from bridge.workers import prepare_worker

CHUNK_BYTES = 1024 * 1024
AHEAD = 3
"""Comparisons under way or ready for each worker: what bounds memory in the parent."""


class Likeness(StrEnum):
    """What a comparison of two images says."""

    SAME = "same"
    DIFFERENT = "different"
    UNDECIDED = "undecided"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of one instance. ``how`` tells what was compared, or what is wrong.

    ``target_sha256``: of the target's decoded samples, "" without any. ``failure``: a server
    could not be used.
    """

    instance_id: str
    likeness: Likeness
    how: str = ""
    target_sha256: str = ""
    failure: SideFailed | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One instance to compare. ``samples_sha256``: what the source's samples once were.

    With it the source is not asked: it may have let the instance go.
    """

    instance_id: str
    job: Job
    samples_sha256: str = ""


def compare(task: Comparison) -> Verdict:  # noqa: PLR0911 (a table of errors)
    """Fetch and compare; runs in a worker and never raises what does not travel."""
    try:
        with _file(task, SideName.TARGET) as target:
            if task.samples_sha256:
                return _against_record(task, target)
            with _file(task, SideName.SOURCE) as source:
                return _against_source(task, source, target)
    except InstanceGone as exc:
        return Verdict(task.instance_id, Likeness.GONE, exc.message)
    except InstanceError as exc:
        return Verdict(task.instance_id, Likeness.UNDECIDED, exc.message)
    except SideError as exc:
        return Verdict(task.instance_id, Likeness.UNDECIDED, exc.message, failure=failure_of(exc))
    except MemoryError:
        text = "needs more memory than BRIDGE_WORKER_MEMORY_MB allows one worker"
        return Verdict(task.instance_id, Likeness.UNDECIDED, text)
    except OSError as exc:
        return Verdict(task.instance_id, Likeness.UNDECIDED, f"cannot be spooled: {exc.strerror}")


def _file(task: Comparison, side: SideName) -> AbstractContextManager[Buffer]:
    endpoint = task.job.source if side is SideName.SOURCE else task.job.target
    return fetched(
        process_client(endpoint),
        task.instance_id,
        spool_above_bytes=task.job.spool_above_bytes,
        deadline_s=task.job.task_timeout_s,
    )


def _against_source(task: Comparison, source: Buffer, target: Buffer) -> Verdict:
    if len(source) == len(target) and _sum(source) == _sum(target):
        return Verdict(task.instance_id, Likeness.SAME, "the files are the same")
    wanted = fingerprint(source)
    found = _target_fingerprint(target)
    if isinstance(found, str):
        return Verdict(task.instance_id, Likeness.DIFFERENT, found)
    return _verdict(task, wanted.same_image(found), _difference(wanted, found), found)


def _against_record(task: Comparison, target: Buffer) -> Verdict:
    found = _target_fingerprint(target)
    if isinstance(found, str):
        return Verdict(task.instance_id, Likeness.DIFFERENT, found)
    same = found.samples_sha256 == task.samples_sha256
    return _verdict(task, same, "samples are not those of the audit file", found)


def _verdict(task: Comparison, same: bool, difference: str, found: Fingerprint) -> Verdict:
    likeness = Likeness.SAME if same else Likeness.DIFFERENT
    how = difference if not same else "all samples are equal" if found.frames else "no pixel data"
    return Verdict(task.instance_id, likeness, how, found.samples_sha256)


def _target_fingerprint(target: Buffer) -> Fingerprint | str:
    try:
        return fingerprint(target)
    except InstanceError as exc:
        return f"the target's file cannot be decoded: {exc.message}"


def _difference(wanted: Fingerprint, found: Fingerprint) -> str:
    for name, before, after in (
        ("frames", wanted.frames, found.frames),
        ("rows, columns and samples", wanted.shape, found.shape),
        ("photometric interpretation", wanted.photometric, found.photometric),
    ):
        if before != after:
            return f"{name}: {before} at the source, {after} at the target"
    return "samples differ"


def _sum(data: Buffer) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(data), CHUNK_BYTES):
        digest.update(data[start : start + CHUNK_BYTES])
    return digest.hexdigest()


class ImageChecks:
    """Compares instances in worker processes. A context manager: it owns them."""

    def __init__(
        self,
        job: Job,
        *,
        workers: int,
        memory_bytes: int,
        function: Callable[[Comparison], Verdict] = compare,
    ) -> None:
        self._job = job
        self._workers = workers
        self._function = function
        self._pool = ProcessPool(
            max_workers=workers,
            initializer=prepare_worker,
            initargs=(memory_bytes, os.getpid()),
            context=multiprocessing.get_context("spawn"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def verdicts(self, asked: Iterable[tuple[str, str]]) -> Iterator[Verdict]:
        """Compare instances, each given with the recorded sum of its samples or "".

        Yields in that order. Raises SourceError or TargetError when a server cannot be used.
        """
        running: deque[tuple[str, Future[Verdict]]] = deque()
        for instance_id, samples_sha256 in asked:
            task = Comparison(instance_id, self._job, samples_sha256)
            timeout_s = self._job.task_timeout_s
            future = self._pool.schedule(self._function, args=[task], timeout=timeout_s)
            running.append((instance_id, future))
            if len(running) >= AHEAD * self._workers:
                yield _ended(*running.popleft())
        while running:
            yield _ended(*running.popleft())


def _ended(instance_id: str, future: Future[Verdict]) -> Verdict:
    try:
        verdict = future.result()
    except FutureTimeoutError:
        text = "not finished within BRIDGE_TASK_TIMEOUT_S"
        return Verdict(instance_id, Likeness.UNDECIDED, text)
    except ProcessExpired as exc:
        text = f"a decoder took its process down (exit code {exc.exitcode})"
        return Verdict(instance_id, Likeness.UNDECIDED, text)
    failure = verdict.failure
    # What a server answers to one instance only must not hide what is wrong with the others.
    if failure is not None and not failure.specific:
        raise side_error(failure.side, failure.problem, failure.message, advice=failure.advice)
    return verdict
