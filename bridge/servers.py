"""Both servers as the pipeline sees them: may they be used, who is asked when, what to report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bridge.core.errors import SideError, side_error
from bridge.core.events import Observer, SideDown, SideStillDown, SideUp, SideView
from bridge.core.gate import Gate, GateState
from bridge.core.model import ServerInfo, SideFailed, SideName
from bridge.runtime import Background, Clock
from bridge.sides import failure_of

PROBE_FIRST_S = 0.2
CHECK_TARGET_S = 5.0
"""An idle bridge asks the target this often whether it is there; the source is polled anyway."""


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
        self._target_seen_s = clock.steady_s()

    def allow(self, in_flight: int) -> bool:
        """Whether both servers may be given one more instance."""
        return all(gate.allows(in_flight) for gate in self._gates.values())

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
    ) -> None:
        """Note the end of a probe. ``on_trial``: there is work to try the server with."""
        if info is not None:
            self._versions[side] = info.version
        self._asked.discard(side)
        gate = self._gates[side]
        if side is SideName.TARGET:
            self._target_seen_s = self._clock.steady_s()
        if error is None:
            gate.probe_succeeded(now_s=self._clock.steady_s())
            if gate.closed_at_s is None or not on_trial:
                # It was never down, or nothing is there to try it with: take its word.
                self.open(side)
        elif not isinstance(error, SideError):
            raise error
        elif gate.closed_at_s is None:
            self.fail(failure_of(error))
        else:
            now_s = self._clock.steady_s()
            gate.probe_failed(failure_of(error), now_s=now_s, chance=self._chance())
            self._still_down(gate, now_s)

    def fail(self, failure: SideFailed, *, ask_at_once: bool = False) -> None:
        """Note that a server cannot be used.

        ``ask_at_once``: whether it died must be known before it has been started again.
        """
        gate = self._gates[failure.side]
        first = gate.closed_at_s is None
        now_s = self._clock.steady_s()
        fresh = gate.fail(failure, now_s=now_s, chance=self._chance())
        if ask_at_once:
            gate.probe_at_s = now_s
        if first:
            self._observer.on_event(SideDown(failure))
        elif fresh:
            self._still_down(gate, now_s)

    def serve(self, sides: Iterable[SideName]) -> None:
        """Note that servers did their part for an instance."""
        for side in sides:
            self._served[side] += 1
            if side is SideName.TARGET:
                self._target_seen_s = self._clock.steady_s()
            self.open(side)

    def open(self, side: SideName) -> None:
        """End a server's trial."""
        gate = self._gates[side]
        closed_at_s = gate.closed_at_s
        if gate.served() and closed_at_s is not None:
            self._observer.on_event(SideUp(side, self._clock.steady_s() - closed_at_s))

    def idle(self, *, but: SideName | None) -> None:
        """End the trials of servers that nothing is there to try with: take their word.

        ``but``: a server that is being tried with something else.
        """
        for side, gate in self._gates.items():
            if gate.state is GateState.TRIAL and side is not but:
                self.open(side)

    def down_longer_than(self, patience_s: float) -> SideError | None:
        """Return the error of a server that has been down for so long, or None."""
        for gate in self._gates.values():
            failure, closed_at_s = gate.failure, gate.closed_at_s
            if gate.state is not GateState.CLOSED or failure is None or closed_at_s is None:
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
        return SideView(
            up=gate.usable(),
            trial=gate.state is GateState.TRIAL,
            problem=gate.failure.problem,
            message=gate.failure.message,
            advice=gate.failure.advice,
            down_since=self._clock.now_s() - down_s,
            version=self._versions[side],
        )

    def _check_due_s(self, side: SideName) -> float:
        """When to ask a server of which nothing was heard: else an idle outage would not show."""
        if side is SideName.TARGET and self._gates[side].state is GateState.OPEN:
            return self._target_seen_s + CHECK_TARGET_S
        return float("inf")

    def _still_down(self, gate: Gate, now_s: float) -> None:
        if gate.failure is not None and gate.closed_at_s is not None:
            self._observer.on_event(SideStillDown(gate.failure, now_s - gate.closed_at_s))
