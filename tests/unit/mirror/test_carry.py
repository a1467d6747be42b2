"""What lies beside the files: failures, kills, and where it is known from what is to be done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards, SideError, StateError, side_error
from bridge.events import (
    Carried,
    CarryFailed,
    CarryLeft,
    CarryRoundEnded,
    CarryStopped,
    CarryWorks,
    CopyRepaired,
    Event,
    ParkedRetried,
    Progress,
    Settled,
)
from bridge.feed import listing
from bridge.ledger.store import (
    CARRY_CAUGHT_UP_KEY,
    CARRY_LAST_KEY,
    CARRY_POSITION_KEY,
    CARRY_ROUND_KEY,
    CARRY_WAITING_MAX,
    Ledger,
)
from bridge.marks import PROBE_VALUE
from bridge.mirror import carry, carry_thread
from bridge.mirror.beside_files import AT_ONE_MAX, INTERVALS_S, LONGEST_S
from bridge.mirror.carry import UNKNOWN_FOR_S, Carrier
from bridge.mirror.carry_thread import CarryThread, Hints, round_of
from bridge.model import (
    Action,
    CarriedNames,
    Change,
    Delivered,
    DeliveredSign,
    Move,
    Page,
    Reason,
    ResourceKind,
    ServerInfo,
    SideName,
    SideProblem,
    StageTimes,
)
from bridge.orthanc.answers import Resource
from bridge.orthanc.carry_client import Attachment, Value
from tests.simulation.retention import md5

Key = tuple[str, str]
NAMES = CarriedNames(labels=True, metadata=("1024", "1025"), attachments=("1030",))


DELIVERED = Delivered("Success", Action.UNCHANGED, "1.2", "1.2", "1.2.3", 1, 1, StageTimes())


def named(number: int) -> str:
    return "-".join([f"{number:08x}"] * 5)


@dataclass
class Side:
    """A server in memory: the resources are instances of one series of one study."""

    name: SideName
    ids: list[str] = field(default_factory=list)
    labels: dict[str, set[str]] = field(default_factory=dict)
    metadata: dict[Key, bytes] = field(default_factory=dict)
    attachments: dict[Key, bytes] = field(default_factory=dict)
    rows: list[Change] = field(default_factory=list)
    has_labels: bool = True
    takes_attachments: bool = True
    tells_md5: bool = True
    user_metadata: dict[str, int] = field(default_factory=dict)
    fails: Callable[[str, str], SideError | None] = lambda _path, _name: None
    asked: list[str] = field(default_factory=list)

    def _request(self, method: str, resource_id: str, name: str = "") -> None:
        self.asked.append(f"{method} {resource_id} {name}")
        if (error := self.fails(resource_id, f"{method} {name}")) is not None:
            raise error

    def system(self) -> ServerInfo:
        return ServerInfo("1", 1, has_extended_changes=True, user_metadata=self.user_metadata)

    def list_resources(self, kind: ResourceKind, since: int, limit: int) -> list[str]:
        self._request("list", str(kind))
        return sorted(self.ids)[since : since + limit] if kind is ResourceKind.INSTANCE else []

    def changes(self, since: int, limit: int, *, only_new_instances: bool = False) -> Page:
        del only_new_instances
        rows = tuple(row for row in self.rows if row.sequence > since)
        page = rows[:limit]
        last = page[-1].sequence if page else (self.rows[-1].sequence if self.rows else 0)
        return Page(page, len(page) == len(rows), last)

    def resources(
        self, resource_ids: Sequence[str], *, of: ResourceKind | None = None
    ) -> list[Resource]:
        self._request("bulk", ",".join(resource_ids))
        if of not in (None, ResourceKind.INSTANCE):
            return []
        return [self._resource(one) for one in resource_ids if one in self.ids]

    def _resource(self, resource_id: str) -> Resource:
        shown = {number: name for name, number in self.user_metadata.items()}
        found = {
            shown.get(int(name), name) if name.isdigit() else name: data.decode("utf-8", "replace")
            for (one, name), data in self.metadata.items()
            if one == resource_id
        }
        labels = tuple(sorted(self.labels.get(resource_id, ()))) if self.has_labels else None
        return Resource(ResourceKind.INSTANCE, resource_id, labels, found)

    def metadata_of(self, kind: ResourceKind, resource_id: str, name: str) -> Value | None:
        del kind
        self._request("get", resource_id, name)
        data = self.metadata.get((resource_id, name))
        return None if data is None else Value(data, f'"0-{md5(data)}"')

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        now = self.metadata_of(kind, resource_id, name)
        self._request("put", resource_id, name)
        if now is not None and now.etag != etag:
            raise refused(self.name)
        self.metadata[resource_id, name] = data

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        del kind
        self._request("label", resource_id, label)
        self.labels.setdefault(resource_id, set()).add(label)

    def attachment(self, kind: ResourceKind, resource_id: str, name: str) -> Attachment | None:
        del kind
        data = self.attachments.get((resource_id, name))
        if data is None:
            return None
        told = md5(data) if self.tells_md5 else ""
        return Attachment(told, len(data), f'"0-{told}"' if told else "")

    def attachment_data(
        self, kind: ResourceKind, resource_id: str, name: str, *, bytes_max: int
    ) -> bytes:
        del kind
        self._request("data", resource_id, name)
        data = self.attachments[resource_id, name]
        assert len(data) <= bytes_max
        return data

    def put_attachment(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        now = self.attachment(kind, resource_id, name)
        self._request("put", resource_id, name)
        if now is not None and now.etag != etag:
            raise refused(self.name)
        if self.takes_attachments:
            self.attachments[resource_id, name] = data


def refused(side: SideName) -> SideError:
    return side_error(side, SideProblem.SERVER_ERROR, "409", specific=True)


def outage(side: SideName = SideName.TARGET) -> SideError:
    return side_error(side, SideProblem.UNREACHABLE, "down")


class Scene:
    """Both servers hold the same three instances; all of the feed is settled."""

    def __init__(self, home: Path) -> None:
        self.ids = [named(number) for number in (1, 2, 3)]
        self.source = Side(SideName.SOURCE, list(self.ids))
        self.target = Side(SideName.TARGET, list(self.ids))
        self.path = home / "bridge.sqlite3"
        self.ledger = Ledger(self.path)
        self.events: list[Event] = []
        self.now = 1_000_000.0
        self.names = NAMES
        self.look: Callable[[Ledger], None] = lambda _: None
        self.paces = True
        self.hints = Hints()
        self.ledger.restart_at(0)

    def carrier(self) -> Carrier:
        return Carrier(
            self.source,
            self.target,
            self.names,
            bytes_max=1000,
            report=self.events.append,
            now_s=lambda: self.now,
        )

    def thread(self, every_s: float = 3600.0) -> CarryThread:
        return CarryThread(
            self.carrier(),
            self.source,
            state_path=self.path,
            every_s=every_s,
            pace=self,
            hints=self.hints,
            look_at_feed=self.look,
            observer=self,
            stop=threading.Event(),
            now_s=lambda: self.now,
        )

    def take(self, ledger: Ledger, instances: int) -> bool:
        assert ledger.path == self.path
        assert instances
        return self.paces

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: Progress) -> None:
        raise AssertionError(progress)

    def happened(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def until_idle(self, thread: CarryThread) -> None:
        for _ in range(50):
            if not thread.carry_some(self.ledger):
                return
        raise AssertionError("it has no end")

    def row(self, change_type: str, resource_id: str) -> None:
        sequence = len(self.source.rows) + 1
        self.source.rows.append(Change(sequence, change_type, resource_id, ""))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


def test_all_three_kinds_are_brought_once(scene: Scene) -> None:
    one = scene.ids[0]
    scene.source.metadata[one, "1024"] = b"\xff no text"
    scene.source.labels[one] = {"a", "b"}
    scene.target.labels[one] = {"b", "theirs"}
    scene.source.attachments[one, "1030"] = b"file"
    counts = scene.carrier().carry(scene.ledger, scene.ids)
    assert (counts.resources, counts.left, counts.failed) == (3, 0, 0)
    assert scene.target.metadata == scene.source.metadata
    assert scene.target.attachments == scene.source.attachments
    assert scene.target.labels[one] == {"a", "b", "theirs"}
    assert scene.events == [Carried(one, {"labels": 1, "metadata": 1, "attachments": 1})]
    scene.target.asked.clear()
    scene.carrier().carry(scene.ledger, scene.ids)
    assert not [asked for asked in scene.target.asked if asked.startswith(("put", "label"))]


def test_a_change_in_bytes_that_are_no_text_is_seen(scene: Scene) -> None:
    """A list of all metadata tells both in the same way."""
    one = scene.ids[0]
    scene.source.metadata[one, "1024"] = b"\xff"
    scene.carrier().carry(scene.ledger, scene.ids)
    scene.source.metadata[one, "1024"] = b"\xfe"
    scene.carrier().carry(scene.ledger, scene.ids)
    assert scene.target.metadata[one, "1024"] == b"\xfe"


def test_what_the_source_changes_follows_and_what_others_wrote_stays(scene: Scene) -> None:
    one, two, three = scene.ids
    for number in scene.ids:
        scene.source.metadata[number, "1024"] = b"first"
    scene.target.metadata[two, "1024"] = b"theirs"
    counts = scene.carrier().carry(scene.ledger, scene.ids)
    assert counts.left == 1
    assert scene.happened(CarryLeft) == [CarryLeft(two, "1024", "foreign")]
    scene.target.metadata[three, "1024"] = b"theirs now"
    for number in scene.ids:
        scene.source.metadata[number, "1024"] = b"second"
    assert scene.carrier().carry(scene.ledger, scene.ids).left == 2
    held = {number: scene.target.metadata[number, "1024"] for number in scene.ids}
    assert held == {one: b"second", two: b"theirs", three: b"theirs now"}


@pytest.mark.parametrize("written", [False, True])
def test_a_bridge_that_is_killed_knows_what_it_wrote(scene: Scene, written: bool) -> None:
    """It is killed at the write, and the source changes it before the next start."""
    one = scene.ids[0]
    scene.source.metadata[one, "1024"] = b"first"
    scene.carrier().carry(scene.ledger, scene.ids)

    class Killed(BaseException):
        pass

    put = scene.target.put_metadata

    def dies(
        kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        if written:
            put(kind, resource_id, name, data, etag=etag)
        raise Killed

    vars(scene.target)["put_metadata"] = dies
    scene.source.metadata[one, "1024"] = b"second"
    with pytest.raises(Killed):
        scene.carrier().carry(scene.ledger, scene.ids)
    vars(scene.target)["put_metadata"] = put
    scene.source.metadata[one, "1024"] = b"third"
    scene.carrier().carry(scene.ledger, scene.ids)
    assert scene.target.metadata[one, "1024"] == b"third"


def test_a_value_that_changes_at_the_target_at_this_moment_is_not_overwritten(
    scene: Scene,
) -> None:
    one = scene.ids[0]
    scene.source.metadata[one, "1024"] = b"first"
    scene.carrier().carry(scene.ledger, scene.ids)
    scene.source.metadata[one, "1024"] = b"second"

    def somebody(resource_id: str, asked: str) -> SideError | None:
        if asked == "put 1024":
            scene.target.metadata[resource_id, "1024"] = b"theirs"
            return refused(SideName.TARGET)
        return None

    scene.target.fails = somebody
    assert scene.carrier().carry(scene.ledger, scene.ids).failed == 1
    scene.target.fails = lambda _path, _name: None
    scene.now += INTERVALS_S[0]
    assert scene.carrier().carry(scene.ledger, scene.ids).left == 1
    assert scene.target.metadata[one, "1024"] == b"theirs"


def test_marks_stay_where_they_are(scene: Scene) -> None:
    one, two, _ = scene.ids
    mark = f"{PROBE_VALUE}0000000001-{'0' * 16}".encode()
    scene.source.metadata[one, "1024"] = mark
    scene.source.metadata[two, "1024"] = b"carried"
    scene.target.metadata[two, "1024"] = mark
    assert scene.carrier().carry(scene.ledger, scene.ids).failed == 1
    assert scene.target.metadata == {(two, "1024"): mark}
    del scene.target.metadata[two, "1024"]
    scene.now += INTERVALS_S[0]
    scene.carrier().carry(scene.ledger, scene.ids)
    assert scene.target.metadata == {(two, "1024"): b"carried"}


def test_a_failure_waits_as_parked_instances_do_and_stops_no_other(scene: Scene) -> None:
    one, two, _ = scene.ids
    for number in (one, two):
        scene.source.metadata[number, "1024"] = b"value"
    scene.target.fails = lambda path, name: (
        refused(SideName.TARGET) if (path, name) == (one, "put 1024") else None
    )
    begun, carrier = scene.now, scene.carrier()
    waited = []
    for _ in range(len(INTERVALS_S) + 2):
        carrier.carry(scene.ledger, scene.ids)
        waits = scene.ledger.carry_waits(one)
        assert waits is not None
        waited.append(waits[1] - scene.now)
        asked = len(scene.target.asked)
        assert carrier.carry(scene.ledger, [one]).failed == 1, "not before it is due"
        assert not [a for a in scene.target.asked[asked:] if a.startswith("put")]
        scene.now = waits[1]
        assert scene.ledger.carry_due(scene.now, 10, longest_s=LONGEST_S) == [one]
    assert waited == [*INTERVALS_S, INTERVALS_S[-1], INTERVALS_S[-1]]
    assert scene.target.metadata == {(two, "1024"): b"value"}
    assert scene.ledger.carry_waiting() == (1, begun)
    scene.target.fails = lambda _path, _name: None
    carrier.carry(scene.ledger, scene.ids)
    assert scene.ledger.carry_waiting() == (0, None)
    assert scene.target.metadata[one, "1024"] == b"value"


def test_what_waits_of_a_resource_holds_up_nothing_else_of_it(scene: Scene) -> None:
    """Seen to fail: what changed later waited for up to days with the one that failed."""
    one = scene.ids[0]
    for name in ("1024", "1025"):
        scene.source.metadata[one, name] = b"first"
    scene.target.fails = lambda _path, name: (
        refused(SideName.TARGET) if name == "put 1024" else None
    )
    carrier = scene.carrier()
    assert carrier.carry(scene.ledger, [one]).failed == 1
    waits = scene.ledger.carry_waits(one)
    for value in (b"second", b"third"):
        scene.source.metadata[one, "1025"] = value
        scene.source.attachments[one, "1030"] = value
        scene.source.labels[one] = {value.decode()}
        asked = len(scene.target.asked)
        assert carrier.carry(scene.ledger, [one]).failed == 1
        assert scene.target.metadata == {(one, "1025"): value}
        assert scene.target.attachments == {(one, "1030"): value}
        assert value.decode() in scene.target.labels[one]
        assert f"put {one} 1024" not in scene.target.asked[asked:]
        assert scene.ledger.carry_waits(one) == waits, "it waits as it did"
    # A process that has not seen it fail tries it once more.
    scene.source.metadata[one, "1025"] = b"fourth"
    assert scene.carrier().carry(scene.ledger, [one]).failed == 1
    assert scene.target.metadata == {(one, "1025"): b"fourth"}
    scene.target.fails = lambda _path, _name: None
    scene.now += LONGEST_S
    assert carrier.carry(scene.ledger, [one]).failed == 0
    assert scene.target.metadata[one, "1024"] == b"first"
    assert scene.ledger.carry_waiting() == (0, None)


def test_what_is_remembered_of_those_that_wait_is_bounded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "WAITING_MAX", 2)
    for number in scene.ids:
        scene.source.metadata[number, "1024"] = b"first"
    scene.target.fails = lambda _path, name: (
        refused(SideName.TARGET) if name == "put 1024" else None
    )
    carrier = scene.carrier()
    carrier.carry(scene.ledger, scene.ids)
    for number in scene.ids:
        scene.source.metadata[number, "1025"] = b"later"
    assert carrier.carry(scene.ledger, scene.ids).failed == 3
    assert set(scene.target.metadata) == {(number, "1025") for number in scene.ids[:2]}
    scene.source.ids.remove(scene.ids[0])
    carrier.carry(scene.ledger, [scene.ids[0]])
    assert len(vars(carrier)["_waiting"]) == 1, "what is gone is forgotten"


UNKNOWN = CarriedNames(metadata=("Project", "1025"), attachments=("Report", "1030"))


@pytest.mark.parametrize("name", ["Project", "Report"])
def test_a_name_that_the_target_does_not_know_is_told_once_and_nothing_waits(
    scene: Scene, name: str
) -> None:
    """Seen to fail: each resource waited, with all that it had, and was told each time."""
    scene.names = UNKNOWN
    for number in scene.ids:
        scene.source.metadata[number, "Project"] = scene.source.metadata[number, "1025"] = b"a"
        scene.source.attachments[number, "Report"] = b"b"
        scene.source.attachments[number, "1030"] = b"b"
    unknown = side_error(SideName.TARGET, SideProblem.NOT_FOUND, "404")
    scene.target.fails = lambda _path, asked: unknown if asked == f"put {name}" else None
    carrier = scene.carrier()
    counts = carrier.carry(scene.ledger, scene.ids)
    assert (counts.left, counts.failed) == (1, 0)
    others = {"Project", "1025", "Report", "1030"} - {name}
    held = {*scene.target.metadata, *scene.target.attachments}
    assert held == {(number, other) for number in scene.ids for other in others}
    for number in scene.ids:
        scene.source.metadata[number, "1025"] = b"later"
    carrier.carry(scene.ledger, scene.ids)
    assert {scene.target.metadata[number, "1025"] for number in scene.ids} == {b"later"}
    assert scene.happened(CarryLeft) == [CarryLeft(scene.ids[0], name, "unknown_name")]
    assert not scene.happened(CarryFailed)
    assert scene.ledger.carry_waiting() == (0, None)
    puts = [asked for asked in scene.target.asked if asked.endswith(name) and "put" in asked]
    assert len(puts) == 1
    # It is asked for again within the hour, and brought when it is configured.
    scene.now += UNKNOWN_FOR_S
    carrier.carry(scene.ledger, scene.ids)
    assert len(scene.happened(CarryLeft)) == 1, "it is said once"
    scene.target.fails = lambda _path, _name: None
    scene.now += UNKNOWN_FOR_S
    carrier.carry(scene.ledger, scene.ids)
    assert {(number, name) for number in scene.ids} <= {
        *scene.target.metadata,
        *scene.target.attachments,
    }


def test_a_resource_that_has_gone_at_the_target_makes_no_name_unknown(scene: Scene) -> None:
    """It answers 404 to the value, too."""
    scene.names = UNKNOWN
    one = scene.ids[0]
    scene.source.metadata[one, "Project"] = b"a"

    def gone(resource_id: str, asked: str) -> SideError | None:
        if asked == "put Project":
            scene.target.ids.remove(resource_id)
            return side_error(SideName.TARGET, SideProblem.NOT_FOUND, "404")
        return None

    scene.target.fails = gone
    assert scene.carrier().carry(scene.ledger, [one]).failed == 1
    assert not scene.happened(CarryLeft)


@pytest.mark.slow
def test_no_more_wait_than_are_remembered(scene: Scene) -> None:
    for number in range(CARRY_WAITING_MAX + 3):
        scene.ledger.set_carry_waiting(named(number), now=1.0, next_at=2.0)
    assert scene.ledger.carry_waiting()[0] == CARRY_WAITING_MAX
    scene.ledger.set_carry_waiting(named(0), now=3.0, next_at=4.0)
    assert scene.ledger.carry_waits(named(0)) == (2, 4.0), "those that wait go on waiting"


def test_an_outage_ends_it_and_what_fails_each_time_at_one_resource_is_about_that_one(
    scene: Scene,
) -> None:
    one, two, three = scene.ids
    for number in scene.ids:
        scene.source.metadata[number, "1024"] = b"value"
    scene.target.fails = lambda path, name: outage() if (path, name) == (two, "put 1024") else None
    carrier = scene.carrier()
    for _ in range(AT_ONE_MAX - 1):
        with pytest.raises(SideError):
            carrier.carry(scene.ledger, scene.ids)
        assert (three, "1024") not in scene.target.metadata
    assert carrier.carry(scene.ledger, scene.ids).failed == 1
    assert set(scene.target.metadata) == {(one, "1024"), (three, "1024")}


def test_an_attachment_is_proved_and_bounded(scene: Scene) -> None:
    one, two, _ = scene.ids
    scene.source.attachments[one, "1030"] = b"file"
    scene.source.attachments[two, "1030"] = bytes(1001)
    scene.target.takes_attachments = False
    counts = scene.carrier().carry(scene.ledger, scene.ids)
    assert (counts.failed, counts.left) == (1, 1), "200 proves nothing"
    assert scene.happened(CarryLeft) == [CarryLeft(two, "1030", "too_large")]
    assert [type(event) for event in scene.happened(CarryFailed)] == [CarryFailed]


@pytest.mark.parametrize("tells_md5", [True, False])
def test_attachments_follow_and_those_of_others_stay(scene: Scene, tells_md5: bool) -> None:
    one, two, _ = scene.ids
    scene.source.tells_md5 = scene.target.tells_md5 = tells_md5
    for number in (one, two):
        scene.source.attachments[number, "1030"] = b"first"
    scene.target.attachments[two, "1030"] = b"theirs"
    assert scene.carrier().carry(scene.ledger, scene.ids).left == 1
    for number in (one, two):
        scene.source.attachments[number, "1030"] = b"second"
    scene.carrier().carry(scene.ledger, scene.ids)
    assert scene.target.attachments == {(one, "1030"): b"second", (two, "1030"): b"theirs"}


@pytest.mark.parametrize("side", SideName)
def test_a_server_without_labels_is_told_of_once(scene: Scene, side: SideName) -> None:
    for number in scene.ids:
        scene.source.labels[number] = {"a"}
        scene.source.metadata[number, "1024"] = b"value"
    (scene.source if side is SideName.SOURCE else scene.target).has_labels = False
    carrier = scene.carrier()
    for _ in range(3):
        counts = carrier.carry(scene.ledger, scene.ids)
        assert (counts.left, counts.failed) == (0, 0)
    assert len(scene.happened(CarryLeft)) == 1
    assert len(scene.target.metadata) == 3


def test_a_number_that_the_source_tells_by_a_name_is_found(scene: Scene) -> None:
    scene.names = CarriedNames(metadata=("1024",))
    scene.source.user_metadata = {"Project": 1024}
    scene.source.metadata[scene.ids[0], "1024"] = b"value"
    scene.carrier().carry(scene.ledger, scene.ids)
    assert scene.target.metadata[scene.ids[0], "1024"] == b"value"


def test_what_the_target_does_not_hold_is_left_until_it_is_delivered(scene: Scene) -> None:
    one = scene.ids[0]
    scene.target.ids.remove(one)
    scene.source.metadata[one, "1024"] = b"value"
    counts = scene.carrier().carry(scene.ledger, scene.ids)
    assert (counts.left, counts.failed) == (0, 0)
    assert scene.target.metadata == {}
    scene.target.ids.append(one)
    scene.hints.on_event(CopyRepaired(one, "missing"))
    scene.until_idle(scene.thread())
    assert scene.target.metadata == {(one, "1024"): b"value"}


def test_what_the_source_does_not_hold_any_more_is_forgotten(scene: Scene) -> None:
    for number in scene.ids:
        scene.source.metadata[number, "1024"] = b"value"
    scene.carrier().carry(scene.ledger, scene.ids)
    assert list(scene.ledger.all_carried()) == scene.ids
    scene.source.ids = scene.ids[1:]
    scene.until_idle(scene.thread())
    assert list(scene.ledger.all_carried()) == scene.ids[1:]
    assert (scene.ids[0], "1024") in scene.target.metadata, "nothing is deleted at the target"


def test_what_waits_and_goes_at_the_source_waits_no_more(scene: Scene) -> None:
    one = scene.ids[0]
    compared(scene)
    scene.ledger.set_carry_waiting(one, now=scene.now, next_at=scene.now)
    scene.source.ids = scene.ids[1:]
    scene.until_idle(scene.thread())
    assert scene.ledger.carry_waiting() == (0, None)


def compared(scene: Scene) -> None:
    """All was compared; from here on the feed tells."""
    scene.until_idle(scene.thread())
    assert scene.ledger.meta(CARRY_LAST_KEY) is not None
    scene.events.clear()
    scene.source.asked.clear()


def test_rows_tell_what_has_changed_once_they_are_settled(scene: Scene) -> None:
    one, two, three = scene.ids
    compared(scene)
    for number in scene.ids:
        scene.source.metadata[number, "1024"] = b"value"
    for change_type, number in (
        ("NewInstance", one),
        ("StableSeries", three),
        ("UpdatedMetadata", two),
        ("UpdatedAttachment", three),
    ):
        scene.row(change_type, number)
    scene.ledger.restart_at(2)
    scene.ledger.set_meta(CARRY_POSITION_KEY, "0")
    scene.until_idle(scene.thread())
    assert set(scene.target.metadata) == {(one, "1024")}, "what is not settled waits"
    assert scene.ledger.meta(CARRY_POSITION_KEY) == "2"
    scene.ledger.restart_at(4)
    scene.until_idle(scene.thread())
    assert len(scene.target.metadata) == 3
    assert scene.ledger.meta(CARRY_POSITION_KEY) == "4"


def test_more_rows_than_a_page_are_all_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(scene)
    monkeypatch.setattr(carry_thread, "ROWS", 3)
    monkeypatch.setattr(carry_thread, "BATCH", 2)
    scene.source.ids = scene.target.ids = [named(number) for number in range(1, 12)]
    for number in scene.source.ids:
        scene.source.metadata[number, "1024"] = b"value"
        scene.row("NewInstance", number)
    scene.ledger.restart_at(11)
    scene.ledger.set_meta(CARRY_POSITION_KEY, "0")
    scene.until_idle(scene.thread())
    assert len(scene.target.metadata) == 11


def test_nobody_is_asked_while_there_is_nothing_to_do(scene: Scene) -> None:
    compared(scene)
    looks: list[Ledger] = []
    scene.look = looks.append
    thread = scene.thread()
    for _ in range(3):
        assert not thread.carry_some(scene.ledger)
    assert (looks, scene.source.asked) == ([], [])
    scene.hints.add([scene.ids[0]])
    thread.carry_some(scene.ledger)
    assert len(looks) == 1


def test_the_place_in_the_feed_stays_in_an_outage(scene: Scene) -> None:
    compared(scene)
    scene.source.metadata[scene.ids[0], "1024"] = b"value"
    scene.row("UpdatedMetadata", scene.ids[0])
    scene.ledger.restart_at(1)
    scene.ledger.set_meta(CARRY_POSITION_KEY, "0")
    scene.target.fails = lambda _path, _name: outage()
    with pytest.raises(SideError):
        scene.thread().carry_some(scene.ledger)
    assert scene.ledger.meta(CARRY_POSITION_KEY) == "0"
    scene.target.fails = lambda _path, _name: None
    scene.until_idle(scene.thread())
    assert len(scene.target.metadata) == 1


def test_another_source_changes_nothing(scene: Scene) -> None:
    scene.source.metadata[scene.ids[0], "1024"] = b"value"

    def another(_: Ledger) -> None:
        raise FeedWentBackwards("another source")

    scene.look = another
    with pytest.raises(FeedWentBackwards):
        scene.thread().carry_some(scene.ledger)
    assert scene.target.metadata == {}


def test_nothing_is_done_before_the_first_checkpoint(tmp_path: Path) -> None:
    made = Scene(tmp_path)
    with made.ledger:
        made.ledger.set_meta("checkpoint", None)
        assert not made.thread().carry_some(made.ledger)
        assert made.source.asked == []


def test_a_source_whose_list_has_no_end_ends_the_round_with_its_fault(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails (by time) when the list is read for as long as the source has one more."""
    asked: list[int] = []

    def one_more(kind: ResourceKind, since: int, limit: int) -> list[str]:
        assert kind in set(ResourceKind)
        assert limit
        asked.append(since)
        return [f"{since:08x}-00000000-00000000-00000000-00000000"]

    monkeypatch.setattr(listing, "LISTED_PAGES_MAX", 7)
    compared(scene)
    monkeypatch.setattr(scene.source, "list_resources", one_more)
    scene.now += 3600.0
    with pytest.raises(SideError, match="more than 7 pages"):
        scene.until_idle(scene.thread())
    assert asked == [*range(7)]


