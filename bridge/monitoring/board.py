"""What the pipeline last reported, for the monitoring server and the metrics."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import bridge
from bridge.errors import StateError
from bridge.events import (
    CarryStopped,
    CarryWorks,
    CopyRepaired,
    Event,
    FeedDoubted,
    FeedReset,
    FeedTrusted,
    InstanceParked,
    InstanceRetried,
    MissedFound,
    Progress,
    RulesRead,
    RulesRefused,
    Settled,
    SideDown,
    SideUp,
    SideView,
    SignStopped,
    SignWorks,
    StateFailed,
    StateRecovered,
    SweepFailed,
    SweepWaits,
    SweepWorks,
    TellingFailed,
    TellingWorks,
    VerificationFailed,
    VerificationWorks,
)
from bridge.ledger.lock import explained
from bridge.ledger.outbox import EventLedger
from bridge.ledger.records import OutboxView, Parked
from bridge.ledger.store import CARRY_CAUGHT_UP_KEY, CARRY_LAST_KEY, Ledger
from bridge.ledger.verifications import (
    damaged_at_source,
    held_repairs,
    last_verification,
    repair_intent,
    source_doubt,
    under_way,
)
from bridge.marks import Mark, marks_that_stay
from bridge.model import Delivered, InstanceFailed, LogState, Move, OpenGaps, Outcome, SideFailed
from bridge.monitoring.headline import (
    STANDING_HOLDS,
    headline,
    next_command,
    rates_in_words,
    standing_of,
)
from bridge.monitoring.health import (
    CarryView,
    HealthLimits,
    MirrorView,
    Problem,
    SignView,
    audit_problems,
    behind,
    carry_in_words,
    carry_problems,
    events_problems,
    judge,
    kept_problem,
    lacking_problem,
    lag_of,
    latest,
    log_problems,
    marks_problem,
    mirror_problems,
    missed_problem,
    sign_in_words,
    sign_problems,
    verification_in_words,
)
from bridge.monitoring.kept_files import KeptFiles, KeptView
from bridge.monitoring.names import NO_NAMES, BridgeNames
from bridge.monitoring.studies import parked_fields, studies_page
from bridge.monitoring.throughput_history import (
    QUARTER_HOUR,
    SPANS,
    ThroughputHistory,
    ThroughputOf,
    since_boot_s,
)
from bridge.monitoring.time_left import FeedStep, TimeLeft, time_left
from bridge.pipeline.pacing import Allowance
from bridge.standard_streams import log_state
from bridge.versions import versions

PARKED_FRESH_S = 1.0
STUDIES_FRESH_S, STUDIES_OF_S = 30.0, 86_400.0
"""Studies of the last day are counted so often: it takes a moment where there are many."""
PARKED_SHOWN_MAX = 10
"""So many parked instances are shown one by one, those that were parked last."""
MISSED_TOLD_S = 3600.0
"""So long after the last one /health says that the feed had not told of instances."""

NOT_CONTACTED = Progress(
    source=SideView(up=False, problem="not_contacted", message="The source was not asked yet."),
    target=SideView(up=False, problem="not_contacted", message="The target was not asked yet."),
)


def gap_fields(gaps: OpenGaps, given_up: int, *, now: float) -> dict[str, object]:
    """Return what is known of the feed's gaps, as JSON-ready values. ``now``: epoch seconds."""
    oldest_s = None if gaps.oldest_at is None else round(max(0.0, now - gaps.oldest_at), 1)
    return {
        "open": gaps.gaps,
        "sequences": gaps.sequences,
        "oldest_s": oldest_s,
        "given_up": given_up,
    }


