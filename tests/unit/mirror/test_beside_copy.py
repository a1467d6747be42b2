"""What users have put beside a copy that a repair replaces: kept before, put back after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from bridge.errors import InstanceError, SideError, StateError, side_error
from bridge.events import CopyNotRepaired, CopyReplaces
from bridge.ledger.verifications import INTENT_KEY, repair_intent, repairs_since
from bridge.marks import PROBE_VALUE
from bridge.mirror import beside_copy
from bridge.mirror.beside_copy import (
    KEPT_BYTES_MAX,
    BesideKeeper,
    CannotKeep,
    What,
    is_anything_kept,
    kept_instances,
    kept_path,
)
from bridge.mirror.beside_files import digest_of, digest_of_attachment
from bridge.mirror.judge_copy import CopyState
from bridge.mirror.repair import RepairEnd, is_repair_begun, is_work_left, prepared_path
from bridge.mirror.sign_decision import sign_value
from bridge.model import Reason, ResourceKind, ServerInfo, SideName, SideProblem, StoreAnswer
from bridge.orthanc.carry_client import Attachment
from bridge.worker.prepare import PART
from tests.simulation.mirror import Level, MirrorWorld, place_of
from tests.simulation.retention import md5
from tests.unit.mirror.conftest import Scene
from tests.unit.mirror.test_repair import DAMAGED, MISSING, repaired, resumed, spoil

Values = dict[tuple[What, str], bytes]
OF_USERS: Values = {
    (What.LABEL, "urgent"): b"",
    (What.METADATA, "1024"): b"a text",
    (What.METADATA, "65535"): b"another",
    (What.ATTACHMENT, "1030"): b"%PDF",
    (What.ATTACHMENT, "Report"): b"named",
}
PATIENT = ResourceKind.PATIENT


def annotated(scene: Scene, instance_id: str) -> dict[Level, Values]:
    """Put something beside a copy at each level; returns all that is there."""
    for level in place_of(instance_id).items():
        scene.world.target.beside[level] = dict(OF_USERS)
        if level[0] is PATIENT:
            scene.world.target.beside[level][What.PROTECTED, ""] = b""
    return all_beside(scene)


def all_beside(scene: Scene) -> dict[Level, Values]:
    return {level: dict(values) for level, values in scene.world.target.beside.items() if values}


def alone(scene: Scene) -> str:
    """Return an instance that is the only one of its patient at the target."""
    world = scene.world
    while True:
        levels = world.target.levels()
        for instance_id in sorted(world.target.files):
            patient = (PATIENT, place_of(instance_id)[PATIENT])
            if levels[patient] == [instance_id] and instance_id in world.source.files:
                return instance_id
        world.arrive()
        world.deliver()


def damaged(scene: Scene) -> tuple[str, dict[Level, Values]]:
    instance_id = alone(scene)
    before = annotated(scene, instance_id)
    spoil(scene, instance_id)
    return instance_id, before


def fails(
    side: SideName = SideName.TARGET, problem: SideProblem = SideProblem.UNREACHABLE
) -> Callable[..., None]:
    def failing(*_: object, **__: object) -> None:
        raise side_error(side, problem, "no")

    return failing


def is_clean(scene: Scene) -> bool:
    return not list(scene.world.home.glob("*.repair.*")) and not is_work_left(scene.world.ledger)


def test_all_levels_that_vanish_are_put_back(scene: Scene) -> None:
    """Seen to fail: they went with the copy."""
    instance_id, before = damaged(scene)
    assert len(before) == len(ResourceKind)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    assert scene.world.copy_is_right(instance_id)
    assert all_beside(scene) == before
    assert is_clean(scene)


def test_what_does_not_vanish_is_not_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a series that has another instance, only what is beside the instance itself is kept."""
    world = scene.world
    one, other = (
        "-".join([f"{number:02x}000000", *["0" * 8] * 3, f"{number:08x}"]) for number in (0, 6)
    )
    assert place_of(one)[PATIENT] == place_of(other)[PATIENT]
    for instance_id in (one, other):
        world.put(world.source, f"{instance_id}:1:raw".encode())
    world.deliver()
    before = annotated(scene, one)
    spoil(scene, one)
    written: list[ResourceKind] = []
    for name in ("put_metadata", "put_attachment", "put_label"):
        put = getattr(scene.target, name)

        def noted(
            kind: ResourceKind,
            *args: object,
            put: Callable[..., None] = put,
            **named: object,
        ) -> None:
            written.append(kind)
            put(kind, *args, **named)

        monkeypatch.setattr(scene.target, name, noted)
    monkeypatch.setattr(scene.target, "protect_patient", lambda _: pytest.fail("it is protected"))
    assert repaired(scene, one) is RepairEnd.REPAIRED
    assert all_beside(scene) == before
    assert set(written) == {ResourceKind.INSTANCE}


