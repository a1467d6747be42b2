"""A kill around the first deletion of a batch, where both servers share their files unseen."""

from __future__ import annotations

import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError, SideError, StateError, side_error
from bridge.events import Event, SourceKept, SweepFailed, SweepWaits, SweepWorks
from bridge.ledger.records import Entry
from bridge.ledger.store import Ledger
from bridge.model import SideName, SideProblem, StoreAnswer
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.retention import held_deletion
from bridge.retention.deletion_limits import confirm
from bridge.retention.held_deletion import (
    FATE_AWAITED,
    FATE_S,
    UNVERIFIED_KEY,
    given_back,
    held_path,
    retry_s,
)
from bridge.retention.limits_and_risks import NEVER_OLD_ENOUGH
from bridge.retention.sweep import Sweep, is_unfinished
from tests.bridge_process import wait_until
from tests.dicom_samples import small_series
from tests.fake_orthanc import Respond
from tests.unit.retention.test_retention import (
    LATER,
    RULES,
    Clocks,
    Rig,
    Seen,
    clocks,
    rig,
    runner_of,
)
from tests.unit.retention.test_retention_clauses import SharedFiles, deliver, shared

__all__ = ["clocks", "rig", "shared"]


class Killed(BaseException):
    """The process is killed here."""


class KilledBefore(SharedFiles):
    """Killed with all written, before the request is sent."""

    def delete_instance(self, instance_id: str) -> bool:
        raise Killed(instance_id)


class KilledAfter(SharedFiles):
    """Killed before the answer is read."""

    def delete_instance(self, instance_id: str) -> bool:
        super().delete_instance(instance_id)
        raise Killed


class TimedOut(SharedFiles):
    """The server hangs, and does it later."""

    def delete_instance(self, instance_id: str) -> bool:
        raise side_error(SideName.SOURCE, SideProblem.TIMED_OUT, instance_id)


def hanging(rig: Rig, kind: type[SharedFiles]) -> SharedFiles:
    client = kind(rig.clients[0].endpoint)
    client.rig = rig
    rig.clients.append(client)
    return client


def sweep_until_killed(rig: Rig, kind: type[SharedFiles]) -> None:
    with pytest.raises(Killed):
        rig.sweep(sweeper=rig.sweeper_of(hanging(rig, kind), rig.clients[1]))


@pytest.mark.parametrize("due", [True, False])
def test_the_next_process_gives_back_what_the_killed_one_held(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, due: bool
) -> None:
    """It was lost: the bytes were in the memory of the process that was killed.

    ``due``: whether there is something to delete for the next one, or retention is switched off.
    """
    instances = deliver(rig, 3)
    files = {i: rig.source.store.instances[i].data for i in instances}
    sweep_until_killed(rig, KilledAfter)
    assert len(rig.at_source) == 2
    held = held_path(rig.ledger)
    assert stat.S_IMODE(held.stat().st_mode) == 0o600
    assert is_unfinished(rig.ledger)
    rules = RULES if due else NEVER_OLD_ENOUGH
    source, target = rig.clients[:2]
    noted: list[str] = []
    store = source.store_instance

    def storing(data: bytes) -> StoreAnswer:
        noted.append(given_back(rig.ledger))
        return store(data)

    monkeypatch.setattr(source, "store_instance", storing)
    (gone,) = set(files) - rig.at_source
    assert given_back(rig.ledger) == ""
    with pytest.raises(ConfigurationError, match="sent it back to the source"):
        rig.sweep(sweeper=rig.sweeper_of(source, target, rules=rules))
    assert noted == [gone], "the pipeline may read its row at once, and must know it"
    assert {i: s.data for i, s in rig.source.store.instances.items()} == files
    assert rig.deletions == 1
    assert not held.exists()
    assert not is_unfinished(rig.ledger)
    with pytest.raises(ConfigurationError, match="share their files"):
        rig.sweep()


