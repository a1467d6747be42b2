"""What follows a deletion at the target later: a trial a day, and samples of what was deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.errors import ConfigurationError, SideError
from bridge.ledger.records import Kept
from bridge.ledger.store import Ledger
from bridge.retention.deleted_samples import (
    APART_S,
    IDLE_S,
    LOOKED_AT,
    SAMPLED_S,
    SAMPLES_MAX,
    DeletedSample,
    samples_of,
    thinned,
)
from bridge.retention.deletion_limits import confirm
from bridge.retention.held_deletion import (
    ON_TRIAL,
    TRIED_AGAIN_S,
    held_path,
    take_over,
    why_unverified,
)
from bridge.retention.sweep import Sweep, Sweeper
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import Respond
from tests.unit.retention.test_retention import LATER, RULES, Clocks, Rig, clocks, rig
from tests.unit.retention.test_retention_clauses import SharedFiles, deliver, shared

__all__ = ["Clocks", "clocks", "rig", "shared"]

TRIAL_S = 60.0
ON = replace(RULES, trial_s=TRIAL_S)
ACCEPTED = replace(ON, risks=frozenset({"target-emptied"}))
VERIFY = "POST /instances/[^/]+/attachments/dicom/verify-md5"


def trying(rig: Rig) -> Sweeper:
    """Make a sweeper, of another process each time."""
    return rig.sweeper_of(*rig.clients[:2], rules=ON)


def lose(rig: Rig, *instances: str) -> None:
    for instance in instances:
        rig.target.store.delete(instance)


class PartlyShared(SharedFiles):
    """A source that shares the files of some instances with the target."""

    linked: str = ""

    def delete_instance(self, instance_id: str) -> bool:
        if instance_id == self.linked:
            return super().delete_instance(instance_id)
        return super(SharedFiles, self).delete_instance(instance_id)


@pytest.mark.parametrize("at", [0, 2, 4], ids=["first", "middle", "last"])
def test_files_of_which_some_are_shared(rig: Rig, at: int) -> None:
    """Lost were all that were linked, when the first deletion of a batch met another one.

    Planted, seen to fail: only the first of a batch is held and verified.
    """
    instances = [rig.deliver(data, at=float(n)) for n, data in enumerate(small_series(5))]
    files = {i: s.data for i, s in rig.source.store.instances.items()}
    source = PartlyShared(rig.clients[0].endpoint)
    source.rig, source.linked = rig, instances[at]
    rig.clients.append(source)
    with pytest.raises(ConfigurationError, match="sent it back to the source"):
        rig.sweep(sweeper=rig.sweeper_of(source, rig.clients[1]))
    assert rig.deletions == at + 1
    left = instances[at:]
    assert {i: s.data for i, s in rig.source.store.instances.items()} == {i: files[i] for i in left}


def test_one_deletion_a_day_is_on_trial(rig: Rig) -> None:
    """Planted, seen to fail: no trial; it ends too early; each deletion has one; never again."""
    deliver(rig, 5)
    assert rig.sweep(sweeper=trying(rig)) == Sweep(deleted=1, hold=ON_TRIAL)
    assert why_unverified(rig.ledger) == ON_TRIAL
    for passed_s in (0.0, TRIAL_S / 2, TRIAL_S - 0.1):
        assert rig.sweep(sweeper=trying(rig), before=LATER + passed_s) == Sweep(hold=ON_TRIAL)
        assert held_path(rig.ledger).exists()
    assert rig.sweep(sweeper=trying(rig), before=LATER + TRIAL_S).deleted == 4
    assert not held_path(rig.ledger).exists()
    assert why_unverified(rig.ledger) == ""
    deliver(rig, 3)
    ended = LATER + TRIAL_S
    assert rig.sweep(sweeper=trying(rig), before=ended + TRIED_AGAIN_S - 1).deleted == 3
    deliver(rig, 3)
    again = rig.sweep(sweeper=trying(rig), before=ended + TRIED_AGAIN_S)
    assert again == Sweep(deleted=1, hold=ON_TRIAL)


@pytest.mark.parametrize("lost_after_s", [1.0, TRIAL_S - 0.1, TRIAL_S])
def test_what_follows_within_the_trial_costs_nothing(rig: Rig, lost_after_s: float) -> None:
    """Lost were all of them: the target read its file at once, and lost it seconds later.

    Planted, seen to fail: the end of a trial does not look; its bytes go when it begins.
    """
    instances = deliver(rig, 3)
    files = {i: s.data for i, s in rig.source.store.instances.items()}
    rig.sweep(sweeper=trying(rig))
    (tried,) = set(instances) - rig.at_source
    rig.sweep(sweeper=trying(rig), before=LATER + lost_after_s / 2)
    lose(rig, tried)
    with pytest.raises(ConfigurationError, match="sent it back to the source"):
        rig.sweep(sweeper=trying(rig), before=LATER + lost_after_s)
    assert {i: s.data for i, s in rig.source.store.instances.items()} == files
    assert rig.deletions == 1
    confirm(rig.ledger, now=LATER)
    rig.target.put(files[tried])
    assert rig.sweep(sweeper=trying(rig), before=LATER + 200).hold == ON_TRIAL, "a new trial"


def test_one_that_a_sender_stores_again_ends_its_trial(rig: Rig) -> None:
    """It is not a deletion that was answered and not done. The next one is on trial.

    Planted, seen to fail: it is taken for one.
    """
    instances = deliver(rig, 3)
    files = {i: s.data for i, s in rig.source.store.instances.items()}
    rig.sweep(sweeper=trying(rig))
    (tried,) = set(instances) - rig.at_source
    rig.source.put(files[tried])
    assert rig.sweep(sweeper=trying(rig), before=LATER + 1) == Sweep(deleted=1, hold=ON_TRIAL)
    assert tried in rig.at_source


def test_a_source_that_does_not_tell_keeps_a_trial(rig: Rig) -> None:
    """It was stored again, and its file is not told: nothing is believed of it."""
    instances = deliver(rig, 3)
    files = {i: s.data for i, s in rig.source.store.instances.items()}
    rig.sweep(sweeper=trying(rig))
    (tried,) = set(instances) - rig.at_source
    rig.source.put(files[tried])
    rig.source.script("GET /instances/[^/]+/attachments/dicom/info", Respond(404))
    for passed_s in (1.0, TRIAL_S + 1):
        assert rig.sweep(sweeper=trying(rig), before=LATER + passed_s) == Sweep(hold=ON_TRIAL)
    rig.source.behave()
    after = rig.sweep(sweeper=trying(rig), before=LATER + TRIAL_S + 2)
    assert after == Sweep(deleted=1, hold=ON_TRIAL)


def test_a_restored_state_file_begins_the_trial_anew(rig: Rig) -> None:
    """Its clock of ages is another one. Planted, seen to fail: the time of the old one counts."""
    deliver(rig, 3)
    rig.sweep(sweeper=trying(rig))
    take_over(rig.ledger, rig.ledger)
    assert rig.sweep(sweeper=trying(rig), before=1.0 + LATER).hold == ON_TRIAL
    assert rig.sweep(sweeper=trying(rig), before=LATER + TRIAL_S + 0.5).hold == ON_TRIAL
    assert rig.sweep(sweeper=trying(rig), before=LATER + TRIAL_S + 1).deleted == 2


# Samples


def swept(rig: Rig, *, count: int, step_s: float = APART_S) -> tuple[list[str], float]:
    """Delete instances one by one, so far apart; returns them and the time."""
    now, instances = LATER, []
    for number in range(count):
        instances.append(rig.deliver(small_ct(), at=float(number)))
        assert rig.sweep(before=now).deleted == 1
        now += step_s
    return instances, now


def looked_at(rig: Rig) -> list[str]:
    """Return the instances whose files the target was asked to read since the last question."""
    asked = [r.split("/")[2] for r in rig.target.requests if "verify-md5" in r]
    rig.target.requests.clear()
    return asked


@pytest.mark.parametrize("lost", [0, 2, 4], ids=["first", "middle", "last"])
def test_what_was_deleted_before_is_looked_at_before_a_batch(rig: Rig, lost: int) -> None:
    """Planted, seen to fail: no look; the same ones each time; a loss is not told."""
    instances, now = swept(rig, count=5)
    rig.deliver(small_ct())
    looked_at(rig)
    lose(rig, instances[lost])
    told = ""
    for _ in range(2):
        rig.deliver(small_ct())
        try:
            rig.sweep(before=now)
        except ConfigurationError as exc:
            told = str(exc)
            break
    assert f"Instance {instances[lost]}" in told
    assert "is lost at the target" in told
    assert "target-emptied" in told
    deleted = rig.deletions
    with pytest.raises(ConfigurationError, match="is lost at the target"):
        rig.sweep(before=now)
    assert rig.deletions == deleted
    confirm(rig.ledger, now=now)
    assert rig.sweep(before=now).deleted >= 1, "a person has said so"


def test_those_that_were_looked_at_longest_ago_come_first(rig: Rig) -> None:
    instances, now = swept(rig, count=7)
    seen: list[str] = []
    for _ in range(3):
        instance = rig.deliver(small_ct())
        looked_at(rig)
        rig.sweep(before=now)
        looks = [one for one in looked_at(rig) if one != instance]
        assert len(looks) == LOOKED_AT
        seen += looks
        now += APART_S
    assert set(instances) <= set(seen)


def test_while_nothing_is_due_each_is_looked_at_now_and_then(rig: Rig) -> None:
    """What is lost is told although nothing more is to be deleted.

    Planted, seen to fail: nothing is looked at; at each sweep.
    """
    instances, now = swept(rig, count=2)
    looked_at(rig)
    for later_s in (0.0, IDLE_S / 2):
        rig.sweep(before=now - APART_S + later_s)
    assert looked_at(rig) == []
    lose(rig, instances[0])
    with pytest.raises(ConfigurationError, match="is lost at the target"):
        rig.sweep(before=now + IDLE_S)


def test_an_operator_may_accept_that_others_delete_at_the_target(rig: Rig) -> None:
    instances, now = swept(rig, count=3)
    rig.deliver(small_ct())
    lose(rig, *instances)
    sweeper = rig.sweeper_of(*rig.clients[:2], rules=replace(ACCEPTED, trial_s=0.0))
    assert rig.sweep(sweeper=sweeper, before=now).deleted == 1


def test_after_a_day_it_is_no_sample_any_more(rig: Rig) -> None:
    instances, now = swept(rig, count=3)
    lose(rig, *instances)
    assert rig.sweep(before=now + SAMPLED_S) == Sweep()


def test_a_target_that_is_down_has_lost_nothing(rig: Rig) -> None:
    _, now = swept(rig, count=3)
    rig.deliver(small_ct())
    rig.target.script(VERIFY, Respond(503))
    with pytest.raises(SideError):
        rig.sweep(before=now)
    rig.target.behave()
    assert rig.sweep(before=now).deleted == 1


def test_one_that_was_sent_anew_and_delivered_anew_is_not_lost(rig: Rig) -> None:
    """The target holds other bytes under its name by now."""
    instances, now = swept(rig, count=3)
    rig.target.store.instances[instances[1]].data += b"\0\0"
    rig.deliver(small_ct())
    assert rig.sweep(before=now).deleted == 1


def test_the_samples_are_spread_and_bounded() -> None:
    """The newest and the oldest stay. Planted, seen to fail: the oldest go; no bound."""
    samples: list[DeletedSample] = []
    for number in range(5000):
        kept = Kept(f"i{number}", "", "", 0.0)
        samples = thinned([*samples, DeletedSample(kept, float(number), 0.0)])
        assert len(samples) <= SAMPLES_MAX
    at = [sample.at for sample in samples]
    assert at == sorted(at)
    assert (at[0], at[-1]) == (0.0, 4999.0)
    assert sum(when > 4900 for when in at) >= SAMPLES_MAX // 4
    assert any(100 < when < 4000 for when in at)


def test_many_deletions_at_once_are_one_sample(rig: Rig) -> None:
    deliver(rig, 20)
    assert rig.sweep().deleted == 20
    assert len(samples_of(rig.ledger)) == 1


def test_no_ledger_of_an_older_version_has_samples(rig: Rig) -> None:
    with Ledger(rig.state_path.with_name("other.sqlite3")) as ledger:
        assert samples_of(ledger) == []
