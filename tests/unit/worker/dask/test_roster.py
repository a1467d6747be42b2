"""Who gets work on a cluster, how much, and when a worker counts as lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.events import REFUSED_MAX
from bridge.worker.dask.roster import (
    AHEAD_S,
    ASK_AGAIN_S,
    LOAD_MAX,
    LOAD_MIN,
    SILENT_S,
    Roster,
    Seen,
)

A = Seen("tcp://a", "one", threads=1, heartbeat=1.0)
B = Seen("tcp://b", "two", threads=3, heartbeat=1.0)


def roster(*seen: Seen, accept: bool = True) -> Roster:
    made = Roster("tcp://scheduler")
    made.see(seen, 0.0)
    for address in made.to_ask():
        if accept:
            made.answered(address, made.identity(address), "")
    return made


def fill(made: Roster, waiting: int) -> dict[str, int]:
    """Give out what there is room for; how many each got."""
    got: dict[str, int] = {}
    while waiting and (offer := made.offer(waiting)) is not None:
        address, count = offer
        assert 0 < count <= waiting
        made.put(address, range(waiting, waiting - count, -1))
        got[address] = got.get(address, 0) + count
        waiting -= count
    return got


def test_nobody_gets_work_unasked() -> None:
    made = roster(A, B, accept=False)
    assert made.offer(10) is None
    assert made.to_ask() == [], "asked once"
    assert made.workforce().threads == 0
    assert not made.workforce().problem, "answers are awaited"


def test_work_is_spread_by_threads() -> None:
    assert fill(roster(A, B), 4) == {A.address: 1, B.address: 3}


def test_there_is_a_bound() -> None:
    assert fill(roster(A, B), 1000) == {A.address: LOAD_MIN, B.address: 3 * LOAD_MIN}


def test_short_tasks_go_in_batches_and_long_ones_alone() -> None:
    made = roster(A)
    for _ in range(200):
        made.lasted(AHEAD_S / 10)
    offer = made.offer(1000)
    assert offer is not None
    assert offer[1] > 1
    assert made.workforce().depth > 3
    for _ in range(200):
        made.lasted(60.0)
    assert made.offer(1000) == (A.address, 1)
    assert made.workforce().depth == LOAD_MIN + 1
    for _ in range(200):
        made.lasted(0.0)
    assert fill(made, 1000) == {A.address: LOAD_MAX}


def test_few_short_tasks_are_not_heaped_on_one() -> None:
    made = roster(A, replace(A, address="tcp://c"))
    for _ in range(200):
        made.lasted(0.01)
    assert fill(made, 2) == {A.address: 1, "tcp://c": 1}


def test_a_worker_that_is_gone_returns_what_it_had() -> None:
    made = roster(A, B)
    made.put(A.address, [1, 2])
    [lost] = made.see([B], 1.0)
    assert (lost.address, lost.numbers, lost.silent) == (A.address, (1, 2), False)
    assert made.workforce().threads == 3


def test_another_process_at_the_same_address_is_asked_anew() -> None:
    made = roster(A)
    made.put(A.address, [1])
    [lost] = made.see([replace(A, identity="another")], 1.0)
    assert lost.numbers == (1,)
    assert made.offer(1) is None
    assert made.to_ask() == [A.address]
    assert not made.answered(A.address, "one", ""), "that was the process before"
    assert made.offer(1) is None


@pytest.mark.parametrize("running", [True, False])
def test_silence_and_its_end(running: bool) -> None:
    made = roster(A)
    made.put(A.address, [1])
    assert made.see([replace(A, running=running)], SILENT_S - 0.1) == []
    [lost] = made.see([replace(A, running=running)], SILENT_S)
    assert lost.silent
    assert made.offer(1) is None
    assert made.workforce().problem == "no_workers"
    made.see([replace(A, heartbeat=2.0)], SILENT_S + 1)
    assert made.offer(1) == (A.address, 1)


def test_a_worker_that_is_about_to_end_gets_nothing_more() -> None:
    made = roster(A)
    made.see([replace(A, heartbeat=2.0, running=False)], 1.0)
    assert made.offer(1) is None


def test_a_refused_worker_is_told_of_and_asked_again_later() -> None:
    made = roster(A, accept=False)
    made.answered(A.address, A.identity, "It is of another version.")
    workforce = made.workforce()
    assert workforce.problem == "no_workers"
    assert "another version" in workforce.message
    assert [refused.address for refused in workforce.refused] == [A.address]
    made.see([replace(A, heartbeat=2.0)], ASK_AGAIN_S - 1)
    assert made.to_ask() == []
    made.see([replace(A, heartbeat=3.0)], ASK_AGAIN_S)
    assert made.to_ask() == [A.address]
    assert made.workforce().refused_count == 1, "until it says otherwise"
    made.answered(A.address, A.identity, "")
    assert made.workforce().threads == 1


def test_a_worker_that_never_says_who_it_is() -> None:
    made = roster(A, accept=False)
    for now_s in range(1, int(SILENT_S) + 1):
        made.see([replace(A, heartbeat=1.0 + now_s)], float(now_s))
    assert made.workforce().problem == "no_workers"
    assert "has not reported its build" in made.workforce().message


def test_an_empty_cluster() -> None:
    assert "no worker" in Roster("tcp://scheduler").workforce().message


C = replace(A, address="tcp://c", identity="three")


def test_the_third_worker_works_as_the_first_does() -> None:
    made = roster(A, B, C)
    assert made.workforce().workers == 3
    assert fill(made, 5) == {A.address: 1, B.address: 3, C.address: 1}
    lost = made.see([], 1.0)
    assert [one.address for one in lost] == [A.address, B.address, C.address]


def test_a_paused_worker_is_taken_for_hung_however_its_heart_beats() -> None:
    made = roster(A)
    made.put(A.address, [1, 2, 3])
    for now_s in range(1, int(SILENT_S)):
        paused = replace(A, heartbeat=1.0 + now_s, running=False)
        assert made.see([paused], float(now_s)) == []
    [lost] = made.see([replace(A, heartbeat=99.0, running=False)], SILENT_S)
    assert (lost.numbers, lost.silent) == ((1, 2, 3), True)
    assert made.see([replace(A, heartbeat=100.0, running=False)], SILENT_S + 1) == [], "told once"


def test_a_worker_gets_no_more_than_it_has_room_for() -> None:
    made = roster(A)
    for _ in range(300):
        made.lasted(0.0)
    made.put(A.address, range(LOAD_MAX - 3))
    assert made.offer(1000) == (A.address, 3)
    made.put(A.address, range(100, 103))
    assert made.offer(1000) is None
    made.end(A.address, 100)
    made.end(A.address, 100)
    made.end("tcp://nobody", 100)
    assert made.offer(1000) == (A.address, 1)
    assert made.offer(0) is None


@pytest.mark.parametrize("count", [3, REFUSED_MAX, REFUSED_MAX + 1])
def test_so_many_refused_workers_are_named_and_all_are_counted(count: int) -> None:
    seen = [replace(A, address=f"tcp://w{n:02}", identity=f"w{n}") for n in range(count)]
    made = roster(*seen, accept=False)
    for one in seen:
        made.answered(one.address, one.identity, "It is of another version.")
    told = made.workforce()
    assert told.refused_count == count
    assert [one.address for one in told.refused] == [one.address for one in seen[:20]]
