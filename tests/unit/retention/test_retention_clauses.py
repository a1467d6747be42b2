"""Each clause of the argument for a deletion (retention/sweep.py): it holds, or nothing goes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from bridge.errors import BridgeError, ConfigurationError, FeedWentBackwards, SideError, StateError
from bridge.events import SourceDeletes, SourceKept
from bridge.ledger.records import Attempts, DeliveryRecord, Entry
from bridge.ledger.store import Ledger
from bridge.marks import marks_on_record
from bridge.model import ServerInfo, SideName
from bridge.orthanc.answers import Statistics
from bridge.orthanc.session import SideClient
from bridge.retention import batch_proof, deletion_limits
from bridge.retention.batch_proof import PROOF_S
from bridge.retention.bridge_notes import (
    MIRRORS,
    NOBODY,
    NOTES_AWAITED,
    SETTLE_S,
    Role,
    bridge_id,
    forget_follower,
    name_of,
    role_at,
)
from bridge.retention.deletion_limits import COUNTED_AGAIN_S, DAY_S, HOUR_S, UNRECORDED, confirm
from bridge.retention.held_deletion import held_path
from bridge.retention.limits_and_risks import RetentionRules, Risk, refuse_shared_database
from bridge.retention.sweep import Sweep
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import FakeOrthanc, HangUp, Respond
from tests.unit.retention.test_retention import LATER, RULES, Rig, resent, rig

__all__ = ["rig"]

TOLD = {"MaximumStorageSize": 0, "MaximumPatientCount": 0, "MaximumStorageMode": "Recycle"}
PLUGIN = {"DatabaseBackendPlugin": "libOrthancPostgreSQLIndex.so"}


def deliver(rig: Rig, count: int) -> list[str]:
    return [rig.deliver(data, at=float(n)) for n, data in enumerate(small_series(count))]


def refused(rig: Rig, text: str, *, rules: RetentionRules = RULES) -> None:
    before = rig.at_source
    with pytest.raises(ConfigurationError, match=text):
        rig.sweep(sweeper=rig.sweeper_of(*rig.clients, rules=rules))
    assert rig.at_source == before
    assert rig.deletions == 0


# Nothing holds it


def test_what_a_deletion_without_an_answer_took_is_released(rig: Rig) -> None:
    """BRIDGE_MIRROR_DELETIONS, set later, would delete the last copy. Seen to fail before."""
    first, second, third = deliver(rig, 3)
    for instance_id in (first, second, third):
        kept = rig.evidence(instance_id)
        record = DeliveryRecord(instance_id, kept.source_md5, kept.target_md5, 1.0)
        rig.ledger.commit(Entry(delivered=(record,)))
    rig.source.script(f"DELETE /instances/{second}$", HangUp(worked=True))
    with suppress(BridgeError):
        rig.sweep()
    assert second not in rig.at_source
    found = rig.ledger.delivery_of(second)
    assert found is not None
    assert found.released


def test_a_hold_is_asked_for_before_each_deletion(rig: Rig) -> None:
    deliver(rig, 5)
    sweeper = rig.sweeper_of(
        *rig.clients, hold=lambda _: "paused" if len(rig.at_source) <= 3 else ""
    )
    assert rig.sweep(sweeper=sweeper) == Sweep(deleted=2, hold="paused")


def test_a_hold_that_begins_during_the_last_look(rig: Rig) -> None:
    second = deliver(rig, 3)[1]

    def held(_: Ledger) -> str:
        looked = any(f"/{second}/attachments/dicom/info" in r for r in rig.source.requests)
        return "paused" if looked else ""

    done = rig.sweep(sweeper=rig.sweeper_of(*rig.clients, hold=held))
    assert (done.deleted, done.hold) == (1, "paused")


def test_deletions_an_hour(rig: Rig) -> None:
    deliver(rig, 5)
    sweeper = rig.sweeper_of(*rig.clients, rules=replace(RULES, per_hour=2))
    assert rig.sweep(sweeper=sweeper) == Sweep(deleted=2, hold="limit of deletions an hour")
    assert rig.sweep(sweeper=sweeper, before=LATER + HOUR_S - 61).deleted == 0
    assert rig.sweep(sweeper=sweeper, before=LATER + HOUR_S + 60).deleted == 2
    unlimited = rig.sweeper_of(*rig.clients, rules=replace(RULES, per_hour=0))
    assert rig.sweep(sweeper=unlimited, before=LATER + HOUR_S + 60).deleted == 1


def test_a_share_of_the_source_in_a_day(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_limits, "SHARE_FROM", 2)
    deliver(rig, 10)
    sweeper = rig.sweeper_of(*rig.clients, rules=replace(RULES, day_share=0.5))
    with pytest.raises(ConfigurationError, match="until you allow it"):
        rig.sweep(sweeper=sweeper)
    assert len(rig.at_source) == 5
    with pytest.raises(ConfigurationError):
        rig.sweep(sweeper=sweeper, before=LATER + DAY_S - 60)
    confirm(rig.ledger, now=LATER)
    done = Sweep()
    with pytest.raises(ConfigurationError):
        rig.sweep(sweeper=sweeper, before=LATER + DAY_S + 1)
    assert done.deleted == 0, "a day is over"
    assert rig.sweep(sweeper=sweeper, before=LATER + DAY_S - 1).deleted == 5


def test_nothing_is_asked_between_the_last_look_and_the_deletion(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting takes a large source seconds, in which it may be sent anew, or lose its copy."""
    monkeypatch.setattr(deletion_limits, "SHARE_FROM", 0)
    monkeypatch.setattr(deletion_limits, "COUNTED_AGAIN_S", 0.0)
    deliver(rig, 5)
    asked: list[str] = []
    source = rig.clients[0]
    for name in ("statistics", "stored_file", "delete_instance"):
        call = getattr(source, name)

        def noted(*given: object, name: str = name, call: Any = call) -> Any:
            asked.append(name)
            return call(*given)

        monkeypatch.setattr(source, name, noted)
    sweeper = rig.sweeper_of(*rig.clients, rules=replace(RULES, day_share=0.9))
    rig.sweep(sweeper=sweeper)
    before = [asked[at - 1] for at, name in enumerate(asked) if name == "delete_instance"]
    assert len(before) >= 3
    assert set(before) == {"stored_file"}
    assert asked.count("statistics") >= 3


