"""What to do with an outcome: one pure function, tested as a table.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, chance as a number between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bridge.feed.polling import backoff_s
from bridge.model import (
    AnswerKind,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    answer_of,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient the pipeline is with one instance."""

    attempts_max: int = 3
    retry_first_s: float = 1.0
    retry_longest_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Settle:
    """Finished: nothing more to do for this change."""


@dataclass(frozen=True, slots=True)
class Park:
    """Finished without delivery: remember it with its reason (parked_policy.py: what follows)."""

    reason: Reason
    message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Try this instance again, not before ``after_s`` seconds from now."""

    after_s: float
    attempts: int


@dataclass(frozen=True, slots=True)
class PauseSide:
    """A server is the problem: everything waits, and the instance spends no attempt (G4)."""

    side: SideName
    problem: SideProblem


@dataclass(frozen=True, slots=True)
class Defer:
    """A server refuses this instance with an answer that is not about it, and serves others.

    A proxy's limit or a filter of rights, for example; or there is no room on our disk for this
    one. It waits for ``after_s`` seconds at least, spends no attempt and is never parked; the
    others go on.
    """

    after_s: float


Decision = Settle | Park | RetryLater | PauseSide | Defer


class Others(StrEnum):
    """What is known of other instances since this one failed first."""

    SERVED = "others were served since"
    WELL = "another file came when asked for"
    """Of the source only: in a quiet feed it is asked for the file of another instance."""
    SOLE = "the source holds only this one"
    """Its other routes answer, and tell of this one. A few that were parked do not count."""
    ABSENT = "all others fail as well"
    """The source holds none but those that are known to fail."""
    NONE = "nothing else to serve"
    """Or others fail as well."""


class Blame(StrEnum):
    """Whose trouble a failure is."""

    OUTAGE = "outage"
    """Everything waits; nothing is spent (G4)."""
    INSTANCE = "this instance"
    """It spends its attempts and is parked; the others go on (G5)."""
    SETTING = "this side's setting"
    """The instance waits and spends nothing; the others go on; /health names it."""


BLAMES: Mapping[AnswerKind, Mapping[Others, Blame]] = {
    AnswerKind.SILENCE: dict.fromkeys(Others, Blame.OUTAGE),
    AnswerKind.SETTING: {
        Others.SERVED: Blame.SETTING,
        Others.WELL: Blame.SETTING,
        Others.SOLE: Blame.OUTAGE,
        Others.ABSENT: Blame.OUTAGE,
        Others.NONE: Blame.OUTAGE,
    },
    AnswerKind.LIMIT: {
        Others.SERVED: Blame.SETTING,
        Others.WELL: Blame.SETTING,
        Others.SOLE: Blame.OUTAGE,
        Others.ABSENT: Blame.OUTAGE,
        Others.NONE: Blame.OUTAGE,
    },
    AnswerKind.ERROR: {
        Others.SERVED: Blame.INSTANCE,
        Others.WELL: Blame.INSTANCE,
        # At most SOLE_MAX in a row: more lost files are a lost disk.
        Others.SOLE: Blame.INSTANCE,
        Others.ABSENT: Blame.OUTAGE,
        Others.NONE: Blame.OUTAGE,
    },
    AnswerKind.NOT_OURS: {
        Others.SERVED: Blame.INSTANCE,
        Others.WELL: Blame.INSTANCE,
        # The file was opened, so the disk is there.
        Others.SOLE: Blame.INSTANCE,
        Others.ABSENT: Blame.INSTANCE,
        Others.NONE: Blame.OUTAGE,
    },
}
"""The whole question in one table; docs/faults.md has it for people, and a test compares."""

SOLE_MAX = 3
"""So many instances in a row are parked without another file to compare with. Any file that the
source gives begins the count again; a restart does not, nor does the deletion of those files. If
none has been served by then, the source's storage is away and everything waits."""

DELAY_FIRST_S = 0.2
DELAY_LONGEST_S = 75.0
"""With the jitter never less than a minute."""
DELAY_SPREAD = 0.2
FIRST_MINUTE_S = 60.0
DELAYS_UNTIL_LONGEST = 10
"""From so many on each delay is the longest: the first, doubled nine times, is above it."""


