"""Source retention: everything that could make it delete what it should not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import SideError, SourceError, TargetError
from bridge.events import (
    Event,
    FeedDoubted,
    FeedReset,
    FeedTrusted,
    Progress,
    SideDown,
    SideStillDown,
    SideUp,
    SourceDeletes,
    SourceKept,
    SourceSwept,
    SweepFailed,
    SweepWorks,
)
from bridge.ledger.records import Attempts, Entry, Kept, MissedAt, Parked
from bridge.ledger.store import Ledger
from bridge.model import Endpoint, Move, Reason, SideFailed, SideName, SideProblem
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.orthanc.session import SideClient
from bridge.pipeline.pacing import Allowance
from bridge.pipeline.runtime import SystemClock
from bridge.retention.age_clock import JUMP_S, AgeClock
from bridge.retention.background import OperatorsHold, SweepRunner, Trouble
from bridge.retention.limits_and_risks import RetentionRules
from bridge.retention.sweep import BATCH, FAILURES_MAX, POSTPONED_S, Sweep, Sweeper
from tests.bridge_process import wait_until
from tests.dicom_samples import identity_of, small_ct, small_series
from tests.fake_orthanc import FakeOrthanc, Respond

DELIVERED_AT = 1000.0
LATER = 5000.0
RULES = RetentionRules(retention_s=0.0, retention="0s")


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Rig:
    """Two fake servers, a ledger, and a sweeper between them."""

    def __init__(self, source: FakeOrthanc, target: FakeOrthanc, state_path: Path) -> None:
        self.source, self.target, self.state_path = source, target, state_path
        self.ledger = Ledger(state_path)
        self.clients = [
            SideClient(Endpoint(SideName.SOURCE, source.url, timeout_s=5)),
            SideClient(Endpoint(SideName.TARGET, target.url, timeout_s=5)),
        ]
        self.events: list[Event] = []
        self.troubles = 0
        self.held_by = ""
        self.sweeper = self.sweeper_of(*self.clients)

    def sweeper_of(self, source: SideClient, target: SideClient, **other: Any) -> Sweeper:
        """Make a sweeper whose age clock shows ``before`` and that deletes at once."""
        given: dict[str, Any] = {
            "token": "",
            "look_at_feed": lambda _: None,
            "hold": lambda _: self.held_by,
            "trouble": lambda: self.troubles,
            "report": self.events.append,
        }
        rules = other.pop("rules", RULES)
        return Sweeper(source, target, rules, **given | other)

    def close(self) -> None:
        self.ledger.close()
        for client in self.clients:
            client.close()

    def deliver(self, data: bytes, *, at: float = DELIVERED_AT, sent: bytes | None = None) -> str:
        """Put an instance on both sides, with the evidence of its delivery."""
        sent = data if sent is None else sent
        instance_id = self.source.put(data)
        assert self.target.put(sent) == instance_id
        self.ledger.commit(Entry(kept=(self.evidence(instance_id, at=at),)))
        return instance_id

    def evidence(self, instance_id: str, *, at: float = DELIVERED_AT) -> Kept:
        """Return what a delivery of the present files proves."""
        here, there = (s.store.instances[instance_id] for s in (self.source, self.target))
        return Kept(
            instance_id,
            here.md5,
            there.md5,
            at,
            source_file=here.uuid,
            target_file=there.uuid,
            aged_from=at,
        )

    def sweep(self, *, before: float = LATER, sweeper: Sweeper | None = None) -> Sweep:
        done = Sweep()
        (sweeper or self.sweeper).sweep(self.ledger, now=before, done=done)
        return done

    def kept(self, *, before: float = 1e12) -> list[str]:
        rows = self.ledger.kept(aged_before=before, limit=10_000)
        return [kept.instance_id for kept in rows]

    @property
    def at_source(self) -> set[str]:
        return set(self.source.store.instances)

    @property
    def marks(self) -> int:
        return sum(r.startswith("PUT /instances") for r in self.source.requests)

    @property
    def deletions(self) -> int:
        return sum(
            bool(re.fullmatch("DELETE /instances/[^/]+", request))
            for request in self.source.requests
        )


@pytest.fixture
def rig(fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(fake_orthanc(overwrite=True), fake_orthanc(overwrite=True), tmp_path / "l.sqlite3")
    yield rig
    rig.close()


def resent(instance: bytes, seed: int = 99) -> bytes:
    """Return the same instance with other pixels."""
    who = identity_of(instance)
    return small_ct(
        seed=seed,
        patient_id=who.patient_id,
        study_uid=who.study_uid,
        series_uid=who.series_uid,
        sop_uid=who.sop_uid,
    )


def test_what_is_delivered_and_old_enough_is_deleted(rig: Rig) -> None:
    gone = rig.deliver(small_ct())
    assert rig.sweep() == Sweep(deleted=1)
    assert gone not in rig.at_source
    assert gone in rig.target.store.instances
    assert rig.kept() == []


def test_a_transcoded_instance_is_judged_by_what_was_sent(rig: Rig) -> None:
    data = small_ct()
    rig.deliver(data, sent=resent(data))
    assert rig.sweep().deleted == 1


def test_what_is_not_old_enough_stays(rig: Rig) -> None:
    young = rig.deliver(small_ct(), at=LATER + 1)
    assert rig.sweep() == Sweep()
    assert young in rig.at_source
    assert rig.kept() == [young]


def test_the_age_of_a_delivery_counts_from_the_first_sweep_after_it(rig: Rig) -> None:
    """It counted from the beginning of the age clock: what was seen first was deleted at once."""
    data = small_ct()
    instance = rig.deliver(data)
    young = replace(rig.evidence(instance), aged_from=None)
    rig.ledger.commit(Entry(kept=(young,)))
    hour = rig.sweeper_of(*rig.clients, rules=RetentionRules(retention_s=3600.0, retention="1h"))
    assert rig.sweep(sweeper=hour, before=LATER).deleted == 0
    assert rig.sweep(sweeper=hour, before=LATER + 3599.0).deleted == 0
    assert instance in rig.at_source
    assert rig.sweep(sweeper=hour, before=LATER + 3600.0).deleted == 1


def test_what_the_ledger_does_not_know_stays(rig: Rig) -> None:
    data = small_ct()
    unknown = rig.source.put(data)
    rig.target.put(data)
    assert rig.sweep() == Sweep()
    assert unknown in rig.at_source


def test_what_is_parked_stays_though_it_was_delivered_once(rig: Rig) -> None:
    kept = rig.deliver(small_ct())
    parked = Parked(Move(kept, 1), Reason.VERIFICATION_FAILED, "no", 1, 1.0, 1.0)
    rig.ledger.commit(Entry(parked=(parked,)))
    assert rig.sweep() == Sweep()
    assert kept in rig.at_source


def test_what_was_parked_and_dropped_stays_too(rig: Rig) -> None:
    """It may have been parked because its delivery was found wrong."""
    kept = rig.deliver(small_ct())
    parked = Parked(Move(kept, 1), Reason.VERIFICATION_FAILED, "no", 1, 1.0, 1.0)
    rig.ledger.commit(Entry(parked=(parked,)))
    rig.ledger.commit(Entry(unparked=(kept,)))
    assert rig.sweep() == Sweep()
    assert kept in rig.at_source


def test_evidence_of_a_new_delivery_is_not_forgotten_with_the_old(rig: Rig) -> None:
    kept = rig.deliver(small_ct())
    (old,) = rig.ledger.kept(aged_before=LATER, limit=1)
    new = replace(old, delivered_at=LATER, aged_from=LATER)
    rig.ledger.commit(Entry(kept=(new,)))
    rig.ledger.commit(Entry(not_kept=(old,)))
    assert rig.kept() == [kept]


def test_what_is_unfinished_stays(rig: Rig) -> None:
    kept = rig.deliver(small_ct())
    rig.ledger.commit(Entry(attempts={kept: Attempts(1, 1.0)}))
    assert rig.sweep() == Sweep()
    assert kept in rig.at_source


def test_an_instance_overwritten_at_the_source_stays(rig: Rig) -> None:
    data = small_ct()
    kept = rig.deliver(data)
    rig.source.put(resent(data))
    assert rig.sweep() == Sweep(spared=1)
    assert kept in rig.at_source
    assert rig.sweep() == Sweep(), "and it is said once"


def test_the_new_version_is_deleted_after_its_own_delivery(rig: Rig) -> None:
    data = small_ct()
    rig.deliver(data)
    rig.source.put(resent(data))
    rig.sweep()
    kept = rig.deliver(resent(data))
    assert rig.sweep().deleted == 1
    assert kept not in rig.at_source


def test_what_the_target_lost_stays(rig: Rig) -> None:
    kept = rig.deliver(small_ct())
    rig.target.store.delete(kept)
    assert rig.sweep() == Sweep(spared=1)
    assert kept in rig.at_source


def lacking(rig: Rig, *, retains: bool = True) -> list[str]:
    """Return what /health says of the target's lacks."""
    board = Board(rig.state_path, HealthLimits(retains=retains))
    found = board.problems()
    assert bool(board.lacking()) == ("delivered_lacking" in [one.code for one in found])
    assert (board.lacking() is not None) is retains
    return [f"{one.message} {one.advice}" for one in found if one.code == "delivered_lacking"]