# Another server


def test_trouble_that_others_met_voids_the_proof(rig: Rig) -> None:
    deliver(rig, 4)
    sweeper = rig.sweeper_of(*rig.clients, trouble=lambda: len(rig.at_source) <= 2)
    assert rig.sweep(sweeper=sweeper).deleted == 4
    assert rig.marks == 2


def test_time_voids_the_proof(rig: Rig) -> None:
    deliver(rig, 4)
    sweeper = rig.sweeper_of(
        *rig.clients, steady_s=lambda: PROOF_S if len(rig.at_source) <= 2 else 0.0
    )
    assert rig.sweep(sweeper=sweeper).deleted == 4
    assert rig.marks == 2


def test_another_feed_stops_it_before_the_first_deletion(rig: Rig) -> None:
    deliver(rig, 2)

    def look(_: Ledger) -> None:
        raise FeedWentBackwards("another one")

    with pytest.raises(FeedWentBackwards):
        rig.sweep(sweeper=rig.sweeper_of(*rig.clients, look_at_feed=look))
    assert rig.deletions == 0


def test_a_mark_that_shows_at_the_target(rig: Rig) -> None:
    """Two servers on one database, whose files would have other names."""
    (instance,) = deliver(rig, 1)
    shared = rig.source.store.instances[instance].metadata
    rig.target.store.instances[instance].metadata = shared
    refused(rig, "a mark that was set at one is at the other")
    assert not any(name.isdigit() for name in shared)


def test_a_mark_that_may_not_be_set_is_told(rig: Rig) -> None:
    deliver(rig, 2)
    rig.source.script("PUT /instances", Respond(403))
    with pytest.raises(SideError, match="forbids this request"):
        rig.sweep()
    assert rig.deletions == 0


# Other files


