"""Prometheus metrics. Counters follow the events; gauges are read from the board at each scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

from bridge.dicom.syntaxes import SYNTAXES
from bridge.events import (
    Carried,
    CarryFailed,
    CarryLeft,
    CopyFound,
    CopyNotRepaired,
    CopyRepaired,
    Event,
    FeedDoubted,
    FeedReset,
    GapsClosed,
    InstanceParked,
    InstanceRetried,
    MissedFound,
    NoticeFailed,
    NoticesDropped,
    NoticeSent,
    PageRead,
    ParkedRetried,
    Progress,
    Recounted,
    RecountFailed,
    Settled,
    SideDown,
    Signed,
    SignFailed,
    SignLeft,
    SourceSwept,
    SweepFailed,
    VerificationFailed,
    Verified,
    WorkerLost,
)
from bridge.ledger.records import OutboxView
from bridge.model import (
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    LogState,
    Reason,
    SideName,
    SideProblem,
    Skipped,
)
from bridge.monitoring.action_request import ACTIONS
from bridge.monitoring.actions import ACTION_RESULTS
from bridge.monitoring.headline import BridgeStanding, standing_of
from bridge.monitoring.health import CarryView, MirrorView, Problem, SignView, lag_of
from bridge.monitoring.names import BridgeNames
from bridge.monitoring.poke import RESULTS
from bridge.pipeline.pacing import BITS_A_MEGABIT, Allowance
from bridge.versions import versions

disable_created_metrics()  # type: ignore[no-untyped-call]  # only those that are documented
EXEMPLAR_MAX = 100
"""OpenMetrics allows 128 characters, names included; an Orthanc ID has 44."""
STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)

RETRY_RESULTS = ("delivered", "skipped", "parked")
STAGES = ("fetch", "transcode", "deliver", "prove")


COPY_STATES = (
    "missing",
    "no_file",
    "damaged",
    "syntax",
    "older",
    "not_ours",
    "lost",
    "undecided",
    "unverifiable",
    "source_damaged",
)
"""What a verification tells as a difference (mirror/judge_copy.py)."""


CARRIED_KINDS = ("labels", "metadata", "attachments")
LEFT_REASONS = ("foreign", "too_large", "no_labels", "unknown_name")
"""What is brought beside the files, and why something is not (mirror/carry.py)."""
SIGN_KINDS = ("label", "metadata")
SIGN_LEFT_REASONS = ("changed", "foreign", "no_labels", "no_md5")
"""How a delivery is signed at the source, and why it is not (mirror/delivered_sign.py)."""


class Metrics:
    """An observer that counts, and a collector that reads the board."""

    def __init__(self, board: BoardView) -> None:
        self.registry = CollectorRegistry()
        self._instances = self._counter(
            "instances", "Instances finished, by outcome and source syntax.", "outcome", "syntax"
        )
        self._source_bytes = self._counter("source_bytes", "Bytes fetched from the source.")
        self._target_bytes = self._counter("target_bytes", "Bytes delivered to the target.")
        self._retries = self._counter("retries", "Failed attempts that will be repeated.", "reason")
        self._parked_retries = self._counter(
            "parked_retries", "Parked instances that the bridge tried again, by result.", "result"
        )
        for result in RETRY_RESULTS:
            self._parked_retries.labels(result)
        self._fallbacks = self._counter(
            "decoder_fallbacks", "Decoders that refused before another one decoded.", "decoder"
        )
        self._losses = self._counter("worker_losses", "Workers lost during a task.", "reason")
        self._late = self._counter("late_changes", "Changes that became visible late.")
        self._missing = self._counter(
            "missing_changes", "Changes gone from the feed before they were read."
        )
        self._refused = self._counter(
            "refused_changes", "Rows of the feed whose ID is not an identifier of Orthanc."
        )
        self._gaps_filled = self._counter(
            "feed_gaps_filled", "Sequences in gaps whose row became visible."
        )
        self._gaps_expired = self._counter(
            "feed_gaps_expired",
            "Sequences without a row for BRIDGE_FEED_GAP_HOURS.",
        )
        self._gaps_given_up = self._counter(
            "feed_gaps_given_up", "Sequences dropped before that: more than BRIDGE_FEED_GAPS_MAX."
        )
        self._resets = self._counter("feed_resets", "Times the feed went backwards.")
        self._doubts = self._counter(
            "feed_doubts", "Looks at the feed that contradicted what was known of it."
        )
        self._recounts = self._counter("recounts", "Recounts of the source that were completed.")
        self._recount_failures = self._counter(
            "recount_failures", "Recounts of the source that failed."
        )
        self._recount_found = self._counter(
            "recount_found", "Instances that the feed did not report, found by a recount and moved."
        )
        self._recount_unexplained = self._counter(
            "recount_unexplained",
            "Instances that the source holds and its feed does not have.",
        )
        self._deletions = self._counter(
            "source_deletions", "Delivered instances deleted from the source."
        )
        self._sweep_failures = self._counter(
            "sweep_failures", "Sweeps of the source that could not delete anything."
        )
        self._copies_found = self._counter(
            "copies_found", "Differences that a verification found, by state of the copy.", "state"
        )
        self._copy_repairs = self._counter(
            "copy_repairs", "Repairs of copies at the target, by result.", "result"
        )
        self._target_deletions = self._counter(
            "target_deletions", "Instances deleted at the target because the source lacks them."
        )
        self._verification_failures = self._counter(
            "verification_failures", "Times that a verification could not continue."
        )
        self._carried = self._counter(
            "carried", "Labels, metadata and attachments written at the target, by kind.", "kind"
        )
        self._carry_left = self._counter(
            "carry_left", "Times that one of them was left unchanged at the target.", "reason"
        )
        self._carry_failures = self._counter(
            "carry_failures", "Times that one of them could not be copied."
        )
        self._signed = self._counter(
            "signed", "Delivered instances that were signed at the source.", "kind"
        )
        self._sign_left = self._counter(
            "sign_left", "Delivered instances that are not signed, by reason.", "reason"
        )
        self._sign_failures = self._counter(
            "sign_failures", "Times that a delivered instance could not be signed."
        )
        self._events_sent = self._counter(
            "events_sent", "Events that their receiver accepted.", "event", "way"
        )
        self._event_failures = self._counter(
            "event_failures", "Failed attempts to send an event.", "way"
        )
        self._events_dropped = self._counter(
            "events_dropped", "Events dropped unsent: too old, or too many."
        )
        self._traces = self._counter(
            "traces", "Moves whose spans were sent to the collector, or dropped.", "result"
        )
        for result in ("sent", "dropped"):
            self._traces.labels(result)
        self._outages = self._counter("side_outages", "Outages that began.", "side", "problem")
        self._pokes = self._counter("pokes", "Pokes received, by result.", "result")
        self._actions = self._counter("actions", "Requests to act over HTTP.", "action", "result")
        self._stages = Histogram(
            f"{NAMESPACE}_stage_seconds",
            "Duration of each stage of a delivered instance.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self._stage_times = {stage: self._stages.labels(stage) for stage in STAGES}
        self._show_all()
        self._sizes = Sizes()
        self.registry.register(Gauges(board, self._sizes))
        # CPU, memory and open files of the main process, not of its workers.
        ProcessCollector(namespace=NAMESPACE, registry=self.registry)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def render_openmetrics(self) -> bytes:
        """Return it as OpenMetrics, with exemplars: an instance for each of some figures."""
        text: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
        return text

    def count_spans(self, result: str, moves: int) -> None:
        """Count moves whose spans were ``sent`` or ``dropped``."""
        self._traces.labels(result).inc(moves)

    def count_poke(self, result: str) -> None:
        """Count a poke. Not an event: the pipeline does not hear of each."""
        self._pokes.labels(result).inc()

    def count_action(self, action: str, result: str) -> None:
        """Count a request to act, whatever became of it."""
        self._actions.labels(action, result).inc()

    def on_progress(self, progress: Progress) -> None:
        """Note the checkpoint; gauges are read at the scrape."""
        self._sizes.reach(progress.checkpoint)

    def _show_all(self) -> None:
        """Have every series there from the start: increase() does not see one begin."""
        for side in SideName:
            for problem in SideProblem:
                self._outages.labels(side, problem)
        for result in RESULTS:
            self._pokes.labels(result)
        for action in ACTIONS:
            for result in ACTION_RESULTS:
                self._actions.labels(action, result)
        for state in COPY_STATES:
            self._copies_found.labels(state)
        for kind in CARRIED_KINDS:
            self._carried.labels(kind)
        for reason in LEFT_REASONS:
            self._carry_left.labels(reason)
        for kind in SIGN_KINDS:
            self._signed.labels(kind)
        for reason in SIGN_LEFT_REASONS:
            self._sign_left.labels(reason)
        for result in ("repaired", "failed"):
            self._copy_repairs.labels(result)
        for reason in (Reason.WORKER_DIED, Reason.TIMED_OUT):
            self._losses.labels(reason)

    def on_event(self, event: Event) -> None:  # noqa: PLR0912 (a table of events)
        """Count an event."""
        match event:
            case Settled(outcome=Delivered() as done):
                self._count_delivered(done, _exemplar(event))
            case Settled(outcome=Skipped(reason=reason, source_syntax=syntax)):
                self._instances.labels(f"skipped_{reason}", _known(syntax)).inc()
            case InstanceParked(reason=reason, source_syntax=syntax, retries=0):
                # What stays parked was counted before.
                counted = self._instances.labels(f"parked_{reason}", _known(syntax))
                counted.inc(exemplar=_exemplar(event))
            case InstanceRetried(outcome=InstanceFailed(reason=reason)):
                self._retries.labels(reason).inc()
            case InstanceRetried(outcome=ExecutorFailed()):
                self._retries.labels("executor").inc()
            case InstanceRetried():
                self._retries.labels("server").inc()
            case WorkerLost(failure=failure):
                self._losses.labels(failure.reason).inc()
            case PageRead() | GapsClosed() | FeedDoubted() | FeedReset():
                self._count_feed(event)
            case SourceSwept() | SweepFailed() | Recounted() | MissedFound() | RecountFailed():
                self._count_upkeep(event)
            case ParkedRetried(result=result):
                self._parked_retries.labels(result).inc()
            case CopyFound() | CopyRepaired() | CopyNotRepaired():
                self._count_copy(event)
            case Verified(deleted=deleted):
                self._target_deletions.inc(deleted)
            case VerificationFailed():
                self._verification_failures.inc()
            case Carried() | CarryLeft() | CarryFailed():
                self._count_carry(event)
            case Signed() | SignLeft() | SignFailed():
                self._count_sign(event)
            case NoticeSent() | NoticeFailed() | NoticesDropped():
                self._count_notice(event)
            case SideDown(failure=failure):
                self._outages.labels(failure.side, failure.problem).inc()
            case _:
                pass

    def _count_feed(self, event: PageRead | GapsClosed | FeedDoubted | FeedReset) -> None:
        match event:
            case PageRead(late=late, missing=missing, refused=refused):
                self._late.inc(late)
                self._refused.inc(refused)
                self._missing.inc(missing)
            case GapsClosed(filled=filled, expired=expired, given_up=given_up):
                self._gaps_filled.inc(filled)
                self._gaps_expired.inc(expired)
                self._gaps_given_up.inc(given_up)
            case FeedDoubted():
                self._doubts.inc()
            case FeedReset():
                self._resets.inc()

    def _count_upkeep(
        self, event: SourceSwept | SweepFailed | Recounted | MissedFound | RecountFailed
    ) -> None:
        match event:
            case SourceSwept(deleted=deleted):
                self._deletions.inc(deleted)
            case SweepFailed():
                self._sweep_failures.inc()
            case Recounted(unexplained=unexplained):
                self._recounts.inc()
                self._recount_unexplained.inc(unexplained)
            case MissedFound():
                self._recount_found.inc()
            case RecountFailed():
                self._recount_failures.inc()

    def _count_copy(self, event: CopyFound | CopyRepaired | CopyNotRepaired) -> None:
        match event:
            case CopyFound(state=state):
                self._copies_found.labels(state).inc()
            case CopyRepaired():
                self._copy_repairs.labels("repaired").inc()
            case CopyNotRepaired():
                self._copy_repairs.labels("failed").inc()

    def _count_carry(self, event: Carried | CarryLeft | CarryFailed) -> None:
        match event:
            case Carried(written=written):
                for kind, number in written.items():
                    self._carried.labels(kind).inc(number)
            case CarryLeft(why=why):
                self._carry_left.labels(why).inc()
            case CarryFailed():
                self._carry_failures.inc()

    def _count_sign(self, event: Signed | SignLeft | SignFailed) -> None:
        match event:
            case Signed(kind=kind):
                self._signed.labels(kind).inc()
            case SignLeft(why=why):
                self._sign_left.labels(why).inc()
            case SignFailed():
                self._sign_failures.inc()

    def _count_notice(self, event: NoticeSent | NoticeFailed | NoticesDropped) -> None:
        match event:
            case NoticeSent(kind=kind, way=way):
                self._events_sent.labels(kind, way).inc()
            case NoticeFailed(way=way):
                self._event_failures.labels(way).inc()
            case NoticesDropped(count=count):
                self._events_dropped.inc(count)

    def _count_delivered(self, done: Delivered, exemplar: dict[str, str]) -> None:
        outcome = "already_there" if done.already_there else "delivered"
        if done.differing:
            outcome += "_differing"
        self._instances.labels(outcome, _known(done.source_syntax)).inc(exemplar=exemplar)
        self._source_bytes.inc(done.source_bytes)
        self._sizes.fetched_bytes += done.source_bytes
        self._target_bytes.inc(done.target_bytes)
        for decoder in done.fallbacks:
            self._fallbacks.labels(decoder).inc()
        for stage, times in self._stage_times.items():
            times.observe(getattr(done.stages, f"{stage}_s"), exemplar)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{NAMESPACE}_{name}", text, labels, registry=self.registry)


def _exemplar(event: Settled | InstanceParked) -> dict[str, str]:
    """Name the instance that a figure was counted for last, for OpenMetrics."""
    return {"instance": event.move.instance_id[:EXEMPLAR_MAX]}


def _known(syntax: str) -> str:
    """Return a label value from a bounded set: senders may invent transfer syntaxes."""
    return syntax if syntax in SYNTAXES or not syntax else "other"


# Gauges: what Prometheus is told of the state of things, read from the board at each scrape.

NAMESPACE = "orthanc_bridge"


class BoardView(Protocol):
    """What the gauges are read from."""

    @property
    def allowance(self) -> Allowance:
        """How much may be moved."""

    @property
    def progress(self) -> Progress:
        """Where the pipeline is."""

    @property
    def names(self) -> BridgeNames:
        """What people call this bridge and both servers."""

    @property
    def log_state(self) -> Callable[[], LogState]:
        """Tells whether the log can be written."""

    @property
    def audit_failure(self) -> Callable[[], str]:
        """Says why the audit file cannot be written; "" when it can be."""

    def parked(self) -> Mapping[str, int]:
        """Count the parked instances by reason."""

    def problems(self) -> tuple[Problem, ...]:
        """List what is wrong now."""

    def mirror(self) -> MirrorView | None:
        """What is known of verifications; None where there are none to be."""

    def carry(self) -> CarryView | None:
        """What is known of what lies beside the files; None where nothing is brought."""

    def signs(self) -> SignView | None:
        """What is known of signs at the source; None where nothing is signed."""

    def lacking(self) -> int | None:
        """Count what was delivered and the target lacks; None without retention."""

    def outbox(self) -> OutboxView:
        """What waits to be sent."""

    def studies_of_a_day(self) -> Mapping[str, int]:
        """Count the studies to which something came in the last day, by state."""


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
        found = self._board.problems()
        log = self._board.log_state()
        text = "Lines of the log that were lost since it could not be written."
        yield CounterMetricFamily(f"{NAMESPACE}_log_lost_lines", text, value=log.lost)
        build = {name.replace("-", "_"): version for name, version in versions().items()}
        yield InfoMetricFamily(f"{NAMESPACE}_build", "This program and its decoders.", value=build)
        yield InfoMetricFamily(
            f"{NAMESPACE}_bridge",
            "The name of this bridge, and the addresses of both servers.",
            value={
                "name": self._board.names.bridge,
                "source": self._board.names.source_url,
                "target": self._board.names.target_url,
            },
        )
        plain = (
            *_plain_gauges(progress, healthy=not found),
            *_limit_gauges(self._board.allowance),
            ("log_failing", "1 when the log cannot be written.", log.failing),
            (
                "audit_failing",
                "1 when the audit file cannot be written.",
                bool(self._board.audit_failure()),
            ),
            ("lag_bytes", "Estimated size of the instances that wait.", self._lag_bytes(progress)),
            (
                "delivered_lacking",
                "Delivered instances that the target lacks, or whose file it cannot read.",
                self._board.lacking(),
            ),
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
            "1 while the bridge intentionally starts nothing.",
            "reason",
            {progress.hold: 1} if progress.hold else {},
        )
        now = standing_of(progress, found, now=time.time())
        yield _labelled(
            "standing",
            "1 for the standing that the status page shows.",
            "standing",
            {standing: standing is now for standing in BridgeStanding},
        )
        yield _labelled("parked", "Instances parked now.", "reason", self._board.parked())
        yield from _mirror_gauges(self._board.mirror())
        yield from _carry_gauges(self._board.carry())
        yield from _sign_gauges(self._board.signs())
        yield from _outbox_gauges(self._board.outbox())
        text = "Studies to which an instance came in the last 24 hours."
        yield _labelled("studies", text, "state", self._board.studies_of_a_day())

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
    yield "state_writable", "1 when the state file can be written.", not progress.state_error
    yield "checkpoint_sequence", "Every change up to it is settled.", progress.checkpoint
    yield "last_sequence", "Newest sequence of the feed.", progress.last
    yield "oldest_unfinished_sequence", "The first change not settled.", progress.oldest_open
    yield "lag_changes", "Changes not settled yet.", lag.changes
    yield "lag_seconds", "Age of the oldest unfinished change.", lag.seconds
    gaps = progress.gaps
    yield "feed_gaps", "Gaps: ranges of sequences without a row.", gaps.gaps
    yield "feed_gap_sequences", "Sequences in gaps.", gaps.sequences
    gap_s = 0.0 if gaps.oldest_at is None else max(0.0, now - gaps.oldest_at)
    yield "feed_gap_oldest_seconds", "How long the oldest gap has been known.", gap_s
    yield "in_flight", "Instances in workers or queued for them.", len(started)
    oldest_s = max(0.0, now - min(started)) if started else 0.0
    yield (
        "in_flight_oldest_seconds",
        "How long the oldest instance in flight has been there.",
        oldest_s,
    )
    yield "waiting", "Instances read and not started.", progress.waiting + progress.delayed
    yield "came_back", "Instances that came back from the target.", progress.came_back.count
    yield "refused", "Instances refused while others are served.", progress.refused_count
    workforce = progress.workforce
    yield (
        "workers",
        "Worker processes, or workers of the cluster, that can be used.",
        workforce.workers,
    )
    yield "worker_threads", "Instances that the workers can process at once.", workforce.threads
    yield (
        "worker_threads_max",
        "Instances at once that the bridge may go up to by itself; 0: their number is given.",
        workforce.threads_max,
    )
    yield "workers_refused", "Workers of the cluster that get no work.", workforce.refused_count
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


def _mirror_gauges(view: MirrorView | None) -> Iterator[Metric]:
    """Yield the gauges of verifications, without values where there is none to be."""
    view = view or MirrorView()
    begun_at = view.begun_at
    age_s = None if begun_at is None else round(max(0.0, time.time() - begun_at))
    plain = (
        (
            "repairs_held",
            "Repairs and deletions that wait for orthanc-bridge check --confirm.",
            view.held,
        ),
        (
            "verified_instances",
            "Instances of the last complete verification.",
            None if begun_at is None else view.instances,
        ),
        ("verified_age_seconds", "Time since the last complete verification began.", age_s),
    )
    for name, text, value in plain:
        number = None if value is None else float(value)
        yield GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=number)
    text = "Instances in the last complete verification, by state of their copy."
    yield _labelled("copies", text, "state", view.counts)


def _carry_gauges(view: CarryView | None) -> Iterator[Metric]:
    """Yield the gauges of what lies beside the files, without values where nothing is brought."""
    lag_s = None
    if view is not None and view.caught_up_at is not None:
        lag_s = round(max(0.0, time.time() - view.caught_up_at))
    waiting = None if view is None else view.waiting
    plain = (
        (
            "carry_waiting",
            "Resources whose labels, metadata or attachments could not be copied yet.",
            waiting,
        ),
        (
            "carry_lag_seconds",
            "Time since all labels, metadata and attachments were copied.",
            lag_s,
        ),
    )
    for name, text, value in plain:
        number = None if value is None else float(value)
        yield GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=number)


def _sign_gauges(view: SignView | None) -> Iterator[Metric]:
    """Yield the gauges of signs at the source, without values where nothing is signed."""
    waiting = lag_s = None
    if view is not None:
        since = view.waiting_since
        waiting = view.waiting
        lag_s = 0 if since is None else round(max(0.0, time.time() - since))
    plain = (
        ("sign_waiting", "Delivered instances that are to be signed at the source.", waiting),
        ("sign_lag_seconds", "Time since the first of them was delivered.", lag_s),
    )
    for name, text, value in plain:
        number = None if value is None else float(value)
        yield GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=number)


def _outbox_gauges(view: OutboxView) -> Iterator[Metric]:
    text = "Events that wait to be sent."
    yield _labelled("events_waiting", text, "way", view.waiting)
    oldest_s = 0.0 if view.oldest_at is None else max(0.0, time.time() - view.oldest_at)
    text = "How long the oldest event has waited."
    yield GaugeMetricFamily(f"{NAMESPACE}_events_oldest_seconds", text, value=oldest_s)


def _limit_gauges(allowance: Allowance) -> Iterator[tuple[str, str, float | None]]:
    """Yield name, help and value; None where there is no limit."""
    instances_s, bytes_s = (
        allowance.instances_s,
        allowance.mbit_s_at(time.time()) * BITS_A_MEGABIT / 8,
    )
    yield "max_instances_per_second", "Instances moved a second at most.", instances_s or None
    yield "max_bytes_per_second", "Bytes moved a second at most, both ways.", bytes_s or None


def _labelled(
    name: str, text: str, label: str, values: Mapping[str, float | int]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], float(number))
    return family
