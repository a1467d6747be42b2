"""A source whose proxy answers 404 to every instance has lost none of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.model import Reason, SideFailed, SideName, SideProblem, Skipped
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.transfer_world import World


@pytest.mark.parametrize("hidden", ["GET /instances/", "GET /instances"])
def test_what_is_hidden_is_not_gone(fake_orthanc: Callable[..., FakeOrthanc], hidden: str) -> None:
    world = World(fake_orthanc(), fake_orthanc())
    instance_id = world.source.put(small_ct())
    world.source.script(hidden, Respond(404))
    outcome = world.move(instance_id)
    assert isinstance(outcome, SideFailed)
    assert (outcome.side, outcome.problem) == (SideName.SOURCE, SideProblem.NOT_FOUND)


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("may_list", [True, False])
def test_what_was_deleted_is_gone(
    fake_orthanc: Callable[..., FakeOrthanc], others: int, may_list: bool
) -> None:
    world = World(fake_orthanc(), fake_orthanc())
    instance_id = world.source.put(small_ct())
    for _ in range(others):
        world.source.put(small_ct())
    del world.source.store.instances[instance_id]
    if not may_list:
        world.source.script(r"GET /instances\?", Respond(403))
    outcome = world.move(instance_id)
    assert isinstance(outcome, Skipped)
    assert outcome.reason is Reason.GONE