def test_the_round_finds_labels_and_goes_on_where_it_was(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(scene)
    monkeypatch.setattr(carry_thread, "BATCH", 1)
    for number in scene.ids:
        scene.source.labels[number] = {"later"}
    scene.until_idle(scene.thread())
    assert scene.target.labels == {}, "no row tells of labels"
    scene.now += 3600.0
    first = scene.thread()
    while not scene.target.labels:
        assert first.carry_some(scene.ledger)
    place = round_of(scene.ledger, CARRY_ROUND_KEY)
    assert place is not None
    assert (place.position, place.resources) == (scene.ids[0], 1)
    scene.source.asked.clear()
    scene.until_idle(scene.thread())
    assert f"bulk {scene.ids[0]} " not in scene.source.asked, "it was done"
    assert set(scene.target.labels) == set(scene.ids)
    assert scene.happened(CarryRoundEnded) == [CarryRoundEnded(3, 0, 0)]
    last = round_of(scene.ledger, CARRY_LAST_KEY)
    assert last is not None
    assert (last.begun_at, last.resources) == (scene.now, 3)
    assert scene.ledger.meta(CARRY_ROUND_KEY) is None


def test_a_feed_that_begins_again_is_compared(scene: Scene) -> None:
    compared(scene)
    scene.source.metadata[scene.ids[2], "1024"] = b"value"
    scene.ledger.set_meta(CARRY_POSITION_KEY, "100")
    scene.until_idle(scene.thread())
    assert len(scene.target.metadata) == 1
    assert scene.ledger.meta(CARRY_POSITION_KEY) == "0"


def test_another_target_begins_anew_and_owns_nothing(scene: Scene) -> None:
    scene.ledger.bind_deliveries("http://one:8042")
    scene.source.metadata[scene.ids[0], "1024"] = b"first"
    compared(scene)
    scene.ledger.set_carry_waiting(scene.ids[0], now=scene.now, next_at=scene.now + 100)
    scene.ledger.bind_deliveries("http://two:8042")
    assert scene.ledger.carried(scene.ids[0], "metadata 1024") == ("", "")
    assert scene.ledger.carry_waiting() == (0, None)
    # The new one holds the very value that was written to the first one: it is not ours there.
    scene.target.metadata[scene.ids[0], "1024"] = b"first"
    scene.source.metadata[scene.ids[0], "1024"] = b"second"
    scene.until_idle(scene.thread())
    assert scene.target.metadata[scene.ids[0], "1024"] == b"first"
    assert scene.happened(CarryRoundEnded) == [CarryRoundEnded(3, 1, 0)]


def test_deliveries_without_a_row_are_remembered(scene: Scene) -> None:
    moves = [Move(named(number)) for number in range(5)]
    scene.hints.on_event(Settled(moves[0], DELIVERED, 1))
    scene.hints.on_event(Settled(Move(named(9), 9), DELIVERED, 1))  # its row tells
    scene.hints.on_event(ParkedRetried(moves[1], Reason.FILTERED_OUT, "delivered"))
    scene.hints.on_event(ParkedRetried(moves[2], Reason.FILTERED_OUT, "parked"))
    scene.hints.on_event(CopyRepaired(named(3), "damaged"))
    assert scene.hints.take(2) == [named(0), named(1)]
    assert scene.hints.take(2) == [named(3)]
    assert scene.hints.take(2) == []


def test_hints_are_kept_in_an_outage(scene: Scene) -> None:
    compared(scene)
    scene.source.metadata[scene.ids[0], "1024"] = b"value"
    scene.hints.add([scene.ids[0]])
    scene.target.fails = lambda _path, _name: outage()
    with pytest.raises(SideError):
        scene.thread().carry_some(scene.ledger)
    scene.target.fails = lambda _path, _name: None
    scene.until_idle(scene.thread())
    assert len(scene.target.metadata) == 1


def test_it_says_since_when_nothing_is_left(scene: Scene) -> None:
    compared(scene)
    assert scene.ledger.meta(CARRY_CAUGHT_UP_KEY) == repr(scene.now)
    scene.now += 100.0
    scene.paces = False  # a stop: nothing is done
    scene.row("UpdatedMetadata", scene.ids[0])
    scene.ledger.restart_at(1)
    scene.ledger.set_meta(CARRY_POSITION_KEY, "0")
    scene.thread().carry_some(scene.ledger)
    assert scene.ledger.meta(CARRY_CAUGHT_UP_KEY) == repr(scene.now - 100.0)


def test_a_thread_goes_on_after_a_failure(scene: Scene) -> None:
    failures = iter([outage(SideName.SOURCE), outage(SideName.SOURCE)])

    def look(_: Ledger) -> None:
        if (error := next(failures, None)) is not None:
            raise error

    scene.look = look
    thread = scene.thread()
    first, second, third = (thread.turn() for _ in range(3))
    assert 0 < first < second, "longer each time"
    assert third == 0.0, "the round is at work"
    stopped = CarryStopped("down")
    assert scene.events == [stopped, stopped, CarryWorks()]


def test_a_state_file_that_was_tampered_with_is_told(scene: Scene) -> None:
    scene.ledger.set_meta(CARRY_LAST_KEY, "{}")
    with pytest.raises(StateError):
        round_of(scene.ledger, CARRY_LAST_KEY)
    scene.ledger.set_meta(CARRY_POSITION_KEY, "x")
    with pytest.raises(StateError):
        scene.thread().carry_some(scene.ledger)


@pytest.mark.parametrize("kind", ResourceKind)
def test_the_label_that_says_delivered_is_brought_at_no_level(
    scene: Scene, kind: ResourceKind
) -> None:
    """A user has set it at the study: the target's study would have said delivered, too."""
    one = scene.ids[0]
    scene.source.labels[one] = {"delivered", "a"}
    for server in (scene.source, scene.target):
        made = server._resource
        vars(server)["_resource"] = lambda i, made=made: replace(made(i), kind=kind)
    carrier = Carrier(
        scene.source, scene.target, scene.names, bytes_max=9, sign=DeliveredSign("delivered")
    )
    carrier.carry(scene.ledger, [one])
    assert scene.target.labels[one] == {"a"}
