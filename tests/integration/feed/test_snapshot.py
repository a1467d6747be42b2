"""Starting on an old source, and a source that is not the one it was."""

from __future__ import annotations

import shutil

import httpx
import pytest

from tests.bridge_process import wait_until
from tests.dicom_samples import small_ct, small_series
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc


def _create_anew(pair: Pair) -> None:
    """Give the source an empty storage, behind the same address."""
    pair.source_server.kill()
    shutil.rmtree(pair.source_server.directory / "storage")
    pair.source_server.start()


def test_a_snapshot_moves_what_the_feed_does_not_tell_any_more(pair: Pair) -> None:
    old = {pair.send(data) for data in small_series(6)}
    answer = httpx.delete(f"{pair.source_server.url}/changes", trust_env=False)
    assert answer.status_code == 200
    assert pair.run("run", "--once").exit_code == 0
    assert pair.held() == set(), "the feed is empty: nothing to do from its beginning"
    pair.state_path.unlink()
    after = pair.send(small_ct())
    done = pair.run("run", "--once", "--json", START="snapshot")
    assert done.exit_code == 0, done.stderr
    assert done.json["delivered"] == 7
    assert pair.held() == old | {after}
    assert pair.checkpoint() == pair.last()
    again = pair.run("run", "--once", "--json", START="snapshot")
    assert again.json["delivered"] == again.json["already_there"] == 0, "a snapshot is made once"


def test_a_snapshot_that_is_killed_goes_on(pair: Pair) -> None:
    sent = [pair.send(data) for data in small_series(60)]
    # Slowly: this process may be late with the kill.
    bridge = pair.start("run", START="snapshot", MAX_INSTANCES_S="10")
    bridge.wait_logged("instance_delivered", 5)
    bridge.kill()
    assert len(pair.held()) < 60
    done = pair.run("run", "--once", "--json", START="snapshot")
    assert done.exit_code == 0, done.stderr
    assert sorted(pair.arrivals()) == sorted(sent)
    assert pair.checkpoint() == pair.last()


def test_a_source_created_anew_stops_the_bridge(pair: Pair) -> None:
    for data in small_series(5):
        pair.send(data)
    bridge = pair.start("run")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is moved")
    _create_anew(pair)
    done = bridge.finish()
    assert done.exit_code == 13
    assert "BRIDGE_ON_FEED_RESET" in done.stderr
    assert "Traceback" not in done.stderr
    assert bridge.logged("feed_reset")
    assert pair.run("run", "--once").exit_code == 13, "and it stays so until a person decides"
    with pair.ledger() as ledger:
        assert ledger.checkpoint() != 0, "the checkpoint is kept"


def test_a_source_created_anew_with_a_longer_feed_is_noticed_too(pair: Pair) -> None:
    for data in small_series(3):
        pair.send(data)
    assert pair.run("run", "--once").exit_code == 0
    _create_anew(pair)
    for data in small_series(20):
        pair.send(data)
    done = pair.run("run", "--once")
    assert done.exit_code == 13
    assert "not the one that was followed" in done.stderr


def test_a_source_created_anew_is_followed_from_a_snapshot_if_so_set(pair: Pair) -> None:
    old = {pair.send(data) for data in small_series(5)}
    bridge = pair.start("run", ON_FEED_RESET="snapshot")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is moved")
    _create_anew(pair)
    new = {pair.send(data) for data in small_series(3)}
    wait_until(lambda: new <= pair.held(), "what the new source holds arrives")
    assert bridge.logged("feed_reset")
    bridge.wait_health(
        lambda health: health["checkpoint"] == pair.last(), "it follows the new feed"
    )
    later = pair.send(small_ct())
    wait_until(lambda: later in pair.held(), "and what it gets later")
    assert pair.held() == old | new | {later}
    assert bridge.wait_health(lambda health: health["status"] == "ok", "all is well again")


@pytest.mark.parametrize("start", ["now", "snapshot"])
def test_a_reset_before_anything_new_was_moved_is_noticed(pair: Pair, start: str) -> None:
    for data in small_series(5):
        pair.send(data)
    bridge = pair.start("run", START=start)
    last = pair.last()
    bridge.wait_health(
        lambda health: health["phase"] == "following" and health["checkpoint"] == last, "it follows"
    )
    _create_anew(pair)
    pair.send(small_ct())  # below the position: it would never be seen
    assert pair.last() < last
    assert bridge.wait() == 13
