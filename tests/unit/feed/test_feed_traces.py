"""The feeds that are not in order are what they say: the model, the recordings, and the answers."""

from __future__ import annotations

import random

import pytest

from tests.feed_traces import (
    NEW_INSTANCE,
    Habits,
    Trace,
    TracedStore,
    TracedTarget,
    any_habits,
    identity_is_as_computed,
    instance_of,
    model_trace,
    read_trace,
)
from tests.shared_samples import TRACES

RECORDED = {
    # file: (instances, sequences that never appear, late rows, late by at most)
    "bursts.tsv.gz": (1200, 0, 311, 31),
    "four-orthancs-200-writers.tsv.gz": (5000, 284, 3636, 3104),
    "one-orthanc-50-writers.tsv.gz": (3000, 0, 2134, 707),
}


class Moment:
    """A clock that stands."""

    def __init__(self) -> None:
        self.ms = 0.0

    def __call__(self) -> float:
        return self.ms


@pytest.mark.traces
@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_is_read_as_its_head_describes_it(name: str) -> None:
    trace = read_trace(TRACES / name)
    late = trace.late_by()
    assert (len(trace.instances), trace.gaps, len(late), max(late)) == RECORDED[name]
    assert trace.counter_below_newest() > 0
    assert trace.newest[-1][1] == trace.counters[-1][1] == max(row.seq for _, row in trace.rows)


@pytest.mark.parametrize("seed", range(8))
def test_the_model_is_never_in_order_and_loses_no_instance(seed: int) -> None:
    habits = any_habits(random.Random(seed), instances=100)
    trace = model_trace(seed, habits)
    assert len(set(trace.instances)) == len(trace.instances) == 100
    assert len({row.seq for _, row in trace.rows}) == len(trace.rows)
    assert [ms for ms, _ in trace.rows] == sorted(ms for ms, _ in trace.rows)
    assert trace.late_by()
    assert (trace.gaps > 0) == (habits.aborts > 0)
    assert trace.counter_below_newest() > 0
    assert model_trace(seed, habits) == trace


def test_a_writer_that_waits_longest_is_as_late_as_the_recordings() -> None:
    trace = model_trace(1, Habits(instances=2000, writers=200, unfair=0.3, aborts=0.04))
    assert max(trace.late_by()) > 500


def test_the_answers_are_those_of_the_recording_at_every_moment() -> None:
    trace = model_trace(3, Habits(instances=60))
    clock = Moment()
    store = TracedStore(trace, clock)
    assert store.page(0, 10) == ([], True, 0)
    for ms in sorted({ms for ms, _ in trace.rows} | {ms for ms, _ in trace.counters}):
        clock.ms = ms
        visible = sorted((row for at, row in trace.rows if at <= ms), key=lambda row: row.seq)
        counter = [value for at, value in trace.counters if at <= ms][-1]
        assert store.page(0, 10_000) == (visible, True, visible[-1].seq)
        assert store.page(10**6, 10) == ([], True, counter)
        assert store.last() == (visible[-1], visible[-1].seq)
        middle = visible[len(visible) // 2].seq
        ours = [row for row in visible if row.change_type == NEW_INSTANCE and row.seq > middle]
        types = frozenset({NEW_INSTANCE})
        assert store.page(middle, 10_000, types=types)[0] == ours
        rows, done, _ = store.page(0, 5, to=middle)
        below = [row for row in visible if row.seq <= middle]
        assert rows == below[:5]
        assert done == (len(below) <= 5)
        assert set(store.instances) == {
            row.resource_id for row in visible if row.change_type == NEW_INSTANCE
        }
    assert not store.is_over()
    clock.ms += 1
    assert store.is_over()
    assert store.listing() == sorted(trace.instances)


def test_what_last_said_is_told_even_when_the_page_was_seen_later() -> None:
    row = model_trace(1, Habits(instances=1)).rows[0][1]
    clock = Moment()
    store = TracedStore(Trace(((20.0, row),), ((10.0, row.seq),), ((10.0, row.seq),)), clock)
    clock.ms = 15.0
    assert store.page(0, 10) == ([], True, row.seq)
    clock.ms = 25.0
    assert store.last() == (row, row.seq)


def test_deleted_and_emptied() -> None:
    trace = model_trace(5, Habits(instances=40))
    clock = Moment()
    store = TracedStore(trace, clock)
    clock.ms = trace.end_ms / 2
    first, second = list(store.instances)[:2]
    assert store.delete(first)
    assert first not in {row.resource_id for row in store.page(0, 10_000)[0]}
    assert second in {row.resource_id for row in store.page(0, 10_000)[0]}
    store.clear_changes()
    assert store.page(0, 10_000)[0] == []
    clock.ms = trace.end_ms
    assert store.page(0, 10_000)[0] != []
    assert first not in store.instances
    assert len(store.instances) == 39


def test_instances_have_the_identifiers_that_their_files_make() -> None:
    trace = model_trace(6, Habits(instances=20))
    target = TracedTarget(trace)
    for number, instance_id in enumerate(trace.instances):
        assert identity_is_as_computed(instance_id)
        assert target.put(instance_of(str(number)).data)[1] == "Success"
    assert target.put(instance_of("0").data)[1] == "AlreadyStored"
    assert sorted(target.arrivals) == sorted(trace.instances)


def test_faster_is_the_same_in_less_time() -> None:
    trace = model_trace(7, Habits(instances=20))
    assert trace.faster(10).end_ms == pytest.approx(trace.end_ms / 10)
    assert [row for _, row in trace.faster(10).rows] == [row for _, row in trace.rows]
