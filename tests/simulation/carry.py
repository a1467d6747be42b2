"""What lies beside the files, between two servers that drift apart, and kills at any point.

    python -m tests.simulation.carry --seeds 100000 --first 0

The world of mirror.py, in which users write labels, metadata and attachments at both servers, take
them away, and restore the target or the bridge's state from a backup, between any two requests.
What must hold:

- nothing that somebody else wrote at the target is written over, and nothing is deleted there but
  with a copy that is repaired;
- when nothing happens any more, some rounds later the target holds what the source has, or what
  somebody else wrote, and then nothing more is written;
- what is left as somebody else's, and was the bridge's, was left because the target or the state
  file had been restored, or the source had lost the resource meanwhile.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from bridge.errors import BridgeError, InstanceError, SideError, side_error
from bridge.events import CarryLeft, Event, Progress
from bridge.ledger.store import CARRY_ROUND_KEY
from bridge.mirror.carry import FOREIGN, Carrier
from bridge.mirror.carry_thread import CarryThread, Hints
from bridge.model import CarriedNames, Page, Reason, ResourceKind, SideName, SideProblem
from bridge.orthanc.answers import Resource
from bridge.orthanc.carry_client import Attachment, Value
from tests.simulation.campaign import run_campaign
from tests.simulation.mirror import (
    MirrorAddress,
    MirrorServer,
    MirrorWorld,
    Paceless,
    identifier,
    look,
)
from tests.simulation.retention import Crash, MemoryLedger, md5
from tests.simulation.world import Violation

METADATA, ATTACHMENT = "metadata", "attachment"
NAMES = CarriedNames(labels=True, metadata=("1024",), attachments=("1030",))
KEYS = ((METADATA, "1024"), (ATTACHMENT, "1030"))
ROWS = {METADATA: "UpdatedMetadata", ATTACHMENT: "UpdatedAttachment"}
EVERY_S = 3600.0
HAPPENS = 0.2
"""How likely something happens beside the files before a request."""
TURNS_MAX = 400
ROUNDS_MAX = 4
BYTES_MAX = 1000
Key = tuple[str, str, str]
"""A resource, METADATA or ATTACHMENT, and a name."""


@dataclass(frozen=True)
class Stored:
    """A value. ``ours``: the bridge wrote it, or found it equal to the source's."""

    data: bytes
    revision: int
    ours: bool = False

    @property
    def etag(self) -> str:
        return f'"{self.revision}-{md5(self.data)}"'


def study_of(instance: str) -> str:
    """Return the study of an instance: there are two."""
    return identifier(f"study {int(instance[0], 16) % 2}")


