"""The last copy of an instance is never deleted: every way in which it once was, on real servers.

Each test failed before the clause that it names was established (docs/security.md).
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.store import Ledger
from bridge.marks import NotOnRecord, mark_shows
from bridge.model import Endpoint, SideName
from bridge.orthanc.session import SideClient
from tests import jumping_clock
from tests.bridge_process import wait_until
from tests.dicom_samples import small_ct, small_series
from tests.fault_proxy import FaultProxy
from tests.integration.conftest import ORTHANC, Pair, post

pytestmark = pytest.mark.orthanc

Servers = Callable[..., OrthancServer]


def at_source(pair: Pair) -> set[str]:
    return set(pair.source.list_instances(0, 10_000))


def delivered(pair: Pair, count: int, **settings: str) -> set[str]:
    """Deliver instances, with the evidence of it, and delete none of them."""
    sent = {pair.send(data) for data in small_series(count)}
    done = pair.run("run", "--once", SOURCE_RETENTION="1h", **settings)
    assert done.exit_code == 0, done.stderr
    assert at_source(pair) == sent
    with Ledger(pair.state_path, create=False) as ledger:
        assert {kept.instance_id for kept in ledger.all_kept()} == sent
        assert all(kept.source_file and kept.target_file for kept in ledger.all_kept())
    return sent


@pytest.mark.parametrize("outage", [True, False])
def test_the_targets_address_leads_to_the_source(
    pair: Pair, fault_proxy: Callable[[int], FaultProxy], outage: bool
) -> None:
    """Another server: lost all of them, with and without an outage that the pipeline saw."""
    proxy = fault_proxy(pair.target_server.http_port)
    sent = delivered(pair, 18, TARGET_URL=proxy.url)
    assert pair.run("pause").exit_code == 0
    bridge = pair.start("run", SOURCE_RETENTION="0s", TARGET_URL=proxy.url)
    bridge.wait_health(lambda health: health["target"]["up"] and health["source"]["up"], "both")
    if outage:
        proxy.refuse()
        bridge.wait_logged("side_down")
    proxy.server_port = pair.source_server.http_port
    assert pair.run("resume").exit_code == 0
    if outage:
        proxy.accept()
    else:
        proxy.break_connections()
    assert bridge.wait() == 2
    assert at_source(pair) == sent


def test_two_servers_over_one_storage_directory(orthanc: Servers, pair: Pair) -> None:
    """Other files: the mark differs, the index is a copy, the files are the same ones."""
    first = orthanc("first", config=ORTHANC)
    sent = {post(first.url, data) for data in small_series(6)}
    first.stop()
    index = first.directory.parent / "copied-index"
    shutil.copytree(first.directory / "storage", index)
    shared = {"StorageDirectory": str(first.directory / "storage"), "IndexDirectory": str(index)}
    second = orthanc("second", config=ORTHANC | shared)
    first.start()
    urls = {"SOURCE_URL": first.url, "TARGET_URL": second.url}
    done = pair.run("run", "--once", SOURCE_RETENTION="0s", **urls)
    assert done.exit_code == 0, done.stderr
    client = SideClient(Endpoint(SideName.SOURCE, first.url))
    try:
        assert set(client.list_instances(0, 100)) == sent
        assert all(client.verify_stored(instance_id) for instance_id in sent)
    finally:
        client.close()
    assert "both servers report the same file" in done.stderr


def test_opposite_bridges(pair: Pair) -> None:
    """Will keep them: A to B and B to A, each deletes what the other has delivered."""
    sent = {pair.send(data) for data in small_series(20)}
    sent |= {post(pair.target_server.url, data) for data in small_series(20)}
    back = {
        "SOURCE_URL": pair.target_server.url,
        "TARGET_URL": pair.source_server.url,
        "STATE_PATH": str(pair.home / "back.sqlite3"),
    }
    there = pair.start("run", SOURCE_RETENTION="1s")
    again = pair.start("run", SOURCE_RETENTION="1s", **back)
    wait_until(
        lambda: bool(there.logged("sweep_failed") or again.logged("sweep_failed")), "a refusal"
    )
    wait_until(lambda: at_source(pair) | pair.held() == sent, "all are somewhere")
    later = {pair.send(data) for data in small_series(10)}
    wait_until(lambda: later <= pair.held(), "they arrive")
    wait_until(lambda: at_source(pair) | pair.held() == sent | later, "none is lost")
    told = " ".join(line["message"] for b in (there, again) for line in b.logged("sweep_failed"))
    assert "opposite way" in told or "deletes at the target" in told


@pytest.mark.parametrize("running", [True, False])
def test_another_bridge_still_needs_them(pair: Pair, running: bool) -> None:
    """Nobody else: a bridge that keeps follows the source as well, and its target is down."""
    sent = {pair.send(data) for data in small_series(20)}
    other = {
        "TARGET_URL": "http://127.0.0.1:9",
        "STATE_PATH": str(pair.home / "other.sqlite3"),
    }
    if running:
        pair.start("run", **other).wait_logged("side_down")
    else:
        assert pair.run("run", "--once", COMMAND_PATIENCE_S="0", **other).exit_code == 11
    done = pair.run("run", "--once", SOURCE_RETENTION="0s")
    assert done.exit_code == 2
    assert "Another bridge follows this source" in done.stderr
    assert at_source(pair) == pair.held() == sent
    name = done.stderr.partition("source (")[2].partition(")")[0]
    assert pair.run("retention", "--forget", name).exit_code == 0
    if not running:
        assert pair.run("run", "--once", SOURCE_RETENTION="0s").exit_code == 0
        assert at_source(pair) == set()


def test_addresses_are_exchanged(pair: Pair) -> None:
    """Another server: the feed that was followed is looked at before the first deletion."""
    sent = delivered(pair, 4)
    swapped = {"SOURCE_URL": pair.target_server.url, "TARGET_URL": pair.source_server.url}
    bridge = pair.start("run", SOURCE_RETENTION="0s", **swapped)
    wait_until(
        lambda: bool(
            not bridge.is_running or bridge.logged("sweep_failed") or bridge.logged("source_spared")
        ),
        "it deletes nothing and says why",
    )
    assert at_source(pair) == pair.held() == sent


def test_a_target_that_recycles_later(orthanc: Servers, pair: Pair) -> None:
    """Will keep them: a target that tells its MaximumPatientCount is refused (1.12); otherwise
    (1.10.1) patients are protected."""
    target = orthanc("recycling", config=ORTHANC | {"MaximumPatientCount": 4})
    sent = {pair.send(small_ct(patient_id=f"P{number}")) for number in range(3)}
    done = pair.run("run", "--once", SOURCE_RETENTION="0s", TARGET_URL=target.url)
    client = SideClient(Endpoint(SideName.TARGET, target.url))
    try:
        if client.system().maximum_patient_count is not None:
            assert done.exit_code == 2
            assert "The target recycles" in done.stderr
            assert at_source(pair) == sent
            return
        assert done.exit_code == 0, done.stderr
        assert at_source(pair) == set()
        for number in range(4):
            post(target.url, small_ct(patient_id=f"LATER{number}"))
        assert sent <= set(client.list_instances(0, 100))
    finally:
        client.close()


def test_a_pause_is_obeyed_before_each_deletion(pair: Pair) -> None:
    delivered(pair, 100)
    bridge = pair.start("run", SOURCE_RETENTION="0s")
    wait_until(lambda: len(at_source(pair)) < 95, "the sweep is under way")
    assert pair.run("pause").exit_code == 0
    left = len(at_source(pair))
    held = {pair.send(data) for data in small_series(2)}
    bridge.wait_health(lambda health: health["hold"] == "paused", "it pauses")
    assert len(at_source(pair) - held) >= left - 1
    assert left > 1


@pytest.fixture
def checking(orthanc: Servers) -> Iterator[tuple[SideClient, SideClient, str]]:
    """Two servers that check revisions, and an instance that both hold."""
    servers = [orthanc(n, config=ORTHANC | {"CheckRevisions": True}) for n in ("one", "two")]
    data = small_ct()
    (instance_id,) = {post(server.url, data) for server in servers}
    sides = zip(SideName, servers, strict=True)
    clients = [SideClient(Endpoint(side, server.url)) for side, server in sides]
    with ExitStack() as stack:
        for client in clients:
            stack.callback(client.close)
        yield clients[0], clients[1], instance_id


def test_a_mark_respects_revisions_and_the_users_own_metadata(
    checking: tuple[SideClient, SideClient, str],
) -> None:
    source, target, instance_id = checking
    source.set_metadata(instance_id, "4222", "mine")
    before = source.instance_metadata(instance_id)
    for _ in range(3):
        assert mark_shows(source, target, instance_id, must=True, marks=NotOnRecord()) is False
        assert mark_shows(source, source, instance_id, must=True, marks=NotOnRecord()) is True
    assert source.instance_metadata(instance_id) == before


def test_retention_with_revisions_and_every_deletion_on_record(
    orthanc: Servers, pair: Pair, tmp_path: Path
) -> None:
    source = orthanc("revisions", config=ORTHANC | {"CheckRevisions": True})
    sent = {post(source.url, data) for data in small_series(3)}
    audit = tmp_path / "audit.jsonl"
    settings = {"SOURCE_URL": source.url, "AUDIT_PATH": str(audit), "SOURCE_RETENTION": "0s"}
    look = pair.run("run", "--once", **settings | {"SOURCE_RETENTION": "1h"})
    assert look.exit_code == 0, look.stderr
    told = pair.run("retention", "--dry-run", "--json", **settings)
    assert told.json["goes"] == 3, told.stdout + told.stderr
    done = pair.run("run", "--once", **settings)
    assert done.exit_code == 0, done.stderr
    lines = [line for line in audit.read_text().splitlines() if '"deletes"' in line]
    assert len(lines) == 3
    assert all(any(instance_id in line for line in lines) for instance_id in sent)
    assert all("source_file" in line and "another_server" in line for line in lines)


def test_a_clock_that_jumps_three_days_makes_nothing_old(pair: Pair) -> None:
    """Lost 5 instances of 40 s at a retention of 1 h: the restart forgot the jump."""
    clock = pair.home / jumping_clock.AHEAD
    three_days_s = 3 * 86_400
    module, hour = jumping_clock.__name__, {"SOURCE_RETENTION": "1h"}

    def at_once() -> None:
        once = pair.start_module(module, "run", "--once", **hour)
        done = once.finish()
        assert done.exit_code == 0, done.stderr

    bridge = pair.start_module(module, "run", **hour)
    sent = {pair.send(data) for data in small_series(5)}
    wait_until(lambda: sent <= pair.held(), "all are delivered")
    wait_until(lambda: _kept(pair) == sent, "with the evidence of it")
    assert bridge.logged("clock_jumped") == []
    clock.write_text(str(three_days_s))
    bridge.wait_logged("clock_jumped", timeout_s=60.0)
    assert at_source(pair) == sent, "while it runs"
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0
    at_once()
    assert at_source(pair) == sent, "after a restart"
    clock.write_text(str(2 * three_days_s))
    at_once()
    assert at_source(pair) == sent, "a jump while nothing ran"
    clock.write_text(str(-three_days_s))
    at_once()
    assert at_source(pair) == sent, "nor backwards"
    # What is old enough goes: so the sweeps above have looked at them.
    done = pair.run("run", "--once", SOURCE_RETENTION="0s")
    assert done.exit_code == 0, done.stderr
    assert at_source(pair) == set()


def _kept(pair: Pair) -> set[str]:
    with Ledger(pair.state_path, create=False) as ledger:
        return {kept.instance_id for kept in ledger.all_kept()}


def test_one_deletion_is_on_trial_and_then_the_others_go(pair: Pair) -> None:
    sent = {pair.send(data) for data in small_series(5)}
    done = pair.run("run", "--once", SOURCE_RETENTION="0s", RETENTION_TRIAL_S="2")
    assert done.exit_code == 0, done.stderr
    assert "deletion_on_trial" in done.stderr
    assert at_source(pair) == set()
    assert pair.held() == sent


def test_a_script_deletes_at_the_target_what_is_deleted_at_the_source(pair: Pair) -> None:
    """A second later: the target has read its file again by then. Another server: all were lost.

    Planted, seen to fail: no trial.
    """
    sent = {pair.send(data) for data in small_series(5)}
    ended = threading.Event()

    def follow() -> None:
        client = SideClient(pair.target.endpoint)
        while not ended.wait(1.0):
            for instance_id in sent - at_source(pair):
                client.delete_instance(instance_id)
        client.close()

    script = threading.Thread(target=follow)
    script.start()
    try:
        done = pair.run("run", "--once", SOURCE_RETENTION="0s", RETENTION_TRIAL_S="5")
    finally:
        ended.set()
        script.join()
    assert done.exit_code == 2, done.stderr
    assert "delete at the target what is deleted at the source" in done.stderr
    assert at_source(pair) == sent
