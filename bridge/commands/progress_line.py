"""One line that tells how far a command is, as wide as the terminal allows.

This file must not know: sockets, files, clocks, logging, settings, terminals.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

BAR_MIN, BAR_MAX = 8, 40
"""Characters of a bar; below the minimum there is none."""
WINDOW_S = 60.0
"""The rate is that of the last minute: a server that has become slow shows soon."""
STEP_S = 0.5
"""Between two points that the rate is made of."""
RATE_AFTER_S = 2.0
"""Before that a rate says more about the start than about the work."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far one phase of a command is.

    ``done`` of ``total`` (None: not known) are what the bar and the time left are about.
    ``instances``: that many were finished, where ``done`` counts something else. ``parked``: of
    those; None where nothing can be parked.
    """

    phase: str
    done: int
    total: int | None
    instances: int | None = None
    parked: int | None = None

    @property
    def ended(self) -> bool:
        """Whether all of it is done."""
        return self.total is not None and self.done >= self.total

    @property
    def share(self) -> float:
        """What is done of it, 0 to 1; 1 of nothing, 0 where the total is not known."""
        if self.total is None:
            return 0.0
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def counted(self) -> int:
        """What the rate is about: instances, where they are counted."""
        return self.done if self.instances is None else self.instances


class Pace:
    """How fast it goes: by the last minute, in which it may have become slower or faster."""

    def __init__(self, now_s: float, begun: Position) -> None:
        self.begun_s = now_s
        self._points = deque([(now_s, begun.done, begun.counted)])

    def note(self, now_s: float, position: Position) -> None:
        """Note how far it is now, in seconds of any steady clock."""
        points = self._points
        if now_s - points[-1][0] >= STEP_S:
            points.append((now_s, position.done, position.counted))
        while len(points) > 2 and now_s - points[0][0] > WINDOW_S:
            points.popleft()

    def rate(self, now_s: float, position: Position) -> float | None:
        """Return what is counted a second; None too early to tell."""
        since_s, _, counted = self._points[0]
        spent_s = now_s - since_s
        return (position.counted - counted) / spent_s if spent_s >= RATE_AFTER_S else None

    def left_s(self, now_s: float, position: Position) -> float | None:
        """Return the seconds that are left, if it goes on as it does; None if nobody can tell."""
        since_s, done, _ = self._points[0]
        spent_s, gained = now_s - since_s, position.done - done
        if position.total is None or spent_s < RATE_AFTER_S or gained <= 0:
            return None
        return spent_s / gained * max(0, position.total - position.done)


@dataclass(frozen=True, slots=True)
class Line:
    """What is shown: text, a bar of ``bar`` characters (0: none), and text. No wider than asked."""

    before: str
    bar: int
    after: str


def line_of(position: Position, pace: Pace, *, now_s: float, width: int) -> Line:
    """Write how far a command is, in at most ``width`` characters.

    What matters least goes first where it is narrow: the count, the bar, the rate. What stays is
    how much is done, what is parked and the time left.
    """
    percent = "" if position.total is None else f"{int(100 * position.share):3d}%"
    parked = "" if position.parked is None else f"{compact(position.parked)} parked"
    rate = pace.rate(now_s, position)
    pieces = {
        "percent": percent,
        "count": _count(position),
        "parked": parked,
        "rate": "" if rate is None else f"{compact(rate)}/s",
        "time": _time(position, pace, now_s),
    }
    least = ("count", "bar", "rate", "time") if percent else ("rate", "time")
    with_bar = bool(percent)
    for gone in (None, *least):
        if gone == "bar":
            with_bar = False
        elif gone is not None:
            pieces[gone] = ""
        after = "  ".join(piece for piece in pieces.values() if piece)
        room = width - len(position.phase) - len(after) - 2
        if with_bar and room >= BAR_MIN:
            return Line(f"{position.phase} ", min(BAR_MAX, room), f" {after}")
        if not with_bar and room >= 0:
            break
    return Line(f"{position.phase}  "[: max(0, width - len(after))], 0, after[: max(0, width)])


def as_text(position: Position, pace: Pace, *, now_s: float) -> str:
    """Write how far a command is for a log: in words, whatever the width."""
    phase, of = position.phase, "" if position.total is None else f" of {position.total}"
    if position.instances is None:
        parts = [f"{position.done}{of}"]
    else:
        parts = [f"{position.instances} instance{'' if position.instances == 1 else 's'}"]
        phase += f" {int(100 * position.share)}%" if of else ""
    if position.parked is not None:
        parts.append(f"{position.parked} parked")
    rate, left_s = pace.rate(now_s, position), pace.left_s(now_s, position)
    parts.append(f"{now_s - pace.begun_s:.0f} s")
    if rate is not None:
        parts.append(f"{compact(rate)}/s")
    if left_s is not None and not position.ended:
        parts.append(f"about {left_s:.0f} s left")
    return f"{phase}: {', '.join(parts)}"


def _count(position: Position) -> str:
    if position.instances is not None:
        return f"{compact(position.instances)} done"
    if position.total is None:
        return compact(position.done)
    return f"{compact(position.done)}/{compact(position.total)}"


def _time(position: Position, pace: Pace, now_s: float) -> str:
    if position.ended or position.total is None:
        return f"in {clock(now_s - pace.begun_s)}"
    left_s = pace.left_s(now_s, position)
    return "ETA -:--" if left_s is None else f"ETA {clock(left_s)}"


def compact(number: float) -> str:
    """Write a number in at most six characters: 7.5, 412, 9999, 412k, 1.2M."""
    if isinstance(number, float) and number < 9.95:
        return f"{number:.1f}"
    if round(number) < 10_000:
        return f"{round(number)}"
    for unit, name in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if number < 9.95 * unit:
            return f"{number / unit:.1f}{name}"
        if number < 999.5 * unit:
            return f"{number / unit:.0f}{name}"
    return f"{number / 1e12:.0f}T"


def clock(seconds: float) -> str:
    """Write a span as people read clocks: 0:48, 12:05, 3:07:00, 4 d 7 h."""
    whole = round(max(0.0, seconds))
    if whole >= 2 * 86_400:
        return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