@pytest.mark.parametrize("which", [0, 1, 2])
def test_both_name_one_file(rig: Rig, which: int) -> None:
    """One storage directory under a copied index."""
    instances = deliver(rig, 3)
    shared = rig.source.store.instances[instances[which]]
    rig.target.store.instances[instances[which]] = shared
    rig.ledger.commit(Entry(kept=(rig.evidence(instances[which], at=float(which)),)))
    assert rig.sweep() == Sweep(deleted=2, spared=1)
    assert rig.at_source == {instances[which]}
    assert rig.kept() == [instances[which]], "looked at again later"


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_file_that_is_another_one_than_was_proved(rig: Rig, side: str) -> None:
    """The same bytes in another file: rewritten, or of another server."""
    instances = deliver(rig, 3)
    server: FakeOrthanc = getattr(rig, side)
    server.store.instances[instances[1]].uuid = "another"
    assert rig.sweep() == Sweep(deleted=2, spared=1)
    assert rig.at_source == {instances[1]}


@pytest.mark.parametrize("side", ["source", "target"])
def test_other_bytes_in_a_file_of_the_same_name(rig: Rig, side: str) -> None:
    """A plugin may name files by what is in them: a name alone proves nothing."""
    series = list(small_series(3))
    instances = [rig.deliver(data, at=float(n)) for n, data in enumerate(series)]
    server: FakeOrthanc = getattr(rig, side)
    server.store.instances[instances[1]].data = resent(series[1])
    assert rig.sweep() == Sweep(deleted=2, spared=1)
    assert rig.at_source == {instances[1]}


def test_names_that_the_delivery_did_not_learn(rig: Rig) -> None:
    """Evidence of an older version: looked at once, and then its time begins anew."""
    (instance,) = deliver(rig, 1)
    old = replace(rig.evidence(instance, at=0.0), source_file="", target_file="")
    rig.ledger.commit(Entry(kept=(old,)))
    sweeper = rig.sweeper_of(*rig.clients, rules=replace(RULES, retention_s=100.0))
    assert rig.sweep(sweeper=sweeper) == Sweep()
    assert rig.sweep(sweeper=sweeper, before=LATER + 99) == Sweep()
    assert rig.sweep(sweeper=sweeper, before=LATER + 100).deleted == 1


class SharedFiles(SideClient):
    """A source whose deletions take the target's file along, whatever it is called."""

    rig: Rig

    def delete_instance(self, instance_id: str) -> bool:
        gone = super().delete_instance(instance_id)
        self.rig.target.script(f"POST /instances/{instance_id}/.*verify-md5", Respond(500))
        return gone


@pytest.fixture
def shared(rig: Rig) -> SharedFiles:
    client = SharedFiles(rig.clients[0].endpoint)
    client.rig = rig
    rig.clients.append(client)
    return client


def test_a_file_that_goes_with_the_first_deletion_is_given_back(
    rig: Rig, shared: SharedFiles
) -> None:
    instances = deliver(rig, 3)
    files = {i: rig.source.store.instances[i].data for i in instances}
    with pytest.raises(ConfigurationError, match="sent it back to the source"):
        rig.sweep(sweeper=rig.sweeper_of(shared, rig.clients[1]))
    assert {i: s.data for i, s in rig.source.store.instances.items()} == files
    assert rig.deletions == 1
    with pytest.raises(ConfigurationError, match="share their files"):
        rig.sweep()
    rig.target.behave()
    confirm(rig.ledger, now=LATER)
    assert rig.sweep().deleted == 2, "the third needs new proof"


def test_what_cannot_be_given_back_is_written_beside_the_ledger(
    rig: Rig, shared: SharedFiles
) -> None:
    (instance,) = deliver(rig, 1)
    data = rig.source.store.instances[instance].data
    rig.source.script("POST /instances$", Respond(403))
    with pytest.raises(ConfigurationError, match="saved it as"):
        rig.sweep(sweeper=rig.sweeper_of(shared, rig.clients[1]))
    path = rig.state_path.with_name(f"rescued-{instance}.dcm")
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_can_neither_be_given_back_nor_be_renamed_stays_where_it_is(
    rig: Rig, shared: SharedFiles
) -> None:
    """Nothing more is deleted, and the next sweep tries again."""
    (instance,) = deliver(rig, 1)
    stored = rig.source.store.instances[instance]
    rig.source.script("POST /instances$", Respond(403))
    names = (f"rescued-{instance}.dcm", f"rescued-{instance}-{stored.md5}.dcm")
    paths = [rig.state_path.with_name(name) for name in names]
    for path in paths:
        path.mkdir()
    sweeper = rig.sweeper_of(shared, rig.clients[1])
    for _ in range(2):
        with pytest.raises(StateError, match="neither send it back"):
            rig.sweep(sweeper=sweeper)
        assert held_path(rig.ledger).read_bytes() == stored.data
    paths[0].rmdir()
    with pytest.raises(ConfigurationError, match="saved it as"):
        rig.sweep(sweeper=sweeper)
    assert paths[0].read_bytes() == stored.data
    assert rig.deletions == 1


