"""The bridge's real service on a simulated machine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from bridge.config import Settings, load_settings
from bridge.core.crew import Crew
from bridge.core.errors import BridgeError, FeedWentBackwards, StateError
from bridge.core.events import Event, Progress
from bridge.core.model import (
    Action,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Outcome,
    Page,
    Reason,
    ServerInfo,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
    Task,
)
from bridge.entry import Entry
from bridge.ledger import Ledger
from bridge.runtime import (
    LINGER_S,
    Answered,
    Background,
    Clock,
    Found,
    Inbox,
    Message,
    TaskDone,
)
from bridge.service import Service
from tests.simulation.world import WIDE_OVERLAP, Crash, Nature, Violation, World

ATTEMPTS = 3
RESTARTS_MAX = 40
LOGGER = logging.getLogger("tests.simulation")


def settings_for(reset: str) -> Settings:
    """Settings for a simulated bridge; no server of these names is ever asked."""
    return load_settings(
        source_url="http://source.invalid",
        target_url="http://target.invalid",
        on_feed_reset=reset,
        feed_overlap=WIDE_OVERLAP,
        page_size=7,
        workers=2,
        attempts=ATTEMPTS,
        shutdown_timeout_s=1.0,
    )


class SimulatedClock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now_s(self) -> float:
        return self._world.now

    def steady_s(self) -> float:
        return self._world.now


class SimulatedInbox:
    """Waiting for a message is what lets the world go on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._messages: list[Message] = []

    def put(self, message: Message) -> None:
        self._messages.append(message)

    def take(self, timeout_s: float, *, enough: int = 1) -> list[Message]:
        until = self._world.now + timeout_s
        if enough > 1:
            self._wait(min(until, self._world.now + LINGER_S), enough)
        if not self._messages:
            self._wait(until, 1)
        taken, self._messages = self._messages, []
        self._world.maybe_crash()
        return taken

    def _wait(self, until: float, enough: int) -> None:
        while not self._has(enough) and self._world.step(until):
            pass

    def _has(self, enough: int) -> bool:
        ends = sum(isinstance(message, TaskDone) for message in self._messages)
        return len(self._messages) >= enough or ends < len(self._messages)


class SimulatedBackground:
    def __init__(self, world: World, inbox: Inbox) -> None:
        self._world = world
        self._inbox = inbox
        self._closed = False

    def call(self, name: str, function: Callable[[], Found]) -> None:
        self._world.at(self._world.soon(), lambda: self._run(name, function))

    def close(self) -> None:
        self._closed = True

    def _run(self, name: str, function: Callable[[], Found]) -> None:
        if self._closed:
            return
        try:
            answer = Answered(name, value=function())
        except BridgeError as exc:
            answer = Answered(name, error=exc)
        self._world.at(self._world.soon(), lambda: self._inbox.put(answer))


class SimulatedClient:
    def __init__(self, world: World, side: SideName) -> None:
        self._world = world
        self._side = side

    def probe(self) -> ServerInfo:
        self._world.check_up(self._side)
        return self._world.system()

    def system(self) -> ServerInfo:
        self._world.check_up(self._side)
        return self._world.system()

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        self._world.check_up(self._side)
        return self._world.changes(since, limit, only_new_instances=only_new_instances)

    def last_change(self) -> Page:
        self._world.check_up(self._side)
        return Page((), True, 0 if self._world.away else self._world.counter)

    def list_instances(self, since: int, limit: int) -> list[str]:
        self._world.check_up(self._side)
        return list(filter(self._world.holds, self._world.held))[since : since + limit]

    def has_instance(self, instance_id: str) -> bool:
        self._world.check_up(self._side)
        if self._side is SideName.SOURCE:
            return self._world.holds(instance_id)
        return instance_id in self._world.target

    def stored_md5(self, instance_id: str) -> str:
        raise NotImplementedError(instance_id)

    def delete_instance(self, instance_id: str) -> bool:
        raise NotImplementedError(instance_id)

    def verify_stored(self, instance_id: str) -> bool:
        raise NotImplementedError(instance_id)

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        raise NotImplementedError(instance_id)

    def set_metadata(self, instance_id: str, name: str, value: str) -> None:
        raise NotImplementedError((instance_id, name, value))

    def delete_metadata(self, instance_id: str, name: str) -> None:
        raise NotImplementedError((instance_id, name))

    def close(self) -> None:
        pass


