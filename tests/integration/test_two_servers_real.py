"""One server under two names, and two servers that look like one, between real Orthancs."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import wait_until
from tests.dicom_samples import small_ct, small_series
from tests.fault_proxy import FaultProxy
from tests.integration.conftest import ORTHANC, Pair, post

pytestmark = pytest.mark.orthanc

Servers = Callable[..., OrthancServer]
NEEDS_A_CHANGE = {"TRANSFER_SYNTAX": "RLELossless"}
"""Every sample is uncompressed: each would be replaced."""


def fingerprints(server: OrthancServer) -> dict[str, bytes]:
    """Return every file of a server by its name in the storage area."""
    found = (path for path in server.directory.glob("storage/??/??/*") if path.is_file())
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.parametrize("arguments", [("run", "--once"), ("run",), ("replay", "--from", "1")])
def test_originals_are_not_replaced_under_another_name(
    orthanc: Servers, pair: Pair, arguments: tuple[str, ...]
) -> None:
    """Proves C1: without the question at the first probe all originals become decoded copies."""
    server = orthanc("one", config=ORTHANC | {"OverwriteInstances": True})
    for data in small_series(3):
        post(server.url, data)
    before = fingerprints(server)
    alias = server.url.replace("127.0.0.1", "localhost")
    done = pair.run(*arguments, SOURCE_URL=server.url, TARGET_URL=alias, **NEEDS_A_CHANGE)
    assert done.exit_code == 2, done.stderr
    assert "lead to one server" in done.stderr
    assert fingerprints(server) == before
    diagnosis = pair.run("doctor", SOURCE_URL=server.url, TARGET_URL=alias)
    assert diagnosis.exit_code == 2
    assert "lead to one server" in diagnosis.stdout


def test_one_empty_server_is_known_before_anything_arrives(pair: Pair) -> None:
    alias = pair.source_server.url.replace("127.0.0.1", "localhost")
    assert pair.run("run", "--once", TARGET_URL=alias).exit_code == 2


def test_a_copy_of_the_source_is_another_server(orthanc: Servers, pair: Pair) -> None:
    """Same feed, same rows and dates, same file names: only a mark tells."""
    server = orthanc("first", config=ORTHANC)
    for data in small_series(3):
        post(server.url, data)
    server.stop()
    copy = orthanc("second", config=ORTHANC)
    copy.stop()
    shutil.rmtree(copy.directory / "storage")
    shutil.copytree(server.directory / "storage", copy.directory / "storage")
    server.start()
    copy.start()
    done = pair.run("run", "--once", "--json", SOURCE_URL=server.url, TARGET_URL=copy.url)
    assert done.exit_code == 0, done.stderr
    assert done.json["already_there"] == 3


@pytest.mark.parametrize("outage", [True, False])
def test_an_address_changes_its_meaning_while_running(
    orthanc: Servers, pair: Pair, fault_proxy: Callable[[int], FaultProxy], outage: bool
) -> None:
    """A forwarder, a moved container, DNS: the target's address leads to the source from now on."""
    source = orthanc("original", config=ORTHANC | {"OverwriteInstances": True})
    proxy = fault_proxy(pair.target_server.http_port)
    urls = {"SOURCE_URL": source.url, "TARGET_URL": proxy.url}
    bridge = pair.start("run", **urls, **NEEDS_A_CHANGE)
    post(source.url, small_ct())
    bridge.wait_health(lambda health: health["checkpoint"] and health["lag_changes"] == 0, "moved")
    if outage:
        proxy.refuse()
        bridge.wait_logged("side_down")
    proxy.server_port = source.http_port
    before = fingerprints(source)
    if outage:
        for data in small_series(3):
            post(source.url, data)
        before = fingerprints(source)
        proxy.accept()
    else:
        proxy.break_connections()
    assert bridge.wait() == 2
    assert fingerprints(source) == before


@pytest.mark.parametrize("overwrites", [True, False])
def test_an_address_leads_to_the_source_for_a_moment(
    orthanc: Servers, pair: Pair, fault_proxy: Callable[[int], FaultProxy], overwrites: bool
) -> None:
    """The bridge does not end for it, moves nothing meanwhile, and delivers all afterwards.

    Planted, seen to fail: what seems to be one server is believed at once (exit 2).
    """
    source = orthanc("original", config=ORTHANC | {"OverwriteInstances": overwrites})
    proxy = fault_proxy(pair.target_server.http_port)
    urls = {"SOURCE_URL": source.url, "TARGET_URL": proxy.url}
    bridge = pair.start("run", **urls, **NEEDS_A_CHANGE, FEED_CONFIRM_S="120")
    sent = {post(source.url, small_ct())}
    bridge.wait_health(lambda health: health["checkpoint"] and health["lag_changes"] == 0, "moved")
    proxy.refuse()
    bridge.wait_logged("side_down")
    proxy.server_port = source.http_port
    sent |= {post(source.url, data) for data in small_series(3)}
    before = fingerprints(source)
    proxy.accept()
    bridge.wait_health(lambda health: "lead to one server" in str(health), "the doubt")
    proxy.server_port = pair.target_server.http_port
    proxy.break_connections()
    wait_until(lambda: pair.held() == sent, "all arrive")
    assert fingerprints(source) == before
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0


def test_a_bridge_that_starts_while_the_target_is_down(pair: Pair) -> None:
    instance = pair.send(small_ct())
    pair.target_server.stop()
    bridge = pair.start("run")
    bridge.wait_logged("side_down")
    pair.target_server.start()
    bridge.wait_health(lambda health: health["checkpoint"] and health["lag_changes"] == 0, "moved")
    assert pair.held() == {instance}


def test_the_question_leaves_nothing_behind(pair: Pair, tmp_path: Path) -> None:
    assert tmp_path.is_dir()
    assert pair.run("run", "--once").exit_code == 0
    for client in (pair.source, pair.target):
        assert client.last_change().last == 0, "no row in either feed"
