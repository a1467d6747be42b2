"""A verification: what is believed, where it goes on, and what it leaves alone."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from bridge.checks.pixels import ImageComparison, ImageResult
from bridge.checks.target_holds import HOLDS_NOTHING, LOST
from bridge.errors import BridgeError, FeedWentBackwards, InstanceError, SideError, side_error
from bridge.events import (
    CopyFound,
    CopyRepaired,
    InFlight,
    Observer,
    Progress,
    TargetDeletes,
    VerificationFailed,
    Verified,
)
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import (
    INTENT_KEY,
    UNDER_WAY_KEY,
    RepairIntent,
    VerificationProgress,
    ask_for_verification,
    damaged_at_source,
    end_verification,
    held_repairs,
    intent_text,
    last_verification,
    save_progress,
    source_doubt,
    under_way,
)
from bridge.mirror.mirror_thread import (
    LOOKED_AT_ONCE,
    SHARE,
    SLOWEST_S,
    TOLD_DELETED_MAX,
    MirrorThread,
    MirrorWorkers,
    OperatorsPace,
    ToldDeleted,
    UnderWay,
)
from bridge.mirror.repair import LOCK_SUFFIX, prepared_path
from bridge.mirror.verify import (
    SOURCE_DAMAGED,
    SOURCE_DAMAGED_TOO,
    UNDECIDED,
    UNFINISHED,
    UNVERIFIABLE,
    Verification,
    VerificationRules,
    WaitingSequences,
)
from bridge.model import Move, Reason, SideName, SideProblem, SourceDoubt, StoreAnswer
from bridge.orthanc import StoredFile
from bridge.pipeline.holds import PAUSED_KEY
from bridge.pipeline.pacing import Allowance, parse_schedule
from tests.pipeline_bench import JOB, Time
from tests.simulation.mirror import GRACE_S, MirrorAddress
from tests.simulation.retention import md5
from tests.unit.mirror.conftest import Scene


def test_all_is_equal(scene: Scene) -> None:
    assert scene.verification().run()
    last = last_verification(scene.world.ledger)
    assert last is not None
    assert (last.instances, last.differences) == (len(scene.ids), 0)
    assert dict(last.counts) == {"equal": len(scene.ids)}
    assert scene.happened(CopyFound) == []
    assert len(scene.happened(Verified)) == 1
    assert under_way(scene.world.ledger) is None


def lose(scene: Scene, *instance_ids: str) -> None:
    """Let retention delete at the source, and the target lose it."""
    for instance_id in instance_ids:
        scene.world.ledger.release_delivery(instance_id)
        scene.world.source.remove(instance_id)
        scene.world.target.remove(instance_id)


def test_what_retention_deleted_and_the_target_lost_is_lost(scene: Scene) -> None:
    """Neither server lists it: a verification found nothing, and all was well."""
    gone, still = scene.ids[1], [scene.ids[0], scene.ids[2]]
    lose(scene, gone)
    assert scene.verification().run()
    last = last_verification(scene.world.ledger)
    assert last is not None
    assert dict(last.counts) == {"equal": 2, "lost": 1}
    assert (last.instances, last.differences, last.nowhere) == (3, 1, 1)
    assert scene.happened(CopyFound) == [CopyFound(gone, "lost", LOST)]
    assert sorted(scene.world.target.files) == still
    # It goes on behind its place, and not before.
    for place, found in ((still[0], 1), (still[1], 0)):
        scene.events.clear()
        save_progress(scene.world.ledger, VerificationProgress(5.0, 1.0, place))
        assert scene.verification().run()
        assert len(scene.happened(CopyFound)) == found


def test_what_was_deleted_at_both_by_people_is_not_lost(scene: Scene) -> None:
    gone = scene.ids[1]
    scene.world.source.remove(gone)
    scene.world.target.remove(gone)
    assert scene.verification().run()
    assert scene.happened(CopyFound) == []


def test_nothing_is_lost_at_a_target_that_is_emptied_on_purpose(scene: Scene) -> None:
    """A chain of buffers, or a target that recycles: the operator has named the risk."""
    lose(scene, scene.ids[1])
    verification = scene.verification()
    rules: VerificationRules = vars(verification)["_rules"]
    vars(verification)["_rules"] = replace(rules, may_vanish=True)
    assert verification.run()
    assert scene.happened(CopyFound) == []


def test_a_target_that_lost_everything_is_told_with_a_doubt(scene: Scene) -> None:
    ids = scene.ids
    lose(scene, *ids)
    assert scene.verification().run()
    told = [CopyFound(i, "lost", f"{HOLDS_NOTHING} {LOST}") for i in ids]
    assert scene.happened(CopyFound) == told


def test_nothing_is_lost_at_a_target_that_is_not_itself(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address leads elsewhere once it was listed: it lacks what it has just listed, too."""
    gone = scene.ids[1]
    lose(scene, gone)

    def holds(address: MirrorAddress, instance_id: str) -> bool:
        return address.side is SideName.SOURCE and whole(address, instance_id)

    whole = MirrorAddress.has_instance
    monkeypatch.setattr(MirrorAddress, "has_instance", holds)
    assert scene.verification().run()
    assert scene.happened(CopyFound) == [CopyFound(gone, "undecided", UNDECIDED)]


