"""SIGKILL at random moments, again and again, between two real Orthancs (G1, G2).

    python -m tests.crash_campaign --kills 200 --seed 7
    python -m tests.crash_campaign --kills 50 --workers

Instances arrive all the time. The bridge (or, with ``--workers``, one of its workers) is killed at
a moment that the seed chooses, and started again. After each death: the checkpoint has passed
nothing that the target does not hold, and never went back. At the end the target has seen every
instance exactly once and nothing is parked. Prints the seed and the figures; exit code 1 when a
promise is broken. The seed repeats the plan, not the scheduling of the machine.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import RLELossless

from bridge.ledger import Ledger
from bridge.sandbox import OrthancServer
from tests.bridge_process import BridgeProcess, is_alive
from tests.dicom_samples import small_ct, small_ct_dataset
from tests.fault_bench import FOLLOWING_ONLY, Bench

SIZE = 64
PER_LIFE = 4
"""Instances that arrive in each life, so that a kill has something to interrupt."""
LIFE_S_MAX = 2.0
"""A bridge that is killed by the clock lives at most so long: its start takes about one second."""
AFTER_DELIVERY_S_MAX = 0.03
"""One that is killed at work dies within so long of a delivery: settling takes milliseconds."""


class Broken(Exception):
    """A guarantee does not hold."""


@dataclass(slots=True)
class Figures:
    """What a campaign did."""

    seed: int
    kills: int = 0
    at_start: int = 0
    at_work: int = 0
    instances: int = 0
    repeated: int = 0
    seconds: float = 0.0
    checkpoints: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.kills} kills ({self.at_start} by the clock, {self.at_work} "
            f"at work), {self.instances} instances, each in the target once; {self.repeated} were "
            f"sent again and were already there; {self.seconds:.0f} s"
        )


def campaign(*, kills: int, seed: int, home: Path, workers: bool = False) -> Figures:
    """Kill ``kills`` times and check after each; raises Broken."""
    figures = Figures(seed)
    begun_s = time.monotonic()
    chance = random.Random(seed)
    with (
        OrthancServer("source", home / "source", config=FOLLOWING_ONLY) as source,
        OrthancServer("target", home / "target", config=FOLLOWING_ONLY) as target,
        Bench(source.url, target.url, home) as bench,
    ):
        files = _files(chance)
        sent = [bench.send(next(files)) for _ in range(PER_LIFE)]
        end_lives = _kill_workers if workers else _kill_bridges
        for _ in end_lives(bench, chance, figures, kills):
            sent += [bench.send(next(files)) for _ in range(PER_LIFE)]
            _check(bench, figures)
        figures.instances = len(sent)
        done = bench.run("run", "--once", "--json")
        if done.exit_code != 0:
            raise Broken(f"seed {seed}: the last run ended with {done.exit_code}: {done.stderr}")
        figures.repeated += done.json["already_there"]
        _check(bench, figures)
        _check_end(bench, sent)
    figures.seconds = time.monotonic() - begun_s
    return figures


def _kill_bridges(
    bench: Bench, chance: random.Random, figures: Figures, kills: int
) -> Iterator[None]:
    """Start a bridge and kill it, so many times; yields after each death."""
    for _ in range(kills):
        bridge = bench.start("run")
        if chance.random() < 0.3:
            figures.at_start += 1
            threading.Event().wait(chance.uniform(0, LIFE_S_MAX))
        else:
            figures.at_work += 1
            bridge.wait_logged("instance_delivered", chance.randint(1, PER_LIFE))
            threading.Event().wait(chance.uniform(0, AFTER_DELIVERY_S_MAX))
        workers = bridge.workers()
        bridge.kill()
        figures.kills += 1
        for pid in workers:
            _await_death(pid)
        figures.repeated += _repeated(bridge)
        yield


def _kill_workers(
    bench: Bench, chance: random.Random, figures: Figures, kills: int
) -> Iterator[None]:
    """Kill a worker of one bridge, so many times; yields before each."""
    bridge = bench.start("run")
    for _ in range(kills):
        delivered = len(bridge.logged("instance_delivered"))
        yield
        bridge.wait_logged("instance_delivered", delivered + chance.randint(1, PER_LIFE))
        threading.Event().wait(chance.uniform(0, AFTER_DELIVERY_S_MAX))
        os.kill(chance.choice(bridge.workers()), signal.SIGKILL)
        figures.kills += 1
        figures.at_work += 1
    bench.await_settled(bridge)
    bridge.kill()
    figures.repeated += _repeated(bridge)


def _repeated(bridge: BridgeProcess) -> int:
    """How many instances this bridge sent that the target had already."""
    return len(bridge.logged("instance_delivered", status="AlreadyStored"))


def _check(bench: Bench, figures: Figures) -> None:
    """The ledger claims nothing that is not so."""
    if not bench.state_path.exists():
        return  # killed before it had one
    with Ledger(bench.state_path, create=False) as ledger:
        checkpoint = ledger.checkpoint() or 0
        settled = set(ledger.settled_above())
        parked = ledger.parked_by_reason()
    # The target is asked after the ledger: what it holds now it may have got since, but what the
    # ledger said then must be there.
    held = bench.held()
    rows = bench.source.changes(0, 100_000).changes
    for row in rows:
        claimed = row.sequence <= checkpoint or row.sequence in settled
        if row.change_type == "NewInstance" and claimed and row.resource_id not in held:
            raise Broken(f"seed {figures.seed}: change {row.sequence} is settled, not delivered")
    if parked:
        raise Broken(f"seed {figures.seed}: parked {parked}")
    if figures.checkpoints and checkpoint < figures.checkpoints[-1]:
        raise Broken(f"seed {figures.seed}: the checkpoint went back to {checkpoint}")
    figures.checkpoints.append(checkpoint)


def _check_end(bench: Bench, sent: list[str]) -> None:
    if sorted(bench.arrivals()) != sorted(sent):
        raise Broken("the target has not seen every instance exactly once")
    if bench.checkpoint() != bench.last():
        raise Broken("the checkpoint is not at the end of the feed")
    bench.assert_untouched()


def _files(chance: random.Random) -> Iterator[bytes]:
    """Yield instances, half of them RLE: those must be decoded."""
    while True:
        seed = chance.randrange(2**32)
        if seed % 2:
            yield small_ct(rows=SIZE, columns=SIZE, seed=seed)
            continue
        dataset = small_ct_dataset(rows=SIZE, columns=SIZE, seed=seed)
        dataset.compress(RLELossless, generate_instance_uid=False)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


def _await_death(pid: int) -> None:
    """Workers follow their bridge: one that goes on would work beside the next bridge."""
    until_s = time.monotonic() + 10.0
    while is_alive(pid):
        if time.monotonic() > until_s:
            raise Broken(f"worker {pid} outlived its bridge")
        threading.Event().wait(0.005)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", action="store_true", help="kill workers, not the bridge")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="crash-campaign-") as home:
        try:
            figures = campaign(
                kills=chosen.kills, seed=seed, home=Path(home), workers=chosen.workers
            )
        except Broken as broken:
            print(f"BROKEN: {broken}", file=sys.stderr)  # noqa: T201
            return 1
    print(figures)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
