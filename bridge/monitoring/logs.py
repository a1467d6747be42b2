"""What the log says of each event. Identifiers and UIDs only, never patient data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict

from bridge.dicom.syntaxes import keyword_of
from bridge.events import (
    LOCAL,
    NO_WORKERS,
    Abandoned,
    ActionTaken,
    Carried,
    CarryFailed,
    CarryLeft,
    CarryRoundEnded,
    CopyFound,
    CopyNotRepaired,
    CopyRepaired,
    CopyReplaces,
    Draining,
    Event,
    FeedDoubted,
    FeedReset,
    FeedTrusted,
    GapsClosed,
    InstanceDropped,
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
    RulesRead,
    RulesRefused,
    Settled,
    SideDown,
    SideStillDown,
    SideUp,
    Signed,
    SignFailed,
    SignLeft,
    SourceDeletes,
    SourceSwept,
    StateFailed,
    StateRecovered,
    TargetDeletes,
    TargetKept,
    TellingFailed,
    TellingWorks,
    Verified,
    WorkerLost,
    Workforce,
)
from bridge.log import LOGGER, log
from bridge.model import Delivered, ExecutorFailed, Move, Reason, SideFailed, Skipped, StageTimes
from bridge.monitoring.headline import HOLDS, STANDING_HOLDS
from bridge.monitoring.health import counted, lasting

REPEAT_S = 60.0
"""An outage that goes on is said again this often."""
"""A rate limit begins and ends many times a second: it is not logged."""
CARRY_LEFT = {
    "foreign": "somebody else has written another value there",
    "too_large": "it is larger than BRIDGE_CARRY_MAX_MB",
    "no_labels": "a server is older than Orthanc 1.12 and has no labels (this is logged once)",
    "unknown_name": (
        "the target does not know this name; configure it there (UserMetadata, UserContentType) as "
        "at the source (this is logged once)"
    ),
}
SIGN_LEFT = {
    "changed": "it holds another file than was delivered",
    "foreign": "somebody else has written another value there",
    "no_labels": "it is older than Orthanc 1.12 and has no labels; it is said once",
    "no_md5": "it does not tell the MD5 of its files",
}
COMMANDS = ("replaying", "retrying")
"""Phases of a command that a person has just started and knows of."""


OWN_ROWS_MAX = 5
"""Changes of an instance that come after its own row and go with it: two of a mark that was set and
removed, and three that its series, its study and its patient are stable."""


class LogObserver:
    """Turns events into log lines, and changes of phase."""

    def __init__(self, *, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._steady_s = steady_s
        self._said_s: dict[str, float] = {}
        self._phase = ""
        self._hold = ""
        self._workforce = NO_WORKERS
        self._deleted = 0
        """Instances that this bridge has deleted at the source."""
        self._deleted_before = (0, 0)
        """How many they were at the two last pages: one page may have been on its way meanwhile."""

    def on_progress(self, progress: Progress) -> None:
        """Say what the bridge does from now on, when that changes."""
        if progress.phase != self._phase:
            self._phase = progress.phase
            text = progress.phase
            if progress.phase != "starting":  # the state file is not read yet
                text += f", checkpoint {_or_none(progress.checkpoint)}"
            fields = {"phase": progress.phase, "checkpoint": progress.checkpoint}
            level = logging.DEBUG if progress.phase in COMMANDS else logging.INFO
            log(level, "phase", text, **fields)
        hold = progress.hold if progress.hold in STANDING_HOLDS else ""
        if hold != self._hold:
            self._hold = hold
            text = f"nothing new is started: {HOLDS[hold]}" if hold else "resumed"
            log(logging.INFO, "hold", text, hold=hold)
        if progress.workforce != self._workforce:
            self._about_the_workforce(self._workforce, progress.workforce)
            self._workforce = progress.workforce

    def _about_the_workforce(self, before: Workforce, now: Workforce) -> None:
        """Say how a cluster changes; the bridge's own workers are always there."""
        if now.place == LOCAL:
            return
        for refused in set(now.refused) - set(before.refused):
            text = f"worker {refused.address} gets no work: {refused.reason}"
            log(logging.ERROR, "worker_refused", text, worker=refused.address)
        if now.problem and now.problem != before.problem:
            text = f"{now.message} {now.advice}".strip()
            log(logging.ERROR, "cluster_unusable", text, problem=now.problem, cluster=now.place)
        elif not now.problem and (now.workers, now.threads) != (before.workers, before.threads):
            text = f"{counted(now.workers, 'worker')} at {now.place}, {now.threads} threads"
            counts = {"workers": now.workers, "threads": now.threads}
            log(logging.INFO, "cluster", text, **counts, cluster=now.place)

    def on_event(self, event: Event) -> None:
        """Write the line of an event."""
        match event:
            case Settled(move=move, outcome=Delivered() as done, attempt=attempt):
                _log_delivered(move, done, attempt)
            case Settled(move=move, outcome=Skipped(reason=Reason.DRY_RUN) as looked_at):
                text = f"dry run: {_name(move)} {looked_at.message}"
                known = {"reason": Reason.DRY_RUN, "source_syntax": looked_at.source_syntax}
                log(logging.INFO, "instance_skipped", text, **_of(move), **known)
            case Settled(move=move, outcome=Skipped(reason=reason) as skipped):
                text = f"skipped {_name(move)}: {skipped.message or reason}"
                known = {"reason": reason, "source_syntax": skipped.source_syntax}
                level = logging.WARNING if reason is Reason.CAME_BACK else logging.INFO
                log(level, "instance_skipped", text, **_of(move), **known)
            case InstanceParked():
                _log_parked(event)
            case InstanceRetried(outcome=SideFailed(side=side)) if not self._quiet_since(
                f"{side} refuses"
            ):
                pass  # a limit on the way may refuse thousands
            case InstanceRetried(move=move, outcome=ExecutorFailed() as failed):
                if self._quiet_since("executor"):
                    why = f"{failed.message} {failed.advice}".strip()
                    text = (
                        f"the attempt at {_name(move)} failed for a reason outside of the "
                        f"instance: {why}"
                    )
                    log(logging.ERROR, "executor_failed", text, **_of(move))
            case InstanceRetried(move=move, outcome=outcome, attempts=attempts, after_s=after_s):
                why = f"{getattr(outcome, 'message', '')} {getattr(outcome, 'advice', '')}".strip()
                so_far = counted(attempts, "attempt")
                text = f"will retry {_name(move)} in {after_s:.1f} s after {so_far}: {why}"
                fields = {"attempts": attempts, "after_s": round(after_s, 1), "detail": why}
                log(logging.WARNING, "instance_retried", text, **_of(move), **fields)
            case ParkedRetried() | WorkerLost():
                _log_beside(event)
            case SideDown() | SideStillDown() | SideUp() | NoticeFailed():
                self._about_a_receiver(event)
            case SourceDeletes() | PageRead():
                self._about_rows(event)
            case _:
                _log_service(event)

    def _about_rows(self, event: SourceDeletes | PageRead) -> None:
        match event:
            case SourceDeletes():
                self._deleted += 1
            case PageRead():
                _log_page(event, self._deleted - self._deleted_before[0])
                self._deleted_before = self._deleted_before[1], self._deleted

    def _about_a_receiver(self, event: SideDown | SideStillDown | SideUp | NoticeFailed) -> None:
        match event:
            case NoticeFailed(kind=kind, way=way, message=message):
                if self._quiet_since(f"events by {way}"):
                    text = (
                        f"event {kind} could not be sent ({way}): {message}; the bridge tries again"
                    )
                    log(logging.WARNING, "event_not_sent", text, kind=kind, way=way)
            case SideDown(failure=failure, instance_id=name):
                self._said_s[failure.side] = self._steady_s()
                text = f"{failure.side} cannot be used ({failure.problem}): {failure.message}"
                fields = {"side": failure.side, "problem": failure.problem} | _failed_at(name)
                log(logging.ERROR, "side_down", f"{text} {failure.advice}".strip(), **fields)
            case SideStillDown(failure=failure, down_s=down_s, instance_id=name):
                if self._quiet_since(failure.side):
                    text = f"{failure.side} still cannot be used after {down_s:.0f} s"
                    fields = {"side": failure.side, "problem": failure.problem} | _failed_at(name)
                    text += f": {failure.message}"
                    if name:
                        text += f" It failed last at instance {name}."
                    log(logging.ERROR, "side_still_down", text, **fields, down_s=round(down_s))
            case SideUp(side=side, down_s=down_s):
                text = f"{side} works again after {down_s:.1f} s"
                log(logging.INFO, "side_up", text, side=side, down_s=round(down_s, 1))

    def _quiet_since(self, subject: str) -> bool:
        """Whether nothing was said of a lasting trouble for a while; notes that it is said now."""
        now_s = self._steady_s()
        if now_s - self._said_s.get(subject, float("-inf")) < REPEAT_S:
            return False
        self._said_s[subject] = now_s
        return True


