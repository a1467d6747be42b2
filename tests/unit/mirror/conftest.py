"""A small world of two servers in which nothing happens by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.events import Event
from bridge.mirror.copy_deletion import CopyDeletion
from bridge.mirror.repair import Repairer, RepairLimit
from bridge.mirror.verify import Verification
from bridge.model import SideName
from tests.simulation.mirror import MirrorAddress, MirrorWorld, Workers, look, named


class Scene:
    """Three delivered instances, and what the bridge reports and asks."""

    def __init__(self, home: Path) -> None:
        (home / "bridge.sqlite3").touch()
        self.world = MirrorWorld(1, home)
        self.world.killed_at = 0
        while len(self.world.source.files) < 3:
            self.world.arrive()
        self.world.deliver()
        self.events: list[Event] = []
        self.recorded = True
        self.awaits_notes = False
        self.sure: Callable[[], None] = lambda: None
        self.source, self.target = (MirrorAddress(side, self.world) for side in SideName)
        self.workers = Workers(self.world)
        self.limit = RepairLimit()
        self.replaces = True

    @property
    def ids(self) -> list[str]:
        return sorted(self.world.source.files)

    def repairer(self) -> Repairer:
        return Repairer(
            self.source,
            self.target,
            self.workers,
            limit=self.limit,
            look_at_feed=self._look,
            replaces=self.replaces,
            recorded=lambda: self.recorded,
            report=self.events.append,
            identify=named,
            now_s=lambda: self.world.now,
        )

    def deletion(self, accepted: frozenset[str] = frozenset()) -> CopyDeletion:
        return CopyDeletion(
            self.source,
            self.target,
            limit=self.limit,
            be_sure=self._look,
            awaits_notes=lambda _ledger, _age: self.awaits_notes,
            accepted=accepted,
            recorded=lambda: self.recorded,
            report=self.events.append,
        )

    def verification(self) -> Verification:
        vars(self.world)["report"] = self.events.append
        return self.world.verification()

    def happened(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def _look(self, ledger: object) -> None:
        self.sure()
        look(self.world.ledger, self.source)
        assert ledger is self.world.ledger


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.world.ledger.close()
