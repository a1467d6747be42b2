"""Commands believe nothing of a source that is away for a moment."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import Move, Page, Reason, ServerInfo, SideName
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


@pytest.mark.parametrize("times", [1, 12, 18, 21, 24])
def test_once_does_not_end_where_another_source_ended(tmp_path: Path, times: int) -> None:
    """It was away whenever its newest row was asked for, and there for everything else."""
    world = calm_world("i0", "i1")
    world.target = {"i0": 1}
    machinery = SimulatedMachinery(world)
    asked: list[SideName] = []

    class Client(SimulatedClient):
        def last_change(self) -> Page:
            world.away = len(asked) < times
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


@pytest.mark.parametrize("confirm_s", [0.0, 30.0])
@pytest.mark.parametrize("other", [("x0", "x1"), ("x0", "x1", "x2", "x3"), ("i0", "x1", "x2")])
def test_once_believes_no_end_of_another_source_with_rows_of_its_own(
    tmp_path: Path, other: tuple[str, ...], confirm_s: float
) -> None:
    """It would end with 0 where the other one ends, and leave what is new beyond that.

    A source that answered once as another one is looked at again: it ends well.
    """
    world, elsewhere = calm_world("i0", "i1", "i2", "i3"), calm_world(*other)
    world.target = {"i0": 1, "i1": 1}
    machinery = SimulatedMachinery(world)

    class Client(SimulatedClient):
        def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
            answer = super().changes(since, limit, only_new_instances=only_new_instances)
            self._world = world
            return answer

    machinery.client = lambda side: Client(elsewhere, side)  # type: ignore[method-assign]
    settings = settings_for("stop").model_copy(update={"feed_confirm_s": confirm_s})
    raises = pytest.raises(FeedWentBackwards, match="not the one that was followed: change")
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.restart_at(2, recent=((1, "i0"), (2, "i1")), newest_date="2")
        with (
            Service(settings, (), bounded=True, machinery=machinery) as service,
            nullcontext() if confirm_s else raises,
        ):
            service.follow(ledger, once=True)
        assert ledger.checkpoint() == (4 if confirm_s else 2)
    assert (world.target.keys() >= {"i2", "i3"}) is (confirm_s > 0)


@pytest.mark.parametrize("began_with_gaps", [False, True])
def test_a_state_from_before_gaps_were_recorded_gets_those_below_its_checkpoint(
    tmp_path: Path, began_with_gaps: bool
) -> None:
    """Where rows come late, one may become visible that an older bridge has passed."""
    world = calm_world(*(f"i{n}" for n in range(1, 1001)))
    world.target = dict.fromkeys((i for i in world.held if i != "i3"), 1)
    late = world.rows.pop(2)
    machinery = SimulatedMachinery(world)

    class Client(SimulatedClient):
        def system(self) -> ServerInfo:
            return replace(super().system(), database_backend="simulated PostgreSQL")

    machinery.client = lambda side: Client(world, side)  # type: ignore[method-assign]
    recent = tuple((row.sequence, row.instance) for row in world.rows[-100:])
    settings = settings_for("stop").model_copy(
        update={"recount_interval_s": 0, "command_patience_s": 60.0}
    )
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        if began_with_gaps:
            ledger.restart_at(0)
        ledger.commit(Entry(checkpoint=1000, recent=recent, newest_date="999"))
        world.at(1.0, lambda: world.rows.insert(2, late))
        with Service(settings, (), bounded=True, machinery=machinery) as service:
            service.follow(ledger, once=True)
        assert ledger.checkpoint() == 1000
        assert ledger.open_gaps().gaps == 0
    assert ("i3" in world.target) is not began_with_gaps


def test_a_state_from_before_gaps_were_recorded_is_of_a_feed_that_went_backwards(
    tmp_path: Path,
) -> None:
    world = calm_world("i1", "i2")
    machinery = SimulatedMachinery(world)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(checkpoint=9, recent=((9, "i9"),), newest_date="9"))
        with (
            Service(settings_for("stop"), (), bounded=True, machinery=machinery) as service,
            pytest.raises(FeedWentBackwards, match="ends at 2"),
        ):
            service.follow(ledger, once=True)
