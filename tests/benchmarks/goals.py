"""What was promised of speed, held against what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.benchmarks.latency import Latency
from tests.benchmarks.sharing import Sharing
from tests.benchmarks.startup import Startup
from tests.benchmarks.throughput import Result, Row

RIVALS = ("peer", "cloner", "gdcmconv")
"""Ways from a first server to a second that a user would pick instead."""
HEAVY = "j2k"
"""The input of which the codec is nearly everything."""
LIGHT = ("jpll", "jpls", "rle", "raw")
"""Inputs of which the codec is the smaller part."""


@dataclass(frozen=True, slots=True)
class Goal:
    """``at_least`` or else at most. Figures of one kind: ratios, milliseconds, seconds."""

    text: str
    wanted: float
    measured: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether it is, as exactly as it is printed."""
        measured, wanted = round(self.measured, 3), self.wanted
        return measured >= wanted if self.at_least else measured <= wanted


def best_rival(result: Result) -> Row | None:
    """The fastest way from a first server that survived every round."""
    rows = [row for name in RIVALS if (row := result.row(name)) and row.rate and not row.ended]
    return max(rows, key=lambda row: row.rate, default=None)


def throughput_goals(results: Sequence[Result]) -> Iterator[Goal]:
    """Yield what is wanted of rates and overhead, as far as it was measured."""
    for result in results:
        ours = result.row("ours")
        if ours and ours.rate and result.input.name in (HEAVY, *LIGHT):
            yield from _of_input(result, ours)


def _of_input(result: Result, ours: Row) -> Iterator[Goal]:
    name, heavy = result.input.name, result.input.name == HEAVY
    program, direct, rival = result.row("floor"), result.row("direct"), best_rival(result)
    of_chain, of_rival = (0.92, 1.35) if heavy else (0.80, 1.0)
    if heavy and program and program.rate:
        text = f"{name}: ours / a program that does only this"
        yield Goal(text, of_chain, ours.rate / program.rate)
    if result.chained_floor:
        text = f"{name}: ours / chain of codec, GET and POST"
        yield Goal(text, of_chain, ours.rate / result.chained_floor)
    if rival:
        yield Goal(f"{name}: ours / best rival", of_rival, ours.rate / rival.rate)
        if heavy and result.computed_floor:
            text = "(computed floor / best rival)"
            yield Goal(text, of_rival, result.computed_floor / rival.rate)
    if heavy and direct and direct.rate:
        fate = f", which {direct.ended}" if direct.ended else ""
        text = f"{name}: ours / posting straight to the target{fate}"
        yield Goal(text, 1.0, ours.rate / direct.rate)
    if result.overhead_ms is not None:
        text = f"{name}: CPU outside the codec, ms"
        yield Goal(text, 3.0, result.overhead_ms, at_least=False)


def other_goals(
    latencies: Sequence[Latency], sharing: Sharing | None, startup: Startup | None
) -> Iterator[Goal]:
    """Yield what is wanted beside throughput, as far as it was measured."""
    for each in latencies:
        every = f"{each.poll_interval_s:g} s"
        yield Goal(f"latency, polled every {every}: median / bound", 1.0,
                   each.median_s / each.bound_s, at_least=False)  # fmt: skip
        if each.poll_interval_s == 0.1:
            yield Goal(f"latency, polled every {every}: p99, s", 0.5, each.p99_s, at_least=False)
            yield Goal(f"the source's core, polled every {every}, %", 1.0,
                       100 * each.source_core_share, at_least=False)  # fmt: skip
    if sharing and sharing.rates.get(1) and sharing.rates.get(2):
        yield Goal("two workers / one", 1.8, sharing.rates[2] / sharing.rates[1])
    if startup:
        yield Goal("`run` until it is ready, s", 1.5, startup.ready_s, at_least=False)
        yield Goal("`status`, s", 0.5, startup.status_s, at_least=False)
