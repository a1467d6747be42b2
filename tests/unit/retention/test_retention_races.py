"""What happens between two requests of one look must not make retention delete the only copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest

from bridge.errors import SideError
from bridge.events import SweepFailed
from bridge.ledger.records import Entry, Kept, Parked
from bridge.model import Endpoint, Move, Reason
from bridge.orthanc import StoredFile
from bridge.orthanc.session import SideClient
from bridge.pipeline.holds import PAUSED_KEY
from bridge.pipeline.journal import Notes
from bridge.retention import background as background_module
from bridge.retention.sweep import POSTPONED_S, Sweep
from tests.bridge_process import wait_until
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import HangUp, Respond
from tests.unit.retention.test_retention import (
    LATER,
    Clocks,
    Rig,
    Seen,
    clocks,
    md5,
    resent,
    rig,
    runner_of,
)

__all__ = ["clocks", "rig"]

Happens = Callable[[], object]
_Answer = TypeVar("_Answer")


class Interrupted(SideClient):
    """A client before and after whose calls something happens."""

    def __init__(
        self,
        endpoint: Endpoint,
        before: Mapping[str, Happens] | None = None,
        after: Mapping[str, Happens] | None = None,
    ) -> None:
        super().__init__(endpoint)
        self._before, self._after = before or {}, after or {}

    def stored_file(self, instance_id: str) -> StoredFile:
        return self._around("file", lambda: super(Interrupted, self).stored_file(instance_id))

    def verify_stored(self, instance_id: str) -> bool:
        return self._around("verify", lambda: super(Interrupted, self).verify_stored(instance_id))

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        return self._around(
            "metadata", lambda: super(Interrupted, self).metadata_value(instance_id, name)
        )

    def _around(self, name: str, call: Callable[[], _Answer]) -> _Answer:
        self._before.get(name, lambda: None)()
        answer = call()
        self._after.get(name, lambda: None)()
        return answer


def sweep(
    rig: Rig,
    *,
    before: Mapping[str, Happens] | None = None,
    after: Mapping[str, Happens] | None = None,
) -> Sweep:
    """Sweep with a target around whose calls something happens."""
    target = Interrupted(rig.clients[1].endpoint, before, after)
    try:
        return rig.sweep(sweeper=rig.sweeper_of(rig.clients[0], target))
    finally:
        target.close()


def test_overwritten_at_the_source_while_the_servers_are_proved_to_be_two(rig: Rig) -> None:
    data = small_ct()
    instance = rig.deliver(data)
    done = sweep(rig, before={"metadata": lambda: rig.source.put(resent(data))})
    assert (done.deleted, instance in rig.at_source) == (0, True)


def test_replaced_at_the_target_while_its_file_is_verified(rig: Rig) -> None:
    data = small_ct()
    instance = rig.deliver(data)
    done = sweep(rig, before={"verify": lambda: rig.target.put(resent(data))})
    assert (done.deleted, instance in rig.at_source) == (0, True)


def test_replaced_at_the_target_while_the_servers_are_proved_to_be_two(rig: Rig) -> None:
    data = small_ct()
    instance = rig.deliver(data)
    done = sweep(rig, after={"metadata": lambda: rig.target.put(resent(data))})
    assert (done.deleted, instance in rig.at_source) == (0, True)


def test_evidence_that_parking_has_withdrawn_does_not_come_back(rig: Rig) -> None:
    instance = rig.deliver(small_ct())
    parked = Parked(Move(instance, 1), Reason.VERIFICATION_FAILED, "no", 1, 1.0, 1.0)

    def park_and_fail() -> None:
        rig.ledger.commit(Entry(parked=(parked,)))
        rig.target.script("POST", Respond(503), times=1)

    with pytest.raises(SideError):
        sweep(rig, before={"verify": park_and_fail})
    rig.ledger.commit(Entry(unparked=(instance,)))
    assert rig.kept() == []


def test_new_evidence_is_not_replaced_by_old(rig: Rig) -> None:
    data = small_ct()
    instance, newer = rig.deliver(data), resent(data)
    again = Kept(instance, md5(newer), md5(newer), LATER, aged_from=LATER)

    def deliver_anew_and_fail() -> None:
        rig.source.put(newer)
        rig.target.put(newer)
        rig.ledger.commit(Entry(kept=(again,)))
        rig.target.script("POST", Respond(503), times=1)

    with pytest.raises(SideError):
        sweep(rig, before={"verify": deliver_anew_and_fail})
    assert rig.ledger.kept(aged_before=LATER, limit=9) == [again]


def test_delivered_and_then_parked_before_anything_was_written(rig: Rig) -> None:
    notes = Notes()
    notes.finish(Move("a", 1), None, Kept("a", "1", "1", 1.0))
    parked = Parked(Move("a", 2), Reason.VERIFICATION_FAILED, "no", 1, 1.0, 1.0)
    notes.finish(Move("a", 2), parked, None)
    rig.ledger.commit(notes.entry(checkpoint=2))
    rig.ledger.commit(Entry(unparked=("a",)))
    assert rig.kept() == []


@pytest.mark.parametrize(
    ("side", "what"), [("target", "POST /instances/.*/verify-md5"), ("source", "DELETE /instances")]
)
def test_200_from_something_else_is_believed_by_nobody(rig: Rig, side: str, what: str) -> None:
    instance = rig.deliver(small_ct())
    server = rig.target if side == "target" else rig.source
    server.script(what, Respond(200, b"<html>maintenance</html>"))
    with pytest.raises(SideError):
        rig.sweep()
    assert instance in rig.at_source
    assert rig.kept() == [instance], "looked at again later"


def test_a_deletion_whose_answer_is_lost_is_not_sent_again(rig: Rig) -> None:
    """The instance may have come anew meanwhile."""
    instances = [rig.deliver(data, at=float(n)) for n, data in enumerate(small_series(3))]
    rig.source.script(f"DELETE /instances/{instances[1]}", HangUp(worked=True), times=1)
    with pytest.raises(SideError):
        rig.sweep()
    sent = [r for r in rig.source.requests if r.startswith(f"DELETE /instances/{instances[1]}")]
    assert len(sent) == 1


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_is_empty_for_a_moment_costs_no_evidence(rig: Rig, side: str) -> None:
    for data in small_series(4):
        rig.deliver(data)
    instances = (rig.source if side == "source" else rig.target).store.instances
    saved = dict(instances)
    instances.clear()
    assert rig.sweep().deleted == 0
    instances.update(saved)
    assert rig.sweep(before=LATER + POSTPONED_S).deleted == 4


def test_a_file_that_may_not_be_verified_is_looked_at_again(rig: Rig) -> None:
    instance = rig.deliver(small_ct())
    rig.target.script("POST /instances/.*/verify-md5", Respond(404), times=1)
    assert rig.sweep() == Sweep(spared=1)
    assert rig.kept() == [instance]
    assert rig.sweep(before=LATER + POSTPONED_S).deleted == 1


def test_the_servers_are_proved_to_be_two_again_after_an_outage(rig: Rig) -> None:
    first, second = (rig.deliver(data, at=float(n)) for n, data in enumerate(small_series(2)))
    rig.target.script(f"POST /instances/{second}/", Respond(503), times=1)
    with pytest.raises(SideError):
        rig.sweep()
    assert (first in rig.at_source, second in rig.at_source) == (False, True)
    assert rig.sweep(before=LATER + POSTPONED_S).deleted == 1
    assert rig.marks == 2


def test_a_paused_bridge_deletes_nothing(clocks: Clocks, rig: Rig) -> None:
    rig.deliver(small_ct(), at=0.0)
    swept = runner_of(rig, Seen(), clocks, retention_s=0.0)
    rig.ledger.set_meta(PAUSED_KEY, str(clocks.wall))
    assert swept.sweep_once() == Sweep(hold="paused")
    rig.ledger.set_meta(PAUSED_KEY, None)
    assert swept.sweep_once() == Sweep(deleted=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_by_a_bug_is_told(
    clocks: Clocks, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bug(Exception):
        pass

    def broken(*_arguments: object, **_named: object) -> None:
        raise Bug

    monkeypatch.setattr(background_module, "Ledger", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    seen = Seen()
    swept = runner_of(rig, seen, clocks)
    swept.start()
    wait_until(lambda: bool(seen.events), "it is told")
    swept.stop(5.0)
    (failed,) = seen.events
    assert isinstance(failed, SweepFailed)
    assert "restart" in failed.message
