"""Feeds that go backwards, are emptied, have gaps or show a row late (G6), on real servers."""

from __future__ import annotations

import shutil
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.fault_bench import FOLLOWING_ONLY, Bench, await_reason, delivered_count, endure

Orthancs = Callable[..., OrthancServer]
Fakes = Callable[..., FakeOrthanc]


def _two(orthanc: Orthancs) -> tuple[OrthancServer, OrthancServer]:
    return orthanc("source", config=FOLLOWING_ONLY), orthanc("target", config=FOLLOWING_ONLY)


def _storage(server: OrthancServer) -> Path:
    return server.directory / "storage"


def _create_anew(server: OrthancServer) -> None:
    server.kill()
    shutil.rmtree(_storage(server))
    server.start()


def _empty_feed(server: OrthancServer) -> None:
    request = urllib.request.Request(f"{server.url}/changes", method="DELETE")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def _metric(bridge: BridgeProcess, line: str) -> float:
    """The value of a metric, labels included in its name; 0 when it is not there."""
    for row in str(bridge.get("/metrics")[1]).splitlines():
        name, _, value = row.rpartition(" ")
        if name == line:
            return float(value)
    return 0.0


SKIPPED_GONE = 'orthanc_bridge_instances_total{outcome="skipped_gone",syntax=""}'
LATE = "orthanc_bridge_late_changes_total"


@pytest.mark.orthanc
def test_a_source_created_anew_ends_it_with_13(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(6))
        bridge = bench.start("run")
        checkpoint = bench.await_settled(bridge)["checkpoint"]
        _create_anew(source)
        bench.send(small_ct())
        done = bridge.finish()
        assert done.exit_code == 13
        assert f"it was read up to {checkpoint}" in done.stderr
        assert "BRIDGE_ON_FEED_RESET=snapshot" in done.stderr
        assert "orthanc-bridge docs operations" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(bridge.logged("feed_reset")) == 1
        assert bench.run("run", "--once").exit_code == 13, "and again, until a person decides"
        assert bench.checkpoint() == checkpoint
        assert bench.held() == set(sent)
        bench.assert_untouched()


@pytest.mark.orthanc
def test_a_source_restored_and_grown_past_the_checkpoint(orthanc: Orthancs, tmp_path: Path) -> None:
    """The end of the feed is above our checkpoint: only the rows themselves tell."""
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(4))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        source.stop()
        backup = tmp_path / "backup"
        shutil.copytree(_storage(source), backup)
        source.start()
        sent += bench.send_all(small_series(4))
        checkpoint = bench.await_settled(bridge)["checkpoint"]
        bridge.kill()
        source.kill()
        shutil.rmtree(_storage(source))
        shutil.copytree(backup, _storage(source))
        source.start()
        bench.send_all(small_series(12))
        assert bench.last() > checkpoint
        done = bench.run("run", "--once")
        assert done.exit_code == 13
        assert "not the one that was followed" in done.stderr
        assert bench.checkpoint() == checkpoint
        assert bench.held() == set(sent), "nothing of it was moved by guess"
        resumed = bench.run("run", "--once", ON_FEED_RESET="snapshot")
        assert resumed.exit_code == 0
        assert bench.checkpoint() == bench.last()
        assert set(bench.source.list_instances(0, 1000)) <= bench.held()


@pytest.mark.orthanc
def test_an_emptied_feed_is_no_other_feed(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(4))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        _empty_feed(source)
        sent += bench.send_all(small_series(4))
        bench.await_all(sent)
        bench.await_settled(bridge)  # what it has not written down, it must not believe
        _empty_feed(source)
        bridge.kill()
        assert bench.run("run", "--once").exit_code == 0
        bench.assert_delivered_once(sent)


@pytest.mark.orthanc
def test_rows_that_were_deleted_before_they_were_read(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(4))
        assert bench.run("run", "--once").exit_code == 0
        checkpoint = bench.checkpoint()
        sent += bench.send_all(small_series(3))
        _empty_feed(source)
        done = bench.run("run", "--once")
        assert done.exit_code == 13
        assert f"changes {checkpoint + 1} to" in done.stderr
        assert "BRIDGE_ON_FEED_RESET=snapshot" in done.stderr
        assert bench.checkpoint() == checkpoint
        resumed = bench.run("run", "--once", ON_FEED_RESET="snapshot")
        assert resumed.exit_code == 0, resumed.stderr
        bench.assert_delivered_once(sent)


@pytest.mark.orthanc
def test_gaps_after_deletions(orthanc: Orthancs, tmp_path: Path) -> None:
    """Deleted before, and after, the bridge has passed: at the end, in the middle, at the front."""
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(9))
        deleted = {sent[0], sent[4], sent[8]}
        for instance_id in deleted:
            bench.source.delete_instance(instance_id)
        left = [i for i in sent if i not in deleted]
        bridge = bench.start("run")
        bench.await_all(left)
        bench.await_settled(bridge)
        for instance_id in left:
            bench.source.delete_instance(instance_id)
        left += bench.send_all(small_series(2))
        bench.await_all(left)
        bench.await_settled(bridge)
        bench.assert_delivered_once(left)
        assert _metric(bridge, SKIPPED_GONE) == 0
        assert _metric(bridge, LATE) == 0