def test_a_large_file_is_not_held_and_that_is_said(
    rig: Rig, shared: SharedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_proof, "HELD_BYTES_MAX", 10)
    deliver(rig, 2)
    with pytest.raises(ConfigurationError, match="backup"):
        rig.sweep(sweeper=rig.sweeper_of(shared, rig.clients[1]))
    assert rig.deletions == 1


@pytest.mark.parametrize("lost", [True, False])
def test_a_first_deletion_that_could_not_be_verified_is_verified_next(rig: Rig, lost: bool) -> None:
    """The target goes down in that moment, and the bridge is started anew."""
    deliver(rig, 3)

    class Down(SideClient):
        def delete_instance(self, instance_id: str) -> bool:
            gone = super().delete_instance(instance_id)
            rig.target.script("POST", Respond(503))
            return gone

    source = Down(rig.clients[0].endpoint)
    rig.clients.append(source)
    with pytest.raises(SideError):
        rig.sweep(sweeper=rig.sweeper_of(source, rig.clients[1]))
    assert rig.deletions == 1
    rig.target.behave()
    if lost:
        rig.target.script("POST .*verify-md5", Respond(400))
        with pytest.raises(ConfigurationError, match="no longer has it"):
            rig.sweep()
        assert rig.deletions == 1
    else:
        assert rig.sweep().deleted == 2


# Holds these bytes


@pytest.mark.parametrize("which", [0, 1, 2])
def test_replaced_at_the_target_while_its_file_is_verified(rig: Rig, which: int) -> None:
    """With the MD5 asked before it, the second and third were deleted: nothing looks again."""
    series = list(small_series(3))
    instances = [rig.deliver(data, at=float(n)) for n, data in enumerate(series)]

    class Replaced(SideClient):
        def verify_stored(self, instance_id: str) -> bool:
            if instance_id == instances[which]:
                rig.target.put(resent(series[which]))
            return super().verify_stored(instance_id)

    target = Replaced(rig.clients[1].endpoint)
    rig.clients.append(target)
    assert rig.sweep(sweeper=rig.sweeper_of(rig.clients[0], target)).deleted == 2
    assert rig.at_source == {instances[which]}


def test_every_deletion_is_told_before_it_with_its_evidence(rig: Rig) -> None:
    instances = deliver(rig, 3)
    evidence = [rig.evidence(i) for i in instances]
    rig.sweep()
    told = [event for event in rig.events if isinstance(event, SourceDeletes)]
    assert [event.instance_id for event in told] == instances
    for event, kept in zip(told, evidence, strict=True):
        assert (event.source_file, event.target_file) == (kept.source_file, kept.target_file)
        assert (event.source_md5, event.target_md5) == (kept.source_md5, kept.target_md5)


# Will keep them


@pytest.mark.parametrize(
    ("told", "risk"),
    [
        (TOLD | {"MaximumPatientCount": 9}, Risk.TARGET_RECYCLES),
        (TOLD | {"MaximumStorageSize": 9}, Risk.TARGET_RECYCLES),
        (TOLD | {"MaximumPatientCount": 9, "MaximumStorageMode": "Reject"}, None),
        (TOLD | {"ReadOnly": True}, Risk.TARGET_READ_ONLY),
        (TOLD, None),
    ],
)
def test_a_target_that_may_not_keep_them(
    fake_orthanc: Callable[..., FakeOrthanc], rig: Rig, told: dict[str, object], risk: Risk | None
) -> None:
    rig.target.stop()
    rig.target = fake_orthanc(system=told)
    rig.clients[1] = SideClient(replace(rig.clients[1].endpoint, url=rig.target.url))
    deliver(rig, 2)
    if risk is not None:
        refused(rig, f"BRIDGE_RETENTION_RISK={risk}")
        rules = replace(RULES, risks=frozenset({str(risk)}))
    else:
        rules = RULES
    assert rig.sweep(sweeper=rig.sweeper_of(*rig.clients[:2], rules=rules)).deleted == 2
    assert rig.target.store.protected == set()


