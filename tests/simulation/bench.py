"""The bridge's real service on a simulated machine."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

from bridge.config import Settings, load_settings
from bridge.errors import (
    BridgeError,
    FeedWentBackwards,
    InstancesRefused,
    SideError,
    SourceError,
    StateError,
    TargetError,
    failure_of,
)
from bridge.events import Abandoned, Event, InstanceParked, Progress, Settled, Workforce
from bridge.feed import held, listing
from bridge.ledger.records import Entry
from bridge.ledger.store import Ledger
from bridge.model import (
    Action,
    AnswerKind,
    Delivered,
    ExecutorFailed,
    Gap,
    InstanceFailed,
    Move,
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
    answer_of,
)
from bridge.orthanc import StoredFile
from bridge.pipeline.parked_policy import DAY_S, HOUR_S, RETRIES, Trigger
from bridge.pipeline.runtime import (
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
from tests.no_custody import NoCustody
from tests.simulation.world import WIDE_OVERLAP, Crash, HeldBy, Nature, Row, Violation, World

ATTEMPTS = 3
RESTARTS_MAX = 40
THREADS = 4
UNDER_WAY_MAX = 3 * THREADS
"""What a window that follows the workers lets be under way: Workforce.depth for each thread."""
STARTS_SPAN_S = 10.0
STARTS_MAX = 24
"""So often is one instance started within that span at most, whatever fails."""
LATE_AT_MOST_S = 90.0
"""So long after the last row has become visible it is delivered, whatever happened before."""
AFTERWARDS_S = 9.0
"""So long the bridge goes on when nothing more is planned: the longest outage ends in it."""
ONCE_AT_MOST_S = 600.0
"""So long after its last arrival ``run --once`` ends, whatever is answered."""
RECOUNT_S = 20.0
"""In every second world with a trace; the others show that the feed alone misses nothing."""
RETRIED_EVERY = 5
"""In one world of so many weeks pass at the end, and the policy tries again what is parked."""
WEEKS_S = 21 * DAY_S
LOGGER = logging.getLogger("tests.simulation")


def settings_for(reset: str) -> Settings:
    """Settings for a simulated bridge; no server of these names is ever asked."""
    return load_settings(
        source_url="http://source.invalid",
        target_url="http://target.invalid",
        on_feed_reset=reset,
        feed_overlap=WIDE_OVERLAP,
        page_size=7,
        recount_interval_s=0,
        rules_file=str(Path(__file__).with_name("rules.toml")),
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


class SimulatedClient(NoCustody):
    def __init__(self, world: World, side: SideName) -> None:
        self._world = world
        self._side = side

    def probe(self) -> ServerInfo:
        return self.system()

    def system(self) -> ServerInfo:
        self._world.check_up(self._side)
        self._world.refuse("system", self._side)
        return self._world.system()

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        self._world.check_up(self._side)
        self._world.refuse("changes", self._side)
        return self._world.changes(since, limit, only_new_instances=only_new_instances)

    def last_change(self) -> Page:
        self._world.check_up(self._side)
        self._world.refuse("last_change", self._side)
        if self._side is SideName.TARGET:
            return Page((), True, -1)  # another feed than the source's, whatever that is
        return self._world.last_change()

    def list_instances(self, since: int, limit: int) -> list[str]:
        self._world.check_up(self._side)
        self._world.refuse("list_instances", self._side)
        return self._world.listed(self._side)[since : since + limit]

    def has_instance(self, instance_id: str) -> bool:
        self._world.check_up(self._side)
        if self._side is SideName.SOURCE:
            return self._world.holds(instance_id)
        return instance_id in self._world.target

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        self._world.check_up(self._side)
        if self._world.knobs.held_by is HeldBy.ASKING:
            return None
        return frozenset(i for i in instance_ids if self.has_instance(i))

    def count_instances(self) -> int:
        self._world.check_up(self._side)
        self._world.refuse("statistics", self._side)
        return sum(map(self._world.holds, self._world.held))

    def stored_file(self, instance_id: str) -> StoredFile:
        self._world.check_up(self._side)
        return StoredFile(f"{instance_id} at the {self._side}", "0" * 32, 1)

    def peers(self) -> dict[str, str]:
        self._world.check_up(self._side)
        return dict(self._world.peers[self._side])

    def set_peer(self, name: str, url: str) -> None:
        self._world.check_up(self._side)
        self._world.peers[self._side][name] = url

    def delete_peer(self, name: str) -> None:
        self._world.peers[self._side].pop(name, None)

    def serves_whole_file(self, instance_id: str, *, with_metadata: bool = False) -> bool:
        self._world.check_up(self._side)
        strange = self._world.strange.get(instance_id)
        calls = ("file", "metadata") if with_metadata else ("file",)
        if strange is not None and strange.call in calls and not self._world.calm:
            return False
        try:
            self._world.refuse("serves_whole_file", self._side)
            if with_metadata:
                self._world.refuse("metadata", self._side)
        except SideError as exc:
            if answer_of(failure_of(exc)) is AnswerKind.SILENCE:
                raise
            return False
        return self._world.holds(instance_id)

    def close(self) -> None:
        pass


class SimulatedExecutor:
    """Workers: fetch, then deliver, then report, with time and mishaps in between."""

    def __init__(self, world: World, done: Callable[[Task, Outcome], None]) -> None:
        self._world = world
        self._done = done
        self._closed = False
        self._orphans_finish = world.random.random() < 0.5
        self._open: dict[int, str] = {}
        self._starts: dict[str, deque[float]] = {}
        world.abandoned = 0

    def workforce(self) -> Workforce:
        return Workforce(threads=THREADS, workers=THREADS)

    def submit(self, task: Task) -> None:
        self._check_start(task)
        self._open[task.number] = task.move.instance_id
        self._world.at(self._world.soon(), lambda: self._fetch(task))

    def _check_start(self, task: Task) -> None:
        """G3: no more at once than the window has, no instance beside itself, none without end.

        What a drain has left behind may be under way besides.
        """
        world, instance = self._world, task.move.instance_id
        if len(self._open) - world.abandoned >= UNDER_WAY_MAX:
            raise Violation(f"{len(self._open) + 1} are under way")
        if not world.abandoned and instance in self._open.values():
            raise Violation(f"{instance} is under way twice")
        if world.later:
            self._check_retry(instance)
        starts = self._starts.setdefault(instance, deque())
        starts.append(world.now)
        while starts[0] < world.now - STARTS_SPAN_S:
            starts.popleft()
        if len(starts) > STARTS_MAX:
            raise Violation(f"{instance} was started {len(starts)} times in {STARTS_SPAN_S:g} s")

    def _check_retry(self, instance: str) -> None:
        """Only one parked instance is tried again at a time, so what kills the target is alone."""
        self._world.tried_later[instance] += 1
        if len(self._open) > self._world.abandoned:
            raise Violation(f"{instance} was tried again beside {set(self._open.values())}")

    def close(self) -> None:
        self._closed = True

    def _report(self, task: Task, outcome: Outcome) -> None:
        self._world.at(self._world.soon(), lambda: self._tell(task, outcome))

    def _tell(self, task: Task, outcome: Outcome) -> None:
        self._open.pop(task.number, None)
        if not self._closed:
            self._done(task, outcome)

    def _fetch(self, task: Task) -> None:
        if self._closed and not self._orphans_finish:
            return
        world, instance = self._world, task.move.instance_id
        world.begun(instance)
        if world.down[SideName.SOURCE]:
            self._report(task, _unreachable(SideName.SOURCE))
        elif not world.holds(instance):
            self._report(task, Skipped(Reason.GONE))
        else:
            mishap = (
                world.answered("metadata", instance)
                or world.answered("file", instance)
                or self._mishap(instance)
            )
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
        if world.calm or world.knobs.quiet:
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
        answered = world.answered("store", instance)
        if answered is not None:
            self._report(task, answered)
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
        answered = world.answered("md5", instance)
        if answered is not None:
            self._report(task, answered)
            return
        if not (world.calm or world.knobs.quiet) and world.random.random() < 0.03:
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

    def beside(self, name: str, work: Callable[[], None]) -> None:
        """Do nothing: the probes of a simulated bridge come in time for its notes."""

    def executor(self, done: Callable[[Task, Outcome], None]) -> SimulatedExecutor:
        return SimulatedExecutor(self._world, done)

    def chance(self) -> float:
        return self._world.random.random()


@cache
def new_state() -> bytes:
    """Return what a state file holds that the real ledger has just made."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.sqlite3"
        Ledger(path).close()
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = DELETE")  # a database in memory has no other
            return db.serialize()
        finally:
            db.close()