def test_a_target_restored_from_an_older_backup_is_told_until_it_has_them_again(rig: Rig) -> None:
    """Only the log told of it, once or twice for each instance; then they were forgotten."""
    rows = [rig.deliver(data) for data in small_series(4)]
    rig.deliver(small_ct(), at=LATER * 9)
    assert not lacking(rig)
    for lost in rows:
        rig.target.store.delete(lost)
    for hours in range(4):
        assert rig.sweep(before=LATER + hours * POSTPONED_S).deleted == 0
        (said,) = lacking(rig)
        assert "lacks 4 instances" in said
        assert "orthanc-bridge check --fix" in said
    assert not lacking(rig, retains=False), "where nothing looks, nobody could take it back"
    # One is delivered anew, one is gone at the source, one is there again as it was.
    rig.target.put(rig.source.store.instances[rows[0]].data)
    rig.ledger.commit(Entry(kept=(rig.evidence(rows[0], at=LATER * 9),)))
    assert "lacks 3 instances" in lacking(rig)[0]
    rig.source.store.delete(rows[1])
    rig.sweep(before=LATER + 4 * POSTPONED_S)
    assert "lacks 2 instances" in lacking(rig)[0]
    for lost in rows[2:]:
        rig.source.store.delete(lost)
    rig.sweep(before=LATER + 5 * POSTPONED_S)
    assert not lacking(rig)
    assert rows[2] in rig.kept(), "the source may have lost its disk for a moment"
    rig.sweep(before=LATER + 6 * POSTPONED_S)
    assert rows[2] not in rig.kept(), "gone at both an hour later too"