def _log_beside(event: ParkedRetried | WorkerLost) -> None:
    match event:
        case ParkedRetried(move=move, reason=reason, result=result):
            text = f"tried parked {_name(move)} ({reason}) again: {result}"
            log(logging.INFO, "parked_retried", text, **_of(move), reason=reason, result=result)
        case WorkerLost(move=move, failure=failure):
            text = f"the worker process of {_name(move)} ended: {failure.message}"
            log(logging.WARNING, "worker_lost", text, **_of(move), reason=failure.reason)


def _log_page(read: PageRead, deleted: int) -> None:
    """``deleted``: so many instances this bridge has deleted at the source since the last pages.

    The last rows of each go with it, before or after they were read: those of the marks that tell
    source and target apart, and that its patient, study and series are stable.
    """
    text = f"read the feed up to {read.frontier}: {read.new} new, {read.late} of them late"
    level = logging.INFO if read.late else logging.DEBUG
    if read.missing:
        is_ours = read.missing <= OWN_ROWS_MAX * deleted
        level = level if is_ours else logging.WARNING
        text += (
            f"; {counted(read.missing, 'change')} MISSING: deleted at the source before the bridge "
            "read them"
        )
        if deleted:
            whose = "may all be" if is_ours else "may partly be"
            text += (
                f". This bridge deleted {counted(deleted, 'instance')} there "
                f"(BRIDGE_SOURCE_RETENTION): the missing changes {whose} theirs"
            )
    if read.refused:
        level = logging.ERROR
        text += (
            f"; {counted(read.refused, 'row')} REFUSED: their instance IDs are not valid Orthanc "
            "identifiers, so they are not moved; check the proxy in front of the source"
        )
    counts = {"new": read.new, "late": read.late, "missing": read.missing, "refused": read.refused}
    log(level, "page_read", text, **counts, frontier=read.frontier)


