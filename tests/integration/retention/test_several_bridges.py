"""Retention beside repairs, and bridges in a circle: no instance is ever without a good copy."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.errors import InstanceError
from bridge.ledger.store import Ledger
from bridge.retention.bridge_notes import BRIDGE_FILE_KEY, SETTLE_S
from tests.bridge_process import wait_until
from tests.dicom_samples import small_ct, small_series
from tests.integration.conftest import ORTHANC, Pair, post

pytestmark = pytest.mark.orthanc

CACHELESS = ORTHANC | {"MaximumStorageCacheSize": 0}
MIRROR = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "REPAIR": "all"}
EMPTIES = {"SOURCE_RETENTION": "1s"}

Servers = Callable[..., OrthancServer]


def harm(pair: Pair, sent: list[str]) -> None:
    """At the target: lose one file, damage one, delete one instance."""
    lost, damaged, deleted = sent[:3]
    for instance_id in (lost, damaged):
        uuid = pair.target.stored_file(instance_id).uuid
        path = pair.target_server.directory / "storage" / uuid[:2] / uuid[2:4] / uuid
        data = path.read_bytes()
        path.unlink()
        if instance_id == damaged:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert pair.target.delete_instance(deleted)


def readable_at_target(pair: Pair) -> set[str]:
    return {instance_id for instance_id in pair.held() if _reads(pair, instance_id)}


def _reads(pair: Pair, instance_id: str) -> bool:
    """Have the target read its file; a copy that is being replaced at this moment is none."""
    with suppress(InstanceError):
        return pair.target.verify_stored(instance_id)
    return False


@pytest.mark.parametrize("bridges", ["one", "two"])
def test_retention_and_repair_of_the_same_pair(
    orthanc: Servers, tmp_path: Path, bridges: str
) -> None:
    """What the target has lost is repaired from the source before it may go there."""
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        source, target = (orthanc(name, config=CACHELESS) for name in ("source", "target"))
        pair = Pair(source, target, home, stack)
        sent = [pair.send(small_ct(seed=seed)) for seed in range(9)]
        mirror = MIRROR | ({} if bridges == "one" else {"STATE_PATH": str(home / "m.sqlite3")})
        known = {"VERIFY_EVERY": "7d", "SOURCE_RETENTION": "1h"}
        assert pair.run("run", "--once", **known).exit_code == 0
        if bridges == "two":
            # Its own records of what it has delivered, or found there as it would have sent it.
            other = {"VERIFY_EVERY": "7d", "STATE_PATH": str(home / "m.sqlite3")}
            assert pair.run("run", "--once", **other).exit_code == 0
        harm(pair, sent)
        if bridges == "one":
            pair.start("run", **EMPTIES, **MIRROR)
            wait_until(
                lambda: not pair.source.list_instances(0, 100), "the source is empty", timeout_s=60
            )
            assert readable_at_target(pair) == set(sent)
            return
        empties = pair.start("run", **EMPTIES)
        pair.start("run", **mirror)
        wait_until(lambda: readable_at_target(pair) == set(sent), "all is repaired", timeout_s=60)
        empties.wait_logged("sweep_failed")
        assert set(pair.source.list_instances(0, 100)) == set(sent)
        told = empties.logged("sweep_failed")[0]["message"]
        assert "Another bridge follows this source" in told


def test_three_bridges_in_a_circle(orthanc: Servers, tmp_path: Path) -> None:
    """A to B, B to C, C to A: each counts on a server that another one empties."""
    names = ("a", "b", "c")
    servers = [orthanc(name, config=ORTHANC) for name in names]
    with ExitStack() as stack:
        pairs = []
        for at, name in enumerate(names):
            home = tmp_path / f"from-{name}"
            home.mkdir()
            pairs.append(Pair(servers[at], servers[(at + 1) % 3], home, stack))
        sent = {post(server.url, data) for server in servers for data in small_series(5)}

        def held_by(pair: Pair) -> set[str]:
            return set(pair.source.list_instances(0, 100))

        running = [pair.start("run", **EMPTIES) for pair in pairs]
        for bridge in running:
            bridge.wait_logged("sweep_failed")
        wait_until(lambda: all(held_by(pair) == sent for pair in pairs), "nothing is deleted")
        for bridge in running:
            told = bridge.logged("sweep_failed")[0]["message"]
            assert "deletes at its source" in told or "deletes at the target" in told


def copied_volume(pair: Pair) -> dict[str, str]:
    """Copy the state file as to another volume, where it has the inode it had; returns settings."""
    copy = pair.home / "copied" / "bridge.sqlite3"
    copy.parent.mkdir()
    for end in ("", "-wal"):
        if (file := Path(f"{pair.state_path}{end}")).exists():
            shutil.copy(file, f"{copy}{end}")
    with Ledger(copy, create=False) as ledger:
        ledger.set_meta(BRIDGE_FILE_KEY, str(copy.stat().st_ino))
    return {"STATE_PATH": str(copy)}


NOWHERE = {"TARGET_URL": "http://127.0.0.1:9"}
"""A target that is down: the bridge needs all that the source has."""


def test_a_copied_state_file_whose_bridge_runs(pair: Pair) -> None:
    """Both had one name: the copy's bridge deleted what the other one needed, 6 of 6."""
    sent = {pair.send(data) for data in small_series(6)}
    first = pair.start("run", **NOWHERE)
    first.wait_logged("side_down")
    copied = copied_volume(pair)
    copy = pair.start("run", **EMPTIES, **copied)
    wait_until(lambda: pair.held() == sent, "the copy has delivered them")
    found = copy.wait_reason("retention_failing", timeout_s=2 * SETTLE_S)
    told = next(r["message"] for r in found["reasons"] if r["code"] == "retention_failing")
    assert "under the name of this one" in told
    assert copy.logged("sweep_failed")
    first.wait_logged("state_file_copied", timeout_s=2 * SETTLE_S)
    assert set(pair.source.list_instances(0, 100)) == sent
    dry = pair.run("retention", "--dry-run", **EMPTIES, **copied)
    assert "under the name of this one" in dry.stdout
    doctor = pair.run("doctor", **EMPTIES, **copied)
    assert "under the name of this one" in doctor.stdout
    # A person's word is taken back while the other one runs.
    name = told.partition("(")[2].partition(")")[0]
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    assert pair.run("retention", "--forget", name, **copied).exit_code == 0
    wait_until(lambda: not pair.source.list_instances(0, 100), "the copy goes on", timeout_s=60)


