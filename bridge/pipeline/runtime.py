"""The pipeline's contact with time, threads and signals, behind small interfaces.

A simulation replaces all three and the pipeline runs unchanged.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from bridge.errors import BridgeError
from bridge.feed.pages import MovePage
from bridge.model import Outcome, ServerInfo, Task
from bridge.pipeline.failure_policy import Others


@dataclass(frozen=True, slots=True)
class UrgentAmong:
    """Which of the instances that were asked for are urgent."""

    instances: frozenset[str]


Found = MovePage | ServerInfo | Others | UrgentAmong | None
"""What a call in the background may bring: moves, a server's description, how others fare, what is
urgent."""

LINGER_S = 0.1
"""So long the end of a task may wait for others, while the workers have enough to do."""


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A worker has finished a task."""

    task: Task
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Answered:
    """A call made in the background has ended: ``value``, or the error it raised."""

    name: str
    value: Found = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Someone wants the pipeline to drain and end."""


@dataclass(frozen=True, slots=True)
class Poked:
    """Someone says that there may be something new in the feed."""


Message = TaskDone | Answered | StopAsked | Poked


class Clock(Protocol):
    """Two clocks: one for people, one that never jumps."""

    def now_s(self) -> float:
        """Return epoch seconds."""

    def steady_s(self) -> float:
        """Return seconds of a clock that only goes forward."""


class Inbox(Protocol):
    """Where everything that happens elsewhere arrives."""

    def put(self, message: Message) -> None:
        """Add a message; safe in any thread and in a signal handler."""

    def take(self, timeout_s: float, *, enough: int = 1) -> list[Message]:
        """Wait for a message, then take all there are; [] after ``timeout_s``.

        ``enough``: so many ends of tasks are worth waking for; fewer may wait for LINGER_S.
        Other messages never wait.
        """


class Background(Protocol):
    """Runs blocking calls beside the pipeline's loop."""

    def call(self, name: str, function: Callable[[], Found]) -> None:
        """Run ``function``; its end arrives in the inbox as Answered(name, ...)."""

    def close(self) -> None:
        """Take no more calls."""


class SystemClock:
    """The machine's clocks."""

    def now_s(self) -> float:
        """Return epoch seconds."""
        return time.time()

    def steady_s(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()


class QueueInbox:
    """An inbox that any thread may fill, and a signal handler.

    A second, reentrant queue wakes the loop's thread. Waking up is most of what an ended task costs
    the loop, because its code and data have left the processor's caches meanwhile.
    """

    TAKE_MAX = 1000

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._enough = 1
        self._urgent = False
        """A message has come that does not wait for others."""

    def put(self, message: Message) -> None:
        """Add a message; safe in any thread and in a signal handler."""
        self._messages.append(message)  # before the wake-up: who is woken finds the message
        if not isinstance(message, TaskDone):
            self._urgent = True
            self._wake_ups.put(None)
        elif len(self._messages) >= self._enough:
            self._wake_ups.put(None)

    def take(self, timeout_s: float, *, enough: int = 1) -> list[Message]:
        """Wait for a message, then take all there are; [] after ``timeout_s``.

        ``enough``: so many ends of tasks are worth waking for; fewer may wait for LINGER_S.
        """
        until_s = time.monotonic() + timeout_s
        if enough > 1:
            self._wait(min(timeout_s, LINGER_S), enough)
        if not self._messages:
            self._wait(until_s - time.monotonic(), 1)
        self._urgent = False
        with suppress(queue.Empty):
            while True:
                self._wake_ups.get_nowait()
        messages: list[Message] = []
        while self._messages and len(messages) < self.TAKE_MAX:
            messages.append(self._messages.popleft())
        if self._messages:
            self._urgent = True
        return messages

    def _wait(self, timeout_s: float, enough: int) -> None:
        """Wait until there are enough messages, or one that does not wait."""
        self._enough = enough  # before the count below: who adds a message after it wakes us
        until_s = time.monotonic() + timeout_s
        with suppress(queue.Empty):
            while not self._urgent and len(self._messages) < enough:
                self._wake_ups.get(timeout=max(0.0, until_s - time.monotonic()))


class ThreadBackground:
    """One daemon thread for each kind of call; at most one call of a kind is under way."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._queues: dict[str, queue.SimpleQueue[Callable[[], Found] | None]] = {}

    def call(self, name: str, function: Callable[[], Found]) -> None:
        """Run ``function`` in the thread of that name."""
        if name not in self._queues:
            self._queues[name] = queue.SimpleQueue()
            threading.Thread(
                target=self._work, args=(name, self._queues[name]), name=name, daemon=True
            ).start()
        self._queues[name].put(function)

    def close(self) -> None:
        """End the threads after their present call; they do not keep the process alive."""
        for calls in self._queues.values():
            calls.put(None)
        self._queues = {}

    def _work(self, name: str, calls: queue.SimpleQueue[Callable[[], Found] | None]) -> None:
        while (function := calls.get()) is not None:
            try:
                answer = Answered(name, value=function())
            except BridgeError as exc:
                answer = Answered(name, error=exc)
            except BaseException as exc:
                # A bug must end the process, not silently end this thread: the loop raises it.
                self._inbox.put(Answered(name, error=exc))
                raise
            self._inbox.put(answer)
