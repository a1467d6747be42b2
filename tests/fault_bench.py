"""A bridge as a process between two addresses, whatever listens there, and what it leaves behind.

    with Bench(source.url, target.url, tmp_path) as bench:
        bridge = bench.start("run", TARGET_URL=proxy.url)
        ...
        bench.await_all(sent)
        bench.assert_untouched()

Faults are made outside: see fault_proxy, fake_orthanc and sandbox. Times are measured, never slept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bridge.credentials import Credentials
from bridge.ledger.records import Attempts, Parked
from bridge.ledger.store import Ledger
from bridge.model import Endpoint, SideName
from bridge.orthanc import OrthancClient
from tests.bridge_process import BridgeProcess, Finished, Line, reasons_in, run_bridge, wait_until
from tests.dicom_samples import small_series

POLL_S = 0.5
RESUME_POLLS = 2
"""Work goes on within so many poll intervals after a server is back."""
OPERATIONS_S = 8.0
"""What starting one task on a busy machine may take beside waiting; pauses would be longer."""
WORKERS_START_S = 20.0
"""The first instance of a bridge also waits for its workers: interpreters, numpy, codecs."""
FOLLOWING_ONLY = {"StableAge": 600}
"""Orthanc options: no Stable* rows during a test, so that the feed is ours alone."""
AT_START = ("monitoring", "phase")
STATE_CHANGES = ("side_down", "side_up", "state_failed", "state_recovered", "feed_reset")


class Bench:
    """A home for the state, clients straight to both servers, and commands between them."""

    def __init__(
        self,
        source_url: str,
        target_url: str,
        home: Path,
        settings: Mapping[str, str] | None = None,
        *,
        login: Credentials | None = None,
    ) -> None:
        self.home = home
        self.state_path = home / "state" / "bridge.sqlite3"
        self.settings = {
            "BRIDGE_SOURCE_URL": source_url,
            "BRIDGE_TARGET_URL": target_url,
            "BRIDGE_STATE_PATH": str(self.state_path),
            "BRIDGE_WORKERS": "2",
            "BRIDGE_POLL_INTERVAL_S": str(POLL_S),
            "BRIDGE_FEED_CONFIRM_S": "0",
            "BRIDGE_RETENTION_TRIAL_S": "0",
            "BRIDGE_HTTP_TIMEOUT_S": "2",
            "BRIDGE_HEALTH_PORT": "0",
        } | _settings(settings or {})
        self._stack = ExitStack()
        self.source = self._client(SideName.SOURCE, source_url, None)
        self.target = self._client(SideName.TARGET, target_url, login)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def start(self, *arguments: str, module: str = "bridge", **settings: str) -> BridgeProcess:
        """Start a command; it is killed at the end. BRIDGE_ is put before the settings' names."""
        process = BridgeProcess(
            *arguments, settings=self.settings | _settings(settings), cwd=self.home, module=module
        )
        return self._stack.enter_context(process)

    def run(self, *arguments: str, **settings: str) -> Finished:
        """Run a command to its end."""
        return run_bridge(*arguments, settings=self.settings | _settings(settings), cwd=self.home)

    def send(self, data: bytes) -> str:
        """Put an instance into the source; its ID."""
        return self.source.store(data, deadline_s=30.0).instance_id

    def send_all(self, files: Iterable[bytes]) -> list[str]:
        """Put instances into the source; their IDs, in order."""
        return [self.send(data) for data in files]

    def file(self, instance_id: str) -> bytes:
        """The file of an instance, as the target has it."""
        received = bytearray()
        self.target.fetch_instance(instance_id, received.extend, deadline_s=30.0)
        return bytes(received)

    def held(self) -> set[str]:
        """The instances that the target holds."""
        return set(self.target.list_instances(0, 100_000))

    def arrivals(self) -> list[str]:
        """What the target's feed says is new, in order, repetitions included."""
        page = self.target.changes(0, 100_000)
        return [c.resource_id for c in page.changes if c.change_type == "NewInstance"]

    def last(self) -> int:
        """The source's last sequence."""
        return self.source.last_change().last

    def await_all(self, sent: Iterable[str], *, timeout_s: float = 30.0) -> None:
        """Wait until the target holds all of them."""
        wanted = set(sent)
        wait_until(lambda: wanted <= self.held(), "all is delivered", timeout_s)

    def await_settled(self, bridge: BridgeProcess, *, but: Iterable[str] = ()) -> Line:
        """Wait until the bridge is well and its checkpoint has reached the end of the feed.

        ``but``: reasons in /health that remain.
        """
        last, remaining = self.last(), list(but)
        return bridge.wait_health(
            lambda said: (
                said["checkpoint"] is not None
                and said["checkpoint"] >= last
                and said["caught_up"]
                and reasons_in(said) == remaining
            ),
            f"the checkpoint at {last}, nothing wrong but {remaining}",
        )

    def checkpoint(self) -> int:
        with Ledger(self.state_path, create=False) as ledger:
            return ledger.checkpoint() or 0

    def parked(self) -> dict[str, Parked]:
        with Ledger(self.state_path, create=False) as ledger:
            return {parked.move.instance_id: parked for parked in ledger.parked()}

    def attempts(self) -> dict[str, Attempts]:
        with Ledger(self.state_path, create=False) as ledger:
            return ledger.attempts()

    def assert_untouched(self) -> None:
        """Nothing is parked and no instance has spent an attempt (G4)."""
        assert self.parked() == {}
        assert self.attempts() == {}

    def assert_delivered_once(self, sent: Iterable[str]) -> None:
        """All that was sent is in the target, and the target saw each of them as new once (G1)."""
        assert sorted(self.arrivals()) == sorted(sent)
        self.assert_untouched()

    def _client(self, side: SideName, url: str, login: Credentials | None) -> OrthancClient:
        credentials = login or Credentials()
        return self._stack.enter_context(OrthancClient(Endpoint(side, url), credentials))


