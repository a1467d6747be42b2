"""The processes of a pool, in the thread that owns them: the template, and the workers it forks.

What each worker has in hand is noted here; what follows from how it ends is decided in pool.py.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ctypes import c_double, c_ulonglong
from multiprocessing import spawn
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from bridge.worker.channel import Channel
from bridge.worker.places import SLOTS, Waits, waited_by
from bridge.worker.pool_watch import START_S, Hanging
from bridge.worker.stages import Memory
from bridge.worker.template import (
    BEGUN,
    ENDED,
    FORK,
    KILL,
    REPORT,
    TASK,
    Begun,
    Made,
    request,
    serve,
)

END_S = 0.5
"""So long a template may take to end its workers and itself; then it is killed, and they with it.
One that is still importing does not hear."""

SIZE_MAX = SLOTS // 2
"""Of workers: those that are leaving have a place in shared memory, too."""
SHORT_S = 10.0
"""After a worker that could not be made, none is asked for so long: the machine has no room."""

T = TypeVar("T")


SAID = "what it wrote to stderr may say why"
"""Of a template that has not begun: only then it writes there."""


class ProcessesLost(Exception):
    """The template is gone, or does not answer. ``vain``: another one would do no better."""

    def __init__(self, text: str, *, vain: bool) -> None:
        super().__init__(text)
        self.vain = vain


class Member(Generic[T]):
    """One worker. ``task``: what it has in hand, from ``since_s`` on by the steady clock.

    ``tasks``: how many it was given. ``pid``: 0 before it exists. ``ended_for``: why it is being
    killed. ``leaving``: it gets nothing more and ends by itself. ``room_awaited``: its channel is
    watched for room, too.
    """

    def __init__(self, number: int, channel: Channel) -> None:
        self.number = number
        self.channel = channel
        self.task: T | None = None
        self.since_s = 0.0
        self.tasks = 0
        self.pid = 0
        self.ended_for: Hanging | None = None
        self.leaving = self.room_awaited = False

    @property
    def idle(self) -> bool:
        """Whether it can be given a task."""
        gone = self.leaving or self.ended_for is not None or self.channel.ended
        return bool(self.pid) and self.task is None and not gone


class WorkerProcesses(Generic[T]):
    """A template and its workers. Raises ProcessesLost when the template cannot be started.

    ``answer_s``: how long the template may take to do what it is asked. ``places``: so many workers
    may have what needs memory or a processor; 0 for all.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        *,
        function: Callable[[Any], Any],
        memory_bytes: int,
        stage_memory: Memory | None,
        answer_s: float,
        places: int,
    ) -> None:
        program = os.fsdecode(spawn.get_executable() or "")
        if not os.access(program, os.X_OK):
            # Else it is a pipe that broke: the process ends before it has read what it is to do.
            text = f"{program or 'the Python of this process'} is not there, or not for this user"
            raise ProcessesLost(text, vain=True)
        self._selector = selector
        self._answer_s = answer_s
        self._answered = False
        self._members: dict[int, Member[T]] = {}
        self._idle: list[Member[T]] = []
        """The last one is next: it was at work most lately, and its connections are open."""
        self._asked: dict[tuple[bytes, int], float] = {}
        self._numbers = self._staying = 0
        self._size_max, self._size_max_until_s = SIZE_MAX, 0.0
        self._begun: Begun | None = None
        self._waits: Waits | None = None
        with suppress(OSError):
            shared = multiprocessing.get_context("spawn")
            self._begun = shared.RawArray(c_ulonglong, SLOTS)
            self._waits = shared.RawArray(c_double, 2 * SLOTS)
        made = Made(
            function=pickle.dumps(function),
            memory_bytes=memory_bytes,
            stage_memory=stage_memory,
            begun=self._begun,
            parent_pid=os.getpid(),
            places=places,
            waits=self._waits,
        )
        try:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as exc:
            raise ProcessesLost(str(exc), vain=True) from exc
        # Never fork this process: it has threads.
        self._process = SpawnProcess(target=serve, name="worker-template", args=(theirs, made))
        try:
            with theirs:
                self._process.start()
        except BrokenPipeError as exc:
            self._control.close()
            raise ProcessesLost(f"its template ended at once; {SAID}", vain=True) from exc
        except (OSError, RuntimeError) as exc:
            self._control.close()
            raise ProcessesLost(str(exc), vain=True) from exc
        self._control.setblocking(False)
        selector.register(self._control, selectors.EVENT_READ)

    # Who there is

    @property
    def busy(self) -> bool:
        """Whether anything is expected of a worker or of the template."""
        return bool(self._asked) or any(self.at_work())

    @property
    def has_idle(self) -> bool:
        """Whether a worker can be given a task."""
        return self._next_idle() is not None

    def at_work(self) -> Iterator[tuple[Member[T], T]]:
        """Yield those that have a task in hand and are not being killed, with it."""
        for member in self._members.values():
            if member.task is not None and member.ended_for is None:
                yield member, member.task

    def in_hand(self) -> list[T]:
        """Return what workers have in hand."""
        return [member.task for member in self._members.values() if member.task is not None]

    def has_begun(self, member: Member[T], task_number: int) -> bool:
        """Tell whether a worker has begun a task; True where it has no way to say so."""
        return self._begun is None or self._begun[member.number % SLOTS] == task_number

    def waited_s(self, member: Member[T], now_s: float) -> float:
        """Tell for how long a worker has waited for a place, within its task."""
        return waited_by(self._waits, member.number, now_s)

    def is_at_work(self, member: Member[T], task_number: int) -> bool:
        """Tell whether a worker has begun a task and is not stopped (SIGSTOP, a debugger)."""
        if not self.has_begun(member, task_number):
            return False
        with suppress(OSError, IndexError):
            stat = Path(f"/proc/{member.pid}/stat").read_bytes()
            return stat.rpartition(b")")[2].split()[0] not in (b"T", b"t")
        return True

    # What they are to do

    def resize(self, size: int) -> None:
        """Ask for workers, or let idle ones go, so that there are so many. Raises ProcessesLost."""
        if self._size_max < SIZE_MAX and time.monotonic() >= self._size_max_until_s:
            self._size_max = SIZE_MAX
        more = min(size, self._size_max) - self._staying
        for _ in range(more):
            self._hire()
        if more < 0:
            for member in [one for one in self._idle if one.idle][:-more]:
                self.let_go(member)

    def give(self, task: T, task_number: int, work: bytes) -> None:
        """Give a task to an idle worker; there must be one."""
        member = self._next_idle()
        if member is None:
            raise AssertionError("an idle worker is asked for first")
        self._idle.pop()
        member.task, member.since_s = task, time.monotonic()
        member.tasks += 1
        member.channel.send(TASK.pack(task_number) + work)
        self._listen_to(member)

    def let_go(self, member: Member[T]) -> None:
        """Let a worker without a task end by itself."""
        member.leaving = True
        self._staying -= 1
        self._deafen(member)
        member.channel.close()

    def kill(self, member: Member[T], why: Hanging) -> None:
        """End a worker. Raises ProcessesLost."""
        member.ended_for = why
        self._ask(KILL, member.number)

    def close(self) -> None:
        """End them all."""
        for member in self._members.values():
            self._deafen(member)
            member.channel.close()
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._control)
        self._control.close()
        self._process.join(END_S)
        self._process.kill()
        self._process.join()

    # What they say

    def told(self, ready: set[int]) -> Iterator[tuple[Member[T], bytes]]:
        """Yield what workers tell, of those that are ready. Raises ProcessesLost."""
        for member in list(self._members.values()):
            if member.leaving or member.channel.fileno() not in ready:
                continue
            member.channel.flush()
            for message in member.channel.receive():
                yield member, message
            if member.channel.ended:
                # How it ended, the template tells. If it has not, what it said was not of our
                # making.
                self._deafen(member)
                self._ask(KILL, member.number)
            elif not member.leaving:
                self._listen_to(member)

    def ends(self, ready: set[int]) -> Iterator[tuple[Member[T], list[bytes], int]]:
        """Yield the workers that ended, what they told before, and their exit codes.

        Raises ProcessesLost when the template is gone or does not answer.
        """
        if self._control.fileno() in ready:
            while report := self._report():
                what, number, value = REPORT.unpack(report)
                self._answered = True
                self._asked.pop((FORK, number), None)
                member = self._members[number]
                if what == BEGUN:
                    member.pid = value
                    self._idle.append(member)
                    continue
                if what != ENDED:
                    self._forget(member)
                    self._do_without(os.strerror(value))
                    continue
                self._asked.pop((KILL, number), None)
                last = [] if member.leaving else member.channel.receive()
                self._forget(member)
                yield member, last, value
        limit_s = self._answer_s if self._answered else max(START_S, self._answer_s)
        if any(time.monotonic() - asked_s > limit_s for asked_s in self._asked.values()):
            raise ProcessesLost(
                f"it has not answered within {limit_s:g} s", vain=not self._answered
            )

    def free(self, member: Member[T]) -> None:
        """Note that a worker has ended its task."""
        member.task = None
        if member.ended_for is None:
            self._idle.append(member)

    # Within

    def _hire(self) -> None:
        number = self._next_number()
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            self._do_without(str(exc))
            return
        with theirs:
            member: Member[T] = Member(number, Channel(ours))
            self._members[number] = member
            self._staying += 1
            self._selector.register(member.channel, selectors.EVENT_READ)
            self._ask(FORK, number, (theirs.fileno(),))

    def _next_number(self) -> int:
        """Return a number whose place in shared memory no other worker has."""
        taken = {number % SLOTS for number in self._members}
        self._numbers += 1
        while self._numbers % SLOTS in taken:
            self._numbers += 1
        return self._numbers

    def _do_without(self, why: str) -> None:
        """Go on with the workers that there are, for a while. Raises ProcessesLost without any."""
        self._size_max, self._size_max_until_s = self._staying, time.monotonic() + SHORT_S
        if not self._staying:
            raise ProcessesLost(f"no worker can be made: {why}", vain=True)

    def _ask(self, what: bytes, number: int, descriptors: tuple[int, ...] = ()) -> None:
        try:
            request(self._control, what, number, descriptors)
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise self._lost_template() from exc
        except OSError as exc:
            raise ProcessesLost(str(exc), vain=not self._answered) from exc
        self._asked[what, number] = time.monotonic()

    def _report(self) -> bytes:
        try:
            report = self._control.recv(REPORT.size)
        except BlockingIOError:
            return b""
        except OSError:
            report = b""
        if not report:
            raise self._lost_template()
        return report

    def _lost_template(self) -> ProcessesLost:
        """Say how the template ended."""
        self._process.join(END_S)
        text = f"its template ended (code {self._process.exitcode})"
        return ProcessesLost(text if self._answered else f"{text}; {SAID}", vain=not self._answered)

    def _listen_to(self, member: Member[T]) -> None:
        """Be told when it has said something, and when there is room for what it has not read."""
        if member.channel.unsent == member.room_awaited:
            return
        member.room_awaited = member.channel.unsent
        events = selectors.EVENT_READ
        if member.room_awaited:
            events |= selectors.EVENT_WRITE
        with suppress(KeyError):
            self._selector.modify(member.channel, events)

    def _deafen(self, member: Member[T]) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(member.channel)

    def _forget(self, member: Member[T]) -> None:
        self._deafen(member)
        member.channel.close()
        if not member.leaving:
            self._staying -= 1
        del self._members[member.number]
        if member in self._idle:
            self._idle.remove(member)

    def _next_idle(self) -> Member[T] | None:
        while self._idle and not self._idle[-1].idle:
            self._idle.pop()
        return self._idle[-1] if self._idle else None
