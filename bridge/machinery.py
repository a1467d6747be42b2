"""Everything of a service that touches the world, behind one interface."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Protocol

from bridge.config import Settings
from bridge.core.crew import LOCAL
from bridge.core.errors import ConfigurationError
from bridge.core.events import Event, Observer, Progress
from bridge.core.model import Outcome, ServerInfo, SideName, Task
from bridge.feed_reader import FeedClient
from bridge.listing import ListingClient
from bridge.retention import HoldingServer, KeepingServer
from bridge.runtime import (
    Background,
    Clock,
    Inbox,
    QueueInbox,
    SystemClock,
    ThreadBackground,
)
from bridge.sides import SideClient
from bridge.stages import Stages
from bridge.workers import Executor, LocalExecutor


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


class Client(FeedClient, ListingClient, KeepingServer, HoldingServer, Protocol):
    """The calls of the bridge's own process to one server."""

    def probe(self) -> ServerInfo:
        """Ask who the server is. Raises SideError unless it is there and is an Orthanc."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""

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

    def executor(self, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
        """Make local worker processes, or reach for a cluster. Raises ConfigurationError."""
        if self._settings.executor != LOCAL:
            return cluster_executor(self._settings, done)
        executor = LocalExecutor(
            done,
            workers=self._settings.workers,
            memory_bytes=self._settings.worker_memory_mb * 1024 * 1024,
            stages=self.stages,
        )
        executor.start()
        return executor

    def chance(self) -> float:
        """Draw a number in [0, 1]."""
        return self._random.random()


def cluster_executor(settings: Settings, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
    """Make workers of a Dask cluster: Dask is imported here and only here."""
    try:
        from bridge.cluster.executor import DaskExecutor
        from bridge.cluster.link import Tls
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
