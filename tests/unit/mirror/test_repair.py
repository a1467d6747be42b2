"""Each clause of a repair and of a deletion, alone: what speaks against it leaves the copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import (
    ConfigurationError,
    FeedWentBackwards,
    InstanceError,
    InstanceGone,
    SideError,
    side_error,
)
from bridge.events import (
    CopyNotRepaired,
    CopyRepaired,
    CopyReplaces,
    Event,
    InstanceParked,
    TargetDeletes,
    TargetKept,
)
from bridge.ledger.records import Attempts, DeliveryRecord, Entry
from bridge.ledger.verifications import (
    DAY_S,
    INTENT_KEY,
    RepairIntent,
    confirm_repairs,
    intent_text,
    repair_intent,
    repairs_since,
)
from bridge.mirror.copy_deletion import Grace, doubt_of
from bridge.mirror.judge_copy import REPLACED, CopyState
from bridge.mirror.repair import (
    IS_SPOILT,
    LIMIT_LEAST,
    SOURCE_IS_DAMAGED,
    RepairEnd,
    RepairLimit,
    prepared_path,
)
from bridge.model import (
    Outcome,
    Reason,
    ServerInfo,
    SideName,
    SideProblem,
    SourceDoubt,
    StoreAnswer,
)
from bridge.retention.limits_and_risks import Risk
from tests.ledger_rows import parked
from tests.simulation.retention import md5
from tests.unit.mirror.conftest import Scene

MISSING, DAMAGED, OLDER = CopyState.MISSING, CopyState.DAMAGED, CopyState.OLDER


def repaired(scene: Scene, instance_id: str, state: CopyState = DAMAGED) -> RepairEnd:
    return scene.repairer().repair(
        scene.world.ledger, instance_id, state, instances=3, age=scene.world.age
    )


def spoil(scene: Scene, instance_id: str) -> None:
    """Change a file on the target's disk, whatever its index says."""
    storage = scene.world.target.storage
    storage[scene.world.target.files[instance_id][0]] += b"!"


def is_untouched(scene: Scene, before: dict[str, tuple[str, str]]) -> bool:
    ledger = scene.world.ledger
    return (
        scene.world.target.files == before
        and not prepared_path(ledger).exists()
        and repair_intent(ledger) is None
    )


def test_a_copy_is_replaced_and_on_record(scene: Scene) -> None:
    for instance_id in scene.ids:
        spoil(scene, instance_id)
    for instance_id in scene.ids:
        assert repaired(scene, instance_id) is RepairEnd.REPAIRED
        assert scene.world.copy_is_right(instance_id)
        record = scene.world.ledger.delivery_of(instance_id)
        assert record is not None
        assert record.target_md5 == scene.world.target.files[instance_id][1]
    assert len(scene.happened(CopyReplaces)) == len(scene.happened(CopyRepaired)) == 3
    assert repairs_since(scene.world.ledger, scene.world.age) == 3
    assert is_untouched(scene, dict(scene.world.target.files))


def test_what_is_missing_is_sent_and_nothing_is_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instance_id in scene.ids:
        scene.world.target.remove(instance_id)
    monkeypatch.setattr(scene.target, "delete_instance", lambda _: pytest.fail("deleted"))
    for instance_id in scene.ids:
        assert repaired(scene, instance_id, MISSING) is RepairEnd.REPAIRED
        assert scene.world.copy_is_right(instance_id)


def test_what_was_missing_and_is_there_meanwhile_is_left_as_it_is(scene: Scene) -> None:
    (instance_id, *_) = scene.ids
    scene.world.replace_at_target()
    before = dict(scene.world.target.files)
    (changed,) = [i for i in scene.ids if not scene.world.copy_is_right(i)]
    assert repaired(scene, changed, MISSING) is RepairEnd.OVERTAKEN
    assert is_untouched(scene, before)
    assert instance_id in before


@pytest.mark.parametrize("state", [DAMAGED, OLDER, MISSING])
@pytest.mark.parametrize("same_before", [1, 2])
def test_the_source_holds_another_file_by_now(
    scene: Scene, same_before: int, state: CopyState
) -> None:
    """It is asked before the file is fetched, after that, and right before a deletion."""
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    if state is MISSING:
        scene.world.target.remove(instance_id)
    before = dict(scene.world.target.files)
    wanted, asked = scene.source.stored_md5, list[str]()

    def another(i: str) -> str:
        asked.append(i)
        return wanted(i) if len(asked) <= same_before else wanted(i)[::-1]

    vars(scene.source)["stored_md5"] = another
    end = repaired(scene, instance_id, state)
    if (same_before, state) == (2, MISSING):
        assert end is RepairEnd.REPAIRED, "nothing is deleted for it: it is not asked once more"
        return
    assert end is RepairEnd.OVERTAKEN
    assert is_untouched(scene, before)
    (told,) = scene.happened(CopyNotRepaired)
    assert isinstance(told, CopyNotRepaired)
    assert "changed meanwhile" in told.message


def rot_at_source(scene: Scene, instance_id: str) -> None:
    """Change a file on the source's disk that can still be decoded, whatever its index says."""
    storage, uuid = scene.world.source.storage, scene.world.source.files[instance_id][0]
    content, _, form = storage[uuid].rpartition(b":")
    storage[uuid] = content + b"0:" + form


