"""A delivery into a file: whole and proved, or not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.model import Delivered, InstanceFailed, Move, Outcome, Reason, Skipped, Task
from bridge.worker.prepare import PART, Preparation, prepare
from bridge.worker.transfer import process_client
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_orthanc import CutBody, FakeOrthanc
from tests.transfer_world import OTHER_ID, UNDECODABLE, World, rle


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> Iterator[World]:
    process_client.cache_clear()
    yield World(fake_orthanc(), fake_orthanc())
    process_client.cache_clear()


def prepared(world: World, instance_id: str, path: Path) -> Outcome:
    outcome = prepare(Preparation(Task(Move(instance_id), world.job), path))
    assert not path.with_name(path.name + PART).exists()
    assert world.target.requests == [], "nothing is asked of the target"
    return outcome


@pytest.mark.parametrize("make", [small_ct, rle])
def test_the_file_is_what_a_move_would_send(
    world: World, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    data = make()
    instance_id, path = world.source.put(data), tmp_path / "renewal.dcm"
    done = prepared(world, instance_id, path)
    assert isinstance(done, Delivered)
    whole = path.read_bytes()
    assert done.source_md5 == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert done.sent_md5 == hashlib.md5(whole, usedforsecurity=False).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(world.move(instance_id), Delivered)
    assert world.stored(instance_id) == whole


def test_large_native_pixels_are_written_frame_by_frame(world: World, tmp_path: Path) -> None:
    data = file_bytes(small_ct_dataset(rows=2100, columns=2100))
    instance_id, path = world.source.put(data), tmp_path / "renewal.dcm"
    assert isinstance(prepared(world, instance_id, path), Delivered)
    assert path.read_bytes() == data


@pytest.mark.parametrize("before", [None, b"another instance"])
def test_what_cannot_be_delivered_leaves_no_file_of_its_own(
    world: World, tmp_path: Path, before: bytes | None
) -> None:
    path = tmp_path / "renewal.dcm"
    if before is not None:
        path.write_bytes(before)
    instance_id = world.source.put(UNDECODABLE)
    outcome = prepared(world, instance_id, path)
    assert isinstance(outcome, InstanceFailed)
    assert outcome.reason is Reason.UNDECODABLE
    assert isinstance(prepared(world, OTHER_ID, path), Skipped)
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_file_that_is_cut_off_on_its_way_is_none(world: World, tmp_path: Path) -> None:
    instance_id, path = world.source.put(small_ct()), tmp_path / "renewal.dcm"
    world.source.script(f"GET /instances/{instance_id}/file", CutBody(700))
    assert not isinstance(prepared(world, instance_id, path), Delivered)
    assert not path.exists()


def test_a_file_of_another_instance_is_refused(world: World, tmp_path: Path) -> None:
    path = tmp_path / "renewal.dcm"
    world.source.store.put(small_ct(), instance_id=OTHER_ID)
    outcome = prepared(world, OTHER_ID, path)
    assert isinstance(outcome, InstanceFailed)
    assert outcome.reason is Reason.IDENTITY_CHANGED


def test_the_file_is_on_the_disk_before_it_has_its_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "renewal.dcm"
    done: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(number: int) -> None:
        done.append("sync")
        real_fsync(number)

    def rename(here: Path, there: Path) -> Path:
        done.append("rename")
        return real_rename(here, there)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    assert isinstance(prepared(world, world.source.put(small_ct()), path), Delivered)
    assert done == ["sync", "rename", "sync"]