@dataclass(frozen=True, slots=True)
class Outage:
    """What an outage looked like from outside. ``resumed_s``: from recovery to a delivery."""

    code: str
    resumed_s: float


def explanation(bridge: BridgeProcess, code: str) -> str:
    """Wait until /health gives this reason; what it says about it, advice included."""
    said = bridge.wait_reason(code)
    (reason,) = (r for r in said["reasons"] if r["code"] == code)
    return f"{reason['message']} {reason['advice']}"


def send_others_after_a_refusal(bench: Bench, bridge: BridgeProcess) -> list[str]:
    """Have others served after an instance was refused; their IDs.

    Before that nobody can tell that it is about this instance: an outage, unless others of the same
    moment were served after it.
    """
    wait_until(lambda: any(map(bridge.logged, ("side_down", "instance_retried"))), "it is refused")
    others = bench.send_all(small_series(2))
    bench.await_all(others)
    return others


def await_reason(bridge: BridgeProcess, code: str) -> Line:
    """Wait until /health gives this reason, and /readyz too."""
    said = bridge.wait_reason(code)
    bridge.wait_unready(lambda codes: code in codes, f"not ready: {code}")
    return said


def await_delivery_after(bridge: BridgeProcess, before: int, timeout_s: float = 30.0) -> float:
    """Wait for one more delivery than ``before``; returns the seconds that it took."""
    begun_s = time.monotonic()
    bridge.wait_logged("instance_delivered", before + 1, timeout_s)
    return time.monotonic() - begun_s


def delivered_count(bridge: BridgeProcess) -> int:
    """How many deliveries the bridge has logged."""
    return len(bridge.logged("instance_delivered"))


def endure(
    bench: Bench,
    bridge: BridgeProcess,
    code: str,
    recover: Callable[[], object],
    *,
    hang_s: float = 0.0,
) -> Outage:
    """See an outage through: named, nobody blamed, few words; then mend it and see work go on.

    There must be work to do. ``hang_s``: what a request that is hanging when the server comes
    back may still take.
    """
    await_reason(bridge, code)
    bench.assert_untouched()
    before = delivered_count(bridge)
    recover()
    resumed_s = await_delivery_after(bridge, before)
    allowed_s = RESUME_POLLS * float(bench.settings["BRIDGE_POLL_INTERVAL_S"]) + OPERATIONS_S
    if before == 0:
        allowed_s += WORKERS_START_S
    assert resumed_s <= allowed_s + hang_s
    return Outage(code, resumed_s)


def assert_few_words(bridge: BridgeProcess, outages: int) -> None:
    """Beside deliveries, the log holds the state changes of so many outages, and little else."""
    events = [line["event"] for line in bridge.lines() if line["event"] != "instance_delivered"]
    changes = [event for event in events if event in STATE_CHANGES]
    assert len(changes) <= 2 * outages, events
    others = [event for event in events if event not in (*STATE_CHANGES, *AT_START)]
    assert others == [], events


def _settings(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"BRIDGE_{name}": value for name, value in settings.items()}
