"""Sources that lose their data for a while: nothing of it may count as deleted (G1, G4)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.dicom_samples import small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench
from tests.integration.conftest import undecodable_ct

Orthancs = Callable[..., OrthancServer]


@pytest.mark.orthanc
def test_a_source_that_is_empty_for_a_while(orthanc: Orthancs, tmp_path: Path) -> None:
    """Its disk was not mounted: it answers, and lacks what waits in the bridge."""
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    storage, aside = source.directory / "storage", tmp_path / "aside"
    with Bench(source.url, target.url, tmp_path, {"WINDOW": "2"}) as bench:
        first, *others = small_series(21)
        bridge = bench.start("run")
        sent = bench.send_all([first])
        bench.await_all(sent)  # before that nobody has shown that the two are two servers
        assert bench.run("pause").exit_code == 0
        bridge.wait_health(lambda said: said["hold"] == "paused", "it starts nothing")
        sent += bench.send_all(others)
        bridge.wait_health(lambda said: said["waiting"] == 20, "all wait")
        source.kill()
        storage.rename(aside)
        source.start()
        assert bench.run("resume").exit_code == 0
        done = bridge.finish()
        assert done.exit_code == 13
        assert not bridge.logged("instance_skipped"), "nothing was deleted"
        source.kill()
        shutil.rmtree(storage)
        aside.rename(storage)
        source.start()
        assert bench.run("run", "--once").exit_code == 0
        bench.assert_delivered_once(sent)


@pytest.mark.orthanc
def test_another_source_right_after_a_beginning_in_its_middle(
    orthanc: Orthancs, tmp_path: Path
) -> None:
    """Nothing was moved yet and the other feed is longer: the rows from before us tell."""
    source, other, target = (
        orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "other", "target")
    )
    with Bench(source.url, target.url, tmp_path) as bench:
        bench.send_all(small_series(4))
        assert bench.run("run", "--once", START="now").exit_code == 0
        assert bench.checkpoint() == bench.last()
        with Bench(other.url, target.url, tmp_path) as wrong:
            wrong.send_all(small_series(12))
            done = wrong.run("run", "--once")
        assert done.exit_code == 13
        assert "not the one that was followed" in done.stderr
        assert bench.held() == set()
        assert bench.run("run", "--once").exit_code == 0, "the old source is still the right one"


@pytest.mark.orthanc
def test_a_start_beyond_the_feed_is_refused(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(3))
        last = bench.last()
        for policy in ("stop", "snapshot"):
            done = bench.run("run", "--once", START=str(last + 2), ON_FEED_RESET=policy)
            assert done.exit_code == 2
            assert f"BRIDGE_START={last + 2}" in done.stderr
            assert f"its last change is {last}" in done.stderr
            assert bench.held() == set()
        assert bench.run("run", "--once", START=str(last + 1)).exit_code == 0
        assert bench.held() == set()
        bench.state_path.unlink()
        assert bench.run("run", "--once", START="2").exit_code == 0
        assert bench.held() == set(sent) - {sent[0]}


@pytest.mark.orthanc
def test_a_retry_forgets_nothing_for_an_empty_source(orthanc: Orthancs, tmp_path: Path) -> None:
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    with Bench(source.url, target.url, tmp_path) as bench:
        bad = bench.send(undecodable_ct())
        assert bench.run("run", "--once").exit_code == 3
        source.kill()
        shutil.rmtree(source.directory / "storage")
        source.start()
        done = bench.run("parked", "retry", "--all")
        assert done.exit_code == 13
        assert "read up to" in done.stderr
        assert bench.parked().keys() == {bad}