@pytest.mark.parametrize("side", SideName)
@pytest.mark.parametrize("other", [Risk.UNREGISTERED, Risk.TARGET_EMPTIED])
def test_other_orthancs_may_serve_a_database(
    fake_orthanc: Callable[..., FakeOrthanc], rig: Rig, side: SideName, other: Risk
) -> None:
    """A bridge at one of them does not see the note of a bridge at another: 10 of 10 were lost."""
    at = list(SideName).index(side)
    [rig.source, rig.target][at].stop()
    server = fake_orthanc(system=PLUGIN)
    setattr(rig, side, server)
    rig.clients[at] = SideClient(replace(rig.clients[at].endpoint, url=server.url))
    deliver(rig, 2)
    said = f"The {side} has its index in a database"
    refused(rig, said)
    refused(rig, said, rules=replace(RULES, risks=frozenset({str(other)})))
    found = rig.sweeper_of(*rig.clients).refusals(rig.ledger, now=LATER)
    assert [error.message.startswith(said) for error in found] == [True], "a dry run says it too"
    rules = replace(RULES, risks=frozenset({str(Risk.SHARED_DATABASE)}))
    assert rig.sweep(sweeper=rig.sweeper_of(*rig.clients[:2], rules=rules)).deleted == 2


SQLITE = ServerInfo("1", 1, has_extended_changes=False)
DATABASE = replace(SQLITE, database_backend="a plugin")


@pytest.mark.parametrize("accepted", [(), (Risk.UNREGISTERED,), (Risk.SHARED_DATABASE,)])
@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (SQLITE, SQLITE, ""),
        (DATABASE, SQLITE, "The source has its index in a database"),
        (SQLITE, DATABASE, "The target has its index in a database"),
        (DATABASE, DATABASE, "The source and the target have their indexes in a database"),
        # Whatever the plugin calls itself.
        (replace(SQLITE, database_backend=""), SQLITE, "The source has its index in a database"),
    ],
)
def test_when_a_database_may_be_shared(
    source: ServerInfo, target: ServerInfo, accepted: tuple[Risk, ...], said: str
) -> None:
    rules = RetentionRules(0.0, risks=frozenset(map(str, accepted)))
    if not said or Risk.SHARED_DATABASE in accepted:
        refuse_shared_database(rules, source, target)
        return
    with pytest.raises(ConfigurationError, match=said) as refusal:
        refuse_shared_database(rules, source, target)
    assert "BRIDGE_RETENTION_RISK=shared-database" in str(refusal.value.advice)


def test_a_target_that_does_not_tell_protects_each_patient(rig: Rig) -> None:
    instances = [rig.deliver(small_ct(patient_id=f"P{n}"), at=float(n)) for n in range(3)]
    patients = {rig.target.store.instances[i].parents[2] for i in instances}
    assert rig.sweep().deleted == 3
    assert rig.target.store.protected == patients


def test_a_target_that_neither_tells_nor_protects(rig: Rig) -> None:
    deliver(rig, 2)
    rig.target.script("PUT /patients", Respond(403))
    refused(rig, "does not allow the bridge to protect")
    rules = replace(RULES, risks=frozenset({"target-limits-untold"}))
    assert rig.sweep(sweeper=rig.sweeper_of(*rig.clients, rules=rules)).deleted == 2


# Nobody else


