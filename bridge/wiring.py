"""The real parts, and how they are put together to a pipeline.

Machinery  everything that touches the world, behind one interface
Probes     ask both servers whether they are there and are two
Pipelines  run one after the other over the same workers and servers, for one command
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Protocol

import bridge
from bridge.config import Settings
from bridge.errors import BridgeError, ConfigurationError, InstanceError, SideError
from bridge.events import LOCAL, Event, Observer, Progress, Summary
from bridge.feed.listing import ListingClient
from bridge.feed.pages import FeedClient
from bridge.feed.sources import MoveSource
from bridge.ledger.records import TriedBy
from bridge.ledger.store import Ledger
from bridge.marks import MarkedBy, MarksAtBest, MarksOnRecord
from bridge.model import Job, Outcome, ServerInfo, SideName, Task
from bridge.monitoring.ask_running_bridge import AskedBridge, ask_running
from bridge.orthanc.session import SideClient
from bridge.pipeline.ask_for_other_instances import FailedFile, FileServer, ask_for_another
from bridge.pipeline.available_workers import Executor
from bridge.pipeline.failure_policy import Limits, Others
from bridge.pipeline.holds import CommandThrottle, OperatorThrottle, Throttle
from bridge.pipeline.journal import Journal
from bridge.pipeline.loop import Pace, Pipeline
from bridge.pipeline.parked_retries import ParkedRetries
from bridge.pipeline.runtime import (
    Background,
    Clock,
    Inbox,
    QueueInbox,
    SystemClock,
    TaskDone,
    ThreadBackground,
    UrgentAmong,
)
from bridge.retention.bridge_notes import Announcer
from bridge.retention.protocols import HoldingServer, KeepingServer
from bridge.rules import facts_of_metadata, is_urgent
from bridge.rules_watch import RulesWatch
from bridge.two_servers import OnlyApart, TwoServers
from bridge.versions import codec_versions
from bridge.worker.pool import LocalExecutor
from bridge.worker.stages import Stages


class Observers:
    """Tells several observers."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def on_event(self, event: Event) -> None:
        """Pass an event on."""
        for observer in self._observers:
            observer.on_event(event)

    def on_progress(self, progress: Progress) -> None:
        """Pass a report on."""
        for observer in self._observers:
            observer.on_progress(progress)


class ClosableExecutor(Executor, Protocol):
    """An executor with an end."""

    def close(self) -> None:
        """End it at once."""


class Client(FeedClient, ListingClient, FileServer, KeepingServer, HoldingServer, Protocol):
    """The calls of the bridge's own process to one server."""

    def probe(self) -> ServerInfo:
        """Ask who the server is. Raises SideError unless it is there and is an Orthanc."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        """Return which of these it holds; None where it answers no such request."""

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Return what the server knows of an instance. Raises SideError, InstanceError."""

    def count_instances(self) -> int:
        """Return how many instances the server holds."""

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""


