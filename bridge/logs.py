"""What the log says of each event. Identifiers and UIDs only, never patient data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from bridge.core.crew import LOCAL, NOBODY, Crew
from bridge.core.events import (
    Abandoned,
    Draining,
    Event,
    FeedReset,
    InstanceParked,
    InstanceRetried,
    PageRead,
    Progress,
    Settled,
    SideDown,
    SideStillDown,
    SideUp,
    SourceSwept,
    StateFailed,
    StateRecovered,
    WorkerLost,
)
from bridge.core.headline import counted
from bridge.core.model import Delivered, ExecutorFailed, Move, SideFailed, Skipped, StageTimes
from bridge.core.syntaxes import SYNTAXES
from bridge.log_lines import LOGGER, log

REPEAT_S = 60.0
"""An outage that goes on is said again this often."""
LASTING_HOLDS = ("paused", "quiet_hours")
"""A rate limit holds and lets go many times a second: nothing for a log."""
COMMANDS = ("replaying", "retrying")
"""Phases of a command that a person has just started and knows of."""


class LogObserver:
    """Turns events into log lines, and changes of phase."""

    def __init__(self, *, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._steady_s = steady_s
        self._said_s: dict[str, float] = {}
        self._phase = ""
        self._hold = ""
        self._crew = NOBODY

    def on_progress(self, progress: Progress) -> None:
        """Say what the bridge does from now on, when that changes."""
        if progress.phase != self._phase:
            self._phase = progress.phase
            text = f"{progress.phase}, checkpoint {_or_none(progress.checkpoint)}"
            fields = {"phase": progress.phase, "checkpoint": progress.checkpoint}
            level = logging.DEBUG if progress.phase in COMMANDS else logging.INFO
            log(level, "phase", text, **fields)
        hold = progress.hold if progress.hold in LASTING_HOLDS else ""
        if hold != self._hold:
            self._hold = hold
            text = f"nothing new is started: {hold}" if hold else "going on"
            log(logging.INFO, "hold", text, hold=hold)
        if progress.crew != self._crew:
            self._about_the_crew(self._crew, progress.crew)
            self._crew = progress.crew

    def _about_the_crew(self, before: Crew, now: Crew) -> None:
        """Say how a cluster changes; the bridge's own workers are always there."""
        if now.place == LOCAL:
            return
        for refused in set(now.refused) - set(before.refused):
            text = f"the worker {refused.address} gets no work: {refused.reason}"
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
            case Settled(move=move, outcome=Skipped(reason=reason) as skipped):
                text = f"skipped {_name(move)}: {skipped.message or reason}"
                known = {"reason": reason, "source_syntax": skipped.source_syntax}
                log(logging.INFO, "instance_skipped", text, **_of(move), **known)
            case InstanceParked():
                _log_parked(event)
            case InstanceRetried(outcome=SideFailed(side=side)) if not self._quiet_since(
                f"{side} refuses"
            ):
                pass  # a limit on the way may refuse thousands
            case InstanceRetried(move=move, outcome=ExecutorFailed() as failed):
                if self._quiet_since("executor"):
                    why = f"{failed.message} {failed.advice}".strip()
                    text = f"an attempt was lost, of {_name(move)}: {why}"
                    log(logging.ERROR, "executor_failed", text, **_of(move))
            case InstanceRetried(move=move, outcome=outcome, attempts=attempts, after_s=after_s):
                why = f"{getattr(outcome, 'message', '')} {getattr(outcome, 'advice', '')}".strip()
                text = f"will retry {_name(move)} in {after_s:.1f} s ({attempts} spent): {why}"
                fields = {"attempts": attempts, "after_s": round(after_s, 1), "detail": why}
                log(logging.WARNING, "instance_retried", text, **_of(move), **fields)
            case WorkerLost(move=move, failure=failure):
                text = f"lost a worker with {_name(move)}: {failure.message}"
                log(logging.WARNING, "worker_lost", text, **_of(move), reason=failure.reason)
            case PageRead(new=new, late=late, frontier=frontier, missing=missing):
                level = logging.WARNING if late or missing else logging.DEBUG
                text = f"read the feed up to {frontier}: {new} new, {late} of them late"
                if missing:
                    text += (
                        f"; {counted(missing, 'change')} MISSING: deleted at the source before "
                        "we read of it"
                    )
                fields = {"new": new, "late": late, "missing": missing, "frontier": frontier}
                log(level, "page_read", text, **fields)
            case SideDown() | SideStillDown() | SideUp():
                self._about_a_side(event)
            case _:
                _log_service(event)

    def _about_a_side(self, event: SideDown | SideStillDown | SideUp) -> None:
        match event:
            case SideDown(failure=failure):
                self._said_s[failure.side] = self._steady_s()
                text = f"{failure.side} is unusable ({failure.problem}): {failure.message}"
                fields = {"side": failure.side, "problem": failure.problem}
                log(logging.ERROR, "side_down", f"{text} {failure.advice}".strip(), **fields)
            case SideStillDown(failure=failure, down_s=down_s):
                if self._quiet_since(failure.side):
                    text = f"{failure.side} is still unusable after {down_s:.0f} s"
                    fields = {"side": failure.side, "problem": failure.problem}
                    text += f": {failure.message}"
                    log(logging.ERROR, "side_still_down", text, **fields, down_s=round(down_s))
            case SideUp(side=side, down_s=down_s):
                text = f"{side} serves again after {down_s:.1f} s"
                log(logging.INFO, "side_up", text, side=side, down_s=round(down_s, 1))

    def _quiet_since(self, subject: str) -> bool:
        """Whether nothing was said of a lasting trouble for a while; notes that it is said now."""
        now_s = self._steady_s()
        if now_s - self._said_s.get(subject, float("-inf")) < REPEAT_S:
            return False
        self._said_s[subject] = now_s
        return True