def test_nothing_is_deleted_before_the_last_first_deletion_is_verified(rig: Rig) -> None:
    instances = deliver(rig, 3)
    sweep_until_killed(rig, KilledAfter)
    rig.target.behave()
    rig.target.script("POST /instances/.*verify-md5", Respond(503))
    for _ in range(3):
        with pytest.raises(SideError):
            rig.sweep()
    assert rig.deletions == 1
    assert held_path(rig.ledger).exists()
    rig.target.behave()
    assert rig.sweep().deleted == 2
    assert not held_path(rig.ledger).exists()
    assert set(instances) == set(rig.target.store.instances)


def test_killed_before_anything_was_deleted(rig: Rig) -> None:
    deliver(rig, 3)
    sweep_until_killed(rig, KilledBefore)
    assert rig.sweep(before=LATER) == Sweep(hold=FATE_AWAITED)
    assert rig.sweep(before=LATER + FATE_S - 1) == Sweep(hold=FATE_AWAITED)
    assert held_path(rig.ledger).exists()
    assert rig.sweep(before=LATER + FATE_S).deleted == 3
    assert not held_path(rig.ledger).exists()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("kind", [KilledBefore, TimedOut])
def test_a_deletion_that_the_source_does_when_nobody_waits_for_it_any_more(
    rig: Rig, kind: type[SharedFiles], told: bool
) -> None:
    """Note and bytes were dropped as the source still held it; then it went, with the last copy.

    ``told``: whether the source tells meanwhile what it holds.
    """
    instances = deliver(rig, 3)
    files = {i: rig.source.store.instances[i].data for i in instances}
    if kind is KilledBefore:
        sweep_until_killed(rig, kind)
    else:
        with pytest.raises(SideError):
            rig.sweep(sweeper=rig.sweeper_of(hanging(rig, kind), rig.clients[1]))
    if not told:
        rig.source.script("GET /instances/.*/attachments/dicom/info", Respond(404))
    for passed_s in (0.0, FATE_S / 2, FATE_S - 1):
        assert rig.sweep(before=LATER + passed_s) == Sweep(hold=FATE_AWAITED)
    rig.source.behave()
    hanging(rig, SharedFiles).delete_instance(instances[0])
    assert len(rig.at_source) == 2
    with pytest.raises(ConfigurationError, match="sent it back to the source"):
        rig.sweep(before=LATER + FATE_S - 1)
    assert {i: s.data for i, s in rig.source.store.instances.items()} == files
    assert rig.deletions == 1


@pytest.mark.parametrize(
    ("answer", "held", "deleted"),
    [
        (Respond(500, b'{"HttpStatus": 500, "OrthancStatus": 1}'), False, 3),
        (Respond(403), False, 3),
        (Respond(401), False, 3),
        (Respond(502), True, 3),
        (Respond(504), True, 3),
        (Respond(500, b"<html>", {"Content-Type": "text/html"}), True, 3),
        (Respond(404, b"<html>", {"Content-Type": "text/html"}), True, 2),
    ],
)
def test_who_has_refused_a_deletion_does_not_do_it_later(
    rig: Rig, answer: Respond, held: bool, deleted: int
) -> None:
    """404 is believed: the evidence of that one is gone, and it stays."""
    deliver(rig, 3)
    rig.source.script("DELETE /instances/[^/]+$", answer)
    with suppress(SideError):
        rig.sweep()
    rig.source.behave()
    assert held_path(rig.ledger).exists() == held
    swept = [rig.sweep(before=when) for when in (LATER, LATER + FATE_S - 1, LATER * 3)]
    assert [done.hold for done in swept[:2]] == [FATE_AWAITED if held else ""] * 2
    assert sum(done.deleted for done in swept) == deleted


IGNORED = Respond(200, b'{"RemainingAncestor": null}')


