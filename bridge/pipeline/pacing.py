"""A limit on the rate of something, as arithmetic: a token bucket that may go into debt.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Quiet hours: days and hours of a time zone in which nothing is moved.
#
# Hours are what the clock on the wall shows there: a quiet night is quiet from 22:00 to 06:00 also
# when the clocks change in it, and then lasts one real hour more or less.

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
    words, zone = _without_zone(text)
    parts = [part.strip().lower() for part in words.split(",") if part.strip()]
    return Schedule(tuple(_span(part) for part in parts), zone)


@dataclass(frozen=True, slots=True)
class Daily:
    """A time of each day, in a time zone."""

    at: time
    zone: ZoneInfo

    def local(self, now_s: float) -> datetime:
        """Return the time there. ``now_s``: epoch seconds."""
        return datetime.fromtimestamp(now_s, self.zone)


def parse_daily(text: str) -> Daily:
    """Read e.g. ``07:00 Europe/Paris``; the zone may be left out (UTC).

    Raises ValueError with what is wrong.
    """
    words, zone = _without_zone(text)
    try:
        at = datetime.strptime(words, "%H:%M").time()
    except ValueError:
        raise ValueError(f"{words!r} is not like 07:00") from None
    return Daily(at, zone)


def _without_zone(text: str) -> tuple[str, ZoneInfo]:
    """Split the name of a time zone off the end of a text; UTC where there is none."""
    words = text.strip()
    found = re.search(r"\s([A-Za-z_]+(?:/[A-Za-z_+\-0-9]+)*)$", words)
    if not found:
        return words, ZoneInfo("UTC")
    return words[: found.start()], _zone(found[1])


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"{name} is not a time zone; write for example Europe/Berlin") from exc


def _span(part: str) -> Span:
    found = _SPAN.fullmatch(part)
    if not found:
        raise ValueError(f"{part!r} is not days and hours such as mon-fri 07:00-19:00")
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


# Rates by the hour, written as rclone's --bwlimit writes them.
#
# Hours are what the clock on the wall shows there, as for quiet hours: an entry at a time that the
# clocks pass over holds from the time after it; an hour that comes twice has its rates twice.

_ENTRY = re.compile(r"(?:([a-z]{3})-)?(\d{2}:\d{2}),(off|\d{1,6}(?:\.\d{1,3})?)")
RATE_ENTRIES_MAX = 100


@dataclass(frozen=True, slots=True)
class RateTimetable:
    """Rates by the hour: (minute of the week, megabits a second), ascending; 0 means no limit.

    Each entry holds until the next one, the last one until the first one of the next week.
    """

    entries: tuple[tuple[int, float], ...]
    zone: ZoneInfo

    def mbit_s(self, now: float) -> float:
        """Return the rate that holds now, epoch seconds; 0 means no limit."""
        local = datetime.fromtimestamp(now, UTC).astimezone(self.zone)
        minute = local.weekday() * MINUTES_A_DAY + local.hour * 60 + local.minute
        begun = [rate for begin, rate in self.entries if begin <= minute]
        return begun[-1] if begun else self.entries[-1][1]


def parse_timetable(text: str) -> RateTimetable | None:
    """Read e.g. ``08:00,20 18:00,off Europe/Paris``; "" is None.

    An entry is a time, a comma and a rate; ``sat-`` before the time confines it to one day. Raises
    ValueError with what is wrong.
    """
    # "off" at the end is no time zone.
    words, zone = (text.strip(), ZoneInfo("UTC")) if _ends_with_entry(text) else _without_zone(text)
    parts = words.lower().split()
    if len(parts) > RATE_ENTRIES_MAX:
        raise ValueError(f"has more than {RATE_ENTRIES_MAX} entries")
    entries: dict[int, float] = {}
    for part in parts:
        found = _ENTRY.fullmatch(part)
        if not found:
            raise ValueError(f"{part!r} is not a time and a rate such as 08:00,20 or sat-08:00,off")
        minutes = _minutes(found[2])
        if minutes >= MINUTES_A_DAY:
            raise ValueError(f"{found[2]} is not a time of the day")
        rate = 0.0 if found[3] == "off" else float(found[3])
        if found[3] != "off" and not rate:
            raise ValueError(f"{part!r}: a rate of 0 would move nothing; see BRIDGE_SCHEDULE")
        for day in _days(found[1], None):
            begin = day * MINUTES_A_DAY + minutes
            if begin in entries:
                raise ValueError(f"names {found[2]} twice for one day")
            entries[begin] = rate
    return RateTimetable(tuple(sorted(entries.items())), zone) if entries else None


def _ends_with_entry(text: str) -> bool:
    return bool(_ENTRY.fullmatch(text.lower().split()[-1])) if text.strip() else True


BITS_A_MEGABIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much may be moved: 0 means without limit. ``mbit_s`` counts both directions.

    ``timetable`` takes the place of ``mbit_s`` where there is one. ``quiet_hours``: the schedule as
    it was written.
    """

    instances_s: float = 0.0
    mbit_s: float = 0.0
    schedule: Schedule | None = None
    quiet_hours: str = ""
    timetable: RateTimetable | None = None

    def mbit_s_at(self, now: float) -> float:
        """Return how many megabits a second may be moved now, epoch seconds; 0: no limit."""
        return self.mbit_s if self.timetable is None else self.timetable.mbit_s(now)


class Bucket:
    """Lets through ``rate_s`` units a second on average; 0 means no limit.

    What something costs may be known only afterwards (the size of an instance), so a charge can
    make the level negative; then nothing is let through until the debt is paid.
    """

    def __init__(self, rate_s: float, *, now_s: float) -> None:
        self._rate_s = rate_s
        self._level = rate_s
        self._at_s = now_s

    def change(self, rate_s: float, *, now_s: float) -> None:
        """Let through so many from now on. A debt is paid at the new rate; no limit forgives it."""
        if rate_s == self._rate_s:
            return
        self._refill(now_s)
        self._level = min(self._level, rate_s) if rate_s and self._rate_s else rate_s
        self._rate_s = rate_s
        self._at_s = now_s

    def ready_in_s(self, *, now_s: float) -> float:
        """Seconds until the next one may pass; 0 means now."""
        if not self._rate_s:
            return 0.0
        self._refill(now_s)
        return 0.0 if self._level > 0 else (1e-9 - self._level) / self._rate_s

    def charge(self, amount: float, *, now_s: float) -> None:
        """Pay for something."""
        if self._rate_s:
            self._refill(now_s)
            self._level -= amount

    def _refill(self, now_s: float) -> None:
        # At most one second's worth is saved up: after a pause there is no burst.
        earned = (now_s - self._at_s) * self._rate_s
        self._level = min(max(self._rate_s, 1.0), self._level + earned)
        self._at_s = now_s