def test_what_the_target_lacks_is_told_beside_what_it_holds(rig: Rig) -> None:
    """The patient of what it lacks could not be protected there: that hid what is lacking."""
    rows = [rig.deliver(small_ct(patient_id=f"P{n}"), at=float(n)) for n in range(4)]
    for lost in rows[1:]:
        rig.target.store.delete(lost)
    assert rig.sweep() == Sweep(deleted=1, spared=3)
    assert "lacks 3 instances" in lacking(rig)[0]


def test_what_is_there_again_as_it_was_is_no_longer_told(rig: Rig) -> None:
    rows = [rig.deliver(data) for data in small_series(3)]
    files = dict(rig.target.store.instances)
    rig.target.store.instances.clear()
    for hours in range(3):
        rig.sweep(before=LATER + hours * POSTPONED_S)
    assert "lacks 3 instances" in lacking(rig)[0]
    rig.target.store.instances.update(files)
    assert rig.sweep(before=LATER + 3 * POSTPONED_S).deleted == len(rows)
    assert not lacking(rig)


def test_a_file_that_the_target_cannot_read_is_told_until_it_can(rig: Rig) -> None:
    rig.deliver(small_ct())
    rig.target.script("POST /instances/.*/verify-md5", Respond(500))
    rig.sweep()
    told = lacking(rig)
    rig.target.behave()
    assert rig.sweep(before=LATER + POSTPONED_S).deleted == 1
    assert (len(told), lacking(rig)) == (1, [])


def test_what_is_young_or_changed_is_no_lack(rig: Rig) -> None:
    data, young = small_ct(), small_ct(seed=5)
    rig.deliver(data)
    rig.deliver(young, at=LATER * 9)
    rig.source.put(resent(data))
    assert rig.sweep() == Sweep(spared=1)
    assert not lacking(rig)


def test_what_was_changed_at_the_target_stays(rig: Rig) -> None:
    data = small_ct()
    kept = rig.deliver(data)
    rig.target.put(resent(data))
    assert rig.sweep() == Sweep(spared=1)
    assert kept in rig.at_source


@pytest.mark.parametrize("status", [400, 500])
def test_what_the_target_cannot_read_any_more_stays_and_is_looked_at_again(
    rig: Rig, status: int
) -> None:
    kept = rig.deliver(small_ct())
    rig.target.script("POST /instances/.*/verify-md5", Respond(status))
    assert rig.sweep() == Sweep(spared=1)
    assert kept in rig.at_source
    rig.target.behave()
    assert rig.sweep() == Sweep(), "not at once"
    assert rig.sweep(before=LATER + 3601).deleted == 1


