"""What is large, or decoded, has a place in the worker; nothing else has to wait for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from bridge.dicom.file_meta import read_file_meta
from bridge.model import Action, Delivered, TranscodeOptions
from bridge.orthanc.bodies import InstanceBody
from bridge.worker import places
from bridge.worker.payload import FileRoom, fetched, transcoded
from bridge.worker.places import SMALL_BYTES, Places
from bridge.worker.transfer import Attempt
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.fake_orthanc import FakeOrthanc
from tests.transfer_world import World, rle
from tests.unit.worker.test_payload import Source

NATIVE = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


class Told(Places):
    """Places of which none is free at first: what was asked of them."""

    def __init__(self) -> None:
        super().__init__(-1, 1, None, 0)
        self.asked: list[str] = []
        self.has = False
        self.during_wait: Callable[[], None] = lambda: None

    def try_take(self) -> bool:
        self.asked.append("try")
        return self.has

    def take(self) -> None:
        self.asked.append("take")
        self.during_wait()
        self.has = True

    def release(self) -> None:
        self.asked.append("release")
        self.has = False


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    made = Told()
    monkeypatch.setattr(places._Own, "places", made)
    return made


class Watched(Source):
    """A source that says how often it was asked, and for how long it may take."""

    def __init__(self, data: bytes, *, tells: bool = True) -> None:
        super().__init__(data, 65_536, tells=tells)
        self.deadlines_s: list[float] = []
        self.read = 0
        self.takes_its_time: Callable[[], None] = lambda: None

    @contextmanager
    def open_instance(self, _instance_id: str, *, deadline_s: float) -> Iterator[InstanceBody]:
        self.deadlines_s.append(deadline_s)
        self.takes_its_time()

        def chunks() -> Iterator[bytes]:
            for chunk in self.chunks:
                self.read += len(chunk)
                yield chunk

        yield InstanceBody(self.length, chunks())


def bytes_of(source: Any, *, deadline_s: float = 50.0) -> bytes:
    with fetched(source, "i", spool_above_bytes=1 << 30, deadline_s=deadline_s) as body:
        return bytes(body)


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES - 1, SMALL_BYTES])
def test_a_small_file_needs_no_place(told: Told, size: int) -> None:
    source = Watched(b"x" * size)
    assert bytes_of(source) == b"x" * size
    assert told.asked == []


@pytest.mark.parametrize(("size", "tells"), [(SMALL_BYTES + 1, True), (10, False)])
def test_a_large_file_is_not_read_before_it_has_a_place(told: Told, size: int, tells: bool) -> None:
    source = Watched(b"x" * size, tells=tells)

    def nothing_is_read() -> None:
        assert source.read == 0

    told.during_wait = nothing_is_read
    assert bytes_of(source) == b"x" * size
    assert told.asked == ["try", "take", "try"]
    assert source.read == size, "once"


def test_who_has_a_place_asks_the_source_once(told: Told) -> None:
    told.has = True
    source = Watched(b"x" * (SMALL_BYTES + 1))
    bytes_of(source)
    assert len(source.deadlines_s) == 1


def test_both_questions_have_the_time_of_one_and_the_wait_has_none(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    source = Watched(b"x" * (SMALL_BYTES + 1))

    def passes(seconds: float) -> Callable[[], None]:
        return lambda: now_s.__setitem__(0, now_s[0] + seconds)

    source.takes_its_time = passes(20.0)
    told.during_wait = passes(500.0)
    bytes_of(source, deadline_s=50.0)
    assert source.deadlines_s == [50.0, 30.0]


@pytest.mark.parametrize(("rows", "released"), [(64, True), (1024, False), (2048, False)])
def test_decoding_has_a_place_and_keeps_it_for_what_is_large(
    told: Told, rows: int, released: bool
) -> None:
    dataset = small_ct_dataset(rows=rows, columns=rows)
    data = file_bytes(dataset)
    with transcoded(
        data,
        meta=read_file_meta(memoryview(data)),
        wanted_syntax=IMPLICIT,
        options=TranscodeOptions(),
        instance_id="i",
        spool_above_bytes=1 << 30,
    ):
        assert told.asked[0] == "take", "before anything is decoded"
        assert ("release" in told.asked) is released
        assert told.has is not released


def test_a_file_that_inflates_has_a_place_from_where_it_is_large(told: Told) -> None:
    room = FileRoom(1 << 30)
    room.append(b"x" * SMALL_BYTES)
    assert told.asked == []
    room.append(b"x")
    assert told.asked == ["take"]


def test_an_instance_is_decoded_with_a_place(
    told: Told, fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    world = World(fake_orthanc(), fake_orthanc())
    outcome = world.move(world.source.put(rle()))
    assert isinstance(outcome, Delivered)
    assert outcome.action is Action.TRANSCODED
    assert "take" in told.asked


def test_waiting_for_a_place_leaves_a_transfer_its_time(
    told: Told, fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    world = World(fake_orthanc(), fake_orthanc())
    attempt = Attempt(replace(world.job, task_timeout_s=20_000.0), "i")
    attempt.marks[0] -= 18_000.0
    assert attempt.deadline_s() is None
    told.waited_s = 18_000.0
    assert attempt.deadline_s() == pytest.approx(18_000.0, abs=5.0)