def test_a_copied_state_file_of_a_bridge_that_had_ended(pair: Pair) -> None:
    sent = {pair.send(data) for data in small_series(6)}
    ended = pair.run("run", "--once", COMMAND_PATIENCE_S="0", **NOWHERE)
    assert ended.exit_code == 11, ended.stderr
    copied = copied_volume(pair)
    first = pair.start("run", **NOWHERE)
    first.wait_logged("side_down")
    copy = pair.start("run", **EMPTIES, **copied)
    copy.wait_logged("sweep_failed", timeout_s=2 * SETTLE_S)
    assert "under the name of this one" in copy.logged("sweep_failed")[0]["message"]
    assert set(pair.source.list_instances(0, 100)) == sent


def test_a_forgotten_bridge_that_runs_is_seen_again_before_anything_goes(pair: Pair) -> None:
    """6 of 6 went within the half minute in which the other one had not renewed its note."""
    sent = {pair.send(data) for data in small_series(6)}
    other = pair.start("run", STATE_PATH=str(pair.home / "other.sqlite3"), **NOWHERE)
    other.wait_logged("side_down")
    empties = pair.start("run", **EMPTIES)
    empties.wait_logged("sweep_failed", timeout_s=60)
    wait_until(lambda: pair.held() == sent, "all are delivered")
    told = empties.logged("sweep_failed")[0]["message"]
    name = told.partition("(")[2].partition(")")[0]
    forgot = pair.run("retention", "--forget", name)
    assert forgot.exit_code == 0
    assert "Nothing is deleted before" in forgot.stdout
    dry = pair.run("retention", "--dry-run", **EMPTIES)
    assert "waiting for the notes of other bridges" in dry.stdout or name in dry.stdout
    wait_until(
        lambda: name in pair.run("retention", "--dry-run", **EMPTIES).stdout,
        "it is seen again",
        timeout_s=2 * SETTLE_S,
    )
    assert set(pair.source.list_instances(0, 100)) == sent


@pytest.mark.parametrize("how", ["restored", "written over"])
def test_deletions_are_mirrored_after_a_restore_of_before_retention(pair: Pair, how: str) -> None:
    """The backup did not know that retention had made them the last copies: 6 of 6 went.

    Written over, as a snapshot of a machine does it: no command of ours has seen it, and servers
    that were restarted have forgotten the notes.
    """
    home = pair.home / "backup.sqlite3"
    sent = {pair.send(data) for data in small_series(6)}
    noted = {"VERIFY_EVERY": "7d"}
    assert pair.run("run", "--once", SOURCE_RETENTION="1h", **noted).exit_code == 0
    assert pair.run("state", "backup", str(home)).exit_code == 0
    emptied = pair.run("run", "--once", SOURCE_RETENTION="0s", **noted)
    assert emptied.exit_code == 0, emptied.stderr
    assert not pair.source.list_instances(0, 100)
    if how == "restored":
        assert pair.run("state", "restore", str(home)).exit_code == 0
    else:
        for rest in ("-wal", "-shm"):
            Path(f"{pair.state_path}{rest}").unlink(missing_ok=True)
        pair.state_path.write_bytes(home.read_bytes())
        pair.source_server.restart()
        pair.target_server.restart()
    mirrors = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "MIRROR_DELETIONS": "after:1s"}
    mirrors["RETENTION_RISK"] = "source-limits-untold"
    bridge = pair.start("run", **mirrors)
    bridge.wait_logged("verified")
    # Delivered by this process, and deleted by a person: that its copy goes shows that copies go.
    late = pair.send(small_ct(seed=7))
    wait_until(lambda: late in pair.held(), "it is delivered")
    bridge.wait_logged("verified", 3)
    assert pair.source.delete_instance(late)
    wait_until(lambda: late not in pair.held(), "its copy goes", timeout_s=3 * SETTLE_S)
    assert pair.held() == sent


def test_a_bridge_whose_target_hangs_is_seen(pair: Pair) -> None:
    """It was busy with its target and left no note: another one deleted what it needed."""
    sent = {pair.send(data) for data in small_series(6)}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        hangs = {"TARGET_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        patient = {"STATE_PATH": str(pair.home / "other.sqlite3"), "HTTP_TIMEOUT_S": "300"}
        pair.start("run", **hangs, **patient)
        wait_until(lambda: any(pair.source.peers()), "it has left its note")
        done = pair.run("run", "--once", SOURCE_RETENTION="0s")
        assert done.exit_code == 2, done.stderr
        assert "Another bridge follows this source" in done.stderr
        assert set(pair.source.list_instances(0, 100)) == sent