def test_another_bridge_that_was_seen_once_is_remembered(rig: Rig) -> None:
    deliver(rig, 3)
    rig.source.store.peers[name_of(Role.FOLLOWS, "other")] = NOBODY + "keep"
    refused(rig, "Another bridge follows this source .other.")
    rig.source.store.peers.clear()
    refused(rig, "Another bridge follows this source .other.")
    assert forget_follower(rig.ledger, "other")
    assert not forget_follower(rig.ledger, "other")
    assert rig.sweep().hold == NOTES_AWAITED, "our note was cleared too"
    assert rig.sweep(before=LATER + SETTLE_S).deleted == 3


@pytest.mark.parametrize("which", [0, 1, 2])
def test_another_bridge_that_comes_in_mid_batch(rig: Rig, which: int) -> None:
    deliver(rig, 4)

    class Joined(SideClient):
        def peers(self) -> dict[str, str]:
            if len(rig.at_source) <= 4 - which:
                rig.source.store.peers[name_of(Role.FOLLOWS, "other")] = NOBODY + "keep"
            return super().peers()

    source = Joined(rig.clients[0].endpoint)
    rig.clients.append(source)
    with pytest.raises(ConfigurationError, match="other"):
        rig.sweep(sweeper=rig.sweeper_of(source, rig.clients[1]))
    assert rig.deletions == which


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("side", SideName)
def test_a_server_that_forgot_the_notes_is_waited_for(
    rig: Rig, side: SideName, killed: bool
) -> None:
    """``killed``: the process that left the note anew; the next one finds it and waits too."""
    deliver(rig, 3)
    server = rig.source if side is SideName.SOURCE else rig.target
    own = name_of(role_at(side), bridge_id(rig.ledger))
    rig.sweep(before=0.5)
    assert own in server.store.peers
    server.store.peers.clear()
    assert rig.sweep().deleted == 0
    assert own in server.store.peers
    sweeper = rig.sweeper_of(*rig.clients) if killed else rig.sweeper
    assert rig.sweep(before=LATER + 1, sweeper=sweeper).deleted == 0
    assert rig.sweep(before=LATER + SETTLE_S, sweeper=sweeper).deleted == 0
    assert rig.sweep(before=LATER + 1 + SETTLE_S, sweeper=sweeper).deleted == 2


@pytest.mark.parametrize("status", [401, 403, 500])
def test_notes_that_may_not_be_left_and_a_risk_that_is_accepted(rig: Rig, status: int) -> None:
    """The first refusal was taken for a note that was there: it waited for ever."""
    deliver(rig, 3)
    rig.source.script("PUT /peers/orthanc-bridge-follows", Respond(status))
    rules = replace(RULES, risks=frozenset({"unregistered"}))
    assert rig.sweep(sweeper=rig.sweeper_of(*rig.clients, rules=rules)).deleted == 3


def test_a_bridge_that_empties_the_target(rig: Rig) -> None:
    deliver(rig, 2)
    rig.target.store.peers[name_of(Role.FOLLOWS, "next")] = NOBODY + "24h"
    refused(rig, "BRIDGE_RETENTION_RISK=target-emptied")
    rules = replace(RULES, risks=frozenset({"target-emptied"}))
    rig.source.store.peers[name_of(Role.DELIVERS, "next")] = NOBODY + "24h"
    refused(rig, "opposite way", rules=rules)
    del rig.source.store.peers[name_of(Role.DELIVERS, "next")]
    assert rig.sweep(sweeper=rig.sweeper_of(*rig.clients, rules=rules)).deleted == 2


@pytest.mark.parametrize("end", ["", "/"])
def test_a_bridge_that_mirrors_deletions_to_the_target(rig: Rig, end: str) -> None:
    """Its source had dropped what both had delivered: it deleted the only copy left."""
    deliver(rig, 3)
    rig.target.store.peers[name_of(Role.DELIVERS, "third")] = NOBODY + MIRRORS + end
    refused(rig, "BRIDGE_RETENTION_RISK=target-emptied")
    rules = replace(RULES, risks=frozenset({"target-emptied"}))
    assert rig.sweep(sweeper=rig.sweeper_of(*rig.clients, rules=rules)).deleted == 3