def test_what_seems_lost_and_is_there_at_the_second_look_is_not(scene: Scene) -> None:
    gone, target = scene.ids[1], scene.world.target
    scene.world.ledger.release_delivery(gone)
    scene.world.source.remove(gone)
    kept = target.files.pop(gone)
    verification = scene.verification()
    look = vars(verification)["_look_at_feed"]
    looks: list[int] = []

    def then_back(ledger: Ledger) -> None:
        looks.append(1)
        if len(looks) == 2:
            target.files[gone] = kept
        look(ledger)

    vars(verification)["_look_at_feed"] = then_back
    assert verification.run()
    assert len(looks) >= 2
    assert scene.happened(CopyFound) == []


def test_it_goes_on_where_it_was(scene: Scene) -> None:
    for instance_id in scene.ids:
        scene.world.target.remove(instance_id)
    place = scene.ids[1]
    save_progress(scene.world.ledger, VerificationProgress(5.0, 1.0, place, 2, {"equal": 2}))
    assert scene.verification().run()
    repaired = [e.instance_id for e in scene.happened(CopyRepaired) if isinstance(e, CopyRepaired)]
    assert repaired == scene.ids[2:]
    last = last_verification(scene.world.ledger)
    assert last is not None
    assert (last.begun_at, last.instances) == (5.0, len(scene.ids))


def test_a_command_begins_anew_and_leaves_the_place(scene: Scene) -> None:
    ledger = scene.world.ledger
    save_progress(ledger, VerificationProgress(5.0, 1.0, scene.ids[1], 2, {"equal": 2}))
    before = ledger.meta(UNDER_WAY_KEY)
    verification = scene.verification()
    vars(verification)["_keeps_place"] = False
    assert verification.run()
    assert verification.ended is not None
    assert verification.ended.instances == len(scene.ids)
    assert ledger.meta(UNDER_WAY_KEY) == before


def test_what_waits_in_the_feed_is_not_missing(scene: Scene) -> None:
    old = set(scene.ids)
    for _ in range(3):
        scene.world.arrive()
    new = set(scene.ids) - old
    assert scene.verification().run()
    last = last_verification(scene.world.ledger)
    assert last is not None
    assert last.counts["waiting"] == len(new)
    assert scene.happened(CopyFound) == []
    assert not new & set(scene.world.target.files)


def test_what_is_parked_is_not_missing(scene: Scene) -> None:
    for instance_id in scene.ids:
        scene.world.target.remove(instance_id)
        parked = Parked(Move(instance_id), Reason.UNDECODABLE, "", 1, 1.0, 1.0)
        scene.world.ledger.commit(Entry(parked=(parked,)))
    assert scene.verification().run()
    assert scene.happened(CopyFound) == []


@pytest.mark.parametrize(
    "failure",
    [
        InstanceError(Reason.NOT_DICOM, "It is no DICOM file.", final=True),
        side_error(SideName.SOURCE, SideProblem.SERVER_ERROR, "It fails.", specific=True),
    ],
)
@pytest.mark.parametrize("put_aside", ["parked", "waiting", ""])
def test_what_cannot_be_read_and_is_parked_or_waits_is_no_difference(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, failure: BridgeError, put_aside: str
) -> None:
    """No repair could do anything about it, and a reason of /health would never end."""
    instance_id = scene.ids[0]
    scene.world.target.remove(instance_id)
    if put_aside == "parked":
        parked = Parked(Move(instance_id), Reason.NOT_DICOM, "", 1, 1.0, 1.0)
        scene.world.ledger.commit(Entry(parked=(parked,)))
    if put_aside == "waiting":
        monkeypatch.setattr(WaitingSequences, "of", lambda _, one: 10**9 * (one == instance_id))

    def metadata(address: MirrorAddress, asked: str) -> dict[str, str]:
        if address.side is SideName.SOURCE and asked == instance_id:
            raise failure
        return whole(address, asked)

    whole = MirrorAddress.instance_metadata
    monkeypatch.setattr(MirrorAddress, "instance_metadata", metadata)
    assert scene.verification().run()
    last = last_verification(scene.world.ledger)
    assert last is not None
    assert last.counts.get(put_aside or "undecided") == 1
    assert last.differences == (not put_aside)
    told = [] if put_aside else [CopyFound(instance_id, "undecided", UNDECIDED)]
    assert scene.happened(CopyFound) == told


