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

from bridge.events import REFUSED_MAX, RefusedWorker, Workforce

AHEAD_S = 0.5
"""A worker has so many seconds of work, so that it need not wait for the network between two."""
LOAD_MIN, LOAD_MAX = 2, 16
"""Instances that a worker has for each of its threads."""
RECENT = 0.05
"""Weight of the newest duration in the mean."""
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
    def fullness(self) -> float:
        return len(self.load) / self.seen.threads


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that is gone or silent, and the tasks that it had."""

    address: str
    numbers: tuple[int, ...]
    silent: bool


class Roster:
    """All workers that the scheduler knows."""

    def __init__(self, place: str, *, silent_s: float = SILENT_S) -> None:
        self._place = place
        self._silent_s = silent_s
        self._workers: dict[str, _Worker] = {}
        self._now_s = 0.0
        self._mean_s = AHEAD_S

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

    def offer(self, waiting: int) -> tuple[str, int] | None:
        """Say who gets tasks next, and how many at once; None when everybody has enough.

        Several go together when they are short: to Dask they are one task then, which is what
        costs its scheduler time. They are done one after another.
        """
        working = list(self._working())
        best = min(working, key=lambda worker: worker.fullness, default=None)
        if best is None or not waiting:
            return None
        room = self._load * best.seen.threads - len(best.load)
        if room <= 0:
            return None
        share = -(-waiting // sum(worker.seen.threads for worker in working))
        return best.seen.address, max(1, min(self._load // 2, room, share))

    def put(self, address: str, numbers: Iterable[int]) -> None:
        """Note that a worker was given tasks."""
        self._workers[address].load.update(dict.fromkeys(numbers))

    def end(self, address: str, number: int) -> None:
        """Note that a worker is done with a task."""
        worker = self._workers.get(address)
        if worker is not None:
            worker.load.pop(number, None)

    def lasted(self, duration_s: float) -> None:
        """Note how long a task took."""
        self._mean_s += RECENT * (duration_s - self._mean_s)

    @property
    def _load(self) -> int:
        """How much a thread gets: seconds of work, within bounds."""
        return max(LOAD_MIN, min(LOAD_MAX, int(AHEAD_S / max(self._mean_s, 0.001))))

    def workforce(self) -> Workforce:
        """Describe those who work, and why it is nobody if it is nobody."""
        working = list(self._working())
        threads = sum(worker.seen.threads for worker in working)
        refused = self._refused()
        problem, message, advice = "", "", ""
        if not working and not self._awaited():
            problem = "no_workers"
            message, advice = self._why_nobody(refused)
        return Workforce(
            threads=threads,
            workers=len(working),
            depth=self._load + 1,
            place=self._place,
            problem=problem,
            message=message,
            advice=advice,
            refused=tuple(refused[:REFUSED_MAX]),
            refused_count=len(refused),
            awaited=self._awaited(),
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
        return self._now_s - worker.lively_at_s >= self._silent_s

    def _awaited(self) -> bool:
        """Whether an answer is still to be expected of somebody."""
        return any(
            worker.standing in (Standing.NEW, Standing.ASKED) and not self._mute(worker)
            for worker in self._workers.values()
        )

    def _mute(self, worker: _Worker) -> bool:
        """Whether it was asked and said nothing, although it may be alive."""
        asked = worker.standing is Standing.ASKED
        return self._silent(worker) or (asked and self._now_s - worker.asked_at_s >= self._silent_s)

    def _refused(self) -> list[RefusedWorker]:
        return [
            RefusedWorker(
                address, worker.reason or f"It has not reported its build for {self._silent_s:g} s."
            )
            for address, worker in sorted(self._workers.items())
            if worker.standing is Standing.REFUSED
            or (worker.standing is Standing.ASKED and self._mute(worker))
        ]

    def _why_nobody(self, refused: list[RefusedWorker]) -> tuple[str, str]:
        if refused:
            first = f"{refused[0].address}: {refused[0].reason}"
            text = f"The scheduler has {len(refused)} workers and all are refused; {first}"
            return text, "See: orthanc-bridge docs cluster refused."
        if self._workers:
            return "No worker of the cluster answers or accepts work.", "Look at the workers' logs."
        return "The scheduler has no worker.", "Start workers. See: orthanc-bridge docs cluster."
