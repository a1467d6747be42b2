"""Power loss: a state file that is older, cut or spoilt costs repeated work and nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.dicom_samples import small_ct, small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench

pytestmark = pytest.mark.orthanc


@pytest.fixture
def bench(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Bench:
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    return Bench(source.url, target.url, tmp_path)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _files(path: Path) -> list[Path]:
    return [f for f in (path, _beside(path, "-wal"), _beside(path, "-shm")) if f.exists()]


def _cut_in_half(path: Path) -> None:
    with _beside(path, "-wal").open("r+b") as wal:
        wal.truncate(wal.seek(0, 2) // 2 + 7)


def _empty_wal(path: Path) -> None:
    _beside(path, "-wal").write_bytes(b"")


def _delete_wal(path: Path) -> None:
    _beside(path, "-wal").unlink()
    _beside(path, "-shm").unlink()


def _delete_shm(path: Path) -> None:
    _beside(path, "-shm").unlink()


def _garbage_in_the_middle(path: Path) -> None:
    wal = _beside(path, "-wal")
    data = bytearray(wal.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 512] = random.Random(4).randbytes(512)
    wal.write_bytes(data)


def _garbage_throughout(path: Path) -> None:
    wal = _beside(path, "-wal")
    wal.write_bytes(random.Random(4).randbytes(wal.stat().st_size))


def _garbage_at_the_end(path: Path) -> None:
    with _beside(path, "-wal").open("ab") as wal:
        wal.write(random.Random(4).randbytes(5000))


@pytest.mark.parametrize(
    "damage",
    [
        _cut_in_half,
        _empty_wal,
        _delete_wal,
        _delete_shm,
        _garbage_in_the_middle,
        _garbage_throughout,
        _garbage_at_the_end,
    ],
    ids=lambda damage: damage.__name__.strip("_"),
)
def test_transactions_that_did_not_reach_the_disk(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    with bench:
        sent = bench.send_all(small_series(10))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        bridge.kill()
        damage(bench.state_path)
        sent += bench.send_all(small_series(3))
        done = bench.run("run", "--once", "--json")
        assert done.exit_code == 0, done.stderr
        assert done.json["parked"] == {}
        assert done.json["delivered"] == 3, "the others are there already"
        assert bench.checkpoint() == bench.last()
        bench.assert_delivered_once(sent)


def test_an_older_copy_of_the_state(bench: Bench, tmp_path: Path) -> None:
    with bench:
        sent = bench.send_all(small_series(6))
        assert bench.run("run", "--once").exit_code == 0
        older = bench.checkpoint()
        copies = tmp_path / "copies"
        copies.mkdir()
        for file in _files(bench.state_path):
            shutil.copy(file, copies)
        sent += bench.send_all(small_series(6))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        bridge.kill()
        for file in _files(bench.state_path):
            file.unlink()
        for file in copies.iterdir():
            shutil.copy(file, bench.state_path.parent)
        assert bench.checkpoint() == older
        done = bench.run("run", "--once", "--json")
        assert done.exit_code == 0, done.stderr
        assert (done.json["delivered"], done.json["already_there"]) == (0, 6)
        assert bench.checkpoint() == bench.last()
        bench.assert_delivered_once(sent)


def test_a_state_file_that_is_none_is_refused_and_a_new_one_repeats_without_effect(
    bench: Bench,
) -> None:
    with bench:
        sent = bench.send_all(small_series(4))
        assert bench.run("run", "--once").exit_code == 0
        for file in _files(bench.state_path):
            file.unlink()
        bench.state_path.write_bytes(random.Random(4).randbytes(20_000))
        refused = bench.run("run", "--once")
        assert refused.exit_code == 12
        assert "start without one" in refused.stderr
        assert "Traceback" not in refused.stderr
        bench.state_path.unlink()
        sent.append(bench.send(small_ct()))
        done = bench.run("run", "--once", "--json")
        assert done.exit_code == 0, done.stderr
        assert (done.json["delivered"], done.json["already_there"]) == (1, 4)
        bench.assert_delivered_once(sent)
