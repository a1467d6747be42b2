"""What a verification costs deliveries, as a ratio: ``.venv/bin/python -m tests.mirror_cost``.

Two real Orthancs. Batches of compressed instances are delivered by a bridge that verifies without a
pause at the default rate, and by one that does not, alternately, in one run: so other work on the
machine, and servers that grow, count on both sides. Before that the CPU seconds of one delivered
and of one verified instance are counted, in the bridge, its workers and both servers: other work
hardly changes them. The figures of docs/mirror.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from pydicom.uid import RLELossless

from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import under_way
from scripts.compatibility_page import when_and_where
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.integration.conftest import ORTHANC, Pair

SETTINGS = {"off": {}, "on": {"VERIFY_EVERY": "1s"}}
DELIVERED = "instance_delivered"
ORDER = ("off", "on", "on", "off")
"""Repeated: what grows or ages meanwhile weighs the same on both."""
LONGEST_S = 600.0
TICKS_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def pair_in(home: Path) -> Iterator[Pair]:
    """Start two servers, and hold a place for a bridge's state."""
    (home / "bridge").mkdir()
    with ExitStack() as stack:
        source, target = (
            stack.enter_context(OrthancServer(name, home / name, config=ORTHANC))
            for name in ("source", "target")
        )
        yield Pair(source, target, home / "bridge", stack)


def fill(pair: Pair, first: int, count: int) -> None:
    """Put compressed instances into the source."""
    for number in range(first, first + count):
        dataset = small_ct_dataset(rows=256, columns=256, seed=number)
        dataset.compress(RLELossless, generate_instance_uid=False)
        pair.send(file_bytes(dataset))


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes and of their children, so far."""
    spent_s = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent_s += (int(fields[11]) + int(fields[12])) / TICKS_S
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            spent_s += cpu_s(map(int, task.read_text().split()))
    return spent_s


def cpu_ms_of_one(pair: Pair, count: int, line: str, lines: int, **settings: str) -> float:
    """Return the CPU milliseconds of one of ``count`` instances until so many lines are logged."""
    servers = (pair.source_server.pid, pair.target_server.pid)
    pair.run("pause")
    bridge = pair.start("run", **settings)
    bridge.wait_health(lambda told: "source" in told, "it works")
    begun_s = cpu_s((*servers, bridge.pid))
    pair.run("resume")
    wait_until(lambda: len(bridge.logged(line)) >= lines, line, timeout_s=LONGEST_S)
    spent_s = cpu_s((*servers, bridge.pid)) - begun_s
    bridge.kill()
    return 1000 * spent_s / count


def deliver(pair: Pair, kind: str, count: int) -> float:
    """Let a bridge deliver what waits; returns instances a second."""
    bridge = pair.start("run", **SETTINGS[kind])
    wait_until(
        lambda: len(bridge.logged(DELIVERED)) >= count, "all are delivered", timeout_s=LONGEST_S
    )
    with Ledger(pair.state_path, create=False) as ledger:
        if kind == "on" and under_way(ledger) is None:
            raise SystemExit("no verification was under way: give more --instances")
    times = [datetime.datetime.fromisoformat(line["time"]) for line in bridge.logged(DELIVERED)]
    bridge.kill()
    return (len(times) - 1) / (max(times) - min(times)).total_seconds()


def main() -> int:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=400, help="of one round")
    parser.add_argument("--rounds", type=int, default=8, help="of both kinds together")
    asked = parser.parse_args()
    rates: dict[str, list[float]] = {kind: [] for kind in SETTINGS}
    with tempfile.TemporaryDirectory() as home, pair_in(Path(home)) as pair:
        fill(pair, 0, 2 * asked.instances)
        pair.command_timeout_s = LONGEST_S
        if pair.run("run", "--once", VERIFY_EVERY="7d").exit_code:
            raise SystemExit("the first instances were not delivered")
        fill(pair, 2 * asked.instances, asked.instances)
        delivered = cpu_ms_of_one(pair, asked.instances, DELIVERED, asked.instances)
        verified = cpu_ms_of_one(
            pair, 3 * asked.instances, "verified", 1, VERIFY_EVERY="1s", VERIFY_RATE="0"
        )
        sys.stdout.write(
            f"{when_and_where()}: {delivered:.1f} ms of CPU for a delivered instance, "
            f"{verified:.1f} ms for a verified one, in all processes\n"
        )
        for number in range(asked.rounds):
            kind = ORDER[number % len(ORDER)]
            fill(pair, (3 + number) * asked.instances, asked.instances)
            rates[kind].append(deliver(pair, kind, asked.instances))
            sys.stderr.write(f"{kind}: {rates[kind][-1]:.1f} instances a second\n")
    if not asked.rounds:
        return 0
    off, on = median(rates["off"]), median(rates["on"])
    sys.stdout.write(
        f"{when_and_where()}: {off:.1f} instances a second without a verification, {on:.1f} with "
        f"one at the default rate: {on / off:.3f} of it; medians of {asked.rounds // 2} rounds of "
        f"{asked.instances} each, alternately\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