@dataclass
class BesideServer(MirrorServer):
    """An Orthanc with what users write beside its files."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    values: dict[Key, Stored] = field(default_factory=dict)
    checks_revisions: bool = True
    dropped: Callable[[dict[Key, Stored]], None] = lambda _: None

    def kind_of(self, resource: str) -> ResourceKind | None:
        if resource in self.files:
            return ResourceKind.INSTANCE
        return ResourceKind.STUDY if resource in map(study_of, self.files) else None

    def resources(self) -> list[str]:
        return sorted({*self.files, *map(study_of, self.files)})

    def remove(self, instance: str) -> bool:
        removed = super().remove(instance)
        self.drop_orphans()
        return removed

    def drop_orphans(self) -> None:
        """What lies beside a resource goes with it."""
        here = set(self.resources())
        self.dropped({key: value for key, value in self.values.items() if key[0] not in here})
        self.labels = {one: labels for one, labels in self.labels.items() if one in here}
        self.values = {key: value for key, value in self.values.items() if key[0] in here}
        self.rows[:] = [row for row in self.rows if row.resource_id in here]

    def write(self, key: Key, data: bytes, *, ours: bool = False) -> None:
        now = self.values.get(key)
        self.values[key] = Stored(data, 0 if now is None else now.revision + 1, ours)
        self.row(ROWS[key[1]], key[0])


class BesideAddress(MirrorAddress):
    """A client of one side that also knows what lies beside the files."""

    world: CarryWorld

    def _beside(self, request: str) -> BesideServer:
        return cast("BesideServer", self._reach(request))

    def changes(self, since: int, limit: int, *, only_new_instances: bool = False) -> Page:
        return super().changes(since, limit, only_new_instances=only_new_instances)

    def list_resources(self, kind: ResourceKind, since: int, limit: int) -> list[str]:
        server = self._beside("list")
        held = [one for one in server.resources() if server.kind_of(one) is kind]
        return held[since : since + min(limit, self.world.page)]

    def resources(
        self, resource_ids: Sequence[str], *, of: ResourceKind | None = None
    ) -> list[Resource]:
        server = self._beside("bulk")
        wanted = list(resource_ids)
        if of is ResourceKind.STUDY:
            wanted = [study_of(one) for one in wanted if one in server.files]
        elif of not in {None, ResourceKind.INSTANCE}:
            return []
        found = []
        for one in dict.fromkeys(wanted):
            kind = server.kind_of(one)
            if kind is None:
                continue
            has_labels = self.world.has_labels[self.side]
            labels = tuple(sorted(server.labels.get(one, ()))) if has_labels else None
            metadata = {
                key[2]: value.data.decode("utf-8", "replace")
                for key, value in server.values.items()
                if key[:2] == (one, METADATA)
            }
            found.append(Resource(kind, one, labels, metadata))
        return found

    def _value(self, server: BesideServer, key: Key) -> Stored | None:
        if self.side is SideName.TARGET:
            self.world.seen[key] = server.values.get(key)
        return server.values.get(key)

    def metadata_of(self, kind: ResourceKind, resource_id: str, name: str) -> Value | None:
        assert kind
        found = self._value(self._beside("get"), (resource_id, METADATA, name))
        return None if found is None else Value(found.data, found.etag)

    def attachment(self, kind: ResourceKind, resource_id: str, name: str) -> Attachment | None:
        assert kind
        found = self._value(self._beside("info"), (resource_id, ATTACHMENT, name))
        if found is None:
            return None
        told = md5(found.data) if self.world.tells_md5 else ""
        return Attachment(told, len(found.data), found.etag)

    def attachment_data(
        self, kind: ResourceKind, resource_id: str, name: str, *, bytes_max: int
    ) -> bytes:
        assert kind
        found = self._beside("data").values.get((resource_id, ATTACHMENT, name))
        if found is None:
            raise self._refused(SideProblem.NOT_FOUND)
        assert len(found.data) <= bytes_max
        return found.data

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        assert kind
        self._put((resource_id, METADATA, name), data, etag)

    def put_attachment(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        assert kind
        self._put((resource_id, ATTACHMENT, name), data, etag)

    def _put(self, key: Key, data: bytes, etag: str) -> None:
        server = self._beside("put")
        assert self.side is SideName.TARGET, "nothing is carried to the source"
        if server.kind_of(key[0]) is None:
            if key[1] == ATTACHMENT:
                return  # 1.10 answers 200
            raise self._refused(SideProblem.NOT_FOUND)
        now = server.values.get(key)
        if server.checks_revisions and etag != ("" if now is None else now.etag):
            raise self._refused(SideProblem.SERVER_ERROR)
        self.world.replacing(key, now)
        server.write(key, data, ours=True)
        self.world.excused.discard(key)
        self.world.hot = key
        self.world.writes += 1
        self.world.point()

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        server = self._beside("label")
        assert kind
        assert self.side is SideName.TARGET
        if server.kind_of(resource_id) is None:
            raise self._refused(SideProblem.NOT_FOUND)
        assert self.world.has_labels[self.side]
        server.labels.setdefault(resource_id, set()).add(label)
        self.world.writes += 1
        self.world.point()

    def _refused(self, problem: SideProblem) -> SideError:
        return side_error(self.side, problem, "refused", specific=True)


class KeptAddress(BesideAddress):
    """A client of one side for a repair, which keeps what is beside a copy and puts it back."""

    def vanishing(self, instance_id: str) -> list[Resource]:
        if instance_id not in self._beside("vanishing").files:
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "not told", final=False)
        self.world.read_at = self.world.requests
        found = self.resources([instance_id])
        server = self.world.target
        study = study_of(instance_id)
        if [one for one in server.files if study_of(one) == study] == [instance_id]:
            found += self.resources([study])
        return found

    def attachment_names(self, kind: ResourceKind, resource_id: str) -> list[str]:
        assert kind
        there = self._beside("attachments").values
        return ["dicom"] + [key[2] for key in there if key[:2] == (resource_id, ATTACHMENT)]

    def is_protected(self, patient_id: str) -> bool:
        raise AssertionError(f"there are no patients: {patient_id}")

    def _put(self, key: Key, data: bytes, etag: str) -> None:
        """What is put back is whose it was."""
        excused = (self.world.excused | self.world.gone_excused) & {key}
        super()._put(key, data, etag)
        self.world.excused |= excused
        was = self.world.gone.get(key)
        is_known = was is not None and was.data == data
        is_ours = was.ours if was and is_known else data in self.world.had.get(key, ())
        now = self.world.target.values.get(key)
        if now is not None and now.data == data:
            self.world.target.values[key] = replace(now, ours=is_ours)


class CarryWorld(MirrorWorld):
    """Two servers with users, and one bridge that verifies, repairs and carries."""

    source: BesideServer
    target: BesideServer

    def __init__(self, seed: int, home: Path) -> None:
        draw = random.Random(f"beside {seed}")
        self.has_labels = {side: draw.random() < 0.8 for side in SideName}
        self.tells_md5 = draw.random() < 0.7
        self.page = draw.choice([2, 1000])
        """So many identifiers a server lists at once, of the 1000 that it is asked for."""
        self.beside_rng = draw
        self.seen: dict[Key, Stored | None] = {}
        """What the bridge saw last at the target."""
        self.had: dict[Key, set[bytes]] = {}
        """What the source has ever had."""
        self.excused: set[Key] = set()
        """What the bridge cannot know for its own any more."""
        self.gone: dict[Key, Stored] = {}
        """What went with a copy that a repair has deleted, and users have left alone since."""
        self.gone_excused: set[Key] = set()
        """What went, and the bridge did not know for its own any more."""
        self.written_at: dict[Key, int] = {}
        self.hot: Key | None = None
        """What the bridge wrote last: users work on the same things again and again."""
        self.writes = 0
        self.left: set[tuple[str, str]] = set()
        self.states: list[bytes] = []
        self.state_restored = False
        self.backup_beside: tuple[dict[str, set[str]], dict[Key, Stored]] | None = None
        self.hints = Hints()
        self._thread: CarryThread | None = None
        super().__init__(seed, home)
        self.target.dropped = self.dropped
        checks = draw.random() < 0.7
        self.source.checks_revisions = self.target.checks_revisions = checks

    def _server(self, name: str) -> BesideServer:
        return BesideServer(name, self.rng)

    # What may happen

    def happen(self, request: str, side: SideName) -> None:
        super().happen(request, side)
        if self.calm or self.beside_rng.random() >= HAPPENS:
            return
        events = (
            self.user_writes_at_source, self.user_writes_at_source, self.user_writes_at_source,
            self.user_writes_at_target, self.user_deletes, self.user_labels, self.user_labels,
            self.back_up_state, self.come, self.deliver,
        )  # fmt: skip
        self.beside_rng.choice(events)()

    def come(self) -> None:
        """An instance arrives with something beside it, and is delivered."""
        self.arrive()
        instance = self.source.rows[-1].resource_id
        key = (instance, *self.beside_rng.choice(KEYS))
        self.source.write(key, b"first")
        self.had.setdefault(key, set()).add(b"first")
        self.deliver()

    def _any_key(self, server: BesideServer) -> Key | None:
        held = server.resources()
        if not held:
            return None
        if self.hot is not None and self.hot[0] in held and self.beside_rng.random() < 0.6:
            return self.hot
        return (self.beside_rng.choice(held), *self.beside_rng.choice(KEYS))

    def user_writes_at_source(self) -> None:
        key = self._any_key(self.source)
        if key is None:
            return
        # A user who goes back to a value of before is a user, too.
        before = sorted(self.had.get(key, ()))
        data = f"{self.beside_rng.getrandbits(40)}".encode()
        if key[1] == METADATA and self.beside_rng.random() < 0.1:
            data = b"\xff" + data
        if before and self.beside_rng.random() < 0.2:
            data = self.beside_rng.choice(before)
        self.source.write(key, data)
        self.had.setdefault(key, set()).add(data)

    def user_writes_at_target(self) -> None:
        key = self._any_key(self.target)
        if key is None:
            return
        same = self.source.values.get(key)
        data = f"user {self.beside_rng.getrandbits(40)}".encode()
        if same is not None and self.beside_rng.random() < 0.2:
            data = same.data
        self.target.write(key, data)
        self.written_at[key] = self.requests
        self.gone.pop(key, None)

    def user_deletes(self) -> None:
        server = self.beside_rng.choice([self.source, self.target])
        if server.values:
            key = self.beside_rng.choice(sorted(server.values))
            del server.values[key]
            if server is self.target:
                self.gone.pop(key, None)

    def user_labels(self) -> None:
        server = self.beside_rng.choice([self.source, self.source, self.target])
        side = SideName.SOURCE if server is self.source else SideName.TARGET
        held = server.resources()
        if held and self.has_labels[side]:
            label = f"l{self.beside_rng.randint(1, 5)}"
            server.labels.setdefault(self.beside_rng.choice(held), set()).add(label)

    def back_up_state(self) -> None:
        self.states.append(self.ledger.content())

    def back_up(self) -> None:
        super().back_up()
        labels = {one: set(labels) for one, labels in self.target.labels.items()}
        self.backup_beside = labels, dict(self.target.values)

    def restore(self) -> None:
        super().restore()
        if self.backup_beside is not None:
            labels, values = self.backup_beside
            self.target.labels = {one: set(told) for one, told in labels.items()}
            self.target.values = dict(values)
            self.target.drop_orphans()
            self.excused |= set(values)
            self.gone.clear()

    def delete_at_source(self) -> None:
        super().delete_at_source()
        # The bridge forgets what the source lacks; it may come again.
        held = set(self.source.resources())
        known = {*self.target.values, *self.gone}
        self.excused |= {key for key in known if key[0] not in held}

    # What the bridge does

    def address(self, side: SideName) -> MirrorAddress:
        return KeptAddress(side, self)

    def report(self, event: Event) -> None:
        super().report(event)
        self.hints.on_event(event)
        if isinstance(event, CarryLeft) and event.why == FOREIGN:
            self.left.add((event.resource_id, event.name))

    def on_event(self, event: Event) -> None:
        """Hear what the thread tells."""

    def on_progress(self, progress: Progress) -> None:
        raise AssertionError(progress)

    def dropped(self, values: dict[Key, Stored]) -> None:
        """Values of the target went: with a copy that is repaired, or somebody has deleted it."""
        for key, value in values.items():
            # Written between its reading and the deletion: nothing at the target tells of that.
            is_late = self.read_at is not None and self.written_at.get(key, 0) >= self.read_at
            self.gone.pop(key, None)
            if self.repairing and not is_late:
                self.gone[key] = value
            if key in self.excused:
                self.gone_excused.add(key)

    def annotate(self) -> None:
        """Users of this world have ways of their own."""

    def thread(self) -> CarryThread:
        """Return the thread of the present process; it is not started."""
        if self._thread is None:
            source, target = (BesideAddress(side, self) for side in SideName)
            carrier = Carrier(
                source,
                target,
                NAMES,
                bytes_max=BYTES_MAX,
                report=self.report,
                now_s=lambda: self.now,
            )
            self._thread = CarryThread(
                carrier,
                source,
                state_path=self.home / "bridge.sqlite3",
                every_s=EVERY_S,
                pace=Paceless(),
                hints=self.hints,
                look_at_feed=lambda ledger: look(ledger, source),
                observer=self,
                stop=threading.Event(),
                now_s=lambda: self.now,
            )
        return self._thread

    def end_process(self) -> None:
        if self._thread is not None:
            self._thread.let_go()
        self._thread, self.hints = None, Hints()

    def verify(self) -> bool:
        kills = self.kills
        ended = super().verify()
        if self.kills > kills:
            self.end_process()
        return ended

    def carry(self) -> bool:
        """Carry until nothing is left, whatever comes of it; whether it came to its end."""
        try:
            for _ in range(TURNS_MAX):
                if not self.thread().carry_some(self.ledger):
                    return True
        except Crash:
            self.kills += 1
            content = self.ledger.content()
            if self.states and self.beside_rng.random() < 0.3:
                content = self.beside_rng.choice(self.states)
                self.excused |= {*self.target.values, *self.gone}
            self.ledger.close()
            self.ledger = MemoryLedger(self.home / "bridge.sqlite3", self.point, content)
            self.end_process()
            return False
        except BridgeError:
            self.troubles += 1
            self.thread().let_go()
            return False
        raise Violation("carrying has no end")

    # What must hold

    def replacing(self, key: Key, now: Stored | None) -> None:
        """A value at the target is about to be written over."""
        if now is None or now.ours or now.data in self.had.get(key, ()):
            return
        if not self.target.checks_revisions and self.seen.get(key) != now:
            return  # it came in these milliseconds, and the server does not look
        raise Violation(f"{key[1]} of somebody else is written over")

    def lacking(self) -> list[str]:
        """Name what the target has not as it should."""
        wrong = []
        for one in self.source.resources():
            if self.target.kind_of(one) is None:
                continue
            if all(self.has_labels.values()):
                lacking = self.source.labels.get(one, set()) - self.target.labels.get(one, set())
                wrong += [f"label {label}" for label in sorted(lacking)]
            for part in KEYS:
                key = (one, *part)
                here, there = self.source.values.get(key), self.target.values.get(key)
                if here is None or (there is not None and there.data == here.data):
                    continue
                if there is None:
                    wrong.append(f"{part[0]} is not there")
                elif there.ours and key not in self.excused:
                    wrong.append(f"{part[0]} is ours, and is not as the source's")
                elif (one, part[1]) not in self.left:
                    wrong.append(f"{part[0]} is somebody else's, and that is not told")
        return wrong

    def settle(self) -> None:
        super().settle()
        for _ in range(ROUNDS_MAX):
            self.pass_day()
            self.left.clear()
            if not self.carry():
                raise Violation("carrying meets trouble when all is calm")
            if not self.lacking():
                break
        if wrong := self.lacking():
            raise Violation(f"{len(wrong)} are wrong at the end: {wrong[0]}")
        for key, value in self.gone.items():
            now = self.target.values.get(key)
            if value.ours or value.data in self.had.get(key, ()):
                continue  # the bridge may know it for its own
            if self.target.kind_of(key[0]) is None:
                continue  # it is kept in a file until the copy is there again
            if now is None or now.data != value.data:
                raise Violation(f"{key[1]} of a user is lost with a copy")
        before = self.writes
        for _ in range(2):
            self.pass_day()
            self.carry()
        if self.writes != before:
            raise Violation("there is no end to it")
        if self.ledger.carry_waiting()[0] or self.ledger.meta(CARRY_ROUND_KEY):
            raise Violation("something waits for ever")


def simulate(seed: int, home: Path, *, killed_at: int | None = None) -> CarryWorld:
    """Run one schedule. Raises Violation."""
    (home / "bridge.sqlite3").touch()
    world = CarryWorld(seed, home)
    if killed_at is not None:
        world.killed_at = killed_at
    try:
        for _ in range(world.rng.randint(1, 5)):
            world.calm = False
            if world.beside_rng.random() < 0.4:
                world.verify()
            world.carry()
            world.calm = True
            world.age += 4000.0
            world.now += 4000.0
            world.killed_at = world.points + world.rng.randint(1, 150)
        world.settle()
    finally:
        world.end_process()
        world.close()
    return world


def _kills(seed: int, home: Path) -> int:
    return simulate(seed, home).kills


def main() -> int:
    return run_campaign("tests.simulation.carry", "kills", _kills)


if __name__ == "__main__":
    sys.exit(main())
