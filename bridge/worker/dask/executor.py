"""The executor on a Dask cluster: the same interface as the local one.

One thread owns everything: it connects, asks every worker who it is, gives tasks only to those
of our build, takes the outcomes, and notices what is lost. A task whose worker or scheduler was
lost comes back as ExecutorFailed: it costs the instance nothing and is given out again.
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from bridge.events import Workforce
from bridge.model import Delivered, ExecutorFailed, Outcome, Task
from bridge.worker.dask.build import Build, build_of_this_installation, build_refusal
from bridge.worker.dask.roster import LOAD_MAX, SILENT_S, Roster
from bridge.worker.dask.scheduler import Handle, Link, LinkLost, Tls
from bridge.worker.dask.values import from_plain, outcome_from_plain, to_plain

LOOK_EVERY_S = 0.5
RETRY_S = 1.0
CLOSE_S = 8.0
TAKE_MAX = 1000
SAID_CHARACTERS_MAX = 256 * 1024
"""Of one event: who a worker is, or an outcome. Its worker's task is missed by the next look."""
ADVICE = (
    "Start the scheduler or fix the connection to it (orthanc-bridge docs cluster). Instances wait "
    "and lose no attempt."
)


@dataclass(slots=True)
class _Placed:
    """A task that a worker has. ``finished``: Dask said so at the last look."""

    task: Task
    address: str
    handle: Handle
    placed_at_s: float
    finished: bool = False


@dataclass(frozen=True, slots=True)
class _Said:
    """What a worker told, unread."""

    text: str


@dataclass(frozen=True, slots=True)
class _Ended:
    """The executor is to end."""