def _log_gaps(closed: GapsClosed) -> None:
    text = (
        f"gaps of the feed: {closed.filled} sequences got a row, {closed.expired} expired without "
        "one"
    )
    if closed.given_up:
        text += (
            f"; {closed.given_up} DROPPED because there were more gaps than BRIDGE_FEED_GAPS_MAX; "
            "run orthanc-bridge check --fix"
        )
    level = logging.ERROR if closed.given_up else logging.DEBUG
    log(level, "gaps_closed", text, **asdict(closed))


def _log_notice(event: NoticeSent | NoticesDropped | TellingFailed | TellingWorks) -> None:
    match event:
        case NoticeSent(kind=kind, way=way):
            log(logging.DEBUG, "event_sent", f"event {kind} was sent ({way})", kind=kind, way=way)
        case NoticesDropped(count=count):
            text = f"{counted(count, 'event')} DROPPED unsent: they were too old, or too many"
            log(logging.ERROR, "events_dropped", text, count=count)
        case TellingFailed(message=message):
            text = (
                "the bridge cannot find out which studies are complete, so it sends no "
                f"event about them: {message}"
            )
            log(logging.WARNING, "telling_failed", text)
        case TellingWorks():
            log(
                logging.INFO,
                "telling_works",
                "the bridge can find out again which studies are complete",
            )


def _failed_at(instance_id: str) -> dict[str, str]:
    """Return the field of a line about a server that failed at an instance."""
    return {"instance": instance_id} if instance_id else {}


def _log_service(event: Event) -> None:  # noqa: PLR0912 (a table of events)
    match event:
        case InstanceDropped(move=move, reason=reason):
            text = f"dropped {_name(move)} ({reason}): it was not delivered and is not tried again"
            log(logging.WARNING, "instance_dropped", text, **_of(move), reason=reason)
        case ActionTaken(who=who, action=action, detail=detail, result=result):
            text = f"{who} (token): {action} {detail}".rstrip() + f": {result}"
            fields = {"who": who, "action": action, "detail": detail, "result": result}
            log(logging.WARNING, "action", text, **fields)
        case GapsClosed():
            _log_gaps(event)
        case SourceSwept(deleted=deleted, differing=differing):
            text = f"deleted {deleted} delivered instances from the source"
            if differing:
                text += (
                    f"; kept {differing} that differ from what was delivered, or could not be "
                    "compared"
                )
            level = logging.WARNING if differing else logging.INFO
            log(level, "source_swept", text, deleted=deleted, differing=differing)
        case Recounted() | MissedFound() | RecountFailed():
            _log_recount(event)
        case RulesRead() | RulesRefused():
            _log_rules(event)
        case NoticeSent() | NoticesDropped() | TellingFailed() | TellingWorks():
            _log_notice(event)
        case CopyFound() | CopyReplaces() | CopyRepaired() | CopyNotRepaired() | TargetDeletes():
            _log_copy(event)
        case TargetKept(instance_id=instance_id, message=message):
            text = f"kept {instance_id} at the target: {message}"
            log(logging.WARNING, "target_kept", text, instance=instance_id)
        case Verified():
            text = (
                f"verified {counted(event.instances, 'instance')}: "
                f"{counted(event.differences, 'difference')}, {event.repaired} repaired, "
                f"{event.failed} not repaired, {event.deleted} deleted at the target"
            )
            level = logging.WARNING if event.differences > event.repaired else logging.INFO
            log(level, "verified", text, **event.counts)
        case Carried() | CarryLeft() | CarryFailed() | CarryRoundEnded():
            _log_carry(event)
        case Signed() | SignLeft() | SignFailed():
            _log_sign(event)
        case StateFailed(message=message):
            log(logging.ERROR, "state_failed", message)
        case StateRecovered():
            log(logging.INFO, "state_recovered", "the state file can be written again")
        case FeedDoubted() | FeedTrusted() | FeedReset():
            _log_feed(event)
        case Draining(in_flight=in_flight):
            text = f"stopping: {in_flight} instances may finish"
            log(logging.INFO, "draining", text, in_flight=in_flight)
        case Abandoned(in_flight=in_flight):
            text = f"stopped with {in_flight} instances unfinished; the next start delivers them"
            log(logging.WARNING, "abandoned", text, in_flight=in_flight)


