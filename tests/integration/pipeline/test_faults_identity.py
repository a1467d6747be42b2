"""Targets that answer well and do not hold what was sent: reported for what it is (G8)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.records import Parked
from bridge.model import Reason
from tests.bridge_process import Finished
from tests.dicom_samples import identity_of, small_ct, small_series
from tests.fake_orthanc import FakeOrthanc, StoreAs
from tests.fault_bench import FOLLOWING_ONLY, Bench

Orthancs = Callable[..., OrthancServer]
Fakes = Callable[..., FakeOrthanc]


def _once(bench: Bench, **settings: str) -> tuple[Finished, dict[str, Parked]]:
    done = bench.run("run", "--once", "--json", ATTEMPTS="2", **settings)
    assert bench.checkpoint() == bench.last()
    return done, bench.parked()


def _other_pixels(data: bytes) -> bytes:
    """Return another file with the same identifiers."""
    known = identity_of(data)
    return small_ct(
        seed=1000, study_uid=known.study_uid, series_uid=known.series_uid, sop_uid=known.sop_uid
    )


@pytest.mark.orthanc
def test_filtered_out_by_a_script_at_the_target(orthanc: Orthancs, tmp_path: Path) -> None:
    script = tmp_path / "filter.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin) return false end\n")
    source = orthanc("source", config=FOLLOWING_ONLY)
    target = orthanc("target", config=FOLLOWING_ONLY | {"LuaScripts": [str(script)]})
    with Bench(source.url, target.url, tmp_path) as bench:
        bad = bench.send(small_ct())
        done, parked = _once(bench)
        assert done.exit_code == 3
        assert done.json["parked"] == {"filtered_out": 1}
        assert parked[bad].reason is Reason.FILTERED_OUT
        assert parked[bad].attempts == 1, "another attempt cannot end otherwise"
        assert "filter at the target" in parked[bad].message
        assert bench.held() == set()


def test_a_target_that_changes_the_identifier(fake_orthanc: Fakes, tmp_path: Path) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    other = "-".join(["0badc0de"] * 5)
    with Bench(source.url, target.url, tmp_path) as bench:
        bad, *others = bench.send_all(small_series(3))
        target.script("POST /instances", StoreAs(instance_id=other), times=1)
        done, parked = _once(bench, WORKERS="1", WINDOW="1")
        assert done.exit_code == 3
        assert list(parked) == [bad]
        assert parked[bad].reason is Reason.IDENTITY_CHANGED
        assert parked[bad].attempts == 1
        assert other in parked[bad].message
        assert bench.held() == {other, *others}


@pytest.mark.parametrize("status", ["Failure", "Surprise"])
def test_a_status_that_is_no_success(fake_orthanc: Fakes, tmp_path: Path, status: str) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        bad = bench.send(small_ct())
        target.script("POST /instances", StoreAs(instance_id=bad, status=status))
        done, parked = _once(bench)
        assert done.exit_code == 3
        assert parked[bad].reason is Reason.REJECTED_BY_TARGET
        assert parked[bad].attempts == 2, "it might have passed"
        assert repr(status) in parked[bad].message
        assert bench.held() == set()


@pytest.mark.orthanc
def test_other_bytes_under_the_same_identifier(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    with Bench(source.url, target.url, tmp_path) as bench:
        data = small_ct()
        held_before = bench.target.store(_other_pixels(data), deadline_s=30.0).instance_id
        same = small_ct()
        bench.target.store(same, deadline_s=30.0)
        bad, good = bench.send(data), bench.send(same)
        assert bad == held_before
        done, parked = _once(bench, PROOF="stored")
        assert done.exit_code == 3
        assert list(parked) == [bad], "the same bytes, there before, are proof enough"
        assert parked[bad].reason is Reason.PROOF_MISMATCH
        assert "already had another file under this ID" in parked[bad].message
        assert good in bench.held()


@pytest.mark.orthanc
def test_without_proof_stored_the_answer_is_believed(orthanc: Orthancs, tmp_path: Path) -> None:
    """The documented window of G8."""
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    with Bench(source.url, target.url, tmp_path) as bench:
        data = small_ct()
        bench.target.store(_other_pixels(data), deadline_s=30.0)
        bench.send(data)
        done, parked = _once(bench)
        assert done.exit_code == 0
        assert done.json["already_there"] == 1
        assert parked == {}


@pytest.mark.orthanc
def test_health_tells_that_the_target_kept_its_own_file(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    with Bench(source.url, target.url, tmp_path) as bench:
        data = small_ct()
        kept = bench.target.store(_other_pixels(data), deadline_s=30.0).instance_id
        bridge = bench.start("run")
        assert bench.send(data) == kept
        said = bridge.wait_reason("other_bytes_kept")
        (reason,) = [one for one in said["reasons"] if one["code"] == "other_bytes_kept"]
        assert kept in reason["message"]
        status = bench.run("status")
        assert "kept its own file" in status.stdout, status.stdout
        # The target gets the source's file, and is sent it once more.
        bench.target.delete_instance(kept)
        bench.source.delete_instance(kept)
        assert bench.send(data) == kept
        bench.await_all([kept])
        bench.await_settled(bridge)
