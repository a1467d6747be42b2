"""Judge from the progress whether all is well (G6): a pure function behind /health and /readyz.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bridge.core.events import Progress, SideView
from bridge.core.model import SideName

FEED_RESET_ADVICE = (
    "The bridge now goes through everything that the source holds; make sure that it is the right "
    "server."
)
"""It is seen only while a snapshot runs: with BRIDGE_ON_FEED_RESET=stop the bridge ends."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """From where on something is wrong. 0 means no limit for ``lag_limit_s``.

    ``poll_interval_s``: an idle feed is looked at no more often than that.
    """

    stall_after_s: float = 600.0
    poll_interval_s: float = 0.0
    lag_limit_s: float = 0.0
    parked_limit: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: ``code`` for machines, the rest for people."""

    code: str
    message: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind the bridge is. ``changes`` and ``seconds`` are 0 when it is not."""

    changes: int
    seconds: float


def lag_of(progress: Progress, *, now: float) -> Lag:
    """Compute the lag; ``now`` in epoch seconds.

    Seconds are the age of the oldest unfinished change, by the source's clock.
    """
    if progress.caught_up or progress.last is None or progress.checkpoint is None:
        changes = 0
    else:
        changes = max(0, progress.last - progress.checkpoint)
    changed_at = epoch_of(progress.oldest_changed_at)
    return Lag(changes, max(0.0, now - changed_at) if changed_at is not None else 0.0)


def epoch_of(date: str) -> float | None:
    """Turn a feed's date (``YYYYMMDDTHHMMSS``, UTC) into epoch seconds; None when it is none."""
    try:
        return datetime.strptime(date, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def unready(progress: Progress) -> tuple[Finding, ...]:
    """List why the bridge cannot work now: a server or the state file. Empty when it can."""
    found = [
        finding
        for side, view in ((SideName.SOURCE, progress.source), (SideName.TARGET, progress.target))
        for finding in _side_findings(side, view)
    ]
    if progress.state_error:
        found.append(Finding("state_unwritable", progress.state_error))
    crew = progress.crew
    if crew.problem:
        found.append(Finding(crew.problem, crew.message, crew.advice))
    if progress.executor_error and not crew.problem:
        advice = "Instances wait and lose no attempt; the log has the details."
        found.append(Finding("workers_failing", progress.executor_error, advice))
    return tuple(found)


def judge(
    progress: Progress,
    parked: Mapping[str, int],
    limits: HealthLimits,
    *,
    now: float,
    feed_reset: str = "",
) -> tuple[Finding, ...]:
    """List everything that is wrong, the gravest first. Empty when all is well."""
    found = list(unready(progress))
    crew = progress.crew
    if feed_reset:
        found.insert(0, Finding("feed_went_backwards", feed_reset, FEED_RESET_ADVICE))
    found.extend(_stall(progress, limits, now=now))
    lag = lag_of(progress, now=now)
    if limits.lag_limit_s and lag.seconds > limits.lag_limit_s:
        text = f"The oldest unfinished change is {lag.seconds:.0f} s old."
        found.append(Finding("lag_above_limit", text, "See docs/operations.md: it lags behind."))
    if crew.refused_count and crew.problem != "no_workers":
        first = f"{crew.refused[0].address}: {crew.refused[0].reason}"
        text = f"{crew.refused_count} workers of the cluster are refused; {first}"
        found.append(Finding("workers_refused", text, "See docs/cluster.md: a worker is refused."))
    if progress.refused:
        count = progress.refused
        many = "1 instance is" if count == 1 else f"{count} instances are"
        text = f"{many} refused while others are served. {progress.refusal}".strip()
        found.append(Finding("instances_refused", text, progress.refusal_advice))
    total = sum(parked.values())
    if total > limits.parked_limit:
        text = "1 instance is parked." if total == 1 else f"{total} instances are parked."
        found.append(Finding("parked", text, "Look at them: orthanc-bridge parked list."))
    return tuple(found)


def _side_findings(side: SideName, view: SideView) -> tuple[Finding, ...]:
    if view.up:
        return ()
    return (Finding(f"{side}_{view.problem}", view.message, view.advice),)


def _stall(progress: Progress, limits: HealthLimits, *, now: float) -> tuple[Finding, ...]:
    if not (progress.source.up and progress.target.up) or progress.state_error:
        return ()
    if progress.hold or progress.crew.problem:
        return ()  # told already; or somebody wanted it so: pause, quiet hours, a rate limit
    advice = "Look at the log; if nothing explains it, restart the bridge: nothing is lost."
    busy = bool(progress.waiting or progress.delayed or progress.in_flight)
    # An idle night, a pause and an outage are no standstill: it begins when work could be done.
    still_s = now - max(progress.last_progress_at, progress.able_since)
    if busy and still_s > limits.stall_after_s:
        text = f"No instance was finished for {still_s:.0f} s."
        return (Finding("stalled", text, advice),)
    read_at = progress.feed_read_at
    if busy or read_at is None:
        return ()
    unread_s = now - max(read_at, progress.able_since)
    if unread_s > limits.stall_after_s + limits.poll_interval_s:
        text = f"The feed was not read for {unread_s:.0f} s."
        return (Finding("stalled", text, advice),)
    return ()
