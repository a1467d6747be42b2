"""The workers of a cluster: who may work, who has how much, who has fallen silent.

This file must not know: sockets, files, clocks, logging, settings.

A worker is asked who it is before it gets anything, and gets work only if it is of our build.
Where an instance goes is decided here and not by the scheduler, so that no worker can get one
that was not asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from bridge.core.crew import REFUSED_MAX, Crew, Refused

LOAD_PER_THREAD = 2
"""One in work, one waiting at the worker: it need not wait for the network between two."""
SILENT_S = 20.0
"""A worker whose heartbeat the scheduler has not seen for so long is taken for hung."""
ASK_AGAIN_S = 60.0
"""A refused worker is asked again this often: it may have been repaired in place."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as the scheduler describes it.

    ``identity`` is another one after a restart at the same address. ``heartbeat`` changes while
    it lives. ``running``: it takes work (it is not paused or about to end).
    """

    address: str
    identity: str
    threads: int
    heartbeat: float
    running: bool = True


class Standing(Enum):
    """What a worker may do."""

    NEW = auto()
    ASKED = auto()
    ACCEPTED = auto()
    REFUSED = auto()


@dataclass(slots=True)
class _Worker:
    seen: Seen
    lively_at_s: float
    standing: Standing = Standing.NEW
    asked_at_s: float = 0.0
    reason: str = ""
    load: dict[int, None] = field(default_factory=dict)

    @property
    def room(self) -> int:
        return LOAD_PER_THREAD * self.seen.threads - len(self.load)


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that is gone or silent, and the tasks that it had."""

    address: str
    numbers: tuple[int, ...]
    silent: bool


class Roster:
    """All workers that the scheduler knows."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._workers: dict[str, _Worker] = {}
        self._now_s = 0.0

    def see(self, seen: Iterable[Seen], now_s: float) -> list[Lost]:
        """Take the scheduler's list; returns the workers that were lost with what they had."""
        self._now_s = now_s
        there = {worker.address: worker for worker in seen}
        lost = []
        for address, worker in list(self._workers.items()):
            now = there.get(address)
            if now is None or now.identity != worker.seen.identity:
                lost.append(Lost(address, tuple(worker.load), silent=False))
                del self._workers[address]
        for address, now in there.items():
            worker = self._workers.setdefault(address, _Worker(now, now_s))
            if now.running and now.heartbeat != worker.seen.heartbeat:
                worker.lively_at_s = now_s
            worker.seen = now
            if self._silent(worker) and worker.load:
                lost.append(Lost(address, tuple(worker.load), silent=True))
                worker.load.clear()
        return [one for one in lost if one.numbers]

    def to_ask(self) -> list[str]:
        """Return the workers that are to be asked who they are, and note that they were."""
        due = []
        for address, worker in self._workers.items():
            again_s = worker.asked_at_s + ASK_AGAIN_S
            again = worker.standing is Standing.REFUSED and self._now_s >= again_s
            if (worker.standing is Standing.NEW or again) and not self._silent(worker):
                worker.asked_at_s = self._now_s
                if not again:
                    worker.standing = Standing.ASKED
                due.append(address)
        return due

    def answered(self, address: str, identity: str, refusal: str) -> bool:
        """Note who a worker is; ``refusal`` is empty when it may work. False if it is gone."""
        worker = self._workers.get(address)
        if worker is None or worker.seen.identity != identity:
            return False
        worker.standing = Standing.REFUSED if refusal else Standing.ACCEPTED
        worker.reason = refusal
        return True

    def identity(self, address: str) -> str:
        """Return which process is at an address."""
        worker = self._workers.get(address)
        return worker.seen.identity if worker else ""

    def place(self, number: int) -> str | None:
        """Give a task to the worker with the most room for its size; None when none has any."""
        best: _Worker | None = None
        best_load = float(LOAD_PER_THREAD)
        for worker in self._working():
            load = len(worker.load) / worker.seen.threads
            if worker.room > 0 and load < best_load:
                best, best_load = worker, load
        if best is None:
            return None
        best.load[number] = None
        return best.seen.address

    def end(self, address: str, number: int) -> None:
        """Note that a worker is done with a task."""
        worker = self._workers.get(address)
        if worker is not None:
            worker.load.pop(number, None)

    def crew(self) -> Crew:
        """Describe those who work, and why it is nobody if it is nobody."""
        working = list(self._working())
        threads = sum(worker.seen.threads for worker in working)
        refused = self._refused()
        problem, message, advice = "", "", ""
        if not working and not self._awaited():
            problem = "no_workers"
            message, advice = self._why_nobody(refused)
        return Crew(
            threads=threads,
            workers=len(working),
            place=self._place,
            problem=problem,
            message=message,
            advice=advice,
            refused=tuple(refused[:REFUSED_MAX]),
            refused_count=len(refused),
        )

    def _working(self) -> Iterable[_Worker]:
        return (
            worker
            for worker in self._workers.values()
            if worker.standing is Standing.ACCEPTED
            and worker.seen.running
            and not self._silent(worker)
        )

    def _silent(self, worker: _Worker) -> bool:
        return self._now_s - worker.lively_at_s >= SILENT_S

    def _awaited(self) -> bool:
        """Whether an answer is still to be expected of somebody."""
        return any(
            worker.standing in (Standing.NEW, Standing.ASKED) and not self._mute(worker)
            for worker in self._workers.values()
        )

    def _mute(self, worker: _Worker) -> bool:
        """Whether it was asked and said nothing, although it may be alive."""
        asked = worker.standing is Standing.ASKED
        return self._silent(worker) or (asked and self._now_s - worker.asked_at_s >= SILENT_S)

    def _refused(self) -> list[Refused]:
        return [
            Refused(address, worker.reason or f"It has not said who it is for {SILENT_S:g} s.")
            for address, worker in sorted(self._workers.items())
            if worker.standing is Standing.REFUSED
            or (worker.standing is Standing.ASKED and self._mute(worker))
        ]

    def _why_nobody(self, refused: list[Refused]) -> tuple[str, str]:
        if refused:
            first = f"{refused[0].address}: {refused[0].reason}"
            text = f"The scheduler has {len(refused)} workers and all are refused; {first}"
            return text, "See docs/cluster.md: a worker is refused."
        if self._workers:
            return "No worker of the cluster answers or takes work.", "Look at the workers' logs."
        return "The scheduler has no worker.", "Start workers: docs/cluster.md."
