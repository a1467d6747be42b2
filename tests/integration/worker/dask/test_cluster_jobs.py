"""Jobs on a real cluster between servers that ask for a login: only workers have what they need."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.model import Endpoint, Job, Move, SideName, Task
from bridge.worker.dask.values import to_plain
from tests.cluster import Cluster
from tests.dicom_samples import small_series
from tests.integration.conftest import ORTHANC, Pair, undecodable_ct

pytestmark = pytest.mark.orthanc
PASSWORDS = {"SOURCE": "the-source-s-own", "TARGET": "the-target-s-own"}


def test_a_task_has_no_place_for_a_password() -> None:
    source, target = (Endpoint(side, "http://a") for side in SideName)
    plain = json.dumps(to_plain(Task(Move("id"), Job(source, target, "1.2"), 1)))
    assert "http://a" in plain
    assert "password" not in plain.lower()
    assert "username" not in plain.lower()


def test_workers_log_in_by_themselves_poison_is_parked_and_check_fixes(
    orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    login = {name: {"username": "bridge", "password": text} for name, text in PASSWORDS.items()}
    source = orthanc("source", config=ORTHANC, **login["SOURCE"])
    target = orthanc("target", config=ORTHANC, **login["TARGET"])
    home = tmp_path / "home"
    home.mkdir()
    own = {}
    for side, text in PASSWORDS.items():
        # The worker's files, at a place that the bridge's settings do not name.
        (tmp_path / f"{side}.of-the-worker").write_text(text)
        own[f"BRIDGE_{side}_USERNAME"] = "bridge"
        own[f"BRIDGE_{side}_PASSWORD_FILE"] = str(tmp_path / f"{side}.of-the-worker")
    with ExitStack() as stack, Cluster(tmp_path) as cluster:
        pair = Pair(source, target, home, stack)
        for side, text in PASSWORDS.items():
            pair.settings |= {f"BRIDGE_{side}_USERNAME": "bridge", f"BRIDGE_{side}_PASSWORD": text}
        pair.settings |= {"BRIDGE_EXECUTOR": cluster.address, "BRIDGE_ATTEMPTS": "1"}
        good = {pair.send(data) for data in small_series(4)}
        poison = pair.send(undecodable_ct())
        cluster.start_worker(threads=2, environment=own)
        done = pair.run("run", "--once", "--json")
        assert done.exit_code == 3, done.stderr
        assert pair.held() == good
        assert sum(pair.parked().values()) == 1
        listed = pair.run("parked", "list", "--json")
        assert poison in listed.stdout
        gone = min(good)
        assert pair.target.delete_instance(gone)
        fixed = pair.run("check", "--fix", "--json")
        assert gone in fixed.stdout
        assert fixed.exit_code == 3, "what is parked still differs"
        assert pair.held() == good
    logs = "".join(path.read_text("utf-8", "replace") for path in tmp_path.glob("dask_*.log"))
    assert "Registered to" in logs
    assert not [text for text in PASSWORDS.values() if text in logs]