def test_another_bridge_that_delivers_to_the_target_is_no_trouble(rig: Rig) -> None:
    deliver(rig, 3)
    rig.target.store.peers[name_of(Role.DELIVERS, "third")] = NOBODY + "24h"
    rig.target.store.peers[name_of(Role.DELIVERS, bridge_id(rig.ledger))] = NOBODY + MIRRORS
    assert rig.sweep().deleted == 3


@pytest.mark.parametrize("said", ["keep", "keep/"])
def test_a_bridge_that_keeps_at_the_target_is_no_trouble(rig: Rig, said: str) -> None:
    """Orthanc ends the address of a peer with a slash: it was taken for one that deletes."""
    deliver(rig, 2)
    rig.target.store.peers[name_of(Role.FOLLOWS, "next")] = NOBODY + said
    rig.target.store.peers["somebody"] = "http://127.0.0.1:8042"
    assert rig.sweep().deleted == 2


def test_its_own_note_at_the_target(rig: Rig) -> None:
    deliver(rig, 2)
    rig.target.store.peers[name_of(Role.FOLLOWS, bridge_id(rig.ledger))] = NOBODY + "0s"
    refused(rig, "says that this bridge follows the target")


@pytest.mark.parametrize("side", ["source", "target"])
def test_notes_that_may_not_be_read(rig: Rig, side: str) -> None:
    deliver(rig, 2)
    getattr(rig, side).script("GET /peers", Respond(403))
    refused(rig, "BRIDGE_RETENTION_RISK=unregistered")
    rules = replace(RULES, risks=frozenset({"unregistered"}))
    assert rig.sweep(sweeper=rig.sweeper_of(*rig.clients, rules=rules)).deleted == 2


def test_a_dry_run_tells_all_and_changes_nothing(rig: Rig) -> None:
    goes, differs, unfinished, unlearned, young = deliver(rig, 5)
    rig.target.store.instances[differs].uuid = "another"
    rig.ledger.commit(Entry(kept=(rig.evidence(young, at=LATER + 1),)))
    rig.ledger.commit(Entry(attempts={unfinished: Attempts(1, 1.0)}))
    rig.ledger.commit(Entry(kept=(replace(rig.evidence(unlearned), target_file=""),)))
    rig.source.store.peers[name_of(Role.FOLLOWS, "other")] = NOBODY + "keep"
    rig.source.requests.clear()
    rig.target.requests.clear()
    told = {kept.instance_id: why for kept, why in rig.sweeper.explain(rig.ledger, now=LATER)}
    assert told[goes] == ""
    assert "not the one that was proved" in told[differs]
    assert "not old enough" in told[young]
    assert told[unfinished] == "parked or unfinished"
    assert "not known until now" in told[unlearned]
    assert "other" in " ".join(map(str, rig.sweeper.refusals(rig.ledger, now=LATER)))
    asked = rig.source.requests + rig.target.requests
    assert not any(r.startswith(("PUT", "DELETE")) or r == "POST /instances" for r in asked)
    assert list(told) == sorted((goes, differs, unfinished, unlearned, young))


def test_what_may_be_read_counts_also_where_the_rest_may_not(rig: Rig) -> None:
    """The target's notes are closed to us: another bridge at the source was overlooked."""
    deliver(rig, 2)
    rules = replace(RULES, risks=frozenset({"unregistered"}))
    rig.target.script("GET /peers", Respond(403))
    rig.source.store.peers[name_of(Role.FOLLOWS, "other")] = NOBODY + "keep"
    refused(rig, "Another bridge follows this source .other.", rules=rules)


def test_another_bridge_is_remembered_while_nothing_is_due(rig: Rig) -> None:
    deliver(rig, 2)
    rig.source.store.peers[name_of(Role.FOLLOWS, "other")] = NOBODY + "keep"
    assert rig.sweep(before=-1.0) == Sweep()
    rig.source.store.peers.clear()
    refused(rig, "Another bridge follows this source .other.")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_nothing_is_deleted_that_cannot_be_put_on_record(rig: Rig, which: int) -> None:
    deliver(rig, 4)

    def recorded() -> bool:
        return sum(isinstance(event, SourceDeletes) for event in rig.events) <= which

    sweeper = rig.sweeper_of(*rig.clients, recorded=recorded)
    done = rig.sweep(sweeper=sweeper)
    assert (done.deleted, done.hold) == (which, UNRECORDED)
    assert rig.deletions == which
    assert isinstance(rig.events[-1], SourceKept)
    told = len(rig.events)
    assert rig.sweep(sweeper=sweeper).hold == UNRECORDED
    assert len(rig.events) == told, "it is not announced again and again"