def test_an_outage_is_no_reason_of_a_parked_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id = scene.ids[0]
    scene.world.target.remove(instance_id)
    parked = Parked(Move(instance_id), Reason.NOT_DICOM, "", 1, 1.0, 1.0)
    scene.world.ledger.commit(Entry(parked=(parked,)))

    def metadata(address: MirrorAddress, _: str) -> dict[str, str]:
        raise side_error(address.side, SideProblem.UNREACHABLE, "It is down.")

    monkeypatch.setattr(MirrorAddress, "instance_metadata", metadata)
    with pytest.raises(SideError):
        scene.verification().run()


def test_a_difference_that_is_gone_at_the_second_look_is_none(scene: Scene) -> None:
    target = scene.world.target
    lost = {i: target.storage.pop(target.files[i][0]) for i in scene.ids}

    def come_back() -> None:
        for instance_id, data in lost.items():
            target.storage[target.files[instance_id][0]] = data

    verification = scene.verification()
    looks: list[int] = []
    look = vars(verification)["_look_at_feed"]

    def then_back(ledger: Ledger) -> None:
        looks.append(1)
        if len(looks) == 2:  # the first is at the beginning, the second before it is believed
            come_back()
        look(ledger)

    vars(verification)["_look_at_feed"] = then_back
    assert verification.run()
    assert scene.happened(CopyFound) == []


@pytest.mark.parametrize("refusal", ["403", "404", "no MD5"])
def test_a_refusal_is_no_lost_file(scene: Scene, refusal: str) -> None:
    """Healthy copies read as ``no_file`` behind a restricted login, and were replaced."""
    before = dict(scene.world.target.files)
    verification = scene.verification()
    target = vars(verification)["_target"]

    def refused(instance_id: str) -> bool:
        if refusal == "403":
            raise side_error(SideName.TARGET, SideProblem.FORBIDDEN, "403")
        if refusal == "404":
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, instance_id, final=False)
        return False  # 400: it has no sum to compare with

    vars(target).update(verify_stored=refused, serves_file=lambda _: False)
    if refusal == "no MD5":
        vars(target)["stored_file"] = lambda i: StoredFile(before[i][0], "", 1)
    assert verification.run()
    found = scene.happened(CopyFound)
    assert found == [CopyFound(i, "unverifiable", UNVERIFIABLE) for i in scene.ids]
    assert scene.world.target.files == before
    last = last_verification(scene.world.ledger)
    assert last is not None
    assert (last.differences, last.repaired) == (len(scene.ids), 0)


def test_a_target_without_sums_that_gives_its_files_is_equal(scene: Scene) -> None:
    """It answers verify-md5 as for a damaged file (400): healthy copies were replaced."""
    before = dict(scene.world.target.files)
    verification = scene.verification()
    vars(vars(verification)["_target"]).update(
        verify_stored=lambda _: False, stored_file=lambda i: StoredFile(before[i][0], "", 1)
    )
    assert verification.run()
    assert scene.happened(CopyFound) == []
    assert scene.world.target.files == before


def damage_at_source(scene: Scene, instance_id: str, how: str) -> None:
    """The disk of the source changes a file; what the source has noted of it stays."""
    source = scene.world.source
    uuid = source.files[instance_id][0]
    content, _, form = source.storage[uuid].rpartition(b":")
    if how == "lost":
        del source.storage[uuid]
        return
    source.storage[uuid] = content + b"0:" + form if how == "decodes" else b"rotten"


def deep(scene: Scene, **source: object) -> Verification:
    """Make a verification that compares the files of all instances."""
    verification = scene.verification()
    vars(verification)["_rules"] = replace(vars(verification)["_rules"], share=1.0)
    vars(vars(verification)["_source"]).update(source)
    return verification


def told(scene: Scene) -> dict[str, str]:
    return {e.instance_id: e.state for e in scene.happened(CopyFound) if isinstance(e, CopyFound)}


def refused(_: str) -> bool:
    raise side_error(SideName.SOURCE, SideProblem.FORBIDDEN, "403")