def test_what_is_not_a_users_is_not_kept(scene: Scene) -> None:
    instance_id = alone(scene)
    level = (ResourceKind.INSTANCE, instance_id)
    there = scene.world.target.beside.setdefault(level, {})
    kept: Values = {(What.METADATA, "1024"): b"kept", (What.METADATA, "Project"): b"kept"}
    there |= kept | {
        (What.METADATA, "ReceptionDate"): b"20260101T000000",
        (What.METADATA, "1023"): b"x",
        (What.METADATA, "1025"): f"{PROBE_VALUE}0000000001-{'0' * 16}".encode(),
        (What.METADATA, "1026"): sign_value("0" * 32).encode(),
        (What.ATTACHMENT, "dicom-until-pixel-data"): b"x",
        (What.ATTACHMENT, "3"): b"x",
    }
    spoil(scene, instance_id)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    assert all_beside(scene) == {level: kept}


def test_a_server_that_names_its_users_metadata_is_believed(scene: Scene) -> None:
    instance_id = alone(scene)
    level = (ResourceKind.INSTANCE, instance_id)
    kept: Values = {(What.METADATA, "Project"): b"kept"}
    scene.world.target.beside[level] = kept | {(What.METADATA, "NewOfOrthanc"): b"x"}
    system = scene.target.system()
    vars(scene.target)["system"] = lambda: ServerInfo(
        system.version, 1, has_extended_changes=False, user_metadata={"Project": 1030}
    )
    spoil(scene, instance_id)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    assert all_beside(scene) == {level: kept}


