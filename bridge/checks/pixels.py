"""Is the target's image the source's? Both files are fetched and decoded, in a worker process.

The target is not believed: its file is downloaded, not its MD5. A decoder that dies takes its
worker along and is an answer too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, Self

from bridge.dicom.content_sum import content_sum
from bridge.dicom.fingerprint import Fingerprint, fingerprint
from bridge.errors import (
    OUT_OF_MEMORY,
    InstanceError,
    InstanceGone,
    SideError,
    failure_of,
    side_error,
)
from bridge.model import ExecutorFailed, InstanceFailed, Job, SideFailed, SideName
from bridge.worker.payload import Buffer, fetched
from bridge.worker.pool import LOST_MAX, OrderedPool
from bridge.worker.pool_watch import SILENT_S
from bridge.worker.transfer import process_client

CHUNK_BYTES = 1024 * 1024


class ImageResult(StrEnum):
    """What a comparison of two images says."""

    SAME = "same"
    DIFFERENT = "different"
    OTHER_CONTENT = "other content"
    """The image is the same, and other elements are not (ImageTask.with_content)."""
    UNDECIDED = "undecided"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """The comparison of one instance. ``how`` tells what was compared, or what is wrong.

    ``target_sha256``: of the target's decoded samples, "" without any. ``source_md5``: of the
    source's file as it came, "" where none came. ``failure``: a server could not be used.
    """

    instance_id: str
    result: ImageResult
    how: str = ""
    target_sha256: str = ""
    failure: SideFailed | None = None
    source_md5: str = ""


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One instance to compare. ``samples_sha256``: what the source's samples once were.

    With it the source is not asked: it may have let the instance go. ``with_content``: compare what
    both files say beside their images, too.
    """

    instance_id: str
    job: Job
    samples_sha256: str = ""
    with_content: bool = False


End = ImageComparison | InstanceFailed | ExecutorFailed
"""What the pool gives back for a comparison."""


def compare_images(task: ImageTask) -> ImageComparison:
    """Fetch and compare; runs in a worker and never raises what does not travel."""
    came: list[str] = []
    compared = _compare(task, came.append)
    return replace(compared, source_md5=came[0]) if came else compared


def _compare(  # noqa: PLR0911 (a table of errors)
    task: ImageTask, source_came: Callable[[str], None]
) -> ImageComparison:
    """Compare. ``source_came`` is given the MD5 of the source's file, whatever is wrong with it."""
    try:
        with _file(task, SideName.TARGET) as target:
            if task.samples_sha256:
                return _against_record(task, target)
            with _file(task, SideName.SOURCE) as source:
                source_came(_digest("md5", source))
                return _against_source(task, source, target)
    except InstanceGone as exc:
        return ImageComparison(task.instance_id, ImageResult.GONE, exc.message)
    except InstanceError as exc:
        return ImageComparison(task.instance_id, ImageResult.UNDECIDED, exc.message)
    except SideError as exc:
        return ImageComparison(
            task.instance_id, ImageResult.UNDECIDED, exc.message, failure=failure_of(exc)
        )
    except MemoryError:
        return ImageComparison(task.instance_id, ImageResult.UNDECIDED, OUT_OF_MEMORY)
    except OSError as exc:
        return ImageComparison(
            task.instance_id, ImageResult.UNDECIDED, f"cannot be spooled: {exc.strerror}"
        )


def _file(task: ImageTask, side: SideName) -> AbstractContextManager[Buffer]:
    endpoint = task.job.source if side is SideName.SOURCE else task.job.target
    return fetched(
        process_client(endpoint),
        task.instance_id,
        spool_above_bytes=task.job.spool_above_bytes,
        deadline_s=task.job.task_timeout_s,
    )


def _against_source(task: ImageTask, source: Buffer, target: Buffer) -> ImageComparison:
    if len(source) == len(target) and _sum(source) == _sum(target):
        return ImageComparison(task.instance_id, ImageResult.SAME, "the files are the same")
    trusts = task.job.transcode.on_wrong_label == "decode"
    wanted = fingerprint(source, trusts_stream=trusts)
    found = _target_fingerprint(target)
    if isinstance(found, str):
        return ImageComparison(task.instance_id, ImageResult.DIFFERENT, found)
    same = wanted.same_image(found)
    if same and task.with_content and content_sum(source) != content_sum(target):
        text = "the images are the same, but other elements differ"
        return ImageComparison(task.instance_id, ImageResult.OTHER_CONTENT, text)
    return _compared(task, same, _difference(wanted, found), found)


def _against_record(task: ImageTask, target: Buffer) -> ImageComparison:
    found = _target_fingerprint(target)
    if isinstance(found, str):
        return ImageComparison(task.instance_id, ImageResult.DIFFERENT, found)
    same = found.samples_sha256 == task.samples_sha256
    return _compared(task, same, "samples differ from those in the audit file", found)


def _compared(task: ImageTask, same: bool, difference: str, found: Fingerprint) -> ImageComparison:
    result = ImageResult.SAME if same else ImageResult.DIFFERENT
    how = difference if not same else "all samples are equal" if found.frames else "no pixel data"
    return ImageComparison(task.instance_id, result, how, found.samples_sha256)


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
    return _digest("sha256", data)


def _digest(name: str, data: Buffer) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    for start in range(0, len(data), CHUNK_BYTES):
        digest.update(data[start : start + CHUNK_BYTES])
    return digest.hexdigest()


class Images(Protocol):
    """Compares the pixels of instances."""

    def comparisons(self, asked: Iterable[tuple[str, str]]) -> Iterator[ImageComparison]:
        """Compare instances with the source, or with the sum given. Raises SideError."""


class ImageComparer:
    """Compares instances in worker processes. A context manager: it owns them.

    To be used by one thread. ``silent_s``: how long the pool may say nothing.
    """

    def __init__(
        self,
        job: Job,
        *,
        workers: int,
        memory_bytes: int,
        function: Callable[[ImageTask], ImageComparison] = compare_images,
        silent_s: float = SILENT_S,
        with_content: bool = False,
    ) -> None:
        self._job = job
        self._with_content = with_content
        self._pool = OrderedPool(
            function,
            workers=workers,
            memory_bytes=memory_bytes,
            timeout_s=job.task_timeout_s,
            silent_s=silent_s,
        )

    def __enter__(self) -> Self:
        self._pool.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.__exit__(*exception)

    def comparisons(self, asked: Iterable[tuple[str, str]]) -> Iterator[ImageComparison]:
        """Compare instances, each given with the recorded sum of its samples or "".

        Yields in that order. Raises SourceError or TargetError when a server cannot be used.
        """
        tasks = (
            ImageTask(instance_id, self._job, recorded, self._with_content)
            for instance_id, recorded in asked
        )
        for task, end in self._pool.results(tasks):
            compared = _comparison_of(task, end)
            failure = compared.failure
            # What a server answers to one instance only must not hide what is wrong with others.
            if failure is not None and not failure.specific:
                raise side_error(
                    failure.side, failure.problem, failure.message, advice=failure.advice
                )
            yield compared


def _comparison_of(task: ImageTask, end: End) -> ImageComparison:
    match end:
        case ImageComparison():
            return end
        case InstanceFailed(message=message):
            return ImageComparison(task.instance_id, ImageResult.UNDECIDED, message)
        case ExecutorFailed(message=message):
            text = f"{message} {LOST_MAX + 1} times: run it again"
            return ImageComparison(task.instance_id, ImageResult.UNDECIDED, text)
