"""Several Orthancs on one database: a bridge at one of them sees no note of a bridge at another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer, ServerFailed
from bridge.retention.bridge_notes import SETTLE_S
from tests.bridge_process import wait_until
from tests.dicom_samples import small_series
from tests.integration.conftest import ORTHANC, Pair
from tests.postgresql import Postgresql, require_index_plugin, require_postgresql

pytestmark = pytest.mark.orthanc

Servers = Callable[..., OrthancServer]
NOWHERE = {"TARGET_URL": "http://127.0.0.1:9"}
"""A target that is down: the bridge needs all that the source has."""
VOUCHED = "shared-database"


@pytest.fixture
def on_one_database(orthanc: Servers, tmp_path: Path) -> Iterator[Servers]:
    """Start servers that have one index, in PostgreSQL, and one storage area."""
    require_index_plugin()
    with Postgresql(require_postgresql()) as cluster:
        options = cluster.orthanc_options(require_index_plugin(), connections=2)
        shared = options | {"StorageDirectory": str(tmp_path / "shared")} | ORTHANC
        yield lambda name: orthanc(name, config=shared)


def test_what_a_bridge_at_another_orthanc_needs_stays(
    on_one_database: Servers, orthanc: Servers, tmp_path: Path
) -> None:
    """The source was emptied, 10 of 10, though another bridge, whose target was down, needed all.

    Whoever vouches for it takes the blame: that the source is emptied then shows that no note is
    seen. Planted, seen to fail: nothing is asked; it is asked of the target only.
    """
    with ExitStack() as stack:
        # One after the other: each makes the tables that are missing.
        first, second = on_one_database("source"), on_one_database("source2")
        home = tmp_path / "home"
        home.mkdir()
        pair = Pair(second, orthanc("target", config=ORTHANC), home, stack)
        sent = {pair.send(data) for data in small_series(6)}
        other = {"SOURCE_URL": first.url, "STATE_PATH": str(home / "other.sqlite3")}
        pair.start("run", **NOWHERE, **other).wait_logged("side_down")
        at_first = stack.enter_context(Pair(first, second, home, stack).source)
        wait_until(lambda: any(at_first.peers()), "it has left its note")
        refused = pair.run("run", "--once", SOURCE_RETENTION="0s")
        assert refused.exit_code == 2, refused.stderr
        assert "The source has its index in a database" in refused.stderr
        assert set(pair.source.list_instances(0, 100)) == sent == pair.held()
        dry = pair.run("retention", "--dry-run", SOURCE_RETENTION="0s")
        assert "BRIDGE_RETENTION_RISK=shared-database" in dry.stdout + dry.stderr
        done = pair.run("run", "--once", SOURCE_RETENTION="0s", RETENTION_RISK=VOUCHED)
        assert done.exit_code == 0, done.stderr
        assert not pair.source.list_instances(0, 100)


@pytest.fixture
def to_database(on_one_database: Servers, orthanc: Servers, tmp_path: Path) -> Iterator[Pair]:
    """Return a pair whose target has its index in PostgreSQL."""
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        source = orthanc("source", config=ORTHANC)
        yield Pair(source, on_one_database("target"), home, stack)


def test_a_target_that_others_may_empty(to_database: Pair) -> None:
    """Planted, seen to fail: it is asked of the source only."""
    sent = {to_database.send(data) for data in small_series(4)}
    refused = to_database.run("run", "--once", SOURCE_RETENTION="0s")
    assert refused.exit_code == 2, refused.stderr
    assert "The target has its index in a database" in refused.stderr
    assert set(to_database.source.list_instances(0, 100)) == sent == to_database.held()
    done = to_database.run("run", "--once", SOURCE_RETENTION="0s", RETENTION_RISK=VOUCHED)
    assert done.exit_code == 0, done.stderr
    assert not to_database.source.list_instances(0, 100)


def test_deletions_are_not_mirrored_where_others_may_rely_on_a_copy(to_database: Pair) -> None:
    """Planted, seen to fail: it is asked of the source only."""
    sent = {to_database.send(data) for data in small_series(4)}
    mirrors = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "MIRROR_DELETIONS": "after:0s"}
    untold = "source-limits-untold"
    bridge = to_database.start("run", **mirrors, RETENTION_RISK=untold)
    wait_until(lambda: to_database.held() == sent, "all are delivered")
    gone = min(sent)
    assert to_database.source.delete_instance(gone)
    bridge.wait_logged("verified", len(bridge.logged("verified")) + 3)
    assert bridge.wait_reason("deletions_refused")
    assert bridge.wait_logged("deletions_refused", doubt="shared_database")
    assert to_database.held() == sent
    bridge.kill()
    to_database.start("run", **mirrors, RETENTION_RISK=f"{untold},{VOUCHED}")
    left = sent - {gone}
    wait_until(lambda: to_database.held() == left, "it follows", timeout_s=3 * SETTLE_S)


def test_no_two_orthancs_have_one_index_in_sqlite(orthanc: Servers, tmp_path: Path) -> None:
    """So a server with its index in SQLite is one process, which has the notes of all bridges."""
    first = orthanc("first", config=ORTHANC)
    index = first.directory / "storage"
    assert list(index.glob("index*")), "it is where we look for it"
    own = {"StorageDirectory": str(tmp_path / "own"), "IndexDirectory": str(index)}
    with pytest.raises(ServerFailed) as failed:
        orthanc("second", config=ORTHANC | own)
    assert "database is locked" in str(failed.value).lower()
    assert first.is_running
    first.stop()
    orthanc("third", config=ORTHANC | own)  # else another thing would have kept it from starting
