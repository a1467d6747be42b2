"""A long backlog from a scripted feed: what the bridge itself costs, without servers or codecs."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bridge.config import load_settings
from bridge.events import Event, Progress, Workforce
from bridge.ledger.store import Ledger
from bridge.model import (
    Action,
    Change,
    Delivered,
    Outcome,
    Page,
    ServerInfo,
    SideName,
    StageTimes,
    Task,
)
from bridge.pipeline.runtime import (
    Background,
    Clock,
    Inbox,
    QueueInbox,
    SystemClock,
    ThreadBackground,
)
from bridge.service import Service
from bridge.wiring import Client, ClosableExecutor
from tests.no_custody import NoCustody

ROWS_PER_INSTANCE = 4
DONE = Delivered(
    "Success", Action.TRANSCODED, "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1", "1.2.3",
    180_000, 530_000, StageTimes(0.001, 0.028, 0.006, 0.0),
)  # fmt: skip


class ScriptedClient(NoCustody):
    """A feed that is computed, not stored: the test's own memory stays flat."""

    def __init__(self, instances: int, side: SideName) -> None:
        self._last = instances * ROWS_PER_INSTANCE
        self._side = side

    def probe(self) -> ServerInfo:
        return self.system()

    def system(self) -> ServerInfo:
        return ServerInfo("scripted", 1, has_extended_changes=False)

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        assert not only_new_instances
        end = min(since + limit, self._last)
        rows = tuple(
            Change(
                sequence,
                "NewInstance" if sequence % ROWS_PER_INSTANCE == 1 else "NewSeries",
                f"{sequence:08x}-5b0ad3a6-1b7e8a5c-5f0a9a3e-0d6f7c11",
                "20260101T000000",
            )
            for sequence in range(since + 1, end + 1)
        )
        return Page(rows, end == self._last, end)

    def last_change(self) -> Page:
        return Page((), True, self._last if self._side is SideName.SOURCE else 0)

    def list_instances(self, since: int, limit: int) -> list[str]:
        raise NotImplementedError((since, limit))

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:  # noqa: ARG002
        return None

    def has_instance(self, instance_id: str) -> bool:
        raise NotImplementedError(instance_id)

    def count_instances(self) -> int:
        return -(-self._last // ROWS_PER_INSTANCE)

    def serves_whole_file(self, instance_id: str, *, with_metadata: bool = False) -> bool:
        raise NotImplementedError(instance_id)

    def close(self) -> None:
        pass


class InstantExecutor:
    def __init__(self, done: Callable[[Task, Outcome], None]) -> None:
        self._done = done

    def submit(self, task: Task) -> None:
        self._done(task, DONE)

    def workforce(self) -> Workforce:
        return Workforce(threads=8, workers=8)

    def close(self) -> None:
        pass


class ScriptedMachinery:
    def __init__(self, instances: int) -> None:
        self.clock: Clock = SystemClock()
        self._instances = instances

    def client(self, side: SideName) -> Client:
        return ScriptedClient(self._instances, side)

    def inbox(self) -> Inbox:
        return QueueInbox()

    def background(self, inbox: Inbox) -> Background:
        return ThreadBackground(inbox)

    def beside(self, name: str, work: Callable[[], None]) -> None:
        """Do nothing: its servers take no notes."""

    def executor(self, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
        return InstantExecutor(done)

    def chance(self) -> float:
        return 0.5


class Samples:
    """Resident memory now and then, by how many instances are done."""

    def __init__(self) -> None:
        self.settled = 0
        self.memory_bytes: list[int] = []
        self._next = 0

    def on_event(self, event: Event) -> None:
        self.settled += type(event).__name__ == "Settled"

    def on_progress(self, _progress: Progress) -> None:
        if self.settled >= self._next:
            self._next += 5_000
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self.memory_bytes.append(pages * resource.getpagesize())


def run_backlog(
    instances: int, state_path: Path, machinery: ScriptedMachinery | None = None
) -> tuple[Samples, float]:
    """Follow a scripted feed to its end; return what was seen and instances per second."""
    settings = load_settings(
        source_url="http://source.invalid",
        target_url="http://target.invalid",
        state_path=state_path,
        workers=2,
    )
    samples = Samples()
    begun_s = time.monotonic()
    with (
        Ledger(state_path, follow=True) as ledger,
        Service(
            settings,
            (samples,),
            bounded=True,
            machinery=machinery or ScriptedMachinery(instances),
        ) as service,
    ):
        summary = service.follow(ledger, once=True)
        assert summary.delivered == instances
        assert ledger.checkpoint() == instances * ROWS_PER_INSTANCE
        assert ledger.settled_above() == []
        assert len(ledger.recent()) <= 4 * settings.feed_overlap
    return samples, instances / (time.monotonic() - begun_s)


@pytest.mark.timeout(300)
def test_a_long_backlog_costs_no_memory_and_no_disk(tmp_path: Path) -> None:
    samples, _ = run_backlog(50_000, tmp_path / "ledger.sqlite3")
    early, late = samples.memory_bytes[1], samples.memory_bytes[-1]
    assert late - early < 16 * 1024 * 1024
    ledger_bytes = sum(file.stat().st_size for file in tmp_path.glob("ledger.sqlite3*"))
    assert ledger_bytes < 12 * 1024 * 1024
