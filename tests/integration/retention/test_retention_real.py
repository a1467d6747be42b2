"""The source as a transient buffer, between two real Orthancs."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from bridge.model import Endpoint, SideName
from bridge.orthanc import OrthancClient
from bridge.retention.bridge_notes import SETTLE_S
from tests.bridge_process import BridgeProcess, reasons_in, wait_until
from tests.dicom_samples import small_ct, small_series
from tests.integration.conftest import ORTHANC, Pair, undecodable_ct

pytestmark = pytest.mark.orthanc

CACHELESS = ORTHANC | {"MaximumStorageCacheSize": 0}
"""Orthanc serves a file from memory for a while after it was lost on disk."""


@pytest.fixture
def cacheless(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Iterator[Pair]:
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        source, target = (orthanc(name, config=CACHELESS) for name in ("source", "target"))
        yield Pair(source, target, home, stack)


def at_source(pair: Pair) -> set[str]:
    return set(pair.source.list_instances(0, 10_000))


def counted(bridge: BridgeProcess, metric: str) -> float:
    text = bridge.get("/metrics")[1]
    return sum(float(value) for value in re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", text, re.M))


def stored_files(server: OrthancServer) -> list[Path]:
    """Return the files of the instances: in folders named by their first digits."""
    return [path for path in server.directory.glob("storage/??/??/*") if path.is_file()]


def test_the_source_is_emptied_and_the_feed_goes_on(pair: Pair) -> None:
    old = {pair.send(data) for data in small_series(20)}
    parked = pair.send(undecodable_ct())
    bridge = pair.start("run", SOURCE_RETENTION="1s", PARKED_LIMIT="1")
    wait_until(lambda: at_source(pair) == {parked}, "all but the parked one leave the source")
    wait_until(lambda: counted(bridge, "orthanc_bridge_source_deletions_total") == 20, "a count")
    # Their rows went with them: the checkpoint must stay, and what comes now must be seen.
    checkpoint = pair.checkpoint()
    new = {pair.send(data) for data in small_series(5)}
    wait_until(lambda: new <= pair.held(), "the new ones arrive")
    wait_until(lambda: at_source(pair) == {parked}, "and leave as well")
    health = bridge.wait_health(lambda health: health["lag_changes"] == 0, "no lag")
    assert health["status"] == "ok"
    assert pair.checkpoint() > checkpoint
    bridge.kill()
    last = pair.send(small_ct())
    again = pair.run("run", "--once", "--json", SOURCE_RETENTION="1s")
    assert again.exit_code == 3, again.stderr
    assert (again.json["delivered"], again.json["already_there"]) == (1, 0)
    assert again.json["skipped"] == {}
    assert sorted(pair.arrivals()) == sorted([*old, *new, last])
    assert pair.parked() == {"undecodable": 1}


def test_it_is_off_unless_asked_for_and_begins_with_what_is_proved_then(pair: Pair) -> None:
    sent = {pair.send(data) for data in small_series(3)}
    assert pair.run("run", "--once").exit_code == 0
    assert pair.held() == at_source(pair) == sent
    with pair.ledger() as ledger:
        assert list(ledger.all_kept()) == [], "no proof, no deletion"
    assert pair.run("replay", "--from", "1", SOURCE_RETENTION="0s").exit_code == 0
    assert pair.run("run", "--once", SOURCE_RETENTION="0s").exit_code == 0
    assert at_source(pair) == set(), "a replay has made the proof"
    assert pair.held() == sent


def test_a_target_that_lost_what_was_delivered_is_told_until_check_fixes_it(pair: Pair) -> None:
    """As after it was restored from an older backup: /health said that all is well."""
    sent = {pair.send(data) for data in small_series(5)}
    assert pair.run("run", "--once", SOURCE_RETENTION="1h").exit_code == 0
    lost = sorted(sent)[:3]
    for instance in lost:
        assert pair.target.delete_instance(instance)
    bridge = pair.start("run", SOURCE_RETENTION="1s")
    bridge.wait_health(
        lambda said: any("lacks 3 instances" in one["message"] for one in said["reasons"]), "told"
    )
    wait_until(lambda: at_source(pair) == set(lost), "what the target holds leaves the source")
    assert reasons_in(bridge.wait_reason("delivered_lacking")) == ["delivered_lacking"]
    assert "\northanc_bridge_delivered_lacking 3.0\n" in bridge.get("/metrics")[1]
    fixed = pair.run("check", "--fix", SOURCE_RETENTION="1s")
    assert fixed.exit_code == 0, fixed.stderr
    bridge.wait_health(lambda said: said["status"] == "ok", "all is well")
    wait_until(lambda: not at_source(pair), "they leave the source after their new delivery")
    assert pair.held() == sent


def test_what_the_target_loses_after_retention_is_lost_until_a_person_knows(
    cacheless: Pair,
) -> None:
    """Neither server lists it: /health was ok, and every command said that all is equal."""
    pair, audit = cacheless, str(cacheless.home / "audit.jsonl")
    sent = sorted(pair.send(data) for data in small_series(6))
    often = {"SOURCE_RETENTION": "1s", "VERIFY_EVERY": "1s", "VERIFY_RATE": "0"}
    bridge = pair.start("run", **often, AUDIT_PATH=audit)
    wait_until(lambda: not at_source(pair), "the source is empty")
    assert pair.held() == set(sent)
    assert pair.run("check", SOURCE_RETENTION="1s").exit_code == 0
    deleted, fileless = sent[:2], sent[2]
    for instance in deleted:
        assert pair.target.delete_instance(instance)
    name = pair.target.stored_file(fileless).uuid
    (path,) = (path for path in stored_files(pair.target_server) if path.name == name)
    path.unlink()

    def told() -> bool:
        problems = bridge.get("/health")[1]["reasons"]
        return any("3 lost" in problem["message"] for problem in problems)

    wait_until(told, "3 are lost")
    assert reasons_in(bridge.wait_reason("copies_differ")) == ["copies_differ"]
    assert bridge.get("/health")[0] == 503
    assert 'orthanc_bridge_copies{state="lost"} 3.0' in bridge.get("/metrics")[1]
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0

    keep = {"SOURCE_RETENTION": "1s", "VERIFY_EVERY": "7d", "AUDIT_PATH": audit}
    for command in (["check"], ["check", "--deep"]):
        done = pair.run(*command, "--json", **keep)
        lost = {f["instance"] for f in done.json["findings"] if f["state"] == "lost"}
        assert (done.exit_code, lost) == (3, set(deleted)), done.stderr
    done = pair.run("check", "--repair", "--json", **keep)
    lost = {f["instance"] for f in done.json["findings"] if f["state"] == "lost"}
    assert (done.exit_code, lost) == (3, {*deleted, fileless}), done.stderr

    # The one is on the disk no more, and only who reads it knows.
    def fates(*options: str) -> dict[str, str]:
        rows = pair.run("report", "--since", "1h", "--json", *options, **keep).json["instances"]
        return {row["instance"]: row["fate"] for row in rows}

    whole = dict.fromkeys(sent, "arrived") | dict.fromkeys(deleted, "missing")
    assert fates() == whole
    assert fates("--verify") == whole | {fileless: "different"}

    done = pair.run("check", "--forget-lost", "--json", **keep)
    assert (done.exit_code, done.json["summary"]["forgotten"]) == (0, 2), done.stderr
    assert pair.run("check", **keep).exit_code == 0
    verification = pair.run("status", "--json", **keep).json["verification"]
    assert (verification["counts"]["lost"], verification["unresolved"]) == (1, 1)


def test_sigkill_in_mid_sweep_loses_nothing_and_the_sweep_goes_on(pair: Pair) -> None:
    sent = {pair.send(data) for data in small_series(150)}
    for left in (120, 60):
        bridge = pair.start("run", SOURCE_RETENTION="1s")
        # A process that follows one that was killed waits first.
        wait_until(
            lambda left=left: len(at_source(pair)) <= left,  # type: ignore[misc]
            "the sweep is under way",
            timeout_s=2 * SETTLE_S,
        )
        bridge.kill()
        assert at_source(pair) | pair.held() == sent
    pair.start("run", SOURCE_RETENTION="1s")
    wait_until(lambda: not at_source(pair), "the rest leaves", timeout_s=2 * SETTLE_S)
    assert sorted(pair.arrivals()) == sorted(sent), "each once"
    assert pair.parked() == {}


def test_a_target_that_goes_down_in_mid_sweep_is_waited_for(pair: Pair) -> None:
    sent = {pair.send(data) for data in small_series(60)}
    bridge = pair.start("run", SOURCE_RETENTION="3s", HTTP_TIMEOUT_S="2")
    wait_until(lambda: pair.held() == sent, "all arrive")
    pair.target_server.kill()
    bridge.wait_logged("sweep_failed")
    left = at_source(pair)
    began_s = time.monotonic()
    pair.target_server.start()
    wait_until(
        lambda: len(at_source(pair)) < len(left), "the sweep goes on", timeout_s=SETTLE_S + 30.0
    )
    assert time.monotonic() - began_s >= SETTLE_S, "other bridges have their time to renew notes"
    assert pair.held() == sent


def test_once_waits_for_notes_after_a_restart_and_then_does_its_sweep(pair: Pair) -> None:
    """It left its own note and ended: the next one deleted before others had noted themselves."""
    sent = {pair.send(data) for data in small_series(3)}
    assert pair.run("run", "--once", SOURCE_RETENTION="1h").exit_code == 0
    pair.target_server.kill()
    pair.target_server.start()
    began_s = time.monotonic()
    done = pair.run("run", "--once", SOURCE_RETENTION="0s")
    assert done.exit_code == 0, done.stderr
    assert time.monotonic() - began_s >= SETTLE_S
    assert at_source(pair) == set(), done.stderr
    assert pair.held() == sent


@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_a_target_that_only_believes_to_hold_the_file(cacheless: Pair, damage: str) -> None:
    """Orthanc tells the MD5 that it noted at arrival, whatever has become of the file."""
    pair = cacheless
    kept = pair.send(small_ct())
    assert pair.run("run", "--once", SOURCE_RETENTION="1h").exit_code == 0
    (file,) = stored_files(pair.target_server)
    if damage == "lost":
        file.unlink()
    else:
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)
    assert pair.target.stored_md5(kept) == pair.source.stored_md5(kept), "so it says"
    done = pair.run("run", "--once", SOURCE_RETENTION="0s")
    assert done.exit_code == 0, done.stderr
    assert "damaged or lost" in done.stderr
    assert at_source(pair) == {kept}


def test_verifying_and_marking_as_the_fake_does(cacheless: Pair) -> None:
    pair = cacheless
    instance_id = pair.send(small_ct())
    endpoint = Endpoint(SideName.SOURCE, pair.source_server.url)
    with OrthancClient(endpoint, Credentials()) as client:
        assert client.verify_stored(instance_id)
        rows = client.changes(0, 100).changes
        client.set_metadata(instance_id, "4222", "a-mark")
        client.set_metadata(instance_id, "4222", "another")
        assert client.instance_metadata(instance_id)["4222"] == "another"
        client.delete_metadata(instance_id, "4222")
        assert "4222" not in client.instance_metadata(instance_id)
        added = client.changes(rows[-1].sequence, 100).changes
        assert {change.change_type for change in added} <= {"UpdatedMetadata"}
        assert client.verify_stored(instance_id), "a mark does not touch the file"