@pytest.mark.parametrize("asks", ["verifies", "refuses to verify"])
@pytest.mark.parametrize("how", ["decodes", "does not decode", "lost"])
@pytest.mark.parametrize("is_sent_unchanged", [False, True])
def test_a_file_that_rots_at_the_source_is_told_and_the_copy_stays(
    scene: Scene, how: str, is_sent_unchanged: bool, asks: str
) -> None:
    """Seen to fail: the copy was told as damaged, or as equal where both had noted one sum."""
    world = scene.world
    rotten, *others = scene.ids
    if is_sent_unchanged:
        for instance_id in scene.ids:
            data = world.source.read(instance_id) or b""
            world.put(world.source, data.rpartition(b":")[0] + b":raw")
            world.target.remove(instance_id)
        world.deliver()
        assert world.source.files[rotten][1] == world.target.files[rotten][1]
    damage_at_source(scene, rotten, how)
    before, record = dict(world.target.files), world.ledger.delivery_of(rotten)
    says: dict[str, object] = {} if asks == "verifies" else {"verify_stored": refused}
    wanted = "source_damaged"
    if how == "lost" and asks != "verifies":
        wanted = "undecided"  # an answer about this file, which may have other reasons
    for turn in (1, 2):
        assert deep(scene, **says).run()
        assert told(scene) == {rotten: wanted}, turn
        assert world.target.files == before
        assert world.ledger.delivery_of(rotten) == record, "what is on record is not forgotten"
    assert scene.happened(CopyRepaired) == []
    last = last_verification(world.ledger)
    assert last is not None
    assert dict(last.counts) == {"equal": len(others), wanted: 1}
    (first, *_) = scene.happened(CopyFound)
    assert isinstance(first, CopyFound)
    assert first.advice == (SOURCE_DAMAGED if wanted == "source_damaged" else UNDECIDED)


def test_what_was_damaged_at_the_source_is_looked_at_until_it_is_not(scene: Scene) -> None:
    """The next sample has others."""
    world, ledger = scene.world, scene.world.ledger
    rotten, other, gone = scene.ids
    good = world.source.read(rotten) or b""
    for instance_id in (rotten, gone):
        damage_at_source(scene, instance_id, "decodes")
    assert deep(scene).run()
    assert damaged_at_source(ledger) == {rotten, gone}
    for _ in range(2):
        scene.events.clear()
        shallow = scene.verification()
        vars(shallow)["_rules"] = replace(vars(shallow)["_rules"], share=0.0)
        assert shallow.run()
        assert told(scene) == {rotten: "source_damaged", gone: "source_damaged"}
    world.source.storage[world.source.files[rotten][0]] = good
    for server in (world.source, world.target):
        server.remove(gone)
    assert scene.verification().run()
    assert damaged_at_source(ledger) == frozenset()
    assert other in world.target.files


def test_a_damaged_source_is_told_where_the_copy_is_damaged_too(scene: Scene) -> None:
    world, rotten = scene.world, scene.ids[0]
    damage_at_source(scene, rotten, "decodes")
    world.target.storage[world.target.files[rotten][0]] += b"!"
    before = dict(world.target.files)
    assert deep(scene).run()
    (found,) = scene.happened(CopyFound)
    assert found == CopyFound(rotten, "damaged", SOURCE_DAMAGED_TOO)
    assert damaged_at_source(world.ledger) == {rotten}
    assert world.target.files == before


def test_a_source_without_sums_is_compared_with_what_was_delivered(scene: Scene) -> None:
    """It answers verify-md5 as for a damaged file (400)."""
    world, rotten = scene.world, scene.ids[0]
    says: dict[str, object] = {"verify_stored": lambda _: False, "stored_md5": lambda _: ""}
    assert deep(scene, **says).run()
    assert told(scene) == {}
    damage_at_source(scene, rotten, "decodes")
    before = dict(world.target.files)
    assert deep(scene, **says).run()
    assert told(scene) == {rotten: "source_damaged"}
    assert world.target.files == before


def test_a_file_that_is_changed_on_the_way_blames_nobody(scene: Scene) -> None:
    """The source can read its file, and another one came."""
    world, one = scene.world, scene.ids[0]
    verification = deep(scene)
    compare = vars(verification)["_comparer"].comparisons

    def changed(asked: Iterable[tuple[str, str]]) -> Iterable[ImageComparison]:
        for compared in compare(asked):
            if compared.instance_id == one:
                yield ImageComparison(one, ImageResult.DIFFERENT, source_md5="0" * 32)
            else:
                yield compared

    vars(vars(verification)["_comparer"])["comparisons"] = changed
    before = dict(world.target.files)
    assert verification.run()
    assert told(scene) == {one: "undecided"}
    assert world.target.files == before