def test_what_is_gone_from_the_source_is_forgotten_an_hour_later_and_not_counted(rig: Rig) -> None:
    gone = rig.deliver(small_ct())
    rig.source.store.delete(gone)
    assert rig.sweep() == Sweep()
    assert rig.kept() == [gone], "the source may have lost its disk for a moment"
    assert rig.sweep(before=LATER + POSTPONED_S) == Sweep()
    assert rig.kept() == []


def test_a_crash_between_deletion_and_note_only_costs_a_look(rig: Rig) -> None:
    """As SIGKILL leaves it: deleted at the source, still in the ledger."""
    rows = [rig.deliver(data) for data in small_series(3)]
    rig.source.store.delete(rows[0])
    assert rig.sweep().deleted == 2
    assert rig.at_source == set()


def test_an_older_copy_of_the_ledger_deletes_nothing_wrong(rig: Rig) -> None:
    data = small_ct()
    old = rig.evidence(rig.deliver(data))
    assert rig.sweep().deleted == 1
    rig.source.put(resent(data))  # sent anew after the copy was made, not handled yet
    rig.ledger.commit(Entry(kept=(old,)))
    assert rig.sweep() == Sweep(spared=1)
    assert rig.at_source == {old.instance_id}


def test_a_source_that_is_another_one_keeps_what_only_it_has(rig: Rig) -> None:
    rig.deliver(small_ct())
    rig.source.store.reset()
    fresh = rig.source.put(small_ct())
    assert rig.sweep().deleted == 0
    assert rig.at_source == {fresh}


def test_the_same_uid_for_two_patients_is_two_instances(rig: Rig) -> None:
    data = small_ct(patient_id="ONE")
    who = identity_of(data)
    other = small_ct(
        patient_id="TWO", study_uid=who.study_uid, series_uid=who.series_uid, sop_uid=who.sop_uid
    )
    first = rig.deliver(data)
    second = rig.source.put(other)
    assert first != second
    assert rig.sweep().deleted == 1
    assert rig.at_source == {second}


def test_one_server_behind_two_addresses_loses_nothing(rig: Rig) -> None:
    kept = rig.deliver(small_ct())
    twice = [
        SideClient(Endpoint(side, rig.source.url.replace("127.0.0.1", host), timeout_s=5))
        for side, host in ((SideName.SOURCE, "127.0.0.1"), (SideName.TARGET, "localhost"))
    ]
    assert rig.sweep(sweeper=rig.sweeper_of(*twice)) == Sweep(spared=1)
    assert kept in rig.at_source
    left = rig.source.store.instances[kept].metadata
    assert not any(name.isdigit() for name in left)
    for client in twice:
        client.close()


def test_the_proof_that_there_are_two_servers_is_made_once_a_batch(rig: Rig) -> None:
    for data in small_series(5):
        rig.deliver(data)
    assert rig.sweep().deleted == 5
    assert rig.marks == 1
    rig.deliver(small_ct())
    rig.sweep()
    assert rig.marks == 2


def test_a_batch_is_bounded(rig: Rig) -> None:
    rows = tuple(
        Kept(f"{n:08x}{4 * '-00000000'}", "a", "a", float(n), MissedAt.NOWHERE, "f", "g", float(n))
        for n in range(BATCH + 1)
    )
    rig.ledger.commit(Entry(kept=rows))
    assert rig.sweep().more
    assert len(rig.kept(before=LATER)) == 1, "the others are looked at again later"
    assert not rig.sweep().more


def test_a_wish_to_stop_is_heard_between_two_instances(rig: Rig) -> None:
    for data in small_series(5):
        rig.deliver(data)
    sweeper = rig.sweeper_of(*rig.clients, stopping=lambda: len(rig.at_source) <= 3)
    done = rig.sweep(sweeper=sweeper)
    assert (done.deleted, len(rig.at_source)) == (2, 3)


def test_a_target_that_goes_down_stops_the_sweep_and_what_was_done_is_counted(rig: Rig) -> None:
    for data in small_series(5):
        rig.deliver(data)

    def ends_the_target() -> bool:
        if len(rig.at_source) == 3:
            rig.target.stop()
        return False

    done = Sweep()
    with pytest.raises(TargetError):
        rig.sweeper_of(*rig.clients, stopping=ends_the_target).sweep(
            rig.ledger, now=LATER, done=done
        )
    assert done.deleted == 5 - len(rig.at_source) == 2
    rig.target.start()
    assert rig.sweep().deleted == 2, "all but the one that was looked at"
    assert rig.sweep(before=LATER + 3601).deleted == 1