@pytest.mark.orthanc
def test_deleted_between_listing_and_fetch(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path, {"WORKERS": "1", "WINDOW": "1"}) as bench:
        bridge = bench.start("run")
        bench.await_settled(bridge)
        target.suspend()
        sent = bench.send_all(small_series(6))
        bridge.wait_health(lambda said: said["waiting"] + said["in_flight"] == 6, "all are listed")
        gone = sent[3:]
        for instance_id in gone:
            assert bench.source.delete_instance(instance_id)
        target.resume()
        bench.await_all(sent[:3])
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent[:3])
        assert _metric(bridge, SKIPPED_GONE) == len(gone)
        assert {x["instance"] for x in bridge.logged("instance_skipped")} == set(gone)


@pytest.mark.orthanc
def test_the_same_404_from_a_wrong_address_is_an_outage(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(3))
        bridge = bench.start("run", SOURCE_URL=f"{source.url}/prefix")
        said = await_reason(bridge, "source_not_found")
        assert "BRIDGE_SOURCE_URL" in str(said["reasons"])
        assert _metric(bridge, SKIPPED_GONE) == 0
        bridge.kill()
        bench.assert_untouched()
        bridge = bench.start("run", TARGET_URL=f"{target.url}/prefix")
        said = await_reason(bridge, "target_not_found")
        assert "BRIDGE_TARGET_URL" in str(said["reasons"])
        bridge.kill()
        bench.assert_untouched()
        assert bench.run("run", "--once").exit_code == 0
        bench.assert_delivered_once(sent)


@pytest.mark.parametrize("extended", [False, True], ids=["1.10.1", "1.12"])
def test_an_address_that_becomes_wrong_while_it_runs(
    fake_orthanc: Fakes, tmp_path: Path, extended: bool
) -> None:
    source, target = fake_orthanc(extended_changes=extended), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = [source.put(data) for data in small_series(40)]
        bridge = bench.start("run")
        wait_until(lambda: delivered_count(bridge) >= 3, "some are delivered")
        source.script("", Respond(404))
        sent += [source.put(data) for data in small_series(40)]
        endure(bench, bridge, "source_not_found", source.behave)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert _metric(bridge, SKIPPED_GONE) == 0


@pytest.mark.parametrize("extended", [False, True], ids=["1.10.1", "1.12"])
def test_a_row_that_becomes_visible_late(
    fake_orthanc: Fakes, tmp_path: Path, extended: bool
) -> None:
    """As a database with concurrent writers can show it: a lower sequence after a higher one."""
    source, target = fake_orthanc(extended_changes=extended), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = [source.put(data) for data in small_series(3)]
        late = source.put(small_ct())
        with source.store.lock:
            hidden = [row for row in source.store.rows if row.resource_id == late]
            source.store.rows = [row for row in source.store.rows if row.resource_id != late]
        sent += [source.put(data) for data in small_series(3)]
        bridge = bench.start("run")
        bench.await_settled(bridge)
        assert late not in bench.held()
        with source.store.lock:
            source.store.rows = sorted([*source.store.rows, *hidden])
        bench.await_all([late])
        wait_until(lambda: _metric(bridge, LATE) == 1, "the late row is counted")
        bench.await_settled(bridge)
        bench.assert_delivered_once([*sent, late])
        (line,) = bridge.logged("page_read", level="info")
        assert line["late"] == 1


@pytest.mark.parametrize("extended", [False, True], ids=["1.10.1", "1.12"])
def test_a_scripted_source_created_anew(
    fake_orthanc: Fakes, tmp_path: Path, extended: bool
) -> None:
    source, target = fake_orthanc(extended_changes=extended), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        bench.send_all(small_series(6))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        source.store.reset()
        source.put(small_ct())
        done = bridge.finish()
        assert done.exit_code == 13
        assert "BRIDGE_ON_FEED_RESET=snapshot" in done.stderr


@pytest.mark.orthanc
def test_a_snapshot_after_a_reset_misses_no_arrival(orthanc: Orthancs, tmp_path: Path) -> None:
    """Instances arrive before, while and after the bridge lists the new source, without a pause."""
    source, target = _two(orthanc)
    with Bench(source.url, target.url, tmp_path, {"ON_FEED_RESET": "snapshot"}) as bench:
        old = bench.send_all(small_series(40))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        source.kill()
        shutil.rmtree(_storage(source))
        source.start()
        present: list[str] = []
        seen = threading.Event()

        def arrive() -> None:
            while not seen.is_set():
                present.append(bench.send(small_ct()))

        # Three: faster than the bridge lists, so that each page of the list has new ones.
        arrivals = [threading.Thread(target=arrive) for _ in range(3)]
        for modality in arrivals:
            modality.start()
        try:
            bridge.wait_logged("feed_reset")
            settled = len(present)
            bridge.wait_health(
                lambda said: said["phase"] == "following" and "feed_went" not in str(said),
                "following the new feed",
            )
            wait_until(lambda: len(present) > settled, "arrivals went on meanwhile")
        finally:
            seen.set()
            for modality in arrivals:
                modality.join()
        bench.await_all(present)
        bench.await_settled(bridge)
        bench.assert_delivered_once([*old, *present])
        assert _metric(bridge, "orthanc_bridge_feed_resets_total") == 1