def test_a_proof_is_made_on_new_connections(rig: Rig) -> None:
    """An open one may lead to where the address led before: a forwarder, DNS, a balancer."""
    deliver(rig, 3)

    class Pinned(SideClient):
        closed = 0

        def close(self) -> None:
            type(self).closed += 1
            super().close()

    target = Pinned(rig.clients[1].endpoint)
    rig.clients.append(target)
    assert rig.sweep(sweeper=rig.sweeper_of(rig.clients[0], target)).deleted == 3
    assert Pinned.closed == 1


def test_a_share_of_a_day_is_told_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_limits, "SHARE_FROM", 2)
    deliver(rig, 4)
    sweeper = rig.sweeper_of(*rig.clients, rules=replace(RULES, day_share=0.5, per_hour=3))
    assert sweeper.left_this_hour(rig.ledger, LATER) == 3
    assert not list(sweeper.refusals(rig.ledger, now=LATER))
    with pytest.raises(ConfigurationError):
        rig.sweep(sweeper=sweeper)
    assert sweeper.left_this_hour(rig.ledger, LATER) == 1
    (error,) = sweeper.refusals(rig.ledger, now=LATER)
    assert "until you allow it" in str(error)


class Killed(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("replaced", [False, True])
def test_a_mark_of_a_process_that_was_killed_is_removed_by_the_next(
    rig: Rig, replaced: bool
) -> None:
    """``replaced``: somebody has given its number a value of their own."""
    instance, _ = deliver(rig, 2)

    class Killing(SideClient):
        def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
            raise Killed(instance_id, name, etag)

    killed = Killing(rig.clients[0].endpoint)
    rig.clients.append(killed)
    metadata = rig.source.store.instances[instance].metadata
    before = dict(metadata)
    with pytest.raises(Killed):
        rig.sweep(sweeper=rig.sweeper_of(killed, rig.clients[1]))
    (number,) = set(metadata) - set(before)
    others = {number if replaced else "5000": "somebody's own"}
    metadata |= others
    assert rig.sweep(before=-1.0) == Sweep()
    assert metadata == before | others


@pytest.mark.parametrize("times", [1, 2, 3])
def test_no_mark_that_could_not_be_removed_is_forgotten_for_another_one(
    rig: Rig, times: int
) -> None:
    """The server fails at its removal, and the same batch goes on with the next instance."""
    instances = deliver(rig, 3)
    metadata = [rig.source.store.instances[instance].metadata for instance in instances]
    rig.source.script(r"DELETE /instances/[^/]+/metadata/", Respond(500), times=times)
    assert rig.sweep().spared == times
    rig.sweep(before=LATER * 2)
    assert not [name for names in metadata for name in names if name.isdigit()]
    assert not marks_on_record(rig.ledger)


def test_what_the_source_held_is_counted_again_every_ten_minutes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share is of what is there now: a source that was filled meanwhile may lose more."""
    monkeypatch.setattr(deletion_limits, "SHARE_FROM", 0)
    deliver(rig, 3)
    steady_s, counted = 100.0, []

    class Counting(SideClient):
        def statistics(self) -> Statistics:
            counted.append(steady_s)
            return super().statistics()

    source = Counting(rig.clients[0].endpoint)
    rig.clients.append(source)
    limits = deletion_limits.DeletionLimits(
        source,
        replace(RULES, day_share=0.9),
        hold=lambda _ledger: "",
        recorded=lambda: True,
        steady_s=lambda: steady_s,
    )
    for passed_s in (0.0, COUNTED_AGAIN_S - 0.5, 0.5, 1.0, COUNTED_AGAIN_S):
        steady_s += passed_s
        limits.refuse_share(rig.ledger, LATER)
    assert counted == [100.0, 100.0 + COUNTED_AGAIN_S, 101.0 + 2 * COUNTED_AGAIN_S]