def test_a_source_that_answers_deletions_and_does_none_is_told(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log said that it had not answered, /health that all is well; nothing was ever deleted."""
    monkeypatch.setattr("bridge.log.LOGGER.propagate", True)
    deliver(rig, 4)
    rig.source.script("DELETE /instances/[^/]+$", IGNORED)
    assert rig.sweep(before=LATER).hold == FATE_AWAITED
    assert "answered that it is done, and still holds it" in caplog.text
    assert "not answered" not in caplog.text
    for again in (FATE_S, FATE_S + 1, 2 * FATE_S - 1):
        with pytest.raises(ConfigurationError, match="answered 2 deletions in a row"):
            rig.sweep(before=LATER + again)
    assert rig.deletions == 2
    for again in (2, 3):
        with pytest.raises(ConfigurationError, match=f"answered {again + 1} deletions in a row"):
            rig.sweep(before=LATER + again * FATE_S)
    with pytest.raises(ConfigurationError, match="answered 4 deletions in a row"):
        rig.sweep(before=LATER + 4 * FATE_S - 1)  # nothing is due before one is tried again
    assert [str(found) for found in rig.sweeper.refusals(rig.ledger, now=LATER)] != []
    assert len(rig.at_source) == 4
    rig.source.behave()
    deliver(rig, 2)
    assert rig.sweep(before=LATER + 5 * FATE_S).deleted == 3, "one of them is tried again by now"
    assert rig.sweep(before=LATER + 6 * FATE_S) == Sweep()
    assert list(rig.sweeper.refusals(rig.ledger, now=LATER)) == []


def test_deletions_that_are_not_done_now_and_then_are_counted_in_a_row(rig: Rig) -> None:
    for turn, deleted in enumerate((1, 1, 2)):  # the first one is tried again after an hour
        deliver(rig, 2)
        rig.source.script("DELETE /instances/[^/]+$", IGNORED, times=1)
        assert rig.sweep(before=LATER + 2 * turn * FATE_S).hold == FATE_AWAITED
        rig.source.behave()
        swept = rig.sweep(before=LATER + (2 * turn + 1) * FATE_S)
        assert (swept.deleted, swept.hold) == (deleted, "")


def test_deletions_that_were_not_done_are_tried_again_by_themselves(rig: Rig) -> None:
    """They stayed at the source for ever, without proof: only a replay made it anew."""
    sent = set(deliver(rig, 3))
    rig.source.script("DELETE /instances/[^/]+$", IGNORED)
    now = LATER
    assert rig.sweep(before=now).hold == FATE_AWAITED
    for _ in range(2):
        now += FATE_S
        with pytest.raises(ConfigurationError, match="in a row"):
            rig.sweep(before=now)
    assert rig.at_source == sent
    assert set(rig.kept()) == sent, "the evidence of all is there"
    rig.source.behave()
    first, second, third = (LATER + n * FATE_S + retry_s(n + 1) for n in range(3))
    # The last one is not done even 15 minutes later, and awaited no more.
    with pytest.raises(ConfigurationError, match="3 deletions in a row"):
        rig.sweep(before=first - 1)
    assert rig.sweep(before=first).deleted == 1
    assert rig.sweep(before=second - 1).deleted == 0
    assert rig.sweep(before=second).deleted == 1
    assert rig.sweep(before=third).deleted == 1
    assert rig.at_source == set()
    assert list(rig.sweeper.refusals(rig.ledger, now=third)) == []


def test_a_deletion_that_was_not_done_is_proved_anew(rig: Rig) -> None:
    """It was sent again meanwhile, and what came with that is what counts."""
    data = small_series(2)
    changed, resent_later = (rig.deliver(one, at=float(n)) for n, one in enumerate(data))
    rig.source.script("DELETE /instances/[^/]+$", IGNORED)
    assert rig.sweep().hold == FATE_AWAITED
    newer = replace(rig.evidence(changed), delivered_at=9.0, aged_from=LATER + 9e6)
    with pytest.raises(ConfigurationError):
        rig.sweep(before=LATER + FATE_S)
    rig.ledger.commit(Entry(kept=(newer,)))
    rig.ledger.keep_again(rig.evidence(changed), aged_from=0.0)
    assert newer in list(rig.ledger.all_kept())
    rig.source.store.instances[resent_later].uuid = "another"
    rig.source.behave()
    done = Sweep()
    with pytest.raises(ConfigurationError):  # none was done yet
        rig.sweeper.sweep(rig.ledger, now=LATER + 3 * FATE_S + retry_s(2), done=done)
    assert (done.deleted, done.spared) == (0, 1)
    assert rig.at_source == {changed, resent_later}


@pytest.mark.parametrize(
    ("ignored", "hours"), [(1, 1), (2, 2), (3, 4), (5, 16), (6, 24), (9_999, 24)]
)
def test_how_long_a_deletion_that_was_not_done_is_let_alone(ignored: int, hours: float) -> None:
    assert retry_s(ignored) == hours * 3600.0


@pytest.mark.parametrize("waiting", [True, False])
def test_a_source_that_was_emptied_by_hand_is_no_trouble_any_more(rig: Rig, waiting: bool) -> None:
    deliver(rig, 2)
    rig.source.script("DELETE /instances/[^/]+$", IGNORED)
    rig.sweep(before=LATER)
    for turn in (1,) if waiting else (1, 2):
        with pytest.raises(ConfigurationError):
            rig.sweep(before=LATER + turn * FATE_S)
    rig.source.store.instances.clear()
    assert rig.sweep(before=LATER + 2 * FATE_S) == Sweep()


def test_a_wait_for_a_deletion_hides_no_trouble(
    rig: Rig, clocks: Clocks, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that answers no deletion fails, is waited for, fails: meanwhile all seemed well."""
    monkeypatch.setattr("bridge.log.LOGGER.propagate", True)
    deliver(rig, 2)
    rig.source.script("DELETE /instances/[^/]+$", Respond(504))
    seen = Seen()
    sweeps = runner_of(rig, seen, clocks, retention_s=-10.0)
    sweeps.start()
    wait_until(lambda: "Nothing else is deleted" in caplog.text, "it waits")
    sweeps.stop(30.0)
    assert [event for event in seen.events if isinstance(event, SweepFailed)]
    assert SweepWorks() not in seen.events


def test_the_wait_for_a_deletion_is_told_as_itself(rig: Rig, clocks: Clocks) -> None:
    """What failed before it is over, and nobody is sent to look for it."""
    deliver(rig, 2)
    rig.source.script("DELETE /instances/[^/]+$", Respond(504))
    board = Board(rig.state_path, HealthLimits())
    board.on_event(SweepFailed("The source has no storage left."))
    seen = Seen()
    sweeps = runner_of(rig, seen, clocks, retention_s=-10.0)
    sweeps.start()
    wait_until(lambda: any(isinstance(e, SweepWaits) for e in seen.events), "it waits")
    sweeps.stop(30.0)
    for event in seen.events:
        board.on_event(event)
    (told,) = [p for p in board.problems() if p.code.startswith("retention")]
    assert told.code == "retention_waiting"
    assert "15 minutes" in told.message
    assert "storage" not in told.message
    board.on_event(SweepFailed("It fails."))
    assert [p.code for p in board.problems() if "retention" in p.code] == ["retention_failing"]
    board.on_event(SweepWaits("It waits."))
    board.on_event(SweepWorks())
    assert [p for p in board.problems() if "retention" in p.code] == []


def test_killed_before_the_deletion_was_noted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(rig, 2)
    set_meta = Ledger.set_meta

    def killed(ledger: Ledger, key: str, value: str | None, *, durably: bool = False) -> None:
        if key == UNVERIFIED_KEY:
            raise Killed
        set_meta(ledger, key, value, durably=durably)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "set_meta", killed)
        with pytest.raises(Killed):
            rig.sweep()
    assert held_path(rig.ledger).exists()
    assert rig.deletions == 0
    assert rig.sweep(before=-1.0).deleted == 0
    assert not held_path(rig.ledger).exists(), "a file of a patient lies around"


