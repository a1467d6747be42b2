"""One sentence that says whether all is well and, if not, what to do. A pure function.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from bridge.core.events import Progress
from bridge.core.health import Finding, lag_of

HOLDS = {
    "paused": "paused by an operator; to go on: orthanc-bridge resume",
    "quiet_hours": "waiting for the end of the quiet hours (BRIDGE_SCHEDULE)",
    "rate_limit": "kept to the rate that the settings allow",
}
STANDING = ("paused", "quiet_hours")
PHASES = {
    "starting": "The bridge is starting",
    "snapshot": "All is well: going through everything that the source holds",
    "draining": "The bridge is stopping: what is under way may finish",
}
REMEDIES = {
    "unreachable": "Start that server or mend the way to it",
    "timed_out": "See whether that server is overloaded or the way to it is broken",
    "storage_full": "Make room on that server",
    "server_error": "Look at that server's log",
}
"""What to do when a finding brings no advice of its own, by the end of its code."""
NOTHING_LOST = "Nothing is lost; the bridge goes on by itself."


def headline(progress: Progress, found: tuple[Finding, ...], *, parked: int, now: float) -> str:
    """Say how it stands; ``found`` is what ``judge`` found, ``now`` epoch seconds."""
    if found:
        more = len(found) - 1
        tail = f" ({more} more below)" if more else ""
        held = HOLDS[progress.hold] if progress.hold in STANDING else ""
        also = f" The bridge is also {held}." if held else ""
        return f"Attention{tail}: {_first(found[0])}{also}"
    text = _fine(progress, now=now)
    if parked:
        text += f", except {counted(parked, 'instance')} set aside as parked"
    if progress.hold:
        text += f"; {HOLDS.get(progress.hold, progress.hold)}"
    return f"{text}."


def counted(number: int, thing: str) -> str:
    """Write a number and what it counts."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def limits_in_words(instances_s: float = 0, mbit_s: float = 0, quiet_hours: str = "") -> str:
    """Write how much may be moved, and when not; "" without limits."""
    rates = [f"{instances_s:g} instances"] if instances_s else []
    rates += [f"{mbit_s:g} Mbit"] if mbit_s else []
    parts = [f"at most {' and '.join(rates)} a second"] if rates else []
    parts += [f"quiet hours {quiet_hours}"] if quiet_hours else []
    return ", ".join(parts)


def lasting(seconds: float) -> str:
    """Write a duration in its two largest units."""
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // part_s} {part}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _first(finding: Finding) -> str:
    side, _, problem = finding.code.partition("_")
    if side not in ("source", "target"):
        return f"{finding.message} {finding.advice}".strip()
    remedy = finding.advice or f"{REMEDIES.get(problem, 'Look at the log')}."
    if problem == "not_contacted":
        return f"{finding.message} Wait a moment."
    return f"{finding.message} {remedy} {NOTHING_LOST}"


def _fine(progress: Progress, *, now: float) -> str:
    if progress.phase in PHASES:
        return PHASES[progress.phase]
    if progress.caught_up:
        return "All is well: everything that the source announced has arrived"
    lag = lag_of(progress, now=now)
    age = f", the oldest {lasting(lag.seconds)} old" if lag.seconds else ""
    return f"All is well: {counted(lag.changes, 'change')} to go{age}"
