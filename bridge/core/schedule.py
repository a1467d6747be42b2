"""Quiet hours: days and hours of a time zone in which nothing is moved.

This file must not know: sockets, files, clocks, logging, settings.
Hours are what the clock on the wall shows there: a quiet night is quiet from 22:00 to 06:00 also
when the clocks change in it, and then lasts one real hour more or less.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60
_SPAN = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?"
    r"(?P<start>\d{2}:\d{2})-(?P<end>\d{2}:\d{2})"
)


@dataclass(frozen=True, slots=True)
class Span:
    """Quiet from ``start`` to ``end``, minutes of the day, on these days (0 is Monday).

    An ``end`` at or before ``start`` lies on the following day.
    """

    days: frozenset[int]
    start: int
    end: int

    def holds(self, day: int, minute: int) -> bool:
        """Whether that minute of that day is quiet."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        late = day in self.days and minute >= self.start
        early = (day - 1) % 7 in self.days and minute < self.end
        return late or early


@dataclass(frozen=True, slots=True)
class Schedule:
    """Quiet hours of a time zone; without spans it is never quiet."""

    spans: tuple[Span, ...]
    zone: ZoneInfo

    def quiet(self, now: float) -> bool:
        """Whether it is quiet now, epoch seconds."""
        local = datetime.fromtimestamp(now, UTC).astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return any(span.holds(local.weekday(), minute) for span in self.spans)


def parse_schedule(text: str) -> Schedule:
    """Read e.g. ``mon-fri 07:00-19:00, sat 08:00-12:00 Europe/Paris``; "" is never quiet.

    Days may be left out (every day), and the zone (UTC). Raises ValueError with what is wrong.
    """
    words = text.strip()
    zone = ZoneInfo("UTC")
    found = re.search(r"\s([A-Za-z_]+(?:/[A-Za-z_+\-0-9]+)*)$", words)
    if found:
        zone = _zone(found[1])
        words = words[: found.start()]
    parts = [part.strip().lower() for part in words.split(",") if part.strip()]
    return Schedule(tuple(_span(part) for part in parts), zone)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"{name} is not a time zone; write for example Europe/Berlin") from exc


def _span(part: str) -> Span:
    found = _SPAN.fullmatch(part)
    if not found:
        raise ValueError(f"{part!r} is not like mon-fri 07:00-19:00")
    return Span(
        _days(found["first"], found["last"]), _minutes(found["start"]), _minutes(found["end"])
    )


def _days(first: str | None, last: str | None) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    start, end = _day(first), _day(last or first)
    return frozenset((start + n) % 7 for n in range((end - start) % 7 + 1))


def _day(name: str) -> int:
    if name not in DAYS:
        raise ValueError(f"{name!r} is not one of {', '.join(DAYS)}")
    return DAYS.index(name)


def _minutes(text: str) -> int:
    hours, minutes = (int(part) for part in text.split(":"))
    if minutes > 59 or hours * 60 + minutes > MINUTES_A_DAY:
        raise ValueError(f"{text} is not a time of the day")
    return hours * 60 + minutes
