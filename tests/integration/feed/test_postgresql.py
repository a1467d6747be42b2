"""A source whose index is in PostgreSQL: many writers at once, late rows, a database that dies.

docs/orthanc.md tells which Orthancs let a row become visible late, and how that was measured.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.errors import SideError
from bridge.orthanc import OrthancClient
from tests.bridge_process import BridgeProcess, reasons_in, wait_until
from tests.dicom_samples import identity_of, small_ct, small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench, await_reason
from tests.postgresql import Postgresql, require_index_plugin, require_postgresql

pytestmark = pytest.mark.orthanc

LATE = "orthanc_bridge_late_changes_total"
WRITERS = 8
FILES_EACH = 25
SEND_AGAIN_S = 20.0

HOLD = """
CREATE FUNCTION hold() RETURNS trigger AS $$ BEGIN
    PERFORM pg_advisory_xact_lock(1) FROM Resources
        WHERE internalId = NEW.internalId AND publicId = '{instance}';
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER hold AFTER INSERT ON Changes FOR EACH ROW EXECUTE FUNCTION hold();
"""
"""The transaction that adds this instance's row waits, the sequence already taken."""
BEYOND_ANY_OVERLAP = 5000
COUNTER_BACK = "UPDATE GlobalIntegers SET value = {sequence} WHERE key = 6"
"""What an empty page of /changes tells as ``Last``."""
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

HIDE = """
CREATE TABLE hidden AS
    SELECT Changes.* FROM Changes JOIN Resources USING (internalId) WHERE publicId = '{instance}';
DELETE FROM Changes USING hidden WHERE Changes.seq = hidden.seq;
"""
SHOW = """
SET LOCAL session_replication_role = replica;
INSERT INTO Changes
    SELECT nextval('changes_seq_seq'), changeType, internalId, resourceType, date FROM hidden
    RETURNING seq;
"""
"""Without triggers: the one on Changes is what keeps Debian's plugins from late rows."""


@pytest.fixture
def cluster() -> Iterator[Postgresql]:
    with Postgresql(require_postgresql()) as cluster:
        yield cluster


