"""Two servers that drift apart, a bridge that verifies and repairs them, and kills at any point.

    python -m tests.simulation.mirror --seeds 100000 --first 0

One schedule from each seed. Between any two requests of the bridge copies rot, files vanish, people
delete, replace and add instances at either side, a server rewrites its files or is restored from a
backup, connections break, and the process is killed. What must hold:

- before a copy is deleted at the target, what takes its place lies whole on the disk, and is what
  the source holds; nothing is deleted that the source lacks, or that this bridge did not deliver;
- when nothing happens any more, a few verifications later each instance of the source is at the
  target, readable and with the same content, unless its copy is not ours;
- then nothing more is done; and of what was equal before nothing was touched;
- a target that refuses to read its files and to give them has lost none, as far as is told;
- what users have put beside a copy (labels, metadata, attachments, at all levels) is there after
  each repair, unless they wrote it in the moment between its reading and the deletion;
- what a disk has made of a file of the source takes no copy's place at the target;
- no more is changed in a day than the limit.

A file here is ``identifier:content:form``: what a codec does is to change the form.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bridge.checks.pixels import ImageComparison, ImageResult
from bridge.errors import BridgeError, InstanceError, InstanceGone, side_error
from bridge.events import CopyFound, CopyNotRepaired, CopyReplaces, Event, TargetDeletes
from bridge.feed.pages import FeedClient
from bridge.ledger.records import DeliveryRecord, Entry
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import last_verification
from bridge.mirror.beside_copy import What, kept_instances, kept_path
from bridge.mirror.copy_deletion import CopyDeletion, Grace
from bridge.mirror.judge_copy import REPAIRED
from bridge.mirror.repair import Repairer, RepairLimit, prepared_path
from bridge.mirror.verify import Verification, VerificationRules
from bridge.model import (
    Action,
    Delivered,
    Endpoint,
    InstanceFailed,
    Job,
    Outcome,
    Page,
    Reason,
    ResourceKind,
    ServerInfo,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
    StoreAnswer,
)
from bridge.orthanc import StoredFile
from bridge.orthanc.answers import Resource
from bridge.orthanc.carry_client import Attachment, Value
from bridge.service import look_at_feed
from tests.simulation.bench import new_state
from tests.simulation.campaign import run_campaign
from tests.simulation.retention import Crash, MemoryLedger, Server, md5
from tests.simulation.world import Violation

WANTED, OTHER = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
SYNTAXES = {"raw": WANTED, "new": WANTED, "j2k": OTHER}
"""Forms: ``raw`` is what the bridge writes, ``new`` what a server makes of it."""
BREAKS = 0.01
KILLED_WITHIN = 400
VERIFICATIONS_MAX = 4
"""So many after the last thing that happens, and the servers are equal."""
GRACE_S = 3600.0
JOB = Job(
    Endpoint(SideName.SOURCE, "http://s"),
    Endpoint(SideName.TARGET, "http://t"),
    wanted_syntax=WANTED,
)


def identifier(name: str) -> str:
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


def content_of(data: bytes) -> bytes:
    return data.rpartition(b":")[0]


def form_of(data: bytes) -> str:
    return data.rpartition(b":")[2].decode()


def named(head: memoryview) -> str:
    return bytes(head).partition(b":")[0].decode()


Level = tuple[ResourceKind, str]
AllBeside = dict[Level, dict[tuple[What, str], bytes]]
Backup = tuple[dict[str, bytes], dict[str, tuple[str, str]], AllBeside]


def place_of(instance: str) -> dict[ResourceKind, str]:
    """Where an instance is: every second one is alone in its series, study and patient."""
    number = int(instance[:2], 16)
    study = f"own {instance}" if number % 2 else f"shared {number % 3}"
    levels = (ResourceKind.SERIES, ResourceKind.STUDY, ResourceKind.PATIENT)
    return {ResourceKind.INSTANCE: instance} | {
        kind: identifier(f"{kind} {study}") for kind in levels
    }


@dataclass
class MirrorServer(Server):
    """A server to which users add labels, metadata and attachments, at all levels."""

    beside: AllBeside = field(default_factory=dict)
    vanished: Callable[[Level], None] = lambda _: None

    def levels(self) -> dict[Level, list[str]]:
        """Return all resources, and the instances of each."""
        found: dict[Level, list[str]] = {}
        for instance in self.files:
            for level in place_of(instance).items():
                found.setdefault(level, []).append(instance)
        return found

    def remove(self, instance: str) -> bool:
        removed = super().remove(instance)
        if removed:
            left = self.levels()
            for level in place_of(instance).items():
                if level not in left:
                    self.beside.pop(level, None)
                    self.vanished(level)
        return removed

    def resource(self, level: Level) -> Resource:
        there = self.beside.get(level, {})
        labels = tuple(sorted(name for what, name in there if what is What.LABEL))
        metadata = {
            name: data.decode() for (what, name), data in there.items() if what is What.METADATA
        }
        file = self.files[level[1]][0] if level[0] is ResourceKind.INSTANCE else ""
        return Resource(*level, labels, metadata, file)


class MirrorAddress:
    """A client of one side, with something before each request."""

    def __init__(self, side: SideName, world: MirrorWorld) -> None:
        self.side, self.world = side, world

    def _reach(self, request: str) -> MirrorServer:
        self.world.happen(request, self.side)
        server = self.world.servers[self.side]
        if server.down or self.world.draws(BREAKS):
            raise side_error(self.side, SideProblem.UNREACHABLE, "down")
        return server

    def _file(self, server: Server, instance: str) -> tuple[str, str]:
        if instance not in server.files:
            if self.side is SideName.SOURCE:
                raise InstanceGone("gone")
            raise InstanceError(Reason.PROOF_MISMATCH, "lacks it", final=False)
        return server.files[instance]

    def system(self) -> ServerInfo:
        self._reach("system")
        limit = self.world.source_limit if self.side is SideName.SOURCE else 0
        return ServerInfo(
            "1.12.7",
            1,
            has_extended_changes=False,
            maximum_storage_bytes=limit,
            maximum_patient_count=limit,
            database_backend="a plugin" if self.side is self.world.in_database else None,
        )

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        assert only_new_instances in {True, False}
        server = self._reach("changes")
        rows = tuple(row for row in server.rows if row.sequence > since)
        last = rows[:limit][-1].sequence if rows else server.counter
        return Page(rows[:limit], len(rows) <= limit, last)

    def last_change(self) -> Page:
        server = self._reach("last_change")
        rows = tuple(server.rows[-1:])
        return Page(rows, True, rows[-1].sequence if rows else server.counter)

    def list_instances(self, since: int, limit: int) -> list[str]:
        return sorted(self._reach("list").files)[since : since + limit]

    def has_instance(self, instance_id: str) -> bool:
        return instance_id in self._reach("has").files

    def stored_file(self, instance_id: str) -> StoredFile:
        return StoredFile(*self._file(self._reach("stored_file"), instance_id), 1)

    def stored_md5(self, instance_id: str) -> str:
        return self._file(self._reach("stored_md5"), instance_id)[1]

    def verify_stored(self, instance_id: str) -> bool:
        server = self._reach("verify")
        self.world.refuse(instance_id)
        _, noted = self._file(server, instance_id)
        data = server.read(instance_id)
        return data is not None and md5(data) == noted

    def serves_file(self, instance_id: str) -> bool:
        server = self._reach("serves")
        return not self.world.refuses and server.read(instance_id) is not None

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        server = self._reach("metadata")
        self._file(server, instance_id)
        return {"TransferSyntax": server.metadata[instance_id, "TransferSyntax"]}

    def bulk_metadata(self, instance_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        server = self._reach("bulk")
        if self.world.seed % 3 == 0:
            return {}
        syntax = "TransferSyntax"
        there = [i for i in instance_ids if i in server.files]
        return {i: {syntax: server.metadata[i, syntax]} for i in there}

    def attachment_size(self, instance_id: str) -> int:
        raise AssertionError(f"nobody asks for the size of {instance_id}")

    def close(self) -> None:
        """There is nothing to close."""

    def head(self, instance_id: str, bytes_max: int) -> bytes:
        raise AssertionError(f"the metadata tell the syntax of {instance_id}: {bytes_max}")

    def delete_instance(self, instance_id: str) -> bool:
        server = self._reach("delete")
        self.world.deleting(instance_id)
        self.world.repairing = prepared_path(self.world.ledger).exists()
        removed = server.remove(instance_id)
        self.world.repairing, self.world.read_at = False, None
        self.world.point()
        return removed

    def store(
        self, body: Iterable[bytes], *, body_bytes: int | None, deadline_s: float | None
    ) -> StoreAnswer:
        assert deadline_s is None
        server = self._reach("store")
        data = b"".join(body)
        assert len(data) == body_bytes
        if content_of(data) not in map(content_of, self.world.noted.values()):
            raise Violation("what a disk has made of a file of the source is sent")
        status = self.world.put(server, data, overwrite=False)
        self.world.point()
        return StoreAnswer(named(memoryview(data)), status)

    # Beside the files

    def vanishing(self, instance_id: str) -> list[Resource]:
        server = self._reach("vanishing")
        self.world.read_at = self.world.requests
        levels = server.levels()
        if instance_id not in server.files:
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "not told", final=False)
        places = place_of(instance_id).items()
        return [server.resource(level) for level in places if levels[level] == [instance_id]]

    def resources(
        self, resource_ids: Sequence[str], *, of: ResourceKind | None = None
    ) -> list[Resource]:
        assert of is None
        server = self._reach("resources")
        return [server.resource(level) for level in server.levels() if level[1] in resource_ids]

    def _annotated(self, request: str, kind: ResourceKind, resource_id: str) -> dict[Any, bytes]:
        server = self._reach(request)
        if (kind, resource_id) not in server.levels():
            if request.startswith("put"):
                raise side_error(self.side, SideProblem.NOT_FOUND, "404")
            return {}
        return server.beside.setdefault((kind, resource_id), {})

    def metadata_of(self, kind: ResourceKind, resource_id: str, name: str) -> Value | None:
        data = self._annotated("get_metadata", kind, resource_id).get((What.METADATA, name))
        return None if data is None else Value(data, "")

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        assert etag == ""
        self._annotated("put_metadata", kind, resource_id)[What.METADATA, name] = data

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        self._annotated("put_label", kind, resource_id)[What.LABEL, label] = b""

    def attachment_names(self, kind: ResourceKind, resource_id: str) -> list[str]:
        there = self._annotated("attachments", kind, resource_id)
        return ["dicom"] + [name for what, name in there if what is What.ATTACHMENT]

    def attachment(self, kind: ResourceKind, resource_id: str, name: str) -> Attachment | None:
        data = self._annotated("attachment", kind, resource_id).get((What.ATTACHMENT, name))
        return None if data is None else Attachment(md5(data), len(data), "")

    def attachment_data(
        self, kind: ResourceKind, resource_id: str, name: str, *, bytes_max: int
    ) -> bytes:
        data = self._annotated("data", kind, resource_id).get((What.ATTACHMENT, name), b"")
        assert len(data) <= bytes_max
        return data

    def put_attachment(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        assert etag == ""
        self._annotated("put_attachment", kind, resource_id)[What.ATTACHMENT, name] = data

    def is_protected(self, patient_id: str) -> bool:
        there = self._annotated("protected", ResourceKind.PATIENT, patient_id)
        return (What.PROTECTED, "") in there

    def protect_patient(self, patient_id: str) -> None:
        self._annotated("put_protected", ResourceKind.PATIENT, patient_id)[What.PROTECTED, ""] = b""

    def peers(self) -> dict[str, str]:
        return dict(self._reach("peers").peers)

    def set_peer(self, name: str, url: str) -> None:
        self._reach("set_peer").peers[name] = url

    def delete_peer(self, name: str) -> None:
        self._reach("delete_peer").peers.pop(name, None)

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        value = self._reach("metadata").metadata.get((instance_id, name))
        return None if value is None else (value, "")

    def set_metadata(self, instance_id: str, name: str, value: str) -> str:
        self._reach("set_metadata").metadata[instance_id, name] = value
        return ""

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        assert etag == ""
        self._reach("delete_metadata").metadata.pop((instance_id, name), None)


class Workers:
    """What fetches and decodes: both read through the same addresses as everything."""

    def __init__(self, world: MirrorWorld) -> None:
        self.world = world

    def comparisons(self, asked: Iterable[tuple[str, str]]) -> Iterator[ImageComparison]:
        for instance_id, _ in asked:
            result = self._compared(instance_id)
            came = self.world.source.read(instance_id)
            came_md5 = "" if came is None else md5(came)
            yield ImageComparison(instance_id, result, source_md5=came_md5)

    def _compared(self, instance_id: str) -> ImageResult:
        world = self.world
        world.happen("compare", SideName.SOURCE)
        here, there = (world.servers[side].read(instance_id) for side in SideName)
        if here is None or there is None:
            return ImageResult.UNDECIDED
        return ImageResult.SAME if content_of(here) == content_of(there) else ImageResult.DIFFERENT

    def prepare(self, instance_id: str, path: Path) -> Outcome:
        world = self.world
        world.happen("prepare", SideName.SOURCE)
        if world.draws(BREAKS):
            return SideFailed(SideName.SOURCE, SideProblem.UNREACHABLE, "down")
        data = world.source.read(instance_id)
        if data is None:
            if instance_id in world.source.files:
                problem = SideProblem.SERVER_ERROR
                return SideFailed(SideName.SOURCE, problem, "no file", specific=True)
            return Skipped(Reason.GONE)
        if data.count(b":") != 2:
            if world.is_damaged_at_source(instance_id):
                # A file that does not decode is compared with what the source notes.
                problem = SideProblem.SERVER_ERROR
                return SideFailed(SideName.SOURCE, problem, "other bytes", specific=True)
            return InstanceFailed(Reason.UNDECODABLE, "it is rotten", final=True)
        sent = content_of(data) + b":raw"
        path.write_bytes(sent)
        world.point()
        return Delivered(
            "Success", Action.TRANSCODED, OTHER, WANTED, "", 1, 1, StageTimes(),
            source_md5=md5(data), sent_md5=md5(sent),
        )  # fmt: skip


class Paceless:
    """Nothing holds a verification."""

    def take(self, ledger: Ledger, instances: int) -> bool:
        assert ledger.path
        return instances > 0


class MirrorWorld:
    """Two servers and one bridge. ``seed`` decides what happens, and when it is killed."""

    def __init__(self, seed: int, home: Path, *, deletions: bool = False) -> None:
        self.seed, self.home = seed, home
        self.rng = draw = random.Random(seed)
        self.source, self.target = self._server("A"), self._server("B")
        self.servers = {SideName.SOURCE: self.source, SideName.TARGET: self.target}
        self.deletions = deletions
        self.source_limit: int | None = 0
        self.in_database: SideName | None = None
        """Which server has its index in a database that others may serve too."""
        """Its MaximumStorageSize and MaximumPatientCount; None: it does not say."""
        self.refusal = ("", "", "", "403", "404")[seed % 5]
        """Of a target that neither verifies its files nor gives them, until all is calm."""
        self.limit = RepairLimit(0.01, draw.choice([3, 1000, 1000]))
        self.calm = True
        self.points = 0
        self.before: dict[str, bytes] = {}
        """What the source held right before the present request of the bridge, whatever its disk
        has made of it."""
        self.noted: dict[str, bytes] = {}
        """What servers have noted, by its MD5."""
        self.killed_at = draw.randint(1, KILLED_WITHIN) if draw.random() < 0.6 else 0
        self.age, self.now = 1.0, 1e9
        self.changed: list[tuple[float, str]] = []
        """What was deleted at the target or repaired, and when."""
        self.changed_by_target: set[str] = set()
        """What the target wrote anew while it was sent: its content is compared."""
        self.backup: Backup | None = None
        self.requests = 0
        self.read_at: int | None = None
        """At which request the bridge last read what is beside a copy, before its deletion."""
        self.written: dict[tuple[Level, tuple[What, str]], tuple[bytes, int]] = {}
        """What users have put beside copies at the target, which is to be there, and when."""
        self.repairing = False
        self.target.vanished = self.vanished
        self.ledger = MemoryLedger(home / "bridge.sqlite3", self.point, new_state())
        self.ledger.restart_at(0)
        for _ in range(draw.randint(1, 12)):
            self.arrive()
        self.deliver()

    def _server(self, name: str) -> MirrorServer:
        return MirrorServer(name, self.rng)

    def close(self) -> None:
        """End it, whatever has come of it."""
        self.ledger.close()
        with suppress(FileNotFoundError):
            prepared_path(self.ledger).unlink()
        for instance in kept_instances(self.ledger):
            kept_path(self.ledger, instance).unlink()

    # What may happen

    def draws(self, chance: float) -> bool:
        return not self.calm and self.rng.random() < chance

    def point(self) -> None:
        """The process may be killed here."""
        if self.calm:
            return
        self.points += 1
        if self.points == self.killed_at:
            raise Crash

    @property
    def refuses(self) -> bool:
        return bool(self.refusal) and not self.calm

    def refuse(self, instance_id: str) -> None:
        """Answer as a restricted login is answered, or by a proxy that hides what it refuses."""
        if self.refuses and self.refusal == "403":
            raise side_error(SideName.TARGET, SideProblem.FORBIDDEN, "403")
        if self.refuses and instance_id in self.target.files:
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "404", final=False)

    def happen(self, request: str, side: SideName) -> None:
        assert request
        assert side
        self.point()
        self.requests += 1
        self.before = {i: self.noted[noted] for i, (_, noted) in self.source.files.items()}
        if not self.draws(0.04):
            return
        events = (
            self.arrive, self.arrive, self.overwrite, self.delete_at_source, self.rot,
            self.lose_file, self.delete_at_target, self.replace_at_target, self.compress_at_target,
            self.rewrite, self.rewrite_source, self.back_up, self.restore, self.add_foreign,
            self.deliver, self.deliver, self.rot_at_source, self.annotate, self.annotate,
        )  # fmt: skip
        self.rng.choice(events)()

    def put(self, server: Server, data: bytes, *, overwrite: bool = True) -> str:
        instance = named(memoryview(data))
        self.noted[md5(data)] = data
        status = server.put(instance, data, overwrite=overwrite)
        if status == "Success":
            server.metadata[instance, "TransferSyntax"] = SYNTAXES[form_of(data)]
        return status

    def one_of(self, server: Server) -> str | None:
        return self.rng.choice(sorted(server.files)) if server.files else None

    def arrive(self) -> None:
        instance = identifier(f"{self.rng.getrandbits(40)}")
        form = self.rng.choice(["j2k", "raw"])
        self.put(self.source, f"{instance}:{self.rng.getrandbits(40)}:{form}".encode())

    def overwrite(self) -> None:
        instance = self.one_of(self.source)
        if instance is not None:
            self.put(self.source, f"{instance}:{self.rng.getrandbits(40)}:j2k".encode())

    def delete_at_source(self) -> None:
        instance = self.one_of(self.source)
        if instance is not None:
            self.source.remove(instance)

    def rot(self) -> None:
        self._on_disk(lambda data: data[:-1] + b"!")

    def lose_file(self) -> None:
        self._on_disk(lambda _: None)

    def rot_at_source(self) -> None:
        """The disk of the source changes a file: it decodes still, or does not, or it is lost."""
        changes: tuple[Callable[[bytes], bytes | None], ...] = (
            lambda data: content_of(data) + b"0:" + data.rpartition(b":")[2],
            lambda data: data[:-1] + b"!",
            lambda _: b"rotten",
            lambda _: None,
        )
        self._on_disk(self.rng.choice(changes), self.source)

    def _on_disk(
        self, change: Callable[[bytes], bytes | None], server: Server | None = None
    ) -> None:
        server = server or self.target
        instance = self.one_of(server)
        data = server.read(instance) if instance is not None else None
        if instance is None or data is None:
            return
        uuid = server.files[instance][0]
        after = change(data)
        if after is None:
            del server.storage[uuid]
        else:
            server.storage[uuid] = after

    def is_damaged_at_source(self, instance: str) -> bool:
        data = self.source.read(instance)
        return data is None or md5(data) != self.source.files[instance][1]

    def delete_at_target(self) -> None:
        instance = self.one_of(self.target)
        if instance is not None:
            self.target.remove(instance)

    def replace_at_target(self) -> None:
        instance = self.one_of(self.target)
        if instance is not None:
            self.put(self.target, f"{instance}:{self.rng.getrandbits(40)}:raw".encode())

    def compress_at_target(self) -> None:
        self._rewritten(self.target, "j2k")

    def rewrite(self) -> None:
        self._rewritten(self.target, "new")

    def rewrite_source(self) -> None:
        self._rewritten(self.source, "new")

    def _rewritten(self, server: Server, form: str) -> None:
        """As a Housekeeper does: no row of the feed, another file, the same content."""
        instance = self.one_of(server)
        data = server.read(instance) if instance is not None else None
        if instance is None or data is None or md5(data) != server.files[instance][1]:
            return  # what a server would make of a damaged file, nobody could tell from the image
        new = content_of(data) + b":" + form.encode()
        uuid = f"{self.rng.getrandbits(64):x}"
        self.noted[md5(new)] = new
        server.storage.pop(server.files[instance][0], None)
        server.storage[uuid] = new
        server.files[instance] = uuid, md5(new)
        server.metadata[instance, "TransferSyntax"] = SYNTAXES[form]

    def back_up(self) -> None:
        beside = {level: dict(there) for level, there in self.target.beside.items()}
        self.backup = dict(self.target.storage), dict(self.target.files), beside

    def restore(self) -> None:
        if self.backup is None:
            return
        storage, files, beside = self.backup
        self.target.storage, self.target.files = dict(storage), dict(files)
        self.target.beside = {level: dict(there) for level, there in beside.items()}
        self.written = {
            (level, key): (data, self.requests)
            for level, there in beside.items()
            for key, data in there.items()
        }
        for instance in files:
            data = self.target.read(instance)
            form = form_of(data) if data and data.count(b":") == 2 else "raw"
            self.target.metadata[instance, "TransferSyntax"] = SYNTAXES.get(form, WANTED)

    def annotate(self) -> None:
        """A user adds a label, a metadata or an attachment at the target, or protects a patient."""
        levels = sorted(self.target.levels())
        if not levels:
            return
        level = self.rng.choice(levels)
        whats = [(What.LABEL, "a"), (What.METADATA, "1024"), (What.ATTACHMENT, "1030")]
        if level[0] is ResourceKind.PATIENT:
            whats.append((What.PROTECTED, ""))
        key = self.rng.choice(whats)
        has_value = key[0] in {What.METADATA, What.ATTACHMENT}
        data = f"{self.rng.getrandbits(30)}".encode() if has_value else b""
        self.target.beside.setdefault(level, {})[key] = data
        self.written[level, key] = data, self.requests

    def vanished(self, level: Level) -> None:
        """What was at the target went with its last instance."""
        for of, key in [one for one in self.written if one[0] == level]:
            at = self.written[of, key][1]
            # Written between its reading and the deletion: nothing at the target tells of that.
            is_late = self.read_at is not None and at >= self.read_at
            if not self.repairing or is_late:
                del self.written[of, key]

    def lost_beside(self) -> int:
        beside = self.target.beside
        return sum(
            beside.get(level, {}).get(key) != data
            for (level, key), (data, _) in self.written.items()
        )

    def add_foreign(self) -> None:
        """Somebody else sends to the target: something of their own, or what the source has too."""
        of_source = self.one_of(self.source) if self.rng.random() < 0.5 else None
        instance = of_source or identifier(f"foreign {self.rng.getrandbits(40)}")
        data = f"{instance}:{self.rng.getrandbits(40)}:raw".encode()
        self.put(self.target, data, overwrite=False)

    def deliver(self) -> None:
        """What the follower does: move what the feed tells of, and write it down."""
        checkpoint = self.ledger.checkpoint() or 0
        rows = [row for row in self.source.rows if row.sequence > checkpoint]
        delivered, outdated, recent = [], [], []
        for row in rows:
            recent.append((row.sequence, row.resource_id))
            instance, data = row.resource_id, self.source.read(row.resource_id)
            if row.change_type != "NewInstance" or data is None:
                continue
            if self.is_damaged_at_source(instance):
                continue  # it does not come as the source holds it: an error of the source
            sent = content_of(data) + b":raw"
            status = self.put(self.target, sent, overwrite=False)
            held = self.target.files[instance][1]
            if status == "Success" or held == md5(sent):
                record = DeliveryRecord(instance, md5(data), md5(sent), self.now)
                delivered.append(replace(record, to_sign=self.signs))
            else:
                outdated.append(instance)
        if rows:
            self.ledger.commit(
                Entry(
                    checkpoint=rows[-1].sequence,
                    delivered=tuple(delivered),
                    outdated=tuple(outdated),
                    recent=tuple(recent),
                    recent_from=0,
                )
            )

    # What the bridge does

    def address(self, side: SideName) -> MirrorAddress:
        """Return a client of a side, for what verifies and repairs."""
        return MirrorAddress(side, self)

    def verification(self) -> Verification:
        source, target = map(self.address, SideName)
        workers = Workers(self)
        repairer = Repairer(
            source,
            target,
            workers,
            limit=self.limit,
            look_at_feed=lambda ledger: look(ledger, source),
            signs=self.signs,
            report=self.report,
            identify=named,
            now_s=lambda: self.now,
        )
        deletion = CopyDeletion(
            source,
            target,
            limit=self.limit,
            be_sure=repairer.be_sure,
            awaits_notes=lambda _ledger, _age: False,
            report=self.report,
        )
        return Verification(
            source,
            target,
            job=JOB,
            ledger=self.ledger,
            rules=VerificationRules(
                share=self.rng.choice([0.0, 0.3, 1.0]),
                repairs=REPAIRED,
                grace=Grace(GRACE_S if self.deletions else None),
            ),
            pace=Paceless(),
            comparer=workers,
            repairer=repairer,
            deletion=deletion if self.deletions else None,
            look_at_feed=lambda ledger: look(ledger, source),
            age=lambda _: self.age,
            page_size=200,
            report=self.report,
            chance=self.rng.random,
            now_s=lambda: self.now,
        )

    def report(self, event: Event) -> None:
        if isinstance(event, CopyFound) and event.state == "no_file" and self.refuses:
            raise Violation(f"{event.instance_id} is not given, and told as lost")
        if isinstance(event, CopyNotRepaired) and "other bytes than the bridge" in event.message:
            self.changed_by_target.add(event.instance_id)
        if isinstance(event, CopyReplaces | TargetDeletes):
            self.changed.append((self.age, event.instance_id))
            recent = [at for at, _ in self.changed if at > self.age - 86_400]
            # One that was announced may be announced again after a kill.
            allowed = self.limit.of(len(self.source.files)) + self.kills + self.troubles
            if len(recent) > allowed:
                raise Violation(f"{len(recent)} changes in a day, {allowed} allowed")

    kills = troubles = 0
    signs = False
    """Whether what is delivered is to be signed at the source (sign.py)."""

    def verify(self) -> bool:
        """Verify once, whatever comes of it; False where it did not come to its end."""
        return self.process(lambda: self.verification().run())

    def process(self, work: Callable[[], bool]) -> bool:
        """Have a process work; one that is killed is followed by another."""
        try:
            return work()
        except Crash:
            self.kills += 1
            content = self.ledger.content()
            self.ledger.close()
            self.ledger = MemoryLedger(self.home / "bridge.sqlite3", self.point, content)
            return False
        except BridgeError:
            self.troubles += 1
            return False

    # What must hold

    def deleting(self, instance: str) -> None:
        """A copy is about to go."""
        record = self.ledger.delivery_of(instance)
        if record is None:
            raise Violation(f"{instance} is deleted at the target: it is not ours")
        path = prepared_path(self.ledger)
        if not path.exists():
            if not self.deletions:
                raise Violation(f"{instance} is deleted, and nothing is prepared")
            if instance in self.before:
                raise Violation(f"{instance} is deleted, and the source holds it")
            return
        prepared = path.read_bytes()
        if named(memoryview(prepared)) != instance:
            raise Violation(f"{instance} is deleted, and another one is prepared")
        here, there = self.before.get(instance), self.target.read(instance)
        if here is None or content_of(here) != content_of(prepared):
            raise Violation(f"{instance} is deleted, and the source holds another one")
        if self.calm and there == prepared and self.copy_is_right(instance):
            raise Violation(f"{instance} is deleted, and it was right")

    def content_is_right(self, instance: str) -> bool:
        """Whether the target can read what the source holds, in whatever syntax."""
        here, there = self.source.read(instance), self.target.read(instance)
        if here is None or there is None or md5(there) != self.target.files[instance][1]:
            return False
        return content_of(here) == content_of(there)

    def copy_is_right(self, instance: str) -> bool:
        """Whether the target can read what the source holds, in the wanted syntax."""
        here, there = self.source.read(instance), self.target.read(instance)
        if here is None or there is None:
            return False
        noted = self.target.files[instance][1]
        wanted = SYNTAXES.get(form_of(there)) == WANTED
        return md5(there) == noted and content_of(here) == content_of(there) and wanted

    def differing(self) -> set[str]:
        """What of the source the target has not as it should, though it is ours or missing."""
        wrong = set()
        for instance in self.source.files:
            if self.is_damaged_at_source(instance):
                continue
            ours = self.ledger.delivery_of(instance) is not None
            there = instance in self.target.files
            stays = instance in self.changed_by_target and self.content_is_right(instance)
            if (ours or not there) and not (stays or self.copy_is_right(instance)):
                wrong.add(instance)
        return wrong

    def settle(self) -> None:
        """Nothing happens any more: the servers become equal, and then nothing more is done."""
        self.calm = True
        self.deliver()
        for _ in range(VERIFICATIONS_MAX):
            self.pass_day()
            before = self.differing()
            # What was prepared before the source's disk changed its file is still sent.
            damaged = set(filter(self.is_damaged_at_source, self.source.files))
            # What the target wrote anew while it was sent may be right, or be sent again.
            others = set(self.target.files) - before - damaged - self.changed_by_target
            files = dict(self.target.files)
            if not self.verify():
                raise Violation("a verification does not come to its end")
            touched = {i for i in others if self.target.files.get(i) != files[i]}
            if touched and not self.deletions:
                raise Violation(f"{len(touched)} that were right were touched")
            if not self.differing() and self.limit.least >= 1000:
                break
        if self.limit.least >= 1000 and self.differing():
            raise Violation(f"{len(self.differing())} differ at the end")
        if prepared_path(self.ledger).exists():
            raise Violation("a prepared file is left")
        # What neither server holds by now is kept: somebody may want it.
        if self.target.files.keys() & kept_instances(self.ledger):
            raise Violation("what was beside a copy is left in a file")
        if self.lost_beside():
            raise Violation(f"{self.lost_beside()} values of users are lost with a copy")
        files, self.changed = dict(self.target.files), []
        self.pass_day()
        if self.limit.least >= 1000:
            self.verify()
            if self.target.files != files and not self.deletions:
                raise Violation("there is no end to it")
        last = last_verification(self.ledger)
        if last is None:
            raise Violation("no verification has come to its end")

    def pass_day(self) -> None:
        self.age += 90_000.0
        self.now += 90_000.0


def look(ledger: Ledger, source: FeedClient) -> None:
    look_at_feed(ledger, source, overlap=10)


def simulate(
    seed: int, home: Path, *, killed_at: int | None = None, deletions: bool | None = None
) -> MirrorWorld:
    """Run one schedule. Raises Violation."""
    (home / "bridge.sqlite3").touch()
    wants = seed % 4 == 3 if deletions is None else deletions
    world = MirrorWorld(seed, home, deletions=wants)
    if killed_at is not None:
        world.killed_at = killed_at
    try:
        for _ in range(world.rng.randint(1, 4)):
            world.calm = False
            world.verify()
            world.calm = True
            world.age += 600.0
            world.now += 600.0
        world.settle()
    finally:
        world.close()
    return world


def _kills(seed: int, home: Path) -> int:
    return simulate(seed, home).kills


def main() -> int:
    return run_campaign("tests.simulation.mirror", "kills", _kills)


if __name__ == "__main__":
    sys.exit(main())