def test_waiting_sequences_are_asked_in_order() -> None:
    texts = ["a 0003", "a 0007", "c 0001", "d 0009"]
    waiting = WaitingSequences(texts)
    assert [waiting.of(i) for i in ("a", "b", "c", "d", "e")] == [7, 0, 1, 9, 0]


# When it may go on


def pace(clock: Time, stop: threading.Event, **options: object) -> OperatorsPace:
    allowance = Allowance(**options)  # type: ignore[arg-type]
    return OperatorsPace(allowance, rate_s=10.0, clock=clock, stop=stop)


class Stop(threading.Event):
    """Nobody waits: time passes instead."""

    def __init__(self, clock: Time) -> None:
        super().__init__()
        self.clock = clock
        self.waited = 0
        self.until = 1_000_000

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += 1
        self.clock.s += timeout or 0.0
        if self.waited >= self.until:
            self.set()
        return self.is_set()


@pytest.mark.parametrize(("own", "rate"), [(0.0, 10.0), (5.0, 5.0), (20.0, 10.0)])
def test_the_lower_of_both_rates_holds(scene: Scene, own: float, rate: float) -> None:
    clock = Time(s=0.0)
    stop = Stop(clock)
    paced = pace(clock, stop, instances_s=own)
    begun_s = clock.s
    for _ in range(30):
        assert paced.take(scene.world.ledger, 10)
    assert 290 / rate - 2 <= clock.s - begun_s <= 300 / rate + 2


@pytest.mark.parametrize(
    ("rate_s", "worked_s", "taken_s"),
    [
        (0.0, 0.1, 0.1 / SHARE),  # 3 % of the time, whatever the rate is
        (1000.0, 0.1, 0.1 / SHARE),
        (0.0, 1.0, 10 / SLOWEST_S),  # far away: not less than so many instances a second
        (0.0, 20.0, 20.0),  # what takes longer than that does not wait
        (1.0, 0.1, 10.0),  # a lower rate holds
    ],
)
def test_deliveries_go_before_a_verification(
    scene: Scene, rate_s: float, worked_s: float, taken_s: float
) -> None:
    """It goes on beside them, with a small share of the time."""
    clock, deliveries = Time(s=0.0), UnderWay()
    beside = OperatorsPace(
        Allowance(),
        rate_s=rate_s,
        clock=clock,
        stop=Stop(clock),
        gives_way=deliveries.under_way,
    )
    ledger, lasted = scene.world.ledger, []
    for in_flight in ((), (InFlight("i", 1, 0.0, 1),), ()):
        deliveries.on_progress(Progress(in_flight=in_flight))
        assert beside.take(ledger, 10)
        begun_s = clock.s
        for _ in range(20):
            clock.s += worked_s
            assert beside.take(ledger, 10)
        lasted.append((clock.s - begun_s) / 20)
    alone_s = max(worked_s, 10 / rate_s if rate_s else 0.0)
    assert lasted == pytest.approx([alone_s, taken_s, alone_s], rel=0.1)


def test_they_end_while_it_gives_way(scene: Scene) -> None:
    clock, deliveries = Time(s=0.0), UnderWay()
    stop = Stop(clock)
    beside = OperatorsPace(
        Allowance(), rate_s=0.0, clock=clock, stop=stop, gives_way=deliveries.under_way
    )
    deliveries.on_progress(Progress(in_flight=(InFlight("i", 1, 0.0, 1),)))
    assert beside.take(scene.world.ledger, 100)
    clock.s += 1.0

    def end() -> bool:
        if stop.waited == 3:
            deliveries.on_progress(Progress())
        return deliveries.under_way()

    beside._gives_way = end
    assert beside.take(scene.world.ledger, 100)
    assert clock.s < 10.0


def test_a_pause_holds_it_and_a_stop_ends_it(scene: Scene) -> None:
    clock = Time(s=0.0)
    stop = Stop(clock)
    stop.until = 50
    scene.world.ledger.set_meta(PAUSED_KEY, "1.0")
    assert not pace(clock, stop).take(scene.world.ledger, 1)
    assert stop.waited == 50
    command = OperatorsPace(
        Allowance(), rate_s=0.0, clock=clock, stop=Stop(clock), heeds_hold=False
    )
    assert command.take(scene.world.ledger, 1000)


def test_quiet_hours_hold_it(scene: Scene) -> None:
    clock = Time(s=0.0)
    stop = Stop(clock)
    stop.until = 50
    always = parse_schedule("00:00-24:00")
    assert not pace(clock, stop, schedule=always).take(scene.world.ledger, 1)


