"""Decoders that raise, crash, hang and devour: one instance is parked, the others go on (G5).

A whole bridge process with the codecs of tests/poison.py between real servers.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import RLELossless

from bridge.demo.orthanc_server import OrthancServer
from bridge.model import Reason
from tests import poison
from tests.bridge_process import BridgeProcess
from tests.dicom_samples import small_ct_dataset
from tests.fault_bench import FOLLOWING_ONLY, Bench

pytestmark = pytest.mark.orthanc

MODULE = "tests.poison_main"
NEIGHBOURS = 24
ATTEMPTS = 2
TASK_TIMEOUT_S = 3.0
LIMITS = {
    "ATTEMPTS": str(ATTEMPTS),
    "TASK_TIMEOUT_S": str(TASK_TIMEOUT_S),
    "WORKER_MEMORY_MB": "1024",
}

EXPECTED = {
    "refuse": (Reason.UNDECODABLE, 1, "RLE"),
    "raise": (Reason.INTERNAL, ATTEMPTS, "Fault"),
    "segfault": (Reason.WORKER_DIED, ATTEMPTS, "SIGSEGV"),
    "hang": (Reason.TIMED_OUT, ATTEMPTS, "BRIDGE_TASK_TIMEOUT_S"),
    "eat": (Reason.OUT_OF_MEMORY, ATTEMPTS, "BRIDGE_WORKER_MEMORY_MB"),
}
"""Kind of poison: the reason, the attempts spent, and a word of the message."""


@pytest.fixture
def bench(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Bench:
    source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
    return Bench(source.url, target.url, tmp_path, LIMITS)


def rle_ct() -> bytes:
    dataset = small_ct_dataset()
    dataset.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _assert_others_unharmed(bench: Bench, bridge: BridgeProcess, others: list[str]) -> None:
    lines = bridge.logged("instance_delivered")
    assert sorted(line["instance"] for line in lines) == sorted(others)
    assert {line["attempt"] for line in lines} == {1}, "a neighbour lost an attempt"
    assert not {line["instance"] for line in bridge.logged("instance_retried")} & set(others)
    assert sorted(bench.arrivals()) == sorted(others)
    assert bench.attempts() == {}


def test_each_is_parked_and_the_others_lose_nothing(bench: Bench) -> None:
    """All at once: more trouble than there are workers."""
    with bench:
        kinds = {bench.send(rle_ct()): kind for kind in EXPECTED}
        poison.mark(bench.home, kinds)
        bridge = bench.start("run", module=MODULE)
        others = bench.send_all(rle_ct() for _ in range(NEIGHBOURS))
        bridge.wait_logged("instance_parked", len(kinds))
        bench.await_all(others)
        said = bench.await_settled(bridge, but=["parked"])
        assert said["parked_total"] == len(kinds)
        seen = {kinds[instance_id]: parked for instance_id, parked in bench.parked().items()}
        for kind, (reason, attempts, told) in EXPECTED.items():
            assert (seen[kind].reason, seen[kind].attempts) == (reason, attempts)
            assert told in seen[kind].message
        _assert_others_unharmed(bench, bridge, others)


def test_the_others_go_on_while_it_hangs(bench: Bench) -> None:
    with bench:
        bad = bench.send(rle_ct())
        others = bench.send_all(rle_ct() for _ in range(NEIGHBOURS))
        poison.mark(bench.home, {bad: "hang"})
        bridge = bench.start("run", module=MODULE)
        bridge.wait_logged("worker_lost", instance=bad)
        events = [line["event"] for line in bridge.lines()]
        first_loss = events.index("worker_lost")
        assert events[:first_loss].count("instance_delivered") == len(others)


def test_a_worker_that_dies_of_its_memory_limit_is_not_the_machine(bench: Bench) -> None:
    """After it, the same worker slots take instances as before: nothing is leaked or lost."""
    with bench:
        bad = bench.send(rle_ct())
        poison.mark(bench.home, {bad: "eat"})
        bridge = bench.start("run", module=MODULE)
        bridge.wait_logged("instance_parked", instance=bad)
        others = bench.send_all(rle_ct() for _ in range(NEIGHBOURS))
        bench.await_all(others)
        bridge.wait_health(lambda it: it["checkpoint"] == bench.last(), "everything settled")
        _assert_others_unharmed(bench, bridge, others)
