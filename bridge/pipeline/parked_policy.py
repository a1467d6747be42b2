"""When a parked instance is tried again without being asked for, by the reason it is parked for.

This file must not know: sockets, files, clocks, logging, settings.

One table says it for each reason. Where only time can help, the intervals grow, and the last one
is repeated or the policy gives up. Where the same bytes end in the same way, the instance is tried
again with other codecs, or with another bridge, once. All others wait for a person.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from bridge.ledger.records import Due, Parked, TriedBy
from bridge.model import Reason

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
VERSION_PAUSE_S = HOUR_S
"""Other codecs or another bridge: a retry that a server has cut short is repeated after so long."""
RETRIES_MAX = 2**31
"""More than any instance is ever tried."""


class Trigger(StrEnum):
    """What makes a parked instance be tried again."""

    TIME = "time"
    CODECS = "codecs"
    BRIDGE = "bridge"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Retry:
    """When what is parked for one reason is tried again. ``why`` is for people.

    ``intervals_s``: between the attempts. ``ends``: nothing follows the last one; it is repeated
    otherwise. ``alone``: nothing else is under way beside it.
    """

    trigger: Trigger
    why: str
    intervals_s: tuple[float, ...] = ()
    ends: bool = False
    alone: bool = False


_GROWING = (HOUR_S, 4 * HOUR_S, 12 * HOUR_S, DAY_S, 3 * DAY_S, 7 * DAY_S)
_DEATHS = (DAY_S, 3 * DAY_S, 7 * DAY_S)


def _never(why: str) -> Retry:
    return Retry(Trigger.NONE, why)


RETRIES: Mapping[Reason, Retry] = {
    Reason.FILTERED_OUT: Retry(
        Trigger.TIME, "somebody may change the filter of the target", _GROWING
    ),
    Reason.REJECTED_BY_TARGET: Retry(Trigger.TIME, "the target may accept it later", _GROWING),
    Reason.SERVER_REFUSES_INSTANCE: Retry(
        Trigger.TIME, "somebody may repair the server, or restore the file", _GROWING
    ),
    Reason.TARGET_DIED: Retry(
        Trigger.TIME,
        "somebody may repair the target; the bridge sends it alone, three times at most",
        _DEATHS,
        ends=True,
        alone=True,
    ),
    Reason.UNDECODABLE: Retry(Trigger.CODECS, "other codecs may decode it"),
    Reason.UNSUPPORTED_SYNTAX: Retry(Trigger.CODECS, "other codecs may know it"),
    Reason.INTERNAL: Retry(Trigger.BRIDGE, "another version of the bridge may have the bug fixed"),
    Reason.WRONG_SYNTAX_LABEL: _never(
        "the file stays wrong; BRIDGE_ON_WRONG_LABEL decides what to do"
    ),
    Reason.NOT_DICOM: _never("the file stays as it is"),
    Reason.TOO_LARGE: _never("the file stays as large"),
    Reason.VIDEO: _never("BRIDGE_ON_VIDEO decides what to do"),
    Reason.VERIFICATION_FAILED: _never("a person must look at the pixels"),
    Reason.IDENTITY_CHANGED: _never("a person must find out what changes its identifier"),
    Reason.PROOF_MISMATCH: _never("a person must compare what both servers hold"),
    Reason.SOURCE_DIED: _never("it would put the server with the original at risk again"),
    Reason.TIMED_OUT: _never("it would take as long again; raise BRIDGE_TASK_TIMEOUT_S first"),
    Reason.WORKER_DIED: _never("it would crash worker processes again"),
    Reason.OUT_OF_MEMORY: _never(
        "it would need as much memory again; raise BRIDGE_WORKER_MEMORY_MB first"
    ),
    Reason.CAME_BACK: _never("it goes in a circle that a person must stop"),
    Reason.GONE: _never("there is nothing to try"),
    Reason.RULE: _never("a rule has decided"),
    Reason.DRY_RUN: _never("nothing was tried"),
}
"""The whole policy; docs/operations.md has it for people, and a test compares."""


@dataclass(frozen=True, slots=True)
class NextRetry:
    """When a parked instance is tried again: ``at`` is epoch seconds, None where no time tells.

    ``trigger``: what makes it be tried again; NONE for never. ``why`` is for people.
    """

    trigger: Trigger
    why: str
    at: float | None = None


def next_retry(parked: Parked, now_with: TriedBy, *, now: float) -> NextRetry:
    """Tell when an instance is tried again, as things are.

    ``now_with``: what is installed. ``now``: epoch seconds. What was tried after now was tried
    while the clock was ahead, perhaps by years: it is due.
    """
    policy = RETRIES[parked.reason]
    match policy.trigger:
        case Trigger.TIME if policy.ends and parked.retries >= len(policy.intervals_s):
            return NextRetry(Trigger.NONE, f"it was tried again {parked.retries} times")
        case Trigger.TIME:
            step = min(parked.retries, len(policy.intervals_s) - 1)
            return NextRetry(policy.trigger, policy.why, _at(parked, policy.intervals_s[step], now))
        case Trigger.CODECS if parked.tried_by.codecs != now_with.codecs:
            return NextRetry(policy.trigger, "the codecs have changed", _after_pause(parked, now))
        case Trigger.BRIDGE if parked.tried_by.bridge != now_with.bridge:
            return NextRetry(policy.trigger, "the bridge has changed", _after_pause(parked, now))
        case _:
            return NextRetry(policy.trigger, policy.why)


def _after_pause(parked: Parked, now: float) -> float:
    return _at(parked, VERSION_PAUSE_S if parked.retries else 0.0, now)


def _at(parked: Parked, interval_s: float, now: float) -> float:
    return now if parked.tried_at > now else parked.tried_at + interval_s


def due_kinds(now: float, now_with: TriedBy) -> Iterator[Due]:
    """Yield what is to be tried again now, as questions to the ledger.

    They name what ``next_retry`` tells of with a time at or before ``now``, and nothing else.
    """
    for due in _due_by(now, now_with):
        yield due
        yield replace(due, tried_before=math.inf, tried_after=now)


def _due_by(now: float, now_with: TriedBy) -> Iterator[Due]:
    for reason, policy in RETRIES.items():
        match policy.trigger:
            case Trigger.TIME:
                last = len(policy.intervals_s) - 1
                for step, interval_s in enumerate(policy.intervals_s):
                    most = RETRIES_MAX if step == last and not policy.ends else step
                    yield Due(reason, step, most, now - interval_s)
            case Trigger.CODECS:
                for due in _steps(reason, now):
                    yield replace(due, other_codecs=now_with.codecs)
            case Trigger.BRIDGE:
                for due in _steps(reason, now):
                    yield replace(due, other_bridge=now_with.bridge)
            case Trigger.NONE:
                pass


def _steps(reason: Reason, now: float) -> tuple[Due, Due]:
    return (
        Due(reason, 0, 0, now),
        Due(reason, 1, RETRIES_MAX, now - VERSION_PAUSE_S),
    )