def test_when_it_is_due(scene: Scene) -> None:
    ledger, now = scene.world.ledger, [1e9]
    thread = MirrorThread(
        state_path=ledger.path,
        every_s=60.0,
        workers=MirrorWorkers(JOB, memory_bytes=1 << 30),
        make=lambda _: scene.verification(),
        observer=None,  # type: ignore[arg-type]
        stop=threading.Event(),
        now_s=lambda: now[0],
    )
    assert thread.is_due(ledger)
    scene.world.now = 1e9
    assert scene.verification().run()
    assert not thread.is_due(ledger)
    now[0] += 59.9
    assert not thread.is_due(ledger)
    now[0] += 0.1
    assert thread.is_due(ledger)
    now[0] = 1e9
    save_progress(ledger, VerificationProgress(1e9))
    assert thread.is_due(ledger), "it was not at its end"


@pytest.mark.parametrize("ahead_s", [0.1, 7200.0, 10 * 365 * 86400.0])
def test_one_begun_while_the_clock_was_ahead_holds_none_back(scene: Scene, ahead_s: float) -> None:
    ledger, now = scene.world.ledger, [1e9 + ahead_s]
    thread = MirrorThread(
        state_path=ledger.path,
        every_s=60.0,
        workers=MirrorWorkers(JOB, memory_bytes=1 << 30),
        make=lambda _: scene.verification(),
        observer=None,  # type: ignore[arg-type]
        stop=threading.Event(),
        now_s=lambda: now[0],
    )
    scene.world.now = 1e9 + ahead_s
    assert scene.verification().run()
    assert not thread.is_due(ledger)
    now[0] = 1e9
    assert thread.is_due(ledger), "the clock was set back meanwhile"


class Ended:
    """A verification that comes to its end at once, or (``ends`` False) does not."""

    def __init__(self, ledger: Ledger, at: float, *, ends: bool) -> None:
        self._ledger, self._at, self._ends = ledger, at, ends

    def run(self) -> bool:
        if self._ends:
            end_verification(self._ledger, VerificationProgress(self._at), ended_at=self._at)
        return self._ends


