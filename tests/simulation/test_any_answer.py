"""Whatever a server answers to a worker: driven through client, policy and pipeline.

Each answer is first given to the real client; its outcome then goes through the loop, for one
instance among others and for all of them. The promises are those of docs/faults.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from bridge.feed.sources import GivenMoves
from bridge.model import Delivered, InstanceFailed, Move, Outcome, SideFailed, Skipped
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.pipeline_bench import Bench
from tests.transfer_world import World

CALLS = {
    "file": ("source", r"GET /instances/[^/]+/file"),
    "store": ("target", "POST /instances"),
    "md5": ("target", r"GET /instances/[^/]+/attachments/dicom/md5"),
}
FINE = (200, 201)
TROUBLE = (204, 206, 301, 400, 401, 403, 404, 405, 408, 409, 413, 415, 418, 429, 451)
MORE_TROUBLE = (500, 501, 502, 503, 504, 505, 507, 520, 599)
BODIES = (b"", b"[]", b"{}", b"null", b"<html>welcome</html>", b"no answer at all", b"[{}, 1]")
TYPES = ("application/json", "text/html", "application/dicom")
MANY = [f"i{number:02}" for number in range(20)]


@pytest.fixture
def world(fake_orthanc: Callable[..., FakeOrthanc]) -> World:
    return World(fake_orthanc(), fake_orthanc())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", CALLS)
def test_every_answer_keeps_the_promises(call: str, world: World) -> None:
    side, route = CALLS[call]
    server = getattr(world, side)
    instance_id = world.source.put(small_ct())
    seen: dict[object, Outcome] = {}
    for status, body, kind in [
        *itertools.product(FINE, BODIES, TYPES),
        *itertools.product((*TROUBLE, *MORE_TROUBLE), BODIES[:5:4], TYPES[:2]),
    ]:
        server.script(route, Respond(status, body, headers={"Content-Type": kind}))
        outcome = world.move(instance_id, proof="stored")
        assert isinstance(outcome, SideFailed | InstanceFailed | Skipped | Delivered)
        if isinstance(outcome, SideFailed):
            assert str(outcome.side) == side
            seen[outcome.problem, outcome.specific, outcome.begun] = outcome
        server.behave()
    assert len(seen) >= 5
    for outcome in seen.values():
        _one_among_others(outcome)
        _an_outage(outcome)


def _one_among_others(outcome: Outcome) -> None:
    bench = Bench(window=2)
    bench.script = {"bad": [outcome]}
    pipeline = bench.pipeline(GivenMoves([*_moves(MANY[:10]), *_moves(["bad"])], page_size=4))
    bench.time.at(60.0, pipeline.stop)
    pipeline.run()
    assert bench.summary.delivered == 10, outcome
    assert bench.started.count("bad") <= 12, outcome


def _an_outage(outcome: Outcome) -> None:
    bench = Bench(window=2)
    bench.script = {name: [outcome] for name in MANY}
    bench.time.at(60.0, bench.script.clear)
    assert bench.run(MANY).delivered == 20, outcome
    assert not bench.ledger.parked, outcome
    assert max(bench.started.count(name) for name in MANY) <= 13, outcome


def _moves(names: list[str]) -> list[Move]:
    return [Move(name) for name in names]
