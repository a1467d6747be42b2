"""What to do with an outcome: one pure function, tested as a table.

This file must not know: sockets, files, clocks, logging, settings.
Time enters as an argument, chance as a number between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.core.model import (
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
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
    """Finished without delivery: remember it with its reason until a person decides."""

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
    """A server is the problem: hold everything, keep the instance, spend no attempt (G4)."""

    side: SideName
    problem: SideProblem


@dataclass(frozen=True, slots=True)
class Defer:
    """A server refuses this instance with an answer that is not about it, and serves others.

    A proxy's limit, for example; or there is no room on our disk for this one. It waits, not before
    ``after_s`` seconds from now, spends no attempt and is never parked; the others go on.
    """

    after_s: float


Decision = Settle | Park | RetryLater | PauseSide | Defer

REFUSALS = frozenset(
    [
        SideProblem.FORBIDDEN,
        SideProblem.BODY_LIMIT,
        SideProblem.SERVER_ERROR,
        SideProblem.STORAGE_FULL,
        SideProblem.NOT_ORTHANC,
    ]
)
"""Answers that may be given to one instance and not to the next: a smaller one may still fit."""


def backoff_s(count: int, *, first_s: float, longest_s: float, chance: float) -> float:
    """Delay before try number ``count`` (1 is the first repeat): exponential, with jitter.

    ``chance`` in [0, 1] picks a point in the upper half of the interval, so that delays are
    spread but never near zero.
    """
    whole = min(longest_s, first_s * 2.0 ** min(count - 1, 32))
    return whole * (0.5 + 0.5 * chance)


def decide(  # noqa: PLR0911 (a table of outcomes)
    outcome: Outcome,
    *,
    attempts: int,
    limits: Limits,
    refusals: int = 0,
    served_others: bool = False,
    alone: bool = False,
    died: bool = False,
    chance: float = 1.0,
) -> Decision:
    """Decide what follows from the outcome of one attempt.

    ``attempts``: attempts that this instance has spent before this one.
    ``refusals``: how often it has been deferred before.
    ``served_others``: since this instance last got an error of its own from that server, the
    server has served another one; then the error is held against the instance.
    ``alone``: the instance was under suspicion and the only one that the server had to do with.
    ``died``: and the server did not answer a probe right after it.
    """
    match outcome:
        case Delivered() | Skipped():
            return Settle()
        case InstanceFailed(reason=reason, message=message, final=final):
            return _spend(reason, message, attempts, limits, final=final, chance=chance)
        case SideFailed(side=side, message=message) if alone and died:
            return _spend(_DEATHS[side], message, attempts, limits, final=False, chance=chance)
        case SideFailed(specific=specific, side=side, message=message) if served_others and (
            specific or alone
        ):
            reason = Reason.SERVER_REFUSES_INSTANCE
            text = f"The {side} serves other instances but not this one: {message}"
            return _spend(reason, text, attempts, limits, final=False, chance=chance)
        case SideFailed(problem=problem) if served_others and problem in REFUSALS:
            return _defer(refusals, limits, chance)
        case SideFailed(side=side, problem=problem):
            return PauseSide(side, problem)
        case ExecutorFailed(specific=True):
            return _defer(refusals, limits, chance)
        case ExecutorFailed():
            return RetryLater(limits.retry_first_s, attempts)


_DEATHS = {SideName.SOURCE: Reason.SOURCE_DIED, SideName.TARGET: Reason.TARGET_DIED}


def _defer(refusals: int, limits: Limits, chance: float) -> Defer:
    first_s, longest_s = limits.retry_first_s, limits.retry_longest_s
    return Defer(backoff_s(refusals + 1, first_s=first_s, longest_s=longest_s, chance=chance))


def _spend(
    reason: Reason, message: str, attempts: int, limits: Limits, *, final: bool, chance: float
) -> Decision:
    spent = attempts + 1
    if final or spent >= limits.attempts_max:
        return Park(reason, message, spent)
    delay_s = backoff_s(
        spent, first_s=limits.retry_first_s, longest_s=limits.retry_longest_s, chance=chance
    )
    return RetryLater(delay_s, spent)
