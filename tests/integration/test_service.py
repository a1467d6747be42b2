"""The bridge between two real Orthancs: once, for ever, from everywhere, and beside itself."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from tests.bridge_process import wait_until
from tests.dicom_samples import small_ct, small_ct_dataset, small_series
from tests.integration.conftest import Pair, undecodable_ct

pytestmark = pytest.mark.orthanc


def _rle() -> bytes:
    dataset = small_ct_dataset()
    dataset.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_once_moves_everything_and_ends(pair: Pair) -> None:
    sent = {pair.send(data): data for data in small_series(5)}
    done = pair.run("run", "--once", "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["delivered"] == 5
    assert sorted(pair.arrivals()) == sorted(sent)
    assert pair.checkpoint() == pair.last()
    for instance_id, data in sent.items():
        received = bytearray()
        pair.target.fetch_instance(instance_id, received.extend, deadline_s=30.0)
        assert received == data, "what has the wanted syntax already passes byte for byte"


def test_once_again_does_nothing(pair: Pair) -> None:
    pair.send(small_ct())
    assert pair.run("run", "--once").exit_code == 0
    again = pair.run("run", "--once", "--json")
    assert again.exit_code == 0
    assert (again.json["delivered"], again.json["already_there"]) == (0, 0)


def test_once_on_an_empty_feed_ends_at_once(pair: Pair) -> None:
    done = pair.run("run", "--once", "--json")
    assert done.exit_code == 0
    assert done.json["delivered"] == 0
    assert pair.checkpoint() == 0


def test_a_compressed_instance_arrives_uncompressed_with_the_same_pixels(pair: Pair) -> None:
    data = _rle()
    instance_id = pair.send(data)
    assert pair.run("run", "--once").exit_code == 0
    received = bytearray()
    pair.target.fetch_instance(instance_id, received.extend, deadline_s=30.0)
    before, after = dcmread(io.BytesIO(data)), dcmread(io.BytesIO(received))
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (after.pixel_array == before.pixel_array).all()
    assert after.SOPInstanceUID == before.SOPInstanceUID


def test_run_moves_what_arrives_while_it_runs(pair: Pair) -> None:
    bridge = pair.start("run")
    bridge.wait_health(lambda health: health["status"] == "ok", "a healthy idle bridge")
    first = pair.send(small_ct())
    wait_until(lambda: first in pair.held(), "the first instance arrives")
    more = {pair.send(data) for data in small_series(10)}
    wait_until(lambda: more <= pair.held(), "the others arrive")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "the checkpoint follows")


def test_an_undecodable_instance_is_parked_and_the_others_arrive(pair: Pair) -> None:
    before = pair.send(small_ct())
    bad = pair.send(undecodable_ct())
    after = pair.send(small_ct())
    done = pair.run("run", "--once", "--json")
    assert done.exit_code == 3
    assert done.json["parked"] == {"undecodable": 1}
    assert pair.held() == {before, after}
    with pair.ledger() as ledger:
        parked = ledger.parked_one(bad)
    assert parked is not None
    assert parked.attempts == 1
    assert pair.checkpoint() == pair.last()


def test_a_second_bridge_on_one_state_file_is_refused(pair: Pair) -> None:
    bridge = pair.start("run")
    bridge.wait_logged("monitoring")
    second = pair.run("run")
    assert second.exit_code == 12
    assert str(bridge.pid) in second.stderr
    assert "BRIDGE_STATE_PATH" in second.stderr
    assert "Traceback" not in second.stderr
    assert bridge.is_running


def test_start_now_leaves_the_past_alone(pair: Pair) -> None:
    old = pair.send(small_ct())
    bridge = pair.start("run", START="now")
    bridge.wait_health(lambda health: health["phase"] == "following", "following")
    new = pair.send(small_ct())
    wait_until(lambda: new in pair.held(), "the new instance arrives")
    assert old not in pair.held()


def test_start_at_a_sequence_takes_that_change_and_what_follows(pair: Pair) -> None:
    first, second, third = (pair.send(data) for data in small_series(3))
    rows = {change.resource_id: change.sequence for change in pair.source.changes(0, 100).changes}
    assert pair.run("run", "--once", START=str(rows[second])).exit_code == 0
    assert pair.held() == {second, third}
    assert first not in pair.held()


def test_status_while_it_runs_and_when_it_does_not(pair: Pair) -> None:
    assert "none yet" in pair.run("status").stdout
    pair.send(small_ct())
    bridge = pair.start("run", TRANSFERS="9")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is moved")
    running = pair.run("status", "--json")
    assert running.json["bridge"]["workers"]["threads_max"] == 9
    assert 2 <= running.json["bridge"]["workers"]["threads"] <= 9
    assert "found by the bridge (at most 9)" in pair.run("status").stdout
    assert running.exit_code == 0
    assert running.json["bridge"]["running"] is True
    assert running.json["checkpoint"] == running.json["last"] == pair.last()
    assert running.json["behind"] == 0
    assert running.json["source"]["reachable"] is running.json["target"]["reachable"] is True
    bridge.kill()
    stopped = pair.run("status", "--json")
    assert stopped.exit_code == 0
    assert stopped.json["bridge"] == {"running": False}
    assert stopped.json["checkpoint"] == pair.last()
    assert "not running" in pair.run("status").stdout


def test_a_pause_holds_over_restarts_and_is_shown_everywhere(pair: Pair) -> None:
    assert pair.run("pause").exit_code == 0
    sent = pair.send(small_ct())
    limits = {"MAX_INSTANCES_S": "7", "SCHEDULE": "mon 00:00-00:01 UTC"}
    for _ in range(2):
        bridge = pair.start("run", **limits)
        bridge.wait_health(lambda health: health["hold"] == "paused", "it holds")
        assert pair.held() == set()
        said = pair.run("status").stdout
        assert "paused since 20" in said
        assert "orthanc-bridge resume" in said
        assert "at most 7 instances/s, quiet hours mon 00:00-00:01 UTC" in said
        _, metrics = bridge.get("/metrics")
        assert 'orthanc_bridge_hold{reason="paused"} 1.0' in metrics
        assert "orthanc_bridge_max_instances_per_second 7.0" in metrics
        bridge.kill()
    assert pair.run("status", "--json").json["paused_since"], "with no bridge to ask, too"
    assert pair.run("resume").exit_code == 0
    bridge = pair.start("run", **limits)
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "it goes on")
    assert pair.held() == {sent}
    assert "paused" not in pair.run("status").stdout


def test_a_held_backlog_grows_for_everybody_who_looks_and_none_is_refused_an_answer(
    pair: Pair,
) -> None:
    """Lag and newest change are as of now, and the same everywhere, however little was read.

    Fails when the newest change is that of when reading stopped, and when an address answers 5xx
    for a stage that has no name.
    """
    assert pair.run("pause").exit_code == 0
    series = small_series(60)
    sent = [pair.send(data) for data in series[:30]]
    bridge = pair.start("run", WORKERS="1", WINDOW="4", PAGE_SIZE="10")
    bridge.wait_health(lambda health: health["waiting"] >= 4, "as much as it wants is read")
    sent += [pair.send(data) for data in series[30:]]
    last = pair.last()
    bridge.wait_health(lambda health: health["last"] == last, "it knows of the newest change")
    health, shown = bridge.get("/health")[1], bridge.get("/api/status")[1]
    told = pair.run("status", "--json").json
    assert health["waiting"] < 60, "the rest was not read"
    assert health["lag_changes"] == shown["lag_changes"] == told["behind"] == last
    assert health["last"] == shown["last"] == told["last"] == last
    assert f"orthanc_bridge_lag_changes {last}.0" in bridge.get("/metrics")[1]
    assert f"lag            {last} changes, the oldest" in pair.run("status").stdout
    assert pair.run("resume").exit_code == 0
    answers: set[tuple[str, int]] = set()
    stages: set[str] = set()
    arrived = 0
    while arrived < len(sent):
        for path in ("/livez", "/readyz", "/health", "/metrics", "/api/status", "/", "/page.js"):
            status, body = bridge.get(path)
            answers.add((path, status))
            if path == "/api/status" and status == 200:
                stages |= {item["stage"] for item in body["in_flight"]}
        arrived = len(bridge.logged("instance_delivered"))
    assert {status for _, status in answers} == {200}, answers
    assert "queued" in stages
    assert "" not in stages
    bridge.wait_health(lambda health: health["lag_changes"] == 0, "all is moved")
    assert pair.run("status", "--json").json["behind"] == 0
    assert pair.held() == set(sent)


def test_status_tells_which_server_is_down(pair: Pair) -> None:
    pair.target_server.kill()
    told = pair.run("status", "--json", HTTP_TIMEOUT_S="2")
    assert told.exit_code == 11
    assert told.json["target"]["reachable"] is False
    assert told.json["target"]["problem"] == "unreachable"
    assert told.json["source"]["reachable"] is True
    pair.source_server.kill()
    assert pair.run("status", "--json", HTTP_TIMEOUT_S="2").exit_code == 10


def test_doctor_finds_nothing_wrong(pair: Pair) -> None:
    pair.send(small_ct())
    found = pair.run("doctor", "--json")
    assert found.exit_code == 0, found.stdout
    assert {finding["subject"] for finding in found.json} >= {
        "settings",
        "source",
        "target",
        "state",
        "decoders",
    }
    assert all(finding["level"] != "error" for finding in found.json)


def test_doctor_finds_what_is_wrong(pair: Pair) -> None:
    pair.target_server.kill()
    found = pair.run("doctor", HTTP_TIMEOUT_S="2")
    assert found.exit_code == 11
    assert "ERROR    target" in found.stdout
    assert "BRIDGE_TARGET_URL" in found.stdout
