"""Nothing goes on for ever, or waits for ever, only because something else never ceases."""

from __future__ import annotations

import itertools

import pytest

from bridge.checks.ask_both_servers import BothServers
from bridge.checks.compare import Check, reviewed
from bridge.checks.differences import Difference, Differences, State
from bridge.errors import SideError, StateError
from bridge.feed.follow import FollowFeed
from bridge.model import Change, Endpoint, Page, SideName
from bridge.orthanc.session import SideClient
from bridge.pipeline.holds import OperatorThrottle
from bridge.pipeline.pacing import Allowance
from tests.fake_behaviours import Respond
from tests.fake_orthanc import FakeOrthanc
from tests.fake_store import FakeStore, FeedRow
from tests.feed_client import NEW, JudgedFeed, StoreClient
from tests.pipeline_bench import Bench
from tests.unit.checks.test_compare import Ledger, Scripted, job


@pytest.mark.parametrize(("arrivals", "page_size"), [(1, 1), (2, 1), (1000, 1000)])
def test_check_reads_what_waits_while_instances_never_cease_to_arrive(
    arrivals: int, page_size: int
) -> None:
    class Busy(Scripted):
        last = 20
        asked = 0

        def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:  # noqa: ARG002
            self.asked += 1
            assert self.asked < 100, "it never ends"
            self.last += arrivals
            end = min(since + limit, self.last)
            rows = tuple(Change(s, NEW, f"waiting{s}", "") for s in range(since + 1, end + 1))
            return Page(rows, done=end == self.last, last=end)

        def last_change(self) -> Page:
            return Page((), done=True, last=self.last)

    source, target = Busy(5), Scripted(5)
    with (
        BothServers(lambda side: source if side is SideName.SOURCE else target) as servers,
        Check(
            servers, job=job(), known=Ledger(), page_size=page_size, show=lambda *_: None
        ) as check,
    ):
        check.run()


def test_what_arrives_now_goes_before_a_backlog_behind_pages_of_rows_of_other_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FollowFeed, "AHEAD_PAGES", 3)
    store = FakeStore()
    store.script_feed([FeedRow(s, NEW, f"i{s}") for s in range(1, 201)])
    feed = JudgedFeed(StoreClient(store), position=0, page_size=10, overlap=500)
    feed.next_page()
    for name, others in (("first", 0), ("middle", 15), ("last", 29)):
        for _ in range(others):
            store.add_change("StableSeries", "s")
        store.add_change(NEW, name)
        assert [move.instance_id for move in feed.newest(ahead=True).moves] == [name]
    for _ in range(35):
        store.add_change("StableSeries", "s")
    store.add_change(NEW, "far")
    looks = [feed.newest(ahead=True).moves for _ in range(2)]
    assert [len(moves) for moves in looks] == [0, 1], "a look is bounded"


@pytest.mark.parametrize("stops", [True, False], ids=["draining", "full disk"])
def test_under_a_rate_limit_the_loop_does_not_spin_while_nothing_may_start(stops: bool) -> None:
    bench = Bench(work_s=2.0 if not stops else 20.0, window=40)
    pipeline = bench.pipeline([f"i{number}" for number in range(50)])
    allowance = Allowance(instances_s=1.0)
    pipeline._throttle = OperatorThrottle(allowance, ledger=None, clock=bench.time)
    if stops:
        bench.time.at(3.2, pipeline.stop)
    else:
        bench.time.at(3.2, lambda: setattr(bench.ledger, "error", StateError("full")))
        bench.time.at(60.0, lambda: setattr(bench.ledger, "error", None))
        bench.time.at(70.0, pipeline.stop)
    pipeline.run()  # raises Stuck where time does not pass
    assert bench.time.steps < 400


def test_a_server_of_which_every_second_request_fails_is_used() -> None:
    """One of two behind a balancer is ill: an upload after each good probe would meet that one."""
    chances = itertools.cycle([0.9, 0.1])
    with FakeOrthanc() as fake:
        answers = itertools.count()
        honest = fake.behaviour_for

        def behaviour_for(route: str) -> object:
            return Respond(503) if next(answers) % 2 else honest(route)

        fake.behaviour_for = behaviour_for  # type: ignore[method-assign, assignment]
        client = SideClient(Endpoint(SideName.TARGET, fake.url), chance=lambda: next(chances))
        served = 0
        for _ in range(10):
            try:
                client.probe()
            except SideError:
                continue
            served += next(answers) % 2 == 0  # an upload
        client.close()
    assert served


def test_many_that_the_source_has_deleted_cost_few_looks_at_its_feed() -> None:
    looks: list[None] = []
    with Differences() as findings:
        for number in range(1000):
            findings.add(Difference(f"gone{number}", State.MISSING))
        after = reviewed(
            findings,
            source=StoreClient(FakeStore()),
            target=StoreClient(FakeStore()),
            known=Ledger(),
            look=lambda: looks.append(None),
        )
    assert not after.counts.total()
    assert len(looks) < 10
