"""Prometheus metrics. Counters follow the events; gauges are read from the board at each scrape."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from bridge.core.events import (
    Event,
    FeedReset,
    InstanceParked,
    InstanceRetried,
    PageRead,
    Progress,
    Settled,
    SideDown,
    SourceSwept,
    SweepFailed,
    WorkerLost,
)
from bridge.core.model import (
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Reason,
    SideName,
    SideProblem,
    Skipped,
)
from bridge.core.syntaxes import SYNTAXES
from bridge.gauges import NAMESPACE, BoardView, Gauges, Sizes
from bridge.poke import RESULTS

disable_created_metrics()  # type: ignore[no-untyped-call]  # only those that are documented
STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)

STAGES = ("fetch", "transcode", "deliver", "prove")

METRIC_NAMES = (
    "orthanc_bridge_build_info",
    "orthanc_bridge_instances_total",
    "orthanc_bridge_source_bytes_total",
    "orthanc_bridge_target_bytes_total",
    "orthanc_bridge_stage_seconds",
    "orthanc_bridge_retries_total",
    "orthanc_bridge_decoder_fallbacks_total",
    "orthanc_bridge_worker_losses_total",
    "orthanc_bridge_late_changes_total",
    "orthanc_bridge_missing_changes_total",
    "orthanc_bridge_feed_resets_total",
    "orthanc_bridge_source_deletions_total",
    "orthanc_bridge_sweep_failures_total",
    "orthanc_bridge_side_outages_total",
    "orthanc_bridge_pokes_total",
    "orthanc_bridge_healthy",
    "orthanc_bridge_reason",
    "orthanc_bridge_hold",
    "orthanc_bridge_max_instances_per_second",
    "orthanc_bridge_max_bytes_per_second",
    "orthanc_bridge_side_up",
    "orthanc_bridge_state_writable",
    "orthanc_bridge_checkpoint_sequence",
    "orthanc_bridge_last_sequence",
    "orthanc_bridge_oldest_unfinished_sequence",
    "orthanc_bridge_lag_changes",
    "orthanc_bridge_lag_seconds",
    "orthanc_bridge_lag_bytes",
    "orthanc_bridge_in_flight",
    "orthanc_bridge_in_flight_oldest_seconds",
    "orthanc_bridge_waiting",
    "orthanc_bridge_workers",
    "orthanc_bridge_worker_threads",
    "orthanc_bridge_workers_refused",
    "orthanc_bridge_parked",
    "orthanc_bridge_last_progress_timestamp_seconds",
    "orthanc_bridge_feed_read_timestamp_seconds",
    "orthanc_bridge_process_virtual_memory_bytes",
    "orthanc_bridge_process_resident_memory_bytes",
    "orthanc_bridge_process_start_time_seconds",
    "orthanc_bridge_process_cpu_seconds_total",
    "orthanc_bridge_process_open_fds",
    "orthanc_bridge_process_max_fds",
)
"""Every metric, as Prometheus shows it. docs/metrics.md describes each."""


class Metrics:
    """An observer that counts, and a collector that reads the board."""

    def __init__(self, board: BoardView) -> None:
        self.registry = CollectorRegistry()
        self._instances = self._counter(
            "instances", "Instances finished, by outcome and source syntax.", "outcome", "syntax"
        )
        self._source_bytes = self._counter("source_bytes", "Bytes fetched from the source.")
        self._target_bytes = self._counter("target_bytes", "Bytes delivered to the target.")
        self._retries = self._counter("retries", "Attempts that will be repeated.", "reason")
        self._fallbacks = self._counter(
            "decoder_fallbacks", "Decoders that refused before another one decoded.", "decoder"
        )
        self._losses = self._counter("worker_losses", "Workers lost during a task.", "reason")
        self._late = self._counter("late_changes", "Changes that became visible late.")
        self._missing = self._counter(
            "missing_changes", "Changes gone from the feed before they were read."
        )
        self._resets = self._counter("feed_resets", "Times the feed went backwards.")
        self._deletions = self._counter(
            "source_deletions", "Delivered instances deleted from the source."
        )
        self._sweep_failures = self._counter(
            "sweep_failures", "Sweeps of the source that could not delete anything."
        )
        self._outages = self._counter("side_outages", "Outages begun.", "side", "problem")
        self._pokes = self._counter("pokes", "Pokes received, by result.", "result")
        self._stages = Histogram(
            f"{NAMESPACE}_stage_seconds",
            "Duration of each stage of a delivered instance.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        for side in SideName:
            for problem in SideProblem:
                # Present from the start: increase() does not see a series begin.
                self._outages.labels(side, problem)
        for result in RESULTS:
            self._pokes.labels(result)
        self._stage_times = {stage: self._stages.labels(stage) for stage in STAGES}
        for reason in (Reason.WORKER_DIED, Reason.TIMED_OUT):
            self._losses.labels(reason)
        self._sizes = Sizes()
        self.registry.register(Gauges(board, self._sizes))
        # CPU, memory and open files of the main process, not of its workers.
        ProcessCollector(namespace=NAMESPACE, registry=self.registry)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def count_poke(self, result: str) -> None:
        """Count a poke. Not an event: the pipeline does not hear of each."""
        self._pokes.labels(result).inc()

    def on_progress(self, progress: Progress) -> None:
        """Note the checkpoint; gauges are read at the scrape."""
        self._sizes.reach(progress.checkpoint)

    def on_event(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Settled(outcome=Delivered() as done):
                self._count_delivered(done)
            case Settled(outcome=Skipped(reason=reason, source_syntax=syntax)):
                self._instances.labels(f"skipped_{reason}", _known(syntax)).inc()
            case InstanceParked(reason=reason, source_syntax=syntax):
                self._instances.labels(f"parked_{reason}", _known(syntax)).inc()
            case InstanceRetried(outcome=InstanceFailed(reason=reason)):
                self._retries.labels(reason).inc()
            case InstanceRetried(outcome=ExecutorFailed()):
                self._retries.labels("executor").inc()
            case InstanceRetried():
                self._retries.labels("server").inc()
            case WorkerLost(failure=failure):
                self._losses.labels(failure.reason).inc()
            case PageRead(late=late, missing=missing):
                self._late.inc(late)
                self._missing.inc(missing)
            case SourceSwept() | SweepFailed():
                self._count_sweep(event)
            case FeedReset():
                self._resets.inc()
            case SideDown(failure=failure):
                self._outages.labels(failure.side, failure.problem).inc()
            case _:
                pass

    def _count_sweep(self, event: SourceSwept | SweepFailed) -> None:
        match event:
            case SourceSwept(deleted=deleted):
                self._deletions.inc(deleted)
            case SweepFailed():
                self._sweep_failures.inc()

    def _count_delivered(self, done: Delivered) -> None:
        outcome = "already_there" if done.already_there else "delivered"
        if done.differing:
            outcome += "_differing"
        self._instances.labels(outcome, _known(done.source_syntax)).inc()
        self._source_bytes.inc(done.source_bytes)
        self._sizes.fetched_bytes += done.source_bytes
        self._target_bytes.inc(done.target_bytes)
        for decoder in done.fallbacks:
            self._fallbacks.labels(decoder).inc()
        for stage, times in self._stage_times.items():
            times.observe(getattr(done.stages, f"{stage}_s"))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{NAMESPACE}_{name}", text, labels, registry=self.registry)


def _known(syntax: str) -> str:
    """Return a label value from a bounded set: senders may invent transfer syntaxes."""
    return syntax if syntax in SYNTAXES or not syntax else "other"