def test_one_instance_that_a_server_stumbles_over_does_not_hold_up_the_others(rig: Rig) -> None:
    sick, *others = (rig.deliver(data, at=n) for n, data in enumerate(small_series(4)))
    rig.source.script(f"GET /instances/{sick}/attachments", Respond(500))
    assert rig.sweep() == Sweep(deleted=3, spared=1)
    assert rig.at_source == {sick}
    rig.source.behave()
    assert rig.sweep(before=LATER + 3601).deleted == 1
    assert others


def test_a_server_that_stumbles_over_everything_is_left_alone(rig: Rig) -> None:
    for data in small_series(FAILURES_MAX + 3):
        rig.deliver(data)
    rig.source.script("DELETE /instances/[^/]+$", Respond(500))
    with pytest.raises(SourceError):
        rig.sweep()
    assert rig.deletions == FAILURES_MAX


def test_evidence_that_changes_during_the_look_at_the_target_counts(rig: Rig) -> None:
    """The pipeline delivers a new version, or parks, while the target reads its file."""
    kept = rig.deliver(small_ct())
    parked = Parked(Move(kept, 1), Reason.PROOF_MISMATCH, "no", 1, 1.0, 1.0)

    class Meanwhile(SideClient):
        def verify_stored(self, instance_id: str) -> bool:
            rig.ledger.commit(Entry(parked=(parked,)))
            return super().verify_stored(instance_id)

    target = Meanwhile(rig.clients[1].endpoint)
    assert rig.sweep(sweeper=rig.sweeper_of(rig.clients[0], target)) == Sweep()
    assert kept in rig.at_source
    target.close()


class Clocks:
    def __init__(self) -> None:
        self.wall, self.steady, self.boot = 1_000_000.0, 50.0, "first"

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self) -> AgeClock:
        """A clock, as each start of the bridge makes one."""
        return AgeClock(
            now_s=lambda: self.wall, steady_s=lambda: self.steady, boot_id=lambda: self.boot
        )


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("jump_s", [0.0, 59.0, 1e8, -59.0, -1e8])
def test_a_clock_that_is_set_makes_nothing_older(
    rig: Rig, clocks: Clocks, restarts: bool, jump_s: float
) -> None:
    clock, passed_s = clocks.clock(), 0.0
    before = clock.now_s(rig.ledger)
    for _ in range(3):
        clocks.passes(1000)
        passed_s += 1000
        clocks.wall += jump_s
        clock = clocks.clock() if restarts else clock
        shown = clock.now_s(rig.ledger) - before
        assert 0 <= shown <= passed_s
        assert jump_s < 0 or shown == passed_s
        before, passed_s = before + shown, 0.0


def test_what_passes_while_the_machine_is_off_does_not_count(rig: Rig, clocks: Clocks) -> None:
    before = clocks.clock().now_s(rig.ledger)
    clocks.passes(1e7)
    clocks.boot, clocks.steady = "second", 1e8
    assert clocks.clock().now_s(rig.ledger) == before
    clocks.passes(10)
    assert clocks.clock().now_s(rig.ledger) == before + 10


def test_an_unknown_start_of_the_machine_is_no_start(rig: Rig, clocks: Clocks) -> None:
    clocks.boot = ""
    before = clocks.clock().now_s(rig.ledger)
    clocks.passes(1e7)
    assert clocks.clock().now_s(rig.ledger) == before


def test_a_look_at_the_clock_that_is_not_kept(rig: Rig, clocks: Clocks) -> None:
    clocks.clock().now_s(rig.ledger)
    clocks.passes(5)
    assert clocks.clock().now_s(rig.ledger, keep=False) == 5
    clocks.passes(5)
    assert clocks.clock().now_s(rig.ledger) == 10


class Seen:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: Progress) -> None:
        raise AssertionError(progress)


class NoHold(OperatorsHold):
    def __init__(self) -> None:
        super().__init__(Allowance(), SystemClock())


def runner_of(rig: Rig, seen: Seen, clocks: Clocks, *, retention_s: float = 3600.0) -> SweepRunner:
    rig.ledger.restart_at(0)
    return SweepRunner(
        state_path=rig.state_path,
        source=rig.clients[0],
        target=rig.clients[1],
        rules=RetentionRules(retention_s=retention_s, retention="1h"),
        token="",
        observer=seen,
        look_at_feed=lambda _: None,
        hold=NoHold(),
        trouble=lambda: 0,
        recorded=lambda: True,
        clock=clocks.clock(),
    )