class FaultyLedger(Ledger):
    """The real ledger on a disk that fills up, in a process that can die around each write.

    It is in memory, and what was committed is what the next process finds; in a file where the
    bridge opens it by its path as well.
    """

    def __init__(self, path: Path, world: World, disk: Disk) -> None:
        self._world = world
        self._disk = disk
        super().__init__(path)
        self._reached = self.checkpoint() or 0

    def _connect(self) -> sqlite3.Connection:
        if self._disk.is_file:
            return super()._connect()
        self.path.touch()  # the bridge tells a copy of its state by the file's number
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.deserialize(self._disk.content or new_state())
        db.row_factory = sqlite3.Row
        return db

    def close(self) -> None:
        if not self._disk.is_file:
            self._disk.content = self.content()
        super().close()

    def commit(self, entry: Entry) -> None:
        self._guard()
        super().commit(entry)
        if self._world.knobs.emptied:
            self._world.remembered = dict(self.recent())
        self._check_promises(entry)
        self._after()

    def restart_at(
        self,
        checkpoint: int,
        *,
        recent: Iterable[tuple[int, str]] = (),
        newest_date: str = "",
        ours_from: int | None = None,
        gaps: Iterable[Gap] = (),
    ) -> None:
        self._guard()
        super().restart_at(
            checkpoint, recent=recent, newest_date=newest_date, ours_from=ours_from, gaps=gaps
        )
        self._reached = checkpoint
        self._after()

    def set_meta(self, key: str, value: str | None, *, durably: bool = False) -> None:
        self._guard()
        super().set_meta(key, value, durably=durably)
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

    def _check_promises(self, entry: Entry) -> None:
        """G2: nothing at or below the checkpoint is unfinished, and it never goes back.

        G5: nothing is parked that nothing is wrong with, not even until it is tried again.
        """
        world = self._world
        for parked in entry.parked:
            name = parked.move.instance_id
            waits = name in world.strange and world.strange[name].waits and world.knobs.quiet
            if world.natures[name] is Nature.PLAIN or waits:
                raise Violation(f"{name} was parked: {parked.reason}, {parked.message}")
        checkpoint = self.checkpoint()
        if (checkpoint or 0) < self._reached:
            raise Violation(f"the checkpoint went back from {self._reached} to {checkpoint}")
        self._reached = checkpoint or 0
        if checkpoint is None or world.history_changed or world.target_lost:
            return
        for row in world.rows if world.trace is None else world.rows_up_to(checkpoint):
            if row.sequence > checkpoint or _is_finished(world, row):
                continue
            if row.sequence in world.late_sequences or self.parked_one(row.instance):
                continue
            raise Violation(f"checkpoint {checkpoint} passed the unfinished {row.sequence}")


