"""Labels, metadata and attachments between two real Orthancs, of all levels, as they change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.marks import PROBE_VALUE
from bridge.model import ResourceKind
from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.integration.conftest import ORTHANC, Pair

pytestmark = pytest.mark.orthanc

VALUE = "Müller^Jörg 1024 \N{GREEK SMALL LETTER ALPHA}"
"""It may be about a patient, and must be in no log."""
BYTES = b"\xff\xfe\x00 no text at all"
WHAT = "metadata:1024,metadata:1025,attachments:1030"
SETTINGS = {"CARRY": f"labels,{WHAT}", "CARRY_EVERY": "1s", "LOG_LEVEL": "debug"}
NAMES = {"patients": "ParentPatient", "studies": "ParentStudy", "series": "ParentSeries"}


class Side:
    """One server, as its users use it."""

    def __init__(self, server: OrthancServer) -> None:
        self.http = httpx.Client(base_url=server.url, trust_env=False, timeout=30.0)
        told = self.http.get("/system").json()
        self.has_labels = tuple(map(int, told["Version"].split(".")[:2])) >= (1, 12)

    def store(self, data: bytes) -> dict[str, str]:
        """Upload, and return the path of each level."""
        told = self.http.post("/instances", content=data).raise_for_status().json()
        above = {kind: f"/{kind}/{told[name]}" for kind, name in NAMES.items()}
        return above | {"instances": f"/instances/{told['ID']}"}

    def put(self, path: str, data: bytes = b"") -> None:
        """Write, over whatever is there."""
        etag = self.http.get(path.removesuffix("/data")).headers.get("ETag")
        headers = {"If-Match": etag} if etag else {}
        self.http.put(path, content=data, headers=headers).raise_for_status()

    def get(self, path: str) -> bytes | None:
        answer = self.http.get(path)
        return answer.content if answer.status_code == 200 else None

    def labels(self, path: str) -> set[str]:
        return set(self.http.get(f"{path}/labels").json()) if self.has_labels else set()

    def has(self, path: str) -> bool:
        return self.http.get(path).status_code == 200


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


def metric(bridge: BridgeProcess, name: str) -> float:
    for line in bridge.get("/metrics")[1].splitlines():
        if line.startswith(f"orthanc_bridge_{name} "):
            return float(line.split()[-1])
    raise AssertionError(name)


def beside(side: Side, path: str) -> dict[str, Any]:
    return {
        "text": side.get(f"{path}/metadata/1024"),
        "bytes": side.get(f"{path}/metadata/1025"),
        "attachment": side.get(f"{path}/attachments/1030/data"),
        "labels": side.labels(path),
    }


def write(side: Side, path: str, text: str = VALUE, data: bytes = b"%PDF one") -> None:
    side.put(f"{path}/metadata/1024", text.encode())
    side.put(f"{path}/metadata/1025", BYTES)
    side.put(f"{path}/attachments/1030", data)
    if side.has_labels:
        side.put(f"{path}/labels/Doe-{path[1:4]}")


def test_all_levels_arrive_and_follow_and_nothing_is_logged(
    pair: Pair, source: Side, target: Side
) -> None:
    levels = source.store(small_ct())
    for path in levels.values():
        write(source, path)
    bridge = pair.start("run", **SETTINGS)
    able = source.has_labels and target.has_labels

    def arrived() -> bool:
        return all(
            beside(target, path)
            == beside(source, path) | ({} if able else {"labels": target.labels(path)})
            for path in levels.values()
        )

    wait_until(arrived, "all that was there has arrived")
    assert {len(levels)} == {len(ResourceKind)}
    assert beside(target, levels["studies"])["bytes"] == BYTES
    # They change later, with rows in the feed; labels without.
    for number, path in enumerate(levels.values()):
        write(source, path, f"{VALUE} {number}", b"%PDF two")
        if source.has_labels:
            source.put(f"{path}/labels/later-Doe")
    wait_until(arrived, "and what has changed")
    if not able:
        bridge.wait_logged("carry_left")
        assert len(bridge.logged("carry_left")) == 1, "it is said once, and fails nothing"
    assert metric(bridge, 'carried_total{kind="metadata"}') >= 12
    assert metric(bridge, 'carried_total{kind="attachments"}') == 8
    assert metric(bridge, "carry_waiting") == 0
    health = bridge.wait_health(lambda h: h["status"] == "ok", "all is well")
    assert health
    text = json.dumps([bridge.stderr, bridge.get("/api/status")[1], bridge.get("/metrics")[1]])
    for secret in ("ller", "PDF", "Doe"):
        assert secret not in text
    with pair.ledger() as ledger:
        assert VALUE.encode() not in ledger.path.read_bytes()


def test_what_others_wrote_stays_and_nothing_is_deleted(
    pair: Pair, source: Side, target: Side
) -> None:
    data = small_ct()
    levels = source.store(data)
    study, series = levels["studies"], levels["series"]
    source.put(f"{study}/metadata/1024", b"of the source")
    source.put(f"{series}/metadata/1024", b"carried")
    source.put(f"{study}/attachments/1030", b"of the source")
    target.store(data)
    target.put(f"{study}/metadata/1024", b"of the target")
    target.put(f"{study}/metadata/1025", b"only there")
    target.put(f"{study}/attachments/1030", b"of the target")
    bridge = pair.start("run", **SETTINGS)
    wait_until(lambda: target.get(f"{series}/metadata/1024") == b"carried", "one is carried")
    bridge.wait_logged("carry_left")
    # Somebody changes at the target what was carried: from then on it is theirs.
    target.put(f"{series}/metadata/1024", b"corrected at the target")
    source.put(f"{series}/metadata/1024", b"changed at the source")
    wait_until(lambda: metric(bridge, 'carry_left_total{reason="foreign"}') >= 5, "told again")
    assert target.get(f"{series}/metadata/1024") == b"corrected at the target"
    assert target.get(f"{study}/metadata/1024") == b"of the target"
    assert target.get(f"{study}/metadata/1025") == b"only there"
    assert target.get(f"{study}/attachments/1030/data") == b"of the target"
    # What is deleted at the source stays at the target.
    kept = levels["instances"]
    source.put(f"{kept}/metadata/1024", b"to be deleted")
    wait_until(lambda: target.get(f"{kept}/metadata/1024") == b"to be deleted", "it is carried")
    etag = source.http.get(f"{kept}/metadata/1024").headers["ETag"]
    gone = source.http.request("DELETE", f"{kept}/metadata/1024", headers={"If-Match": etag})
    gone.raise_for_status()
    compared = len(bridge.logged("carry_round"))
    wait_until(lambda: len(bridge.logged("carry_round")) > compared + 2, "all was compared again")
    assert target.get(f"{kept}/metadata/1024") == b"to be deleted"
    assert bridge.wait_health(lambda h: h["status"] == "ok", "it is no fault")


def test_it_comes_after_a_delivery_and_through_kills(
    pair: Pair, source: Side, target: Side
) -> None:
    made = [source.store(file_bytes(small_ct_dataset(seed=n)))["instances"] for n in range(12)]
    for number, path in enumerate(made):
        source.put(f"{path}/metadata/1024", f"value {number}".encode())
        source.put(f"{path}/attachments/1030", bytes([number]) * 1000)
    for _ in range(4):
        bridge = pair.start("run", **SETTINGS)
        wait_until(lambda: bool(pair.held()), "it works")
        bridge.kill()
    pair.start("run", **SETTINGS)
    wait_until(
        lambda: all(beside(target, path) == beside(source, path) for path in made),
        "all of it is there",
    )


def test_a_copy_that_was_replaced_has_it_again(pair: Pair, source: Side, target: Side) -> None:
    path = source.store(small_ct())["instances"]
    source.put(f"{path}/metadata/1024", b"kept")
    settings = SETTINGS | {"CARRY_EVERY": "7d"}
    repairing = settings | {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "REPAIR": "all"}
    pair.start("run", **repairing)
    wait_until(lambda: target.get(f"{path}/metadata/1024") == b"kept", "it is carried")
    pair.target.delete_instance(path.removeprefix("/instances/"))
    wait_until(lambda: target.get(f"{path}/metadata/1024") == b"kept", "and again")


def test_marks_of_bridges_and_what_is_too_large_stay(
    pair: Pair, source: Side, target: Side
) -> None:
    path = source.store(small_ct())["instances"]
    source.put(f"{path}/metadata/1024", f"{PROBE_VALUE}0000000001-{'0' * 16}".encode())
    source.put(f"{path}/metadata/1025", b"carried")
    source.put(f"{path}/attachments/1030", bytes(1024 * 1024 + 1))
    bridge = pair.start("run", **(SETTINGS | {"CARRY_MAX_MB": "1"}))
    wait_until(lambda: target.get(f"{path}/metadata/1025") == b"carried", "another is carried")
    wait_until(lambda: metric(bridge, 'carry_left_total{reason="too_large"}') >= 1, "it is told")
    assert target.get(f"{path}/metadata/1024") is None
    assert not target.has(f"{path}/attachments/1030/info")


def all_hold(side: Side, paths: list[str], value: bytes) -> bool:
    names = ("metadata/1024", "attachments/1030/data")
    return all(side.get(f"{path}/{name}") == value for path in paths for name in names)


def test_a_name_that_the_target_does_not_know_is_told_once_and_holds_nothing_up(
    orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    """Each resource waited, with all that it had."""
    names = {"UserMetadata": {"OnlyHere": 4000}, "UserContentType": {"OnlyHereToo": 4001}}
    what = "metadata:OnlyHere,metadata:1024,attachments:OnlyHereToo,attachments:1030"
    with ExitStack() as stack:
        servers = orthanc("source", config=ORTHANC | names), orthanc("target", config=ORTHANC)
        pair = Pair(*servers, tmp_path, stack)
        source, target = (Side(server) for server in servers)
        for side in (source, target):
            stack.enter_context(closing(side.http))
        paths = [source.store(file_bytes(small_ct_dataset(seed=n)))["instances"] for n in range(3)]
        for name in ("metadata/OnlyHere", "attachments/OnlyHereToo"):
            for path in paths:
                source.put(f"{path}/{name}", b"unknown there")
        bridge = pair.start("run", **(SETTINGS | {"CARRY": what}))
        for value in (b"first", b"second"):
            for path in paths:
                source.put(f"{path}/metadata/1024", value)
                source.put(f"{path}/attachments/1030", value)
            wait_until(partial(all_hold, target, paths, value), "the others are carried")
        told = [row["name"] for row in bridge.logged("carry_left")]
        assert sorted(told) == ["OnlyHere", "OnlyHereToo"], "each is told once"
        assert metric(bridge, "carry_waiting") == 0
        assert not bridge.logged("carry_failed")
        assert bridge.wait_health(lambda h: h["status"] == "ok", "it is no fault")
