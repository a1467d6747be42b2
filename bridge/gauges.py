"""Gauges: what Prometheus is told of the state of things, read from the board at each scrape."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from bridge.core.events import Progress
from bridge.core.health import Finding, lag_of
from bridge.core.model import SideName
from bridge.core.pacing import BITS_A_MEGABIT, Allowance
from bridge.versions import versions

NAMESPACE = "orthanc_bridge"


class BoardView(Protocol):
    """What the gauges are read from."""

    @property
    def allowance(self) -> Allowance:
        """How much may be moved."""

    @property
    def progress(self) -> Progress:
        """Where the pipeline is."""

    def parked(self) -> Mapping[str, int]:
        """Count the parked instances by reason."""

    def findings(self) -> tuple[Finding, ...]:
        """List what is wrong now."""


class Sizes:
    """How many bytes a change of the feed has brought on average, since the start."""

    def __init__(self) -> None:
        self.fetched_bytes = 0
        self._first: int | None = None
        self._now: int | None = None

    def reach(self, checkpoint: int | None) -> None:
        """Note the checkpoint. One that goes back belongs to another feed."""
        if self._first is None or checkpoint is None or checkpoint < self._first:
            self._first, self.fetched_bytes = checkpoint, 0
        self._now = checkpoint

    def of(self, changes: int) -> float | None:
        """Estimate the bytes of so many changes; None when nothing was moved yet."""
        moved = (self._now or 0) - (self._first or 0)
        if not changes:
            return 0.0
        return changes * self.fetched_bytes / moved if moved > 0 and self.fetched_bytes else None


class Gauges:
    """Reads the board when Prometheus asks."""

    def __init__(self, board: BoardView, sizes: Sizes) -> None:
        self._board = board
        self._sizes = sizes

    def describe(self) -> list[Metric]:
        """Name nothing in advance: the board is not complete at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every gauge."""
        progress = self._board.progress
        found = self._board.findings()
        build = {name.replace("-", "_"): version for name, version in versions().items()}
        yield InfoMetricFamily(f"{NAMESPACE}_build", "This program and its decoders.", value=build)
        plain = (
            *_plain_gauges(progress, healthy=not found),
            *_limit_gauges(self._board.allowance),
            ("lag_bytes", "Estimated size of what is to be fetched.", self._lag_bytes(progress)),
        )
        for name, text, value in plain:
            if value is not None:
                yield GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=float(value))
        yield _labelled(
            "side_up",
            "1 when the server can be used.",
            "side",
            {SideName.SOURCE: progress.source.up, SideName.TARGET: progress.target.up},
        )
        yield _labelled(
            "reason",
            "1 for each reason that /health gives now.",
            "code",
            {f.code: 1 for f in found},
        )
        yield _labelled(
            "hold",
            "1 while nothing is started on purpose.",
            "reason",
            {progress.hold: 1} if progress.hold else {},
        )
        yield _labelled("parked", "Instances parked now.", "reason", self._board.parked())

    def _lag_bytes(self, progress: Progress) -> float | None:
        return self._sizes.of(lag_of(progress, now=time.time()).changes)


def _plain_gauges(
    progress: Progress, *, healthy: bool
) -> Iterator[tuple[str, str, float | int | None]]:
    """Yield name, help and value; None where there is nothing to tell yet."""
    now = time.time()
    lag = lag_of(progress, now=now)
    started = [item.started_at for item in progress.in_flight]
    yield "healthy", "1 when /health answers 200.", healthy
    yield "state_writable", "1 when the ledger can be written.", not progress.state_error
    yield "checkpoint_sequence", "Everything up to it is settled.", progress.checkpoint
    yield "last_sequence", "Newest sequence of the feed.", progress.last
    yield "oldest_unfinished_sequence", "The first change not settled.", progress.oldest_open
    yield "lag_changes", "Changes not settled yet.", lag.changes
    yield "lag_seconds", "Age of the oldest unfinished change.", lag.seconds
    yield "in_flight", "Instances in workers or queued for them.", len(started)
    oldest_s = max(0.0, now - min(started)) if started else 0.0
    yield "in_flight_oldest_seconds", "How long the oldest of them has been there.", oldest_s
    yield "waiting", "Instances read and not started.", progress.waiting + progress.delayed
    crew = progress.crew
    yield "workers", "Worker processes, or workers of the cluster, that can be used.", crew.workers
    yield "worker_threads", "Instances that they can have in work at once.", crew.threads
    yield "workers_refused", "Workers of the cluster that get no work.", crew.refused_count
    yield (
        "last_progress_timestamp_seconds",
        "When an instance was last finished, or the start.",
        progress.last_progress_at or None,
    )
    yield (
        "feed_read_timestamp_seconds",
        "When the feed was last read.",
        progress.feed_read_at,
    )


def _limit_gauges(allowance: Allowance) -> Iterator[tuple[str, str, float | None]]:
    """Yield name, help and value; None where there is no limit."""
    instances_s, bytes_s = allowance.instances_s, allowance.mbit_s * BITS_A_MEGABIT / 8
    yield "max_instances_per_second", "Instances moved a second at most.", instances_s or None
    yield "max_bytes_per_second", "Bytes moved a second at most, both ways.", bytes_s or None


def _labelled(
    name: str, text: str, label: str, values: Mapping[str, float | int]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], float(number))
    return family