def _log_feed(event: FeedDoubted | FeedTrusted | FeedReset) -> None:
    match event:
        case FeedDoubted(message=message):
            text = f"{message} Nothing more is moved or deleted until that is certain."
            log(logging.WARNING, "feed_doubted", text)
        case FeedTrusted():
            text = "the source has the feed that was followed: the bridge continues"
            log(logging.INFO, "feed_trusted", text)
        case FeedReset(message=message):
            log(logging.ERROR, "feed_reset", message)


def _log_rules(event: RulesRead | RulesRefused) -> None:
    match event:
        case RulesRead(generation=generation, rules=rules):
            text = f"read the changed rules file: {counted(rules, 'rule')}, generation {generation}"
            log(logging.INFO, "rules_read", text, generation=generation, rules=rules)
        case RulesRefused(message=message, generation=generation):
            text = f"{message} The bridge keeps using the rules of generation {generation}."
            log(logging.ERROR, "rules_refused", text, generation=generation)


def _log_copy(
    event: CopyFound | CopyReplaces | CopyRepaired | CopyNotRepaired | TargetDeletes,
) -> None:
    of = {"instance": event.instance_id}
    match event:
        case CopyFound(instance_id=instance_id, state=state, advice=advice):
            text = f"the target's copy of {instance_id} is wrong: {state}"
            if state == "missing":
                text = f"the target lacks {instance_id}"
            if advice:
                text = f"the copy of {instance_id} at the target ({state}): {advice}"
            log(logging.WARNING, "copy_found", text, **of, state=state)
        case CopyReplaces(instance_id=instance_id, state=state):
            text = (
                f"replacing the target's copy of {instance_id} ({state}): deletes it, then sends "
            )
            text += "the source's instance"
            if state == "missing":
                text = f"sending {instance_id} to the target, which lacks it"
            log(logging.WARNING, "copy_replaces", text, **of, state=state)
        case CopyRepaired(instance_id=instance_id, state=state):
            text = f"repaired {instance_id} at the target; it was: {state}"
            log(logging.WARNING, "copy_repaired", text, **of, state=state)
        case CopyNotRepaired(instance_id=instance_id, state=state, message=message):
            text = f"could not repair the copy of {instance_id} at the target ({state}): {message}"
            log(logging.ERROR, "copy_not_repaired", text, **of, state=state)
        case TargetDeletes(instance_id=instance_id, lacking_s=lacking_s):
            text = f"deleting {instance_id} at the target: the source has lacked it for "
            log(logging.WARNING, "target_deletes", f"{text}{lasting(lacking_s)}", **of)


def _log_carry(event: Carried | CarryLeft | CarryFailed | CarryRoundEnded) -> None:
    """Name what an operator has listed; never a value or a label, which a user has written."""
    match event:
        case Carried(resource_id=resource_id, written=written):
            text = f"wrote labels, metadata or attachments of {resource_id} at the target"
            log(logging.DEBUG, "carried", text, resource=resource_id, **written)
        case CarryLeft(resource_id=resource_id, name=name, why=why):
            text = f"left {name} of {resource_id} unchanged at the target: {CARRY_LEFT[why]}"
            log(logging.WARNING, "carry_left", text, resource=resource_id, name=name, reason=why)
        case CarryFailed(resource_id=resource_id, name=name, message=message):
            text = (
                f"could not copy {name} of {resource_id} to the target: {message} The "
                "bridge tries again."
            )
            log(logging.WARNING, "carry_failed", text, resource=resource_id, name=name)
        case CarryRoundEnded(resources=resources, left=left, failed=failed):
            text = f"compared labels, metadata and attachments: {counted(resources, 'resource')}, "
            text += f"{left} values left as they are, {failed} resources wait"
            log(logging.INFO, "carry_round", text, resources=resources, left=left, failed=failed)