class SimulatedExecutor:
    """Workers: fetch, then deliver, then report, with time and mishaps in between."""

    def __init__(self, world: World, done: Callable[[Task, Outcome], None]) -> None:
        self._world = world
        self._done = done
        self._closed = False
        self._orphans_finish = world.random.random() < 0.5

    def crew(self) -> Crew:
        return Crew(threads=4, workers=4)

    def submit(self, task: Task) -> None:
        self._world.at(self._world.soon(), lambda: self._fetch(task))

    def close(self) -> None:
        self._closed = True

    def _report(self, task: Task, outcome: Outcome) -> None:
        self._world.at(self._world.soon(), lambda: self._tell(task, outcome))

    def _tell(self, task: Task, outcome: Outcome) -> None:
        if not self._closed:
            self._done(task, outcome)

    def _fetch(self, task: Task) -> None:
        if self._closed and not self._orphans_finish:
            return
        world, instance = self._world, task.move.instance_id
        if world.down[SideName.SOURCE]:
            self._report(task, _unreachable(SideName.SOURCE))
        elif not world.holds(instance):
            self._report(task, Skipped(Reason.GONE))
        else:
            mishap = self._mishap(instance)
            if mishap is not None:
                self._report(task, mishap)
            else:
                world.at(world.soon(), lambda: self._deliver(task))

    def _mishap(self, instance: str) -> Outcome | None:
        world = self._world
        match world.held[instance]:
            case Nature.UNDECODABLE:
                return InstanceFailed(Reason.UNDECODABLE, "simulated", final=True)
            case Nature.KILLS_WORKER:
                return InstanceFailed(Reason.WORKER_DIED, "simulated")
            case _:
                pass
        if world.calm:
            return None
        chance = world.random.random()
        if chance < 0.03:
            return ExecutorFailed("simulated")
        if chance < 0.05 and world.unlucky.get(instance, 0) < ATTEMPTS - 1:
            world.unlucky[instance] = world.unlucky.get(instance, 0) + 1
            return InstanceFailed(Reason.WORKER_DIED, "simulated bad luck")
        return None

    def _deliver(self, task: Task) -> None:
        if self._closed and not self._orphans_finish:
            return
        world, instance = self._world, task.move.instance_id
        if world.down[SideName.TARGET]:
            self._report(task, _unreachable(SideName.TARGET))
            return
        if world.natures[instance] is Nature.REFUSED and not world.calm:
            text = "simulated error 500"
            failed = SideFailed(SideName.TARGET, SideProblem.SERVER_ERROR, text, specific=True)
            self._report(task, failed)
            return
        if world.natures[instance] is Nature.KILLS_TARGET:
            world.kill(SideName.TARGET)
            self._report(task, _unreachable(SideName.TARGET, begun=True))
            return
        falls = world.falls[SideName.TARGET]
        world.at(world.soon(), lambda: self._store(task, falls))

    def _store(self, task: Task, falls: int) -> None:
        world, instance = self._world, task.move.instance_id
        if world.falls[SideName.TARGET] != falls:
            self._report(task, _unreachable(SideName.TARGET, begun=True))
            return
        status = "AlreadyStored" if instance in world.target else "Success"
        world.target.setdefault(instance, 0)
        world.target[instance] += status == "Success"
        if not world.calm and world.random.random() < 0.03:
            self._report(task, _unreachable(SideName.TARGET, begun=True))
            return
        self._report(
            task,
            Delivered(status, Action.TRANSCODED, "1.2", "1.2.1", "1.2.3", 1, 1, StageTimes()),
        )


def _unreachable(side: SideName, *, begun: bool = False) -> SideFailed:
    return SideFailed(side, SideProblem.UNREACHABLE, "simulated", begun=begun)


class SimulatedMachinery:
    def __init__(self, world: World) -> None:
        self._world = world
        self.clock: Clock = SimulatedClock(world)

    def client(self, side: SideName) -> SimulatedClient:
        return SimulatedClient(self._world, side)

    def inbox(self) -> SimulatedInbox:
        return SimulatedInbox(self._world)

    def background(self, inbox: Inbox) -> Background:
        return SimulatedBackground(self._world, inbox)

    def executor(self, done: Callable[[Task, Outcome], None]) -> SimulatedExecutor:
        return SimulatedExecutor(self._world, done)

    def chance(self) -> float:
        return self._world.random.random()


