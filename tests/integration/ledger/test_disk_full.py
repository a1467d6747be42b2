"""A disk under the state path that is full or read-only: said, waited for, nothing lost."""

from __future__ import annotations

import io
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import BridgeProcess
from tests.dicom_samples import small_ct, small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench, await_reason, delivered_count

pytestmark = pytest.mark.orthanc

DISK = "1m"
BLOCK = b"\0" * 4096


@pytest.fixture
def servers(orthanc: Callable[..., OrthancServer]) -> tuple[OrthancServer, OrthancServer]:
    return orthanc("source", config=FOLLOWING_ONLY), orthanc("target", config=FOLLOWING_ONLY)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place))
    if mounted.returncode != 0:
        pytest.skip(
            "mounting a tmpfs needs root with CAP_SYS_ADMIN; test_writes_that_fail_during_a_run "
            f"shows the same by a limit on the process ({mounted.stderr.strip()})"
        )
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)


def _fill(place: Path) -> Path:
    """Write until nothing more can be written."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        _write_for_ever(file)
    return filler


def _write_for_ever(file: io.FileIO) -> None:
    while True:
        file.write(BLOCK)


def _see_it_through(
    bench: Bench, bridge: BridgeProcess, sent: list[str], recover: Callable[[], object]
) -> None:
    """Writes fail from now on; ``sent`` was settled before. Mend it and see all in order."""
    meanwhile = bench.send_all(small_series(4))
    said = await_reason(bridge, "state_unwritable")
    assert any(
        "BRIDGE_STATE_PATH" in reason["message"] + reason["advice"]
        or str(bench.state_path) in reason["message"]
        for reason in said["reasons"]
    )
    assert b"orthanc_bridge_state_writable 0.0" in bridge.get("/metrics")[1].encode()
    checkpoint = said["checkpoint"]
    waiting = bench.send_all(small_series(4))
    before = delivered_count(bridge)
    bridge.wait_health(lambda it: it["in_flight"] == 0, "what was under way has ended")
    assert bridge.is_running
    assert delivered_count(bridge) - before <= len(meanwhile), "nothing new is started"
    assert not set(waiting) & bench.held()
    recover()
    bridge.wait_logged("state_recovered")
    bench.await_all([*sent, *meanwhile, *waiting])
    assert bench.await_settled(bridge)["checkpoint"] > checkpoint
    bench.assert_delivered_once([*sent, *meanwhile, *waiting])
    assert len(bridge.logged("state_failed")) == 1, "said once"


def test_a_full_disk_during_a_run(
    servers: tuple[OrthancServer, OrthancServer], small_disk: Path
) -> None:
    source, target = servers
    with Bench(source.url, target.url, small_disk) as bench:
        sent = bench.send_all(small_series(4))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        filler = _fill(small_disk)
        _see_it_through(bench, bridge, sent, filler.unlink)


def test_a_crash_while_the_disk_is_full(
    servers: tuple[OrthancServer, OrthancServer], small_disk: Path
) -> None:
    source, target = servers
    with Bench(source.url, target.url, small_disk) as bench:
        sent = bench.send_all(small_series(4))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        filler = _fill(small_disk)
        sent += bench.send_all(small_series(4))
        await_reason(bridge, "state_unwritable")
        bridge.kill()
        filler.unlink()
        assert bench.run("run", "--once").exit_code == 0
        assert bench.checkpoint() == bench.last()
        bench.assert_delivered_once(sent)


def test_writes_that_fail_during_a_run(
    servers: tuple[OrthancServer, OrthancServer], tmp_path: Path
) -> None:
    """A limit on the size of the bridge's files: what needs no root to make writes fail."""
    source, target = servers
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(4))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (4096, unlimited))

        def recover() -> None:
            resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))

        _see_it_through(bench, bridge, sent, recover)


def test_a_read_only_disk_at_the_start(
    servers: tuple[OrthancServer, OrthancServer], small_disk: Path
) -> None:
    source, target = servers
    with Bench(source.url, target.url, small_disk) as bench:
        sent = [bench.send(small_ct())]
        assert bench.run("run", "--once").exit_code == 0
        assert _mount("-o", "remount,ro", str(small_disk)).returncode == 0
        sent.append(bench.send(small_ct()))
        refused = bench.run("run", "--once")
        assert refused.exit_code == 12
        assert "BRIDGE_STATE_PATH" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert bench.held() == {sent[0]}
        assert _mount("-o", f"remount,rw,size={DISK}", str(small_disk)).returncode == 0
        assert bench.run("run", "--once").exit_code == 0
        bench.assert_delivered_once(sent)