def test_killed_between_the_finding_and_its_note(rig: Rig, shared: SharedFiles) -> None:
    """What was found to be lost, and given back, is not told to be lost for good."""
    deliver(rig, 2)
    with pytest.raises(ConfigurationError, match="sent it back"):
        rig.sweep(sweeper=rig.sweeper_of(shared, rig.clients[1]))
    gone = rig.source.store.instances.popitem()[0]
    rig.ledger.set_meta(UNVERIFIED_KEY, f'{{"instance_id": "{gone}"}}')
    with pytest.raises(ConfigurationError, match="sent it back"):
        rig.sweep()
    assert rig.ledger.meta(UNVERIFIED_KEY) is None


@pytest.mark.parametrize("answer", ["FilteredOut", "Failure"])
def test_what_the_source_does_not_take_back_is_kept(
    rig: Rig, shared: SharedFiles, answer: str
) -> None:
    """FilteredOut comes with HTTP 200: the last copy would have been thrown away."""
    (instance,) = deliver(rig, 1)
    data = rig.source.store.instances[instance].data
    body = f'{{"ID": "{instance}", "Status": "{answer}", "Path": "/instances/{instance}"}}'
    rig.source.script("POST /instances$", Respond(200, body.encode()))
    with pytest.raises(ConfigurationError, match=f"answered {answer}.* and saved it as"):
        rig.sweep(sweeper=rig.sweeper_of(shared, rig.clients[1]))
    path = rig.state_path.with_name(f"rescued-{instance}.dcm")
    assert path.read_bytes() == data


