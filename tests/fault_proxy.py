"""A TCP proxy on loopback that spoils what passes through it, when told to.

    with FaultProxy(server.http_port) as proxy:
        proxy.strike(Reset(Direction.UP, after_bytes=1000), times=1)
        ...                                    # the next connection that sends 1000 bytes breaks
        proxy.wait_struck(1)

It knows nothing of HTTP. A fault concerns every connection, also those that are open already;
bytes are counted per connection from the moment when the fault was set.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

CHUNK_BYTES = 65536
WAIT_S = 20.0


class Direction(Enum):
    UP = auto()
    """From the client to the server."""
    DOWN = auto()


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept and pass nothing on, until another fault or none is set."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Pass so many bytes in one direction, then reset both connections."""

    direction: Direction
    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DropAnswer:
    """Let the server work; reset when its answer begins to arrive. The client never sees it."""


@dataclass(frozen=True, slots=True)
class Drip:
    """Pass single bytes in one direction, with a pause after each."""

    direction: Direction = Direction.DOWN
    interval_s: float = 0.05


@dataclass(frozen=True, slots=True)
class OnMarker:
    """When these bytes come up, call ``action`` instead of passing them on, and reset: a server
    that dies of a request with it in hand.

    The marker must not be cut by a read: it is looked for in each piece and its overlap.
    """

    marker: bytes
    action: Callable[[], object]


Fault = Hang | Reset | DropAnswer | Drip | OnMarker


class FaultProxy:
    """Forwards to a port on loopback. Its own port stays the same over refuse and accept."""

    def __init__(self, server_port: int, *, port: int = 0) -> None:
        self.server_port = server_port
        self.struck = 0
        """How often a fault has done its harm."""
        self._port = port
        self._changed = threading.Condition()
        self._fault: Fault | None = None
        self._times: int | None = None
        self._generation = 0
        self._closed = False
        self._listener: socket.socket | None = None
        self._links: set[_Link] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def strike(self, fault: Fault, *, times: int | None = None) -> None:
        """Do this from now on, or so many times; then pass everything again."""
        self._set(fault, times)

    def heal(self) -> None:
        """Pass everything."""
        self._set(None, None)

    def refuse(self) -> None:
        """Refuse new connections and break the open ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.break_connections()

    def accept(self) -> None:
        """Take connections again after ``refuse``."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def break_connections(self) -> None:
        """Reset every open connection."""
        with self._changed:
            links = list(self._links)
        for link in links:
            link.reset()

    def wait_struck(self, count: int, timeout_s: float = WAIT_S) -> None:
        """Wait until faults have struck ``count`` times; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.struck >= count, timeout_s):
                raise TimeoutError(f"struck {self.struck} times in {timeout_s} s, not {count}")

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.refuse()

    def pass_on(self, link: _Link, direction: Direction, data: bytes) -> bool:
        """Forward one piece as the fault of the moment has it; False ends the connection."""
        match self._current():
            case Hang():
                self._wait_for_another_fault()
                return not self._closed and self.pass_on(link, direction, data)
            case Reset(wanted, after_bytes) if wanted is direction:
                left = after_bytes - link.counted(direction, self._generation)
                if len(data) >= left and self._take():
                    link.send(direction, data[: max(left, 0)])
                    return False
                link.count(direction, self._generation, len(data))
            case DropAnswer() if direction is Direction.DOWN and self._take():
                return False
            case Drip(wanted, interval_s) if wanted is direction and self._take():
                return self._drip(link, direction, data, interval_s)
            case OnMarker(marker, action) if direction is Direction.UP:
                seen = link.tail + data
                link.tail = seen[-len(marker) :]
                if marker in seen and self._take():
                    action()
                    return False
        link.send(direction, data)
        return True

    def _drip(self, link: _Link, direction: Direction, data: bytes, interval_s: float) -> bool:
        generation = self._generation
        for start in range(len(data)):
            link.send(direction, data[start : start + 1])
            with self._changed:
                if self._changed.wait_for(lambda: self._generation != generation, interval_s):
                    link.send(direction, data[start + 1 :])
                    return not self._closed
        return True

    def _set(self, fault: Fault | None, times: int | None) -> None:
        with self._changed:
            self._fault, self._times = fault, times
            self._generation += 1
            self._changed.notify_all()

    def _current(self) -> Fault | None:
        with self._changed:
            return None if self._times == 0 else self._fault

    def _take(self) -> bool:
        """Use up one strike."""
        with self._changed:
            if self._times == 0:
                return False
            if self._times is not None:
                self._times -= 1
            self.struck += 1
            self._changed.notify_all()
            return True

    def _wait_for_another_fault(self) -> None:
        with self._changed:
            self.struck += 1
            self._changed.notify_all()
            generation = self._generation
            self._changed.wait_for(lambda: self._closed or self._generation != generation)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _address = listener.accept()
            except OSError:
                return  # refuse() has closed it
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), WAIT_S)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            link = _Link(client, server)
            with self._changed:
                self._links.add(link)
            for direction in Direction:
                threading.Thread(target=self._pump, args=(link, direction), daemon=True).start()

    def _pump(self, link: _Link, direction: Direction) -> None:
        try:
            while data := link.receive(direction):
                if not self.pass_on(link, direction, data):
                    link.reset()
                    break
            link.end(direction)
        except OSError:
            link.reset()
        with self._changed:
            self._links.discard(link)


class _Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.tail = b""
        self._counts = dict.fromkeys(Direction, (0, 0))

    def receive(self, direction: Direction) -> bytes:
        return (self.client if direction is Direction.UP else self.server).recv(CHUNK_BYTES)

    def send(self, direction: Direction, data: bytes) -> None:
        (self.server if direction is Direction.UP else self.client).sendall(data)

    def end(self, direction: Direction) -> None:
        """Pass a clean end of one direction on."""
        (self.server if direction is Direction.UP else self.client).shutdown(socket.SHUT_WR)

    def counted(self, direction: Direction, generation: int) -> int:
        of, count = self._counts[direction]
        return count if of == generation else 0

    def count(self, direction: Direction, generation: int, more: int) -> None:
        self._counts[direction] = (generation, self.counted(direction, generation) + more)

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


def _reset(connection: socket.socket) -> None:
    """Close with RST. A reader in another thread is woken first, without sending a FIN."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # closed or reset already
    connection.close()
