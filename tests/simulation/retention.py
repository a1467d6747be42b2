"""Two servers that may become one, share files, be exchanged or recycle, and clocks that jump.

    python -m tests.simulation.retention --seeds 1000000 --first 0

One schedule from each seed. Between any two requests of the bridge anything may happen; after each
sweep every instance that ever arrived must be readable somewhere, and what another bridge still
needs must be where it reads it. The servers here are dictionaries: what they do is what Orthanc
does (docs/orthanc.md), nothing here knows how retention works.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from bridge.errors import BridgeError, FeedWentBackwards, InstanceError, InstanceGone, side_error
from bridge.events import Event, SourceDeletes
from bridge.ledger.records import Entry, Kept, Parked
from bridge.ledger.store import Ledger
from bridge.model import Change, Move, Page, Reason, ServerInfo, SideName, SideProblem, StoreAnswer
from bridge.orthanc import Statistics, StoredFile
from bridge.pipeline.holds import PAUSED_KEY
from bridge.retention.age_clock import AgeClock
from bridge.retention.batch_proof import PROOF_S
from bridge.retention.bridge_notes import (
    ANNOUNCE_EVERY_S,
    Role,
    begin_process,
    bridge_id,
    keep_note,
    name_of,
    see_notes,
)
from bridge.retention.held_deletion import FATE_S, ON_TRIAL, held_path, why_unverified
from bridge.retention.limits_and_risks import RetentionRules
from bridge.retention.note_tokens import record_end
from bridge.retention.sweep import Sweep, Sweeper
from tests.simulation.bench import new_state
from tests.simulation.campaign import run_campaign
from tests.simulation.world import Violation

RETENTION_S = 3600.0
CONNECTIONS_BREAK = 0.03
KILLED_WITHIN = 150
"""A process is killed at one of so many points of its life, in every second schedule."""
COPIES = ("copied state", "copied volume")
"""Another bridge begins with a copy of our state file. On a copied volume it has the same inode."""
TRIAL_S = 60.0
LATE_S = FATE_S - 1.0
"""A server that hangs does within so long what it was asked for."""


class Crash(BaseException):
    """The bridge is killed here."""


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class MemoryLedger(Ledger):
    """The real ledger in memory, in a process that may be killed before and after each write.

    What was written is what the next process finds. The file at ``path`` is empty: by its number
    the bridge tells a copy of its state.
    """

    def __init__(self, path: Path, point: Callable[[], None], content: bytes) -> None:
        self._point: Callable[[], None] = lambda: None
        self._content = content
        super().__init__(path)
        self._point = point

    def content(self) -> bytes:
        return self._db.serialize()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.deserialize(self._content)
        db.row_factory = sqlite3.Row
        return db

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._point()
        with super()._transaction():
            yield
        self._point()


@dataclass
class Server:
    """One Orthanc. ``storage`` and ``peers`` may be those of another one."""

    name: str
    rng: random.Random
    storage: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> uuid, md5
    rows: list[Change] = field(default_factory=list)
    counter: int = 0
    peers: dict[str, str] = field(default_factory=dict)
    protected: set[str] = field(default_factory=set)
    metadata: dict[tuple[str, str], str] = field(default_factory=dict)
    names_by_instance: bool = False
    tells: bool = False
    patients_max: int = 0
    down: bool = False

    def put(self, instance: str, data: bytes, *, overwrite: bool = True) -> str:
        if instance in self.files and not overwrite:
            return "AlreadyStored"
        if self.patients_max and instance not in self.files:
            while len(self.files) >= self.patients_max:
                free = [one for one in self.files if one not in self.protected]
                if not free:
                    raise side_error(SideName.TARGET, SideProblem.STORAGE_FULL, "full")
                self.remove(free[0])
        self.remove(instance)
        # Names by instance: a plugin that lays files out by their identifiers.
        uuid = f"{instance}.dcm" if self.names_by_instance else f"{self.rng.getrandbits(64):x}"
        self.storage[uuid] = data
        shown = f"{self.name}-{uuid}" if self.names_by_instance else uuid
        self.files[instance] = shown, md5(data)
        self.row("NewInstance", instance)
        return "Success"

    def row(self, kind: str, instance: str) -> None:
        self.counter += 1
        self.rows.append(Change(self.counter, kind, instance, f"{self.rng.getrandbits(30)}"))

    def remove(self, instance: str) -> bool:
        known = self.files.pop(instance, None)
        if known is None:
            return False
        self.storage.pop(self._stored_as(known[0]), None)
        self.rows[:] = [row for row in self.rows if row.resource_id != instance]
        return True

    def read(self, instance: str) -> bytes | None:
        """Return what is on the disk, whatever the index says."""
        known = self.files.get(instance)
        return None if known is None else self.storage.get(self._stored_as(known[0]))

    def _stored_as(self, shown: str) -> str:
        return shown.removeprefix(f"{self.name}-") if self.names_by_instance else shown


class Address:
    """A client of whatever server an address leads to, with something before each request.

    A connection stays with the server to which the address led when it was made.
    """

    def __init__(self, side: SideName, world: World) -> None:
        self.side, self.world = side, world
        self.connected: Server | None = None

    def close(self) -> None:
        """Every call reaches for the server anew."""
        self.connected = None

    def _reach(self, request: str) -> Server:
        self.world.happen(request, self.side)
        if self.connected is None or self.world.rng.random() < CONNECTIONS_BREAK:
            self.connected = self.world.leads_to[self.side]
        server = self.connected
        if server.down:
            self.connected = None
            raise side_error(self.side, SideProblem.UNREACHABLE, "down")
        return server

    def _file(self, server: Server, instance: str) -> tuple[str, str]:
        if instance not in server.files:
            if self.side is SideName.SOURCE:
                raise InstanceGone("gone")
            raise InstanceError(Reason.PROOF_MISMATCH, "lacks it", final=False)
        return server.files[instance]

    def system(self) -> ServerInfo:
        server = self._reach("system")
        return ServerInfo(
            "1.12.7" if server.tells else "1.10.1",
            1,
            has_extended_changes=False,
            maximum_storage_bytes=0 if server.tells else None,
            maximum_patient_count=server.patients_max if server.tells else None,
            maximum_storage_mode="Recycle" if server.tells else None,
        )

    def last_change(self) -> Page:
        server = self._reach("last_change")
        rows = tuple(server.rows[-1:])
        return Page(rows, True, rows[-1].sequence if rows else server.counter)

    def list_instances(self, since: int, limit: int) -> list[str]:
        return list(self._reach("list").files)[since : since + limit]

    def has_instance(self, instance_id: str) -> bool:
        return instance_id in self._reach("has").files

    def stored_file(self, instance_id: str) -> StoredFile:
        server = self._reach("stored_file")
        uuid, noted = self._file(server, instance_id)
        return StoredFile(uuid, noted, 1)

    def stored_md5(self, instance_id: str) -> str:
        return self.stored_file(instance_id).md5

    def verify_stored(self, instance_id: str) -> bool:
        server = self._reach("verify")
        _, noted = self._file(server, instance_id)
        data = server.read(instance_id)
        self.world.verified = True
        return data is not None and md5(data) == noted

    def file_of(self, instance_id: str, *, bytes_max: int) -> bytes:
        assert bytes_max
        server = self._reach("fetch")
        self._file(server, instance_id)
        data = server.read(instance_id)
        if data is None:
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "no file", final=False)
        return data

    def store_instance(self, data: bytes) -> StoreAnswer:
        instance = data.decode().partition(":")[0]
        return StoreAnswer(instance, self._reach("store").put(instance, data))

    def delete_instance(self, instance_id: str) -> bool:
        server = self._reach("delete")
        self.world.deleting(server, instance_id)
        if self.world.hangs():
            self.world.late = (server, instance_id, self.world.true_s + LATE_S)
            raise side_error(self.side, SideProblem.TIMED_OUT, "hangs")
        if self.world.followed_after_s and server is self.world.source:
            due_s = self.world.true_s + self.world.followed_after_s
            self.world.following.append((due_s, instance_id))
        return server.remove(instance_id)

    def statistics(self) -> Statistics:
        held = len(self._reach("statistics").files)
        return Statistics(held, held, held, held, held, held)

    def patient_of(self, instance_id: str) -> str:
        server = self._reach("patient")
        self._file(server, instance_id)
        return instance_id

    def protect_patient(self, patient_id: str) -> None:
        self._reach("protect").protected.add(patient_id)

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        server = self._reach("metadata")
        self._file(server, instance_id)
        value = server.metadata.get((instance_id, name))
        return None if value is None else (value, "")

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        server = self._reach("metadata")
        self._file(server, instance_id)
        return {n: value for (i, n), value in server.metadata.items() if i == instance_id}

    def set_metadata(self, instance_id: str, name: str, value: str) -> str:
        server = self._reach("set_metadata")
        self._file(server, instance_id)
        server.metadata[instance_id, name] = value
        server.row("UpdatedMetadata", instance_id)
        return ""

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        assert etag == ""
        self._reach("delete_metadata").metadata.pop((instance_id, name), None)

    def peers(self) -> dict[str, str]:
        server = self._reach("peers")
        if server is self.world.source:
            self.world.joined = False  # whoever is there is seen now
        return dict(server.peers)

    def set_peer(self, name: str, url: str) -> None:
        self._reach("set_peer").peers[name] = url

    def delete_peer(self, name: str) -> None:
        self._reach("delete_peer").peers.pop(name, None)


class World:
    """Servers, clocks, one bridge with retention and perhaps others. ``fault``: what is special."""

    FAULTS = (
        "none",
        "one",
        "one for a moment",
        "copied index",
        "one directory",
        "one directory, hanging",
        "exchanged",
        "recycles",
        "recycles, told",
        "recycles later",
        "another bridge",
        "copied state",
        "copied volume",
        "opposite",
        "clock",
        "lost",
        "overwritten",
        "parked",
        "paused",
    )

    def __init__(self, seed: int, home: Path) -> None:
        self.home = home
        self.rng = draw = random.Random(seed)
        self.fault = self.FAULTS[seed % len(self.FAULTS)]
        self.followed_after_s = followed_after_s(seed)
        self.following: list[tuple[float, str]] = []
        self.dead = False
        """The process was killed, and the next one has not begun."""
        self.source, self.target = Server("A", draw), Server("B", draw)
        self.target.tells = draw.random() < 0.5
        self.leads_to = {SideName.SOURCE: self.source, SideName.TARGET: self.target}
        self.client = self._connections()
        self.killed_at = draw.randint(1, KILLED_WITHIN) if draw.random() < 0.5 else 0
        self.points = 0
        self.calm, self.inside = True, False
        self.tokens: dict[int, str] = {}
        """Of the process that uses a ledger."""
        self.ledger = self._state("bridge.sqlite3", new_state())
        self.ledger.restart_at(0)
        self.wall, self.steady, self.boot = 1e9, 100.0, "boot"
        self.true_s = 0.0
        self.delivered_true_s: dict[str, float] = {}
        self.content: dict[str, set[bytes]] = {}
        self.needed: set[str] = set()
        self.parked: set[str] = set()
        self.troubles = 0
        self.deletes = 0
        self.other: Sweeper | None = None
        self.other_ledger: MemoryLedger | None = None
        self.joined = False
        """Another bridge has come to the source since its notes were read."""
        self.other_client: dict[SideName, Address] = {}
        self.verified = False
        self.late: tuple[Server, str, float] | None = None
        """A deletion that waits in a server that hangs, and until when at most."""
        self.deletes_later: int | None = None
        """How many more may be deleted, once the target has been set to recycle."""
        self.begins_with(self.ledger)
        self._prepare()
        self.sweeper = self._sweeper(self.client)
        self._leave_notes(self.ledger, self.client)

    def _connections(self) -> dict[SideName, Address]:
        return {side: Address(side, self) for side in SideName}

    def begins_with(self, ledger: MemoryLedger) -> None:
        """A process begins to use a ledger."""
        self.tokens[id(ledger)] = f"{self.rng.getrandbits(32):08x}"

    def _state(self, name: str, content: bytes) -> MemoryLedger:
        return MemoryLedger(self.home / name, self.point, content)

    def point(self) -> None:
        """The process may be killed here. One that is dead writes nothing."""
        if self.dead and not self.inside:
            self._die()
        if self.calm or self.inside:
            return
        self.points += 1
        if self.points == self.killed_at:
            self._die()

    def _die(self) -> NoReturn:
        self.dead = True
        raise Crash

    def _prepare(self) -> None:
        draw = self.rng
        if self.fault.startswith("one directory"):
            self.target.storage = self.source.storage
            self.source.names_by_instance = self.target.names_by_instance = True
        if self.fault in ("recycles", "recycles, told"):
            self.target.patients_max = draw.randint(3, 12)
        if self.fault.startswith("recycles"):
            self.target.tells = self.fault != "recycles"
        count = draw.randint(1, 8)
        for number in range(count):
            self._arrive(f"i{number}")
        if self.fault == "copied index":
            self.target.storage = self.source.storage
            self.target.files = dict(self.source.files)
            self.target.rows, self.target.counter = list(self.source.rows), self.source.counter
        for instance in list(self.source.files):
            self._deliver(instance)
        if self.fault == "opposite":
            self._opposite()

    def _arrive(self, instance: str) -> None:
        data = f"{instance}:{self.rng.getrandbits(40)}".encode()
        self.content[instance] = {data}
        self.source.put(instance, data)

    def _deliver(self, instance: str) -> None:
        """What a worker does, and the evidence that it brings."""
        here, there = (self.leads_to[side] for side in SideName)
        data = here.read(instance)
        if data is None:
            return
        with suppress(BridgeError):
            there.put(instance, data, overwrite=False)
        if there.files.get(instance, ("", ""))[1] != md5(data):
            return
        names = self.rng.random() < 0.8
        kept = Kept(
            instance,
            md5(data),
            md5(data),
            self.wall,
            source_file=here.files[instance][0] if names else "",
            target_file=there.files[instance][0] if names else "",
        )
        self.ledger.commit(Entry(kept=(kept,)))
        self.delivered_true_s[instance] = self.true_s

    def _opposite(self) -> None:
        """A bridge from the target to the source that has delivered all of it."""
        self.other_ledger = self._state("other.sqlite3", new_state())
        self.other_ledger.restart_at(0)
        self.begins_with(self.other_ledger)
        kept = tuple(
            Kept(i, m, m, self.wall, source_file=u, target_file=self.source.files[i][0])
            for i, (u, m) in self.target.files.items()
            if i in self.source.files
        )
        self.other_ledger.commit(Entry(kept=kept))
        own = bridge_id(self.other_ledger)
        self.source.peers[name_of(Role.DELIVERS, own)] = "http://127.0.0.1:9/1h"
        client = self._connections()
        self.other_client = {SideName.SOURCE: client[SideName.TARGET]}
        self.other_client[SideName.TARGET] = client[SideName.SOURCE]
        self.other = self._sweeper(self.other_client)

    def _join(self) -> None:
        """Another bridge begins to follow the source, perhaps with a copy of our state."""
        if self.other_ledger is not None or self.source.down:
            return
        copied = self.fault in COPIES
        with self._nested():
            ended = copied and self.rng.random() < 0.3
            if ended:
                record_end(self.ledger, self.tokens[id(self.ledger)])
            content = self.ledger.content() if copied else new_state()
            name = "same-inode.sqlite3" if self.fault == "copied volume" else "other.sqlite3"
            self.other_ledger = self._state(name, content)
            self.other_ledger.restart_at(0)
            self.begins_with(self.other_ledger)
            self.other_client = self._connections()
            self.needed = {i for i in self.source.files if copied or self.rng.random() < 0.5}
            self._renew_others()
        self.joined = True
        if copied:
            self.other = self._sweeper(self.other_client)
        if ended:
            self._die()  # it had ended before, and begins again at the same time

    def _renew_others(self) -> None:
        """What another bridge does every half minute."""
        if self.other_ledger is not None and self.fault in ("another bridge", *COPIES):
            with self._nested():
                self._leave_notes(self.other_ledger, self.other_client)

    def _leave_notes(self, ledger: MemoryLedger, client: dict[SideName, Address]) -> None:
        """What a bridge does when it starts, and every half minute."""
        token = self.tokens[id(ledger)]
        begin_process(ledger, token)
        for side in SideName:
            with suppress(BridgeError):
                seen = see_notes(ledger, client[side], side, token=token)
                keep_note(ledger, client[side], seen, "1h")

    def restart(self) -> None:
        """Another process on the same state."""
        self.dead = False
        for client in self.client.values():
            client.close()
        self.begins_with(self.ledger)
        self.sweeper = self._sweeper(self.client)
        self._leave_notes(self.ledger, self.client)

    def _sweeper(self, client: dict[SideName, Address]) -> Sweeper:
        return Sweeper(
            client[SideName.SOURCE],
            client[SideName.TARGET],
            RetentionRules(
                RETENTION_S, retention="1h", trial_s=TRIAL_S if self.followed_after_s else 0.0
            ),
            token=self.tokens[id(self.ledger if client is self.client else self.other_ledger)],
            look_at_feed=self._look_at_feed if client is self.client else lambda _: None,
            hold=lambda ledger: "paused" if ledger.meta(PAUSED_KEY) else "",
            trouble=lambda: self.troubles,
            report=self._reported,
            steady_s=lambda: self.steady,
        )

    def _look_at_feed(self, _ledger: Ledger) -> None:
        rows = self.client[SideName.SOURCE]._reach("feed").rows
        if rows and not any(row in self.source.rows for row in rows):
            raise FeedWentBackwards("another feed")

    def _reported(self, event: Event) -> None:
        if isinstance(event, SourceDeletes):
            self.deletes += 1

    # What happens between two requests

    def hangs(self) -> bool:
        """Tell whether a deletion is answered too late."""
        return self.fault.endswith("hanging") and not self.calm and self.rng.random() < 0.5

    def _do_late(self) -> None:
        """A server that hung goes on: now, or by now for certain."""
        if self.late is not None:
            server, instance, until_s = self.late
            if self.true_s >= until_s or self.rng.random() < 0.1:
                self.late = None
                server.remove(instance)

    def happen(self, request: str, side: SideName) -> None:
        """Something may happen now."""
        if self.dead and not self.inside:
            self._die()  # nothing of it is cleaned up either
        draw = self.rng
        self.verified = self.verified and request == "stored_file"
        self._do_late()
        self.point()
        if self.calm or self.inside or draw.random() > 0.06:
            return
        if draw.random() < 0.1:
            self._die()
        if draw.random() < 0.25:
            self._outage()
            return
        if self.fault in ("lost", "overwritten", "parked", "paused") and self._last_look(
            request, side
        ):
            return  # what no server can prevent (docs/security.md)
        self._special()

    def _last_look(self, request: str, side: SideName) -> bool:
        """Tell whether nobody looks again before the deletion at what would happen now."""
        if self.fault in ("parked", "paused"):
            return request == "delete"  # the ledger is looked at after both servers
        late = request == "stored_file" and self.verified
        if self.fault == "overwritten" and side is SideName.TARGET:
            late = False  # it is asked for the MD5 of what it has verified
        return request == "delete" or late

    def _outage(self) -> None:
        server = self.rng.choice([self.source, self.target])
        server.down = not server.down
        self.troubles += self.rng.random() < 0.5
        if not server.down and self.fault not in ("opposite", "recycles later"):
            server.peers.clear()  # the others note themselves again within half a minute

    def _special(self) -> None:  # noqa: PLR0912 (a table of faults)
        draw, held = self.rng, sorted(self.source.files)
        match self.fault:
            case "one":
                self.leads_to[SideName.TARGET] = self.source
            case "one for a moment":
                now = self.leads_to[SideName.TARGET]
                other = self.source if now is self.target else self.target
                self.leads_to[SideName.TARGET] = other
            case "exchanged":
                source, target = (self.leads_to[side] for side in SideName)
                self.leads_to = {SideName.SOURCE: target, SideName.TARGET: source}
            case "recycles" | "recycles, told":
                with suppress(BridgeError):
                    self.target.put(f"new{draw.getrandbits(30)}", b"x:y")
            case "recycles later" if self.deletes_later is None:
                # Restarted with other settings; its peers, which are in its database, stay.
                self.target.patients_max = len(self.target.files)
                self.deletes_later = 1  # the one that is being looked at
                if draw.random() < 0.5:
                    self.troubles += 1
                else:
                    self.pass_time(PROOF_S + 1)
            case "another bridge":
                self._join()
            case "copied state" | "copied volume" if self.other is None:
                self._join()
            case "opposite" | "copied state" | "copied volume":
                self._sweep_other()
            case "clock":
                self.wall += draw.choice([-1e6, -10.0, 10.0, 3 * 86_400.0])
                if draw.random() < 0.2:
                    self.boot, self.steady = f"boot{draw.random()}", draw.random() * 1e6
            case "lost" if held:
                instance = draw.choice(held)
                if draw.random() < 0.5:
                    self.target.remove(instance)
                elif instance in self.target.files:
                    self.target.storage.pop(self.target.files[instance][0], None)
            case "overwritten" if held:
                instance = draw.choice(held)
                data = f"{instance}:{draw.getrandbits(40)}".encode()
                where = draw.choice([self.source, self.target])
                if where is self.source:
                    self.content[instance] = {data}
                    self.source.put(instance, data)
                elif instance in self.target.files:
                    self.target.put(instance, data)
            case "parked" if held:
                instance = draw.choice(held)
                self.parked.add(instance)
                parked = Parked(Move(instance, 1), Reason.PROOF_MISMATCH, "no", 1, 1.0, 1.0)
                with self._nested():
                    self.ledger.commit(Entry(parked=(parked,)))
            case "paused":
                paused = self.ledger.meta(PAUSED_KEY) is not None
                with self._nested():
                    self.ledger.set_meta(PAUSED_KEY, None if paused else "1")
            case _:
                pass

    def _sweep_other(self) -> None:
        if self.other is not None and self.other_ledger is not None:
            with self._nested(), suppress(BridgeError):
                self.other.sweep(self.other_ledger, now=self.true_s, done=Sweep())

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    # What must hold

    def deleting(self, server: Server, instance: str) -> None:
        """The bridge deletes an instance now."""
        if instance in self.parked:
            raise Violation(f"{instance} is parked")
        if self.ledger.meta(PAUSED_KEY) is not None:
            raise Violation("paused")
        if self.deletes_later is not None:
            self.deletes_later -= 1
            if self.deletes_later < 0:
                raise Violation("the target recycles by now")
        if server is self.source and instance in self.needed and not self.joined:
            raise Violation(f"another bridge needs {instance}")
        young = self.true_s - self.delivered_true_s.get(instance, -1e12) < RETENTION_S - 1
        if not self.inside and young:
            raise Violation(f"{instance} is young")

    def check(self, *, at_end: bool = False) -> None:
        """Every instance that ever arrived is readable somewhere, as it was when it was new.

        What a bridge that was killed holds of its last deletion is readable too: the next one has
        it. ``at_end``: it was given back, or lies beside the state file for good.
        """
        lacking = [
            instance
            for instance, contents in self.content.items()
            if not contents & {self.source.read(instance), self.target.read(instance)}
        ]
        rescued = self.rescued() if lacking else set()
        held = held_path(self.ledger)
        if at_end and held.exists() and why_unverified(self.ledger) != ON_TRIAL:
            raise Violation("a file is still held")
        for instance in lacking:
            if held.exists() and held.read_bytes() in self.content[instance]:
                continue
            path = self.home / f"rescued-{instance}.dcm"
            if instance not in rescued or path.read_bytes() not in self.content[instance]:
                raise Violation(f"the last copy of {instance} is gone")

    def rescued(self) -> set[str]:
        """List what lies beside the state file."""
        names = (path.name for path in self.home.iterdir() if path.suffix == ".dcm")
        return {name.removeprefix("rescued-").removesuffix(".dcm") for name in names}

    # A run

    def _follow(self, until_s: float) -> None:
        """Do what the script does until then."""
        for due_s, instance in self.following:
            if due_s <= until_s:
                self.target.remove(instance)
        self.following = [one for one in self.following if one[0] > until_s]

    def pass_time(self, seconds: float) -> None:
        self._follow(self.true_s + seconds)
        if self.late is not None:
            until_s = self.true_s + seconds
            self.true_s = min(until_s, self.late[2])
            self._do_late()
            self.true_s = until_s
        else:
            self.true_s += seconds
        self.wall += seconds
        self.steady += seconds
        if seconds >= ANNOUNCE_EVERY_S:
            self._renew_others()
            with self._nested():
                self._leave_notes(self.ledger, self.client)

    def sweep(self) -> Sweep:
        """One sweep, as the bridge makes one after another; a crash begins a new process."""
        done = Sweep()
        clock = AgeClock(
            now_s=lambda: self.wall, steady_s=lambda: self.steady, boot_id=lambda: self.boot
        )
        try:
            now = clock.now_s(self.ledger)
            self.sweeper.sweep(self.ledger, now=now, done=done)
        except BridgeError:
            pass
        except Crash:
            calm, self.calm = self.calm, True
            self.restart()
            self.calm = calm
        return done


def followed_after_s(seed: int) -> float:
    """Tell how long after it a script deletes at the target what is deleted at the source.

    0.0 for no script. By a draw of its own: the schedules without one stay what they were.
    """
    draw = random.Random(f"followed {seed}")
    fault = World.FAULTS[seed % len(World.FAULTS)]
    followed = fault in ("clock", "parked", "paused") and draw.random() < 0.3
    return draw.choice([0.5, 5.0, 50.0, TRIAL_S - 1]) if followed else 0.0


def simulate(seed: int, home: Path, *, killed_at: int | None = None) -> World:
    """Run one schedule. ``killed_at``: at which point of it. Raises Violation."""
    for name in ("bridge.sqlite3", "other.sqlite3"):
        if not (home / name).exists():
            (home / name).touch()
    with suppress(FileExistsError):
        (home / "same-inode.sqlite3").hardlink_to(home / "bridge.sqlite3")
    world = World(seed, home)
    if killed_at is not None:
        world.killed_at = killed_at
    try:
        _run_through(world)
    finally:
        for ledger in filter(None, (world.ledger, world.other_ledger)):
            ledger.close()
        if world.fault.startswith("one directory"):  # elsewhere nothing needs to be rescued
            for instance in world.rescued():
                (home / f"rescued-{instance}.dcm").unlink()
    return world


def _run_through(world: World) -> None:
    draw = world.rng
    world.sweep()
    for _ in range(draw.randint(2, 6)):
        world.pass_time(draw.choice([1.0, 40.0, 1800.0, 3601.0]))
        world.calm = False
        world.sweep()
        world.calm = True
        world.check()
    for server in (world.source, world.target):
        server.down = False
    if world.fault != "exchanged":
        world.leads_to = {SideName.SOURCE: world.source, SideName.TARGET: world.target}
    world.sweep()  # begins to wait for what is not answered
    for _ in range(3):
        world.pass_time(3601.0)
        world.sweep()
        world.check(at_end=True)
    if world.fault in ("recycles", "recycles, told"):
        for number in range(20):
            with suppress(BridgeError):
                world.target.put(f"late{number}", b"x:y")
        world.check()


def _deletes(seed: int, home: Path) -> int:
    return simulate(seed, home).deletes


def _name(seed: int) -> str:
    return f"seed {seed} ({World.FAULTS[seed % len(World.FAULTS)]})"


def main() -> int:
    return run_campaign("tests.simulation.retention", "deletions", _deletes, _name)


if __name__ == "__main__":
    sys.exit(main())