def test_what_nobody_may_write_is_no_loss(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A metadata of a newer Orthanc's own, at a server that does not tell which are a user's."""
    instance_id = alone(scene)
    level = (ResourceKind.INSTANCE, instance_id)
    scene.world.target.beside[level] = {(What.METADATA, "NewOfOrthanc"): b"x"}
    vars(scene.target)["put_metadata"] = fails(problem=SideProblem.FORBIDDEN)
    spoil(scene, instance_id)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    assert not [row for row in caplog.records if row.levelno >= logging.CRITICAL]
    assert is_clean(scene)


# What cannot be kept


def refusals() -> Iterable[tuple[str, Callable[..., object]]]:
    forbidden = fails(problem=SideProblem.FORBIDDEN)
    for name in ("vanishing", "metadata_of", "attachment_names", "attachment", "attachment_data"):
        yield name, forbidden
    yield "is_protected", forbidden
    yield "attachment_data", lambda *_, **__: b"other bytes than its MD5 says"
    yield "attachment", lambda *_: Attachment("", KEPT_BYTES_MAX + 1, "")

    def broken(*_: object) -> None:
        raise InstanceError(Reason.INTERNAL, "An answer.", final=False)

    yield "metadata_of", broken


@pytest.mark.parametrize(("name", "answer"), [*refusals()])
def test_a_copy_whose_beside_cannot_be_kept_is_not_replaced(
    scene: Scene, name: str, answer: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id, beside = damaged(scene)
    before = dict(scene.world.target.files)
    monkeypatch.setattr(scene.target, "delete_instance", lambda _: pytest.fail("deleted"))
    vars(scene.target)[name] = answer
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    del vars(scene.target)[name]
    assert scene.world.target.files == before
    assert all_beside(scene) == beside
    (told,) = scene.happened(CopyNotRepaired)
    assert isinstance(told, CopyNotRepaired)
    assert "would be lost" in told.message
    assert not [value for value in OF_USERS.values() if value and value.decode() in told.message]
    assert scene.happened(CopyReplaces) == []
    assert is_clean(scene)
    if name != "attachment_data":
        assert repairs_since(scene.world.ledger, scene.world.age) == 0, "it is known before"


def test_the_bound_is_of_all_together(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    instance_id, beside = damaged(scene)
    total = sum(len(data) for values in beside.values() for data in values.values())
    monkeypatch.setattr(beside_copy, "KEPT_BYTES_MAX", total - 1)
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    monkeypatch.setattr(beside_copy, "KEPT_BYTES_MAX", total)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    assert all_beside(scene) == beside


@pytest.mark.parametrize("name", ["vanishing", "metadata_of", "attachment_names", "resources"])
def test_an_outage_at_any_of_its_requests_is_waited_for(scene: Scene, name: str) -> None:
    instance_id, beside = damaged(scene)
    original = getattr(scene.target, name)
    for nth in range(40):
        left = [nth]

        def down_once(*args: object, left: list[int] = left, **named: object) -> object:
            left[0] -= 1
            if left[0] == -1:
                fails()()
            return original(*args, **named)

        vars(scene.target)[name] = down_once
        try:
            end = repaired(scene, instance_id)
        except SideError:
            end = resumed(scene) or RepairEnd.REPAIRED
        finally:
            del vars(scene.target)[name]
        assert end is RepairEnd.REPAIRED
        if not scene.world.copy_is_right(instance_id):
            assert repaired(scene, instance_id) is RepairEnd.REPAIRED
        assert all_beside(scene) == beside, nth
        assert is_clean(scene)
        if left[0] >= 0:
            assert nth > 0, "it is asked"
            return
        scene.world.age += 90_000.0
        spoil(scene, instance_id)
    raise AssertionError("it has no end")


# Kills


class Killed(BaseException):
    """The process ends here."""


def test_a_process_that_is_killed_at_any_request_puts_all_back(scene: Scene) -> None:
    """Also where the copy that it has sent cannot be read and is deleted once more."""
    instance_id, beside = damaged(scene)
    happen = MirrorWorld.happen
    places = 0
    for nth in range(200):
        count = [0]

        def killed(request: str, side: SideName, nth: int = nth, n: list[int] = count) -> None:
            n[0] += 1
            if n[0] == nth + 1:
                raise Killed(request)
            happen(scene.world, request, side)

        vars(scene.world)["happen"] = killed
        try:
            repaired(scene, instance_id)
        except Killed:
            places += 1
        finally:
            del vars(scene.world)["happen"]
        if nth % 3 == 1 and instance_id in scene.world.target.files:
            spoil(scene, instance_id)
        resumed(scene)
        if not scene.world.copy_is_right(instance_id):
            assert repaired(scene, instance_id) is RepairEnd.REPAIRED
        assert all_beside(scene) == beside, nth
        assert is_clean(scene)
        if count[0] <= nth:
            break
        scene.world.age += 90_000.0
        spoil(scene, instance_id)
    assert places > 40


def unfinished(scene: Scene) -> tuple[str, dict[Level, Values]]:
    """A repair whose copy was deleted, and not sent yet."""
    instance_id, beside = damaged(scene)
    vars(scene.target)["store"] = fails()
    with pytest.raises(SideError):
        repaired(scene, instance_id)
    del vars(scene.target)["store"]
    assert all_beside(scene) == {}
    assert kept_path(scene.world.ledger, instance_id).stat().st_mode & 0o777 == 0o600
    return instance_id, beside


def test_what_the_new_copy_lacks_when_it_cannot_be_read_is_not_forgotten(scene: Scene) -> None:
    """It is deleted once more: beside it is not what was beside the first one."""
    instance_id, beside = damaged(scene)
    vars(scene.target)["verify_stored"] = lambda _: False
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    level = (ResourceKind.INSTANCE, instance_id)
    scene.world.target.beside[level] = {(What.METADATA, "1024"): b"newer"}
    del vars(scene.target)["verify_stored"]
    spoil(scene, instance_id)
    assert resumed(scene) is RepairEnd.REPAIRED
    beside[level] = beside[level] | {(What.METADATA, "1024"): b"newer"}
    assert all_beside(scene) == beside


def test_what_somebody_writes_meanwhile_stays(scene: Scene) -> None:
    instance_id, beside = unfinished(scene)
    (study,) = [level for level in place_of(instance_id).items() if level[0] == "studies"]
    store = scene.target.store

    def then_written(*args: object, **named: object) -> StoreAnswer:
        answer = store(*args, **named)  # type: ignore[arg-type]
        scene.world.target.beside[study] = {(What.ATTACHMENT, "1030"): b"theirs"}
        return answer

    vars(scene.target)["store"] = then_written
    assert resumed(scene) is RepairEnd.REPAIRED
    beside[study] = beside[study] | {(What.ATTACHMENT, "1030"): b"theirs"}
    assert all_beside(scene) == beside


def test_somebody_else_sends_the_instance_first(scene: Scene) -> None:
    instance_id, beside = unfinished(scene)
    scene.world.put(scene.world.target, f"{instance_id}:theirs:raw".encode())
    assert resumed(scene) is RepairEnd.OVERTAKEN
    assert all_beside(scene) == beside
    assert is_clean(scene)


@pytest.mark.parametrize("sent", [False, True])
def test_the_note_of_the_repair_is_lost(scene: Scene, sent: bool) -> None:
    """A power cut may lose it, and not the files."""
    instance_id, beside = unfinished(scene)
    if sent:
        scene.world.put(scene.world.target, prepared_path(scene.world.ledger).read_bytes())
    scene.world.ledger.set_meta(INTENT_KEY, None)
    resumed(scene)
    assert scene.world.copy_is_right(instance_id)
    assert all_beside(scene) == beside
    assert is_clean(scene)


def test_what_is_kept_waits_for_the_copy_and_holds_up_no_repair(scene: Scene) -> None:
    instance_id, beside = unfinished(scene)
    prepared_path(scene.world.ledger).unlink()
    scene.world.ledger.set_meta(INTENT_KEY, None)
    assert resumed(scene) is None
    assert kept_instances(scene.world.ledger) == [instance_id]
    assert is_work_left(scene.world.ledger)
    assert not is_repair_begun(scene.world.ledger)
    other = next(i for i in scene.ids if i != instance_id)
    spoil(scene, other)
    assert repaired(scene, other) is RepairEnd.REPAIRED
    assert is_anything_kept(scene.world.ledger)
    # Whoever sends it.
    scene.world.put(scene.world.target, f"{instance_id}:1:raw".encode())
    assert resumed(scene) is None
    assert all_beside(scene) == beside
    assert not is_work_left(scene.world.ledger)


def test_a_note_whose_prepared_file_is_gone(scene: Scene) -> None:
    """Seen to fail: the note was dropped, and the target lacked the copy until somebody noticed."""
    instance_id, beside = unfinished(scene)
    prepared_path(scene.world.ledger).unlink()
    assert resumed(scene) is RepairEnd.REPAIRED
    assert scene.world.copy_is_right(instance_id)
    assert all_beside(scene) == beside
    assert is_clean(scene)


@pytest.mark.parametrize("state", [DAMAGED, MISSING])
def test_a_note_whose_prepared_file_is_gone_and_nothing_was_deleted(
    scene: Scene, state: CopyState
) -> None:
    """A process was killed between the end of a repair's file and that of its note."""
    from tests.unit.mirror.test_repair import begun

    instance_id = scene.ids[0]
    begun(scene, instance_id, state)
    prepared_path(scene.world.ledger).unlink()
    if state is MISSING:
        scene.world.target.remove(instance_id)
    before = dict(scene.world.target.files)
    assert resumed(scene) is None
    assert repair_intent(scene.world.ledger) is None
    assert scene.world.target.files == before


def test_a_note_whose_prepared_file_is_gone_and_the_source_has_lost_it(
    scene: Scene,
) -> None:
    instance_id, _ = unfinished(scene)
    prepared_path(scene.world.ledger).unlink()
    scene.world.source.remove(instance_id)
    assert resumed(scene) is None
    assert repair_intent(scene.world.ledger) is None
    assert kept_instances(scene.world.ledger) == [instance_id], "what users have put there is kept"


# What the target refuses, and files that are not as they were


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("put_metadata", SideProblem.FORBIDDEN),
        ("put_label", SideProblem.FORBIDDEN),
        ("put_attachment", SideProblem.BODY_LIMIT),
        ("protect_patient", SideProblem.NOT_FOUND),
    ],
)
def test_what_the_target_refuses_is_kept_and_told(
    scene: Scene, name: str, problem: SideProblem, caplog: pytest.LogCaptureFixture
) -> None:
    instance_id, before = damaged(scene)
    vars(scene.target)[name] = fails(problem=problem)
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    (row,) = [row for row in caplog.records if row.levelno == logging.CRITICAL]
    (aside,) = scene.world.home.glob("*.repair.beside.*")
    assert aside.name in row.getMessage()
    for _, user in OF_USERS:
        assert user not in row.getMessage().replace(aside.name, "")
    assert not is_work_left(scene.world.ledger)
    assert all_beside(scene) != before
    # It can be put back by hand: the file has it.
    kept = BesideKeeper._read(aside)
    assert kept is not None
    assert len(kept.values) == sum(map(len, before.values()))