def delay_s(count: int, *, chance: float, since_s: float = 0.0) -> float:
    """Delay before an instance that may be the trouble is tried again, for the ``count``-th time.

    Whatever the poll interval: at most 12 attempts in the first minute, then at most one a minute.
    ``since_s``: how long ago it was delayed for the first time. It may have had few attempts since,
    because others were tried: that makes up for none of the first minute.
    """
    if since_s >= FIRST_MINUTE_S:
        count = max(count, DELAYS_UNTIL_LONGEST)
    return backoff_s(
        count, first_s=DELAY_FIRST_S, longest_s=DELAY_LONGEST_S, chance=chance, spread=DELAY_SPREAD
    )


def decide(  # noqa: PLR0911 (a table of outcomes)
    outcome: Outcome,
    *,
    attempts: int,
    limits: Limits,
    refusals: int = 0,
    delays: int = 0,
    delayed_s: float = 0.0,
    others: Others = Others.NONE,
    alone: bool = False,
    died: bool = False,
    chance: float = 1.0,
) -> Decision:
    """Decide what follows from the outcome of one attempt.

    ``attempts``: attempts that this instance has spent before this one.
    ``refusals``: how often it has been deferred before.
    ``delays``: how often it has been delayed or deferred because of a server, ``delayed_s`` seconds
    ago for the first time.
    ``others``: what is known of other instances since this one last failed at that server.
    ``alone``: the instance was a suspect, and the only one under way.
    ``died``: and the server did not answer a probe right after it.
    """
    match outcome:
        case Delivered() | Skipped():
            return Settle()
        case InstanceFailed(reason=reason, message=message, final=final):
            return _spend(reason, message, attempts, limits, final=final, chance=chance)
        case SideFailed(side=side, message=message) if alone and died:
            return _spend(_DEATHS[side], message, attempts, limits, final=False, chance=chance)
        case SideFailed(side=side, message=message) if _blame(outcome, others, alone=alone) is (
            Blame.INSTANCE
        ):
            reason = Reason.SERVER_REFUSES_INSTANCE
            text = f"The {side} {_SEEN[others]}: {message}"
            return _spend(reason, text, attempts, limits, final=False, chance=chance)
        case SideFailed() if _blame(outcome, others, alone=alone) is Blame.SETTING:
            return Defer(delay_s(delays + 1, chance=chance, since_s=delayed_s))
        case SideFailed(side=side, problem=problem):
            return PauseSide(side, problem)
        case ExecutorFailed(specific=True):
            return _defer(refusals, limits, chance)
        case ExecutorFailed():
            return RetryLater(limits.retry_first_s, attempts)


_SEEN = {
    Others.SERVED: "serves other instances, but not this one",
    Others.WELL: "sent the file of another instance, but not of this one",
    Others.SOLE: "answers other requests, but does not send the file of this instance, the only "
    "one",
    Others.ABSENT: "answers, but sends the file of neither this instance nor any other",
}
"""What was found of others, where that makes a failure the instance's fault."""
_DEATHS = {SideName.SOURCE: Reason.SOURCE_DIED, SideName.TARGET: Reason.TARGET_DIED}


def _blame(failure: SideFailed, others: Others, *, alone: bool) -> Blame:
    """Look into the table; silence is an instance's fault only when it was alone."""
    answer = answer_of(failure)
    if answer is AnswerKind.SILENCE and alone and others in (Others.SERVED, Others.WELL):
        return Blame.INSTANCE
    return BLAMES[answer][others]


def _defer(refusals: int, limits: Limits, chance: float) -> Defer:
    first_s, longest_s = limits.retry_first_s, limits.retry_longest_s
    return Defer(backoff_s(refusals + 1, first_s=first_s, longest_s=longest_s, chance=chance))


def _spend(
    reason: Reason, message: str, attempts: int, limits: Limits, *, final: bool, chance: float
) -> Decision:
    spent = attempts + 1
    if final or spent >= limits.attempts_max:
        return Park(reason, message, spent)
    after_s = backoff_s(
        spent, first_s=limits.retry_first_s, longest_s=limits.retry_longest_s, chance=chance
    )
    return RetryLater(after_s, spent)
