"""Commands believe nothing of a source that is away for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.core.errors import FeedWentBackwards
from bridge.core.model import Move, Page, Reason, SideName
from bridge.entry import Entry, Parked
from bridge.ledger import Ledger
from bridge.service import Service
from tests.simulation.bench import SimulatedClient, SimulatedMachinery, settings_for
from tests.simulation.world import Nature, Row, World


def calm_world(*instances: str) -> World:
    """A source that holds these, each with one row, and where nothing else happens."""
    world = World(1)
    world._events.clear()
    world.become_calm()
    world.rows = [Row(n, "NewInstance", i, world.now, str(n)) for n, i in enumerate(instances, 1)]
    world.counter = len(instances)
    world.held = dict.fromkeys(instances, Nature.PLAIN)
    world.natures = dict(world.held)
    return world


def test_a_parked_instance_stays_parked_while_another_source_answers(tmp_path: Path) -> None:
    world = calm_world("i0")
    move = Move("i0", 1, "1")
    parked = Parked(move, Reason.UNDECODABLE, "simulated", 3, 1.0, 1.0)
    settings = settings_for("stop")
    machinery = SimulatedMachinery(world)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(checkpoint=1, recent=((1, "i0"),), parked=(parked,), newest_date="1"))
        with Service(settings, (), bounded=True, machinery=machinery) as service:
            service.check_history(ledger)
            world.away = True
            with pytest.raises(FeedWentBackwards):
                service.retry(ledger, [move])
            assert ledger.parked_one("i0") is not None
        world.away = False
        with Service(settings, (), bounded=True, machinery=machinery) as service:
            service.retry(ledger, [move])
        assert ledger.parked_one("i0") is None
        assert "i0" in world.target


def test_once_does_not_end_where_another_source_ended(tmp_path: Path) -> None:
    """It was asked for its newest row while it was away, and for everything else after that."""
    world = calm_world("i0", "i1")
    world.target = {"i0": 1}
    machinery = SimulatedMachinery(world)
    asked: list[SideName] = []

    class Client(SimulatedClient):
        def last_change(self) -> Page:
            world.away = not asked
            asked.append(self._side)
            answer = super().last_change()
            world.away = False
            return answer

    machinery.client = lambda side: Client(world, side)  # type: ignore[method-assign]
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(checkpoint=1, recent=((1, "i0"),), newest_date="1"))
        with Service(settings_for("stop"), (), bounded=True, machinery=machinery) as service:
            service.follow(ledger, once=True)
        assert ledger.checkpoint() == 2
    assert "i1" in world.target
