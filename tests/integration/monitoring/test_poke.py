"""A real Orthanc with compose/poke.lua tells a bridge that is hardly ever looking."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.bridge_process import BridgeProcess, wait_until
from tests.conftest import require_orthanc
from tests.dicom_samples import small_ct, small_series
from tests.integration.conftest import Pair
from tests.poke_figures import POLL_S, SCRIPT, TOKEN, arrival_s, pair_of, reserved_port

pytestmark = pytest.mark.orthanc

ANOTHER_TOKEN = "another-token-than-that"  # noqa: S105
QUIET_S = 180.0
"""A script that got no answer in a second says nothing for a minute."""
SOON_S = POLL_S / 2
"""Mostly it takes 0.1 s, but a busy machine is no failure."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    require_orthanc()
    with reserved_port() as port, pair_of(port, tmp_path) as found:
        yield found


def pokes(bridge: BridgeProcess) -> dict[str, int]:
    lines = re.findall(r'pokes_total\{result="(\w+)"\} (\d+)', str(bridge.get("/metrics")[1]))
    return {result: int(count) for result, count in lines}


def test_what_is_stored_arrives_long_before_the_next_poll(pair: Pair) -> None:
    bridge = pair.start("run", POKE_TOKEN=TOKEN)
    bridge.wait_health(lambda said: bool(said["caught_up"]), "the first look is over")
    # Each look starts the 30 s anew, so each arrival by itself is owed to a poke.
    for data in small_series(3):
        arrival_s(pair, data, SOON_S)
    assert pokes(bridge)["accepted"] >= 1
    assert pokes(bridge)["refused"] == 0
    assert "Lua: " not in pair.source_server.log_tail(100), "the script has no errors"


def test_without_pokes_polling_finds_it(pair: Pair) -> None:
    bridge = pair.start("run", POKE_TOKEN=ANOTHER_TOKEN, POLL_INTERVAL_S="1")
    bridge.wait_health(lambda said: bool(said["caught_up"]), "the first look is over")
    for data in small_series(2):
        arrival_s(pair, data, SOON_S)
    wait_until(lambda: pokes(bridge)["refused"] == 1, "it was poked with the wrong token")
    assert pokes(bridge) == {"accepted": 0, "refused": 1, "slowed": 0}, "and then left in peace"


def test_what_is_deleted_is_noted_long_before_the_next_verification(tmp_path: Path) -> None:
    """By compose/deleted.lua, beside poke.lua: of a whole series, and of single instances."""
    require_orthanc()
    scripts = [str(SCRIPT), str(SCRIPT.with_name("deleted.lua"))]
    with (
        reserved_port() as port,
        pair_of(port, tmp_path, LuaScripts=scripts, LuaHeartBeatPeriod=1) as pair,
    ):
        series = [pair.send(data) for data in small_series(60)]
        single, kept = pair.send(small_ct()), pair.send(small_ct())
        mirrors = {"VERIFY_EVERY": "7d", "VERIFY_RATE": "0", "MIRROR_DELETIONS": "after:1d"}
        assert pair.run("run", "--once", POKE_TOKEN=TOKEN, **mirrors).exit_code == 0
        bridge = pair.start("run", POKE_TOKEN=TOKEN, **mirrors)
        bridge.wait_logged("verified")
        told = httpx.get(f"{pair.source_server.url}/instances/{series[0]}", trust_env=False)
        parent = told.json()["ParentSeries"]
        for path in (f"/instances/{single}", f"/series/{parent}"):
            httpx.delete(pair.source_server.url + path, trust_env=False).raise_for_status()
        with pair.ledger() as ledger:
            wait_until(lambda: ledger.lacking_count() == 61, "all are noted", timeout_s=QUIET_S)
            assert {one.instance_id for one in ledger.lacking()} == {*series, single}
        assert pair.held() == {*series, single, kept}, "the grace holds"
        assert bridge.logged("lack_noted"), "not by a verification"


class Listener:
    """Accepts connections and never answers; counts them."""

    def __init__(self) -> None:
        self.accepted: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in (self._listener, *self.accepted):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                self.accepted.append(self._listener.accept()[0])
            except OSError:
                return


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.close()


def test_a_bridge_that_hangs_costs_the_source_one_wait(listener: Listener, tmp_path: Path) -> None:
    require_orthanc()
    with pair_of(listener.port, tmp_path, HttpTimeout=1) as pair:
        sent = [pair.send(data) for data in small_series(20)]
        log = pair.source_server.log_tail
        wait_until(lambda: "Error in HttpPost" in log(100), "the script gives up")
        sent += [pair.send(data) for data in small_series(20)]
        assert set(pair.source.list_instances(0, 100)) == set(sent), "everything was stored"
    assert len(listener.accepted) == 1, "one poke in a minute, whatever is stored"


def test_a_bridge_that_is_not_there_costs_it_nothing(pair: Pair) -> None:
    sent = [pair.send(data) for data in small_series(20)]
    log = pair.source_server.log_tail(1000)
    assert set(pair.source.list_instances(0, 100)) == set(sent)
    wait_until(
        lambda: "Error in HttpPost" in pair.source_server.log_tail(1000), "it was tried once"
    )
    assert log.count("Error in HttpPost") <= 1