def swept(seen: Seen) -> list[Event]:
    return [event for event in seen.events if not isinstance(event, SourceDeletes | SourceKept)]


def test_deletions_are_reported_though_the_sweep_ends_badly(rig: Rig, clocks: Clocks) -> None:
    for number, data in enumerate(small_series(3)):
        rig.deliver(data, at=float(number))
    last = rig.kept()[-1]
    rig.source.script(f"DELETE /instances/{last}$", Respond(403))
    seen = Seen()
    with pytest.raises(SideError):
        runner_of(rig, seen, clocks, retention_s=-10.0).sweep_once()
    assert swept(seen) == [SourceSwept(2, 1)]


def test_the_clock_of_sweeps_does_not_jump(rig: Rig, clocks: Clocks) -> None:
    kept = rig.deliver(small_ct())
    new = replace(rig.evidence(kept), aged_from=None, delivered_at=clocks.wall)
    rig.ledger.commit(Entry(kept=(new,)))
    sweeps = runner_of(rig, Seen(), clocks)
    assert sweeps.sweep_once() == Sweep()
    clocks.wall += 1e8
    assert sweeps.sweep_once() == Sweep()
    assert runner_of(rig, Seen(), clocks).sweep_once() == Sweep(), "nor after a restart"
    assert kept in rig.at_source
    clocks.passes(3600)
    assert sweeps.sweep_once().deleted == 1


def test_a_refused_deletion_is_said(
    rig: Rig, clocks: Clocks, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline does not meet this: its login may read everything."""
    monkeypatch.setattr("bridge.log.LOGGER.propagate", True)
    rig.deliver(small_ct(), at=0.0)
    rig.source.script("DELETE", Respond(403))
    seen = Seen()
    board = Board(rig.state_path, HealthLimits())
    sweeps = runner_of(rig, seen, clocks, retention_s=-10.0)
    sweeps.start()
    wait_until(lambda: "nothing is deleted at present" in caplog.text, "a complaint")
    failed = next(event for event in seen.events if isinstance(event, SweepFailed))
    board.on_event(failed)
    assert "retention_failing" in [finding.code for finding in board.problems()]
    assert "forbids this request" in caplog.text
    rig.source.behave()
    wait_until(lambda: SweepWorks() in seen.events, "it works again")
    sweeps.stop(10.0)
    board.on_event(SweepWorks())
    assert "retention_failing" not in [finding.code for finding in board.problems()]


def test_evidence_of_two_deliveries_is_that_of_the_last(rig: Rig) -> None:
    data = small_ct()
    kept = rig.deliver(data)
    row = rig.ledger.kept(aged_before=LATER, limit=1)[0]
    later = replace(row, delivered_at=LATER + 1, aged_from=LATER + 1)
    rig.ledger.commit(Entry(kept=(later,)))
    assert rig.sweep() == Sweep()
    assert rig.kept() == [kept]


DOWN = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "It is down.")


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (SideDown(DOWN), True),
        (SideStillDown(DOWN, 1.0), True),
        (SideUp(SideName.TARGET, 1.0), True),
        (FeedDoubted("It is another one."), True),
        (FeedTrusted(), True),
        (FeedReset("It is another one."), True),
        (SweepFailed("They lead to one server."), True),
        (SourceSwept(0, 1), True),
        (SourceSwept(3, 1), True),
        (SourceSwept(3, 0), False),
        (SweepWorks(), False),
    ],
)
def test_what_voids_a_proof(event: Event, counts: bool) -> None:
    """What a sweep meets counts too: servers at rest are compared every five minutes only."""
    trouble = Trouble()
    before = trouble.count()
    trouble.on_event(event)
    assert (trouble.count() != before) is counts


@pytest.mark.parametrize(("jump_s", "told"), [(JUMP_S, 0), (JUMP_S + 0.5, 1), (-1e6, 0)])
def test_a_clock_that_was_set_forward_is_told(
    rig: Rig, clocks: Clocks, caplog: pytest.LogCaptureFixture, jump_s: float, told: int
) -> None:
    clocks.clock().now_s(rig.ledger)
    clocks.passes(1000)
    clocks.wall += jump_s
    with caplog.at_level("WARNING"):
        clocks.clock().now_s(rig.ledger)
    assert caplog.text.count("the clock was set forward by") == told
