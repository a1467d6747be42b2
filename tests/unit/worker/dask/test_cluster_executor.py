"""The executor on a cluster whose scheduler is a list: what is placed, lost and given back."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.model import Delivered, Endpoint, ExecutorFailed, Job, Move, Outcome, SideName, Task
from bridge.worker.dask.build import Build
from bridge.worker.dask.roster import LOAD_MAX, SILENT_S, Seen
from bridge.worker.dask.values import outcome_to_plain, to_plain
from tests.pipeline_bench import DELIVERED

executor_module = pytest.importorskip("bridge.worker.dask.executor")
remote = pytest.importorskip("bridge.worker.dask.remote")

JOB = Job(
    Endpoint(SideName.SOURCE, "http://a"),
    Endpoint(SideName.TARGET, "http://b"),
    "1.2",
    task_timeout_s=10.0,
)
OWN = Build("1.0", "c0de", ("j2k/OpenJPEG openjpeg 2.0",))
WORKERS = ("tcp://a", "tcp://b", "tcp://c")


class Lost(Exception):
    """The link is gone."""


class Cluster:
    """A scheduler with three workers, an executor, and what came of its tasks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(executor_module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        self.there = {address: Seen(address, "one", 1, 1.0) for address in WORKERS}
        self.asked: list[str] = []
        self.handles: list[Any] = []
        self.ran: list[tuple[str, list[int]]] = []
        self.broken = False
        self.ended: list[tuple[int, Outcome]] = []
        self.executor = executor_module.DaskExecutor(
            lambda task, outcome: self.ended.append((task.number, outcome)),
            address="tcp://s:1",
            tls=None,
        )
        self.executor._own = OWN

    def workers(self) -> tuple[Seen, ...]:
        return tuple(self.there.values())

    def introduce(self, address: str, _identity: str) -> Any:
        self.asked.append(address)
        return self._handle()

    def run(self, address: str, _digest: str, payload: str) -> Any:
        if self.broken:
            raise Lost
        self.ran.append((address, [task["number"] for task in json.loads(payload)]))
        return self._handle()

    def _handle(self) -> Any:
        self.handles.append(SimpleNamespace(failure="", is_finished=False))
        return self.handles[-1]

    def look(self, *, later_s: float = 0.0) -> None:
        self.now_s += later_s
        self.there = {
            address: Seen(address, seen.identity, seen.threads, seen.heartbeat + 1.0)
            for address, seen in self.there.items()
        }
        self.executor._look(self)

    def introduce_all(self) -> None:
        self.look()
        for address in WORKERS:
            said = {"address": address, "identity": "one", "build": to_plain(OWN)}
            self.executor._listen(json.dumps(said))

    def give(self, count: int) -> None:
        for number in range(count):
            self.executor._handle(Task(Move(f"i{number}"), JOB, number))

    def place(self) -> None:
        self.executor._place(self)

    def tell(self, ticket: int, outcome: Outcome = DELIVERED) -> None:
        said = {"number": ticket, "outcome": outcome_to_plain(outcome)}
        self.executor._listen(json.dumps(said))

    @property
    def tickets(self) -> list[int]:
        return [ticket for _, tickets in self.ran for ticket in tickets]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(monkeypatch)
    made.introduce_all()
    return made


def short_tasks(cluster: Cluster) -> None:
    """Let tasks be short, so that several go together."""
    for _ in range(300):
        cluster.executor._roster.lasted(0.001)


def test_every_worker_is_asked_and_works_and_each_task_ends_once(cluster: Cluster) -> None:
    assert sorted(cluster.asked) == list(WORKERS)
    assert cluster.executor.workforce().threads == 3
    cluster.give(3)
    cluster.place()
    assert sorted(address for address, _ in cluster.ran) == list(WORKERS)
    for ticket in cluster.tickets[::-1]:
        cluster.tell(ticket)
        cluster.tell(ticket)
    assert [number for number, _ in cluster.ended] == [2, 1, 0]
    assert {outcome for _, outcome in cluster.ended} == {DELIVERED}


def test_what_could_not_be_placed_waits_in_its_order(cluster: Cluster) -> None:
    short_tasks(cluster)
    cluster.give(20)
    cluster.broken = True
    with pytest.raises(Lost):
        cluster.place()
    assert [task.number for task in cluster.executor._waiting] == list(range(20))
    assert not cluster.executor._placed


def test_all_is_given_back_when_the_scheduler_is_lost(cluster: Cluster) -> None:
    cluster.give(20)
    cluster.place()
    placed = len(cluster.tickets)
    assert 3 <= placed <= 17
    cluster.executor._disconnected("it is gone")
    assert sorted(number for number, _ in cluster.ended) == list(range(20))
    assert all(isinstance(outcome, ExecutorFailed) for _, outcome in cluster.ended)
    assert cluster.executor.workforce().problem == "scheduler_unreachable"
    cluster.give(1)
    assert len(cluster.ended) == 21, "nobody works: it is given back at once"


def test_all_is_given_back_when_the_last_worker_is_gone(cluster: Cluster) -> None:
    cluster.give(20)
    cluster.place()
    cluster.there.clear()
    cluster.look()
    assert sorted(number for number, _ in cluster.ended) == list(range(20))


@pytest.mark.parametrize("arrives", [True, False])
def test_a_task_that_dask_calls_finished_has_one_look_more(
    cluster: Cluster, *, arrives: bool
) -> None:
    """Its outcome may be on its way to us."""
    cluster.give(3)
    cluster.place()
    for handle in cluster.handles:
        handle.is_finished = True
    cluster.look(later_s=0.5)
    assert not cluster.ended
    if arrives:
        for ticket in cluster.tickets:
            cluster.tell(ticket)
    cluster.look(later_s=0.5)
    assert [number for number, _ in cluster.ended] == [0, 1, 2]
    assert all(isinstance(o, Delivered if arrives else ExecutorFailed) for _, o in cluster.ended)


def test_a_task_that_dask_calls_failed_is_given_back_at_once(cluster: Cluster) -> None:
    cluster.give(3)
    cluster.place()
    cluster.handles[-2].failure = "Dask says lost"
    cluster.look(later_s=0.5)
    ((number, outcome),) = cluster.ended
    assert number == 1
    assert isinstance(outcome, ExecutorFailed)
    assert "Dask says lost" in outcome.message


def test_a_task_without_an_end_is_given_back_in_the_end(cluster: Cluster) -> None:
    """After all that its worker may have had before it."""
    cluster.give(1)
    cluster.place()
    for _ in range(int(LOAD_MAX * JOB.task_timeout_s + SILENT_S)):
        cluster.look(later_s=1.0)
    assert not cluster.ended
    cluster.look(later_s=1.0)
    assert len(cluster.ended) == 1


def test_a_worker_that_cannot_say_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    cluster.look()
    for handle in cluster.handles[1:]:
        handle.failure = "KilledWorker"
    cluster.look(later_s=0.5)
    refused = cluster.executor.workforce().refused
    assert [one.address for one in refused] == list(WORKERS[1:])
    assert "KilledWorker" in refused[0].reason
    assert list(cluster.executor._asked) == [WORKERS[0]]
    cluster.executor._disconnected("it is gone")
    assert not cluster.executor._asked, "the answers of another link are not awaited"


def test_what_is_too_long_or_no_text_is_not_heard(cluster: Cluster) -> None:
    most = executor_module.SAID_CHARACTERS_MAX
    for said in ("x" * (most + 1), 5, None, b"{}"):
        cluster.executor._hear(said)
    assert cluster.executor._inbox.empty()
    cluster.executor._hear("x" * most)
    assert not cluster.executor._inbox.empty()


@pytest.mark.parametrize(
    "said",
    [
        "",
        "null",
        "[]",
        "5",
        "{}",
        '{"number": 0}',
        '{"number": "x", "outcome": {}}',
        '{"number": 1e999, "outcome": {}}',
        '{"build": {}}',
        "[" * 100_000,
        '{"number": 0, "outcome": {"kind": "Delivered"}}',
    ],
)
def test_what_a_stranger_says_ends_nothing(cluster: Cluster, said: str) -> None:
    cluster.give(1)
    cluster.place()
    cluster.executor._listen(said)
    assert not cluster.ended
    cluster.tell(cluster.tickets[0])
    assert len(cluster.ended) == 1


# The worker's side


class Pool:
    """A pool that delivers everything."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def run(self, task: Task) -> Outcome:
        self.tasks.append(task)
        return DELIVERED


@pytest.mark.parametrize("ours", [True, False])
def test_a_worker_of_another_build_than_when_it_was_asked_does_nothing(
    monkeypatch: pytest.MonkeyPatch, *, ours: bool
) -> None:
    said: list[tuple[str, Any]] = []
    log_event: Callable[[str, str], None] = lambda topic, text: said.append(  # noqa: E731
        (topic, json.loads(text))
    )
    worker = SimpleNamespace(log_event=log_event, state=SimpleNamespace(nthreads=2))
    pool = Pool()
    monkeypatch.setattr(remote, "get_worker", lambda: worker)
    monkeypatch.setattr(remote, "own_build", lambda: OWN)
    monkeypatch.setattr(remote, "open_pool", lambda _threads: pool)
    tasks = [Task(Move(f"i{number}"), JOB, number) for number in (7, 8, 9)]
    payload = json.dumps([to_plain(task) for task in tasks])
    remote.run("topic", OWN.digest if ours else "another", "tcp://a", payload)
    assert [(topic, told["number"]) for topic, told in said] == [("topic", n) for n in (7, 8, 9)]
    kinds = {told["outcome"]["kind"] for _, told in said}
    assert kinds == {"Delivered" if ours else "ExecutorFailed"}
    assert pool.tasks == (tasks if ours else [])
