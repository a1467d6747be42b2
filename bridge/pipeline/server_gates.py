"""Both servers as the pipeline sees them: whether they may be used, and when each is probed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bridge.errors import SideError, failure_of, side_error
from bridge.events import Observer, SideDown, SideStillDown, SideUp, SideView
from bridge.model import ServerInfo, SideFailed, SideName
from bridge.pipeline.gate import Gate, GateState
from bridge.pipeline.runtime import Background, Clock

PROBE_FIRST_S = 0.2
CHECK_TARGET_S = 5.0
"""The target is probed this often while it is up. Otherwise an idle bridge would not notice an
outage, and a busy one would not notice that the address now leads to another server. The source
needs no such probe, because its feed is polled."""


class Servers:
    """A gate for each server, and the probes that open it again.

    ``probes`` ask a server whether it is there, raising SideError when not; ``chance`` yields
    numbers in [0, 1] for jitter.
    """

    def __init__(
        self,
        *,
        probes: Mapping[SideName, Callable[[], ServerInfo]],
        background: Background,
        clock: Clock,
        observer: Observer,
        chance: Callable[[], float],
        pause_longest_s: float,
    ) -> None:
        self._probes = probes
        self._background = background
        self._clock = clock
        self._observer = observer
        self._chance = chance
        longest_s = max(PROBE_FIRST_S, pause_longest_s)
        self._gates = {
            side: Gate(side, pause_first_s=PROBE_FIRST_S, pause_longest_s=longest_s)
            for side in SideName
        }
        self._served = dict.fromkeys(SideName, 0)
        self._versions = dict.fromkeys(SideName, "")
        self._asked: set[SideName] = set()
        self._asked_before: set[SideName] = set()
        """Being asked since before what is to be found out: that it is well tells nothing."""
        self._failed_at: dict[SideName, tuple[str, int]] = {}
        """The instance that a server failed at last, and how often it did."""
        self._target_seen_s = clock.steady_s()

    def allow(self, in_flight: int) -> bool:
        """Whether both servers may be given one more instance."""
        return all(gate.allows(in_flight) for gate in self._gates.values())

    @property
    def failing(self) -> bool:
        """Whether a server has failed and has served nothing since; one that is new has not."""
        return any(gate.failure is not None for gate in self._gates.values())

    def calm(self, for_s: float) -> bool:
        """Whether both servers have been answering for so long."""
        now_s = self._clock.steady_s()
        return all(gate.calm(now_s=now_s, for_s=for_s) for gate in self._gates.values())

    def reachable(self, sides: Iterable[SideName]) -> bool:
        """Whether none of these servers is known to be down."""
        return all(self._gates[side].state is not GateState.CLOSED for side in sides)

    def served_count(self, side: SideName) -> int:
        """How many instances that server has done its part for."""
        return self._served[side]

    def probe(self) -> None:
        """Ask those servers that are due to be asked."""
        now_s = self._clock.steady_s()
        for side, gate in self._gates.items():
            due = gate.probe_due(now_s) or now_s >= self._check_due_s(side)
            if due and side not in self._asked:
                self._asked.add(side)
                self._background.call(side, self._probes[side])

    def probe_due_s(self) -> list[float]:
        """When the next probes are due, by the steady clock."""
        return [
            min(gate.probe_at_s, self._check_due_s(side))
            if gate.state is GateState.CLOSED
            else self._check_due_s(side)
            for side, gate in self._gates.items()
            if side not in self._asked
        ]

    def take_probe(
        self,
        side: SideName,
        error: BaseException | None,
        *,
        info: ServerInfo | None,
        on_trial: bool,
    ) -> bool:
        """Note the end of a probe. ``on_trial``: there is work to try the server with.

        False when it may have been answered before the server failed at what it was asked for: then
        the server is asked again.
        """
        if info is not None:
            self._versions[side] = info.version
        self._asked.discard(side)
        asked_before = side in self._asked_before
        self._asked_before.discard(side)
        if asked_before and error is None:
            return False
        gate = self._gates[side]
        if side is SideName.TARGET:
            self._target_seen_s = self._clock.steady_s()
        if error is None:
            gate.probe_succeeded(now_s=self._clock.steady_s())
            if gate.closed_at_s is None or not on_trial:
                # It was never down, or there is nothing to try it with: the answer is enough.
                self.open(side)
        elif not isinstance(error, SideError):
            raise error
        elif gate.closed_at_s is None:
            self.fail(failure_of(error))
        else:
            now_s = self._clock.steady_s()
            gate.probe_failed(failure_of(error), now_s=now_s, chance=self._chance())
            self._still_down(gate, now_s)
        return True

    def fail(
        self,
        failure: SideFailed,
        *,
        ask_at_once: bool = False,
        instance_id: str = "",
        times: int = 0,
    ) -> None:
        """Note that a server cannot be used.

        ``ask_at_once``: probe it at once, to learn whether it died before somebody restarts it.
        ``instance_id``: what it failed at, for the ``times``-th time.
        """
        self._failed_at[failure.side] = instance_id, times
        gate = self._gates[failure.side]
        first = gate.closed_at_s is None
        now_s = self._clock.steady_s()
        fresh = gate.fail(failure, now_s=now_s, chance=self._chance())
        if ask_at_once:
            gate.probe_now(now_s)
            self._asked_before |= self._asked & {failure.side}
        if first:
            self._observer.on_event(SideDown(failure, instance_id))
        elif fresh:
            self._still_down(gate, now_s)

    def serve(self, sides: Iterable[SideName], *, evident: bool = True) -> list[SideName]:
        """Note that servers did their part for an instance; return whose trial that ended.

        ``evident``: an instance at which they fail is the trouble itself then.
        """
        opened = []
        for side in sides:
            self._served[side] += evident
            if self.open(side):
                opened.append(side)
        return opened

    def open(self, side: SideName) -> bool:
        """End a server's trial; False when it was on none."""
        gate = self._gates[side]
        closed_at_s = gate.closed_at_s
        if not gate.served() or closed_at_s is None:
            return False
        self._observer.on_event(SideUp(side, self._clock.steady_s() - closed_at_s))
        return True

    @property
    def fail_at_work(self) -> bool:
        """Whether a server answers probes and failed at all that it was tried with since."""
        return any(gate.only_answers for gate in self._gates.values())

    def hurry(self) -> None:
        """Try a server that failed at its work soon: an instance waits that was never tried."""
        for gate in self._gates.values():
            gate.hurry(self._clock.steady_s())

    def idle(self, *, but: SideName | None) -> None:
        """End the trials of servers when there is nothing to try them with.

        ``but``: a server that is being tried with something else.
        """
        for side, gate in self._gates.items():
            if gate.state is GateState.TRIAL and side is not but:
                self.open(side)

    def on_trial(self, side: SideName) -> bool:
        """Whether a server is being tried with one instance after an outage."""
        return self._gates[side].state is GateState.TRIAL

    def only_fails_at_work(self, side: SideName) -> bool:
        """Whether a server answers probes, and has served some instance since the start."""
        return self._gates[side].only_answers and self._served[side] > 0

    def down_longer_than(self, patience_s: float, *, under_way: int) -> SideError | None:
        """Return the error of a server that has been down for so long, or None.

        With nothing ``under_way``, a server on trial that failed at its work counts as down too:
        what is left to try it with waits until its time comes.
        """
        for gate in self._gates.values():
            failure, closed_at_s = gate.failure, gate.closed_at_s
            if under_way and gate.state is GateState.TRIAL:
                continue
            if gate.usable() or failure is None or closed_at_s is None:
                continue
            if self._clock.steady_s() - closed_at_s >= patience_s:
                return side_error(
                    gate.side, failure.problem, failure.message, advice=failure.advice
                )
        return None

    def view(self, side: SideName) -> SideView:
        """Describe a server for the status page."""
        gate = self._gates[side]
        if gate.closed_at_s is None or gate.failure is None:
            if gate.state is GateState.CLOSED:
                text = f"The {side} was not asked yet."
                return SideView(up=False, problem="not_contacted", message=text)
            return SideView(version=self._versions[side])
        down_s = self._clock.steady_s() - gate.closed_at_s
        instance_id, times = self._failed_at.get(side, ("", 0))
        return SideView(
            up=gate.usable(),
            trial=gate.state is GateState.TRIAL,
            problem=gate.failure.problem,
            message=gate.failure.message,
            advice=gate.failure.advice,
            down_since=self._clock.now_s() - down_s,
            version=self._versions[side],
            instance_id=instance_id if gate.only_answers else "",
            times=times if gate.only_answers else 0,
        )

    def _check_due_s(self, side: SideName) -> float:
        """When to ask a server that is not known to be down."""
        if side is SideName.TARGET and self._gates[side].state is GateState.OPEN:
            return self._target_seen_s + CHECK_TARGET_S
        return float("inf")

    def _still_down(self, gate: Gate, now_s: float) -> None:
        if gate.failure is not None and gate.closed_at_s is not None:
            name = self._failed_at.get(gate.side, ("", 0))[0] if gate.only_answers else ""
            self._observer.on_event(SideStillDown(gate.failure, now_s - gate.closed_at_s, name))
