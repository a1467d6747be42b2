"""Large things go through files, and come out the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID

import bridge.worker.payload
from bridge.dicom.file_meta import read_file_meta
from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import Action, Endpoint, SideName, TranscodeOptions
from bridge.orthanc.bodies import InstanceBody
from bridge.worker.payload import CHUNK_BYTES, FileRoom, as_it_is, fetched, transcoded
from tests.dicom_samples import file_bytes, small_ct_dataset

NATIVE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"


def _deflated() -> bytes:
    dataset = small_ct_dataset(rows=128, columns=128)
    dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
    return file_bytes(dataset)


@pytest.mark.parametrize("spool_above_bytes", [1, 1000, 10_000_000])
def test_a_deflated_data_set_is_the_same_through_memory_and_file(spool_above_bytes: int) -> None:
    data = _deflated()
    options = TranscodeOptions()
    plain = b"".join(transcode(data, wanted_syntax=NATIVE, options=options).body)
    with transcoded(
        data,
        meta=read_file_meta(memoryview(data)),
        wanted_syntax=NATIVE,
        options=options,
        instance_id="i",
        spool_above_bytes=spool_above_bytes,
    ) as payload:
        assert b"".join(payload.chunks()) == plain
        assert payload.body_bytes == len(plain)


def test_what_inflates_beyond_the_limit_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    make = tempfile.TemporaryFile

    def counted() -> object:
        made.append(1)
        return make(dir=tmp_path)

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    room = FileRoom(100)
    for _ in range(10):
        room.append(b"x" * 25)
    assert bytes(room.view()) == b"x" * 250
    assert len(made) == 1
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_a_cut_stream_is_refused_with_a_file_too() -> None:
    data = _deflated()[:-200]
    with (
        pytest.raises(InstanceError),
        transcoded(
            data,
            meta=read_file_meta(memoryview(data)),
            wanted_syntax=NATIVE,
            options=TranscodeOptions(),
            instance_id="i",
            spool_above_bytes=1,
        ),
    ):
        pytest.fail("it was accepted")


def test_long_private_file_meta_is_no_obstacle() -> None:
    dataset = small_ct_dataset()
    dataset.file_meta.PrivateInformationCreatorUID = UID("1.2.3")
    dataset.file_meta.PrivateInformation = b"\0" * 70_000
    data = file_bytes(dataset)
    result = transcode(data, wanted_syntax="1.2.840.10008.1.2", options=TranscodeOptions())
    assert result.source_syntax == NATIVE


class Source:
    """A server that sends one file in chunks of this size."""

    endpoint = Endpoint(SideName.SOURCE, "http://source")

    def __init__(self, data: bytes, chunk_bytes: int, *, tells: bool = True) -> None:
        self.chunks = [data[n : n + chunk_bytes] for n in range(0, len(data), chunk_bytes)]
        self.length = len(data) if tells else None

    @contextmanager
    def open_instance(self, _instance_id: str, *, deadline_s: float) -> Iterator[InstanceBody]:
        assert deadline_s > 0
        yield InstanceBody(self.length, iter(self.chunks))


@pytest.mark.parametrize("chunk_bytes", [1000, 4096, 65_536, 1 << 20])
@pytest.mark.parametrize("more_bytes", [-1, 0, 1, 7, 4096])
def test_what_goes_through_a_file_has_its_last_bytes(chunk_bytes: int, more_bytes: int) -> None:
    """Fails when what is written last is not flushed before the file is mapped."""
    data = bytes(range(256)) * 4096 + b"the end"
    data = data[: (1 << 20) + more_bytes]
    source: Any = Source(data, chunk_bytes)
    with fetched(source, "i", spool_above_bytes=10_000, deadline_s=9.0) as body:
        assert not isinstance(body, bytes)
        assert len(body) == len(data)
        assert bytes(body) == data


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 3000])
@pytest.mark.parametrize("chunk_bytes", [400, 1000, 5000])
def test_what_is_small_is_in_memory_and_what_is_large_in_a_file(
    size: int, chunk_bytes: int, *, tells: bool
) -> None:
    """Whether the server says how long it is or not; the bound belongs to the small ones."""
    data = (bytes(range(251)) * 12)[:size]
    source: Any = Source(data, chunk_bytes, tells=tells)
    with fetched(source, "i", spool_above_bytes=1000, deadline_s=9.0) as body:
        assert isinstance(body, bytes) is (size <= 1000)
        assert bytes(body) == data


PACKED = b"PK\x03\x04".ljust(128, b"p") + b"DICM" + bytes(range(256)) * 16 * 1024 + b"end"
PLAIN = bytes(128) + PACKED[128:]


@pytest.mark.parametrize(("data", "expected"), [(PACKED, PLAIN), (PLAIN, PLAIN)])
@pytest.mark.parametrize("spool_above_bytes", [1000, 100_000_000])
def test_a_file_as_it_is_can_be_sent_any_number_of_times(
    data: bytes, expected: bytes, spool_above_bytes: int
) -> None:
    source: Any = Source(data, 65_536)
    with fetched(source, "i", spool_above_bytes=spool_above_bytes, deadline_s=9.0) as body:
        payload = as_it_is(body, Action.FORWARDED)
        assert payload.body_bytes == len(expected)
        for _ in range(3):
            assert b"".join(payload.chunks()) == expected
        assert isinstance(payload.body, bytes) or max(map(len, payload.body)) <= CHUNK_BYTES


@pytest.mark.parametrize(("wanted_syntax", "hold_bytes_max"), [(NATIVE, 1), (RLE, 1), (RLE, 10**9)])
@pytest.mark.parametrize("spool_above_bytes", [10, 1_000_000])
def test_what_is_transcoded_can_be_sent_any_number_of_times(
    spool_above_bytes: int, wanted_syntax: str, hold_bytes_max: int
) -> None:
    """Of a known length, and of one that shows at the end."""
    data = _deflated()
    with transcoded(
        data,
        meta=read_file_meta(memoryview(data)),
        wanted_syntax=wanted_syntax,
        options=TranscodeOptions(hold_bytes_max=hold_bytes_max),
        instance_id="i",
        spool_above_bytes=spool_above_bytes,
    ) as payload:
        first = b"".join(payload.chunks())
        assert len(first) == payload.body_bytes > 1000
        assert [b"".join(payload.chunks()) for _ in range(2)] == [first, first]


@pytest.mark.parametrize("spooled", [False, True])
def test_a_large_file_is_sent_frame_by_frame_and_a_small_one_from_one_buffer(
    monkeypatch: pytest.MonkeyPatch, *, spooled: bool
) -> None:
    """JOIN_BYTES_MAX, to the byte."""
    data = file_bytes(small_ct_dataset())
    for surplus, in_one in ((0, True), (1, False)):
        options = {"wanted_syntax": "1.2.840.10008.1.2", "options": TranscodeOptions()}
        known = transcode(data, **options).body.body_bytes  # type: ignore[arg-type]
        assert known is not None
        monkeypatch.setattr(bridge.worker.payload, "JOIN_BYTES_MAX", known - surplus)
        with transcoded(
            data,
            meta=read_file_meta(memoryview(data)),
            instance_id="i",
            spool_above_bytes=1 if spooled else 10**9,
            **options,  # type: ignore[arg-type]
        ) as payload:
            assert isinstance(payload.body, bytes) is in_one
            assert payload.body_bytes == known == len(b"".join(payload.chunks()))


def test_a_room_keeps_what_came_first_when_it_becomes_a_file() -> None:
    room, pieces = FileRoom(10), [b"one", b"two", b"three", b"four", b"five"]
    for number, piece in enumerate(pieces):
        room.append(piece)
        assert bytes(room.view()) == b"".join(pieces[: number + 1])
    assert not room._held, "it is in the file, and no longer in memory"
