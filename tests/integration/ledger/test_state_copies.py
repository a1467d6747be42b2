"""An older state is restored: nothing is lost, no original is touched, what is repeated is told."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.dicom_samples import small_series
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc

INSTANCES = 60


def fingerprints(server: OrthancServer) -> dict[str, bytes]:
    """Return every file of a server by its name in the storage area."""
    found = (path for path in server.directory.glob("storage/??/??/*") if path.is_file())
    return {path.name: path.read_bytes() for path in found}


def test_a_backup_of_a_running_bridge_is_restored(pair: Pair, tmp_path: Path) -> None:
    """Backup after a third, go on, restore, go on: each instance arrives exactly once."""
    backup = tmp_path / "backup.sqlite3"
    data = small_series(INSTANCES)
    late = 2 * INSTANCES // 3 - 3
    sent = [pair.send(one) for one in data[:late]]
    bridge = pair.start("run", MAX_INSTANCES_S="20")
    bridge.wait_logged("instance_delivered", INSTANCES // 3)
    made = pair.run("state", "backup", str(backup), "--json")
    assert made.exit_code == 0, made.stderr
    refused = pair.run("state", "restore", str(backup))
    assert refused.exit_code == 12
    assert "in use by another bridge" in refused.stderr
    # On a busy machine all may have arrived before the backup: these have not.
    sent += [pair.send(one) for one in data[late : 2 * INSTANCES // 3]]
    bridge.wait_logged("instance_delivered", 2 * INSTANCES // 3)
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0
    at_end = pair.checkpoint()
    originals, copies = fingerprints(pair.source_server), fingerprints(pair.target_server)

    sent += [pair.send(one) for one in data[2 * INSTANCES // 3 :]]
    restored = pair.run("state", "restore", str(backup), "--json")
    assert restored.exit_code == 0, restored.stderr
    told = restored.json
    assert told["checkpoint"] == made.json["checkpoint"]
    assert pair.checkpoint() == (told["checkpoint"] or 0) < at_end
    done = pair.run("run", "--once", "--json")
    assert done.exit_code == 0, done.stderr
    assert "state_file_copied" not in done.stderr, "it is the same bridge"
    settled = told["settled_above"] + told["checkpoint"]
    assert done.json["delivered"] == INSTANCES // 3
    assert 0 < done.json["already_there"] <= 2 * INSTANCES // 3, settled
    assert sorted(pair.arrivals()) == sorted(sent), "one NewInstance for each at the target"
    assert pair.held() == set(sent)
    assert pair.checkpoint() == pair.last()
    now = fingerprints(pair.source_server)
    assert {name: now[name] for name in originals} == originals, "no original was touched"
    now = fingerprints(pair.target_server)
    assert {name: now[name] for name in copies} == copies, "what had arrived stays as it is"

    shown = pair.run("state", "show", told["kept_aside"], "--json")
    assert json.loads(shown.stdout)["checkpoint"] == at_end
    assert pair.run("state", "show").exit_code == 0


def test_a_copy_that_is_put_elsewhere_is_another_bridge(pair: Pair, tmp_path: Path) -> None:
    backup = tmp_path / "backup.sqlite3"
    pair.send(small_series(1)[0])
    assert pair.run("run", "--once").exit_code == 0
    assert pair.run("state", "backup", str(backup)).exit_code == 0
    elsewhere = str(tmp_path / "elsewhere" / "bridge.sqlite3")
    restored = pair.run("state", "restore", str(backup), STATE_PATH=elsewhere)
    assert restored.exit_code == 0, restored.stderr
    done = pair.run("run", "--once", STATE_PATH=elsewhere, LOG_FORMAT="json")
    assert done.exit_code == 0, done.stderr
    assert "state_file_copied" in done.stderr
