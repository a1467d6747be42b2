"""A retry by hand believes nothing of a source that is away for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.core.errors import FeedWentBackwards
from bridge.core.model import Move, Reason
from bridge.ledger import Entry, Ledger, Parked
from bridge.service import Service
from tests.simulation.bench import SimulatedMachinery, settings_for
from tests.simulation.world import Nature, Row, World


def test_a_parked_instance_stays_parked_while_another_source_answers(tmp_path: Path) -> None:
    world = World(1)
    world._events.clear()
    world.become_calm()
    world.counter, world.rows = 1, [Row(1, "NewInstance", "i0", world.now, "1")]
    world.held["i0"] = world.natures["i0"] = Nature.PLAIN
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
