from __future__ import annotations

import pytest

from bridge.core.model import (
    Action,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
)
from bridge.core.policy import (
    Decision,
    Defer,
    Limits,
    Park,
    PauseSide,
    RetryLater,
    Settle,
    backoff_s,
    decide,
)

LIMITS = Limits(attempts_max=3, retry_first_s=1.0, retry_longest_s=60.0)
DONE = Delivered("Success", Action.UNCHANGED, "1.2", "1.2", "1.2.3", 1, 1, StageTimes())
BROKEN = InstanceFailed(Reason.UNDECODABLE, "broken", final=True)
FLAKY = InstanceFailed(Reason.WORKER_DIED, "died")
DOWN = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "refused")
LIMIT_413 = SideFailed(SideName.TARGET, SideProblem.BODY_LIMIT, "413")
ERROR_500 = SideFailed(SideName.TARGET, SideProblem.SERVER_ERROR, "500", specific=True)


@pytest.mark.parametrize(
    ("outcome", "attempts", "served_others", "expected"),
    [
        # Finished is finished, however many attempts it took.
        (DONE, 0, False, Settle()),
        (DONE, 2, False, Settle()),
        (Skipped(Reason.GONE), 0, False, Settle()),
        # The bytes are what they are: a second look cannot help.
        (BROKEN, 0, False, Park(Reason.UNDECODABLE, "broken", 1)),
        # A lost worker may have been bad luck: the attempts of the setting, then parked.
        (FLAKY, 0, False, RetryLater(1.0, 1)),
        (FLAKY, 1, False, RetryLater(2.0, 2)),
        (FLAKY, 2, False, Park(Reason.WORKER_DIED, "died", 3)),
        # An outage spends nothing, ever (G4).
        (DOWN, 0, False, PauseSide(SideName.TARGET, SideProblem.UNREACHABLE)),
        (DOWN, 2, True, PauseSide(SideName.TARGET, SideProblem.UNREACHABLE)),
        # An error 500 is an outage until the server is seen to serve others.
        (ERROR_500, 0, False, PauseSide(SideName.TARGET, SideProblem.SERVER_ERROR)),
        (ERROR_500, 0, True, RetryLater(1.0, 1)),
        (
            ERROR_500,
            2,
            True,
            Park(
                Reason.SERVER_REFUSES_INSTANCE,
                "The target serves other instances but not this one: 500",
                3,
            ),
        ),
        # A limit on the way is an outage, until others are seen to pass: then this one waits,
        # for ever if need be, and is never parked.
        (LIMIT_413, 0, False, PauseSide(SideName.TARGET, SideProblem.BODY_LIMIT)),
        (LIMIT_413, 2, True, Defer(1.0)),
        # The pool's own trouble is not the instance's.
        (ExecutorFailed("pool"), 2, False, RetryLater(1.0, 2)),
        # Nor is a disk that is full; but it is asked for more and more seldom.
        (ExecutorFailed("no room", specific=True), 2, False, Defer(1.0)),
    ],
)
def test_decide(outcome: Outcome, attempts: int, served_others: bool, expected: Decision) -> None:
    got = decide(outcome, attempts=attempts, limits=LIMITS, served_others=served_others)
    assert got == expected


@pytest.mark.parametrize(
    ("count", "chance", "expected_s"),
    [(1, 1.0, 1.0), (1, 0.0, 0.5), (3, 1.0, 4.0), (6, 1.0, 10.0), (5000, 0.0, 5.0)],
)
def test_backoff_doubles_up_to_its_limit(count: int, chance: float, expected_s: float) -> None:
    assert backoff_s(count, first_s=1.0, longest_s=10.0, chance=chance) == expected_s
