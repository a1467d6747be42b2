"""What a scheduler or a worker says of itself is taken within bounds, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import Outcome, Task
from bridge.untrusted_text import visible
from bridge.worker.dask import scheduler
from bridge.worker.dask.executor import SAID_CHARACTERS_MAX, DaskExecutor

TOLD = {
    "name": "w",
    "local_directory": "/w",
    "nthreads": 2,
    "last_seen": 5.0,
    "status": "running",
}
ANY: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.sampled_from([-1, 0, 2**63, 10**400, float("nan"), float("inf"), True])
    | st.sampled_from(["", "1e400", "\x1b[2J", "\ud800", "9" * 5_000, "x" * 70_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_a_worker() -> None:
    seen = scheduler._seen("tcp://w:1", TOLD)
    assert seen is not None
    assert (seen.threads, seen.heartbeat, seen.running) == (2, 5.0, True)


@given(ANY, st.sampled_from(sorted(TOLD)), ANY)
def test_any_worker(address: object, name: str, value: object) -> None:
    assert scheduler._seen(address, value) is None or isinstance(value, dict)
    seen = scheduler._seen("tcp://w:1", TOLD | {name: value})
    if seen is not None:
        assert 1 <= seen.threads <= scheduler.THREADS_MAX
        assert seen.identity == visible(seen.identity)
        assert len(seen.identity) < 20_000
        float(seen.heartbeat)


def test_an_address_is_no_longer_than_a_name_of_the_network_may_be() -> None:
    longest = "tls://" + "h" * 253 + ":65535"
    assert len(longest) == scheduler.ADDRESS_CHARACTERS_MAX
    assert scheduler._seen(longest, TOLD) is not None
    assert scheduler._seen(longest + "0", TOLD) is None
    assert scheduler._seen("tcp://w:1", TOLD | {"nthreads": scheduler.THREADS_MAX}) is not None


@pytest.mark.parametrize("threads", [0, -1, scheduler.THREADS_MAX + 1, float("nan"), "x", None])
def test_a_number_of_threads_that_is_none(threads: object) -> None:
    assert scheduler._seen("tcp://w:1", TOLD | {"nthreads": threads}) is None


@pytest.mark.parametrize("heartbeat", [float("nan"), float("inf"), "x", None])
def test_a_heartbeat_that_is_none(heartbeat: object) -> None:
    assert scheduler._seen("tcp://w:1", TOLD | {"last_seen": heartbeat}) is None


@given(ANY)
def test_any_event(value: object) -> None:
    ended: list[tuple[Task, Outcome]] = []
    executor = DaskExecutor(lambda t, o: ended.append((t, o)), address="tcp://s:1", tls=None)
    for said in (
        value,
        {"build": value, "address": value, "identity": value},
        {"number": value, "outcome": value},
        {"number": value, "outcome": {"kind": value}},
    ):
        executor._hear(json.dumps(said))
        executor._hear(said)
        while not executor._inbox.empty():
            executor._handle(executor._inbox.get())
    assert ended == []


@pytest.mark.parametrize(("size", "kept"), [(SAID_CHARACTERS_MAX, 1), (SAID_CHARACTERS_MAX + 1, 0)])
def test_a_long_event_is_not_kept(size: int, kept: int) -> None:
    executor = DaskExecutor(lambda _t, _o: None, address="tcp://s:1", tls=None)
    executor._hear("x" * size)
    assert executor._inbox.qsize() == kept
