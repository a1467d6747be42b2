"""Both servers for commands that look at many instances: several threads, a client for each."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, Self, TypeVar

from bridge.errors import SideError
from bridge.model import Described, Endpoint, Page, ServerInfo, SideName
from bridge.orthanc import OrthancClient, Statistics, StoredFile
from bridge.orthanc.session import credentials_now

THREADS = 4
"""Requests under way at once: metadata takes the server less time than the network."""
BATCH = 400
"""Instances looked at together, and held in memory."""

PAGE = 1000
"""Instances that are described by one request."""
TOGETHER = 100
"""Instances whose metadata are read by one request."""
TOLERATED_MAX = 100
"""A server with errors over more instances than this is sick, and is left alone."""

Show = Callable[[str, int, int | None], None]
"""Is told the phase, what is done of it, and how much it is if that is known."""

Holds = Callable[[str], bool]
"""Tells whether a server holds an instance."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class ReadingClient(Protocol):
    """What commands that look may ask of a server: all of it only reads."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        """Return the rows after ``since``."""

    def last_change(self) -> Page:
        """Return the newest row."""

    def list_instances(self, since: int, limit: int) -> list[str]:
        """Return instance IDs by position."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Return what Orthanc knows of an instance. Raises InstanceGone, InstanceError."""

    def bulk_metadata(self, instance_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return that of many instances at once, as far as the server tells it so."""

    def attachment_size(self, instance_id: str) -> int:
        """Return the size of an instance's file in bytes."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 of an instance's file as the server noted it. Raises InstanceError."""

    def stored_file(self, instance_id: str) -> StoredFile:
        """Return the name of an instance's file. Raises InstanceError."""

    def peers(self) -> dict[str, str]:
        """Return the peers."""

    def head(self, instance_id: str, bytes_max: int) -> bytes:
        """Return the first bytes of an instance's file."""

    def close(self) -> None:
        """Close the connections."""


class BulkClient(ReadingClient, Protocol):
    """What commands that look at very many instances may ask of a server beside."""

    def bulk_described(self, instance_ids: Sequence[str]) -> dict[str, Described]:
        """Return that and the sizes of the files, as far as the server tells it so."""

    def verify_stored(self, instance_id: str) -> bool:
        """Have the server read its file and compare the MD5 that it noted. Raises InstanceError."""

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        """Return which of these it holds; None where it answers no such request."""

    def find_described(self, since: int, limit: int) -> dict[str, Described] | None:
        """Describe instances by position; None where the server cannot."""

    def statistics(self) -> Statistics:
        """Return how much the server holds."""


def inspector(endpoint: Endpoint) -> OrthancClient:
    """Make a client that only looks. Raises SideError LOGIN_REFUSED, ConfigurationError."""
    return OrthancClient(endpoint, credentials_now(endpoint))


class ToleratedErrors:
    """Errors of a server over one instance, which must not hide what is wrong with the others.

    For any number of threads.
    """

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def tolerate(self, error: SideError) -> None:
        """Raise the error, unless it is about one instance and there were not too many of them."""
        if not error.specific or next(self._count) > TOLERATED_MAX:
            raise error


class BothServers:
    """Both servers for several threads. A context manager: it owns threads and clients.

    ``make`` makes a client; it is called once for each thread and side.
    """

    def __init__(self, make: Callable[[SideName], BulkClient]) -> None:
        self._make = make
        self._local = threading.local()
        self._made: list[BulkClient] = []
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="looking")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for client in self._made:
            client.close()

    def client(self, side: SideName) -> BulkClient:
        """Return this thread's client of a server."""
        clients: dict[SideName, BulkClient] = self._local.__dict__.setdefault("clients", {})
        if side not in clients:
            clients[side] = self._make(side)
            self._made.append(clients[side])
        return clients[side]

    def described(self, side: SideName) -> Iterator[dict[str, Described]]:
        """Describe all that a server holds, in pages, several of which are asked for at once.

        None where the server cannot do that. Raises SideError.
        """

        def page(number: int) -> dict[str, Described] | None:
            return self.client(side).find_described(number * PAGE, PAGE)

        ahead = deque([self._threads.submit(page, 0)])
        asked = 1
        while found := ahead.popleft().result():
            while len(ahead) < THREADS:
                ahead.append(self._threads.submit(page, asked))
                asked += 1
            yield found
        for left in ahead:
            left.cancel()

    def held(self, side: SideName, instance_ids: Sequence[str]) -> Holds:
        """Ask which of these a server holds; what is not told at once is asked for by itself."""
        client = self.client(side)
        told = client.bulk_held(instance_ids) if instance_ids else frozenset()
        return client.has_instance if told is None else told.__contains__

    def each_together(
        self, look: Callable[[Sequence[_Item]], Sequence[_Result]], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """Look at up to TOGETHER items at once, in several threads; results in their order."""
        stream = iter(items)
        while batch := list(islice(stream, THREADS * TOGETHER)):
            parts = [batch[at : at + TOGETHER] for at in range(0, len(batch), TOGETHER)]
            for results in self._threads.map(look, parts):
                yield from results