def test_what_was_kept_before_is_not_overwritten(rig: Rig, shared: SharedFiles) -> None:
    (instance,) = deliver(rig, 1)
    stored = rig.source.store.instances[instance]
    rig.source.script("POST /instances$", Respond(403))
    first = rig.state_path.with_name(f"rescued-{instance}.dcm")
    first.write_bytes(b"another")
    with pytest.raises(ConfigurationError, match="saved it as"):
        rig.sweep(sweeper=rig.sweeper_of(shared, rig.clients[1]))
    assert first.read_bytes() == b"another"
    second = first.with_name(f"rescued-{instance}-{stored.md5}.dcm")
    assert second.read_bytes() == stored.data


def test_what_is_held_must_be_the_file_that_was_moved(rig: Rig) -> None:
    deliver(rig, 2)
    sweep_until_killed(rig, KilledAfter)
    held_path(rig.ledger).write_bytes(b"not it")
    with pytest.raises(ConfigurationError, match="look for the instance in a backup"):
        rig.sweep()
    assert len(rig.at_source) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_nothing_is_deleted_whose_bytes_cannot_be_held(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    deliver(rig, 3)
    events: list[Event] = rig.events

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path), len(data))

    with monkeypatch.context() as patch:
        patch.setattr(held_deletion, "write_private", full)
        for _ in range(times):
            with pytest.raises(StateError, match="No space left"):
                rig.sweep()
            assert isinstance(events[-1], SourceKept)
    assert rig.deletions == 0
    assert rig.sweep().deleted == 3


def test_a_link_in_its_place_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    deliver(rig, 2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"somebody's own")
    held_path(rig.ledger).symlink_to(elsewhere)
    assert rig.sweep().deleted == 2
    assert elsewhere.read_bytes() == b"somebody's own"


def test_after_a_persons_word_it_goes_on(rig: Rig) -> None:
    deliver(rig, 3)
    sweep_until_killed(rig, KilledAfter)
    with pytest.raises(ConfigurationError):
        rig.sweep()
    rig.target.behave()
    confirm(rig.ledger, now=0.0)
    assert rig.sweep().deleted == 2


def test_what_precedes_a_deletion_survives_a_power_cut(rig: Rig) -> None:
    """SQLite syncs its journal then; otherwise the last transactions may be lost."""
    deliver(rig, 2)
    said: list[str] = []
    rig.ledger._db.set_trace_callback(said.append)
    assert rig.sweep().deleted == 2
    rig.ledger._db.set_trace_callback(None)
    for key in ("'retention_unverified'", "'mark "):
        at = next(n for n, text in enumerate(said) if text.startswith("INSERT") and key in text)
        before = [text for text in said[:at] if "synchronous" in text]
        assert before[-1] == "PRAGMA synchronous = FULL"
    assert [text for text in said if "synchronous" in text][-1] == "PRAGMA synchronous = NORMAL"
