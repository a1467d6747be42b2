"""What users have put beside a copy outlives its replacement, between two real Orthancs."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.mirror.beside_copy import KEPT_BYTES_MAX, is_anything_kept
from bridge.mirror.repair import is_repair_begun
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.integration.conftest import ORTHANC, Pair
from tests.integration.mirror.test_carry_real import BYTES, VALUE, Side, write
from tests.integration.mirror.test_mirror_real import file_of, other_pixels

pytestmark = pytest.mark.orthanc

NAMES: dict[str, object] = {"UserMetadata": {"Project": 4000}, "UserContentType": {"Report": 4001}}
CONFIG = ORTHANC | {"MaximumStorageCacheSize": 0}
KILLS = 8


@pytest.fixture
def pair(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Iterator[Pair]:
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        source = orthanc("source", config=CONFIG)
        target = orthanc("target", config=CONFIG | NAMES)
        yield Pair(source, target, home, stack)


@pytest.fixture
def target(pair: Pair) -> Iterator[Side]:
    side = Side(pair.target_server)
    with closing(side.http):
        yield side


def sent(pair: Pair, number: int) -> dict[str, str]:
    """Send the only instance of a patient; returns the paths of its levels."""
    side = Side(pair.source_server)
    dataset = small_ct_dataset(seed=number)
    dataset.PatientID = f"P{number}"
    with closing(side.http):
        return side.store(file_bytes(dataset))


def annotate(target: Side, levels: dict[str, str]) -> None:
    for path in levels.values():
        write(target, path)
        target.put(f"{path}/metadata/Project", b"named")
        target.put(f"{path}/attachments/Report", BYTES * 1000)
    target.http.put(f"{levels['patients']}/protected", content=b"1").raise_for_status()


def beside(target: Side, levels: dict[str, str]) -> dict[str, object]:
    """Return all that is beside a copy, but for what Orthanc itself keeps there."""
    found: dict[str, object] = {"protected": target.get(f"{levels['patients']}/protected")}
    for path in levels.values():
        for name in ("metadata/1024", "metadata/1025", "metadata/Project"):
            found[f"{path}/{name}"] = target.get(f"{path}/{name}")
        for name in ("1030", "Report"):
            found[f"{path} {name}"] = target.get(f"{path}/attachments/{name}/data")
        found[f"{path} labels"] = target.labels(path)
    return found


def spoil(pair: Pair, levels: dict[str, str]) -> None:
    """Change the file of a copy on the target's disk."""
    instance_id = levels["instances"].removeprefix("/instances/")
    path = file_of(pair.target_server, pair.target.stored_file(instance_id).uuid)
    path.write_bytes(other_pixels(path.read_bytes()))


def is_right(pair: Pair, levels: dict[str, str]) -> bool:
    instance_id = levels["instances"].removeprefix("/instances/")
    return pair.target.has_instance(instance_id) and pair.target.verify_stored(instance_id)


def test_all_of_it_is_there_after_a_repair_and_nothing_is_logged(pair: Pair, target: Side) -> None:
    levels = sent(pair, 1)
    assert pair.run("run", "--once", VERIFY_EVERY="7d").exit_code == 0
    annotate(target, levels)
    before = beside(target, levels)
    assert all(before.values()) or not target.has_labels
    spoil(pair, levels)
    audit = pair.home / "audit.jsonl"
    done = pair.run(
        "check", "--repair", "--json", VERIFY_EVERY="7d", AUDIT_PATH=str(audit), LOG_LEVEL="debug"
    )
    assert done.exit_code == 0, done.stderr
    assert done.json["summary"]["repaired"] == 1
    assert is_right(pair, levels)
    assert beside(target, levels) == before
    text = json.dumps([done.stderr, done.stdout, audit.read_text("utf-8")])
    for secret in (VALUE, "ller", "PDF", "Doe", "named"):
        assert secret not in text
    assert not list((pair.home / "state").glob("*.repair.[bd]*"))


def holds(target: Side, levels: dict[str, str], was: dict[str, object]) -> bool:
    return beside(target, levels) == was


def test_a_bridge_that_is_killed_again_and_again_puts_all_of_it_back(
    pair: Pair, target: Side
) -> None:
    all_levels = [sent(pair, number) for number in range(KILLS)]
    assert pair.run("run", "--once", VERIFY_EVERY="7d").exit_code == 0
    for levels in all_levels:
        annotate(target, levels)
    before = [beside(target, levels) for levels in all_levels]
    for levels in all_levels:
        spoil(pair, levels)
    repairing = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "REPAIR": "all"}
    draw, met = random.Random(5), 0
    for _ in range(KILLS):
        bridge = pair.start("run", **repairing)
        bridge.wait_logged("monitoring")
        time.sleep(draw.uniform(0.05, 0.9))
        bridge.kill()
        with pair.ledger() as ledger:
            met += is_repair_begun(ledger)
    pair.start("run", **repairing)
    wait_until(
        lambda: all(is_right(pair, levels) for levels in all_levels), "all copies are repaired"
    )
    for levels, was in zip(all_levels, before, strict=True):
        wait_until(partial(holds, target, levels, was), "it is put back")
    with pair.ledger() as ledger:
        wait_until(lambda: not is_anything_kept(ledger), "nothing is left in a file")
    print(f"killed {KILLS} times, {met} of them within a repair")  # noqa: T201


def test_more_than_is_kept_is_not_replaced(pair: Pair, target: Side) -> None:
    levels = sent(pair, 1)
    assert pair.run("run", "--once", VERIFY_EVERY="7d").exit_code == 0
    large = bytes(KEPT_BYTES_MAX + 1)
    target.put(f"{levels['studies']}/attachments/Report", large)
    spoil(pair, levels)
    instance_id = levels["instances"].removeprefix("/instances/")
    before = pair.target.stored_file(instance_id)
    done = pair.run("check", "--repair", "--json", VERIFY_EVERY="7d")
    assert done.exit_code == 3
    (row,) = done.json["findings"]
    assert row["result"] == "not_repaired"
    assert "would be lost" in row["detail"]
    assert pair.target.stored_file(instance_id) == before
    assert target.get(f"{levels['studies']}/attachments/Report/data") == large