class DaskExecutor:
    """Workers on other machines. ``done`` is called in this executor's thread."""

    def __init__(
        self,
        done: Callable[[Task, Outcome], None],
        *,
        address: str,
        tls: Tls | None,
        silent_s: float = SILENT_S,
    ) -> None:
        self._done = done
        self._address = address
        self._tls = tls
        self._silent_s = silent_s
        self._inbox: queue.SimpleQueue[Task | _Said | _Ended] = queue.SimpleQueue()
        self._waiting: deque[Task] = deque()
        # A task that is given out again is another one for Dask and for its worker.
        self._tickets = itertools.count()
        self._placed: dict[int, _Placed] = {}
        self._asked: dict[str, Handle] = {}
        self._roster = self._new_roster()
        self._workforce = Workforce(threads=0, workers=0, place=address)
        self._own = Build("", "", ())
        self._closing = False
        self._look_due_s = 0.0
        self._thread: threading.Thread | None = None
        self._started_s = 0.0

    def start(self) -> None:
        """Connect from now on."""
        self._started_s = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="cluster", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> None:
        """Start a task as soon as a worker has room for it."""
        self._inbox.put(task)

    def workforce(self) -> Workforce:
        """Describe the workers as last seen.

        If this executor's thread has ended by something that nobody foresaw, everything is given
        back and another one is started: the bridge would wait for its outcomes for ever.
        """
        ended = self._thread is not None and not self._thread.is_alive() and not self._closing
        if ended and time.monotonic() >= self._started_s + RETRY_S:
            self._disconnected("the bridge's thread for it ended because of a bug")
            self.start()
        return self._workforce

    def close(self) -> None:
        """End at once; tasks under way are lost and not reported."""
        self._inbox.put(_Ended())
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _work(self) -> None:
        self._own = build_of_this_installation()
        while not self._closing:
            try:
                with closing(Link(self._address, self._tls, self._hear)) as link:
                    self._roster = self._new_roster()
                    self._serve(link)
            except LinkLost as exc:
                self._disconnected(str(exc))
                self._take(time.monotonic() + RETRY_S)

    def _new_roster(self) -> Roster:
        return Roster(self._address, silent_s=self._silent_s)

    def _hear(self, text: object) -> None:
        """Keep what a worker said for this executor's thread; never raises (it is Dask's)."""
        if isinstance(text, str) and len(text) <= SAID_CHARACTERS_MAX:
            self._inbox.put(_Said(text))

    def _serve(self, link: Link) -> None:
        self._look_due_s = 0.0
        while not self._closing:
            if time.monotonic() >= self._look_due_s:
                self._look(link)
                self._look_due_s = time.monotonic() + LOOK_EVERY_S
            self._place(link)
            self._take(self._look_due_s)

    def _take(self, until_s: float) -> None:
        """Wait for messages, then handle all there are; not beyond ``until_s``."""
        try:
            message = self._inbox.get(timeout=max(0.0, until_s - time.monotonic()))
            for _ in range(TAKE_MAX):
                self._handle(message)
                message = self._inbox.get_nowait()
            self._handle(message)
        except queue.Empty:
            return

    def _handle(self, message: Task | _Said | _Ended) -> None:
        match message:
            case Task() as task if self._workforce.threads:
                self._waiting.append(task)
            case Task() as task:
                text = self._workforce.message or "No worker is left."
                self._done(task, ExecutorFailed(text))
            case _Said(text=text):
                self._listen(text)
            case _Ended():
                self._closing = True

    def _listen(self, text: str) -> None:
        """Take what a worker said: who it is, or an outcome."""
        try:
            said = json.loads(text)
            if "build" in said:
                build = from_plain(Build, said["build"])
                self._introduced(str(said["address"]), str(said["identity"]), build)
            else:
                self._finished(int(said["number"]), outcome_from_plain(said["outcome"]))
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            # Not of our making: the task, if it was one, is missed by the next look.
            return

    def _introduced(self, address: str, identity: str, build: Build) -> None:
        self._asked.pop(address, None)
        self._roster.answered(address, identity, build_refusal(build, self._own))
        self._workforce = self._roster.workforce()

    def _finished(self, number: int, outcome: Outcome) -> None:
        placed = self._placed.pop(number, None)
        if placed is not None:
            self._roster.end(placed.address, number)
            if isinstance(outcome, Delivered):
                self._roster.lasted(outcome.stages.total_s)
            self._done(placed.task, outcome)

    def _look(self, link: Link) -> None:
        """Ask the scheduler who is there, and see whether anything was lost."""
        for lost in self._roster.see(link.workers(), time.monotonic()):
            what = f"has sent nothing for {self._silent_s:g} s" if lost.silent else "is gone"
            for number in lost.numbers:
                self._finished(number, ExecutorFailed(f"The worker {lost.address} {what}."))
        for address in self._roster.to_ask():
            self._asked[address] = link.introduce(address, self._roster.identity(address))
        self._hear_refusals()
        self._miss_tasks()
        self._workforce = self._roster.workforce()
        if not self._workforce.threads:
            self._give_back(self._workforce.message or "The cluster has lost its last worker.")

    def _hear_refusals(self) -> None:
        """Workers that could not even say who they are."""
        for address, handle in list(self._asked.items()):
            if handle.failure:
                del self._asked[address]
                identity = self._roster.identity(address)
                text = f"It cannot report its version and codecs: {handle.failure}."
                self._roster.answered(address, identity, text)

    def _miss_tasks(self) -> None:
        """Find tasks that ended, or must have ended, without an outcome."""
        now_s = time.monotonic()
        for number, placed in list(self._placed.items()):
            failure = placed.handle.failure
            longest_s = LOAD_MAX * placed.task.job.task_timeout_s + self._silent_s
            if not failure and placed.finished:
                failure = "it ended without an outcome"
            if not failure and now_s - placed.placed_at_s > longest_s:
                failure = f"no outcome within {longest_s:g} s"
            # The outcome may be on its way to this thread: one more look decides.
            placed.finished = placed.handle.is_finished
            if failure:
                text = f"The worker {placed.address} lost the task: {failure}."
                self._finished(number, ExecutorFailed(text))

    def _place(self, link: Link) -> None:
        while (offer := self._roster.offer(len(self._waiting))) is not None:
            address, count = offer
            tasks = {next(self._tickets): self._waiting.popleft() for _ in range(count)}
            self._roster.put(address, tasks)
            payload = [to_plain(replace(task, number=key)) for key, task in tasks.items()]
            handle = None
            try:
                handle = link.run(address, self._own.digest, json.dumps(payload))
            finally:
                if handle is None:  # whatever was raised, it must not lose them
                    self._waiting.extendleft(reversed(tasks.values()))
            now_s = time.monotonic()
            for ticket, task in tasks.items():
                self._placed[ticket] = _Placed(task, address, handle, now_s)

    def _disconnected(self, why: str) -> None:
        text = f"The Dask scheduler at {self._address} cannot be used: {why}."
        self._workforce = Workforce(
            threads=0,
            workers=0,
            place=self._address,
            problem="scheduler_unreachable",
            message=text,
            advice=ADVICE,
        )
        self._asked.clear()
        self._give_back(text)

    def _give_back(self, why: str) -> None:
        for number in list(self._placed):
            self._finished(number, ExecutorFailed(why))
        while self._waiting:
            self._done(self._waiting.popleft(), ExecutorFailed(why))
