"""What doctor says of a cluster: a real scheduler, a worker that is right and one that is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bridge
from bridge.config import Settings, load_settings
from bridge.doctor.cluster import check_cluster, is_open
from bridge.doctor.diagnosis import ERROR, OK, WARNING
from bridge.errors import EXIT_CONFIGURATION
from bridge.worker.dask import scheduler
from tests.bridge_process import REPOSITORY
from tests.cluster import Cluster, free_port


def settings(address: str) -> Settings:
    servers = {"source_url": "http://a.invalid", "target_url": "http://b.invalid"}
    return load_settings(**servers, executor=address)


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tcp://10.0.0.7:8786", True),
        ("tcp://scheduler:8786", True),
        ("tls://scheduler:8786", False),
    ],
)
def test_an_open_door_is_warned_of(address: str, *, warned: bool) -> None:
    assert is_open(address) is warned


def test_local_workers_need_no_cluster() -> None:
    assert list(check_cluster(settings("local"))) == []


def test_no_scheduler_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "CONNECT_S", 1.0)
    (found,) = check_cluster(settings(f"tcp://127.0.0.1:{free_port()}"))
    assert (found.level, found.exit_code) == (ERROR, EXIT_CONFIGURATION)
    assert "cannot be used" in found.message
    assert "orthanc-bridge docs cluster" in found.advice


def test_workers_are_counted_and_the_refused_are_named(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(Path(bridge.__file__).parent, other / "bridge")
    (other / "bridge" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    with Cluster(tmp_path) as cluster:
        (nobody,) = check_cluster(settings(cluster.address))
        assert (nobody.level, nobody.exit_code) == (ERROR, EXIT_CONFIGURATION)
        assert "has no worker" in nobody.message
        cluster.start_worker(threads=2)
        path = {"PYTHONPATH": f"{other}:{REPOSITORY}"}
        cluster.start_worker(preload="", environment=path)
        found = list(check_cluster(settings(cluster.address)))
    assert [one.level for one in found] == [OK, WARNING]
    assert "1 workers, 2 instances at once" in found[0].message
    assert "orthanc-bridge 0.0.9" in found[1].message
