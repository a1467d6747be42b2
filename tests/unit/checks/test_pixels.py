"""Images of both servers compared: equal, changed, gone, not readable, or no answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.checks import pixels as images
from bridge.checks.pixels import (
    ImageComparer,
    ImageComparison,
    ImageResult,
    ImageTask,
    compare_images,
)
from bridge.dicom.fingerprint import Fingerprint
from bridge.errors import TargetError
from bridge.model import (
    Endpoint,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    TranscodeOptions,
)
from bridge.worker.transfer import process_client
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_orthanc import CutBody, FakeOrthanc
from tests.integration.conftest import undecodable_ct
from tests.simulation.retention import md5

Start = Callable[..., FakeOrthanc]


@pytest.fixture
def job_of() -> Iterator[Callable[[FakeOrthanc, FakeOrthanc], Job]]:
    process_client.cache_clear()
    yield lambda source, target: Job(
        Endpoint(SideName.SOURCE, source.url, timeout_s=5.0),
        Endpoint(SideName.TARGET, target.url, timeout_s=5.0),
        wanted_syntax="1.2.840.10008.1.2.1",
    )
    process_client.cache_clear()


JobOf = Callable[[FakeOrthanc, FakeOrthanc], Job]


def changed(byte: int = 0) -> tuple[bytes, bytes]:
    """Return the same instance twice; in the second one byte of the pixels is another."""
    dataset = small_ct_dataset(rows=64, columns=64)
    first = file_bytes(dataset)
    pixels = bytearray(dataset.PixelData)
    pixels[byte] ^= 1
    dataset.PixelData = bytes(pixels)
    return first, file_bytes(dataset)


def compared(
    source: FakeOrthanc, target: FakeOrthanc, job: Job, recorded: str = ""
) -> ImageComparison:
    (instance_id,) = set(source.store.instances) | set(target.store.instances)
    return compare_images(ImageTask(instance_id, job, recorded))


def test_equal_files_are_the_same_whether_they_decode_or_not(
    fake_orthanc: Start, job_of: JobOf
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    data = undecodable_ct()
    source.put(data)
    target.put(data)
    assert compared(source, target, job_of(source, target)).result is ImageResult.SAME


def test_one_changed_sample_is_another_image(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    first, second = changed()
    source.put(first)
    target.put(second)
    seen = compared(source, target, job_of(source, target))
    assert (seen.result, seen.how) == (ImageResult.DIFFERENT, "samples differ")


@pytest.mark.parametrize("byte", [0, (1 << 20) + 5, (2 << 20) + 5, -2])
def test_a_difference_anywhere_in_a_large_file(
    fake_orthanc: Start, job_of: JobOf, byte: int
) -> None:
    """The sums of both files are made in pieces of 1 MiB: first, middle, last."""
    source, target = fake_orthanc(), fake_orthanc()
    dataset = small_ct_dataset(rows=1100, columns=1100)
    source.put(file_bytes(dataset))
    pixels = bytearray(dataset.PixelData)
    pixels[byte] ^= 1
    dataset.PixelData = bytes(pixels)
    target.put(file_bytes(dataset))
    assert compared(source, target, job_of(source, target)).result is ImageResult.DIFFERENT


def test_the_record_stands_for_a_source_that_let_go(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    first, second = changed()
    target.put(first)
    recorded = compared(target, target, job_of(target, target), "unknown").target_sha256
    job = job_of(source, target)
    assert compared(source, target, job, recorded).result is ImageResult.SAME
    target.store.reset()
    target.put(second)
    seen = compared(source, target, job, recorded)
    assert (seen.result, "audit" in seen.how) == (ImageResult.DIFFERENT, True)
    assert not [request for request in source.requests if "/file" in request]


@pytest.mark.parametrize("data", [small_ct(), undecodable_ct()], ids=["decodes", "does not"])
def test_the_sum_of_what_came_from_the_source_is_told_whatever_it_is(
    fake_orthanc: Start, job_of: JobOf, data: bytes
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    instance_id = source.put(data)
    target.store.put(changed()[1], instance_id=instance_id)
    seen = compared(source, target, job_of(source, target))
    assert seen.result in {ImageResult.DIFFERENT, ImageResult.UNDECIDED}
    assert seen.source_md5 == md5(data)


def test_a_source_that_no_decoder_reads_is_undecided(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    data = undecodable_ct()
    instance_id = source.put(data)
    target.store.put(small_ct(), instance_id=instance_id)
    assert compared(source, target, job_of(source, target)).result is ImageResult.UNDECIDED
    # The other way round the target's file is at fault.
    seen = compared(target, source, job_of(target, source))
    assert (seen.result, "target" in seen.how) == (ImageResult.DIFFERENT, True)


def test_what_was_deleted_meanwhile_is_gone(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    target.put(small_ct())
    assert compared(source, target, job_of(source, target)).result is ImageResult.GONE


def test_a_server_that_fails_is_told_as_such(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    data = small_ct()
    source.put(data)
    target.put(data)
    target.script("GET /instances", CutBody(100))
    failure = compared(source, target, job_of(source, target)).failure
    assert failure is not None
    assert failure.side is SideName.TARGET


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (InstanceFailed(Reason.TIMED_OUT, "Not finished."), "Not finished."),
        (InstanceFailed(Reason.WORKER_DIED, "SIGSEGV"), "SIGSEGV"),
        (ExecutorFailed("The pool broke."), "run it again"),
    ],
)
def test_every_end_of_a_comparison_is_an_answer(
    end: InstanceFailed | ExecutorFailed, said: str
) -> None:
    job = Job(Endpoint(SideName.SOURCE, "s"), Endpoint(SideName.TARGET, "t"), wanted_syntax="1.2")
    compared = images._comparison_of(ImageTask("i", job), end)
    assert (compared.instance_id, compared.result) == ("i", ImageResult.UNDECIDED)
    assert said in compared.how


def test_there_is_one_pool() -> None:
    """Every way in which a worker ends is known to `bridge.worker.pool`; another knew a few."""
    root = Path(images.__file__).parents[1]
    own = re.compile(
        r"(?<!class )\bWorkerProcesses\(|\bProcessPool(Executor)?\(|multiprocessing\.Pool\("
    )
    made_in = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if own.search(path.read_text())
    }
    assert made_in - {"demo/try_folder.py"} == {"worker/pool.py"}


def test_other_elements_are_told_where_they_are_asked_for(
    fake_orthanc: Start, job_of: JobOf
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    dataset = small_ct_dataset()
    instance_id = source.put(file_bytes(dataset))
    dataset.InstitutionName = "another one"
    target.put(file_bytes(dataset))
    job = job_of(source, target)
    assert compare_images(ImageTask(instance_id, job)).result is ImageResult.SAME
    told = compare_images(ImageTask(instance_id, job, with_content=True))
    assert told.result is ImageResult.OTHER_CONTENT


class GivenPool:
    """Instead of processes: these ends, in this order."""

    def __init__(self, ends: list[Any]) -> None:
        self.ends = ends

    def results(self, tasks: Iterable[ImageTask]) -> Iterator[tuple[ImageTask, Any]]:
        yield from zip(tasks, self.ends, strict=True)


def comparer_of(ends: list[Any]) -> ImageComparer:
    job = Job(Endpoint(SideName.SOURCE, "http://a"), Endpoint(SideName.TARGET, "http://b"), "1.2")
    made = ImageComparer(job, workers=1, memory_bytes=1)
    made._pool = GivenPool(ends)  # type: ignore[assignment]
    return made


def undecided(name: str, *, specific: bool) -> ImageComparison:
    failure = SideFailed(SideName.TARGET, SideProblem.SERVER_ERROR, "It fails.", specific=specific)
    return ImageComparison(name, ImageResult.UNDECIDED, failure=failure)


def test_what_a_server_answers_to_one_instance_hides_nothing_of_the_others() -> None:
    ends = [
        ImageComparison("a", ImageResult.SAME),
        undecided("b", specific=True),
        ImageComparison("c", ImageResult.DIFFERENT),
        InstanceFailed(Reason.WORKER_DIED, "It died.", final=True),
        ExecutorFailed("Lost."),
        undecided("f", specific=False),
        ImageComparison("g", ImageResult.SAME),
    ]
    comparisons = comparer_of(ends).comparisons((name, "") for name in "abcdefg")
    found = [next(comparisons) for _ in range(5)]
    assert [one.instance_id for one in found] == list("abcde")
    assert [one.result for one in found] == [
        ImageResult.SAME,
        ImageResult.UNDECIDED,
        ImageResult.DIFFERENT,
        ImageResult.UNDECIDED,
        ImageResult.UNDECIDED,
    ]
    with pytest.raises(TargetError, match="It fails"):
        next(comparisons)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frames": 2}, "frames: 1 at the source, 2 at the target"),
        ({"shape": (3, 2, 1)}, "rows, columns and samples: "),
        ({"photometric": "RGB"}, "photometric interpretation: "),
        ({"values_sha256": "b"}, "samples differ"),
    ],
)
def test_what_differs_is_named(changes: dict[str, Any], told: str) -> None:
    one = Fingerprint("a", "a", 1, (2, 3, 1), "MONOCHROME2")
    assert images._difference(one, replace(one, **changes)).startswith(told)


@pytest.mark.parametrize(("policy", "trusts"), [("park", False), ("decode", True)])
def test_a_stream_is_trusted_where_moves_trust_it(
    monkeypatch: pytest.MonkeyPatch, policy: str, *, trusts: bool
) -> None:
    """Of the source only: what the target holds has a label that is right."""
    seen: list[dict[str, object]] = []

    def noted(_data: object, **named: object) -> Fingerprint:
        seen.append(named)
        return Fingerprint()

    monkeypatch.setattr(images, "fingerprint", noted)
    job = Job(
        Endpoint(SideName.SOURCE, "http://a"),
        Endpoint(SideName.TARGET, "http://b"),
        "1.2",
        transcode=TranscodeOptions(on_wrong_label=policy),
    )
    images._against_source(ImageTask("i", job), b"source", b"target")
    assert seen == [{"trusts_stream": trusts}, {}]
