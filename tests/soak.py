"""A long run under steady load with random faults; prints the figures, exit code 1 if they grow.

    python -m tests.soak --minutes 10 --rate 8 --seed 1

Two real Orthancs and a real bridge process. New instances of several syntaxes go into the source
at a given rate; meanwhile the target is killed or restarted, the source suspended, a worker
killed, connections are reset and answers lost. At the end every instance is in the target exactly
once, nothing is parked, and memory, file descriptors, threads and the ledger are as large in the
last third of the time as in the first.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import imagecodecs
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.store import Ledger
from bridge.model import Endpoint, SideName
from bridge.orthanc import OrthancClient
from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.fault_proxy import Direction, DropAnswer, FaultProxy, Reset
from tests.soak_figures import Sample, growth, look, table

SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    JPEGLSLossless,
)
CONFIG = {"StableAge": 600, "HttpThreadsCount": 16}
OUTAGE_S = 1.5
SETTLE_S = 120.0


class Soak:
    """Two servers, a proxy, a bridge, and what is known of them. A context manager."""

    def __init__(self, home: Path, *, seed: int, workers: int) -> None:
        self._chance = random.Random(seed)
        self._stack = ExitStack()
        self._pause = threading.Event()
        self.sent: set[str] = set()
        self.faults: dict[str, int] = {}
        self.samples: list[Sample] = []
        self._templates = [_template(syntax) for syntax in SYNTAXES]
        self.state_path = home / "state" / "bridge.sqlite3"
        self.source_server, self.target_server = (
            self._stack.enter_context(OrthancServer(name, home / name, config=CONFIG))
            for name in ("source", "target")
        )
        self.proxy = self._stack.enter_context(FaultProxy(self.target_server.http_port))
        self.source, self.target = (
            self._stack.enter_context(OrthancClient(Endpoint(side, server.url), Credentials()))
            for side, server in zip(SideName, (self.source_server, self.target_server), strict=True)
        )
        settings = {
            "BRIDGE_SOURCE_URL": self.source_server.url,
            "BRIDGE_TARGET_URL": self.proxy.url,
            "BRIDGE_STATE_PATH": str(self.state_path),
            "BRIDGE_WORKERS": str(workers),
            "BRIDGE_POLL_INTERVAL_S": "0.2",
            "BRIDGE_HTTP_TIMEOUT_S": "5",
        }
        self.bridge = self._stack.enter_context(BridgeProcess("run", settings=settings, cwd=home))

    def __enter__(self) -> Soak:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def run(self, duration_s: float, *, rate: float) -> None:
        """Warm up, load, disturb and measure for so long, then wait until all is settled."""
        for _ in range(3 * len(SYNTAXES)):
            self.send()
        self.wait_settled()
        began_s = time.monotonic()
        send_s = sample_s = began_s
        fault_every_s = min(15.0, duration_s / 8)
        fault_s = began_s + fault_every_s
        while (now_s := time.monotonic()) < began_s + duration_s:
            if now_s >= send_s:
                self.send()
                send_s += 1 / rate
            if now_s >= sample_s:
                self.sample()
                sample_s += duration_s / 60
            if now_s >= fault_s:
                self.disturb()
                fault_s = time.monotonic() + fault_every_s * self._chance.uniform(0.5, 1.5)
                send_s = sample_s = time.monotonic() + OUTAGE_S
            self._pause.wait(max(0.0, min(send_s, sample_s, fault_s) - time.monotonic()))
        self.proxy.heal()
        self.wait_settled()
        self.sample()

    def send(self) -> None:
        """Put one new instance into the source."""
        dataset = self._chance.choice(self._templates)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        self.sent.add(self.source.store(file_bytes(dataset), deadline_s=30.0).instance_id)

    def disturb(self) -> None:
        """Make one fault, and end it."""
        name, fault = self._chance.choice(FAULTS)
        self.faults[name] = self.faults.get(name, 0) + 1
        fault(self)

    def pause(self, seconds: float) -> None:
        """Let a fault last."""
        self._pause.wait(seconds)

    def kill_a_worker(self) -> None:
        """SIGKILL to one worker, if there is one at this moment."""
        workers = self.bridge.workers()
        if workers:
            _kill(self._chance.choice(workers))

    def wait_settled(self) -> None:
        """Wait until the checkpoint is the end of the feed."""

        def settled() -> bool:
            if not self.state_path.exists():
                return False
            last = self.source.last_change().last
            with Ledger(self.state_path, create=False) as ledger:
                return ledger.checkpoint() == last

        wait_until(settled, "everything is settled", timeout_s=SETTLE_S)

    def sample(self) -> None:
        """Look at the processes and the files."""
        self.samples.append(look(self.bridge, self.state_path))

    def complaints(self) -> list[str]:
        """List what is not as it must be at the end. Empty when all is well."""
        found = []
        page = self.target.changes(0, 1_000_000)
        arrived = [row.resource_id for row in page.changes if row.change_type == "NewInstance"]
        if missing := self.sent - set(arrived):
            found.append(f"{len(missing)} of {len(self.sent)} instances have not arrived")
        if len(arrived) != len(set(arrived)):
            found.append(f"{len(arrived) - len(set(arrived))} instances arrived more than once")
        with Ledger(self.state_path, create=False) as ledger:
            if parked := ledger.parked_by_reason():
                found.append(f"parked: {parked}")
        found += growth(self.samples)
        # One line for each instance; the rest tells of faults and must not flood.
        other = self.samples[-1].log_lines - self.samples[-1].delivered
        allowed = 100 + 60 * sum(self.faults.values())
        if other > allowed:
            found.append(f"{other} log lines beside the deliveries, {allowed} are enough")
        if "Traceback" in self.bridge.stderr:
            found.append("a traceback in the log")
        return found

    def report(self) -> str:
        """Write the figures."""
        end = self.samples[-1]
        faults = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{table(self.samples)}\n"
            f"{'sent':24}{len(self.sent):>14}\n"
            f"{'deliveries, log lines':24}{end.delivered:>14}{end.log_lines:>14}\n"
            f"faults: {faults or 'none'}"
        )


def _target_killed(soak: Soak) -> None:
    soak.target_server.kill()
    soak.pause(OUTAGE_S)
    soak.target_server.start()


def _target_restarted(soak: Soak) -> None:
    soak.target_server.restart()


def _source_suspended(soak: Soak) -> None:
    soak.source_server.suspend()
    soak.pause(OUTAGE_S)
    soak.source_server.resume()


FAULTS: tuple[tuple[str, Callable[[Soak], None]], ...] = (
    ("target killed", _target_killed),
    ("target restarted", _target_restarted),
    ("source suspended", _source_suspended),
    ("worker killed", Soak.kill_a_worker),
    ("uploads reset", lambda soak: soak.proxy.strike(Reset(Direction.UP, 2000), times=3)),
    ("answers reset", lambda soak: soak.proxy.strike(Reset(Direction.DOWN, 20), times=3)),
    ("answers lost", lambda soak: soak.proxy.strike(DropAnswer(), times=3)),
    ("connections broken", lambda soak: soak.proxy.break_connections()),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=8.0, help="new instances a second")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; printed")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(arguments)
    seed = random.randrange(10**6) if chosen.seed is None else chosen.seed
    print(f"{chosen.minutes:g} minutes, {chosen.rate:g} instances a second, seed {seed}")  # noqa: T201
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as home,
        Soak(Path(home), seed=seed, workers=chosen.workers) as soak,
    ):
        soak.run(chosen.minutes * 60, rate=chosen.rate)
        complaints = soak.complaints()
        print(soak.report())  # noqa: T201
    for complaint in complaints:
        print(f"NOT WELL: {complaint}")  # noqa: T201
    if not complaints:
        print("All arrived exactly once, nothing is parked, the figures are flat.")  # noqa: T201
    return 1 if complaints else 0


def _template(syntax: UID) -> Dataset:
    dataset = small_ct_dataset(rows=64, columns=64)
    if syntax == JPEGLSLossless:  # pydicom has an encoder for it only with another package
        frame = bytes(imagecodecs.jpegls_encode(dataset.pixel_array))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    elif syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _kill(pid: int) -> None:

    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has just ended by itself


if __name__ == "__main__":
    sys.exit(main())