@pytest.mark.parametrize("state", [*sorted(REPLACED), MISSING])
def test_the_sources_own_file_is_damaged(
    scene: Scene, state: CopyState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: what was missing was sent so, and its new MD5 noted as the proof; what was
    there was announced to go, and "has changed meanwhile" in each verification."""
    monkeypatch.setattr(scene.target, "delete_instance", lambda _: pytest.fail("deleted"))
    monkeypatch.setattr(scene.target, "store", lambda *_, **__: pytest.fail("sent"))
    for instance_id in scene.ids:
        if state is MISSING:
            scene.world.target.remove(instance_id)
        else:
            spoil(scene, instance_id)
        rot_at_source(scene, instance_id)
    before = dict(scene.world.target.files)
    for instance_id in scene.ids:
        record = scene.world.ledger.delivery_of(instance_id)
        assert repaired(scene, instance_id, state) is RepairEnd.FAILED
        assert scene.world.ledger.delivery_of(instance_id) == record, "the proof stays"
        assert not scene.world.ledger.is_put_aside(instance_id)
    assert is_untouched(scene, before)
    assert list(tmp_path.glob("*.repair.dcm*")) == []
    assert scene.happened(CopyReplaces) == []
    assert repairs_since(scene.world.ledger, scene.world.age) == 0
    assert scene.happened(CopyNotRepaired) == [
        CopyNotRepaired(instance_id, str(state), SOURCE_IS_DAMAGED.format(instance_id))
        for instance_id in scene.ids
    ]


def test_each_verification_tells_of_a_damaged_source_once(scene: Scene) -> None:
    gone, rotten, _ = scene.ids
    scene.world.target.remove(gone)
    spoil(scene, rotten)
    for instance_id in (gone, rotten):
        rot_at_source(scene, instance_id)
    for turn in (1, 2):
        assert scene.verification().run()
        told = scene.happened(CopyNotRepaired)
        assert len(told) == 2 * turn
        assert all("The source's file" in e.message for e in told if isinstance(e, CopyNotRepaired))
        assert scene.happened(CopyReplaces) == []


@pytest.mark.parametrize("answer", ["403", "refused"])
def test_a_source_that_does_not_tell_its_sums_is_sent_from(scene: Scene, answer: str) -> None:
    """A login may not ask: what is missing is sent, and nothing is deleted."""
    gone, rotten, _ = scene.ids
    scene.world.target.remove(gone)

    def hidden(_: str) -> str:
        if answer == "403":
            raise side_error(SideName.SOURCE, SideProblem.FORBIDDEN, "403")
        raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "404", final=False)

    vars(scene.source)["stored_md5"] = hidden
    assert repaired(scene, gone, MISSING) is RepairEnd.REPAIRED
    assert scene.world.copy_is_right(gone)
    spoil(scene, rotten)
    before = dict(scene.world.target.files)
    if answer == "403":
        with pytest.raises(SideError):
            repaired(scene, rotten)
    else:
        assert repaired(scene, rotten) is RepairEnd.OVERTAKEN
    assert scene.world.target.files == before


def test_a_source_that_is_down_after_the_fetch_leaves_no_file_that_is_sent(
    scene: Scene, tmp_path: Path
) -> None:
    """It was not compared with what the source has noted."""
    instance_id, wanted, asked = scene.ids[0], scene.source.stored_md5, list[str]()
    scene.world.target.remove(instance_id)

    def down_then(i: str) -> str:
        asked.append(i)
        if len(asked) == 2:
            raise side_error(SideName.SOURCE, SideProblem.UNREACHABLE, "down")
        return wanted(i)

    vars(scene.source)["stored_md5"] = down_then
    with pytest.raises(SideError):
        repaired(scene, instance_id, MISSING)
    assert list(tmp_path.glob("*.repair.dcm*")) == []


def test_a_file_that_was_not_compared_before_a_kill_is_not_sent(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id, killed = scene.ids[0], KeyError("killed")
    scene.world.target.remove(instance_id)
    rot_at_source(scene, instance_id)
    path = prepared_path(scene.world.ledger)
    prepare = scene.workers.prepare

    def killed_after(i: str, new: Path) -> Outcome:
        prepare(i, new)
        raise killed

    vars(scene.workers)["prepare"] = killed_after
    with pytest.raises(KeyError):
        repaired(scene, instance_id, MISSING)
    assert len(list(tmp_path.glob(f"{path.name}*"))) == 1
    monkeypatch.setattr(scene.target, "store", lambda *_, **__: pytest.fail("sent"))
    assert resumed(scene) is None
    assert list(tmp_path.glob(f"{path.name}*")) == []


def test_the_source_does_not_hold_it_any_more(scene: Scene) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    before = dict(scene.world.target.files)

    def gone(_: str) -> str:
        raise InstanceGone("gone")

    vars(scene.source)["stored_md5"] = gone
    assert repaired(scene, instance_id) is RepairEnd.OVERTAKEN
    assert is_untouched(scene, before)
    scene.world.source.remove(instance_id)
    assert repaired(scene, instance_id) is RepairEnd.OVERTAKEN
    assert is_untouched(scene, before)


def test_what_cannot_be_delivered_is_not_deleted(scene: Scene) -> None:
    instance_id = scene.ids[0]
    undecodable = f"{instance_id}:x".encode()
    scene.world.noted[md5(undecodable)] = undecodable
    scene.world.source.put(instance_id, undecodable)
    before = dict(scene.world.target.files)
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    assert is_untouched(scene, before)
    assert scene.happened(InstanceParked) == []
    scene.world.target.remove(instance_id)
    assert repaired(scene, instance_id, MISSING) is RepairEnd.FAILED
    (parked,) = scene.world.ledger.parked()
    assert (parked.move.instance_id, parked.reason) == (instance_id, Reason.UNDECODABLE)


def test_one_server_behind_both_addresses(scene: Scene) -> None:
    scene.world.servers[SideName.TARGET] = scene.world.source
    before = dict(scene.world.source.files)
    for instance_id in scene.ids:
        with pytest.raises(ConfigurationError):
            repaired(scene, instance_id)
    assert scene.world.source.files == before


def test_another_feed_than_was_followed(scene: Scene) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    before = dict(scene.world.target.files)
    scene.world.source.rows.clear()
    scene.world.source.counter = 0
    with pytest.raises(FeedWentBackwards):
        repaired(scene, instance_id)
    assert is_untouched(scene, before)


def test_both_servers_are_looked_at_after_the_preparation_too(scene: Scene) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    before = dict(scene.world.target.files)
    looks: list[int] = []

    def second_fails() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise FeedWentBackwards("another one")

    scene.sure = second_fails
    with pytest.raises(FeedWentBackwards):
        repaired(scene, instance_id)
    assert scene.world.target.files == before


@pytest.mark.parametrize("at", ["before", "after"])
def test_what_cannot_be_put_on_record_is_not_done(scene: Scene, at: str) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    before = dict(scene.world.target.files)
    if at == "before":
        scene.recorded = False
    else:
        scene.events = Unrecorded(scene)  # type: ignore[assignment]
    assert repaired(scene, instance_id) is RepairEnd.HELD
    assert scene.world.target.files == before


class Unrecorded(list[object]):
    """The audit file fails at the line that announces a replacement."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    def append(self, event: object) -> None:
        self._scene.recorded = self._scene.recorded and not isinstance(event, CopyReplaces)


def test_the_limit_of_a_day(scene: Scene) -> None:
    instance_id, ledger, world = scene.ids[0], scene.world.ledger, scene.world
    for _ in range(LIMIT_LEAST):
        spoil(scene, instance_id)
        assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    spoil(scene, instance_id)
    before = dict(world.target.files)
    assert repaired(scene, instance_id) is RepairEnd.HELD
    assert is_untouched(scene, before)
    confirm_repairs(ledger, world.age)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    world.age += DAY_S + 3600.0
    assert repairs_since(ledger, world.age) == 0
    spoil(scene, instance_id)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED


@pytest.mark.parametrize(
    ("instances", "limit"), [(0, 10), (999, 10), (1000, 10), (1100, 11), (412_003, 4120)]
)
def test_the_limit_is_a_share_and_at_least_ten(instances: int, limit: int) -> None:
    assert RepairLimit(0.01).of(instances) == limit


# After a kill


def begun(scene: Scene, instance_id: str, state: CopyState = DAMAGED) -> RepairIntent:
    """A process was killed after it had noted what it was about to do."""
    data = scene.world.source.read(instance_id) or b""
    path = prepared_path(scene.world.ledger)
    scene.workers.prepare(instance_id, path)
    intent = RepairIntent(instance_id, str(state), md5(data), md5(path.read_bytes()))
    scene.world.ledger.set_meta(INTENT_KEY, intent_text(intent))
    return intent


def resumed(scene: Scene) -> RepairEnd | None:
    return scene.repairer().resume(scene.world.ledger, age=scene.world.age)


@pytest.mark.parametrize("place", ["nothing", "deleted", "sent"])
@pytest.mark.parametrize("with_note", [True, False])
def test_a_repair_goes_on_wherever_it_was_left(scene: Scene, place: str, with_note: bool) -> None:
    for instance_id in scene.ids:
        spoil(scene, instance_id)
        begun(scene, instance_id)
        path = prepared_path(scene.world.ledger)
        if place != "nothing":
            scene.world.target.remove(instance_id)
        if place == "sent":
            scene.world.put(scene.world.target, path.read_bytes())
        if not with_note:
            scene.world.ledger.set_meta(INTENT_KEY, None)  # a power cut may lose it
        end = resumed(scene)
        if place == "nothing" and not with_note:
            assert end is None, "nothing was deleted: the next verification finds it"
        else:
            assert end is RepairEnd.REPAIRED or (place, with_note) == ("sent", False)
            assert scene.world.copy_is_right(instance_id)
        assert is_untouched(scene, dict(scene.world.target.files))
    assert resumed(scene) is None


def test_the_last_copy_is_sent_also_when_the_source_has_lost_it_since(scene: Scene) -> None:
    instance_id = scene.ids[0]
    begun(scene, instance_id)
    scene.world.target.remove(instance_id)
    scene.world.source.remove(instance_id)
    assert resumed(scene) is RepairEnd.REPAIRED
    assert scene.world.target.read(instance_id) is not None


def test_a_copy_is_not_deleted_when_the_source_has_lost_it_since(scene: Scene) -> None:
    instance_id = scene.ids[0]
    begun(scene, instance_id)
    spoil(scene, instance_id)
    scene.world.source.remove(instance_id)
    before = dict(scene.world.target.files)
    assert resumed(scene) is RepairEnd.OVERTAKEN
    assert is_untouched(scene, before)


@pytest.mark.parametrize("note", ["kept", "lost"])
def test_a_prepared_file_of_no_certain_instance_is_put_aside(
    scene: Scene, note: str, tmp_path: Path
) -> None:
    spoil(scene, scene.ids[0])
    begun(scene, scene.ids[0])
    path = prepared_path(scene.world.ledger)
    path.write_bytes(b":something:else")
    if note == "lost":
        scene.world.ledger.set_meta(INTENT_KEY, None)
    assert resumed(scene) is None
    aside = list(tmp_path.glob(f"{path.name}.*"))
    assert [one.read_bytes() for one in aside] == [b":something:else"]
    assert repair_intent(scene.world.ledger) is None


@pytest.mark.parametrize("state", [DAMAGED, OLDER, MISSING])
@pytest.mark.parametrize("change", ["other", "cut short"])
@pytest.mark.parametrize("place", ["nothing", "deleted", "sent", "lost at the source"])
def test_a_prepared_file_that_has_changed_on_the_disk_is_not_sent(
    scene: Scene, place: str, change: str, state: CopyState, tmp_path: Path
) -> None:
    """Seen to fail: it was sent, and its MD5 noted as that of the repaired copy."""
    ledger, path, instance_id = scene.world.ledger, prepared_path(scene.world.ledger), scene.ids[1]
    spoil(scene, instance_id)
    begun(scene, instance_id, state)
    right = path.read_bytes()
    if place != "nothing":
        scene.world.target.remove(instance_id)
    if place == "sent":
        scene.world.put(scene.world.target, right)
    if place == "lost at the source":
        scene.world.source.remove(instance_id)
    spoilt = right[:-1] if change == "cut short" else right.replace(b":raw", b"0:raw")
    path.write_bytes(spoilt)
    before, record = dict(scene.world.target.files), ledger.delivery_of(instance_id)
    end = resumed(scene)
    if place in ("deleted", "sent"):
        assert end is RepairEnd.REPAIRED
        assert scene.world.target.read(instance_id) == right, "prepared again"
        after = ledger.delivery_of(instance_id)
        assert after is not None
        assert after.target_md5 == md5(right)
    else:
        assert end is None, "the next verification judges it, if there is anything to judge"
        assert is_untouched(scene, before)
        assert ledger.delivery_of(instance_id) == record
    aside = [one.read_bytes() for one in tmp_path.glob("*.repair.dcm*")]
    assert aside == [spoilt]
    assert repair_intent(ledger) is None


@pytest.mark.parametrize("state", [DAMAGED, MISSING])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_changes_at_once_is_not_sent(
    scene: Scene, when: str, state: CopyState, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the deletion nothing is deleted for it either."""
    instance_id, path = scene.ids[0], prepared_path(scene.world.ledger)
    spoil(scene, instance_id)
    if state is MISSING:
        scene.world.target.remove(instance_id)
    before, asked = dict(scene.world.target.files), list[object]()
    store, commit = scene.target.store, scene.world.ledger.set_meta

    def noted(key: str, value: str | None) -> None:
        commit(key, value)
        if (key, when) == (INTENT_KEY, "before") and value is not None:
            path.write_bytes(path.read_bytes() + b"0")

    def announced(event: Event) -> None:
        scene.events.append(event)
        if isinstance(event, CopyReplaces) and when == "after":
            path.write_bytes(path.read_bytes() + b"0")

    vars(scene.world.ledger)["set_meta"] = noted

    def sent(body: Iterable[bytes], *, body_bytes: int | None, deadline_s: None) -> StoreAnswer:
        asked.append(body_bytes)
        return store(body, body_bytes=body_bytes, deadline_s=deadline_s)

    vars(scene.target)["store"] = sent
    repairer = scene.repairer()
    vars(repairer)["_report"] = announced
    end = repairer.repair(scene.world.ledger, instance_id, state, instances=3, age=scene.world.age)
    assert (end, asked) == (RepairEnd.FAILED, [])
    if when == "before":
        assert is_untouched(scene, before)
    (told,) = scene.happened(CopyNotRepaired)
    assert isinstance(told, CopyNotRepaired)
    assert told.message == IS_SPOILT
    assert "Do not upload it" in caplog.text
    assert resumed(scene) is None
    del vars(scene.target)["store"], vars(scene.world.ledger)["set_meta"]
    assert scene.verification().run()
    assert scene.world.copy_is_right(instance_id), "by the next verification"


def test_a_target_that_cannot_read_what_it_has_stored_is_tried_again(scene: Scene) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    vars(scene.world)["deleting"] = lambda _: None
    vars(scene.target)["verify_stored"] = lambda _: False
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    assert prepared_path(scene.world.ledger).exists()
    assert repair_intent(scene.world.ledger) is not None
    assert resumed(scene) is RepairEnd.FAILED
    del vars(scene.target)["verify_stored"]
    assert resumed(scene) is RepairEnd.REPAIRED
    assert scene.world.copy_is_right(instance_id)


@pytest.mark.parametrize("wished", [True, False])
def test_the_prepared_file_is_kept_while_it_may_be_the_only_good_one(
    scene: Scene, wished: bool
) -> None:
    """Seen to fail where it went with the note: nobody held the instance then."""
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    vars(scene.world)["deleting"] = lambda _: None
    vars(scene.target)["verify_stored"] = lambda _: False
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    scene.world.source.remove(instance_id)
    scene.replaces = wished
    for _ in range(3):
        assert resumed(scene) is RepairEnd.FAILED
        assert prepared_path(scene.world.ledger).exists()
        assert repair_intent(scene.world.ledger) is not None
    del vars(scene.target)["verify_stored"]
    assert resumed(scene) is RepairEnd.REPAIRED
    assert scene.world.target.read(instance_id) is not None


@pytest.mark.parametrize("note", ["kept", "lost"])
@pytest.mark.parametrize("state", [DAMAGED, OLDER, MISSING])
def test_what_is_not_proved_is_put_aside_when_the_source_has_lost_it(
    scene: Scene, state: CopyState, note: str, tmp_path: Path
) -> None:
    """Killed between the upload and its proof, of a file that the target cannot read: it was
    deleted, and nobody held the instance then."""
    instance_id = scene.ids[0]
    intent = begun(scene, instance_id, state)
    path = prepared_path(scene.world.ledger)
    data = path.read_bytes()
    scene.world.target.remove(instance_id)
    scene.world.put(scene.world.target, data)
    spoil(scene, instance_id)
    scene.world.source.remove(instance_id)
    if note == "lost":
        scene.world.ledger.set_meta(INTENT_KEY, None)
    resumed(scene)
    (aside,) = tmp_path.glob(f"{path.name}.*")
    assert aside.read_bytes() == data
    assert aside.name.endswith(intent.target_md5)
    assert not path.exists(), "the next repair has its place"
    assert repair_intent(scene.world.ledger) is None


@pytest.mark.parametrize("state", [CopyState.SYNTAX, OLDER])
def test_a_readable_copy_that_is_still_there_needs_no_prepared_file(
    scene: Scene, state: CopyState, tmp_path: Path
) -> None:
    instance_id = scene.ids[0]
    scene.world.put(scene.world.target, f"{instance_id}:older:raw".encode())
    intent = begun(scene, instance_id, state)
    noted = replace(intent, before_md5=scene.world.target.files[instance_id][1])
    scene.world.ledger.set_meta(INTENT_KEY, intent_text(noted))
    scene.world.source.remove(instance_id)
    before = dict(scene.world.target.files)
    assert resumed(scene) is RepairEnd.OVERTAKEN
    assert is_untouched(scene, before)
    assert list(tmp_path.glob("*.repair.dcm*")) == []


def test_a_target_that_notes_no_sums_is_sent_it_once(scene: Scene) -> None:
    """It was deleted and sent again and again: nothing could be proved of it."""
    instance_id = scene.ids[0]
    scene.world.target.remove(instance_id)
    held = scene.target.stored_file
    vars(scene.target).update(
        verify_stored=lambda _: False,
        stored_file=lambda i: replace(held(i), md5=""),
    )
    assert repaired(scene, instance_id, MISSING) is RepairEnd.FAILED
    (told,) = scene.happened(CopyNotRepaired)
    assert isinstance(told, CopyNotRepaired)
    assert "StoreMD5ForAttachments" in told.message
    record = scene.world.ledger.delivery_of(instance_id)
    assert record is not None
    assert record.outdated, "the next verification compares both files"
    assert scene.world.copy_is_right(instance_id)
    assert is_untouched(scene, dict(scene.world.target.files))
    assert resumed(scene) is None


@pytest.mark.parametrize("status", ["403", "404"])
def test_a_target_that_does_not_let_us_ask_is_believed_by_its_sum(
    scene: Scene, status: str
) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    scene.world.target.files[instance_id] = (scene.world.target.files[instance_id][0], "other")

    def forbidden(_: str) -> bool:
        if status == "404":
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "404", final=False)
        raise side_error(SideName.TARGET, SideProblem.FORBIDDEN, "403")

    vars(scene.target)["verify_stored"] = forbidden
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    assert scene.world.copy_is_right(instance_id)


def test_a_target_that_is_down_in_between_is_waited_for(scene: Scene) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)

    def down(*_: object, **__: object) -> None:
        raise side_error(SideName.TARGET, SideProblem.UNREACHABLE, "down")

    vars(scene.target)["store"] = down
    with pytest.raises(SideError):
        repaired(scene, instance_id)
    assert scene.world.target.read(instance_id) is None
    del vars(scene.target)["store"]
    assert resumed(scene) is RepairEnd.REPAIRED
    assert scene.world.copy_is_right(instance_id)


# Deletions that follow


def left(scene: Scene, instance_id: str, **changes: object) -> DeliveryRecord:
    """Delete an instance at the source; return its record after a verification has seen that."""
    scene.world.source.remove(instance_id)
    record = scene.world.ledger.delivery_of(instance_id)
    assert record is not None
    after = replace(record, **({"lacking_since": 1.0} | changes))  # type: ignore[arg-type]
    scene.world.ledger.commit(Entry(delivered=(after,)))
    return after


def deleted(
    scene: Scene, record: DeliveryRecord, accepted: frozenset[str] = frozenset()
) -> bool | None:
    scene.world.deletions = True
    source = scene.world.source
    scene.world.before = {i: source.storage[uuid] for i, (uuid, _) in source.files.items()}
    deletion = scene.deletion(accepted)
    return deletion.delete(scene.world.ledger, record, instances=3, age=scene.world.age)


def test_what_the_source_lacks_is_deleted_and_on_record(scene: Scene) -> None:
    for instance_id in scene.ids:
        record = left(scene, instance_id)
        assert deleted(scene, record) is True
        assert instance_id not in scene.world.target.files
        assert scene.world.ledger.delivery_of(instance_id) is None
    assert len(scene.happened(TargetDeletes)) == 3
    assert repairs_since(scene.world.ledger, scene.world.age) == 3


@pytest.mark.parametrize(
    "why", ["there again", "another file", "no sum", "delivered again", "notes"]
)
def test_what_speaks_against_a_deletion(scene: Scene, why: str) -> None:
    instance_id = scene.ids[0]
    data = scene.world.source.read(instance_id) or b""
    record = left(scene, instance_id, **({"target_md5": ""} if why == "no sum" else {}))
    if why == "there again":
        scene.world.put(scene.world.source, data)
    elif why == "another file":
        scene.world.put(scene.world.target, f"{instance_id}:another:raw".encode())
    elif why == "delivered again":
        scene.world.ledger.commit(Entry(delivered=(replace(record, delivered_at=9.0),)))
    scene.awaits_notes = why == "notes"
    before = dict(scene.world.target.files)
    assert deleted(scene, record) is False
    assert scene.world.target.files == before
    told = scene.happened(TargetDeletes)
    assert len(told) == len(scene.happened(TargetKept))


def test_a_deletion_that_cannot_be_put_on_record_or_is_beyond_the_limit(scene: Scene) -> None:
    record = left(scene, scene.ids[0])
    before = dict(scene.world.target.files)
    scene.recorded = False
    assert deleted(scene, record) is None
    scene.recorded, scene.limit = True, RepairLimit(0.0, 0)
    assert deleted(scene, record) is None
    assert scene.world.target.files == before
    confirm_repairs(scene.world.ledger, scene.world.age)
    assert deleted(scene, record) is True


def test_a_source_that_lacks_more_than_a_day_may_take_is_not_believed(scene: Scene) -> None:
    deletion, ledger = scene.deletion(), scene.world.ledger
    for lacking, instances, may in ((10, 0, True), (11, 0, False), (11, 1100, True)):
        assert deletion.may_begin(ledger, lacking=lacking, instances=instances, age=1.0) is may


SQLITE = ServerInfo("1", 1, has_extended_changes=True)


@pytest.mark.parametrize(
    ("size", "patients", "mode", "accepted", "doubt"),
    [
        (9, 0, "Recycle", "", SourceDoubt.RECYCLES),
        (0, 9, "Recycle", "", SourceDoubt.RECYCLES),
        (0, 9, None, "", SourceDoubt.RECYCLES),
        (9, None, None, "", SourceDoubt.RECYCLES),
        (9, 0, "Recycle", Risk.SOURCE_UNTOLD, SourceDoubt.RECYCLES),
        (9, 9, "Recycle", Risk.TARGET_RECYCLES, SourceDoubt.RECYCLES),
        (9, 9, "Reject", "", None),
        (0, 0, "Recycle", "", None),
        (0, 0, None, "", None),
        (None, None, None, "", SourceDoubt.UNTOLD),
        (0, None, None, "", SourceDoubt.UNTOLD),
        (None, 0, None, "", SourceDoubt.UNTOLD),
        (None, None, None, Risk.SOURCE_UNTOLD, None),
        (None, None, None, Risk.TARGET_UNTOLD, SourceDoubt.UNTOLD),
    ],
)
def test_whether_deletions_at_the_source_are_followed(
    size: int | None, patients: int | None, mode: str | None, accepted: str, doubt: object
) -> None:
    info = ServerInfo(
        "1",
        1,
        has_extended_changes=True,
        maximum_storage_bytes=size,
        maximum_patient_count=patients,
        maximum_storage_mode=mode,
    )
    assert doubt_of(info, SQLITE, frozenset({accepted} - {""})) is doubt


IN_DATABASE = replace(SQLITE, database_backend="a plugin")
"""Other Orthancs may serve its database, too."""


@pytest.mark.parametrize(
    ("source", "target", "accepted", "doubt"),
    [
        (SQLITE, SQLITE, (), None),
        (IN_DATABASE, SQLITE, (), SourceDoubt.SHARED),
        (SQLITE, IN_DATABASE, (), SourceDoubt.SHARED),
        (IN_DATABASE, IN_DATABASE, (), SourceDoubt.SHARED),
        (SQLITE, IN_DATABASE, (Risk.UNREGISTERED, Risk.TARGET_EMPTIED), SourceDoubt.SHARED),
        (IN_DATABASE, SQLITE, (Risk.SHARED_DATABASE,), None),
        (SQLITE, IN_DATABASE, (Risk.SHARED_DATABASE,), None),
        (IN_DATABASE, IN_DATABASE, (Risk.SHARED_DATABASE,), None),
    ],
)
def test_whether_deletions_are_followed_where_notes_may_not_be_seen(
    source: ServerInfo, target: ServerInfo, accepted: tuple[str, ...], doubt: object
) -> None:
    told = replace(source, maximum_storage_bytes=0, maximum_patient_count=0)
    assert doubt_of(told, target, frozenset(accepted)) is doubt
    recycling = replace(source, maximum_storage_bytes=9)
    assert doubt_of(recycling, target, frozenset(accepted)) is SourceDoubt.RECYCLES


@pytest.mark.parametrize("side", SideName)
def test_nothing_goes_where_other_orthancs_may_serve_a_database(
    scene: Scene, side: SideName
) -> None:
    """A bridge at one of them is not seen; it may rely on the copy at the target."""
    record = left(scene, scene.ids[0])
    scene.world.in_database = side
    assert deleted(scene, record) is False
    assert scene.ids[0] in scene.world.target.files
    ledger = scene.world.ledger
    assert not scene.deletion().may_begin(ledger, lacking=1, instances=3, age=scene.world.age)
    assert deleted(scene, record, frozenset({Risk.SHARED_DATABASE})) is True


@pytest.mark.parametrize("limit", [9, None])
def test_nothing_goes_where_the_source_may_recycle(scene: Scene, limit: int | None) -> None:
    """It recycled, and the last copies were deleted at the target."""
    record = left(scene, scene.ids[0])
    before = dict(scene.world.target.files)
    scene.world.source_limit = limit
    assert deleted(scene, record) is False
    assert (scene.world.target.files, scene.happened(TargetDeletes)) == (before, [])
    ledger = scene.world.ledger
    assert not scene.deletion().may_begin(ledger, lacking=1, instances=3, age=scene.world.age)
    scene.world.source_limit = 0
    assert deleted(scene, record) is True


RECORD = DeliveryRecord("i", "s", "t", 1.0, lacking_since=100.0)


@pytest.mark.parametrize(
    ("record", "age", "noted_before", "is_over"),
    [
        (RECORD, 160.0, 150.0, True),
        (RECORD, 159.9, 150.0, False),
        (RECORD, 1000.0, 100.0, False),  # noted by the verification that asks
        (RECORD, 1000.0, 50.0, False),
        (replace(RECORD, lacking_since=None), 1000.0, 150.0, False),
        (replace(RECORD, released=True), 1000.0, 150.0, False),
    ],
)
def test_the_grace(record: DeliveryRecord, age: float, noted_before: float, is_over: bool) -> None:
    assert Grace(60.0).is_over(record, age=age, noted_before=noted_before) is is_over
    assert not Grace(None).is_over(record, age=age, noted_before=noted_before)


# What somebody else does meanwhile, and what a target refuses


@pytest.mark.parametrize("when", ["before", "during", "killed"])
def test_a_copy_that_nobody_has_judged_is_not_deleted(scene: Scene, when: str) -> None:
    for instance_id in scene.ids:
        spoil(scene, instance_id)
        judged = scene.world.target.files[instance_id][1]
        theirs = f"{instance_id}:their own:raw".encode()
        if when == "killed":
            intent = replace(begun(scene, instance_id), before_md5=judged)
            scene.world.ledger.set_meta(INTENT_KEY, intent_text(intent))
        prepare = scene.workers.prepare

        def put_meanwhile(
            i: str,
            path: Path,
            theirs: bytes = theirs,
            prepare: Callable[[str, Path], Outcome] = prepare,
        ) -> Outcome:
            scene.world.put(scene.world.target, theirs)
            return prepare(i, path)

        if when == "during":
            vars(scene.workers)["prepare"] = put_meanwhile
        else:
            scene.world.put(scene.world.target, theirs)
        if when == "killed":
            assert resumed(scene) is RepairEnd.OVERTAKEN
        else:
            end = scene.repairer().repair(
                scene.world.ledger, instance_id, DAMAGED,
                instances=3, age=scene.world.age, judged_md5=judged,
            )  # fmt: skip
            assert end is RepairEnd.OVERTAKEN
        vars(scene.workers).pop("prepare", None)
        assert scene.world.target.read(instance_id) == theirs
        assert is_untouched(scene, dict(scene.world.target.files))


def test_what_comes_where_nothing_was_is_not_deleted(scene: Scene) -> None:
    instance_id = scene.ids[0]
    scene.world.target.remove(instance_id)
    theirs = f"{instance_id}:their own:raw".encode()
    prepare = scene.workers.prepare

    def put_meanwhile(i: str, path: Path) -> Outcome:
        scene.world.put(scene.world.target, theirs)
        return prepare(i, path)

    vars(scene.workers)["prepare"] = put_meanwhile
    assert repaired(scene, instance_id) is RepairEnd.OVERTAKEN
    assert scene.world.target.read(instance_id) == theirs


@pytest.mark.parametrize("status", ["FilteredOut", "Failure"])
def test_what_is_missing_and_not_taken_is_parked(scene: Scene, status: str) -> None:
    for instance_id in scene.ids:
        scene.world.target.remove(instance_id)
    sent: list[int] = []

    def refuse(*_: object, **__: object) -> StoreAnswer:
        sent.append(1)
        return StoreAnswer("", status)

    vars(scene.target)["store"] = refuse
    for instance_id in scene.ids:
        assert repaired(scene, instance_id, MISSING) is RepairEnd.FAILED
        assert resumed(scene) is None
        assert scene.world.ledger.is_put_aside(instance_id)
        assert is_untouched(scene, {})
    assert len(sent) == len(scene.ids)
    reason = Reason.FILTERED_OUT if status == "FilteredOut" else Reason.REJECTED_BY_TARGET
    assert scene.world.ledger.parked_by_reason() == {reason: 3}, "what the target answered"


def test_the_file_of_an_unfinished_repair_is_not_written_over(scene: Scene) -> None:
    first, second, _ = scene.ids
    spoil(scene, first)
    spoil(scene, second)

    def refuse(*_: object, **__: object) -> StoreAnswer:
        return StoreAnswer("", "Failure")

    vars(scene.target)["store"] = refuse
    assert repaired(scene, first) is RepairEnd.FAILED
    kept = prepared_path(scene.world.ledger).read_bytes()
    assert repaired(scene, second) is RepairEnd.FAILED
    assert prepared_path(scene.world.ledger).read_bytes() == kept
    assert second in scene.world.target.files
    scene.world.source.remove(first)  # now it is the last copy
    del vars(scene.target)["store"]
    assert resumed(scene) is RepairEnd.REPAIRED
    assert scene.world.target.read(first) == kept
    assert repaired(scene, second) is RepairEnd.REPAIRED


@pytest.mark.parametrize("deleted", [True, False])
def test_a_repair_that_is_wished_no_more_is_ended_only_where_the_copy_is_gone(
    scene: Scene, deleted: bool
) -> None:
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    before = dict(scene.world.target.files)
    begun(scene, instance_id)
    if deleted:
        scene.world.target.remove(instance_id)
    scene.replaces = False
    end = resumed(scene)
    if deleted:
        assert end is RepairEnd.REPAIRED
        assert scene.world.copy_is_right(instance_id)
    else:
        assert end is RepairEnd.OVERTAKEN
        assert is_untouched(scene, before)


def test_a_target_with_a_failing_disk_is_not_deleted_from_for_ever(scene: Scene) -> None:
    instance_id, deleted = scene.ids[0], list[str]()
    spoil(scene, instance_id)
    delete = scene.target.delete_instance

    def counted(i: str) -> bool:
        deleted.append(i)
        return delete(i)

    vars(scene.target)["delete_instance"] = counted
    vars(scene.world)["deleting"] = lambda _: None
    vars(scene.target)["verify_stored"] = lambda _: False
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    for _ in range(3 * LIMIT_LEAST):
        resumed(scene)
    assert len(deleted) == LIMIT_LEAST
    assert resumed(scene) is RepairEnd.HELD
    assert prepared_path(scene.world.ledger).exists()
    scene.world.age += DAY_S + 3600.0
    del vars(scene.target)["verify_stored"]
    assert resumed(scene) is RepairEnd.REPAIRED


@pytest.mark.parametrize("content", ["same", "another"])
def test_what_a_target_changes_is_compared_and_not_sent_for_ever(
    scene: Scene, content: str
) -> None:
    """It compresses what it stores (IngestTranscoding), or spoils it."""
    world, store, sent = scene.world, scene.target.store, list[str]()
    for instance_id in scene.ids:
        spoil(scene, instance_id)

    def changed(body: Iterable[bytes], *, body_bytes: int | None, deadline_s: None) -> StoreAnswer:
        answer = store(body, body_bytes=body_bytes, deadline_s=deadline_s)
        sent.append(answer.instance_id)
        data = (world.target.read(answer.instance_id) or b"").rpartition(b":")[0]
        world.put(world.target, data + (b"1" if content == "another" else b"") + b":j2k")
        return answer

    vars(scene.target)["store"] = changed
    for instance_id in scene.ids:
        assert repaired(scene, instance_id) is RepairEnd.FAILED
    del vars(scene.target)["store"]
    world.age += DAY_S + 3600.0  # the limit of a day
    ended = scene.verification()
    assert ended.run()
    assert ended.ended is not None
    if content == "same":
        assert len(sent) == 3
        assert dict(ended.ended.counts) == {"equal": 3}
    else:
        assert dict(ended.ended.counts) == {"older": 3}
        assert all(map(world.copy_is_right, scene.ids))


# Clauses of a deletion, each alone


def test_more_than_a_day_may_take_goes_with_a_persons_word(scene: Scene) -> None:
    ledger, age = scene.world.ledger, scene.world.age
    deletion = scene.deletion()
    assert not deletion.may_begin(ledger, lacking=11, instances=0, age=age)
    confirm_repairs(ledger, age)
    assert deletion.may_begin(ledger, lacking=11, instances=0, age=age)
    assert not deletion.may_begin(ledger, lacking=11, instances=0, age=age + DAY_S + 1)


def test_both_servers_are_made_sure_of_before_each_deletion(scene: Scene) -> None:
    records = [left(scene, instance_id) for instance_id in scene.ids]
    before = dict(scene.world.target.files)
    asked = 0

    def sure() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise FeedWentBackwards("It is another source.")

    scene.sure = sure
    assert deleted(scene, records[0]) is True
    with pytest.raises(FeedWentBackwards):
        deleted(scene, records[1])
    assert set(before) - set(scene.world.target.files) == {records[0].instance_id}
    assert deleted(scene, records[2]) is True
    assert asked == 3


@pytest.mark.parametrize(
    ("reason", "forgotten"),
    [
        (Reason.PROOF_MISMATCH, True),
        (Reason.SERVER_REFUSES_INSTANCE, False),
        (Reason.NOT_DICOM, False),
    ],
)
def test_a_delivery_is_forgotten_only_where_the_target_lacks_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, reason: Reason, *, forgotten: bool
) -> None:
    record = left(scene, scene.ids[1])

    def fails(_instance_id: str) -> None:
        raise InstanceError(reason, "It does not describe the file.")

    monkeypatch.setattr(scene.target, "stored_file", fails)
    assert deleted(scene, record) is False
    assert (scene.world.ledger.delivery_of(record.instance_id) is None) is forgotten
    assert len(scene.world.target.files) == 3


def test_two_sums_that_are_not_known_are_no_proof(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = left(scene, scene.ids[2], target_md5="")
    told = scene.target.stored_file
    monkeypatch.setattr(scene.target, "stored_file", lambda i: replace(told(i), md5=""))
    assert deleted(scene, record) is False
    assert len(scene.world.target.files) == 3


@pytest.mark.parametrize("open_as", ["parked", "unfinished"])
def test_what_is_parked_or_unfinished_meanwhile_stays(scene: Scene, open_as: str) -> None:
    """The source has sent it anew: the target's copy is the only one there is."""
    record = left(scene, scene.ids[0])
    name = record.instance_id
    entry = (
        Entry(parked=(parked(name),))
        if open_as == "parked"
        else Entry(attempts={name: Attempts(1, 5.0)})
    )
    scene.world.ledger.commit(entry)
    assert not scene.world.ledger.may_go(name)
    assert deleted(scene, record) is False
    assert name in scene.world.target.files


def test_what_is_missing_is_not_sent_unless_it_can_be_put_on_record(scene: Scene) -> None:
    instance_id = scene.ids[0]
    scene.world.target.remove(instance_id)
    before = dict(scene.world.target.files)
    scene.recorded = False
    assert repaired(scene, instance_id, MISSING) is RepairEnd.HELD
    assert is_untouched(scene, before)
    assert repairs_since(scene.world.ledger, scene.world.age) == 0


# Clauses of a repair, each alone


def test_what_was_sent_and_cannot_be_read_is_sent_again(scene: Scene) -> None:
    """It is another file than the one that was judged, and still ours to replace."""
    for instance_id in scene.ids:
        intent = begun(scene, instance_id)
        intent = replace(intent, before_md5="of the copy that was judged")
        scene.world.ledger.set_meta(INTENT_KEY, intent_text(intent))
        scene.world.target.remove(instance_id)
        scene.world.put(scene.world.target, prepared_path(scene.world.ledger).read_bytes())
        spoil(scene, instance_id)
        assert resumed(scene) is RepairEnd.REPAIRED
        assert scene.world.copy_is_right(instance_id)


@pytest.mark.parametrize("at_source", ["another", "nothing"])
def test_what_was_kept_goes_once_the_source_has_another_version(
    scene: Scene, at_source: str
) -> None:
    """The follower delivers that one. Without any there, the prepared file is the last copy."""
    instance_id = scene.ids[0]
    spoil(scene, instance_id)
    intent = replace(begun(scene, instance_id), kept="yes")
    scene.world.ledger.set_meta(INTENT_KEY, intent_text(intent))
    scene.world.source.remove(instance_id)
    if at_source == "another":
        scene.world.put(scene.world.source, f"{instance_id}:another:raw".encode())
    end = resumed(scene)
    path, noted = prepared_path(scene.world.ledger), repair_intent(scene.world.ledger)
    if at_source == "another":
        assert (end, path.exists(), noted) == (RepairEnd.OVERTAKEN, False, None)
    else:
        assert (end, path.exists()) == (RepairEnd.FAILED, True)
        assert noted is not None


def test_what_is_repaired_is_parked_no_more(scene: Scene) -> None:
    ledger = scene.world.ledger
    ledger.commit(Entry(parked=tuple(map(parked, scene.ids))))
    for done, instance_id in enumerate(scene.ids, start=1):
        spoil(scene, instance_id)
        assert repaired(scene, instance_id) is RepairEnd.REPAIRED
        assert not ledger.is_put_aside(instance_id)
        assert sum(ledger.parked_by_reason().values()) == 3 - done


def test_a_target_without_sums_that_has_it_already_is_not_somebody_elses_file(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells that it is another file: it is on record as not proved, and compared next."""
    instance_id = scene.ids[0]
    scene.world.target.remove(instance_id)
    told, store = scene.target.stored_file, scene.target.store

    def already(
        body: Iterable[bytes], *, body_bytes: int | None, deadline_s: float | None
    ) -> StoreAnswer:
        answer = store(body, body_bytes=body_bytes, deadline_s=deadline_s)
        return replace(answer, status="AlreadyStored")

    monkeypatch.setattr(scene.target, "stored_file", lambda i: replace(told(i), md5=""))
    monkeypatch.setattr(scene.target, "store", already)
    assert repaired(scene, instance_id, MISSING) is RepairEnd.FAILED
    record = scene.world.ledger.delivery_of(instance_id)
    assert record is not None
    assert (record.target_md5, record.outdated) == ("", True)


@pytest.mark.parametrize(
    ("problem", "reads"),
    [
        (InstanceError(Reason.SERVER_REFUSES_INSTANCE, "no"), True),
        (InstanceError(Reason.PROOF_MISMATCH, "no"), False),
        (InstanceError(Reason.NOT_DICOM, "no"), False),
        (side_error(SideName.TARGET, SideProblem.FORBIDDEN, "no"), True),
        (side_error(SideName.TARGET, SideProblem.FORBIDDEN, "no", specific=True), None),
        (side_error(SideName.TARGET, SideProblem.SERVER_ERROR, "no"), None),
    ],
)
def test_who_is_believed_to_read_a_file(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, problem: Exception, *, reads: bool | None
) -> None:
    """A target that lets nobody ask; not one that says no of this file, nor one that is down."""

    def fails(_instance_id: str) -> bool:
        raise problem

    monkeypatch.setattr(scene.target, "verify_stored", fails)
    repairer = scene.repairer()
    if reads is None:
        with pytest.raises(SideError):
            repairer._reads(scene.ids[0])
    else:
        assert repairer._reads(scene.ids[0]) is reads


@pytest.mark.parametrize(
    ("reason", "there"),
    [
        (Reason.PROOF_MISMATCH, False),
        (Reason.SERVER_REFUSES_INSTANCE, True),
        (Reason.NOT_DICOM, True),
    ],
)
def test_what_the_target_does_not_describe_is_there_unless_it_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, reason: Reason, *, there: bool
) -> None:
    def fails(_instance_id: str) -> None:
        raise InstanceError(reason, "no")

    monkeypatch.setattr(scene.target, "stored_file", fails)
    found = scene.repairer()._copy(scene.ids[0])
    assert (found is not None) is there
    assert found is None or found.md5 == found.uuid == ""


@pytest.mark.parametrize("proved", [True, False])
def test_only_what_is_proved_is_evidence_for_a_deletion_at_the_source(
    scene: Scene, proved: bool
) -> None:
    repairer, ledger = scene.repairer(), scene.world.ledger
    repairer._keeps_evidence = True
    for instance_id in scene.ids:
        intent = RepairIntent(instance_id, str(DAMAGED), "source", "target")
        repairer._finish(ledger, intent, "target", proved=proved)
    rows = ledger._db.execute("SELECT instance_id FROM kept ORDER BY instance_id").fetchall()
    assert [row[0] for row in rows] == (scene.ids if proved else [])
