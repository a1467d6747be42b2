"""The sign at the source that says delivered, between two real Orthancs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from bridge.mirror.sign_decision import sign_value
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.integration.conftest import Pair
from tests.integration.mirror.test_carry_real import Side, metric
from tests.simulation.retention import md5

pytestmark = pytest.mark.orthanc

SETTINGS = {
    "DELIVERED_SIGN": "label:delivered,metadata:1027",
    "CARRY": "labels,metadata:1024",
    "CARRY_EVERY": "1s",
}


@pytest.fixture
def source(pair: Pair) -> Iterator[Side]:
    side = Side(pair.source_server)
    with closing(side.http):
        yield side


@pytest.fixture
def target(pair: Pair) -> Iterator[Side]:
    side = Side(pair.target_server)
    with closing(side.http):
        yield side


def is_signed(source: Side, path: str) -> bool:
    if source.has_labels:
        return "delivered" in source.labels(path)
    sum_ = source.get(f"{path}/attachments/dicom/md5")
    assert sum_ is not None
    return source.get(f"{path}/metadata/1027") == sign_value(sum_.decode().strip()).encode()


def test_what_was_delivered_is_signed_and_nothing_goes_in_circles(
    pair: Pair, source: Side, target: Side
) -> None:
    paths = [source.store(file_bytes(small_ct_dataset(seed=n)))["instances"] for n in range(3)]
    bridge = pair.start("run", **SETTINGS)
    wait_until(lambda: all(is_signed(source, path) for path in paths), "all are signed")
    assert all(target.has(path) for path in paths)
    source.put(f"{paths[0]}/metadata/1024", b"carried")
    wait_until(lambda: target.get(f"{paths[0]}/metadata/1024") == b"carried", "others are carried")
    rounds = len(bridge.logged("carry_round"))
    newest = source.http.get("/changes?last").json()["Last"]
    wait_until(lambda: len(bridge.logged("carry_round")) > rounds + 2, "all was compared again")
    for path in paths:
        assert target.get(f"{path}/metadata/1027") is None
        assert "delivered" not in target.labels(path)
    assert source.http.get("/changes?last").json()["Last"] == newest, "the feed is quiet"
    kind = "label" if source.has_labels else "metadata"
    assert metric(bridge, f'signed_total{{kind="{kind}"}}') == 3
    assert metric(bridge, "sign_waiting") == 0
    assert bridge.wait_health(lambda h: h["status"] == "ok", "all is well")


def test_a_newer_version_is_signed_when_it_is_delivered(pair: Pair, source: Side) -> None:
    dataset = small_ct_dataset(seed=1)
    path = source.store(file_bytes(dataset))["instances"]
    pair.start("run", **SETTINGS)
    wait_until(lambda: is_signed(source, path), "it is signed")
    source.http.delete(path).raise_for_status()  # Orthanc drops what lay beside it, as it does when
    dataset.PatientComments = "corrected"  # it overwrites: the pair's servers do not
    assert source.store(file_bytes(dataset))["instances"] == path
    # The target keeps the older version: what it holds is not what the source has.
    later = source.store(file_bytes(small_ct_dataset(seed=2)))["instances"]
    wait_until(lambda: is_signed(source, later), "the one after it is signed")
    assert not is_signed(source, path)
    assert pair.target.delete_instance(path.removeprefix("/instances/"))
    pair.run("replay", "--from", "1", **SETTINGS)
    wait_until(lambda: is_signed(source, path), "it was delivered")


def test_what_users_wrote_stays_and_kills_lose_no_sign(pair: Pair, source: Side) -> None:
    settings = SETTINGS | {"DELIVERED_SIGN": "metadata:1027"}
    paths = [source.store(file_bytes(small_ct_dataset(seed=n)))["instances"] for n in range(12)]
    source.put(f"{paths[0]}/metadata/1027", b"of a user")
    for _ in range(4):
        bridge = pair.start("run", **settings)
        wait_until(lambda: bool(pair.held()), "it works")
        bridge.kill()
    bridge = pair.start("run", **settings)

    def signed(path: str) -> bool:
        return (source.get(f"{path}/metadata/1027") or b"").startswith(b"orthanc-bridge delivered ")

    wait_until(lambda: all(map(signed, paths[1:])), "all others are signed")
    assert source.get(f"{paths[0]}/metadata/1027") == b"of a user"
    sums = {source.get(f"{path}/metadata/1027") for path in paths[1:]}
    assert len(sums) == 11, "each names its own file"
    assert md5(b"") not in str(sums)


def test_a_source_that_may_not_be_written_to_delays_nothing(pair: Pair, source: Side) -> None:
    """The metadata is one that the source does not know."""
    path = source.store(file_bytes(small_ct_dataset(seed=1)))["instances"]
    bridge = pair.start("run", **(SETTINGS | {"DELIVERED_SIGN": "metadata:UnknownThere"}))
    wait_until(lambda: metric(bridge, "sign_failures_total") >= 1, "it is counted")
    wait_until(lambda: bool(pair.held()), "it is delivered")
    assert metric(bridge, "sign_waiting") == 1
    assert source.has(path)
    assert bridge.wait_health(lambda h: h["status"] == "ok", "within the grace")