def test_an_attachment_that_the_target_only_says_to_have_taken(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Orthanc 1.10 answers 200 for a study that is not there."""
    instance_id, _ = damaged(scene)
    vars(scene.target)["put_attachment"] = lambda *_, **__: None
    assert repaired(scene, instance_id) is RepairEnd.REPAIRED
    assert [row for row in caplog.records if row.levelno == logging.CRITICAL]
    assert len(list(scene.world.home.glob("*.repair.beside.*"))) == 1


@pytest.mark.parametrize("spoilt", ["changed", "cut", "empty"])
def test_a_file_that_the_disk_has_changed_is_not_put_back(
    scene: Scene, spoilt: str, caplog: pytest.LogCaptureFixture
) -> None:
    instance_id, _ = unfinished(scene)
    path = kept_path(scene.world.ledger, instance_id)
    data = path.read_bytes()
    changed = {"changed": data.replace(b"a text", b"A text"), "cut": data[:-40], "empty": b""}
    path.write_bytes(changed[spoilt])
    assert resumed(scene) is RepairEnd.REPAIRED, "the copy itself is what matters"
    assert all_beside(scene) == {}
    assert [row for row in caplog.records if row.levelno == logging.CRITICAL]
    assert not is_work_left(scene.world.ledger)


def test_a_spoilt_file_is_kept_when_the_copy_is_deleted_once_more(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    instance_id, _ = damaged(scene)
    vars(scene.target)["verify_stored"] = lambda _: False
    assert repaired(scene, instance_id) is RepairEnd.FAILED
    kept_path(scene.world.ledger, instance_id).write_bytes(b"spoilt")
    del vars(scene.target)["verify_stored"]
    spoil(scene, instance_id)
    assert resumed(scene) is RepairEnd.REPAIRED
    assert [row for row in caplog.records if row.levelno == logging.CRITICAL]
    assert [p for p in scene.world.home.glob("*.beside.*") if p.read_bytes() == b"spoilt"]


def test_what_a_process_was_killed_at_writing_is_removed(scene: Scene, tmp_path: Path) -> None:
    path = kept_path(scene.world.ledger, scene.ids[0])
    path.with_name(path.name + PART).write_bytes(b"half of it")
    other, _ = unfinished(scene)
    assert other
    assert resumed(scene) is RepairEnd.REPAIRED
    assert list(tmp_path.glob("*.repair.*")) == []


def test_a_file_that_is_not_ours_is_not_put_back(scene: Scene, tmp_path: Path) -> None:
    """Somebody else may have put it there, in a shared directory: it would be sent."""
    instance_id, _ = unfinished(scene)
    path = kept_path(scene.world.ledger, instance_id)
    elsewhere = tmp_path / "theirs"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(StateError):
        resumed(scene)
    assert all_beside(scene) == {}


def test_a_full_disk_deletes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    instance_id, beside = damaged(scene)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(beside_copy, "_write", full)
    with pytest.raises(StateError):
        repaired(scene, instance_id)
    assert all_beside(scene) == beside
    monkeypatch.undo()
    assert resumed(scene) is RepairEnd.REPAIRED
    assert all_beside(scene) == beside


def test_a_copy_that_is_let_go_keeps_no_file(scene: Scene) -> None:
    """The source has another one by now: nothing is deleted, and nothing is to be put back."""
    instance_id, beside = damaged(scene)
    wanted, asked = scene.source.stored_md5, list[str]()

    def another(i: str) -> str:
        asked.append(i)
        return wanted(i) if len(asked) <= 2 else wanted(i)[::-1]

    vars(scene.source)["stored_md5"] = another
    assert repaired(scene, instance_id) is RepairEnd.OVERTAKEN
    assert all_beside(scene) == beside
    assert is_clean(scene)


def test_a_keeper_says_why(scene: Scene) -> None:
    vars(scene.target)["vanishing"] = fails(problem=SideProblem.FORBIDDEN)
    with pytest.raises(CannotKeep, match="refuses to tell it"):
        BesideKeeper(scene.target).check(scene.world.ledger, scene.ids[0])


# Beside BRIDGE_CARRY, which copies there what the source has


def carried(scene: Scene, level: Level, value: bytes, what: What = What.METADATA) -> None:
    """The bridge copies a value of the source to the target, and notes it for its own."""
    key = "metadata 1024" if what is What.METADATA else "attachment 1030"
    digest = digest_of(value) if what is What.METADATA else digest_of_attachment(md5(value))
    name = key.split()[1]
    scene.world.ledger.set_carried(level[1], key, digest)
    scene.world.target.beside.setdefault(level, {})[what, name] = value


@pytest.mark.parametrize("what", [What.METADATA, What.ATTACHMENT])
@pytest.mark.parametrize("whose", ["a user's", "ours"])
def test_what_is_carried_before_it_is_put_back(scene: Scene, what: What, whose: str) -> None:
    """Killed after the upload: the value of the source came first. Seen to fail: a user's was lost
    for it."""
    instance_id = alone(scene)
    level, name = (ResourceKind.INSTANCE, instance_id), "1024" if what is What.METADATA else "1030"
    scene.world.target.beside[level] = {(what, name): b"before"}
    if whose == "ours":
        carried(scene, level, b"before", what)
    spoil(scene, instance_id)
    vars(scene.target)["verify_stored"] = fails()
    with pytest.raises(SideError):
        repaired(scene, instance_id)
    del vars(scene.target)["verify_stored"]
    if instance_id not in scene.world.target.files or all_beside(scene):
        # It was down before the deletion: the copy is still there.
        vars(scene.target)["store"] = fails()
        with pytest.raises(SideError):
            resumed(scene)
        del vars(scene.target)["store"]
        scene.world.put(scene.world.target, prepared_path(scene.world.ledger).read_bytes())
    assert all_beside(scene) == {}
    carried(scene, level, b"of the source", what)
    assert resumed(scene) is RepairEnd.REPAIRED
    wanted = b"before" if whose == "a user's" else b"of the source"
    assert all_beside(scene) == {level: {(what, name): wanted}}
    assert is_clean(scene)


def test_what_was_ours_comes_back_only_while_it_is_the_newest(scene: Scene) -> None:
    """Somebody has deleted at the target what the bridge has copied there since."""
    instance_id = alone(scene)
    level = (ResourceKind.INSTANCE, instance_id)
    carried(scene, level, b"older")
    spoil(scene, instance_id)
    vars(scene.target)["store"] = fails()
    with pytest.raises(SideError):
        repaired(scene, instance_id)
    del vars(scene.target)["store"]
    scene.world.ledger.set_carried(instance_id, "metadata 1024", digest_of(b"newer"))
    assert resumed(scene) is RepairEnd.REPAIRED
    assert all_beside(scene) == {}