def mirror_view(ledger: Ledger) -> MirrorView:
    """Return what the state file keeps of verifications. Raises StateError."""
    last, now_under_way = last_verification(ledger), under_way(ledger)
    done = None if now_under_way is None else now_under_way.instances
    unfinished = repair_intent(ledger) is not None
    doubt, held = source_doubt(ledger), held_repairs(ledger)
    damaged = len(damaged_at_source(ledger))
    if last is None:
        return MirrorView(
            done=done, held=held, unfinished=unfinished, doubt=doubt, source_damaged=damaged
        )
    return MirrorView(
        begun_at=last.begun_at,
        ended_at=last.ended_at,
        instances=last.instances,
        counts=last.counts,
        unresolved=max(0, last.differences - last.repaired),
        repaired=last.repaired,
        deleted=last.deleted,
        held=held,
        done=done,
        unfinished=unfinished,
        doubt=doubt,
        source_damaged=damaged,
    )


def mirror_fields(view: MirrorView | None, *, now: float) -> dict[str, object] | None:
    """Return what is known of verifications, as JSON-ready values; None where there are none."""
    if view is None:
        return None
    return asdict(view) | {"text": verification_in_words(view, now=now)}


def carry_view(ledger: Ledger) -> CarryView:
    """Return what the state file keeps of what lies beside the files. Raises StateError."""
    waiting, since = ledger.carry_waiting()
    caught_up, text = ledger.meta(CARRY_CAUGHT_UP_KEY), ledger.meta(CARRY_LAST_KEY)
    with explained(ledger.path):
        last = {} if text is None else json.loads(text)
        return CarryView(
            caught_up_at=None if caught_up is None else float(caught_up),
            waiting=waiting,
            waiting_since=since,
            compared_at=float(last["ended_at"]) if last else None,
            resources=int(last.get("resources", 0)),
            left=int(last.get("left", 0)),
        )


def sign_view(ledger: Ledger) -> SignView:
    """Return what the state file keeps of signs at the source. Raises StateError."""
    return SignView(*ledger.signs_waiting())


def sign_fields(view: SignView | None, *, now: float) -> dict[str, object] | None:
    """Return what is known of them, as JSON-ready values; None where nothing is signed."""
    if view is None:
        return None
    return asdict(view) | {"text": sign_in_words(view, now=now)}


def carry_fields(view: CarryView | None, *, now: float) -> dict[str, object] | None:
    """Return what is known of it, as JSON-ready values; None where nothing is to be brought."""
    if view is None:
        return None
    return asdict(view) | {"text": carry_in_words(view, now=now)}


def _study_of(ledger: Ledger, parked: Parked) -> str:
    """Return the UID of the study of a parked instance, "" where it is in none on record."""
    found = ledger.find_studies(parked.move.instance_id, limit=1)
    return found[0].study.uid if found else ""


def _rounded(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 1) for name, value in seconds.items()}


CARRY, SIGNS = "carry", "signs"
CLOCK_STEP_S = 5.0
"""When the clock has moved so much against the one that nobody sets, it was set."""


