"""SIGKILL at random moments, again and again, between two real Orthancs (G1, G2).

    python -m tests.crash_campaign --kills 200 --seed 7
    python -m tests.crash_campaign --kills 50 --workers
    python -m tests.crash_campaign --kills 40 --sweeps

Instances arrive all the time. The bridge (or, with ``--workers``, one of its workers) is killed at
a moment that the seed chooses, and started again. After each death: the checkpoint has passed
nothing that the target does not hold, and never went back. At the end the target has seen every
instance exactly once and nothing is parked. With ``--sweeps`` the bridge also deletes at the source
and dies there: after each death each instance is at the source or at the target, at the end with
the bytes that were sent, no mark and no held file is left, and each deletion is on record.

Prints the seed and the figures; exit code 1 when a promise is broken. The seed repeats the plan,
not the scheduling of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import RLELossless

from bridge.checks.audit_reader import read_lines
from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.store import Ledger
from bridge.marks import PROBE_PEER, marks_on_record
from bridge.retention.held_deletion import AWAITED_FROM, FATE_S, UNVERIFIED_KEY, held_path
from tests.bridge_process import BridgeProcess, is_alive, wait_until
from tests.dicom_samples import small_ct, small_ct_dataset
from tests.fault_bench import FOLLOWING_ONLY, Bench

SIZE = 64
PER_LIFE = 4
"""Instances that arrive in each life, so that a kill has something to interrupt."""
LIFE_S_MAX = 2.0
"""A bridge that is killed by the clock lives at most so long: its start takes about one second."""
AFTER_DELIVERY_S_MAX = 0.03
"""One that is killed at work dies within so long of a delivery: settling takes milliseconds."""


PER_SWEEP = 6
"""Instances that arrive in each life of a bridge that deletes."""


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
    deleted: int = 0
    unanswered: int = 0
    """Deaths at a first deletion that was not verified yet."""
    on_record_only: int = 0
    """Deletions on record that the kill has prevented."""
    marks: int = 0
    """Deaths that left a mark on record."""
    seconds: float = 0.0
    checkpoints: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        if self.deleted:
            return (
                f"seed {self.seed}: {self.kills} kills of sweeps ({self.at_start} by the clock), "
                f"{self.unanswered} at a first deletion, {self.marks} with a mark set, "
                f"{self.on_record_only} between record and deletion; {self.deleted} instances "
                f"deleted at the source and whole at the target; {self.seconds:.0f} s"
            )
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


def sweeps(*, kills: int, seed: int, home: Path) -> Figures:
    """Kill a bridge that deletes, ``kills`` times at work, and check after each; raises Broken."""
    figures = Figures(seed)
    begun_s = time.monotonic()
    chance = random.Random(seed)
    audit = home / "audit.jsonl"
    deleting = {"SOURCE_RETENTION": "0s", "AUDIT_PATH": str(audit)}
    with (
        OrthancServer("source", home / "source", config=FOLLOWING_ONLY) as source,
        OrthancServer("target", home / "target", config=FOLLOWING_ONLY) as target,
        Bench(source.url, target.url, home) as bench,
    ):
        sent: dict[str, bytes] = {}
        for _ in range(kills):
            for _ in range(PER_SWEEP):
                data = small_ct(rows=SIZE, columns=SIZE, seed=chance.randrange(2**32))
                sent[bench.send(data)] = data
            enough = len(_deletions(audit)) + chance.randint(1, PER_SWEEP - 1)
            bridge = bench.start("run", **deleting)
            if chance.random() < 0.3:
                figures.at_start += 1
                threading.Event().wait(chance.uniform(0, LIFE_S_MAX))
            else:
                figures.at_work += 1
                wait_until(lambda enough=enough: len(_deletions(audit)) >= enough, "it", 120.0)  # type: ignore[misc]
                threading.Event().wait(chance.uniform(0, AFTER_DELIVERY_S_MAX))
            bridge.kill()
            figures.kills += 1
            lost = sent.keys() - set(bench.source.list_instances(0, 100_000)) - bench.held()
            if lost:
                raise Broken(f"seed {seed}: {sorted(lost)} are nowhere")
            _pass_time(bench, figures)
        done = bench.run("run", "--once", **deleting)
        if done.exit_code != 0:
            raise Broken(f"seed {seed}: the last run ended with {done.exit_code}: {done.stderr}")
        _check_sweeps(bench, audit, sent, figures)
    figures.instances = len(sent)
    figures.seconds = time.monotonic() - begun_s
    return figures


def _pass_time(bench: Bench, figures: Figures) -> None:
    """Let the time pass in which a deletion without an answer is waited for."""
    if not bench.state_path.exists():
        return  # killed before it had one
    with Ledger(bench.state_path, create=False) as ledger:
        figures.marks += bool(marks_on_record(ledger))
        note = ledger.meta(UNVERIFIED_KEY)
        if note is not None:
            figures.unanswered += 1
            waited = json.loads(note) | {AWAITED_FROM: -FATE_S}
            ledger.set_meta(UNVERIFIED_KEY, json.dumps(waited))


def _deletions(audit: Path) -> list[dict[str, object]]:
    """What the audit file says was about to be deleted."""
    lines = read_lines(audit) if audit.exists() else ()
    return [dict(line) for line in lines if line.get("outcome") == "deletes"]


def _check_sweeps(bench: Bench, audit: Path, sent: Mapping[str, bytes], figures: Figures) -> None:
    here, there = set(bench.source.list_instances(0, 100_000)), bench.held()
    if here:
        raise Broken(f"{len(here)} are still at the source")
    if there != sent.keys():
        raise Broken(f"{sorted(sent.keys() ^ there)} are not at the target, or not ours")
    told = _deletions(audit)
    for instance_id, data in sent.items():
        if bench.file(instance_id) != data:
            raise Broken(f"{instance_id} has other bytes")
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        lines = [line for line in told if line["instance"] == instance_id]
        if not lines or any(line["source_md5"] != md5 for line in lines):
            raise Broken(f"the deletion of {instance_id} is not on record as it was")
        if any(name.isdigit() for name in bench.target.instance_metadata(instance_id)):
            raise Broken(f"a mark is left on {instance_id}")
    figures.deleted, figures.on_record_only = len(sent), len(told) - len(sent)
    if figures.on_record_only > figures.kills:
        raise Broken(f"{figures.on_record_only} deletions are on record twice")
    for client in (bench.source, bench.target):
        if any(name.startswith(PROBE_PEER) for name in client.peers()):
            raise Broken("a peer is left")
    with Ledger(bench.state_path, create=False) as ledger:
        if marks_on_record(ledger) or ledger.meta(UNVERIFIED_KEY) or held_path(ledger).exists():
            raise Broken("a mark, a note or a held file is left")


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
    parser.add_argument("--sweeps", action="store_true", help="kill a bridge that deletes")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="crash-campaign-") as home:
        try:
            kills, path = chosen.kills, Path(home)
            if chosen.sweeps:
                figures = sweeps(kills=kills, seed=seed, home=path)
            else:
                figures = campaign(kills=kills, seed=seed, home=path, workers=chosen.workers)
        except Broken as broken:
            print(f"BROKEN: {broken}", file=sys.stderr)  # noqa: T201
            return 1
    print(figures)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
