"""What the pipeline last reported, for the monitoring server and the metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import bridge
from bridge.core.errors import StateError
from bridge.core.events import Event, FeedReset, Progress, SideView, SweepFailed, SweepWorks
from bridge.core.headline import headline
from bridge.core.health import Finding, HealthLimits, judge, lag_of
from bridge.core.pacing import Allowance
from bridge.ledger import Ledger
from bridge.recent import Recent
from bridge.versions import versions

PARKED_FRESH_S = 1.0

NOT_CONTACTED = Progress(
    source=SideView(up=False, problem="not_contacted", message="The source was not asked yet."),
    target=SideView(up=False, problem="not_contacted", message="The target was not asked yet."),
)


class Board:
    """An observer that other threads read. Values are replaced, never changed."""

    def __init__(
        self,
        state_path: Path,
        limits: HealthLimits,
        allowance: Allowance | None = None,
        stage_of: Callable[[int], str] = lambda _: "",
    ) -> None:
        self.allowance = allowance or Allowance()
        self._stage_of = stage_of
        self._state_path = state_path
        self._limits = limits
        self._lock = threading.Lock()
        self._parked: Mapping[str, int] = {}
        self._parked_at_s = float("-inf")
        self._state_error = ""
        self._feed_reset = ""
        self._sweep_error = ""
        self._recent = Recent()
        self._started_at = time.time()
        self.progress: Progress = NOT_CONTACTED

    def on_event(self, event: Event) -> None:
        """Remember that the feed was reset, and what happened lately."""
        match event:
            case FeedReset(message=message):
                self._feed_reset = message
            case SweepFailed(message=message):
                self._sweep_error = message
            case SweepWorks():
                self._sweep_error = ""
            case _:
                pass
        self._recent.on_event(event)

    def on_progress(self, progress: Progress) -> None:
        """Take the newest report. A snapshot that is over has answered a feed reset."""
        if self.progress.phase == "snapshot" and progress.phase == "following":
            self._feed_reset = ""
        self.progress = progress

    def parked(self) -> Mapping[str, int]:
        """Count the parked instances by reason; at most a second old.

        Read from the file, since commands beside this process park and unpark too.
        """
        with self._lock:
            if time.monotonic() - self._parked_at_s >= PARKED_FRESH_S:
                try:
                    with Ledger(self._state_path, create=False) as ledger:
                        self._parked = ledger.parked_by_reason()
                    self._state_error = ""
                except StateError as exc:
                    self._state_error = exc.message
                self._parked_at_s = time.monotonic()
            return self._parked

    def findings(self) -> tuple[Finding, ...]:
        """List what is wrong now."""
        parked = self.parked()
        found = judge(
            self.progress, parked, self._limits, now=time.time(), feed_reset=self._feed_reset
        )
        if self._state_error and not self.progress.state_error:
            found = (*found, Finding("state_unreadable", self._state_error))
        if self._sweep_error:
            advice = (
                "The source keeps what it should let go of; see docs/security.md for the rights."
            )
            found = (*found, Finding("retention_failing", self._sweep_error, advice))
        return found

    def health(self) -> dict[str, object]:
        """Return what a monitoring system asks for, as JSON-ready values."""
        progress = self.progress
        now = time.time()
        parked = dict(self.parked())
        found = self.findings()
        lag = lag_of(progress, now=now)
        total = sum(parked.values())
        return {
            "status": "ok" if not found else "failing",
            "headline": headline(progress, found, parked=total, now=now),
            "reasons": [asdict(finding) for finding in found],
            "version": bridge.__version__,
            "phase": progress.phase,
            "hold": progress.hold,
            "checkpoint": progress.checkpoint,
            "last": progress.last,
            "caught_up": progress.caught_up,
            "lag_changes": lag.changes,
            "lag_s": round(lag.seconds, 1),
            "oldest_unfinished": progress.oldest_open,
            "oldest_unfinished_changed_at": progress.oldest_changed_at,
            "waiting": progress.waiting + progress.delayed,
            "in_flight": len(progress.in_flight),
            "workers": asdict(progress.crew),
            "parked": parked,
            "parked_total": total,
            "source": asdict(progress.source),
            "target": asdict(progress.target),
            "feed_read_at": progress.feed_read_at,
            "last_progress_at": progress.last_progress_at or None,
        }

    def status(self) -> dict[str, object]:
        """Return everything known, for the status page; the oldest in flight first."""
        now = time.time()
        in_flight = sorted(self.progress.in_flight, key=lambda item: item.started_at)
        return self.health() | {
            "now": round(now, 1),
            "started_at": round(self._started_at, 1),
            "versions": versions(),
            "limits": {
                "instances_s": self.allowance.instances_s,
                "mbit_s": self.allowance.mbit_s,
                "quiet_hours": self.allowance.quiet_hours,
            },
            "in_flight": [
                {
                    "instance": item.instance_id,
                    "sequence": item.sequence,
                    "stage": self._stage_of(item.number),
                    "attempt": item.attempt,
                    "age_s": round(now - item.started_at, 1),
                }
                for item in in_flight
            ],
            "throughput": asdict(self._recent.throughput()),
            "failures": [asdict(failure) for failure in self._recent.failures()],
        }
