"""Every promise, with a source whose feed is not in order: its index is in PostgreSQL.

Modelled traces, each from its seed, and the recordings of real ones (tests/feed_traces.py). Time is
a number, so a recording is replayed at its speed and ten times as fast in seconds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bridge.config import Settings
from bridge.errors import FeedWentBackwards
from bridge.feed import identity
from bridge.feed.follow import FollowFeed
from bridge.feed.gaps import GapLimits, Gaps
from bridge.feed.pages import EndClient, MovePage
from bridge.ledger.store import Ledger
from bridge.model import CounterLag
from tests.feed_traces import Habits, model_trace, read_trace
from tests.shared_samples import TRACES
from tests.simulation.bench import simulate
from tests.simulation.world import Violation, World, traced_world

SEEDS = 100
CHUNK = 25
ARGS = "--database postgresql"

RECORDED = ("bursts.tsv.gz", "four-orthancs-200-writers.tsv.gz", "one-orthanc-50-writers.tsv.gz")

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_holds(first: int, home: Path, settings: dict[str, Settings]) -> None:
    for seed in range(first, first + CHUNK):
        try:
            simulate(seed, home, settings, traced_world)
        except Violation as exc:
            pytest.fail(f"{exc}; run: make simulate FIRST={seed} SEEDS=1 ARGS='{ARGS}'")


@pytest.mark.traces
@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("times", [1, 10])
def test_a_recorded_feed(name: str, times: int, home: Path, settings: dict[str, Settings]) -> None:
    trace = read_trace(TRACES / name).faster(times)
    world = simulate(times, home, settings, partial(World, trace=trace, plain=True))
    assert set(trace.instances) == set(world.target)


MUTANT_SEEDS = 100
"""Each deliberate fault must show within so many schedules: the even seeds, without recounts.

Two that schedules meet only now and then are planted in tests/unit/feed/test_feed_gaps.py: a late
row that is no longer on record before it is settled, and a command that waits for no gap.
"""


def _notices(home: Path, settings: dict[str, Settings]) -> bool:
    for seed in range(0, 2 * MUTANT_SEEDS, 2):
        try:
            simulate(seed, home, settings, traced_world)
        except Violation:
            return True
    return False


def test_it_notices_gaps_that_nobody_notes(
    home: Path, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gaps, "note", lambda *_, **__: None)
    assert _notices(home, settings)


def test_it_notices_gaps_that_nobody_asks_for(
    home: Path, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gaps, "look", lambda *_: None)
    monkeypatch.setattr(Gaps, "due_s", lambda *_: None)
    monkeypatch.setattr(Gaps, "waits", lambda *_: False)
    assert _notices(home, settings)


def test_it_notices_gaps_that_are_forgotten_at_a_restart(
    home: Path, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "gaps", lambda _: ())
    assert _notices(home, settings)


def test_it_notices_gaps_that_are_given_up_too_early(
    home: Path, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one second: most late rows are visible by then."""
    early = GapLimits(age_s=1.0, patience_s=1.0)
    monkeypatch.setattr(Settings, "gap_limits", lambda *_, **__: early)
    assert _notices(home, settings)


def test_it_notices_a_counter_that_is_believed(
    home: Path, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def believe(
        _client: EndClient, counter: int, *, position: int, lag: CounterLag | None = None
    ) -> CounterLag | None:
        if counter < position:
            raise FeedWentBackwards(f"The source's feed ends at {counter}.", advice="")
        return lag

    monkeypatch.setattr(identity, "check_counter", believe)
    assert _notices(home, settings)


ORDERLY = Habits(instances=30, writers=10, aborts=0.0, held=0.1, held_ms=5000.0)


def _tell_nothing_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed passes over every row that is not above all that it has told of before, for ever."""
    whole = FollowFeed.next_page

    known: set[int] = set()

    def in_order_only(self: FollowFeed) -> MovePage:
        page = whole(self)
        highest = max(known, default=0)
        rows = {move.sequence: move for move in page.moves if move.sequence}
        kept = [sequence for sequence in rows if sequence > highest or sequence in known]
        known.update(kept)
        return replace(page, moves=tuple(rows[sequence] for sequence in kept))

    monkeypatch.setattr(FollowFeed, "next_page", in_order_only)


@pytest.mark.parametrize("seed", range(1, 21, 2))
def test_what_the_feed_never_tells_of_is_found_by_a_recount(
    seed: int, home: Path, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    _tell_nothing_late(monkeypatch)
    trace = model_trace(seed, ORDERLY).steady()
    assert trace.late_by()
    world = simulate(seed, home, settings, partial(World, trace=trace, plain=True))
    assert set(trace.instances) == set(world.target)


def test_without_recounts_it_is_lost(
    home: Path, settings: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    _tell_nothing_late(monkeypatch)
    trace = model_trace(2, ORDERLY).steady()
    with pytest.raises(Violation, match="neither in the target nor parked"):
        simulate(2, home, settings, partial(World, trace=trace, plain=True))
