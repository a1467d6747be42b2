"""Images of both servers compared: equal, changed, gone, not readable, or no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bridge.core.model import Endpoint, Job, SideName
from bridge.images import Comparison, Likeness, Verdict, compare
from bridge.transfer import process_client
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_orthanc import CutBody, FakeOrthanc
from tests.integration.conftest import undecodable_ct

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


def verdict(source: FakeOrthanc, target: FakeOrthanc, job: Job, recorded: str = "") -> Verdict:
    (instance_id,) = set(source.store.instances) | set(target.store.instances)
    return compare(Comparison(instance_id, job, recorded))


def test_equal_files_are_the_same_whether_they_decode_or_not(
    fake_orthanc: Start, job_of: JobOf
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    data = undecodable_ct()
    source.put(data)
    target.put(data)
    assert verdict(source, target, job_of(source, target)).likeness is Likeness.SAME


def test_one_changed_sample_is_another_image(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    first, second = changed()
    source.put(first)
    target.put(second)
    seen = verdict(source, target, job_of(source, target))
    assert (seen.likeness, seen.how) == (Likeness.DIFFERENT, "samples differ")


def test_the_record_stands_for_a_source_that_let_go(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    first, second = changed()
    target.put(first)
    recorded = verdict(target, target, job_of(target, target), "unknown").target_sha256
    job = job_of(source, target)
    assert verdict(source, target, job, recorded).likeness is Likeness.SAME
    target.store.reset()
    target.put(second)
    seen = verdict(source, target, job, recorded)
    assert (seen.likeness, "audit" in seen.how) == (Likeness.DIFFERENT, True)
    assert not [request for request in source.requests if "/file" in request]


def test_a_source_that_no_decoder_reads_is_undecided(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    data = undecodable_ct()
    instance_id = source.put(data)
    target.store.put(small_ct(), instance_id=instance_id)
    assert verdict(source, target, job_of(source, target)).likeness is Likeness.UNDECIDED
    # The other way round the target's file is at fault.
    seen = verdict(target, source, job_of(target, source))
    assert (seen.likeness, "target" in seen.how) == (Likeness.DIFFERENT, True)


def test_what_was_deleted_meanwhile_is_gone(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    target.put(small_ct())
    assert verdict(source, target, job_of(source, target)).likeness is Likeness.GONE


def test_a_server_that_fails_is_told_as_such(fake_orthanc: Start, job_of: JobOf) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    data = small_ct()
    source.put(data)
    target.put(data)
    target.script("GET /instances", CutBody(100))
    failure = verdict(source, target, job_of(source, target)).failure
    assert failure is not None
    assert failure.side is SideName.TARGET
