"""How the bridge stands: one colour, one sentence, and what a person types next. Pure functions.

This file must not know: sockets, files, clocks, logging, settings. The status page shows the
sentence at its top; what is wrong is judged in health.py.
"""

from __future__ import annotations

from enum import StrEnum

from bridge.events import Progress
from bridge.monitoring.health import Problem, counted, lag_of, lasting
from bridge.monitoring.time_left import TimeLeft, left_in_words

HOLDS = {
    "paused": "paused by an operator; to continue: orthanc-bridge resume",
    "quiet_hours": "waiting for the end of the quiet hours (BRIDGE_SCHEDULE)",
    "rate_limit": "limited by BRIDGE_MAX_INSTANCES_S, BRIDGE_MAX_MBIT_S or BRIDGE_RATE_TIMETABLE",
}
STANDING_HOLDS = ("paused", "quiet_hours")
"""While these last nothing is started at all."""
SOON_S = 60.0
"""Changes to go are nothing to tell of while the oldest of them is younger."""
PHASES = {
    "starting": "The bridge is starting",
    "draining": "The bridge is stopping: instances in progress may finish",
}
REMEDIES = {
    "unreachable": "Start that server or fix the connection to it",
    "timed_out": "Check whether that server is overloaded or the connection to it is broken",
    "storage_full": "Free storage on that server",
    "server_error": "Read that server's log",
}
"""What to do when a problem brings no advice of its own, by the end of its code."""
NOTHING_LOST = "Nothing is lost; the bridge resumes automatically."
NEXT_COMMANDS = {
    "parked": "orthanc-bridge parked list",
    "feed_gaps_given_up": "orthanc-bridge check --fix",
    "feed_incomplete": "orthanc-bridge check",
    "retention_failing": "orthanc-bridge retention --dry-run",
    "retention_waiting": "orthanc-bridge retention --dry-run",
    "delivered_lacking": "orthanc-bridge check --fix",
    "other_bytes_kept": "orthanc-bridge check --deep",
}
"""The command that a person types first, by the code of the gravest problem."""


class BridgeStanding(StrEnum):
    """How it stands, in one of three colours."""

    WELL = "well"
    WORKING = "working"
    """There is work to do, or somebody wanted the bridge to wait: nobody is needed."""
    NEEDS_PERSON = "needs_person"


def standing_of(progress: Progress, found: tuple[Problem, ...], *, now: float) -> BridgeStanding:
    """Say which colour it is; ``found`` is what ``judge`` found, ``now`` epoch seconds."""
    if _wrong(found):
        return BridgeStanding.NEEDS_PERSON
    if found or progress.phase in (*PHASES, "snapshot") or progress.hold == "paused":
        return BridgeStanding.WORKING
    lag = lag_of(progress, now=now)
    if progress.caught_up or not lag.changes:
        return BridgeStanding.WELL
    soon = bool(progress.oldest_changed_at) and lag.seconds < SOON_S
    return BridgeStanding.WELL if soon and not progress.hold else BridgeStanding.WORKING


def next_command(progress: Progress, found: tuple[Problem, ...]) -> str:
    """Name the command that a person types now; "" when none helps."""
    if wrong := _wrong(found):
        return NEXT_COMMANDS.get(wrong[0].code, "")
    return "orthanc-bridge resume" if progress.hold == "paused" else ""


def headline(
    progress: Progress,
    found: tuple[Problem, ...],
    *,
    parked: int,
    now: float,
    dropped: int = 0,
    rates: str = "",
    left: TimeLeft | None = None,
) -> str:
    """Say how it stands; ``found`` is what ``judge`` found, ``now`` epoch seconds.

    ``dropped``: instances that a person dropped, which have not arrived. ``rates``: the limits of
    the pace, in words. ``left``: how long the rest will take.
    """
    if found:
        held = HOLDS[progress.hold] if progress.hold in STANDING_HOLDS else ""
        also = f" The bridge is also {held}." if held else ""
        wrong, more = _wrong(found), len(found) - 1
        if not wrong:
            sides = " and the ".join(problem.code.partition("_")[0] for problem in found)
            return f"The bridge is starting: it has not asked the {sides} yet.{also}"
        tail = f" ({more} more below)" if more else ""
        return f"Attention{tail}: {_first(wrong[0])}{also}"
    text = _without_problems(progress, now=now)
    aside = [f"{counted(parked, 'instance')} set aside as parked"] if parked else []
    aside += [f"{counted(dropped, 'instance')} dropped by an operator"] if dropped else []
    if aside:
        text += f", except {' and '.join(aside)}"
    if progress.hold not in STANDING_HOLDS and (estimate := left_in_words(left)):
        text += f"; {estimate}"
    if progress.hold == "paused":
        return f"{text}. To continue: orthanc-bridge resume."
    if progress.hold == "rate_limit":
        text += f"; {hold_in_words(progress.hold, rates)}"
    return f"{text}."


def hold_in_words(hold: str, rates: str) -> str:
    """Say why nothing is started at present; ``rates`` as rates_in_words writes them."""
    if hold == "rate_limit" and rates:
        return f"limited to {rates}"
    return HOLDS.get(hold, hold)


def rates_in_words(instances_s: float = 0, mbit_s: float = 0) -> str:
    """Write how fast instances may be moved; "" without limits."""
    rates = [f"{instances_s:g} instances/s"] if instances_s else []
    rates += [f"{mbit_s:g} Mbit/s"] if mbit_s else []
    return " and ".join(rates)


def limits_in_words(instances_s: float = 0, mbit_s: float = 0, quiet_hours: str = "") -> str:
    """Write how much may be moved, and when not; "" without limits."""
    rates = rates_in_words(instances_s, mbit_s)
    parts = [f"at most {rates}"] if rates else []
    parts += [f"quiet hours {quiet_hours}"] if quiet_hours else []
    return ", ".join(parts)


def _wrong(found: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """Return what is wrong: that a server was not asked yet, just after the start, is not."""
    return tuple(problem for problem in found if not problem.code.endswith("_not_contacted"))


def _first(problem: Problem) -> str:
    side, _, kind = problem.code.partition("_")
    if side not in ("source", "target"):
        return f"{problem.message} {problem.advice}".strip()
    remedy = problem.advice or f"{REMEDIES.get(kind, 'Read the log')}."
    return f"{problem.message} {remedy} {NOTHING_LOST}"


def _without_problems(progress: Progress, *, now: float) -> str:
    """Say what is done and what is to do, and never that all is well while nothing may start."""
    if progress.phase in PHASES:
        return PHASES[progress.phase]
    lead = {"paused": "Paused by an operator", "quiet_hours": "Quiet hours (BRIDGE_SCHEDULE)"}.get(
        progress.hold
    )
    if lead is None:
        well = standing_of(progress, (), now=now) is BridgeStanding.WELL
        lead = "All is well" if well else "Working on it"
    if progress.phase == "snapshot":
        return f"{lead}: comparing everything that the source holds"
    if progress.caught_up:
        return f"{lead}: everything that the source announced has arrived"
    lag = lag_of(progress, now=now)
    age = f", the oldest {lasting(lag.seconds)} old" if lag.seconds else ""
    return f"{lead}: {counted(lag.changes, 'change')} to go{age}"