class Machinery(Protocol):
    """Everything that touches the world; a simulation brings another one."""

    clock: Clock

    def client(self, side: SideName) -> Client:
        """Make a client, for one thread."""

    def inbox(self) -> Inbox:
        """Make an inbox."""

    def background(self, inbox: Inbox) -> Background:
        """Make a place for blocking calls."""

    def beside(self, name: str, work: Callable[[], None]) -> None:
        """Have something done in a thread of its own, until it returns."""

    def executor(self, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
        """Make the workers."""

    def chance(self) -> float:
        """Draw a number in [0, 1]."""


class RealMachinery:
    """Sockets, threads, processes and the machine's clocks."""

    def __init__(self, settings: Settings) -> None:
        self.clock: Clock = SystemClock()
        self.stages = Stages()
        self._settings = settings
        self._random = random.Random()  # noqa: S311 (jitter, not secrets)

    def client(self, side: SideName) -> Client:
        """Make a client, for one thread."""
        return SideClient(self._settings.endpoint(side))

    def inbox(self) -> Inbox:
        """Make an inbox."""
        return QueueInbox()

    def background(self, inbox: Inbox) -> Background:
        """Make threads for blocking calls."""
        return ThreadBackground(inbox)

    def beside(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread that does not keep the process alive."""
        threading.Thread(target=work, name=name, daemon=True).start()

    def executor(self, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
        """Make local worker processes, or reach for a cluster. Raises ConfigurationError."""
        if self._settings.executor != LOCAL:
            return cluster_executor(self._settings, done)
        executor = LocalExecutor(
            done,
            workers=self._settings.workers,
            transfers=self._settings.transfers,
            memory_bytes=self._settings.worker_memory_mb * 1024 * 1024,
            stages=self.stages,
        )
        executor.start()
        return executor

    def chance(self) -> float:
        """Draw a number in [0, 1]."""
        return self._random.random()


def present_versions() -> TriedBy:
    """Return what instances are tried with now."""
    return TriedBy(bridge.__version__, codec_versions())


def cluster_executor(settings: Settings, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
    """Make workers of a Dask cluster: Dask is imported here and only here."""
    try:
        from bridge.worker.dask.executor import DaskExecutor
        from bridge.worker.dask.scheduler import Tls
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"BRIDGE_EXECUTOR is {settings.executor}, but {exc.name} is not installed here.",
            advice="Install orthanc-bridge[dask], or set BRIDGE_EXECUTOR=local.",
        ) from exc
    files = (settings.dask_tls_ca_file, settings.dask_tls_cert_file, settings.dask_tls_key_file)
    ca_file, cert_file, key_file = files
    tls = Tls(ca_file, cert_file, key_file) if ca_file and cert_file and key_file else None
    executor = DaskExecutor(done, address=settings.executor, tls=tls)
    executor.start()
    return executor


Done = Callable[[Task, Outcome], None]
"""Called when a task has ended, from any thread."""


class Probes:
    """Both servers, asked whether they are there, are two, and have the note of this bridge.

    ``token``: of this process, in its notes. ``unrest`` returns a number that changes with each
    instance that was moved and each trouble.
    """

    def __init__(
        self,
        settings: Settings,
        machinery: Machinery,
        *,
        token: str,
        unrest: Callable[[], int],
    ) -> None:
        opened = partial(Ledger, settings.state_path, create=False)
        self._marks = MarksOnRecord(opened, MarkedBy.COMMAND)
        self._clients = {side: machinery.client(side) for side in SideName}
        self._steady_s = machinery.clock.steady_s
        self._two = TwoServers(
            self._clients,
            {side: client.probe for side, client in self._clients.items()},
            vouched=settings.servers_are_distinct,
            confirm_s=settings.feed_confirm_s,
            unrest=unrest,
            steady_s=self._steady_s,
            marks=MarksAtBest(self._marks),
        )
        self._noted = {side: machinery.client(side) for side in SideName}
        self._beside = machinery.beside
        self._kept_up = False
        self._announcer = Announcer(
            self._noted,
            token=token,
            retention=settings.source_retention,
            mirrors=settings.mirror_deletions_after_s is not None,
        )

    def close(self) -> None:
        """Close the connections."""
        for client in (*self._clients.values(), *self._noted.values()):
            client.close()

    def announce(self, ledger: Ledger) -> None:
        """Note the bridge of this ledger at the servers from now on. Again: nothing changes.

        It follows, and nobody beside it does: marks that one like it has left are its own.
        """
        self._announcer.begin(ledger)
        if not self._kept_up:
            self._kept_up = True
            for side in SideName:
                self._beside(f"notes-{side}", partial(self._announcer.keep, side, self._steady_s))
        self._marks.by = MarkedBy.PROBES

    def end_notes(self, ledger: Ledger) -> None:
        """Put on record that this process leaves no note any more. Raises StateError."""
        self._announcer.end(ledger)

    def contact(self, side: SideName) -> None:
        """Make sure that a server can be used, and leave our note there. Raises SideError."""
        self._clients[side].system()
        self._announcer.announce(side, self._steady_s())

    def probe(self, side: SideName) -> ServerInfo:
        """Ask a server whether it is there, is another one than the other, and has our note.

        Raises SideError, and ConfigurationError for one server behind both addresses.
        """
        now_s = self._steady_s()
        if side is SideName.TARGET:
            # The source is not probed while it is up, its trouble is not the target's, and who has
            # a target that is down needs the note most.
            with suppress(SideError):
                self._announcer.renew(SideName.SOURCE, now_s)
        try:
            info = self._two.probe(side)
        except BridgeError:
            self._announcer.void(side)
            raise
        self._announcer.announce(side, now_s)
        return info

    def only_if_two(self, moves: MoveSource) -> MoveSource:
        """Hand out moves only after two servers are shown."""
        return OnlyApart(moves, self._two)


class Pipelines:
    """Runs the pipelines of one command, one after the other, over the same workers and servers.

    ``token``: of this process, in its notes at the servers. ``troubles`` returns a number that
    changes with each trouble. ``bounded``: a command that ends, and whose patience does.
    """

    def __init__(
        self,
        settings: Settings,
        machinery: Machinery,
        observer: Observer,
        *,
        bounded: bool,
        token: str,
        troubles: Callable[[], int],
    ) -> None:
        self._rules = RulesWatch(settings, observer, steady_s=machinery.clock.steady_s)
        self.patience_s = settings.command_patience_s if bounded else None
        self.source = machinery.client(SideName.SOURCE)
        """For whoever reads the feed."""
        self.make_workers: Callable[[Done], ClosableExecutor] = machinery.executor
        self.stopping = False
        self.tried_by = present_versions()
        self._settings = settings
        self._machinery = machinery
        self._observer = observer
        self._another = machinery.client(SideName.SOURCE)
        self._glance = machinery.client(SideName.SOURCE)
        """For whoever asks which instances are urgent."""
        self._tasks_ended = 0
        """It only has to change."""
        self.probes = Probes(
            settings, machinery, token=token, unrest=lambda: troubles() + self._tasks_ended
        )
        self._inbox = machinery.inbox()
        self._pipeline: Pipeline | None = None
        self._executor: ClosableExecutor | None = None
        self._stack = ExitStack()

    @property
    def job(self) -> Job:
        """What a worker needs to know, with the rules as they are now."""
        return self._rules.job

    def read_rules_again(self) -> None:
        """Have the rules file read again soon; safe in a signal handler."""
        self._rules.read_again()

    def close(self) -> None:
        """End the workers at once, and close the connections."""
        if self._executor is not None:
            self._executor.close()
        self._stack.close()
        self.probes.close()
        self._another.close()
        self._glance.close()
        self.source.close()

    def stop(self) -> None:
        """Drain the present pipeline, and begin no other; safe in any thread."""
        self.stopping = True
        if self._pipeline is not None:
            self._pipeline.stop()

    def poke(self) -> None:
        """Have the present pipeline look at the feed soon; safe in any thread."""
        if self._pipeline is not None:
            self._pipeline.poke()

    def run(
        self,
        moves: MoveSource,
        journal: Journal,
        total: Summary,
        *,
        phase: str,
        throttle: Throttle | None = None,
        lost: Iterable[str] = (),
        settled: Iterable[str] = (),
        given_back: Callable[[], str] = lambda: "",
        forgotten_before: float | None = None,
        listener: Observer | None = None,
        retries: ParkedRetries | None = None,
    ) -> bool:
        """Run one pipeline and add up; True when it came to its end without being stopped.

        ``throttle`` None: only rates are limited. ``lost``, ``settled``: instances that are known
        from before, ``given_back`` and ``forgotten_before``: see Outcomes, ``retries``: of what is
        parked, see Pipeline.
        ``listener`` is told what happens in this pipeline.
        """
        clock = self._machinery.clock
        self._inbox = self._machinery.inbox()
        background = self._machinery.background(self._inbox)
        self._pipeline = Pipeline(
            job=self.job,
            pace=self._pace(),
            moves=self.probes.only_if_two(moves),
            journal=journal,
            executor=self._workers(),
            background=background,
            inbox=self._inbox,
            clock=clock,
            observer=Observers((self._observer, listener)) if listener else self._observer,
            probes={side: partial(self.probes.probe, side) for side in SideName},
            chance=self._machinery.chance,
            throttle=throttle or self._operator_throttle(None),
            summary=total,
            ask_for_another=self._ask_for_another,
            lost=lost,
            settled=settled,
            given_back=given_back,
            forgotten_before=forgotten_before,
            retries=retries,
            tried_by=self.tried_by,
            phase=phase,
            job_now=self._rules.current,
            ask_urgent=self._ask_urgent if self._settings.rules_file else None,
        )
        if self.stopping:
            self._pipeline.stop()
        try:
            self._pipeline.run()
        finally:
            background.close()
        return not total.stopped

    def wait(self, until_s: float) -> None:
        """Wait between two pipelines until then, by the steady clock, or until a stop."""
        steady_s = self._machinery.clock.steady_s
        while not self.stopping and (left_s := until_s - steady_s()) > 0:
            # What an earlier pipeline has abandoned may end here: it is done again in any case.
            self._inbox.take(left_s)

    def throttle_of(self, ledger: Ledger) -> Throttle:
        """Obey pause and quiet hours: for the bridge that follows."""
        return self._operator_throttle(ledger)

    def retries_of(self, ledger: Ledger, *, once: bool) -> ParkedRetries | None:
        """Try parked instances again by policy, unless BRIDGE_PARKED_RETRY=off."""
        if self._settings.parked_retry == "off":
            return None
        return ParkedRetries(
            ledger,
            tried_by=self.tried_by,
            per_hour=self._settings.parked_retries_per_hour,
            clock=self._machinery.clock,
            once=once,
        )

    def throttle_beside(self, ledger: Ledger) -> Throttle:
        """Give way to the bridge that runs on this ledger, if one does: for a command."""
        ask = partial(ask_running, cert_file=self._settings.health_cert_file)
        running = self._stack.enter_context(AskedBridge(ask))
        clock = self._machinery.clock
        return CommandThrottle(self._operator_throttle(None), running, ledger=ledger, clock=clock)

    def _operator_throttle(self, ledger: Ledger | None) -> Throttle:
        allowance, clock = self._settings.allowance(), self._machinery.clock
        return OperatorThrottle(allowance, ledger=ledger, clock=clock)

    def _pace(self) -> Pace:
        return Pace(
            window=self._settings.window,
            poll_interval_s=self._settings.poll_interval_s,
            patience_s=self.patience_s,
            shutdown_timeout_s=self._settings.shutdown_timeout_s,
            limits=Limits(attempts_max=self._settings.attempts),
        )

    def _ask_for_another(self, failed: FailedFile) -> Others:
        return ask_for_another(
            self._another,
            failed,
            chance=self._machinery.chance,
            with_metadata=bool(self.job.rules),
        )

    def _ask_urgent(self, instances: Sequence[str]) -> UrgentAmong:
        """Ask the source's metadata which of these go before others. Raises SideError."""
        rules, found = self.job.rules, []
        for instance_id in instances:
            try:
                known = self._glance.instance_metadata(instance_id)
            except InstanceError:
                continue  # it is gone, or has none: whoever moves it finds out what that means
            if is_urgent(rules, facts_of_metadata(known)):
                found.append(instance_id)
        return UrgentAmong(frozenset(found))

    def _workers(self) -> ClosableExecutor:
        if self._executor is None:
            self._executor = self.make_workers(self._done)
        return self._executor

    def _done(self, task: Task, outcome: Outcome) -> None:
        self._tasks_ended += 1
        self._inbox.put(TaskDone(task, outcome))