def _log_sign(event: Signed | SignLeft | SignFailed) -> None:
    match event:
        case Signed(instance_id=instance_id, kind=kind):
            text = f"signed {instance_id} at the source as delivered"
            log(logging.DEBUG, "signed", text, instance=instance_id, kind=kind)
        case SignLeft(instance_id=instance_id, why=why):
            text = f"{instance_id} is delivered and not signed at the source: {SIGN_LEFT[why]}"
            log(logging.WARNING, "sign_left", text, instance=instance_id, reason=why)
        case SignFailed(instance_id=instance_id, message=message):
            text = f"{instance_id} could not be signed at the source: {message}"
            log(logging.WARNING, "sign_failed", text, instance=instance_id)


def _log_recount(event: Recounted | MissedFound | RecountFailed) -> None:
    match event:
        case Recounted(held=held, unexplained=unexplained):
            text = "the source holds what its feed reported"
            if held is None:
                text = "the bridge has seen everything that the source's feed names"
            level = logging.DEBUG
            if unexplained:
                level = logging.WARNING
                text = (
                    f"the source holds {counted(unexplained, 'instance')} that its feed did not "
                    "report; to deliver what the target lacks: orthanc-bridge check --fix"
                )
            log(level, "recounted", text, held=held, unexplained=unexplained)
        case MissedFound(move=move):
            text = f"the source's feed did not report {_name(move)}; a recount found it"
            log(logging.WARNING, "missed_found", text, **_of(move))
        case RecountFailed(message=message):
            text = f"the source's instances cannot be counted at present: {message}"
            log(logging.WARNING, "recount_failed", text)


def _log_parked(event: InstanceParked) -> None:
    tries = counted(event.attempts, "attempt")
    did = "tried again and left parked" if event.retries else "parked"
    text = f"{did} {_name(event.move)} after {tries}: {event.reason}: {event.message}"
    log(
        logging.INFO if event.retries else logging.ERROR,
        "instance_parked",
        text,
        **_of(event.move),
        reason=event.reason,
        attempts=event.attempts,
        detail=event.message,
        source_syntax=event.source_syntax,
    )


def _log_delivered(move: Move, done: Delivered, attempt: int) -> None:
    level = logging.WARNING if done.differing or done.trusted else logging.INFO
    if not LOGGER.isEnabledFor(level):
        return
    stages = done.stages
    what = "already there" if done.already_there else str(done.action)
    if done.differing:
        what += "; the target kept its own file, with OTHER BYTES than the bridge sent:"
    if done.trusted:
        what += f" against its label ({done.trusted})"
    syntaxes = f"{keyword_of(done.source_syntax)} -> {keyword_of(done.target_syntax)}"
    text = (
        f"{what} {_name(move)} {syntaxes} {done.source_bytes} -> {done.target_bytes} B in "
        f"{stages.total_s * 1000:.0f} ms"
    )
    log(
        level,
        "instance_delivered",
        text,
        **_of(move),
        status=done.status,
        action=done.action,
        source_syntax=done.source_syntax,
        target_syntax=done.target_syntax,
        source_bytes=done.source_bytes,
        target_bytes=done.target_bytes,
        decoder=done.decoder,
        fallbacks=list(done.fallbacks),
        trusted=done.trusted,
        attempt=attempt,
        differing=done.differing,
        **_milliseconds(stages),
    )


def _milliseconds(stages: StageTimes) -> dict[str, object]:
    return {
        "fetch_ms": round(stages.fetch_s * 1000, 1),
        "transcode_ms": round(stages.transcode_s * 1000, 1),
        "deliver_ms": round(stages.deliver_s * 1000, 1),
        "prove_ms": round(stages.prove_s * 1000, 1),
    }


def _or_none(number: int | None) -> str:
    return "none" if number is None else str(number)


def _name(move: Move) -> str:
    return move.instance_id if move.sequence is None else f"#{move.sequence} {move.instance_id}"


def _of(move: Move) -> dict[str, object]:
    return {"sequence": move.sequence, "instance": move.instance_id}