class FaultyLedger(Ledger):
    """The real ledger on a disk that fills up, in a process that can die around each write."""

    def __init__(self, path: Path, world: World, disk: Disk) -> None:
        self._world = world
        self._disk = disk
        super().__init__(path)

    def commit(self, entry: Entry) -> None:
        self._guard()
        super().commit(entry)
        self._world.remembered = dict(self.recent())
        self._check_promises()
        self._after()

    def restart_at(
        self,
        checkpoint: int,
        *,
        recent: Iterable[tuple[int, str]] = (),
        newest_date: str = "",
        ours_from: int | None = None,
    ) -> None:
        self._guard()
        super().restart_at(checkpoint, recent=recent, newest_date=newest_date, ours_from=ours_from)
        self._after()

    def set_meta(self, key: str, value: str | None) -> None:
        self._guard()
        super().set_meta(key, value)
        self._after()

    def _guard(self) -> None:
        self._world.maybe_crash()
        if self._world.disk_full and self._disk.faulty:
            raise StateError("simulated: the disk is full")

    def _after(self) -> None:
        self._disk.wrote(self)
        self._world.maybe_crash()

    def content(self) -> bytes:
        return self._db.serialize()

    def _check_promises(self) -> None:
        """G2: nothing at or below the checkpoint is unfinished."""
        world = self._world
        checkpoint = self.checkpoint()
        if checkpoint is None or world.history_changed:
            return
        for row in world.rows:
            finished = row.instance in world.target or row.instance not in world.held
            if row.sequence > checkpoint or finished or row.kind != "NewInstance":
                continue
            if row.sequence in world.late_sequences or self.parked_one(row.instance):
                continue
            raise Violation(f"checkpoint {checkpoint} passed the unfinished {row.sequence}")


class Disk:
    """What survives of the ledger: all that was written, or all up to a sync."""

    def __init__(self, path: Path, world: World) -> None:
        self._path = path
        self._world = world
        self._synced: bytes | None = None
        self.faulty = False

    def wrote(self, ledger: FaultyLedger) -> None:
        if self._world.knobs.loses_writes and self._world.random.random() < 0.3:
            self._synced = ledger.content()

    def after_crash(self) -> None:
        """Perhaps the power failed, and the writes since the last sync with it."""
        if not self._world.knobs.loses_writes or self._world.random.random() < 0.5:
            return
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        if self._synced is None:
            self._path.unlink(missing_ok=True)
        else:
            self._path.write_bytes(self._synced)


class Watcher:
    """An observer that holds the bridge to its promises while it runs."""

    def on_event(self, event: Event) -> None:
        LOGGER.debug("%s", event)

    def on_progress(self, progress: Progress) -> None:
        pass


def simulate(seed: int, directory: Path, settings: dict[str, Settings]) -> World:
    """Run one schedule to its end. Raises Violation when a promise is broken."""
    home = directory / str(seed)
    home.mkdir()
    try:
        world = World(seed)
        path = home / "ledger.sqlite3"
        disk = Disk(path, world)
        _live(world, path, disk, settings)
        return world
    finally:
        shutil.rmtree(home)


def _live(world: World, path: Path, disk: Disk, settings: dict[str, Settings]) -> None:
    policy = "stop"
    finishing = False
    special: dict[str, object] = {"feed_overlap": world.knobs.overlap}
    if world.knobs.archive:
        special["start"] = "snapshot"
    settings = {name: known.model_copy(update=special) for name, known in settings.items()}
    for _ in range(RESTARTS_MAX):
        try:
            with (
                FaultyLedger(path, world, disk) as ledger,
                Service(
                    settings[policy],
                    (Watcher(),),
                    bounded=False,
                    machinery=SimulatedMachinery(world),
                ) as service,
            ):
                disk.faulty = True
                if not finishing:
                    world.at(40.0, service.stop)
                    service.follow(ledger)
                    world.become_calm()
                    finishing = True
                    continue
                service.follow(ledger, once=True)
                _check_end(world, ledger)
                return
        except Crash:
            disk.after_crash()
        except FeedWentBackwards as exc:
            if world.was_away and not world.history_changed:
                world.wait_until_back()
            elif world.history_changed or world.emptied:
                policy = "snapshot"
            else:
                raise Violation(f"saw another history where there was none: {exc}") from exc
        except StateError:
            # Outside of the pipeline the ledger's fault ends the process; it is started again.
            world.disk_full = 0
    raise Violation("too many restarts")


def _check_end(world: World, ledger: Ledger) -> None:
    """G1, G4, G5: everything arrived or is parked, and only what deserves it is parked."""
    parked = {entry.move.instance_id for entry in ledger.parked()}
    for instance in world.held:
        if instance not in world.target and instance not in parked:
            raise Violation(f"{instance} is neither in the target nor parked")
    for instance in parked:
        if world.natures[instance] is Nature.PLAIN:
            raise Violation(f"{instance} is parked, and nothing is wrong with it")
    twice = [instance for instance, count in world.target.items() if count != 1]
    if twice:
        raise Violation(f"stored more than once: {twice}")
    for instance, nature in world.held.items():
        hopeless = nature in (Nature.UNDECODABLE, Nature.KILLS_WORKER, Nature.KILLS_TARGET)
        if hopeless and instance not in parked:
            raise Violation(f"{instance} is {nature} and not parked")