@pytest.fixture
def bench(
    cluster: Postgresql, orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> Iterator[Bench]:
    """Return a bench whose source has its index in the cluster, over several connections."""
    options = FOLLOWING_ONLY | cluster.orthanc_options(require_index_plugin(), connections=WRITERS)
    source = orthanc("source", config=options)
    target = orthanc("target", config=FOLLOWING_ONLY)
    with Bench(source.url, target.url, tmp_path) as bench:
        yield bench


def _late(bridge: BridgeProcess) -> float:
    return _metric(bridge, LATE)


def _metric(bridge: BridgeProcess, name: str) -> float:
    for row in str(bridge.get("/metrics")[1]).splitlines():
        if row.startswith(f"{name} "):
            return float(row.split()[1])
    return 0.0


def _gaps(bridge: BridgeProcess) -> int:
    """How many sequences are open gaps."""
    gaps = bridge.get("/health")[1]["gaps"]
    return int(gaps["sequences"])


def _send(client: OrthancClient, data: bytes) -> str:
    """Send as a modality does: again when it is refused, which contention may cause."""
    until_s = time.monotonic() + SEND_AGAIN_S
    while True:
        try:
            return client.store(data, deadline_s=10.0).instance_id
        except SideError:
            if time.monotonic() > until_s:
                raise


def _touch_metadata(bench: Bench, instance_id: str) -> None:
    url = f"{bench.settings['BRIDGE_SOURCE_URL']}/instances/{instance_id}/metadata/1234"
    request = urllib.request.Request(url, data=b"seen", method="PUT")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def test_many_writers_and_nothing_is_missed(
    bench: Bench, client_of: Callable[..., OrthancClient]
) -> None:
    """Half of the writers share one study, the worst case for the database's locks."""
    files = [
        [small_ct(patient_id=f"P{writer}") for _ in range(FILES_EACH)]
        for writer in range(WRITERS // 2)
    ]
    shared = small_series(FILES_EACH * (WRITERS - len(files)))
    files += [shared[start : start + FILES_EACH] for start in range(0, len(shared), FILES_EACH)]
    bridge = bench.start("run")
    bench.await_settled(bridge)

    def write(mine: list[bytes]) -> list[str]:
        client = client_of(bench.settings["BRIDGE_SOURCE_URL"])
        return [_send(client, data) for data in mine]

    with ThreadPoolExecutor(WRITERS) as pool:
        sent = [instance for batch in pool.map(write, files) for instance in batch]
    assert len(set(sent)) == WRITERS * FILES_EACH
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_delivered_once(sent)
    assert bench.checkpoint() == bench.last()


def test_a_row_that_becomes_visible_late(cluster: Postgresql, bench: Bench) -> None:
    """A transaction takes a sequence and commits when the bridge is beyond it."""
    sent = bench.send_all(small_series(3))
    late = bench.send(small_ct(patient_id="LATE"))
    cluster.execute(HIDE.format(instance=late))
    with cluster.transaction(SHOW) as held:
        sequence = int(held.answer)
        sent += bench.send_all(small_series(3))
        bridge = bench.start("run")
        bench.await_settled(bridge)
        assert bench.checkpoint() > sequence
        bench.assert_delivered_once(sent)
        assert _late(bridge) == 0
        held.commit()
        bench.await_all([late])
    bench.await_settled(bridge)
    wait_until(lambda: _late(bridge) == 1, "the late row is counted")
    bench.assert_delivered_once([*sent, late])
    assert bridge.logged("page_read", level="warning") == []
    assert [line["late"] for line in bridge.logged("page_read") if line.get("late")] == [1]


HIDE_ALL = """
CREATE TABLE hidden AS SELECT Changes.* FROM Changes JOIN Resources USING (internalId)
    WHERE publicId IN ({instances});
DELETE FROM Changes USING hidden WHERE Changes.seq = hidden.seq;
"""
SHOW_ONE = """
SET LOCAL session_replication_role = replica;
INSERT INTO Changes
    SELECT nextval('changes_seq_seq'), changeType, internalId, resourceType, date FROM hidden
    WHERE internalId = (SELECT internalId FROM Resources WHERE publicId = '{instance}')
    RETURNING seq;
"""


def test_late_rows_of_several_transactions_and_a_bridge_that_is_killed(
    cluster: Postgresql, bench: Bench
) -> None:
    """Four transactions take sequences; others write beyond any overlap. One is undone, the others
    commit in the wrong order, one of them while no bridge runs. The counter goes back beside.
    """
    late = [bench.send(small_ct(patient_id=f"LATE{n}")) for n in range(4)]
    names = ", ".join(f"'{instance}'" for instance in late)
    cluster.execute(HIDE_ALL.format(instances=names))
    with ExitStack() as stack:
        held = [
            stack.enter_context(cluster.transaction(SHOW_ONE.format(instance=instance)))
            for instance in late
        ]
        sequences = [int(one.answer) for one in held]
        assert sequences == sorted(sequences)
        cluster.execute(f"SELECT setval('changes_seq_seq', {sequences[-1] + BEYOND_ANY_OVERLAP});")
        sent = bench.send_all(small_series(5))
        bridge = bench.start("run", FEED_OVERLAP="20")
        bench.await_all(sent)
        wait_until(lambda: bench.checkpoint() >= bench.last(), "the checkpoint is at the end")
        assert _gaps(bridge) >= len(late)
        held[2].commit()
        bench.await_all([late[2]])
        bridge.kill()
        held[0].commit()
        cluster.execute(COUNTER_BACK.format(sequence=sequences[0]))
        bridge = bench.start("run", FEED_OVERLAP="20")
        bench.await_all([late[0]])
        held[3].commit()
        bench.await_all([late[3]])
    # The last one was undone: its instance is there, its row is not.
    expected = [*sent, late[0], late[2], late[3]]
    wait_until(lambda: len(bench.arrivals()) == len(expected), "all has arrived")
    bench.assert_delivered_once(expected)
    assert bridge.is_running
    assert bridge.logged("feed_reset") == []
    assert not any(line["missing"] for line in bridge.logged("page_read"))


def test_what_the_feed_never_tells_of_is_found_by_its_count(
    cluster: Postgresql, bench: Bench
) -> None:
    """A row that nobody will ever see: the count of the source tells of its instance."""
    sent = bench.send_all(small_series(3))
    bridge = bench.start("run", RECOUNT_INTERVAL_S="6")
    bench.await_all(sent)
    wait_until(lambda: bool(_metric(bridge, "orthanc_bridge_recounts_total")), "it was counted")
    bridge.kill()
    missed = bench.send(small_ct(patient_id="MISSED"))
    cluster.execute(HIDE.format(instance=missed))
    bridge = bench.start("run", RECOUNT_INTERVAL_S="6")
    bench.await_all([missed])
    bench.assert_delivered_once([*sent, missed])
    (line,) = bridge.logged("missed_found")
    assert line["instance"] == missed
    bridge.wait_health(lambda said: reasons_in(said) == ["feed_incomplete"], "it is told")


def test_an_upload_that_others_overtake(cluster: Postgresql, bench: Bench) -> None:
    """Orthanc's own transaction is held after it took its sequence, and a later one commits.

    It depends on the plugin whether the upload then keeps its sequence, and so comes late, or
    begins anew with a higher one. All that counts is that it arrives, and is counted if late.
    """
    sent = bench.send_all(small_series(2))
    slow = small_ct(patient_id="SLOW")
    instance = identity_of(slow).orthanc_id
    cluster.execute(HOLD.format(instance=instance))
    bridge = bench.start("run")
    bench.await_settled(bridge)
    with ThreadPoolExecutor(1) as pool:
        with cluster.transaction("SELECT pg_advisory_xact_lock(1);") as held:
            upload = pool.submit(bench.send, slow)
            wait_until(lambda: cluster.execute(WAITING) == "1", "the upload is held")
            _touch_metadata(bench, sent[0])
            overtaking = bench.last()
            bench.await_settled(bridge)
            assert bench.checkpoint() >= overtaking
            held.commit()
        assert upload.result(timeout=30) == instance
    bench.await_all([instance])
    bench.await_settled(bridge)
    bench.assert_delivered_once([*sent, instance])
    (row,) = [c for c in bench.source.changes(0, 100).changes if c.resource_id == instance]
    assert _late(bridge) == (1 if row.sequence < overtaking else 0)


def test_the_database_dies_and_comes_back(cluster: Postgresql, bench: Bench) -> None:
    """An outage of the source, whatever Orthanc answers meanwhile: nothing is held against
    anybody (G4). Each of Orthanc's connections fails once more after the database is back.
    """
    sent = bench.send_all(small_series(40))
    bridge = bench.start("run", ATTEMPTS="1")
    wait_until(lambda: bool(bench.held()), "some are delivered")
    cluster.stop()
    await_reason(bridge, "source_server_error")
    bench.assert_untouched()
    cluster.start()
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_delivered_once(sent)