def _log_service(event: Event) -> None:
    match event:
        case SourceSwept(deleted=deleted, differing=differing):
            text = f"deleted {deleted} delivered instances from the source"
            if differing:
                text += f"; spared {differing} that differ from what was moved, or were not judged"
            level = logging.WARNING if differing else logging.INFO
            log(level, "source_swept", text, deleted=deleted, differing=differing)
        case StateFailed(message=message):
            log(logging.ERROR, "state_failed", message)
        case StateRecovered():
            log(logging.INFO, "state_recovered", "the state file can be written again")
        case FeedReset(message=message):
            log(logging.ERROR, "feed_reset", message)
        case Draining(in_flight=in_flight):
            text = f"stopping: {in_flight} instances may finish"
            log(logging.INFO, "draining", text, in_flight=in_flight)
        case Abandoned(in_flight=in_flight):
            text = f"left {in_flight} instances unfinished; they are done after the restart"
            log(logging.WARNING, "abandoned", text, in_flight=in_flight)


def _log_parked(event: InstanceParked) -> None:
    tries = counted(event.attempts, "attempt")
    text = f"parked {_name(event.move)} after {tries}: {event.reason}: {event.message}"
    log(
        logging.ERROR,
        "instance_parked",
        text,
        **_of(event.move),
        reason=event.reason,
        attempts=event.attempts,
        detail=event.message,
        source_syntax=event.source_syntax,
    )


def _log_delivered(move: Move, done: Delivered, attempt: int) -> None:
    level = logging.WARNING if done.differing else logging.INFO
    if not LOGGER.isEnabledFor(level):
        return
    stages = done.stages
    what = "already there" if done.already_there else str(done.action)
    if done.differing:
        what += ", with OTHER BYTES than were sent now, and kept so:"
    text = (
        f"{what} {_name(move)} {_keyword(done.source_syntax)} -> {_keyword(done.target_syntax)} "
        f"{done.source_bytes} -> {done.target_bytes} B in {stages.total_s * 1000:.0f} ms"
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


def _keyword(uid: str) -> str:
    """Return the name that people know a transfer syntax by, or its UID."""
    return SYNTAXES[uid].keyword if uid in SYNTAXES else uid


def _or_none(number: int | None) -> str:
    return "none" if number is None else str(number)


def _name(move: Move) -> str:
    return move.instance_id if move.sequence is None else f"#{move.sequence} {move.instance_id}"


def _of(move: Move) -> dict[str, object]:
    return {"sequence": move.sequence, "instance": move.instance_id}