def _is_finished(world: World, row: Row) -> bool:
    gone = row.instance not in world.held
    return row.kind != "NewInstance" or row.instance in world.target or gone


class Disk:
    """What survives of the ledger: all that was written, or all up to a sync."""

    def __init__(self, path: Path, world: World, *, is_file: bool) -> None:
        self._path = path
        self._world = world
        self._synced: bytes | None = None
        self.is_file = is_file
        self.content: bytes | None = None
        """What is on it, unless it is a file."""
        self.faulty = False

    def wrote(self, ledger: FaultyLedger) -> None:
        if self._world.knobs.loses_writes and self._world.random.random() < 0.3:
            self._synced = ledger.content()

    def after_crash(self) -> None:
        """Perhaps the power failed, and the writes since the last sync with it."""
        if not self._world.knobs.loses_writes or self._world.random.random() < 0.5:
            return
        if self._world.later:
            return  # what is done again then could not be told from what is tried again
        self.content = self._synced
        if not self.is_file:
            return
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        if self._synced is None:
            self._path.unlink(missing_ok=True)
        else:
            self._path.write_bytes(self._synced)


class Watcher:
    """An observer that holds the bridge to its promises while it runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._settled: set[int] = set()

    def on_event(self, event: Event) -> None:
        LOGGER.debug("%s", event)
        match event:
            case Settled(move=move, outcome=outcome):
                self._check_once(move)
                self._check_settled(move.instance_id, outcome)
            case InstanceParked(move=move):
                self._check_once(move)
            case Abandoned(in_flight=count):
                self._world.abandoned += count
            case _:
                pass

    def on_progress(self, progress: Progress) -> None:
        if len(progress.in_flight) > UNDER_WAY_MAX:
            raise Violation(f"{len(progress.in_flight)} are told to be under way")

    def _check_once(self, move: Move) -> None:
        """G2: each change comes to one end, unless somebody asks for it again."""
        if move.sequence is None or self._world.asked_again:
            return
        if move.sequence in self._settled:
            raise Violation(f"change {move.sequence} was settled twice")
        self._settled.add(move.sequence)

    def _check_settled(self, instance: str, outcome: Outcome) -> None:
        """G1, G8: what counts as delivered is there, and what counts as deleted is not held."""
        world = self._world
        if isinstance(outcome, Delivered) and instance not in world.target:
            raise Violation(f"{instance} counts as delivered and is not in the target")
        if isinstance(outcome, Skipped) and outcome.reason is Reason.GONE:
            comes_late = world.knobs.archive and world.knobs.late_rows
            if instance in world.held and not comes_late:
                raise Violation(f"{instance} counts as deleted and the source holds it")


def simulate(
    seed: int,
    directory: Path,
    settings: dict[str, Settings],
    world_of: Callable[[int], World] = World,
) -> World:
    """Run one schedule to its end. Raises Violation when a promise is broken."""
    home = directory / str(seed)
    home.mkdir()
    try:
        world = world_of(seed)
        path = home / "ledger.sqlite3"
        disk = Disk(path, world, is_file=_recounts(world))
        with _pages_of(world):
            _live(world, path, disk, settings)
        return world
    finally:
        shutil.rmtree(home)


def _recounts(world: World) -> bool:
    return world.trace is not None and world.seed % 2 == 1


@contextmanager
def _pages_of(world: World) -> Iterator[None]:
    """Have an archive listed in pages of a few instances."""
    before = listing.LISTING_OVERLAP, listing.BACK_MAX
    ways = held.LIST_PAGE, held.LIST_SHARE
    if world.knobs.listing_overlap:
        overlap = world.knobs.listing_overlap
        listing.LISTING_OVERLAP, listing.BACK_MAX = overlap, 16 * overlap
        held.LIST_PAGE = 2 * overlap
    if world.knobs.held_by is not HeldBy.LIST:
        held.LIST_SHARE = 0  # the target's list is too long for what is to be asked for
    try:
        yield
    finally:
        listing.LISTING_OVERLAP, listing.BACK_MAX = before
        held.LIST_PAGE, held.LIST_SHARE = ways


def _live(world: World, path: Path, disk: Disk, settings: dict[str, Settings]) -> None:
    policy = "stop"
    finishing = False
    special: dict[str, object] = {
        "feed_overlap": world.knobs.overlap,
        "page_size": world.knobs.page_size,
    }
    if world.knobs.archive:
        special["start"] = "snapshot"
        if world.knobs.listing_overlap:
            special["page_size"] = 2 * world.knobs.listing_overlap
    if _recounts(world):
        special["recount_interval_s"] = RECOUNT_S
    if world.plain:
        special["poll_interval_s"] = 0.1
    settings = {name: known.model_copy(update=special) for name, known in settings.items()}
    begun = world.now
    for _ in range(RESTARTS_MAX if world.trace is None else 10 * RESTARTS_MAX):
        try:
            with (
                FaultyLedger(path, world, disk) as ledger,
                Service(
                    settings[policy],
                    (Watcher(world),),
                    bounded=world.knobs.job == "once" and bool(world.knobs.answers),
                    machinery=SimulatedMachinery(world),
                ) as service,
            ):
                disk.faulty = True
                if not finishing:
                    finishing = _work(world, service, ledger, begun)
                    continue
                _finish(world, service, ledger)
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


def _work(world: World, service: Service, ledger: Ledger, begun: float) -> bool:
    """Follow, or come again and again; True when all has happened and the rest must be calm."""
    over = begun + world.span_s + LATE_AT_MOST_S
    if world.knobs.job == "once" and world.now < over and not world.knobs.answers:
        # What a server refuses for ever would have it wait for ever.
        world.at(over - world.now, service.stop)
        with suppress(SourceError, TargetError):
            service.follow(ledger, once=True)
        world.let_pass(world.random.choice([0.1, 2.0, 10.0]))
        return False
    if world.knobs.job == "once" and world.knobs.answers:
        # It ends by itself: what a server refuses for ever, it leaves.
        begun_s = world.now
        with suppress(SourceError, TargetError, InstancesRefused):
            service.follow(ledger, once=True)
        spent_s = world.now - begun_s
        if world.knobs.quiet and spent_s > world.plan_s + ONCE_AT_MOST_S:
            raise Violation(f"run --once took {spent_s:.0f} s")
        world.let_pass(max(0.0, begun + world.plan_s - world.now))
    if world.knobs.job == "follow":
        if world.trace is None:
            over = max(world.now, begun + world.plan_s) + AFTERWARDS_S
        world.at(max(1.0, over - world.now), service.stop)
        service.follow(ledger)
    world.become_calm()
    return True


def _finish(world: World, service: Service, ledger: Ledger) -> None:
    """Bring everything to its end, and look at what commands and weeks make of that."""
    if not world.later:
        service.follow(ledger, once=True)
        _check_end(world, ledger)
    if world.trace is not None:
        _check_commands(world, service, ledger)
    elif world.seed % RETRIED_EVERY == 0:
        _let_weeks_pass(world, service, ledger)


def _let_weeks_pass(world: World, service: Service, ledger: Ledger) -> None:
    """What is parked is tried again as the policy says, and no oftener, whatever crashes."""
    if not world.later:
        world.later = True
        world.later_until = world.now + WEEKS_S
        world.reasons = {p.move.instance_id: p.reason for p in ledger.parked()}
        for _ in range(2):
            world.at(world.random.random() * WEEKS_S, partial(_kill, world))
    while world.now < world.later_until:
        service.follow(ledger, once=True)
        world.let_pass(12 * HOUR_S)
    if not world.codecs_changed:
        _check_retries(world)
        world.codecs_changed = True
        world.tried_later.clear()
        ledger._db.execute("UPDATE parked SET codec_versions = 'older'")
    service.follow(ledger, once=True)
    _check_end(world, ledger)
    undecodable = {i for i, reason in world.reasons.items() if reason is Reason.UNDECODABLE}
    lacking = [i for i in undecodable & set(world.held) if world.tried_later[i] != 1]
    if lacking:
        raise Violation(f"the codecs have changed, and {lacking} were not tried once")


def _kill(world: World) -> None:
    """The process is killed: perhaps while it tries something again."""
    if world.killed_later < 2:
        world.killed_later += 1
        raise Crash


def _check_retries(world: World) -> None:
    """Three weeks have passed, in which nothing has stood in the way of anybody."""
    for instance, reason in world.reasons.items():
        tries = world.tried_later[instance]
        match RETRIES[reason].trigger:
            case Trigger.TIME if RETRIES[reason].ends:
                right = tries <= len(RETRIES[reason].intervals_s)
            case Trigger.TIME:
                right = instance in world.target or instance not in world.held or tries >= 6
            case _:
                right = tries == 0
        if not right:
            raise Violation(f"{instance}, parked as {reason}, was tried {tries} times in weeks")


def _check_commands(world: World, service: Service, ledger: Ledger) -> None:
    """A replay brings back what the target has lost; a retry ends, whatever is parked."""
    world.asked_again = True
    rows = [row for row in world.rows if row.kind == "NewInstance"]
    lost = [row.instance for row in rows if world.natures[row.instance] is Nature.PLAIN][::3]
    world.target_lost = bool(lost)
    for instance in lost:
        del world.target[instance]
    if not rows:
        return
    end = service.replay_end(start=rows[0].sequence, end=None)
    skips = world.seed % 4 < 2
    service.replay(ledger, start=rows[0].sequence, end=end, dry_run=False, skip_present=skips)
    lacking = [instance for instance in lost if instance not in world.target]
    if lacking:
        raise Violation(f"a replay did not bring {lacking}")
    service.retry(ledger, [entry.move for entry in ledger.parked()])
    _check_end(world, ledger)


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