def test_a_person_has_one_begin_before_it_is_due_and_once(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    ends = [True]
    thread = MirrorThread(
        state_path=path,
        every_s=1e6,
        workers=MirrorWorkers(JOB, memory_bytes=1 << 30),
        make=lambda ledger: Ended(ledger, 1e9, ends=ends[0]),  # type: ignore[arg-type,return-value]
        observer=None,  # type: ignore[arg-type]
        stop=threading.Event(),
        now_s=lambda: 1e9,
    )
    with Ledger(path) as ledger:
        ledger.restart_at(1)
        assert thread.verify_once()
        assert not thread.is_due(ledger)
        ask_for_verification(ledger)
        assert thread.is_due(ledger)
        ends[0] = False
        assert not thread.verify_once()
        assert thread.is_due(ledger), "it was stopped: the next start begins it again"
        ends[0] = True
        assert thread.verify_once()
        assert not thread.is_due(ledger)


@pytest.mark.parametrize("every_s", [None, 60.0])
def test_what_a_killed_command_has_begun_is_ended_though_nothing_is_due(
    scene: Scene, every_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, instance_id = scene.world, scene.ids[0]
    world.now = 1e9
    if every_s is not None:
        assert scene.verification().run()
    data = world.source.read(instance_id) or b""
    path = prepared_path(world.ledger)
    scene.workers.prepare(instance_id, path)
    intent = RepairIntent(instance_id, "damaged", md5(data), md5(path.read_bytes()))
    world.ledger.set_meta(INTENT_KEY, intent_text(intent))
    world.target.remove(instance_id)
    monkeypatch.setattr("bridge.mirror.mirror_thread.Ledger", lambda *_, **__: Open(world.ledger))
    thread = MirrorThread(
        state_path=world.ledger.path,
        every_s=every_s,
        workers=MirrorWorkers(JOB, memory_bytes=1 << 30),
        make=lambda _: scene.verification(),
        observer=None,  # type: ignore[arg-type]
        stop=threading.Event(),
        now_s=lambda: 1e9,
    )
    before = last_verification(world.ledger)
    assert thread.verify_once()
    assert world.copy_is_right(instance_id)
    assert last_verification(world.ledger) == before, "it has verified nothing"
    assert not path.exists()


class Open:
    """The ledger of the scene, which stays open."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __enter__(self) -> Ledger:
        return self._ledger

    def __exit__(self, *_: object) -> None:
        """Leave it open."""


def test_a_repair_that_cannot_be_ended_is_told(scene: Scene) -> None:
    world, instance_id = scene.world, scene.ids[0]
    data = world.source.read(instance_id) or b""
    path = prepared_path(world.ledger)
    scene.workers.prepare(instance_id, path)
    intent = RepairIntent(instance_id, "damaged", md5(data), md5(path.read_bytes()))
    world.ledger.set_meta(INTENT_KEY, intent_text(intent))
    world.target.remove(instance_id)
    verification = scene.verification()
    target = vars(vars(verification)["_repairer"])["_target"]
    vars(target)["store"] = lambda *_, **__: StoreAnswer("", "Failure")
    assert not verification.run()
    assert scene.happened(VerificationFailed) == [VerificationFailed(UNFINISHED)]
    assert path.exists()


def test_the_grace_begins_anew_when_the_source_holds_it_again(scene: Scene) -> None:
    world, (instance_id, *_) = scene.world, scene.ids
    record = world.ledger.delivery_of(instance_id)
    assert record is not None
    world.ledger.commit(Entry(delivered=(replace(record, lacking_since=world.age),)))
    # Its copy is neither equal nor repaired.
    world.target.storage[world.target.files[instance_id][0]] += b"!"
    verification = scene.verification()
    vars(verification)["_rules"] = VerificationRules()
    assert verification.run()
    after = world.ledger.delivery_of(instance_id)
    assert after == record
    assert world.ledger.lacking_count() == 0


def test_what_is_learned_of_a_file_holds_for_that_file(scene: Scene) -> None:
    """A server writes a file anew, compressed, after the batch was asked for its syntax."""
    world = scene.world
    verification = scene.verification()
    target = vars(verification)["_target"]
    bulk = target.bulk_metadata

    def then_compressed(instance_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        told: dict[str, dict[str, str]] = bulk(instance_ids)
        for instance_id in told:
            content = (world.target.read(instance_id) or b"").rpartition(b":")[0]
            world.put(world.target, content + b":j2k")
        del vars(target)["bulk_metadata"]
        return told

    vars(target)["bulk_metadata"] = then_compressed
    assert verification.run()
    assert all(map(world.copy_is_right, scene.ids))
    assert len(scene.happened(CopyRepaired)) == 3


def test_a_pause_before_a_deletion_keeps_no_turn(scene: Scene) -> None:
    """``check --repair`` would wait for the end of the pause, without a word."""
    world = scene.world
    world.deletions = True
    for instance_id in scene.ids:
        record = world.ledger.delivery_of(instance_id)
        assert record is not None
        world.ledger.commit(Entry(delivered=(replace(record, lacking_since=world.age),)))
        world.source.remove(instance_id)
    world.age += 2 * GRACE_S
    lock = world.ledger.path.with_name(world.ledger.path.name + LOCK_SUFFIX)
    free: list[int] = []

    class Asked:
        def take(self, ledger: Ledger, instances: int) -> bool:
            assert ledger.path
            with lock.open("r+b") as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(instances)
            return True

    verification = scene.verification()
    vars(verification)["_pace"] = Asked()
    assert verification.run()
    assert free.count(1) >= 3
    assert len(scene.happened(TargetDeletes)) == 3
    assert world.target.files == {}


def lacking(scene: Scene) -> dict[str, float]:
    return {one.instance_id: one.lacking_since or 0.0 for one in scene.world.ledger.lacking()}


def test_what_the_source_says_it_has_deleted_is_noted_and_not_deleted(scene: Scene) -> None:
    """The grace begins now. What goes at the target, a verification decides."""
    gone, kept, last = scene.ids
    scene.world.source.remove(gone)
    scene.world.source.remove(last)
    told = [kept, gone, "00000000-00000000-00000000-00000000-00000000", gone, last]
    assert scene.verification().look_for_lack(told) == 2
    assert set(lacking(scene)) == {gone, last}
    assert set(scene.world.target.files) >= {gone, kept, last}
    assert scene.happened(TargetDeletes) == []
    noted = lacking(scene)
    scene.world.now += 100.0
    assert scene.verification().look_for_lack([gone]) == 0
    assert lacking(scene) == noted, "its grace does not begin anew"


def test_a_hint_is_not_believed_of_another_source(scene: Scene) -> None:
    gone = scene.ids[0]
    scene.world.source.remove(gone)
    looks = iter([None, FeedWentBackwards("another source")])

    def another() -> None:
        if (error := next(looks, None)) is not None:
            raise error

    verification = scene.verification()

    def look(_: Ledger) -> None:
        another()

    vars(verification)["_look_at_feed"] = look
    with pytest.raises(FeedWentBackwards):
        verification.look_for_lack([gone])
    assert lacking(scene) == {}, "it is asked of the source that was followed, twice"


def test_what_has_come_back_at_the_second_look_is_not_noted(scene: Scene) -> None:
    gone = scene.ids[0]
    data = scene.world.source.files[gone]
    scene.world.source.remove(gone)
    verification, looks = scene.verification(), []

    def look(_: Ledger) -> None:
        looks.append(1)
        if len(looks) == 2:
            scene.world.source.files[gone] = data

    vars(verification)["_look_at_feed"] = look
    assert verification.look_for_lack([gone]) == 0
    assert lacking(scene) == {}


def test_hints_are_bounded_and_kept_in_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite3"
    with Ledger(path) as ledger:
        ledger.restart_at(0)
    told = ToldDeleted()
    told.add(f"{number}" for number in range(TOLD_DELETED_MAX + 5))
    taken = 0
    while some := told.take(LOOKED_AT_ONCE):
        assert len(some) <= LOOKED_AT_ONCE
        taken += len(some)
    assert taken == TOLD_DELETED_MAX
    asked: list[list[str]] = []

    class Down:
        def look_for_lack(self, instances: list[str]) -> int:
            asked.append(instances)
            if len(asked) == 1:
                raise side_error(SideName.SOURCE, SideProblem.UNREACHABLE, "down")
            return len(instances)

    made = cast("Callable[[Ledger], Verification]", lambda _: Down())
    thread = MirrorThread(
        state_path=path,
        every_s=7.0,
        workers=cast("MirrorWorkers", None),
        make=made,
        observer=cast("Observer", None),
        stop=threading.Event(),
        told_deleted=told,
    )
    told.add(["a", "b"])
    with pytest.raises(SideError):
        thread.look_at_deleted()
    thread.look_at_deleted()
    assert asked == [["a", "b"], ["a", "b"]]
    thread.look_at_deleted()
    assert len(asked) == 2


# A source that recycles


def verified(scene: Scene) -> set[str]:
    """Verify after the grace; return what is at the target then."""
    scene.world.age += 2 * GRACE_S
    scene.world.now += 2 * GRACE_S
    assert scene.verification().run()
    return set(scene.world.target.files)


def test_what_a_source_has_recycled_stays_for_good(scene: Scene) -> None:
    """Also where the source has other settings later, and what is deleted then is followed."""
    world, (first, second, third) = scene.world, scene.ids
    world.deletions, world.source_limit = True, 9
    world.source.remove(first)
    for _ in range(3):
        assert verified(scene) == {first, second, third}
    assert source_doubt(world.ledger) is SourceDoubt.RECYCLES
    assert held_repairs(world.ledger) == 0, "no word of a person makes it go on"
    world.source.remove(second)  # the last that it recycles
    world.source_limit = 0
    for _ in range(3):
        assert verified(scene) == {first, second, third}
    assert source_doubt(world.ledger) is None
    world.source.remove(third)
    for _ in range(2):
        left = verified(scene)
    assert left == {first, second}
    assert len(scene.happened(TargetDeletes)) == 1


def test_what_was_recycled_before_deletions_were_followed_stays(scene: Scene) -> None:
    world, ids = scene.world, set(scene.ids)
    world.source_limit = 9
    world.source.remove(scene.ids[0])
    assert verified(scene) == ids
    world.deletions, world.source_limit = True, 0
    for _ in range(3):
        assert verified(scene) == ids


def test_a_source_that_does_not_tell_is_followed_later(scene: Scene) -> None:
    """What it lacks may be deleted when the operator vouches for it, or it is told."""
    world, (first, *others) = scene.world, scene.ids
    world.deletions, world.source_limit = True, None
    world.source.remove(first)
    for _ in range(3):
        assert verified(scene) == {first, *others}
    assert source_doubt(world.ledger) is SourceDoubt.UNTOLD
    world.source_limit = 0
    assert verified(scene) == set(others)


def test_the_log_says_at_the_start_that_nothing_is_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = scene.world
    world.deletions, world.source_limit = True, 9
    monkeypatch.setattr("bridge.mirror.mirror_thread.Ledger", lambda *_, **__: Open(world.ledger))
    said: list[str] = []
    monkeypatch.setattr(
        "bridge.mirror.mirror_thread.log", lambda _level, event, *_, **__: said.append(event)
    )
    thread = MirrorThread(
        state_path=world.ledger.path,
        every_s=1e6,
        workers=MirrorWorkers(JOB, memory_bytes=1 << 30),
        make=lambda _: scene.verification(),
        observer=None,  # type: ignore[arg-type]
        stop=threading.Event(),
    )
    for _ in range(2):
        thread.look_at_source()
    assert said == ["deletions_refused"]
    assert source_doubt(world.ledger) is SourceDoubt.RECYCLES