class Board:
    """An observer that other threads read. Values are replaced, never changed."""

    def __init__(
        self,
        state_path: Path,
        limits: HealthLimits,
        allowance: Allowance | None = None,
        stage_of: Callable[[int], str] = lambda _: "",
        names: BridgeNames = NO_NAMES,
        *,
        steady_s: Callable[[], float] | None = None,
        now_s: Callable[[], float] = time.time,
        log_state: Callable[[], LogState] = log_state,
    ) -> None:
        self._steady_s = steady_s or time.monotonic
        self._now_s = now_s
        self._ahead_s = now_s() - self._steady_s()
        """How far the clock on the wall is ahead of the one that nobody sets."""
        self._set_at = 0.0
        """When the clock was found to be set last, epoch seconds by the clock as it is now."""
        self.log_state = log_state
        self.audit_failure: Callable[[], str] = lambda: ""
        """Says why the audit file cannot be written; "" when it can be, or there is none."""
        self.allowance = allowance or Allowance()
        self.names = names
        self._stage_of = stage_of
        self._state_path = state_path
        self._limits = limits
        self._lock = threading.Lock()
        self._clock_lock = threading.Lock()
        self._parked: Mapping[str, int] = {}
        self._newest_parked: tuple[tuple[Parked, str], ...] = ()
        """Each with the UID of its study, "" where that is not known."""
        self._dropped = 0
        self._parked_at_s = float("-inf")
        self._gaps_given_up = 0
        self._marks: list[Mark] = []
        self._lacking = 0
        self._state_error = ""
        self._feed_reset = self._feed_doubt = ""
        self._sweep_error = ""
        self._sweep_waits = ""
        self._rules_refused = ""
        self._certificate_refused = ""
        self._missed = (float("-inf"), 0)
        self._kept = KeptFiles()
        self._kept_lock = threading.Lock()
        self._mirror = MirrorView()
        self._carry = CarryView()
        self._signs = SignView()
        self._stopped: dict[str, tuple[float, str]] = {}
        """What beside the files cannot be done, since when and why: CARRY, SIGNS."""
        self._outbox = OutboxView()
        self._studies: Mapping[str, int] = {}
        self._studies_at_s = float("-inf")
        self._telling_failed: tuple[float, str] | None = None
        """Since when it cannot be learned what events tell, epoch seconds, and why."""
        self._verification_failed: tuple[float, str] | None = None
        """Since when it cannot go on, epoch seconds, and why."""
        self._recent = Recent(steady_s=self._steady_s)
        self.history = ThroughputHistory(now_s=now_s, steady_s=steady_s or since_boot_s)
        self._started_at = now_s()
        self.progress: Progress = NOT_CONTACTED

    def on_event(self, event: Event) -> None:
        """Remember that the feed was reset, and what happened lately."""
        self._heed_clock()
        match event:
            case FeedDoubted() | FeedTrusted() | FeedReset():
                self._hear_of_feed(event)
            case SweepFailed(message=message):
                self._sweep_error, self._sweep_waits = message, ""
            case SweepWaits(message=message):
                self._sweep_error, self._sweep_waits = "", message
            case RulesRefused(message=message):
                self._rules_refused = message
            case RulesRead():
                self._rules_refused = ""
            case SweepWorks():
                self._sweep_error = self._sweep_waits = ""
            case VerificationFailed(message=message):
                since = self._verification_failed
                self._verification_failed = (since[0] if since else self._now_s(), message)
            case VerificationWorks():
                self._verification_failed = None
            case CarryStopped() | CarryWorks() | SignStopped() | SignWorks():
                self._hear_of_work(event)
            case TellingFailed() | TellingWorks():
                self._hear_of_telling(event)
            case MissedFound():
                now_s = time.monotonic()
                at_s, before = self._missed
                self._missed = (now_s, before + 1 if now_s - at_s < MISSED_TOLD_S else 1)
            case _:
                pass
        self._hear_of_copy(event)
        self._recent.on_event(event)
        self.history.on_event(event)

    def _hear_of_feed(self, event: FeedDoubted | FeedTrusted | FeedReset) -> None:
        match event:
            case FeedDoubted(message=message):
                self._feed_doubt = message
            case FeedTrusted():
                self._feed_doubt = ""
            case FeedReset(message=message):
                self._feed_doubt, self._feed_reset = "", message

    def tell_certificate(self, refused: str) -> None:
        """Remember why the renewed certificate of the server is refused; "" when it is not."""
        self._certificate_refused = refused

    def on_progress(self, progress: Progress) -> None:
        """Take the newest report. A feed reset is told until its snapshot is over."""
        self._heed_clock()
        if self.progress.phase == "snapshot" and progress.phase == "following":
            self._feed_reset = ""
        self.progress = progress
        self._recent.on_progress(progress)
        held = held_by(progress)
        self.history.reported("" if held == NOT_RUNNING else held)

    def _heed_clock(self) -> None:
        """Keep since when something lasts true to its age after the clock was set, either way."""
        with self._clock_lock:
            moved_s = self._now_s() - self._steady_s() - self._ahead_s
            if abs(moved_s) < CLOCK_STEP_S:
                return
            self._ahead_s += moved_s
            self._set_at = self._now_s()
            self._started_at += moved_s
            self._stopped = {
                what: (since + moved_s, why) for what, (since, why) in self._stopped.items()
            }
            if self._telling_failed is not None:
                since, why = self._telling_failed
                self._telling_failed = since + moved_s, why
            if self._verification_failed is not None:
                since, why = self._verification_failed
                self._verification_failed = since + moved_s, why

    def _hear_of_work(self, event: CarryStopped | CarryWorks | SignStopped | SignWorks) -> None:
        what = CARRY if isinstance(event, CarryStopped | CarryWorks) else SIGNS
        if isinstance(event, CarryWorks | SignWorks):
            self._stopped.pop(what, None)
            return
        since, _ = self._stopped.get(what, (self._now_s(), ""))
        self._stopped[what] = (since, event.message)

    def _hear_of_copy(self, event: Event) -> None:
        with self._kept_lock:
            match event:
                case Settled(outcome=Delivered(differing=True)):
                    self._kept.note(event.move.instance_id, self._steady_s())
                case Settled():
                    self._kept.forget(event.move.instance_id)
                case CopyRepaired():
                    self._kept.forget(event.instance_id)
                case _:
                    pass

    def kept_by_target(self) -> KeptView:
        """Return of which instances the target kept another file than was sent."""
        with self._kept_lock:
            return self._kept.view(self._steady_s())

    def _hear_of_telling(self, event: TellingFailed | TellingWorks) -> None:
        match event:
            case TellingFailed(message=message):
                told = self._telling_failed
                self._telling_failed = (told[0] if told else self._now_s(), message)
            case TellingWorks():
                self._telling_failed = None

    def parked(self) -> Mapping[str, int]:
        """Count the parked instances by reason; at most a second old.

        Read from the file, since commands beside this process park and unpark too.
        """
        with self._lock:
            if time.monotonic() - self._parked_at_s >= PARKED_FRESH_S:
                try:
                    with EventLedger(self._state_path, create=False) as ledger:
                        self._parked = ledger.parked_by_reason()
                        newest = ledger.newest_parked(PARKED_SHOWN_MAX)
                        self._newest_parked = tuple((p, _study_of(ledger, p)) for p in newest)
                        self._dropped = ledger.dropped_count()
                        self._gaps_given_up = ledger.gaps_given_up()
                        self._marks = marks_that_stay(ledger, self._now_s())
                        self._lacking = ledger.missed_at_target()
                        self._mirror = mirror_view(ledger)
                        self._carry = carry_view(ledger)
                        self._signs = sign_view(ledger) if self._limits.signs else SignView()
                        self._outbox = ledger.outbox()
                        self._count_studies(ledger)
                    self._state_error = ""
                except StateError as exc:
                    self._state_error = exc.message
                self._parked_at_s = time.monotonic()
            return self._parked

    def mirror(self) -> MirrorView | None:
        """Return what is known of verifications; None where there are none to be.

        But a repair that is not at its end is shown all the same.
        """
        self.parked()
        if self._limits.verify_every_s is None and not self._mirror.unfinished:
            return None
        failed = self._verification_failed
        if failed is None:
            return self._mirror
        return replace(self._mirror, failing_since=failed[0], failure=failed[1])

    def carry(self) -> CarryView | None:
        """Return what is known of what lies beside the files; None where nothing is brought."""
        if not self._limits.carries:
            return None
        self.parked()
        stopped = self._stopped.get(CARRY)
        if stopped is None:
            return self._carry
        return replace(self._carry, stopped_since=stopped[0], stopped=stopped[1])

    def _count_studies(self, ledger: EventLedger) -> None:
        if time.monotonic() - self._studies_at_s >= STUDIES_FRESH_S:
            counts = ledger.studies_since(self._now_s() - STUDIES_OF_S)
            self._studies = dict(zip(("any", "stable", "incomplete"), counts, strict=True))
            self._studies_at_s = time.monotonic()

    def studies_of_a_day(self) -> Mapping[str, int]:
        """Count the studies to which something came in the last day, by state; a minute old."""
        self.parked()
        return self._studies

    def signs(self) -> SignView | None:
        """Return what is known of signs at the source; None where nothing is signed."""
        if not self._limits.signs:
            return None
        self.parked()
        stopped = self._stopped.get(SIGNS)
        if stopped is None:
            return self._signs
        return replace(self._signs, stopped_since=stopped[0], stopped=stopped[1])

    def lacking(self) -> int | None:
        """Count what was delivered and the target lacks; a second old. None without retention."""
        self.parked()
        return self._lacking if self._limits.retains else None

    def outbox(self) -> OutboxView:
        """Return what waits to be sent; at most a second old."""
        self.parked()
        return self._outbox

    def problems(self) -> tuple[Problem, ...]:
        """List what is wrong now."""
        self._heed_clock()
        parked = self.parked()
        # What the pipeline noted by the clock as it was tells no age any more.
        able_at = latest(self.progress.able_since, self._set_at, now=self._now_s())
        found = judge(
            replace(self.progress, able_since=able_at),
            parked,
            self._limits,
            now=self._now_s(),
            feed_reset=self._feed_reset,
            feed_doubt=self._feed_doubt,
            gaps_given_up=self._gaps_given_up,
        )
        found += audit_problems(self.audit_failure()) + log_problems(self.log_state())
        if self._state_error and not self.progress.state_error:
            found = (*found, Problem("state_unreadable", self._state_error))
        if self._sweep_error:
            advice = (
                "Nothing is deleted at the source meanwhile. To see why: orthanc-bridge retention "
                "--dry-run. Which rights the logins need: orthanc-bridge docs security."
            )
            found = (*found, Problem("retention_failing", self._sweep_error, advice))
        if self._sweep_waits:
            advice = (
                "It goes on by itself. If this comes again, see the source's log: why does it not "
                "answer a deletion, or not do it?"
            )
            found = (*found, Problem("retention_waiting", self._sweep_waits, advice))
        if lacking := self.lacking():
            found = (*found, lacking_problem(lacking))
        if (kept := self.kept_by_target()).count:
            found = (*found, kept_problem(kept))
        if self._marks:
            found = (*found, marks_problem([str(mark) for mark in self._marks]))
        if self._certificate_refused:
            advice = "The monitoring server still uses the previous certificate. Correct the files."
            found = (*found, Problem("certificate_refused", self._certificate_refused, advice))
        if self._rules_refused:
            advice = (
                "The bridge keeps using the previous rules. Correct the file: the bridge then "
                "reads it again."
            )
            found = (*found, Problem("rules_refused", self._rules_refused, advice))
        mirror = self.mirror()
        if mirror is not None:
            every_s, now = self._limits.verify_every_s, self._now_s()
            found += mirror_problems(
                mirror, every_s, started_at=self._started_at, now=now, clock_set_at=self._set_at
            )
        carry, signs = self.carry(), self.signs()
        # A pause, quiet hours and an outage are no standstill.
        held = bool(self.progress.hold)
        idle_at = max(self._started_at, able_at)
        if carry is not None:
            found += carry_problems(carry, idle_at=idle_at, held=held, now=self._now_s())
        if signs is not None:
            found += sign_problems(signs, idle_at=idle_at, held=held, now=self._now_s())
        found += events_problems(self._outbox, self._telling_failed, now=self._now_s())
        at_s, missed = self._missed
        if time.monotonic() - at_s < MISSED_TOLD_S:
            found = (*found, missed_problem(missed))
        return found

    def health(self) -> dict[str, object]:
        """Return what a monitoring system asks for, as JSON-ready values."""
        progress = self.progress
        now = self._now_s()
        parked = dict(self.parked())
        found = self.problems()
        lag = lag_of(progress, now=now)
        total = sum(parked.values())
        left = self.time_left()
        said = headline(
            progress,
            found,
            parked=total,
            dropped=self._dropped,
            now=now,
            rates=rates_in_words(self.allowance.instances_s, self.allowance.mbit_s),
            left=left,
        )
        as_typed = self.names.as_typed
        return {
            "status": "ok" if not found else "failing",
            "standing": standing_of(progress, found, now=now),
            "headline": as_typed(said),
            "command": as_typed(next_command(progress, found)),
            "name": self.names.bridge,
            "reasons": [
                {
                    "code": problem.code,
                    "message": as_typed(problem.message),
                    "advice": as_typed(problem.advice),
                }
                for problem in found
            ],
            "version": bridge.__version__,
            "phase": progress.phase,
            "hold": progress.hold,
            "checkpoint": progress.checkpoint,
            "last": progress.last,
            "caught_up": progress.caught_up,
            "lag_changes": lag.changes,
            "lag_s": round(lag.seconds, 1),
            "time_left": None if left is None else _rounded(asdict(left)),
            "oldest_unfinished": progress.oldest_open,
            "oldest_unfinished_changed_at": progress.oldest_changed_at,
            "waiting": progress.waiting + progress.delayed,
            "in_flight": len(progress.in_flight),
            "workers": asdict(progress.workforce),
            "parked": parked,
            "dropped": self._dropped,
            "parked_total": total,
            "source": asdict(progress.source) | {"url": self.names.source_url},
            "target": asdict(progress.target) | {"url": self.names.target_url},
            "gaps": gap_fields(progress.gaps, self._gaps_given_up, now=now),
            "verification": mirror_fields(self.mirror(), now=now),
            "carry": carry_fields(self.carry(), now=now),
            "signs": sign_fields(self.signs(), now=now),
            "feed_read_at": progress.feed_read_at,
            "last_progress_at": progress.last_progress_at or None,
        }

    def time_left(self) -> TimeLeft | None:
        """Estimate how long the changes to go will take; None when that cannot be said now."""
        if held_by(self.progress) or self.progress.phase != "following":
            return None
        changes = lag_of(self.progress, now=0.0).changes
        return time_left(changes, self._recent.steps(), step_s=INTERVAL_S)

    @contextmanager
    def kept_in(self, ledger: Ledger) -> Iterator[None]:
        """Go on from the throughput that the ledger has, and save it, until the block ends."""
        with self.history.kept_in(ledger):
            self._recent.begin_with(self.history.spans()[QUARTER_HOUR])
            yield

    def throughput(self) -> dict[str, object]:
        """Return what was delivered in the last hour, day and month."""
        return {name: asdict(span) for name, span in self.history.spans().items()}

    def studies(
        self, *, search: str = "", after: str = "", incomplete: bool = False
    ) -> dict[str, object]:
        """Return what the page of studies shows. Raises StateError."""
        wanted = studies_page(self._state_path, search=search, after=after, incomplete=incomplete)
        return wanted | {"name": self.names.bridge} | self._for_links()

    def _for_links(self) -> dict[str, object]:
        urls = {"source": self.names.source_public_url, "target": self.names.target_public_url}
        return {"public_urls": urls, "command_prefix": self.names.command_prefix}

    def status(self) -> dict[str, object]:
        """Return everything known, for the status page; the oldest in flight first."""
        now = self._now_s()
        in_flight = sorted(self.progress.in_flight, key=lambda item: item.started_at)
        return self.health() | {
            "now": round(now, 1),
            "started_at": round(self._started_at, 1),
            "versions": versions(),
            **self._for_links(),
            "parked_newest": [
                parked_fields(parked) | {"study": study} for parked, study in self._newest_parked
            ],
            "limits": {
                "instances_s": self.allowance.instances_s,
                "mbit_s": self.allowance.mbit_s_at(now),
                "quiet_hours": self.allowance.quiet_hours,
            },
            "in_flight": [
                {
                    "instance": item.instance_id,
                    "sequence": item.sequence,
                    "stage": self._stage_of(item.number),
                    "attempt": item.attempt,
                    "age_s": round(max(0.0, now - item.started_at), 1),
                }
                for item in in_flight
            ],
            "refused": [asdict(refused) for refused in self.progress.refused],
            "throughput": asdict(self._recent.throughput()),
            "failures": [asdict(failure) for failure in self._recent.failures()],
        }


# What happened lately: finished instances by interval, and the last failures.
#
# An observer; everything is bounded, and forgotten with the process but for what was delivered.
# Identifiers and reasons only.

INTERVAL_S, INTERVALS = SPANS[QUARTER_HOUR]
"""How far back: a quarter of an hour."""
FAILURES_MAX = 20
OUTAGE = "outage"
NOT_RUNNING = "not_running"
"""What held an interval before the bridge was started."""


def held_by(progress: Progress) -> str:
    """Say what keeps everything from being started; "" when nothing does."""
    for side, view in (("source", progress.source), ("target", progress.target)):
        if not view.up:
            return NOT_RUNNING if view.problem == "not_contacted" else f"{side}_down"
    if progress.state_error:
        return "state_unwritable"
    return progress.hold if progress.hold in STANDING_HOLDS else ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that failed. ``at`` is in epoch seconds.

    ``what``: an instance that is parked or retried; or, without one, an ``outage`` of a server, the
    state, the deletions at the source or the feed. ``reason``: that of the instance, or the code by
    which /health tells it. ``lasted_s``: of an outage that is over.
    """

    at: float
    what: str
    reason: str
    instance_id: str = ""
    sequence: int | None = None
    attempts: int = 0
    lasted_s: float | None = None


@dataclass(frozen=True, slots=True)
class RecentThroughput:
    """Finished instances and delivered bytes of each interval, the oldest first.

    The last interval is the one that is under way. ``held``: what kept everything from being
    started at some time in it, "" for nothing.
    """

    interval_s: int
    instances: tuple[int, ...]
    target_bytes: tuple[int, ...]
    held: tuple[str, ...]


class Recent:
    """Remembers the last quarter of an hour. Read from other threads."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_s = now_s
        self._steady_s = steady_s
        self._lock = threading.Lock()
        self._begun = self._current = self._interval()
        self._before: ThroughputOf | None = None
        """What was delivered before this process began, up to the interval in which it did."""
        self._instances: deque[int] = deque([0] * INTERVALS, maxlen=INTERVALS)
        self._bytes: deque[int] = deque([0] * INTERVALS, maxlen=INTERVALS)
        self._done: deque[int] = deque([0] * INTERVALS, maxlen=INTERVALS)
        self._new: deque[int] = deque([0] * INTERVALS, maxlen=INTERVALS)
        self._held: deque[str] = deque([NOT_RUNNING] * INTERVALS, maxlen=INTERVALS)
        self._held_now = NOT_RUNNING
        self._place: tuple[int, int] | None = None
        """The newest change that was known of last, and how many were to go then."""
        self._failures: deque[Failure] = deque(maxlen=FAILURES_MAX)
        self._outages: dict[str, tuple[Failure, float]] = {}
        """Those that are not over, by what is out."""

    def begin_with(self, before: ThroughputOf) -> None:
        """Go on from what was delivered before this process began."""
        with self._lock:
            self._before, self._begun = before, self._interval()

    def on_progress(self, progress: Progress) -> None:
        """Remember how the backlog changes, and what holds everything back."""
        held = held_by(progress)
        with self._lock:
            self._advance()
            if held or self._held[-1] == NOT_RUNNING:
                self._held[-1] = held
            self._held_now = held
            if progress.last is None or progress.checkpoint is None:
                return
            to_go = behind(progress.last, progress.checkpoint, caught_up=progress.caught_up)
            if self._place is not None:
                last, to_go_before = self._place
                new = max(0, progress.last - last)
                self._new[-1] += new
                self._done[-1] += max(0, to_go_before + new - to_go)
            self._place = (progress.last, to_go)

    def on_event(self, event: Event) -> None:
        """Remember a delivery or a failure."""
        match event:
            case Settled(outcome=Delivered(target_bytes=size)):
                with self._lock:
                    self._advance()
                    self._instances[-1] += 1
                    self._bytes[-1] += size
            case InstanceParked(move=move, reason=reason, attempts=attempts, retries=0):
                self._fail("parked", move, reason, attempts)
            case InstanceRetried(move=move, outcome=outcome, attempts=attempts):
                self._fail("retried", move, _reason_of(outcome), attempts)
            case SideDown(failure=failure):
                self._begin_outage(failure.side, f"{failure.side}_{failure.problem}")
            case SideUp(side=side):
                self._end_outage(side)
            case StateFailed():
                self._begin_outage("state", "state_unwritable")
            case StateRecovered():
                self._end_outage("state")
            case SweepFailed() if "retention" not in self._outages:
                self._begin_outage("retention", "retention_failing")
            case SweepWorks():
                self._end_outage("retention")
            case FeedDoubted() | FeedTrusted() | FeedReset():
                self._hear_of_feed(event)
            case _:
                pass

    def _hear_of_feed(self, event: FeedDoubted | FeedTrusted | FeedReset) -> None:
        if isinstance(event, FeedDoubted):
            if "feed" not in self._outages:
                self._begin_outage("feed", "feed_in_doubt")
            return
        self._end_outage("feed")
        if isinstance(event, FeedReset):
            self._remember(Failure(self._now_s(), OUTAGE, "feed_went_backwards"))

    def throughput(self) -> RecentThroughput:
        """Return what was finished in each of the last intervals."""
        with self._lock:
            self._advance()
            instances, sizes, held = list(self._instances), list(self._bytes), list(self._held)
            before, passed = self._before, self._current - self._begun
            if before is not None and passed < INTERVALS:
                kept = INTERVALS - passed
                for place in range(kept):
                    instances[place] += before.instances[place + passed]
                    sizes[place] += before.target_bytes[place + passed]
                held[: kept - 1] = before.held[passed:-1]
            return RecentThroughput(INTERVAL_S, tuple(instances), tuple(sizes), tuple(held))

    def steps(self) -> tuple[FeedStep, ...]:
        """Return what the intervals that are over did to the backlog, the oldest first."""
        with self._lock:
            self._advance()
            rows = zip(self._done, self._new, self._held, strict=True)
            return tuple(FeedStep(done, new, not held) for done, new, held in rows)[:-1]

    def failures(self) -> tuple[Failure, ...]:
        """Return the last failures, the newest first."""
        with self._lock:
            return tuple(reversed(self._failures))

    def _fail(self, what: str, move: Move, reason: str, attempts: int) -> None:
        self._remember(
            Failure(self._now_s(), what, reason, move.instance_id, move.sequence, attempts)
        )

    def _remember(self, failure: Failure) -> None:
        with self._lock:
            self._failures.append(failure)

    def _begin_outage(self, of: str, code: str) -> None:
        failure = Failure(self._now_s(), OUTAGE, code)
        self._outages[of] = (failure, self._steady_s())
        self._remember(failure)

    def _end_outage(self, of: str) -> None:
        """Note how long it has lasted, unless it has been forgotten meanwhile."""
        begun, begun_s = self._outages.pop(of, (None, 0.0))
        if begun is None:
            return
        ended = replace(begun, lasted_s=round(self._steady_s() - begun_s, 1))
        with self._lock:
            for place, failure in enumerate(self._failures):
                if failure is begun:
                    self._failures[place] = ended

    def _interval(self) -> int:
        return int(self._steady_s() // INTERVAL_S)

    def _advance(self) -> None:
        """Begin the intervals that have come since; the oldest are dropped."""
        now = self._interval()
        for _ in range(min(now - self._current, INTERVALS)):
            self._instances.append(0)
            self._bytes.append(0)
            self._done.append(0)
            self._new.append(0)
            self._held.append(self._held_now)
        self._current = now


def _reason_of(outcome: Outcome) -> str:
    """Say why an instance is tried again, as /health would."""
    match outcome:
        case InstanceFailed(reason=reason):
            return reason
        case SideFailed(side=side, problem=problem):
            return f"{side}_{problem}"
        case _:
            return "workers_failing"
